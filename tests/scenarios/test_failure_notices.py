"""What the sender is told when recipients are given up."""

from __future__ import annotations

import asyncio
import email
from email import policy
from email.message import EmailMessage
from pathlib import Path

from mta.config.settings import Duration, Stream
from tests.fakes.peer import HELLO, TAKES, envelope
from tests.fakes.relay import relaying

REFUSED = envelope("250 ok", "550 5.1.1 who?", "550-5.7.1 not you\n-> 550 5.7.1 go away", "554 5.5.1 none")
ONE_REFUSED = envelope("250 ok", "550 5.1.1 who?", "554 5.5.1 none")
NOTICE = """
    <- RSET
    <- MAIL FROM:<>*
    <- RCPT TO:<a@src.test>
    <- DATA
    -> 250 ok
    -> 250 ok
    -> 250 ok
    -> 354 go on
    <- message
    -> 250 taken
"""
CONTENT = b"From: a@src.test\r\nSubject: hello\r\nMessage-ID: <1@src.test>\r\n\r\nSecret.\r\n"


def fields(part: object) -> dict[str, str]:
    assert isinstance(part, EmailMessage)
    return {name: str(value) for name, value in part.items()}


def shown(part: object) -> str:
    assert isinstance(part, EmailMessage)
    return str(part.get_content())


async def test_a_notice_is_a_delivery_status_report(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + REFUSED + NOTICE, notify=True) as relay:
        await relay.house.send("b@dst.test", "c@dst.test", content=CONTENT)
        delivery = await relay.house.event(type="delivery")
        notice = email.message_from_bytes(relay.peer.calls[0].messages[0], policy=policy.default)
        bounces = relay.house.of(type="bounce")
    assert (delivery["sender"], delivery["recipient"]) == ("", "a@src.test")
    assert notice.defects == []
    assert notice.get_content_type() == "multipart/report"
    assert notice["content-type"].params["report-type"] == "delivery-status"
    assert (notice["to"], notice["auto-submitted"]) == ("a@src.test", "auto-replied")
    assert notice["from"] == "Mail delivery <postmaster@mta.test>"
    assert notice["message-id"] == delivery["message_id"] == f"<{delivery['queue_id']}@mta.test>"
    text, status, headers = notice.iter_parts()
    assert "<b@dst.test>\r\n    was refused by 127.0.0.1:\r\n    550 5.1.1 who?\r\n" in shown(text)
    assert "550 5.7.1 not you\r\n    go away\r\n" in shown(text)
    assert status.get_content_type() == "message/delivery-status"
    about, first, second = status.iter_parts()
    assert fields(about)["Reporting-MTA"] == "dns; mta.test"
    assert fields(about)["X-Queue-ID"] == bounces[0]["queue_id"]
    assert fields(first) == {
        "Final-Recipient": "rfc822; b@dst.test",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; 127.0.0.1",
        "Diagnostic-Code": "smtp; 550 5.1.1 who?",
    }
    assert fields(second)["Diagnostic-Code"] == "smtp; 550 5.7.1 not you go away"
    assert headers.get_content_type() == "text/rfc822-headers"
    assert "Subject: hello\r\n" in shown(headers)
    assert "Secret" not in str(notice)


async def test_a_message_that_expires_brings_a_notice(tmp_path: Path) -> None:
    later = envelope("250 ok", "450 4.2.1 busy", "554 none")
    stream = Stream(expire=Duration(60))
    scripts = HELLO + later, HELLO + later + NOTICE
    async with relaying(tmp_path, *scripts, notify=True, stream=stream) as relay:
        await relay.house.send("b@dst.test")
        await relay.house.event(type="deferral")
        await relay.clock.advance(55)
        await relay.house.event(type="expiration")
        await relay.house.event(type="delivery", recipient="a@src.test")
        notice = relay.peer.calls[1].messages[0]
    said = b"could not be delivered in the time it was given; what 127.0.0.1 said last:\r\n    450 4.2.1 busy"
    assert said in notice
    assert b"\r\nStatus: 4.2.1\r\n" in notice  # RFC 3463 2: it could have worked later
    assert b"\r\nDiagnostic-Code: smtp; 450 4.2.1 busy\r\n" in notice


async def test_a_host_that_is_not_there_until_the_time_is_over(tmp_path: Path) -> None:
    """The last look meets a site that is left alone: the reason is the one of the attempt before."""
    stream = Stream(expire=Duration(190), retry_first=Duration(35))
    async with relaying(tmp_path, shut=True, notify=True, stream=stream) as relay:
        await relay.house.send("b@dst.test")
        await relay.house.event(type="deferral")
        while not relay.house.of(type="expiration"):
            await relay.clock.advance(15)
            await relay.house.daemon.spool.lease([])
        expiration = await relay.house.event(type="expiration")
        assert "Connection refused" in expiration["reply"]["text"]
        (notice,) = [each for each, _ in await relay.house.daemon.spool.reader.queue(9)]
        made = (await relay.house.daemon.spool.reader.content(notice.id)).decode()
    assert "\r\nStatus: 4.4.1\r\n" in made
    assert "\r\nDiagnostic-Code: x-local; No host answered: 127.0.0.1 [127.0.0.1]: Connection refused" in made
    assert "tried again" not in made


async def test_the_sender_hears_that_it_may_have_arrived(tmp_path: Path) -> None:
    script = HELLO + envelope("250 ok", "250 ok", "354 go on") + "<- message\nclose"
    first = NOTICE.replace("<- RSET\n", "").replace("-> 250 ok\n", "", 1)
    async with relaying(tmp_path, script, script, HELLO + first, notify=True) as relay:
        await relay.house.send("b@dst.test", content=CONTENT)
        await relay.told(2)
        await relay.come_due()
        await relay.house.event(type="delivery", recipient="a@src.test")
        notice = email.message_from_bytes(relay.peer.calls[2].messages[0], policy=policy.default)
        relay.heard = -1
    assert notice["subject"] == "Your mail may not have been delivered"
    text, status, _ = notice.iter_parts()
    assert "does not know whether it has delivered your message" in shown(text)
    assert "may have been taken by 127.0.0.1 or not, and is not sent again" in shown(text)
    said = fields(list(status.iter_parts())[1])
    assert (said["Action"], said["Status"]) == ("failed", "4.4.2")
    assert said["Diagnostic-Code"].startswith("x-local; The connection was lost after the final dot")


async def test_a_notice_that_is_given_up_from_disk_still_shows_the_header(tmp_path: Path) -> None:
    later = envelope("250 ok", "450 4.2.1 busy", "554 none")
    refused = HELLO + ONE_REFUSED + NOTICE
    async with relaying(tmp_path, HELLO + later, refused, notify=True) as relay:
        await relay.house.send("b@dst.test", content=CONTENT)
        await relay.house.event(type="deferral")
        await relay.clock.advance(301)
        await relay.house.event(type="delivery", recipient="a@src.test")
        assert b"\r\nSubject: hello\r\nMessage-ID: <1@src.test>\r\n" in relay.peer.calls[1].messages[0]


async def test_a_null_sender_gets_no_notice(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + ONE_REFUSED, notify=True) as relay:
        await relay.house.send("b@dst.test", sender="")
        await relay.house.event(type="bounce")
    assert relay.types() == ["reception", "bounce"]


async def test_a_credential_that_wants_no_notices_gets_none(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + ONE_REFUSED) as relay:
        await relay.house.send("b@dst.test")
        await relay.house.event(type="bounce")
    assert relay.types() == ["reception", "bounce"]


async def test_a_notice_that_is_refused_brings_no_notice(tmp_path: Path) -> None:
    refused = "<- RSET\n" + ONE_REFUSED.replace("-> 250 ok", "-> 250 reset\n-> 250 ok")
    async with relaying(tmp_path, HELLO + ONE_REFUSED + refused, notify=True) as relay:
        await relay.house.send("b@dst.test")
        await relay.house.event(2, type="bounce")
    assert sorted(relay.types()) == ["bounce", "bounce", "reception", "reception"]


async def test_a_delivery_brings_no_notice(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + TAKES, notify=True) as relay:
        await relay.house.send("b@dst.test")
        await relay.house.event(type="delivery")
    assert relay.types() == ["reception", "delivery"]


async def test_a_notice_that_the_disk_has_no_room_for_is_not_forgotten(tmp_path: Path) -> None:
    asked = "<- MAIL FROM:<*\n<- RCPT TO:<*\n<- DATA\nhold\n-> 250 ok\n-> 550 5.1.1 who?\n-> 554 5.5.1 none\n"
    content = b"From: a@src.test\r\n" + b"X-Long: " + b"x" * 60_000 + b"\r\n\r\nSecret.\r\n"
    async with relaying(tmp_path, HELLO + asked + NOTICE, notify=True) as relay:
        await relay.house.send("b@dst.test", content=content)
        await relay.peer.at(1, "hold")
        spool = relay.house.daemon.spool
        (pages,) = await (await spool._writer.execute("PRAGMA page_count")).fetchone()
        await spool._writer.execute(f"PRAGMA max_page_count = {pages}")
        relay.peer.go()
        async with asyncio.timeout(10):
            while spool.failing is None:  # noqa: ASYNC110 - the spool tells nobody else
                await asyncio.sleep(0)
        await spool._writer.execute("PRAGMA max_page_count = 1000000")
        await relay.clock.advance(1)
        await relay.house.event(type="bounce")
        assert (await relay.house.event(type="delivery"))["recipient"] == "a@src.test"
