"""421: the peer says goodbye, at every point of the conversation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.peer import HELLO, TAKES, goodbye
from tests.fakes.relay import relaying

B, C = "b@dst.test", "c@dst.test"
BYE = "421 4.7.0 mx.test closing transmission channel"
TAKEN = f"{B}: 250 2.0.0 taken (.)"
GREETED = "-> 220 mx.test ESMTP\n"


@pytest.mark.parametrize(
    ("script", "command"),
    [
        pytest.param(f"-> {BYE}\nclose", "CONNECT", id="the greeting"),
        pytest.param(f"{GREETED}<- EHLO mta.test\n-> {BYE}\nclose", "EHLO", id="EHLO"),
        pytest.param(
            f"{GREETED}<- EHLO mta.test\n-> 502 5.5.1 what?\n<- HELO mta.test\n-> {BYE}\nclose",
            "EHLO",
            id="HELO",
        ),
    ],
)
async def test_before_any_mail_and_it_is_tried_again(tmp_path: Path, script: str, command: str) -> None:
    async with relaying(tmp_path, script, HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.come_due()
        assert await relay.told(3) == [
            f"reception {B}",
            f"deferral 1 {B} connection +300: {BYE} ({command})",
            f"delivery 2 {TAKEN}",
        ]


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA"])
async def test_in_the_envelope_and_another_connection_takes_it_at_once(tmp_path: Path, stage: str) -> None:
    async with relaying(tmp_path, HELLO + goodbye(stage, BYE), HELLO + TAKES) as relay:
        await relay.house.send(B)
        assert await relay.told(2) == [f"reception {B}", f"delivery 1 {TAKEN}"]


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA"])
async def test_in_the_envelope_twice_and_it_is_tried_again_later(tmp_path: Path, stage: str) -> None:
    script = HELLO + goodbye(stage, BYE)
    async with relaying(tmp_path, script, script, HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.come_due()
        assert await relay.told(3) == [
            f"reception {B}",
            f"deferral 1 {B} connection +300: {BYE} ({stage})",
            f"delivery 2 {TAKEN}",
        ]
        assert [call.messages for call in relay.peer.calls[:2]] == [[], []]


async def test_after_the_dot_it_is_an_answer_and_not_ambiguous(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + goodbye(".", BYE), HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.come_due()
        assert await relay.told(3) == [
            f"reception {B}",
            f"deferral 1 {B} connection +300: {BYE} (.)",
            f"delivery 2 {TAKEN}",
        ]
        first, second = relay.peer.calls
    assert first.messages == second.messages


async def test_between_two_messages_and_the_second_goes_over_a_new_connection(tmp_path: Path) -> None:
    idle = f"{HELLO}{TAKES}hold\n-> {BYE}\nclose"
    async with relaying(tmp_path, idle, HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.told(2)
        relay.peer.go()
        await relay.peer.at(1, "end")
        await relay.house.send(C)
        assert await relay.told(4) == [
            f"reception {B}",
            f"delivery 1 {TAKEN}",
            f"reception {C}",
            f"delivery 1 {C}: 250 2.0.0 taken (.)",
        ]


async def test_behind_the_reply_to_the_dot_the_first_message_counts(tmp_path: Path) -> None:
    last = TAKES.rstrip() + f"\n    -> {BYE}\n    close"
    async with relaying(tmp_path, HELLO + last, HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.house.send(C)
        assert await relay.told(4) == [
            f"reception {B}",
            f"delivery 1 {TAKEN}",
            f"reception {C}",
            f"delivery 1 {C}: 250 2.0.0 taken (.)",
        ]


async def test_at_rset_after_a_refusal_the_next_message_goes_over_a_new_connection(tmp_path: Path) -> None:
    refused = (
        "<- MAIL FROM:<*\n<- RCPT TO:<*\n<- DATA\n-> 250 ok\n-> 550 5.1.1 User unknown\n-> 554 5.5.1 none\n"
    )
    script = HELLO + refused + f"<- RSET\n<- MAIL FROM:<*\n<- RCPT TO:<*\n<- DATA\n-> {BYE}\nclose"
    async with relaying(tmp_path, script, HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.house.send(C)
        assert await relay.told(4) == [
            f"reception {B}",
            f"bounce 1 {B} recipient: 550 5.1.1 User unknown (RCPT)",
            f"reception {C}",
            f"delivery 1 {C}: 250 2.0.0 taken (.)",
        ]


async def test_with_a_name_for_it_the_reason_is_told(tmp_path: Path) -> None:
    reply = "421 4.3.2 Service shutting down, closing channel"
    script = HELLO + goodbye("MAIL", reply)
    async with relaying(tmp_path, script, script, HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.come_due()
        assert await relay.told(3) == [
            f"reception {B}",
            f"deferral 1 {B} destination +300: {reply} (MAIL)",
            f"delivery 2 {TAKEN}",
        ]
