"""A peer wants nothing for hours: what is learned meanwhile, and when it is over."""

from __future__ import annotations

import math

import pytest

from mta.core.limits.adaptive import RE_ENTRY, Branch, Refusal
from mta.core.limits.level import Bounds
from mta.core.limits.weather import RARE
from mta.core.model import Go, Subject

HOURS = 6 * 3600.0
WINDOW = Bounds(1.0, 1.0, 100.0)


def used(rate: float = 10.0) -> Branch:
    """A branch that has sent at its rate for a minute."""
    one = Branch(Bounds(1 / 60, rate, math.inf), WINDOW)
    answer(one, 0.0, 60 * int(rate), rate)
    return one


def answer(one: Branch, since: float, many: int, rate: float) -> float:
    """So many are delivered, one after another; when the last was."""
    for number in range(many):
        at = since + number / rate
        one.take(at, 1)
        one.answered(at + 0.05, at, 1, 1)
    return since + many / rate


def refuse(one: Branch, now: float) -> None:
    one.refused(now, Refusal(Subject.RATE, True, now - 0.01, 1, 1))


def trial(one: Branch) -> float:
    """One goes as soon as it may, and is taken."""
    now = one.until
    assert isinstance(one.take(now, 1), Go)
    one.answered(now + 0.05, now, 1, 1)
    return now + 0.05


@pytest.mark.parametrize("hours", [1, 2, 24])
def test_answers_that_were_under_way_when_all_was_suspended_are_no_bug_of_ours(hours: int) -> None:
    one = used()
    one.suspend(60.0, 60.0 + hours * 3600.0, "suspended")
    rate = one.rate
    for _ in range(20):
        one.answered(60.1, 59.9, 1, 1)
    assert one.rate == rate
    assert trial(one) >= 60.0 + hours * 3600.0
    assert one.rate == rate


def test_a_suspension_is_not_undone_for_a_refusal_long_before() -> None:
    one = used()
    refuse(one, 60.0)  # now there is a mark
    now = answer(one, trial(one), 3 * RARE // 2, one.rate)
    refuse(one, now)  # rare, where it had been good; and it goes on
    until = one.until
    one.take(until, 1)
    refuse(one, until + 0.1)
    now = answer(one, trial(one), 2 * RARE, one.rate)
    before = one.rate
    one.suspend(now, now + HOURS, "suspended")
    trial(one)
    assert one.rate <= before * RE_ENTRY * 1.1


def test_words_that_nobody_knows_do_not_stop_growth_for_ever_where_the_weather_is_known() -> None:
    one = used()
    one._weather.share = 0.02
    one._weather._answers, one._weather._refusals = 10_000.0, 200.0
    now = answer(one, 60.0, 5000, 10.0)
    for _ in range(6):
        one.refused(now, Refusal(Subject.RATE, False, now - 0.01, 1, 1))
        now += 0.01
    now = answer(one, trial(one) + 60.0, 5000, one.rate)
    assert not one._weather.is_waiting
