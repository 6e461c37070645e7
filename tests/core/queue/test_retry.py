"""When to try again, and when to give up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.core.queue.retry import ANY, JITTER, LAST_CALL, Schedule

DAY = 86_400.0
MIDDLE = 0.5  # no jitter


def test_waits_double_up_to_two_hours() -> None:
    waits = [Schedule().due(attempts, 0.0, 4 * DAY, MIDDLE) for attempts in range(1, 9)]
    assert waits == [300, 600, 1200, 2400, 4800, 7200, 7200, 7200]


def test_the_last_attempt_is_made_just_before_expiry() -> None:
    schedule = Schedule()
    assert schedule.due(9, 4 * DAY - 7000, 4 * DAY, MIDDLE) == 4 * DAY - LAST_CALL
    assert schedule.due(9, 4 * DAY - LAST_CALL - 1, 4 * DAY, MIDDLE) == 4 * DAY - LAST_CALL
    assert schedule.due(10, 4 * DAY - LAST_CALL, 4 * DAY, MIDDLE) is None
    assert schedule.due(10, 5 * DAY, 4 * DAY, MIDDLE) is None


def test_a_message_that_lives_for_less_than_the_last_call_gets_one_attempt() -> None:
    assert Schedule().due(1, 0.0, 30.0, MIDDLE) is None


@pytest.mark.parametrize(("dice", "wait"), [(0.0, 270.0), (0.5, 300.0), (0.999, 329.94)])
def test_what_failed_together_does_not_come_back_together(dice: float, wait: float) -> None:
    assert Schedule().due(1, 0.0, DAY, dice) == pytest.approx(wait)


def test_a_thousand_attempts_do_not_overflow() -> None:
    assert Schedule().due(100_000, 0.0, DAY, MIDDLE) == 7200


@given(st.integers(1, 1000), st.floats(0, 2e9), st.floats(0, 1e7), st.floats(0, 1, exclude_max=True))
def test_never_in_the_past_never_after_the_last_call(
    attempts: int, now: float, left: float, dice: float
) -> None:
    due = Schedule().due(attempts, now, now + left, dice)
    if due is None:
        assert now >= now + left - LAST_CALL
    else:
        assert now < due <= now + left - LAST_CALL
        assert due - now <= 7200 * (1 + JITTER) + 1e-3


@pytest.mark.parametrize(
    ("lifetime", "last"), [(30.0, 27.0), (120.0, 108.0), (600.0, 540.0), (DAY, DAY - 60)]
)
def test_a_short_life_is_used_almost_to_its_end(lifetime: float, last: float) -> None:
    due = Schedule().due(9, lifetime * 0.8, lifetime, MIDDLE, lifetime=lifetime)
    assert due == pytest.approx(min(last, lifetime * 0.8 + 7200))
    assert Schedule().due(9, last, lifetime, MIDDLE, lifetime=lifetime) is None


def test_a_destination_makes_waits_longer_and_never_shorter() -> None:
    stream = Schedule(300.0, 7200.0)
    assert stream.at_least(ANY) == stream
    assert stream.at_least(Schedule(900.0, 0.0)) == Schedule(900.0, 7200.0)
    assert stream.at_least(Schedule(60.0, 600.0)) == stream
    assert stream.at_least(Schedule(10_000.0, 0.0)) == Schedule(10_000.0, 10_000.0)
