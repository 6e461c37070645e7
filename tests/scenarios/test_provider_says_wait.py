"""Answers that ask for patience: greylists, stated times, full mailboxes."""

from __future__ import annotations

from pathlib import Path

import pytest

from mta.config.settings import Duration, Stream
from tests.fakes.peer import HELLO, TAKES, answers
from tests.fakes.relay import named, relaying

B = "b@dst.test"
RECEIVED = f"reception {B}"
TAKEN = f"{B}: 250 2.0.0 taken (.)"
GREY = "450 4.2.0 Greylisted, see help"
SOON = "451 4.7.1 Greylisted, come back in 60 seconds"


@pytest.mark.parametrize(
    ("reply", "seconds"),
    [
        pytest.param(GREY, 300, id="no time"),
        pytest.param("451 4.7.1 Greylisting in action, please come back in 00:04:59", 299, id="00:04:59"),
        pytest.param("450 4.7.1 Please try again in 5 minutes", 300, id="5 minutes"),
        pytest.param("451 Temporarily deferred, please retry in 10 min", 600, id="10 min"),
        pytest.param("550 Greylisted, please retry in 5 minutes", 300, id="550"),
        pytest.param("450 4.7.1 Wait, retry in 5 seconds", 30, id="too short"),
        pytest.param("450 4.7.1 Wait, retry in 999999 minutes", 86400, id="too long"),
    ],
)
async def test_greylisted_at_rcpt_and_taken_when_the_time_has_come(
    tmp_path: Path, reply: str, seconds: int
) -> None:
    async with relaying(tmp_path, HELLO + answers("RCPT", reply), HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.come_due()
        assert await relay.told(3) == [
            RECEIVED,
            f"deferral 1 {B} policy {named(seconds)}: {reply} (RCPT)",
            f"delivery 2 {TAKEN}",
        ]
        first, second = relay.peer.calls
    assert first.commands == ["EHLO mta.test", "MAIL FROM:<a@src.test>", f"RCPT TO:<{B}>", "DATA"]
    assert first.messages == []
    assert second.messages[0].endswith(b"\r\n\r\nHello.\r\n")


@pytest.mark.parametrize("dice", [0.0, 0.25, 0.999])
async def test_no_dice_bring_us_back_before_the_time_that_was_stated(tmp_path: Path, dice: float) -> None:
    async with relaying(tmp_path, HELLO + answers("RCPT", SOON), HELLO + TAKES) as relay:
        relay.clock.thrown = dice
        await relay.house.send(B)
        await relay.told(2)
        await relay.clock.advance(59)
        assert len(relay.peer.calls) == 1
        await relay.clock.advance(8)
        assert (await relay.told(3))[2] == f"delivery 2 {TAKEN}"


async def test_greylisted_four_times_and_the_waits_grow_by_half(tmp_path: Path) -> None:
    scripts = [HELLO + answers("RCPT", GREY)] * 4
    async with relaying(tmp_path, *scripts, HELLO + TAKES) as relay:
        await relay.house.send(B)
        for events in range(2, 6):
            await relay.told(events)
            await relay.come_due()
        assert await relay.told(6) == [
            RECEIVED,
            *(
                f"deferral {attempt} {B} policy {named(wait)}: {GREY} (RCPT)"
                for attempt, wait in enumerate((300, 450, 675, 1012), 1)
            ),
            f"delivery 5 {TAKEN}",
        ]


async def test_the_same_short_time_for_ever_is_believed_three_times(tmp_path: Path) -> None:
    scripts = [HELLO + answers("RCPT", SOON)] * 5
    async with relaying(tmp_path, *scripts, HELLO + TAKES) as relay:
        await relay.house.send(B)
        for events in range(2, 7):
            await relay.told(events)
            await relay.come_due()
        assert await relay.told(7) == [
            RECEIVED,
            *(
                f"deferral {attempt} {B} policy {named(wait)}: {SOON} (RCPT)"
                for attempt, wait in enumerate((60, 60, 60, 1012, 1519), 1)
            ),
            f"delivery 6 {TAKEN}",
        ]


async def test_a_stated_time_beyond_the_lifetime_leaves_one_attempt_before_its_end(tmp_path: Path) -> None:
    reply = "450 4.7.1 Please try again in 12 hours"
    async with relaying(
        tmp_path, HELLO + answers("RCPT", reply), HELLO + TAKES, stream=Stream(expire=Duration(3600))
    ) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.come_due()
        assert await relay.told(3) == [
            RECEIVED,
            f"deferral 1 {B} policy +3540: {reply} (RCPT)",  # a minute before the end
            f"delivery 2 {TAKEN}",
        ]


@pytest.mark.parametrize("stage", ["MAIL", "DATA", "."])
async def test_greylisted_at_another_command(tmp_path: Path, stage: str) -> None:
    async with relaying(tmp_path, HELLO + answers(stage, GREY), HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.come_due()
        assert await relay.told(3) == [
            RECEIVED,
            f"deferral 1 {B} policy {named(300)}: {GREY} ({stage})",
            f"delivery 2 {TAKEN}",
        ]


@pytest.mark.parametrize("reply", ["452 4.2.2 Mailbox full", "552 5.2.2 Over quota", "552 mailbox is full"])
async def test_a_full_mailbox_is_given_hours_and_no_bounce(tmp_path: Path, reply: str) -> None:
    async with relaying(tmp_path, *[HELLO + answers("RCPT", reply)] * 2, HELLO + TAKES) as relay:
        await relay.house.send(B)
        for events in (2, 3):
            await relay.told(events)
            await relay.come_due()
        assert await relay.told(4) == [
            RECEIVED,
            f"deferral 1 {B} mailbox {named(3600)}: {reply} (RCPT)",
            f"deferral 2 {B} mailbox {named(5400)}: {reply} (RCPT)",
            f"delivery 3 {TAKEN}",
        ]


async def test_a_full_mailbox_that_stays_full_expires_with_the_last_answer(tmp_path: Path) -> None:
    reply = "452 4.2.2 Mailbox full"
    scripts = [HELLO + answers("RCPT", reply)] * 3
    async with relaying(tmp_path, *scripts, stream=Stream(expire=Duration(7200))) as relay:
        await relay.house.send(B)
        for events in (2, 3):
            await relay.told(events)
            await relay.come_due()
        rest = 7200 - 60 - int(named(3600)) - 1  # the last attempt is made a minute before the end
        assert await relay.told(4) == [
            RECEIVED,
            f"deferral 1 {B} mailbox {named(3600)}: {reply} (RCPT)",
            f"deferral 2 {B} mailbox +{rest}: {reply} (RCPT)",
            f"expiration 3 {B} mailbox: {reply} (RCPT)",
        ]


async def test_a_mailbox_that_gets_too_much_mail_is_left_alone_for_longer(tmp_path: Path) -> None:
    reply = "450 4.2.1 The recipient is receiving messages too quickly, try again later"
    async with relaying(tmp_path, HELLO + answers("RCPT", reply), HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.come_due()
        assert await relay.told(3) == [
            RECEIVED,
            f"deferral 1 {B} mailbox {named(900)}: {reply} (RCPT)",
            f"delivery 2 {TAKEN}",
        ]


async def test_an_unknown_user_that_is_said_with_450_is_tried_again(tmp_path: Path) -> None:
    reply = "450 4.1.1 Recipient address rejected: User unknown in local recipient table"
    async with relaying(tmp_path, HELLO + answers("RCPT", reply), HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.come_due()
        assert await relay.told(3) == [
            RECEIVED,
            f"deferral 1 {B} recipient +300: {reply} (RCPT)",
            f"delivery 2 {TAKEN}",
        ]


@pytest.mark.parametrize(
    ("stage", "reply", "subject", "wait"),
    [
        pytest.param("DATA", "451 4.3.5 Server configuration problem", "destination", "+300", id="DATA"),
        pytest.param(".", "451 4.3.0 queue file write error", "destination", "+300", id="the dot"),
        pytest.param("MAIL", "452 4.3.1 Insufficient system storage", "destination", "+300", id="no room"),
        pytest.param(
            "MAIL", "450 4.1.8 Sender address rejected: Domain not found", "sender", named(1800), id="sender"
        ),
        pytest.param("RCPT", "451 4.4.3 DNS lookup failure", "dns", "+300", id="their DNS"),
        pytest.param(
            "RCPT", "450 4.7.25 cannot find your reverse hostname", "source", named(3600), id="our PTR"
        ),
        pytest.param(".", "450 4.7.1 Message blocked as spam", "message", named(1800), id="spam for now"),
        pytest.param("RCPT", "450", "unknown", "+300", id="without a word"),
    ],
)
async def test_trouble_that_passes(tmp_path: Path, stage: str, reply: str, subject: str, wait: str) -> None:
    async with relaying(tmp_path, HELLO + answers(stage, reply), HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.come_due()
        assert await relay.told(3) == [
            RECEIVED,
            f"deferral 1 {B} {subject} {wait}: {reply} ({stage})",
            f"delivery 2 {TAKEN}",
        ]
