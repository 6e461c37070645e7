"""A path's answers, one by one."""

from __future__ import annotations

import math

import pytest

from mta.core.limits.adaptive import OURS, Branch, Change, Refusal
from mta.core.limits.level import GROWTH, Bounds, Level
from mta.core.model import Go, Subject, Wait

DAY = 86400.0
UNLIMITED = Bounds(1 / 60, math.inf, math.inf)


def path(start: float) -> Branch:
    return Branch(Bounds(1 / 60, start, math.inf), Bounds(1.0, 1.0, 100.0))


def refusal(started: float, subject: Subject = Subject.RATE, **more: object) -> Refusal:
    return Refusal(subject, True, started, 1, 1)._replace(**more)


def used(rate: float = 1.0, messages: int = 60) -> Branch:
    """A path that has sent at its rate."""
    one = path(rate)
    for second in range(messages):
        assert isinstance(one.take(second / rate, 1), Go)
        one.answered(second / rate + 0.1, second / rate, 1, 0)
    return one


@pytest.mark.parametrize("subject", [each for each in Subject if each not in OURS])
def test_what_is_not_about_our_speed_changes_nothing(subject: Subject) -> None:
    one = used()
    before = one.snapshot()
    for second in range(60, 120):
        assert one.refused(second, refusal(second - 0.1, subject)) is None
    assert one.snapshot() == before
    assert one.take(121.0, 1) == Go()


def test_a_burst_of_parallel_refusals_is_one_event() -> None:
    once, often = used(), used()
    once.refused(60.3, refusal(60.0))
    for k in range(20):
        often.refused(60.3 + k / 100, refusal(60.0 + k / 100))
    assert often.rate == once.rate
    assert often.until == once.until


def test_after_a_refusal_all_is_quiet_and_then_one_tries() -> None:
    one = used()
    change = one.refused(60.0, refusal(59.9))
    assert change == Change("rate", 1.0, one.rate, "refused: rate", one.until)
    assert 0.5 < one.rate < 0.8
    assert one.take(60.5, 1) == Wait(one.until, "refused: rate")
    assert one.dial(60.5, 0) == Wait(one.until, "refused: rate")
    trial = one.until
    assert one.take(trial, 1) == Go()
    assert isinstance(one.take(trial + 0.1, 1), Wait)
    one.answered(trial + 0.2, 59.8, 1, 1)  # older than the refusal: it proves nothing
    assert isinstance(one.take(trial + 0.3, 1), Wait)
    one.answered(trial + 0.4, trial, 1, 1)
    assert one.take(trial + 5.0, 1) == Go()


def test_each_trial_that_is_refused_doubles_the_pause_and_the_rate_stays() -> None:
    one = used()
    one.refused(60.0, refusal(59.9))
    rate, pauses = one.rate, []
    for _ in range(10):
        now = one.until
        one.take(now, 1)
        one.refused(now, refusal(now))
        pauses.append(one.until - now)
    assert one.rate == rate
    assert pauses == [min(pauses[0] * 2**k, 300.0) for k in range(10)]


def test_refused_again_at_once_the_mark_is_what_the_minute_took() -> None:
    one = used(4.0)
    one.refused(15.0, refusal(14.9))
    assert one.snapshot().rate_mark == pytest.approx(3.2)
    one.take(one.until, 1)
    one.answered(16.1, 16.0, 1, 1)  # the site lets one in, and counts those before as well
    one.refused(16.4, refusal(16.3))
    assert one.snapshot().rate_mark == pytest.approx(2.56)  # as fast as it went: the minute took more
    assert one.rate == pytest.approx(2.56 * 0.7)


def test_refused_again_after_a_climb_that_filled_the_minute_the_mark_is_not_how_slow_it_went() -> None:
    one = used(20.0, 1200)
    one.refused(60.0, refusal(59.9))
    one.take(one.until, 1)
    one.answered(61.1, 61.0, 1, 1)
    one.refused(61.4, refusal(61.3))
    assert one.snapshot().rate_mark == pytest.approx(16.0)  # as before; the minute took more
    assert one.rate == pytest.approx(12.8 * 0.7, rel=0.01)


def test_refused_again_after_a_while_the_mark_is_what_was_measured() -> None:
    one = used(4.0)
    one.refused(15.0, refusal(14.9))
    one.take(one.until, 1)
    for second in range(16, 60):
        one.answered(second + 0.1, second, 1, 0)
    one.refused(60.0, refusal(59.9))
    assert one.snapshot().rate_mark == pytest.approx(1.1, rel=0.1)


def test_a_start_that_was_far_too_high_is_not_climbed_back_to_in_a_line() -> None:
    level = Level(Bounds(1 / 60, 200.0, math.inf), 0.93, 0.0, 200.0)
    level.fall(5.0, 4.0)
    while level.mark < math.inf:  # no refusal: the mark is refuted
        level.grow(0.0, 60.0)
    before = level.value
    level.grow(0.0, 1.0)
    assert level.value == pytest.approx(before * (1 + 1 / GROWTH))


def test_try_again_in_so_long_is_obeyed() -> None:
    one = used()
    one.refused(60.0, refusal(59.9, again=1800.0))
    assert one.take(1859.0, 1) == Wait(1860.0, "refused: rate")
    assert one.take(1860.0, 1) == Go()


def test_after_a_suspension_it_begins_with_one_connection_and_a_part_of_its_rate() -> None:
    one = used()
    assert one.suspend(60.0, 7260.0, "told to by a rule") == Change(
        "rate", 1.0, 0.25, "told to by a rule", 7260.0
    )
    assert one.take(7259.0, 1) == Wait(7260.0, "told to by a rule")
    assert one.take(7260.0, 1) == Go()
    assert isinstance(one.dial(7260.0, 1), Wait)
    one.answered(7261.0, 7260.0, 1, 1)
    assert (one.rate, one.connections) == (0.25, 1)


def test_refused_dials_that_began_together_leave_as_many_as_were_let_in() -> None:
    one = Branch(UNLIMITED, Bounds(1.0, 10.0, 10.0))
    assert all(isinstance(one.dial(0.0, k), Go) for k in range(10))
    for others in (2, 3, 4):
        one.refused(0.1, Refusal(Subject.CONNECTION, True, 0.0, others))
        one.opened(others + 1)
    assert one.connections == 5
    assert isinstance(one.dial(1.0, 5), Wait)
    assert one.dial(1.0, 4) == Go()
    assert one.is_free


def test_with_none_open_a_refused_dial_shuts_the_path() -> None:
    one = Branch(UNLIMITED, Bounds(1.0, 1.0, 100.0))
    change = one.refused(0.1, Refusal(Subject.CONNECTION, True, 0.0, 0))
    assert change is not None
    assert one.until == change.until == 1.1
    assert not one.is_free


@pytest.mark.parametrize(("days", "rate"), [(0.0, 1.0), (1.0, 2.0), (2.0, 4.0), (20.0, 8.0)])
def test_what_was_learned_comes_back_to_the_start_with_the_days(days: float, rate: float) -> None:
    one = path(8.0)
    one.restore(used().snapshot(), days * DAY)
    assert one.rate == rate


def test_what_was_learned_below_an_unlimited_start_comes_back_too() -> None:
    one = Branch(UNLIMITED, Bounds(1.0, 1.0, 100.0))
    one.restore(used().snapshot(), 3 * DAY)
    assert one.rate == 8.0


def test_a_trial_does_not_wait_for_connections_that_are_all_stuck() -> None:
    one = Branch(Bounds(1 / 60, 1.0, math.inf), Bounds(1.0, 4.0, 4.0))
    one.refused(60.0, refusal(59.9))
    reopens = one.until
    assert isinstance(one.dial(reopens, 1), Wait)  # the open one may take it
    assert one.dial(reopens + 5.0, 1) == Go()  # it has not


def test_a_second_fall_within_the_gap_between_changes_is_told() -> None:
    one = used(8.0)
    first = one.refused(60.0, refusal(59.9))
    assert first is not None
    one.take(one.until, 1)
    one.answered(one.until + 0.1, one.until, 1, 1)
    second = one.refused(one.until + 1.0, refusal(one.until + 0.5))
    assert second is not None
    assert second.old == first.new
    assert second.new == one.rate < first.new


def test_the_first_change_after_a_restart_is_told_against_what_was_learned() -> None:
    one = path(5.0)
    one.restore(used().snapshot(), 0.0)
    change = one.refused(0.2, refusal(0.1))
    assert change is not None
    assert change.old == 1.0
