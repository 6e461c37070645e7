"""Gates: now, or not before when and why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.core.limits.throttle import DeadSite, Rate, RateLimit
from mta.core.model import Go, Wait


def test_no_rate_holds_nothing_back() -> None:
    limit = RateLimit(None)
    assert all(isinstance(limit.take(0.0, 1_000_000), Go) for _ in range(10))


def test_a_period_s_worth_passes_at_once_and_the_next_waits() -> None:
    limit = RateLimit(Rate(3, 60.0))
    assert [limit.take(1000.0) for _ in range(3)] == [Go(), Go(), Go()]
    assert limit.take(1000.0) == Wait(1020.0, "rate")
    assert limit.take(1019.9) == Wait(1020.0, "rate")
    assert limit.take(1020.0) == Go()
    assert limit.take(1020.0) == Wait(1040.0, "rate")


def test_asking_takes_nothing() -> None:
    limit = RateLimit(Rate(1, 60.0))
    assert [limit.ask(1000.0) for _ in range(5)] == [Go()] * 5


def test_a_refusal_takes_nothing() -> None:
    limit = RateLimit(Rate(1, 60.0))
    limit.take(1000.0)
    assert {limit.take(1010.0) for _ in range(5)} == {Wait(1060.0, "rate")}


def test_quiet_time_is_not_saved_up() -> None:
    limit = RateLimit(Rate(2, 60.0))
    limit.take(0.0, 2)
    assert isinstance(limit.take(1e6, 2), Go)
    assert limit.take(1e6, 1) == Wait(1e6 + 30.0, "rate")


def test_more_than_a_period_s_worth_passes_alone() -> None:
    limit = RateLimit(Rate(10, 60.0))
    assert limit.take(0.0, 50) == Go()
    assert limit.take(0.0, 1) == Wait(246.0, "rate")
    assert limit.take(246.0, 1) == Go()
    assert limit.take(246.0, 50) == Wait(306.0, "rate")


@given(
    st.integers(1, 50),
    st.floats(1, 3600),
    st.lists(st.tuples(st.floats(0, 600), st.integers(1, 60)), min_size=1, max_size=60),
)
def test_never_more_than_two_periods_worth_in_one_period(
    amount: int, period: float, asked: list[tuple[float, int]]
) -> None:
    """The bucket and its refill; what is larger than the bucket counts as the bucket."""
    limit = RateLimit(Rate(amount, period))
    now, passed = 1000.0, []
    for pause, many in asked:
        now += pause
        answer = limit.take(now, min(many, amount))
        if isinstance(answer, Go):
            passed.append((now, min(many, amount)))
        else:
            assert answer.until > now
            assert isinstance(RateLimit(limit.rate, limit.arrival).take(answer.until, min(many, amount)), Go)
    for start, _ in passed:
        assert sum(many for at, many in passed if start <= at < start + period) <= 2 * amount


def test_a_dead_site_is_left_alone_for_longer_each_time() -> None:
    site = DeadSite()
    waits = []
    now = 1000.0
    assert site.ask(now) == Go()
    for _ in range(7):
        site.failed(now)
        answer = site.ask(now)
        assert isinstance(answer, Wait)
        assert answer.reason == "dead"
        waits.append(answer.until - now)
        now = answer.until
        assert site.ask(now) == Go()
    assert waits == [30, 60, 120, 240, 480, 600, 600]


def test_an_answer_brings_a_dead_site_back_to_life() -> None:
    site = DeadSite()
    site.failed(1000.0)
    site.failed(1000.0)
    site.answered()
    assert site == DeadSite()
    site.failed(2000.0)
    assert site.ask(2000.0) == Wait(2030.0, "dead")


@pytest.mark.parametrize("failures", [100, 2000])
def test_a_site_that_is_dead_for_weeks_does_not_overflow(failures: int) -> None:
    site = DeadSite()
    for _ in range(failures):
        site.failed(1000.0)
    assert site.ask(1000.0) == Wait(1600.0, "dead")
