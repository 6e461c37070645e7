"""Peers that take a message for some, refuse it for others, or change their mind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.peer import HELLO, TAKES, envelope
from tests.fakes.relay import named, relaying

B, C, D = "b@dst.test", "c@dst.test", "d@dst.test"
UNKNOWN = "550 5.1.1 User unknown"
FULL = "452 4.2.2 Mailbox full"
GREY = "450 4.2.0 Greylisted"
STEP_BY_STEP = """
    -> 220 mx.test ESMTP
    <- EHLO mta.test
    -> 250 mx.test
    <- MAIL FROM:<a@src.test>
    -> 250 ok
    <- RCPT TO:<b@dst.test>
    -> 550 5.1.1 User unknown
    <- RCPT TO:<c@dst.test>
    -> 250 ok
    <- DATA
    -> 354 go on
    <- message
    -> 250 taken
"""


async def test_one_is_taken_one_unknown_one_full_and_only_the_last_is_tried_again(tmp_path: Path) -> None:
    three = envelope("250 ok", "250 ok", UNKNOWN, FULL, "354 go on") + "<- message\n-> 250 taken\n"
    async with relaying(tmp_path, HELLO + three, HELLO + TAKES) as relay:
        await relay.house.send(B, C, D)
        await relay.told(6)
        await relay.come_due()
        assert await relay.told(7) == [
            f"reception {B}",
            f"reception {C}",
            f"reception {D}",
            f"delivery 1 {B}: 250 taken (.)",
            f"bounce 1 {C} recipient: {UNKNOWN} (RCPT)",
            f"deferral 1 {D} mailbox {named(3600)}: {FULL} (RCPT)",
            f"delivery 2 {D}: 250 2.0.0 taken (.)",
        ]
        first, second = relay.peer.calls
    assert second.commands[1:] == ["MAIL FROM:<a@src.test>", f"RCPT TO:<{D}>", "DATA"]
    assert first.messages == second.messages


async def test_the_same_without_pipelining(tmp_path: Path) -> None:
    async with relaying(tmp_path, STEP_BY_STEP) as relay:
        await relay.house.send(B, C)
        assert await relay.told(4) == [
            f"reception {B}",
            f"reception {C}",
            f"bounce 1 {B} recipient: {UNKNOWN} (RCPT)",
            f"delivery 1 {C}: 250 taken (.)",
        ]


async def test_of_fifty_recipients_one_is_known(tmp_path: Path) -> None:
    names = [f"r{number}@dst.test" for number in range(50)]
    fifty = envelope("250 ok", *[UNKNOWN] * 49, "250 ok", "354 go on") + "<- message\n-> 250 taken\n"
    async with relaying(tmp_path, HELLO + fifty) as relay:
        await relay.house.send(*names)
        assert await relay.told(100) == [
            *(f"reception {name}" for name in names),
            *(f"bounce 1 {name} recipient: {UNKNOWN} (RCPT)" for name in names[:49]),
            f"delivery 1 {names[49]}: 250 taken (.)",
        ]
        (call,) = relay.peer.calls
    assert len(call.messages) == 1


async def test_none_of_two_is_taken_for_two_reasons(tmp_path: Path) -> None:
    refused = envelope("250 ok", UNKNOWN, GREY, "554 5.5.1 no valid recipients")
    async with relaying(tmp_path, HELLO + refused, HELLO + TAKES) as relay:
        await relay.house.send(B, C)
        await relay.told(4)
        await relay.come_due()
        assert await relay.told(5) == [
            f"reception {B}",
            f"reception {C}",
            f"bounce 1 {B} recipient: {UNKNOWN} (RCPT)",
            f"deferral 1 {C} policy {named(300)}: {GREY} (RCPT)",
            f"delivery 2 {C}: 250 2.0.0 taken (.)",
        ]
        assert [call.messages for call in relay.peer.calls[:1]] == [[]]


async def test_taken_at_rcpt_and_refused_at_the_dot_for_all_of_them(tmp_path: Path) -> None:
    three = envelope("250 ok", "250 ok", "250 ok", "250 ok", "354 go on")
    spam = "554 5.7.1 Message rejected as spam"
    async with relaying(tmp_path, HELLO + three + f"<- message\n-> {spam}\n") as relay:
        await relay.house.send(B, C, D)
        assert await relay.told(6) == [
            *(f"reception {name}" for name in (B, C, D)),
            *(f"bounce 1 {name} message: {spam} (.)" for name in (B, C, D)),
        ]


async def test_taken_at_rcpt_and_put_off_at_the_dot_for_all_of_them(tmp_path: Path) -> None:
    two = envelope("250 ok", "250 ok", "250 ok", "354 go on")
    late = "451 4.3.0 queue file write error"
    again = two + "<- message\n-> 250 taken\n"
    async with relaying(tmp_path, HELLO + two + f"<- message\n-> {late}\n", HELLO + again) as relay:
        await relay.house.send(B, C)
        await relay.told(4)
        await relay.come_due()
        assert await relay.told(6) == [
            *(f"reception {name}" for name in (B, C)),
            *(f"deferral 1 {name} destination +300: {late} (.)" for name in (B, C)),
            *(f"delivery 2 {name}: 250 taken (.)" for name in (B, C)),
        ]


async def test_a_user_that_is_unknown_only_after_the_dot_bounces_though_rcpt_took_it(tmp_path: Path) -> None:
    script = HELLO + TAKES.replace("250 2.0.0 taken", UNKNOWN)
    async with relaying(tmp_path, script) as relay:
        await relay.house.send(B)
        assert await relay.told(2) == [f"reception {B}", f"bounce 1 {B} recipient: {UNKNOWN} (.)"]


async def test_deferred_first_and_refused_for_good_the_second_time(tmp_path: Path) -> None:
    grey = envelope("250 ok", GREY, "554 5.5.1 none")
    unknown = envelope("250 ok", UNKNOWN, "554 5.5.1 none")
    async with relaying(tmp_path, HELLO + grey, HELLO + unknown) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.come_due()
        assert await relay.told(3) == [
            f"reception {B}",
            f"deferral 1 {B} policy {named(300)}: {GREY} (RCPT)",
            f"bounce 2 {B} recipient: {UNKNOWN} (RCPT)",
        ]


async def test_the_dot_is_refused_for_one_and_the_rcpt_of_another_was_before(tmp_path: Path) -> None:
    """Each recipient has the answer that is about it."""
    two = envelope("250 ok", GREY, "250 ok", "354 go on")
    spam = "554 5.7.1 Message rejected as spam"
    async with relaying(tmp_path, HELLO + two + f"<- message\n-> {spam}\n", HELLO + TAKES) as relay:
        await relay.house.send(B, C)
        await relay.told(4)
        await relay.come_due()
        assert await relay.told(5) == [
            f"reception {B}",
            f"reception {C}",
            f"deferral 1 {B} policy {named(300)}: {GREY} (RCPT)",
            f"bounce 1 {C} message: {spam} (.)",
            f"delivery 2 {B}: 250 2.0.0 taken (.)",
        ]


async def test_rcpt_takes_some_and_data_is_refused(tmp_path: Path) -> None:
    two = envelope("250 ok", "250 ok", UNKNOWN, "451 4.3.5 Server configuration problem")
    async with relaying(tmp_path, HELLO + two, HELLO + TAKES) as relay:
        await relay.house.send(B, C)
        await relay.told(4)
        await relay.come_due()
        assert await relay.told(5) == [
            f"reception {B}",
            f"reception {C}",
            f"deferral 1 {B} destination +300: 451 4.3.5 Server configuration problem (DATA)",
            f"bounce 1 {C} recipient: {UNKNOWN} (RCPT)",
            f"delivery 2 {B}: 250 2.0.0 taken (.)",
        ]


@pytest.mark.parametrize(
    "end", ["close", "abort", "-> 421 4.7.0 goodbye\nclose"], ids=["close", "abort", "421"]
)
async def test_half_of_the_recipients_answered_and_the_connection_is_gone(tmp_path: Path, end: str) -> None:
    """Nothing was sent yet, so what was answered does not count either; the next connection says it again."""
    asked = "<- MAIL FROM:<*\n" + "<- RCPT TO:<*\n" * 2 + "<- DATA\n-> 250 ok\n-> 250 ok\n"
    both = envelope("250 ok", "250 ok", UNKNOWN, "354 go on") + "<- message\n-> 250 taken\n"
    async with relaying(tmp_path, HELLO + asked + end, HELLO + both) as relay:
        await relay.house.send(B, C)
        assert await relay.told(4) == [
            f"reception {B}",
            f"reception {C}",
            f"delivery 1 {B}: 250 taken (.)",
            f"bounce 1 {C} recipient: {UNKNOWN} (RCPT)",
        ]
