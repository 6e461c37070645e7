"""Peers that refuse, and peers that speak little."""

from __future__ import annotations

from pathlib import Path

from tests.fakes.peer import HELLO, TAKES, envelope
from tests.fakes.relay import relaying, wait_of

NO_PIPELINING = """
    -> 220 mx.test ESMTP
    <- EHLO mta.test
    -> 250 mx.test
"""
HELO_ONLY = """
    -> 220 mx.test SMTP
    <- EHLO mta.test
    -> 502 5.5.1 what is EHLO?
    <- HELO mta.test
    -> 250 mx.test
"""
STEP_BY_STEP = """
    <- MAIL FROM:<a@src.test>
    -> 250 ok
    <- RCPT TO:<b@dst.test>
    -> 250 ok
    <- DATA
    -> 354 go on
    <- message
    -> 250 taken
"""
REFUSED = envelope("250 ok", "550 5.1.1 who?", "554 5.5.1 no valid recipients")


async def test_one_of_three_recipients_is_unknown(tmp_path: Path) -> None:
    three = envelope("250 ok", "250 ok", "550 5.1.1 who?", "250 ok", "354 go on")
    async with relaying(tmp_path, HELLO + three + "<- message\n-> 250 2.0.0 taken") as relay:
        await relay.house.send("a@dst.test", "b@dst.test", "c@dst.test")
        bounce = await relay.house.event(type="bounce")
        assert bounce["recipient"] == "b@dst.test"
        assert bounce["reply"] == {"code": 550, "enhanced": "5.1.1", "text": "who?", "command": "RCPT"}
        assert (bounce["subject"], bounce["permanent"]) == ("recipient", True)
        delivered = [event["recipient"] for event in relay.house.of(type="delivery")]
        assert delivered == ["a@dst.test", "c@dst.test"]
        assert relay.types() == ["reception"] * 3 + ["delivery", "bounce", "delivery"]


async def test_all_recipients_refused_and_the_connection_is_used_again(tmp_path: Path) -> None:
    again = "<- RSET\n" + TAKES.replace("-> 250 2.1.0 ok", "-> 250 reset\n-> 250 2.1.0 ok")
    async with relaying(tmp_path, HELLO + REFUSED + again) as relay:
        await relay.house.send("b@dst.test")
        await relay.house.event(type="bounce")
        await relay.house.send("c@dst.test")
        await relay.house.event(type="delivery", recipient="c@dst.test")


async def test_all_recipients_refused_and_data_taken_all_the_same(tmp_path: Path) -> None:
    refused = envelope("250 ok", "550 5.1.1 who?", "354 go on") + "<- message\n-> 554 nobody\n"
    async with relaying(tmp_path, HELLO + refused + TAKES) as relay:
        await relay.house.send("b@dst.test")
        assert (await relay.house.event(type="bounce"))["reply"]["text"] == "who?"
        assert relay.peer.calls[0].messages == [b""]
        await relay.house.send("c@dst.test")
        await relay.house.event(type="delivery", recipient="c@dst.test")


async def test_greylisted_then_accepted(tmp_path: Path) -> None:
    grey = envelope("250 ok", "450 4.7.1 greylisted, come back in 5 minutes", "554 no valid recipients")
    async with relaying(tmp_path, HELLO + grey, HELLO + TAKES) as relay:
        await relay.house.send("b@dst.test")
        deferral = await relay.house.event(type="deferral")
        assert deferral["reply"]["text"] == "greylisted, come back in 5 minutes"
        assert wait_of(deferral) == 300
        await relay.clock.advance(299)
        assert len(relay.peer.calls) == 1
        await relay.clock.advance(2)
        assert (await relay.house.event(type="delivery"))["attempt"] == 2
        assert relay.types() == ["reception", "deferral", "delivery"]
        assert relay.peer.calls[1].messages[0].endswith(b"\r\n\r\nHello.\r\n")


async def test_too_many_recipients_for_this_transaction_go_in_the_next_at_once(tmp_path: Path) -> None:
    two = envelope("250 ok", "250 ok", "452 4.5.3 too many recipients", "354 go on")
    async with relaying(tmp_path, HELLO + two + "<- message\n-> 250 taken\n" + TAKES) as relay:
        await relay.house.send("b@dst.test", "c@dst.test")
        await relay.house.event(2, type="delivery")
        assert relay.types() == ["reception"] * 2 + ["delivery"] * 2
        assert relay.peer.calls[0].commands[-2] == "RCPT TO:<c@dst.test>"


async def test_the_message_is_refused_after_the_dot(tmp_path: Path) -> None:
    script = HELLO + TAKES.replace("250 2.0.0 taken", "554 5.7.1 spam")
    async with relaying(tmp_path, script) as relay:
        await relay.house.send("b@dst.test")
        bounce = await relay.house.event(type="bounce")
        assert bounce["reply"] == {"code": 554, "enhanced": "5.7.1", "text": "spam", "command": "."}
        assert bounce["subject"] == "message"


async def test_a_peer_without_pipelining_hears_one_command_at_a_time(tmp_path: Path) -> None:
    async with relaying(tmp_path, NO_PIPELINING + STEP_BY_STEP * 2) as relay:
        for _ in range(2):
            await relay.house.send("b@dst.test")
        await relay.house.event(2, type="delivery")


async def test_a_peer_from_before_ehlo(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELO_ONLY + STEP_BY_STEP) as relay:
        await relay.house.send("b@dst.test")
        assert (await relay.house.event(type="delivery"))["attempt"] == 1


async def test_two_domains_of_one_site_are_one_transaction(tmp_path: Path) -> None:
    two = envelope("250 ok", "250 ok", "250 ok", "354 go on") + "<- message\n-> 250 taken\n"
    async with relaying(tmp_path, HELLO + two) as relay:
        await relay.house.send("b@one.test", "c@two.test")
        await relay.house.event(2, type="delivery")
        assert relay.peer.calls[0].commands[2:4] == ["RCPT TO:<b@one.test>", "RCPT TO:<c@two.test>"]
