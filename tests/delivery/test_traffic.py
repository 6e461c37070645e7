"""Lanes that share a branch: nobody waits for what is there, or is forgotten."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from functools import partial

import pytest

from mta.core.limits.adaptive import Branch, Learned, Saved, Suspended
from mta.core.limits.level import Bounds
from mta.core.limits.order import Share
from mta.core.model import Kind, Outcome, Reaction, Reply, Scope, Subject, Verdict, Wait
from mta.delivery.traffic import Traffic
from tests.fakes.clock import HandClock

DELIVERED = Outcome(Kind.DELIVERED, Subject.MESSAGE, Scope.RECIPIENT, Reply(250, "2.0.0", "ok"))
SLOWER = Verdict(Subject.RATE, False, False, "slower", Reaction.NONE, Scope.SOURCE)
REFUSED = DELIVERED._replace(kind=Kind.DEFERRED, subject=Subject.RATE, verdict=SLOWER)
ANY = Bounds(1.0, math.inf, math.inf)


class Sender:
    """Waits with batches of so many recipients, over one connection; what it takes is answered at once."""

    lacks_host = False

    def __init__(self, traffic: Traffic, clock: HandClock, batches: int = 0, recipients: int = 1) -> None:
        self.traffic, self.clock = traffic, clock
        self.batches, self.recipients = batches, recipients
        self.share: Share = (0, "acme")
        self.wants_connection = False
        self.has_place = True  # over all branches
        self.sent: deque[float] = deque()
        self.answer: Callable[[], Outcome] = lambda: DELIVERED
        traffic.enter(self)

    def kick(self) -> None:
        while self.batches and self.traffic.take(self, self.recipients):
            self.batches -= 1
            now = self.clock.monotonic()
            self.sent.append(now)
            self.clock.call_later(0.05, partial(self._answered, now))
        if self.wants_connection and not self.has_place:
            self.traffic.has_no_place(self)
        elif self.wants_connection and self.traffic.dial(self):
            self.wants_connection = False

    def _answered(self, started: float) -> None:
        outcomes = [self.answer()] * self.recipients
        self.traffic.ended(started, self.clock.monotonic(), outcomes, 1)
        self.kick()

    def spare(self) -> bool:
        return False

    def put_off(self, until: Wait, tenant: str | None = None) -> None:
        self.batches = 0


def fail(error: Exception) -> None:
    raise error


def branch(clock: HandClock, rate: Bounds, connections: Bounds = ANY) -> Traffic:
    learned = Branch(rate, connections)
    return Traffic("site", "site", "", "", learned, None, clock, lambda traffic, change: None, fail)


async def test_who_waited_for_the_end_of_a_refusal_goes_on_with_the_first_good_answer() -> None:
    clock = HandClock()
    traffic = branch(clock, Bounds(1.0, 10.0, 10.0))
    lane = Sender(traffic, clock, batches=100)
    answers = deque([DELIVERED] * 20 + [REFUSED])
    lane.answer = lambda: answers.popleft() if answers else DELIVERED
    lane.kick()
    await clock.advance(10.0)
    assert len(lane.sent) > 40
    assert max(b - a for a, b in zip(list(lane.sent), list(lane.sent)[1:], strict=False)) < 3.0


async def test_a_turn_for_a_connection_is_none_for_the_rate() -> None:
    clock = HandClock()
    traffic = branch(clock, Bounds(1.0, 10.0, 10.0), Bounds(1.0, 1.0, 1.0))
    urgent, news = Sender(traffic, clock, recipients=2), Sender(traffic, clock)
    urgent.share, news.share = (4, "acme"), (-4, "acme")
    assert traffic.dial(urgent)
    news.wants_connection, news.batches = True, 100
    news.kick()
    assert len(news.sent) == 2
    urgent.batches = 1
    urgent.kick()
    await clock.advance(0.1)  # half of what the urgent one waits for is there
    news.kick()
    assert len(news.sent) == 2
    traffic.closed(urgent)
    assert len(news.sent) == 2


async def test_who_has_no_place_by_now_keeps_nobody_behind_him_waiting() -> None:
    clock = HandClock()
    traffic = branch(clock, Bounds(1.0, 10.0, 10.0))
    flood, shop = Sender(traffic, clock), Sender(traffic, clock)
    shop.share = (0, "shop")
    now = clock.monotonic()
    traffic.branch.shut(now, now + 30.0, "refused")
    flood.wants_connection = shop.wants_connection = True
    flood.kick()
    shop.kick()
    flood.has_place = False  # other sites have all that his share may have
    await clock.advance(32.0)
    assert not shop.wants_connection
    assert flood.wants_connection


async def test_what_was_saved_before_the_clock_was_set_back_is_not_from_the_future() -> None:
    clock = HandClock()
    traffic = branch(clock, Bounds(1.0, 5.0, math.inf))
    year = 365 * 86400.0
    learned = Learned(20.0, math.inf, 3.0, math.inf, None)
    then = clock.now() + year
    other = Suspended("other", then + 7200.0, "suspended")
    traffic.begin_with(Saved(learned, then, then + 3600.0, "suspended", tenants=(other,)))
    assert traffic.branch.rate == 20.0
    shut = traffic.shut(clock.now(), "acme")
    assert shut is not None
    assert shut.until == pytest.approx(clock.now() + 3600.0)
    shut = traffic.shut(clock.now(), "other")
    assert shut is not None
    assert shut.until == pytest.approx(clock.now() + 7200.0)


async def test_a_large_message_has_its_turn_among_small_ones_without_end() -> None:
    clock = HandClock()
    traffic = branch(clock, Bounds(1.0, 10.0, 10.0))
    small, large = Sender(traffic, clock, batches=1000), Sender(traffic, clock, recipients=50)
    small.share, large.share = (0, "acme"), (0, "shop")
    small.kick()
    large.batches = 1
    large.kick()
    await clock.advance(5.0)
    assert len(large.sent) == 1
