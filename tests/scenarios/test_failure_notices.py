"""What the sender is told when recipients are given up."""

from __future__ import annotations

import asyncio
import email
from email import policy
from email.message import EmailMessage
from pathlib import Path

import pytest
from flufl.bounce import all_failures

from mta.config.settings import Duration, Stream
from tests.fakes.client import Client
from tests.fakes.peer import HELLO, TAKES, answers, envelope
from tests.fakes.relay import Relay, relaying

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
FIRST = NOTICE.replace("<- RSET\n", "").replace("-> 250 ok\n", "", 1)  # where nothing is to be reset
LATER = "450 4.2.1 busy"
SAID = dict[str, tuple[str, str]]  # by recipient: Status, Diagnostic-Code
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
    async with relaying(tmp_path, script, script, HELLO + FIRST, notify=True) as relay:
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


# What programs read in one: the fields agree, and exactly those that failed have failed for good


def read(octets: bytes) -> SAID:
    """What Python's `email` finds in a notice, by recipient; all that is said twice is said alike."""
    notice = email.message_from_bytes(octets, policy=policy.default)
    assert [part.defects for part in notice.walk() if part.defects] == []
    explanation, status, _ = notice.iter_parts()
    assert notice["content-type"].params["report-type"] == "delivery-status"
    said: SAID = {}
    if status.get_content_type() == "message/delivery-status":
        _, *blocks = (fields(part) for part in status.iter_parts())
    else:  # which `email` knows no more of than that it is a message
        text = octets.partition(b"message/global-delivery-status")[2].partition(b"\r\n--=_")[0].decode()
        _, *groups = text.partition("\r\n\r\n")[2].strip().split("\r\n\r\n")
        blocks = [dict(line.split(": ", 1) for line in group.split("\r\n")) for group in groups]
    for block in blocks:
        kind, address = block["Final-Recipient"].split("; ")
        assert (kind, block["Action"]) == ("rfc822" if address.isascii() else "utf-8", "failed")
        assert f"<{address}>\r\n" in shown(explanation)
        code, diagnostic = block["Status"], block["Diagnostic-Code"]
        source, words = diagnostic.split("; ", 1)
        assert (source == "smtp") is ("Remote-MTA" in block and words[:3].isdecimal())
        if source == "smtp":
            reply, enhanced, *_ = words.split()
            assert reply[0] == code[0]
            assert enhanced == code or enhanced[1:2] != "."
        assert words in " ".join(shown(explanation).encode("ascii", "backslashreplace").decode().split())
        said[address] = code, diagnostic
    assert len(said) == len(blocks)
    return said


def failed(octets: bytes) -> list[str]:
    """Whom flufl.bounce has failed for good; it finds nobody who would be worth another try."""
    temporary, permanent = all_failures(email.message_from_bytes(octets))
    assert temporary == frozenset()
    return sorted(address.decode() for address in permanent)


async def notice_of(
    relay: Relay, *recipients: str, content: bytes = CONTENT, sender: str = "a@src.test"
) -> bytes:
    """The notice, as the sender's server gets it in the last connection."""
    async with await Client.connect(relay.house.network) as client:
        await client.reply()
        await client.ehlo()
        parameter = "" if "".join((sender, *recipients)).isascii() else " SMTPUTF8"
        assert (await client.deliver(content, *recipients, sender=sender, mail=parameter))[:4] == "250 "
    await relay.house.event(type="delivery", recipient=sender)
    return relay.peer.calls[-1].messages[-1]


@pytest.mark.parametrize(
    ("stage", "reply", "status"),
    [
        pytest.param("MAIL", "550 5.7.1 not from you", "5.7.1", id="MAIL"),
        pytest.param("RCPT", "550 5.1.1 who?", "5.1.1", id="RCPT"),
        pytest.param("DATA", "554 5.7.1 no spam", "5.7.1", id="DATA"),
        pytest.param(".", "554 5.6.0 what a message", "5.6.0", id="final dot"),
        pytest.param("RCPT", "553 no", "5.0.0", id="without an enhanced code"),
        pytest.param("RCPT", "550-5.1.1 \udcff\x1b[1m\n550 5.1.1 <x@y.test>; a=b", "5.1.1", id="odd"),
    ],
)
async def test_programs_read_a_refusal_at_each_command(
    tmp_path: Path, stage: str, reply: str, status: str
) -> None:
    after = FIRST if stage in ("MAIL", ".") else NOTICE
    async with relaying(tmp_path, HELLO + answers(stage, reply) + after, notify=True) as relay:
        notice = await notice_of(relay, "b@dst.test")
    said = read(notice)
    assert [code for code, _ in said.values()] == [status]
    assert said["b@dst.test"][1].startswith(f"smtp; {reply[:3]} {reply[4:9]}".rstrip())
    assert failed(notice) == ["b@dst.test"]


async def test_programs_read_what_a_peer_said_last_of_what_expired(tmp_path: Path) -> None:
    scripts = HELLO + answers("RCPT", LATER), HELLO + answers("RCPT", LATER) + NOTICE
    async with relaying(tmp_path, *scripts, notify=True, stream=Stream(expire=Duration(60))) as relay:
        await relay.house.send("b@dst.test", content=CONTENT)
        await relay.house.event(type="deferral")
        await relay.clock.advance(55)
        await relay.house.event(type="delivery")
        notice = relay.peer.calls[-1].messages[-1]
    assert read(notice) == {"b@dst.test": ("4.2.1", f"smtp; {LATER}")}
    assert failed(notice) == ["b@dst.test"]


async def test_programs_read_that_nobody_ever_answered(tmp_path: Path) -> None:
    stream = Stream(expire=Duration(190), retry_first=Duration(35))
    async with relaying(tmp_path, HELLO + FIRST, shut=True, notify=True, stream=stream) as relay:
        await relay.house.send("b@dst.test", content=CONTENT)
        await relay.house.event(type="deferral")
        while not relay.house.of(type="expiration"):
            await relay.clock.advance(15)
            await relay.house.daemon.spool.lease([])
        await relay.peer.open()
        while not relay.house.of(type="delivery"):
            await relay.clock.advance(15)
            await relay.house.daemon.spool.lease([])
        notice = relay.peer.calls[-1].messages[-1]
    code, said = read(notice)["b@dst.test"]
    assert (code, said.partition(":")[0]) == ("4.4.1", "x-local; No host answered")
    assert failed(notice) == ["b@dst.test"]


async def test_programs_read_that_it_may_have_arrived(tmp_path: Path) -> None:
    script = HELLO + envelope("250 ok", "250 ok", "354 go on") + "<- message\nclose"
    async with relaying(tmp_path, script, script, HELLO + FIRST, notify=True) as relay:
        await relay.house.send("b@dst.test", content=CONTENT)
        await relay.told(2)
        await relay.come_due()
        await relay.house.event(type="delivery")
        notice = relay.peer.calls[-1].messages[-1]
        relay.heard = -1
    code, said = read(notice)["b@dst.test"]
    assert (code, said.partition(" after ")[0]) == ("4.4.2", "x-local; The connection was lost")
    assert failed(notice) == ["b@dst.test"]


async def test_programs_read_a_refusal_of_our_own(tmp_path: Path) -> None:
    seven = HELLO.replace("-> 250 8BITMIME", "-> 250 HELP")
    async with relaying(tmp_path, seven + FIRST, notify=True, eight_bit="return") as relay:
        notice = await notice_of(relay, "b@dst.test", content=CONTENT + "caf\u00e9\r\n".encode())
    code, said = read(notice)["b@dst.test"]
    assert (code, said.partition(" ")[0]) == ("5.6.3", "x-local;")
    assert failed(notice) == ["b@dst.test"]


async def test_programs_read_of_several_recipients_each_by_itself(tmp_path: Path) -> None:
    """Refused, expired and taken in one attempt; whoever has got it is not in the notice."""
    recipients = [f"{name}@dst.test" for name in "bcde"]
    later = HELLO + envelope("250 ok", *[LATER] * 4, "554 none")
    replies = "550 5.1.1 who?", LATER, "250 ok", "553 no"
    last = HELLO + envelope("250 ok", *replies, "354 go on") + "<- message\n-> 250 2.0.0 taken\n" + FIRST
    async with relaying(tmp_path, later, last, notify=True, stream=Stream(expire=Duration(60))) as relay:
        await relay.house.send(*recipients, content=CONTENT)
        await relay.house.event(4, type="deferral")
        await relay.clock.advance(55)
        await relay.house.event(type="delivery", recipient="a@src.test")
        notice = relay.peer.calls[-1].messages[-1]
    assert read(notice) == {
        "b@dst.test": ("5.1.1", "smtp; 550 5.1.1 who?"),
        "c@dst.test": ("4.2.1", f"smtp; {LATER}"),
        "e@dst.test": ("5.0.0", "smtp; 553 no"),
    }
    assert failed(notice) == ["b@dst.test", "c@dst.test", "e@dst.test"]


async def test_programs_read_a_notice_to_a_sender_beyond_ascii(tmp_path: Path) -> None:
    hello = HELLO.replace("-> 250 8BITMIME", "-> 250-8BITMIME\n    -> 250 SMTPUTF8")
    refused = answers("RCPT", "550 5.1.1 who?")
    to = NOTICE.replace("a@src.test", "\u00e4@src.test")
    async with relaying(tmp_path, hello + refused + to, notify=True) as relay:
        content = CONTENT.replace(b"Subject: hello", "Subject: \u00e9".encode())
        notice = await notice_of(relay, "b@dst.test", sender="\u00e4@src.test", content=content)
    assert read(notice) == {"b@dst.test": ("5.1.1", "smtp; 550 5.1.1 who?")}
    assert failed(notice) == ["b@dst.test"]


async def test_one_kind_of_notice_is_beyond_flufl_bounce(tmp_path: Path) -> None:
    """It looks for message/delivery-status, and RFC 6533 4 has message/global-delivery-status for UTF-8."""
    refused = envelope("250 ok", "550 5.1.1 who?", "550 5.1.1 who?", "554 none")
    hello = HELLO.replace("-> 250 8BITMIME", "-> 250-8BITMIME\n    -> 250 SMTPUTF8")
    async with relaying(tmp_path, hello + refused + NOTICE, notify=True) as relay:
        notice = await notice_of(relay, "b\u00e9@dst.test", "c@dst.test")
    said = ("5.1.1", "smtp; 550 5.1.1 who?")
    assert read(notice) == {"b\u00e9@dst.test": said, "c@dst.test": said}
    assert failed(notice) == []


async def test_an_equals_sign_in_an_address_is_beyond_flufl_bounce_too(tmp_path: Path) -> None:
    """It takes the field for parameters of MIME; all behind the semicolon is the address (RFC 3464 2.1.2)."""
    async with relaying(tmp_path, HELLO + ONE_REFUSED + NOTICE, notify=True) as relay:
        notice = await notice_of(relay, "list=b@dst.test")
    assert read(notice) == {"list=b@dst.test": ("5.1.1", "smtp; 550 5.1.1 who?")}
    assert failed(notice) == ["list"]
