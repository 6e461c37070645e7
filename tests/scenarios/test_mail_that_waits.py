"""What waits: its expiry, a restart, a stream that is no more, an answer that never comes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mta.config.settings import Duration, Settings, Stream
from tests.fakes.clock import HandClock
from tests.fakes.house import routed, running, settings
from tests.fakes.peer import HELLO, TAKES, ScriptedPeer, answers, envelope
from tests.fakes.relay import MUTE, named, relaying, story, wait_of

HOUR = 3600.0
B, C = "b@dst.test", "c@dst.test"
TAKEN = f"{B}: 250 2.0.0 taken (.)"
GREY = "450 4.2.0 Greylisted"
LATE = "451 4.3.5 Server configuration problem"
SILENT = "451 4.4.2 The final dot was not answered in 600 seconds: the message may have arrived (.)"
STOPPED = "451 4.4.2 Our server was stopped in the middle of it: the message may have arrived (.)"
MAYBE = "451 4.4.2 The connection was lost after the final dot: the message may have arrived (.)"
ASKED = envelope("250 ok", "250 ok", "354 go on")


async def test_an_hour_to_live_and_the_last_attempt_is_made_before_its_end(tmp_path: Path) -> None:
    scripts = [HELLO + answers("DATA", LATE)] * 5
    async with relaying(tmp_path, *scripts, stream=Stream(expire=Duration(HOUR))) as relay:
        await relay.house.send(B)
        for events in range(2, 6):
            await relay.told(events)
            await relay.come_due()
        assert await relay.told(6) == [
            f"reception {B}",
            f"deferral 1 {B} destination +300: {LATE} (DATA)",
            f"deferral 2 {B} destination +600: {LATE} (DATA)",
            f"deferral 3 {B} destination +1200: {LATE} (DATA)",
            f"deferral 4 {B} destination +1437: {LATE} (DATA)",
            f"expiration 5 {B} destination: {LATE} (DATA)",
        ]


async def test_what_expired_is_not_tried_again(tmp_path: Path) -> None:
    stream = Stream(expire=Duration(60))
    async with relaying(tmp_path, *[HELLO + answers("RCPT", GREY)] * 2, stream=stream) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.clock.advance(55)
        assert await relay.told(3) == [
            f"reception {B}",
            f"deferral 1 {B} policy +54: {GREY} (RCPT)",
            f"expiration 2 {B} policy: {GREY} (RCPT)",
        ]
        await relay.leap(7300)
        assert await relay.house.daemon.spool.reader.queue(10) == []


def terms(directory: Path, port: int, **changes: object) -> Settings:
    return replace(settings(directory, routes=routed(port)), **changes)  # type: ignore[arg-type]


async def test_a_retry_after_a_restart_is_the_second_attempt_at_the_time_that_was_told(
    tmp_path: Path,
) -> None:
    clock = HandClock()
    async with ScriptedPeer(HELLO + answers("RCPT", GREY), HELLO + TAKES) as peer:
        async with running(terms(tmp_path, peer.port), clock, (MUTE,)) as house:
            await house.send(B)
            assert await story(house, 2) == [
                f"reception {B}",
                f"deferral 1 {B} policy {named(300)}: {GREY} (RCPT)",
            ]
        async with running(terms(tmp_path, peer.port), clock, (MUTE,)) as house:
            await clock.advance(int(named(300)) - 1)
            assert len(peer.calls) == 1
            await clock.advance(2)
            assert await story(house, 1) == [f"delivery 2 {TAKEN}"]
    assert peer.calls[1].messages[0].endswith(b"\r\n\r\nHello.\r\n")


async def test_what_came_due_while_we_were_down_goes_at_once(tmp_path: Path) -> None:
    clock = HandClock()
    async with ScriptedPeer(HELLO + answers("RCPT", GREY), HELLO + TAKES) as peer:
        async with running(terms(tmp_path, peer.port), clock, (MUTE,)) as house:
            await house.send(B)
            await story(house, 2)
        await clock.advance(HOUR)
        async with running(terms(tmp_path, peer.port), clock, (MUTE,)) as house:
            assert await story(house, 1) == [f"delivery 2 {TAKEN}"]


async def test_what_expired_while_we_were_down_is_given_up(tmp_path: Path) -> None:
    clock = HandClock()
    streams = {"transactional": Stream(expire=Duration(HOUR))}
    async with ScriptedPeer(HELLO + answers("RCPT", GREY)) as peer:
        async with running(terms(tmp_path, peer.port, streams=streams), clock, (MUTE,)) as house:
            await house.send(B)
            await story(house, 2)
        await clock.advance(2 * HOUR)
        async with running(terms(tmp_path, peer.port, streams=streams), clock, (MUTE,)) as house:
            await clock.advance(61)
            assert await story(house, 1) == [f"expiration 2 {B} policy: {GREY} (RCPT)"]


async def test_a_stream_that_the_settings_no_longer_have_is_delivered_by_the_usual_schedule(
    tmp_path: Path,
) -> None:
    clock = HandClock()
    streams = {"transactional": Stream(retry_first=Duration(60))}
    scripts = [HELLO + answers("DATA", LATE)] * 2
    async with ScriptedPeer(*scripts, HELLO + TAKES) as peer:
        async with running(terms(tmp_path, peer.port, streams=streams), clock, (MUTE,)) as house:
            await house.send(B)
            assert (await story(house, 2))[1] == f"deferral 1 {B} destination +60: {LATE} (DATA)"
        async with running(terms(tmp_path, peer.port, streams={"bulk": Stream()}), clock, (MUTE,)) as house:
            await clock.advance(61)
            assert await story(house, 1) == [f"deferral 2 {B} destination +600: {LATE} (DATA)"]
            await clock.advance(601)
            assert (await story(house, 2))[1] == f"delivery 3 {TAKEN}"
            assert await house.send(C) == (
                "451 4.3.5 The stream transactional of your credential is not configured"
            )


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_two_recipients_and_the_connection_is_gone_after_the_dot(tmp_path: Path, end: str) -> None:
    two = envelope("250 ok", "250 ok", "250 ok", "354 go on") + "<- message\n"
    async with relaying(tmp_path, HELLO + two + end, HELLO + two + "-> 250 taken\n") as relay:
        await relay.house.send(B, C)
        await relay.told(4)
        await relay.come_due()
        assert await relay.told(6) == [
            f"reception {B}",
            f"reception {C}",
            f"ambiguous 1 {B} network +300: {MAYBE}",
            f"ambiguous 1 {C} network +300: {MAYBE}",
            f"delivery 2 {B}: 250 taken (.)",
            f"delivery 2 {C}: 250 taken (.)",
        ]


async def test_a_dot_that_is_never_answered_twice_is_the_end_of_it(tmp_path: Path) -> None:
    """It was sent again and again until it expired: ten times the same mail."""
    script = HELLO + ASKED + "<- message\nsilence"
    async with relaying(tmp_path, script, script) as relay:
        await relay.house.send(B)
        for number in (1, 2):
            await relay.peer.at(number, "silence")
            await relay.clock.advance(601)
            await relay.told(number + 1)
            if number == 1:
                await relay.come_due()
        assert await relay.told(3) == [
            f"reception {B}",
            f"ambiguous 1 {B} network +300: {SILENT}",
            f"ambiguous 2 {B} network: {SILENT}",
        ]
        assert relay.house.events[-1]["permanent"] is True
        assert await relay.house.daemon.spool.reader.queue(10) == []


async def test_ambiguous_outcomes_with_an_answer_between_them_are_not_two_in_a_row(tmp_path: Path) -> None:
    lost, later = HELLO + ASKED + "<- message\nclose", HELLO + answers("DATA", LATE)
    async with relaying(tmp_path, lost, later, lost, HELLO + TAKES) as relay:
        await relay.house.send(B)
        for number in range(2, 5):
            await relay.told(number)
            await relay.come_due()
        assert [each.split()[0] for each in await relay.told(5)] == [
            "reception", "ambiguous", "deferral", "ambiguous", "delivery",
        ]  # fmt: skip


async def test_ambiguous_when_the_time_is_over_is_what_is_told(tmp_path: Path) -> None:
    script = HELLO + ASKED + "<- message\nclose"
    later = HELLO + answers("RCPT", GREY)
    async with relaying(tmp_path, later, script, stream=Stream(expire=Duration(60))) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.clock.advance(55)
        told = await relay.told(3)
        assert told[2] == f"ambiguous 2 {B} network: {MAYBE}"


async def test_one_recipient_refused_at_rcpt_is_not_ambiguous_when_the_dot_is(tmp_path: Path) -> None:
    """What was answered for good before the dot stays answered."""
    two = envelope("250 ok", "550 5.1.1 User unknown", "250 ok", "354 go on") + "<- message\nclose"
    async with relaying(tmp_path, HELLO + two, HELLO + TAKES) as relay:
        await relay.house.send(B, C)
        await relay.told(4)
        await relay.come_due()
        assert await relay.told(5) == [
            f"reception {B}",
            f"reception {C}",
            f"bounce 1 {B} recipient: 550 5.1.1 User unknown (RCPT)",
            f"ambiguous 1 {C} network +300: {MAYBE}",
            f"delivery 2 {C}: 250 2.0.0 taken (.)",
        ]


async def test_a_dot_without_an_answer_does_not_hold_a_stop_for_ever(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + ASKED + "<- message\nsilence") as relay:
        await relay.house.send(B)
        await relay.peer.at(1, "silence")
        relay.house.daemon.stop()
        await relay.clock.asked_for(30.0)
        await relay.clock.advance(31)
        assert await relay.told(2) == [f"reception {B}", f"ambiguous 1 {B} network +300: {STOPPED}"]


async def test_a_provider_that_wants_long_waits_gets_them_and_a_domain_may_know_better(
    tmp_path: Path,
) -> None:
    """The stream's first wait is five minutes: a shorter one of a destination changes nothing."""
    busy = HELLO + answers("RCPT", "451 4.3.0 Try again later")
    for longer, wait in ((900.0, 900), (60.0, 300)):
        directory = tmp_path / str(wait)
        async with relaying(directory, busy, mx="mx.dst.test", retry_first=Duration(longer)) as relay:
            await relay.house.send(B)
            deferral = await relay.house.event(type="deferral")
            assert wait_of(deferral) == wait
