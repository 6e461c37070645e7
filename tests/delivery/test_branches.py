"""What was learned is there when mail comes, whoever looked before, and whatever the settings say by then."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mta.core.limits import budget
from mta.core.limits.adaptive import Learned, Saved
from mta.core.limits.level import Bounds
from mta.core.limits.order import Share
from mta.core.limits.throttle import SiteLimits
from mta.core.model import Kind, Outcome, Reaction, Reply, Scope, Subject, Verdict, Wait
from mta.core.route.routing import Host, Route
from mta.core.route.source import Source
from mta.core.route.terms import BranchBounds
from mta.delivery.branches import SAVE_INTERVAL, Branches
from mta.delivery.traffic import Traffic
from mta.metrics import Metrics
from mta.spool.queue import Spool
from tests.fakes.clock import HandClock

LEARNED = Learned(20.0, math.inf, 3.0, math.inf, None)
SOURCE = Source("", "", "out.sender.test")
HOSTS = (Host("b.test", 25, 10), Host("a.test", 25, 20))
ANY = Bounds(1.0, math.inf, math.inf)
CAREFUL = BranchBounds(Bounds(1 / 60, 5.0, math.inf), Bounds(1.0, 2.0, 20.0))
SLOW = BranchBounds(Bounds(1 / 60, 1 / 60, 1 / 60), ANY)
FAST = BranchBounds(ANY, ANY)
DELIVERED = Outcome(Kind.DELIVERED, Subject.MESSAGE, Scope.RECIPIENT, Reply(250, "2.0.0", "ok"))
ROUTE = Route("b.test;a.test", HOSTS, SiteLimits(20, 100, 50, None), CAREFUL)


class Sender:
    """Waits with batches of a hundred recipients."""

    share: Share = (0, "acme")
    lacks_host = False

    def __init__(self, traffic: Traffic, batches: int) -> None:
        self.traffic, self.batches = traffic, batches
        traffic.enter(self)

    def kick(self) -> None:
        while self.batches and self.traffic.take(self, 100):
            self.batches -= 1

    def spare(self) -> bool:
        return False

    def put_off(self, until: Wait, tenant: str | None = None) -> None:
        self.batches = 0


@asynccontextmanager
async def remembering(directory: Path, clock: HandClock, known: dict[str, Saved]) -> AsyncIterator[Branches]:
    """The tree of branches over a spool in which this was kept."""

    async def publish(lines: bytes) -> None:
        pass

    spool = Spool(directory, "live", 1_000_000, publish, clock, Metrics())
    await spool.open(300.0)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(spool.run())
            try:
                spool.learn(known)
                await spool.lease([])
                branches = Branches(spool, clock, Metrics())
                await branches.start()
                yield branches
                branches.stop()
            finally:
                spool.stop()
    finally:
        await spool.close()


async def test_an_operator_s_look_does_not_forget_what_was_learned_under_a_former_name(
    tmp_path: Path,
) -> None:
    clock = HandClock()
    kept = {"a.test,b.test": Saved(LEARNED, clock.now())}
    async with remembering(tmp_path, clock, kept) as branches:
        seen = branches.known(ROUTE, SOURCE)
        assert seen is not None
        assert seen.branch.rate == LEARNED.rate
        assert branches.enter(ROUTE, SOURCE).branch.rate == LEARNED.rate


async def test_a_destination_with_terms_of_its_own_is_known_by_its_former_name(tmp_path: Path) -> None:
    clock = HandClock()
    kept = {"d.test@a.test,b.test": Saved(LEARNED, clock.now())}
    own = ROUTE._replace(site="d.test@b.test;a.test")
    async with remembering(tmp_path, clock, kept) as branches:
        assert branches.enter(own, SOURCE).branch.rate == LEARNED.rate


async def test_who_waits_for_an_old_limit_hears_of_the_new_one(tmp_path: Path) -> None:
    clock = HandClock()
    async with remembering(tmp_path, clock, {}) as branches:
        traffic = branches.enter(ROUTE._replace(bounds=SLOW), SOURCE)
        lane = Sender(traffic, 3)
        lane.kick()
        await clock.advance(60.0)
        assert lane.batches == 2
        branches.rebound(traffic, FAST)
        await clock.advance(1.0)
        assert not lane.batches


async def test_branches_of_lanes_that_are_gone_are_gone(tmp_path: Path) -> None:
    clock = HandClock()
    async with remembering(tmp_path, clock, {}) as branches:
        under = ROUTE._replace(provider="giant", above="giant")
        lanes = []
        for number in range(3):
            traffic = branches.enter(under._replace(site=f"s{number}.test"), SOURCE)
            lanes.append((Sender(traffic, 0), traffic))
        assert len(branches.in_use) == 4
        for lane, traffic in lanes:
            branches.leave(lane, traffic)
        assert not branches.in_use


@pytest.mark.parametrize("is_reload", [False, True])
async def test_who_blocked_us_is_asked_by_one_transaction_after_a_restart_or_a_reload_too(
    tmp_path: Path, is_reload: bool
) -> None:
    clock = HandClock()
    kept = {ROUTE.site: Saved(LEARNED, clock.now(), clock.now() + 3600.0, "suspended")}
    async with remembering(tmp_path, clock, kept) as branches:
        traffic = branches.enter(ROUTE, SOURCE)
        if is_reload:
            branches.rebound(traffic, FAST)
        lane = Sender(traffic, 3)
        lane.kick()
        await clock.advance(3590.0)
        assert lane.batches == 3
        await clock.advance(30.0)
        assert lane.batches == 2


async def test_what_has_been_in_use_for_days_without_a_change_is_not_days_old(tmp_path: Path) -> None:
    clock = HandClock()
    async with remembering(tmp_path, clock, {ROUTE.site: Saved(LEARNED, clock.now())}) as branches:
        Sender(branches.enter(ROUTE, SOURCE), 0)
        await clock.advance(2 * 86400.0)
    async with remembering(tmp_path, clock, {}) as branches:
        assert branches.enter(ROUTE, SOURCE).branch.rate > 0.9 * LEARNED.rate


async def test_a_spool_with_more_branches_than_are_remembered_keeps_those_that_were_used_last(
    tmp_path: Path,
) -> None:
    clock = HandClock()
    kept = {f"s{n}.test": Saved(LEARNED, clock.now() + n) for n in range(budget.LEARNED + 500)}
    async with remembering(tmp_path, clock, kept):
        pass
    async with remembering(tmp_path, clock, {}) as branches:
        assert [*branches._learned] == [*kept][500:]
        ((count,),) = await branches._spool.reader._rows("SELECT count(*) FROM branch")
        assert count == budget.LEARNED


async def test_who_is_in_use_and_never_changes_is_not_forgotten_for_those_that_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mta.delivery.branches.LEARNED", 3)
    clock = HandClock()
    kept = {f"s{n}.test": Saved(LEARNED, clock.now()) for n in range(3)}
    async with remembering(tmp_path, clock, kept) as branches:
        oldest = branches.enter(ROUTE._replace(site="s0.test"), SOURCE)
        branches.leave(Sender(oldest, 0), oldest)
        other = branches.enter(ROUTE, SOURCE)
        other.branch.restore(LEARNED, 0.0)
        branches.leave(Sender(other, 0), other)
        await branches._spool.lease([])
        assert await branches._spool.reader.learned() == branches._learned
        assert branches._learned.keys() == {"s0.test", "s2.test", ROUTE.site}


async def test_a_minute_in_which_nobody_was_answered_looks_at_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    saved = Traffic.saved

    def look(traffic: Traffic, now: float) -> Saved | None:
        looked.append(traffic.name)
        return saved(traffic, now)

    monkeypatch.setattr(Traffic, "saved", look)
    clock = HandClock()
    async with remembering(tmp_path, clock, {}) as branches:
        traffics = [branches.enter(ROUTE._replace(site=f"s{n}.test"), SOURCE) for n in range(100)]
        await clock.advance(SAVE_INTERVAL + 1)
        assert not looked
        traffics[7].ended(0.0, clock.monotonic(), [DELIVERED], 0)
        await clock.advance(SAVE_INTERVAL)
        assert looked == ["s7.test"]


async def test_a_tenant_that_a_site_has_had_enough_of_stays_suspended_over_a_restart(tmp_path: Path) -> None:
    clock = HandClock()
    verdict = Verdict(Subject.RATE, False, False, "enough-of-one", Reaction.RETRY, Scope.TENANT)
    async with remembering(tmp_path, clock, {}) as branches:
        branches.enter(ROUTE, SOURCE).suspend_tenant("acme", 1800.0, verdict)
    async with remembering(tmp_path, clock, {}) as branches:
        traffic = branches.enter(ROUTE, SOURCE)
        assert traffic.holds
        shut = traffic.shut(clock.now(), "acme")
        assert isinstance(shut, Wait)
        assert (shut.until, shut.reason) == (clock.now() + 1800.0, "suspended: enough-of-one: tenant acme")
        assert traffic.shut(clock.now(), "else") is None
        await clock.advance(1801.0)
        assert traffic.shut(clock.now(), "acme") is None
