"""Hosts that accept connections and say nothing hold what is bounded: places for retries, fresh mail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mta.api.control import call
from mta.config.settings import Endpoint, StaticRoute
from tests.fakes.clock import HandClock
from tests.fakes.house import House, running, settings
from tests.fakes.peer import ScriptedPeer
from tests.fakes.receiver import Receiver
from tests.fakes.tenants import BOTH, FROM_OTHER
from tests.fakes.waiting import Waiting, fill

MUTE = 12  # hosts


@asynccontextmanager
async def beside_mute_hosts(
    directory: Path, clock: HandClock, live: int, waiting: list[Waiting]
) -> AsyncIterator[House]:
    """A daemon whose mail to d0.test, d1.test, ... meets silence, and to live.test the peer at a port."""
    async with (
        Receiver("0.0.0.0", mute=True) as mute,
        beside(mute, directory, clock, live, waiting) as house,
    ):
        yield house


@asynccontextmanager
async def beside(
    mute: Receiver, directory: Path, clock: HandClock, live: int, waiting: list[Waiting]
) -> AsyncIterator[House]:
    await fill(settings(directory).spool.path, clock, waiting)
    routes = {
        f"d{n}.test": StaticRoute(Endpoint(f"127.0.1.{n + 1}", mute.port), connections=1) for n in range(MUTE)
    }
    routes["live.test"] = StaticRoute(Endpoint("127.0.0.1", live))
    async with running(settings(directory, routes=routes), clock, BOTH) as house:
        try:
            yield house
        finally:
            mute.hang_up()


@pytest.mark.parametrize(
    ("priority", "tenant"),
    [
        pytest.param(4, "other", id="a password"),
        pytest.param(-4, "shop", id="a newsletter of another tenant"),
    ],
)
async def test_a_retry_goes_when_it_is_due_however_many_hosts_are_mute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, priority: int, tenant: str
) -> None:
    monkeypatch.setattr("mta.outbound.leases.LOTS", MUTE - 2)
    clock = HandClock()
    waiting = [Waiting("bulk", f"b@d{n}.test", -4, "other") for n in range(MUTE)]
    waiting.append(Waiting("bulk", "ann@live.test", priority, tenant, due=3.0))
    async with (
        Receiver() as receiver,
        beside_mute_hosts(tmp_path, clock, receiver.port, waiting) as house,
    ):
        await house.quiet()
        for _ in range(4):
            await clock.advance(1.0)
            await house.quiet()
        assert receiver.asked == ["ann@live.test"]


async def test_who_finds_no_place_has_the_next_that_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mta.outbound.leases.LOTS", 2 * MUTE)  # so many as there are, for one share
    clock = HandClock()
    waiting = [Waiting("bulk", f"b@d{n}.test", -4, "other") for n in range(MUTE)]
    waiting.append(Waiting("bulk", "ann@live.test", -4, "other", due=3.0))
    async with (
        Receiver() as receiver,
        Receiver("0.0.0.0", mute=True) as mute,
        beside(mute, tmp_path, clock, receiver.port, waiting) as house,
    ):
        await house.quiet()
        for _ in range(4):
            await clock.advance(1.0)
            await house.quiet()
        assert receiver.asked == []
        mute.hang_up()
        await house.event(type="delivery", recipient="ann@live.test")


async def test_a_tenants_flood_does_not_postpone_the_fresh_mail_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mta.outbound.scheduler.MOST_FRESH", 20)
    clock = HandClock()
    async with (
        ScriptedPeer("hold") as peer,
        beside_mute_hosts(tmp_path, clock, peer.port, []) as house,
    ):
        for n in range(MUTE):
            await house.send(*[f"u{k}@d{n}.test" for k in range(5)], origin=FROM_OTHER)
        await house.send("ann@live.test")
        await peer.at(1, "hold")
        await house.quiet()
        queue = await asyncio.to_thread(call, house.daemon.settings.control_socket, "queue", {})
        states = {each["recipient"]: each["state"] for each in queue}
        assert states["ann@live.test"] == "fresh"
        peer.hang_up()
