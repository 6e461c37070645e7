"""A path finds what a site takes, keeps to it, and is not driven down by what is no refusal of its speed."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import pytest

from mta.core.limits.adaptive import Branch
from mta.core.limits.level import Bounds
from mta.core.limits.replytime import ReplyTime
from mta.core.model import Go
from tests.fakes.sender import Sender
from tests.fakes.sites import Bucket, Fixed, Limit, Site, Sliding, Temper

HOUR = 3600.0
UNLIMITED = Bounds(1 / 60, math.inf, math.inf)
ANY_WINDOW = Bounds(1.0, 1.0, 100.0)


def path(rate: float, start: float = 1 / 20) -> Branch:
    return Branch(Bounds(1 / 60, rate * start, math.inf), ANY_WINDOW)


def meet(site: Site, hours: float, start: float = 1 / 20, **sender: float) -> Sender:
    """Mail without end, from a part (or a multiple) of what the site takes."""
    rate = 1.0 if site.limit is None else site.limit.rate
    met = Sender(path(rate, start), site, batch=max(1, int(rate / 3)), **sender)
    met.run(hours * HOUR)
    return met


def unasked(site: Site, minutes: float) -> Sender:
    """Mail without end, over a path as it is shipped, to a site that nobody knows."""
    met = Sender(Branch(Bounds(1 / 60, 5.0, math.inf), Bounds(1.0, 2.0, 20.0), is_known=False), site)
    met.run(minutes * 60.0)
    return met


def assert_found(met: Sender, start: float, end: float, share: float = 0.85, refused: float = 0.02) -> None:
    assert met.throughput(start, end) >= share
    assert met.refusals(start, end) < refused


LIMITS: dict[str, Callable[[float], Limit]] = {
    "a bucket of a second": lambda rate: Bucket(rate, 1.0),
    "a bucket of ten seconds": lambda rate: Bucket(rate, 10.0),
    "a bucket of a minute": lambda rate: Bucket(rate, 60.0),
    "a fixed minute": lambda rate: Fixed(rate, 60.0),
    "a sliding minute": lambda rate: Sliding(rate, 60.0),
}


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize(("rate", "hours"), [(0.2, 3.0), (0.5, 2.0), (1.0, 2.0), (10.0, 1.0), (500.0, 0.75)])
@pytest.mark.parametrize("start", [1 / 20, 20.0])
def test_the_limit_is_found_and_kept(limit: str, rate: float, hours: float, start: float) -> None:
    met = meet(Site(LIMITS[limit](rate)), hours, start)
    assert_found(met, hours * HOUR / 2, hours * HOUR)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("rate", [0.5, 1.0, 10.0])
def test_from_a_twentieth_it_is_found_within_a_quarter_of_an_hour(limit: str, rate: float) -> None:
    assert meet(Site(LIMITS[limit](rate)), 0.5).found_at(0.0) <= 900.0


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("rate", [1.0, 8.0, 20.0, 30.0])
def test_a_site_that_nobody_knows_is_used_from_the_first_minute_on(limit: str, rate: float) -> None:
    met = unasked(Site(LIMITS[limit](rate), latency=0.06), 12.0)
    assert_found(met, 0.0, 720.0, refused=0.05)


@pytest.mark.parametrize(("connections", "latency"), [(8, 0.4), (16, 1.6)])
def test_a_slow_site_that_nobody_knows_is_used_from_the_first_minute_on(
    connections: int, latency: float
) -> None:
    met = unasked(Site(connections=connections, latency=latency), 12.0)
    assert met.delivered >= 0.85 * 720.0 * connections / latency
    assert met.dials_refused <= 6


@pytest.mark.parametrize("random", [{"says_421": 0.02}, {"hangs_up": 0.02}])
def test_random_goodbyes_do_not_hold_the_climb_back(random: dict[str, float]) -> None:
    met = unasked(Site(Bucket(20.0, 1.0), latency=0.06, defers=0.03, **random), 12.0)
    assert_found(met, 0.0, 720.0, 0.85 * 0.95)


def test_a_provider_that_somebody_knows_is_not_asked_for_a_hundred_a_second_in_the_first_minutes() -> None:
    met = Sender(Branch(Bounds(1 / 60, 5.0, math.inf), Bounds(1.0, 2.0, 20.0)), Site(latency=0.06))
    met.run(300.0)
    rates = [minute.rate for minute in met.minutes]
    assert rates == pytest.approx([5.0, 20.0, 35.0, 58.0, 95.0, 155.0], rel=0.05)


def test_a_site_that_nobody_knows_and_that_takes_everything_has_twenty_thousand_in_three_minutes() -> None:
    assert unasked(Site(latency=0.06), 3.0).delivered >= 20_000


class Slowing(Site):
    """It answers the more slowly the more of its limit is used, before it refuses."""

    _base, _at, _use = 0.1, 0.0, 0.0

    @property
    def latency(self) -> float:  # type: ignore[override]
        return self._base / max(1.0 - self._use, 0.05)

    @latency.setter
    def latency(self, unloaded: float) -> None:
        self._base = unloaded

    def mail(self, now: float, amount: int) -> int:
        assert self.limit is not None
        self._use *= math.exp((self._at - now) / 5.0)  # of the last seconds
        self._use += amount / (5.0 * self.limit.rate)
        self._at = now
        return super().mail(now, amount)


class Blind(ReplyTime):
    """It sees no time."""

    def took(self, seconds: float) -> None:
        pass


def test_who_slows_down_before_he_refuses_refuses_half_as_much_and_gets_as_much_mail() -> None:
    met: dict[bool, list[Sender]] = {True: [], False: []}
    for is_blind, senders in met.items():
        for limit, rate, seed in product(LIMITS.values(), (1.0, 10.0), (1, 2)):
            branch = path(rate)
            branch._replies = Blind() if is_blind else ReplyTime()
            slowing = Slowing(limit(rate), latency=0.1)
            senders.append(Sender(branch, slowing, seed, batch=max(1, int(rate / 3))))
            senders[-1].run(2 * HOUR)
    refused = {is_blind: sum(each.refused for each in senders) for is_blind, senders in met.items()}
    taken = {
        is_blind: sum(each.throughput(HOUR, 2 * HOUR) for each in senders) / len(senders)
        for is_blind, senders in met.items()
    }
    assert refused[False] <= refused[True] / 2
    assert taken[False] >= taken[True] - 0.03


def test_a_site_that_is_slow_is_not_asked_for_more_than_it_answers() -> None:
    met = Sender(Branch(Bounds(1 / 60, 5.0, math.inf), Bounds(1.0, 2.0, 2.0)), Site(latency=1.0))
    met.run(600.0)
    assert met.path.rate == 5.0


@pytest.mark.parametrize("limit", LIMITS)
def test_from_twenty_times_too_much_a_few_refusals_are_enough(limit: str) -> None:
    met = meet(Site(LIMITS[limit](1.0)), 0.25, 20.0)
    assert met.refused <= 30
    assert met.path.snapshot().rate_mark <= 1.15


@pytest.mark.parametrize("rate", [0.2, 1.0])
def test_a_quota_for_each_hour_becomes_an_even_rate(rate: float) -> None:
    met = meet(Site(Fixed(rate, HOUR)), 9.0)
    assert met.path.rate == pytest.approx(rate, rel=0.15)
    assert_found(met, 6 * HOUR, 9 * HOUR)


@pytest.mark.parametrize("kind", ["a bucket of ten seconds", "a fixed minute"])
@pytest.mark.parametrize("rate", [0.5, 1.0, 10.0])
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_limit_that_changes_is_found_again_in_minutes(kind: str, rate: float, factor: float) -> None:
    limit = LIMITS[kind](rate)
    met = meet(Site(limit), 1.0)
    limit.rate *= factor
    met.run(2 * HOUR)
    assert met.found_at(HOUR) <= 1020.0
    assert_found(met, 1.5 * HOUR, 2 * HOUR, refused=0.025)


@pytest.mark.parametrize("connections", [1, 5, 20, 50])
@pytest.mark.parametrize("start", [1.0, 100.0])
def test_as_many_connections_as_the_site_allows(connections: int, start: float) -> None:
    sender = Sender(Branch(UNLIMITED, Bounds(1.0, start, 100.0)), Site(connections=connections, latency=1.0))
    sender.run(0.5 * HOUR)
    late = [minute for minute in sender.minutes if minute.time >= 900.0]
    assert sender.path.connections - connections in (0, 1)  # one more at most: a probe
    assert (late[-1].delivered - late[0].delivered) / 840.0 >= 0.95 * connections
    assert late[-1].dials_refused - late[0].dials_refused <= 4


def test_a_rate_and_a_window_at_once() -> None:
    met = meet(Site(Bucket(10.0, 10.0), connections=5, latency=0.4), 1.0)
    assert_found(met, HOUR / 2, HOUR)
    assert met.peak <= 5


@pytest.mark.parametrize("by_rule", [True, False])
@pytest.mark.parametrize("messages", [1, 5, 100])
def test_a_goodbye_after_so_many_messages_is_learned(messages: int, by_rule: bool) -> None:
    met = meet(Site(Bucket(10.0, 10.0), per_connection=messages, by_rule=by_rule), 0.75)
    assert met.path.messages_per_connection == messages
    assert_found(met, 0.25 * HOUR, 0.75 * HOUR)


@pytest.mark.parametrize(("latency", "rate"), [(10.0, 2.0), (30.0, 1.0)])
def test_a_tarpit_needs_more_connections_not_a_lower_rate(latency: float, rate: float) -> None:
    met = meet(Site(Bucket(rate, 10.0), latency=latency), 1.0)
    assert_found(met, HOUR / 2, HOUR)
    assert met.peak >= 0.8 * latency * rate


@pytest.mark.parametrize("by_rule", [True, False])
@pytest.mark.parametrize("limit", ["a bucket of ten seconds", "a fixed minute"])
@pytest.mark.parametrize("rate", [1.0, 10.0])
def test_weather_does_not_slow_it_down(limit: str, rate: float, by_rule: bool) -> None:
    weather = {"defers": 0.07, "says_421": 0.01, "hangs_up": 0.01}
    met = meet(Site(LIMITS[limit](rate), by_rule=by_rule, **weather), 2.0)
    # Of answers that no rule knows, 4 % are forgiven, so a slow site has to refuse some more.
    assert_found(met, HOUR, 2 * HOUR, 0.85 * 0.91, 0.02 if by_rule else 0.03)


def test_where_there_is_no_limit_weather_leaves_it_unlimited() -> None:
    weather = {"defers": 0.07, "says_421": 0.01, "hangs_up": 0.01}
    sender = Sender(Branch(UNLIMITED, Bounds(1.0, 5.0, 5.0)), Site(**weather))
    sender.run(0.5 * HOUR)
    assert sender.path.rate == math.inf
    assert sender.delivered > 0.88 * sender.attempts


@pytest.mark.parametrize("start", [1 / 20, 4.0, 20.0])
@pytest.mark.parametrize("rate", [0.5, 1.0, 10.0])
def test_who_punishes_is_learned_with_few_refusals(rate: float, start: float) -> None:
    site = Site(Bucket(rate, 5.0), temper=Temper(5, 300.0, 600.0))
    met = meet(site, 3.0, start)
    assert site.blocks <= 2
    assert_found(met, 1.5 * HOUR, 3 * HOUR)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("rate", [0.5, 1.0, 10.0])
def test_an_unlimited_start_comes_down_to_the_limit(limit: str, rate: float) -> None:
    met = meet(Site(LIMITS[limit](rate)), 1.0, math.inf)
    assert_found(met, HOUR / 2, HOUR)


def test_little_mail_claims_no_high_rate() -> None:
    met = Sender(path(10.0), Site(Bucket(10.0, 10.0)), offered=0.5)
    met.run(3 * HOUR)
    assert met.path.rate < 2.0
    assert met.refused == 0


def test_mail_in_bursts_claims_no_high_rate() -> None:
    slow = path(1.0, 1.0)
    for minute in range(600):
        for message in range(10):
            now = minute * 60.0 + message
            if isinstance(slow.take(now, 1), Go):
                slow.answered(now + 0.2, now, 1, 1)
    assert slow.rate < 1.5


def test_nearly_as_much_mail_as_the_limit_gets_through() -> None:
    met = meet(Site(Bucket(10.0, 10.0)), 1.0, offered=9.0)
    assert met.throughput(HOUR / 2, HOUR) >= 0.85
    assert met.refusals(HOUR / 2, HOUR) < 0.02


def test_sources_towards_one_provider_are_independent() -> None:
    generous, strict = meet(Site(Bucket(10.0, 10.0)), 0.5), meet(Site(Bucket(1.0, 10.0)), 0.5)
    assert generous.path.rate / strict.path.rate == pytest.approx(10.0, rel=0.3)


def test_changes_are_told_but_not_more_than_a_few_a_minute() -> None:
    met = meet(Site(Fixed(1.0, 60.0)), 1.0, 20.0)
    assert met.changes
    for start in range(0, 3600, 60):
        assert sum(start <= at < start + 60 for at, _ in met.changes) <= 8


def test_a_ceiling_holds() -> None:
    bounded = Branch(Bounds(0.1, 0.1, 0.5), Bounds(1.0, 1.0, 2.0))
    sender = Sender(bounded, Site(Bucket(1.0, 10.0), latency=5.0))
    sender.run(HOUR)
    assert max(minute.rate for minute in sender.minutes) == 0.5
    assert sender.peak <= 2
    assert sender.refused == 0


def test_a_restored_path_needs_no_second_lesson() -> None:
    again = path(10.0)
    again.restore(meet(Site(Bucket(10.0, 10.0)), 0.5).path.snapshot(), HOUR)
    sender = Sender(again, Site(Bucket(10.0, 10.0)))
    sender.run(0.5 * HOUR)
    assert_found(sender, 120.0, 0.5 * HOUR)
