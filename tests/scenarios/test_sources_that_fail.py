"""One source of several is slow, shut, blocked or gone: what leaves from the others does not wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mta.api.control import call
from mta.config.settings import Address, HostName, SourceSettings, Stream
from mta.core.limits.throttle import Rate
from tests.fakes.clock import HandClock
from tests.fakes.doorman import DROPS, SILENT, TAKES, Doorman
from tests.fakes.house import House, routed, running, settings
from tests.fakes.relay import MUTE
from tests.fakes.waiting import fill

FIRST, SECOND = "127.0.0.2", "127.0.0.3"
TWO = {
    "mail1": SourceSettings(Address(FIRST)),
    "mail2": SourceSettings(Address(SECOND), HostName("mail2.test")),
}
EITHER = {"default": {"mail1": 10**9, "mail2": 1}}
APART = {"one": {"mail1": 1}, "two": {"mail2": 1}}
STREAMS = {"one": Stream(pool="one", priority=0), "two": Stream(pool="two", priority=0)}
LISTED = "554 5.7.1 Service unavailable; client [127.0.0.2] blocked using zen.spamhaus.org"


@asynccontextmanager
async def facing(
    directory: Path,
    peer: Doorman,
    clock: HandClock,
    sources: Mapping[str, SourceSettings] = TWO,
    pools: Mapping[str, Mapping[str, int]] = EITHER,
    route: Mapping[str, Any] | None = None,
    **changes: Any,
) -> AsyncIterator[House]:
    terms = settings(
        directory, routes=routed(peer.port, **(route or {})), sources=sources, pools=pools, **changes
    )
    async with running(terms, clock, (MUTE,)) as house:
        try:
            yield house
        finally:
            peer.hang_up()


async def test_retries_that_a_slow_source_holds_leave_those_of_another_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mta.outbound.leases.LOT", 3)
    clock = HandClock()
    mail = [("one", f"slow{n}@dst.test") for n in range(6)] + [("two", f"b{n}@dst.test") for n in range(4)]
    await fill(settings(tmp_path).spool.path, clock, mail)
    async with Doorman() as peer:
        peer.say(FIRST, SILENT)
        async with facing(tmp_path, peer, clock, pools=APART, streams=STREAMS) as house:
            await house.event(4, type="delivery", source="mail2")
            peer.say(FIRST, TAKES)
            await house.event(3, type="delivery", source="mail1")
            await clock.advance(3)
            await house.event(6, type="delivery", source="mail1")
            assert {each["attempt"] for each in house.of(type="delivery")} == {2}


async def test_a_full_lane_of_one_pool_leaves_retries_of_another_pool_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mta.core.limits.turns.CAPACITY", 2)
    clock = HandClock()
    mail = [("one", f"slow{n}@dst.test") for n in range(6)] + [("two", f"b{n}@dst.test") for n in range(4)]
    await fill(settings(tmp_path).spool.path, clock, mail)
    async with Doorman() as peer:
        peer.say(FIRST, SILENT)
        async with facing(tmp_path, peer, clock, pools=APART, streams=STREAMS) as house:
            await house.event(4, type="delivery", source="mail2")
            peer.say(FIRST, TAKES)
            await house.event(2, type="delivery", source="mail1")
            # What found the lane full comes back after 90 s; a leap further, and a dial would time out.
            for count in (4, 6):
                await clock.advance(91)
                await house.event(count, type="delivery", source="mail1")
            assert {each["attempt"] for each in house.of(type="delivery")} == {2}


async def test_a_goodbye_that_names_a_blocklist_moves_what_was_under_way(tmp_path: Path) -> None:
    clock = HandClock()
    async with Doorman() as peer, facing(tmp_path, peer, clock) as house:
        await house.send("b0@dst.test")
        await house.event(type="delivery", source="mail1")
        peer.say(FIRST, LISTED.replace("554 5.7.1", "421 4.7.1"))
        await house.send("b1@dst.test")
        delivery = await house.event(type="delivery", source="mail2")
        assert delivery["attempt"] == 1
        assert house.of(type="deferral") == []


async def test_a_source_that_is_gone_for_long_never_holds_mail(tmp_path: Path) -> None:
    clock = HandClock()
    gone = {**TWO, "mail1": SourceSettings(Address("192.0.2.77"))}
    async with Doorman() as peer, facing(tmp_path, peer, clock, sources=gone) as house:
        for number in range(20):
            await house.send(f"b{number}@dst.test")
            await house.event(number + 1, type="delivery", source="mail2")
            await clock.advance(61)
        assert {each["attempt"] for each in house.of(type="delivery")} == {1}


async def test_a_lane_that_leaves_for_that_of_another_source_gets_no_mail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sources are gone, and there are as many lanes as may be."""
    monkeypatch.setattr("mta.delivery.lanes.LANES", 1)
    clock = HandClock()
    gone = {f"mail{n}": SourceSettings(Address(f"192.0.2.7{n}"), HostName(f"mail{n}.test")) for n in (1, 2)}
    async with Doorman() as peer, facing(tmp_path, peer, clock, sources=gone) as house:
        for number in range(3):
            await house.send(f"b{number}@dst.test")
            await house.event(number + 1, type="deferral")
            await clock.advance(3)
        await clock.advance(600)  # retries come again and again, and lanes are forgotten
        await house.quiet()
        assert house.daemon.metrics.bugs["outbound"]._value.get() == 0
        assert house.daemon.metrics.bugs["delivery"]._value.get() == 0


async def test_a_message_makes_no_lanes_that_it_does_not_use(tmp_path: Path) -> None:
    clock = HandClock()
    many = {f"mail{n}": SourceSettings(Address(f"127.0.0.{n + 1}")) for n in range(1, 9)}
    await fill(settings(tmp_path).spool.path, clock, [("bulk", "b@dst.test")])
    async with Doorman() as peer, facing(tmp_path, peer, clock, sources=many, pools={}) as house:
        await house.event(type="delivery")
        await house.send("c@dst.test")
        await house.event(2, type="delivery")
        assert house.daemon.pool.lanes <= 3


async def test_the_rate_of_a_route_holds_for_all_sources_together(tmp_path: Path) -> None:
    clock = HandClock()
    route = {"rate": Rate(3, 60.0)}
    pools = {"default": {"mail1": 1, "mail2": 1}}
    async with Doorman() as peer, facing(tmp_path, peer, clock, pools=pools, route=route) as house:
        for number in range(12):
            await house.send(f"b{number}@dst.test")
        await house.event(3, type="delivery")
        assert peer.dials.keys() == {FIRST, SECOND}
        for minute in range(1, 4):
            assert peer.taken.total() == 3 * minute
            await clock.advance(60)
            await house.event(3 * minute + 3, type="delivery")


async def test_mail_that_a_site_answers_from_one_source_only_moves_there(tmp_path: Path) -> None:
    clock = HandClock()
    async with Doorman() as peer, facing(tmp_path, peer, clock) as house:
        peer.say(FIRST, DROPS)
        await house.send("first@dst.test")
        await house.event(type="deferral", source="mail1")  # once is weather
        await clock.advance(301)
        delivery = await house.event(type="delivery", source="mail2")
        assert delivery["attempt"] == 2
        await house.send("second@dst.test")
        await house.event(2, type="delivery", source="mail2")
        assert peer.dials[FIRST] == 2  # it is left alone for a minute
        peer.say(FIRST, TAKES)
        await clock.advance(61)
        await house.send("third@dst.test")
        await house.event(type="delivery", source="mail1")
        assert len(house.of(type="deferral")) == 1


async def test_a_site_that_answers_no_source_costs_one_more_dial_and_no_lost_attempt(tmp_path: Path) -> None:
    clock = HandClock()
    async with Doorman() as peer, facing(tmp_path, peer, clock) as house:
        peer.say(FIRST, DROPS)
        peer.say(SECOND, DROPS)
        await house.send("b@dst.test")
        await house.event(type="deferral", source="mail1", attempt=1)
        await clock.advance(301)
        await house.event(type="deferral", source="mail2", attempt=2)
        await clock.advance(601)
        await house.event(type="deferral", source="mail1", attempt=3)
        assert peer.dials == {FIRST: 3, SECOND: 1}


async def test_refusals_of_many_connections_at_once_are_one_block(tmp_path: Path) -> None:
    clock = HandClock()
    async with Doorman() as peer, facing(tmp_path, peer, clock, pools={"default": {"mail1": 1}}) as house:
        peer.say(FIRST, SILENT)
        for number in range(24):
            await house.send(f"b{number}@dst.test")
        await peer.dialled(FIRST, 3)
        peer.say(FIRST, LISTED)
        await house.event(3, type="bounce")
        await clock.advance(3)
        (limit,) = house.of(type="limit")
        assert limit["reason"].startswith("suspended:")


async def test_who_is_full_waits_for_his_own_lane_and_not_for_another_source_that_is_shut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mta.core.limits.turns.CAPACITY", 2)
    clock = HandClock()
    mail = [("two", "shut@dst.test")] + [("one", f"b{n}@dst.test") for n in range(3)]
    await fill(settings(tmp_path).spool.path, clock, mail)
    pools = {"one": EITHER["default"], "two": {"mail2": 1}}
    async with Doorman() as peer:
        peer.say(FIRST, SILENT)
        peer.say(SECOND, "450 4.7.1 Rate limit exceeded, try again in 7200 seconds")
        async with facing(tmp_path, peer, clock, pools=pools, streams=STREAMS) as house:
            await house.event(type="deferral", source="mail2")
            await peer.dialled(FIRST)
            peer.say(FIRST, TAKES)
            await house.event(2, type="delivery", source="mail1")
            await clock.advance(91)
            await house.event(3, type="delivery", source="mail1")


async def test_what_bars_a_source_is_explained(tmp_path: Path) -> None:
    clock = HandClock()
    async with Doorman() as peer, facing(tmp_path, peer, clock) as house:
        peer.say(FIRST, LISTED)
        await house.send("b@dst.test")
        await house.event(type="deferral", source="mail1")
        socket = house.daemon.settings.control_socket
        answer = await asyncio.to_thread(call, socket, "explain", {"destination": "dst.test"})
        state = answer["sources"][0]["state"]
        assert state["barred_for"] == state["shut_for"] > 60.0
        assert state["reason"].startswith("suspended:")


async def test_a_block_is_on_disk_with_the_next_commit(tmp_path: Path) -> None:
    clock = HandClock()
    async with Doorman() as peer, facing(tmp_path, peer, clock) as house:
        peer.say(FIRST, LISTED)
        await house.send("b@dst.test")
        await house.event(type="limit", source="mail1")
        await house.daemon.spool.lease([])
        ((name, saved),) = (await house.daemon.spool.reader.learned()).items()
        assert name.endswith(" from mail1")
        assert (saved.barred, saved.until) == (True, clock.now() + 7200.0)
