"""Peers that say in EHLO how much fits (RFC 9422), and one that answers before it has all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.peer import ASKED, HELLO, TAKES, envelope
from tests.fakes.relay import relaying

B, C, D = "b@dst.test", "c@dst.test", "d@else.test"


def hello(limits: str) -> str:
    return HELLO.replace("-> 250 8BITMIME", f"-> 250-8BITMIME\n    -> 250 LIMITS {limits}")


def taken(recipients: int) -> str:
    return envelope("250 ok", *["250 ok"] * recipients, "354 go on") + "<- message\n-> 250 2.0.0 taken\n"


async def test_more_recipients_than_a_peer_takes_go_in_two_transactions(tmp_path: Path) -> None:
    async with relaying(tmp_path, hello("RCPTMAX=2") + taken(2) + taken(1)) as relay:
        await relay.house.send(B, C, "e@dst.test")
        told = await relay.told(6)
        assert sorted(each.split()[0] for each in told) == ["delivery"] * 3 + ["reception"] * 3


async def test_a_peer_that_takes_one_domain_a_transaction_gets_one(tmp_path: Path) -> None:
    async with relaying(tmp_path, hello("RCPTDOMAINMAX=1") + taken(2) + taken(1)) as relay:
        await relay.house.send(B, D, C)
        told = await relay.told(6)
        assert sorted(each.split()[0] for each in told) == ["delivery"] * 3 + ["reception"] * 3
        said = [command for command in relay.peer.calls[0].commands if command.startswith("RCPT")]
        assert said == [f"RCPT TO:<{each}>" for each in (B, C, D)]


async def test_a_peer_that_takes_one_message_a_connection_gets_one(tmp_path: Path) -> None:
    once = hello("MAILMAX=1") + TAKES
    async with relaying(tmp_path, once, once) as relay:
        await relay.house.send(B)
        await relay.house.event(type="delivery", recipient=B)
        await relay.house.send(C)
        await relay.told(4)
        assert [len(call.messages) for call in relay.peer.calls] == [1, 1]


@pytest.mark.parametrize("limits", ["RCPTMAX=0", "RCPTMAX=two", ""])
async def test_limits_that_say_nothing_change_nothing(tmp_path: Path, limits: str) -> None:
    async with relaying(tmp_path, hello(limits) + taken(3)) as relay:
        await relay.house.send(B, C, "e@dst.test")
        await relay.told(6)


EARLY = HELLO + ASKED + "-> 250 ok\n-> 250 ok\n-> 354 go on\n<- octets 100\n-> 250 2.0.0 taken\nsilence\n"
LARGE = (
    b"From: a@src.test\r\nSubject: x\r\n\r\n" + (b"x" * 76 + b"\r\n") * 50_000
)  # no socket takes it at once


async def test_a_yes_before_the_body_was_sent_is_no_delivery(tmp_path: Path) -> None:
    async with relaying(tmp_path, EARLY, HELLO + TAKES, receive_buffer=65_536) as relay:
        await relay.house.send(B, content=LARGE)
        assert await relay.told(2) == [f"reception {B}", f"delivery 1 {B}: 250 2.0.0 taken (.)"]
        assert len(relay.peer.calls[1].messages[0]) > len(LARGE)


async def test_a_yes_before_every_body_defers_the_mail_and_says_why(tmp_path: Path) -> None:
    async with relaying(tmp_path, EARLY, EARLY, receive_buffer=65_536) as relay:
        await relay.house.send(B, content=LARGE)
        said = "451 4.4.2 The peer said '250 2.0.0 taken' before it had the whole message; it is tried again"
        assert await relay.told(2) == [f"reception {B}", f"deferral 1 {B} connection +300: {said} (.)"]
