"""Mail to more sites than there may be connections, or lanes: who waits, who goes first, what is closed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mta.config.policy import build
from mta.config.settings import Endpoint, Limits, Sandbox, StaticRoute
from mta.core.limits.throttle import Rate
from mta.delivery.connections import IDLE
from mta.delivery.traffic import SLICE
from mta.smtp import client
from tests.fakes.clock import HandClock
from tests.fakes.house import House, running, settings
from tests.fakes.receiver import Receiver
from tests.fakes.tenants import BOTH, FROM_OTHER, FROM_SHOP

SITES = 30
SHUT = 1  # a port
NEWS = [f"news@d{site}.test" for site in range(SITES)]


class Rig:
    """A house, and a receiving server that is many sites."""

    def __init__(self, house: House, clock: HandClock, receiver: Receiver) -> None:
        self.house, self.clock, self.receiver = house, clock, receiver

    @property
    def gauges(self) -> dict[str, float]:
        metrics = self.house.daemon.metrics
        found = {each.name: each for each in metrics.registry.collect()}
        return {
            name: found[f"mta_{name}"].samples[0].value
            for name in ("lanes", "connections_out", "connections_out_waiting")
        }

    async def until(self, condition: Callable[[], bool], most: int) -> None:
        """Let time pass, in small steps, until it is so, or so many seconds are over."""
        await self.house.quiet()
        for _ in range(10 * most):
            if condition():
                return
            await self.clock.advance(0.1)
            await self.house.quiet()
        assert condition()

    def delivered(self) -> int:
        return len(self.house.of(type="delivery"))


@asynccontextmanager
async def sending(
    directory: Path, connections: int, sites: int = SITES, shut: int = 0, rate: Rate | None = None
) -> AsyncIterator[Rig]:
    """A daemon with routes to so many sites; nobody listens at the first of them, where some are shut."""
    async with Receiver("0.0.0.0") as receiver:
        terms = settings(
            directory,
            limits=Limits(connections_out=connections),
            routes={
                f"d{site}.test": StaticRoute(
                    Endpoint(f"127.0.1.{site + 1}", SHUT if site < shut else receiver.port), rate=rate
                )
                for site in range(sites)
            },
        )
        clock = HandClock()
        async with running(terms, clock, BOTH) as house:
            try:
                yield Rig(house, clock, receiver)
            finally:
                receiver.hang_up()


async def test_mail_to_more_sites_than_there_may_be_connections_goes_over_as_many_as_there_may(
    tmp_path: Path,
) -> None:
    """Whoever has been idle for longest closes for the next site: nobody waits until it is idle for long."""
    async with sending(tmp_path, connections=10) as rig:
        await rig.house.send(*NEWS, origin=FROM_OTHER)
        await rig.until(lambda: rig.delivered() == SITES, most=int(IDLE) // 2)
        assert rig.receiver.peak <= 5  # who is alone leaves as many as he has
        assert rig.gauges["connections_out_waiting"] == 0
        await rig.clock.advance(2 * IDLE)
        await rig.house.quiet()
        assert rig.gauges["connections_out"] == rig.receiver.open == 0


async def test_who_has_more_than_his_part_by_now_and_uses_none_of_it_waits_for_nobody(tmp_path: Path) -> None:
    """Another tenant came, so what is idle counts against who opened it: several close for one."""
    async with sending(tmp_path, connections=12) as rig:
        await rig.house.send(*NEWS[:6], origin=FROM_OTHER)
        await rig.until(lambda: rig.delivered() == 6, most=5)
        await rig.house.send(*[f"ann@d{site}.test" for site in range(10, 14)], origin=FROM_SHOP)
        await rig.until(lambda: rig.delivered() == 10, most=5)
        assert rig.gauges["connections_out"] == 9
        await rig.house.send(NEWS[20], origin=FROM_OTHER)
        await rig.until(lambda: rig.delivered() == 11, most=5)


async def test_a_flood_that_no_site_answers_keeps_nobody_else_from_his_connection(tmp_path: Path) -> None:
    async with sending(tmp_path, connections=10) as rig:
        rig.receiver.go.clear()
        await rig.house.send(*NEWS, origin=FROM_OTHER)
        await rig.until(lambda: len(rig.receiver.asked) == 5, most=5)
        assert rig.gauges["connections_out_waiting"] == SITES - 5
        for number in range(2):
            await rig.house.send(f"ann@d{SITES - 1 - number}.test", origin=FROM_SHOP)
        await rig.until(lambda: len(rig.receiver.asked) == 7, most=5)
        assert sorted(rig.receiver.asked[5:]) == ["ann@d28.test", "ann@d29.test"]


async def test_an_urgent_message_has_the_next_connection_that_is_over(tmp_path: Path) -> None:
    async with sending(tmp_path, connections=2) as rig:
        rig.receiver.go.clear()
        await rig.house.send(*NEWS, origin=FROM_OTHER)
        await rig.until(lambda: len(rig.receiver.asked) == 1, most=5)
        rig.house.daemon.pool.out.become(1)  # and now not even a share of its own is left
        await rig.house.send(f"ann@d{SITES - 1}.test", origin=FROM_SHOP)
        await rig.house.quiet()
        assert len(rig.receiver.asked) == 1
        rig.receiver.go.set()
        await rig.until(lambda: rig.delivered() == SITES + 1, most=60)
        assert f"ann@d{SITES - 1}.test" in rig.receiver.asked[1:3]


@pytest.mark.parametrize(("origin", "priority"), [(FROM_OTHER, 4), (FROM_SHOP, 4)])
async def test_an_urgent_message_has_the_connection_of_less_urgent_mail_that_only_waits_for_its_rate(
    tmp_path: Path, origin: str, priority: int
) -> None:
    async with sending(tmp_path, connections=1, rate=Rate(1, 10.0)) as rig:
        rig.receiver.go.clear()
        for _ in range(9):
            await rig.house.send(NEWS[0], origin=FROM_OTHER)
        await rig.until(lambda: len(rig.receiver.asked) == 1, most=5)
        await rig.house.send("ann@d1.test", origin=origin, priority=priority)
        await rig.clock.advance(2.0)
        rig.receiver.go.set()
        await rig.until(lambda: "ann@d1.test" in rig.receiver.asked, most=5)


async def test_an_idle_connection_that_is_used_up_blocks_no_dial(tmp_path: Path) -> None:
    """A limit of messages was learned from goodbyes on others, while it had nothing to do."""
    async with sending(tmp_path, connections=10) as rig:
        for _ in range(3):
            await rig.house.send(NEWS[0], origin=FROM_OTHER)
        await rig.until(lambda: rig.delivered() == 3, most=5)
        (lane,) = rig.house.daemon.pool._lanes
        (connection,) = lane.idle
        lane.traffic.branch._evidence.messages_per_connection = connection.begun
        await rig.house.send(NEWS[0], origin=FROM_OTHER)
        await rig.until(lambda: rig.delivered() == 4, most=5)
        assert len(rig.receiver.dialled) == 2


async def test_a_connection_that_is_never_idle_gives_way_when_others_wait(tmp_path: Path) -> None:
    async with sending(tmp_path, connections=2) as rig:
        rig.receiver.go.clear()
        for _ in range(60):
            await rig.house.send(NEWS[0], origin=FROM_OTHER)
        await rig.house.send(NEWS[1], origin=FROM_OTHER)
        rig.receiver.go.set()
        await rig.until(lambda: rig.delivered() == 61, most=10)
        assert rig.receiver.asked.index(NEWS[1]) <= 2 * SLICE  # the first site waited for its second before
        assert rig.receiver.peak == 1


async def test_a_flood_that_has_its_part_ends_no_connection_of_others_that_is_in_use(tmp_path: Path) -> None:
    async with sending(tmp_path, connections=10) as rig:
        rig.receiver.go.clear()
        await rig.house.send(*NEWS[:20], origin=FROM_OTHER)
        await rig.until(lambda: len(rig.receiver.asked) == 5, most=5)
        rig.receiver.said = {"d29.test": "550 5.1.1 nobody"}  # the rest hangs
        for number in range(3 * SLICE):
            await rig.house.send(f"b{number}@d29.test", origin=FROM_SHOP)
        await rig.until(lambda: len(rig.house.of(type="bounce")) == 3 * SLICE, most=10)
        assert rig.gauges["connections_out_waiting"] == 15
        assert rig.receiver.dialled.count("127.0.1.30") == 1


async def test_mail_for_more_sites_than_there_may_be_lanes_waits_on_disk_and_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mta.delivery.lanes.LANES", 3)
    async with sending(tmp_path, connections=100, sites=8) as rig:
        rig.receiver.go.clear()
        await rig.house.send(*NEWS[:8], origin=FROM_OTHER)
        await rig.until(lambda: len(rig.receiver.asked) == 3, most=5)
        assert rig.gauges["lanes"] == 3
        assert rig.house.daemon.spool.tally.deferred == 5
        rig.receiver.go.set()
        await rig.until(lambda: rig.delivered() == 8, most=300)
        assert not rig.house.of(type="deferral")
        assert rig.gauges["lanes"] <= 3


async def test_a_lane_that_only_remembers_a_dead_site_leaves_for_another_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mta.delivery.lanes.LANES", 3)
    async with sending(tmp_path, connections=100, sites=8, shut=3) as rig:
        await rig.house.send(*NEWS[:3], origin=FROM_OTHER)
        await rig.until(lambda: len(rig.house.of(type="deferral")) == 3, most=5)
        assert rig.gauges["lanes"] == 3
        for sent, news in enumerate(NEWS[3:8], 1):
            await rig.house.send(news, origin=FROM_OTHER)
            await rig.until(lambda sent=sent: rig.delivered() == sent, most=60)  # type: ignore[misc]
            assert rig.gauges["lanes"] <= 3


def test_no_phase_of_a_transaction_is_shorter_than_the_time_until_the_next_look() -> None:
    assert min(*client._TIMEOUTS.values(), client.BLOCK_TIMEOUT) >= IDLE


async def test_more_connections_than_the_system_has_files_for_are_told_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mta.ops.descriptors.raise_limit", lambda: 1024)
    async with sending(tmp_path, connections=5000) as rig:
        places = rig.house.daemon.pool.out._places
        words = "limits.connections_out is 5000; the system's files are enough for 224: raise LimitNOFILE="
        assert words in caplog.text
        assert places.most == 224
        adopted = replace(rig.house.daemon.settings, limits=Limits(connections_out=7))
        rig.house.daemon.adopt(build(adopted))
        assert places.most == 7


async def test_in_the_sandbox_a_connection_counts_for_both_of_its_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mta.ops.descriptors.raise_limit", lambda: 1024)
    async with running(settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox"))) as house:
        assert house.daemon.pool.out._places.most == 112
