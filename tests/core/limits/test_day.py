"""A count of 24 hours: beside a plain list of times, over clocks that are set, and from octets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.core.limits.day import FULL, HOURS, Day


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5000)), max_size=60))
def test_it_counts_as_a_list_of_times_does(steps: list[tuple[int, int]]) -> None:
    hour, day, seen = 500_000, Day(500_000), []
    for later, many in steps:
        hour += later
        seen.append((hour, many))
        expected = sum(count for at, count in seen if at > hour - HOURS)
        assert day.add(hour, many) == expected
        assert Day(day.hour, day.counts).total == expected


def test_a_clock_that_is_set_back_counts_in_the_last_hour() -> None:
    day = Day(100)
    day.add(100, 5)
    assert day.add(90, 2) == 7
    assert day.hour == 100
    assert day.turn(100 + HOURS - 1) == 7
    assert day.turn(100 + HOURS) == 0


def test_a_clock_that_is_set_by_a_century_costs_no_time() -> None:
    day = Day(0)
    day.add(0, 1)
    assert day.add(10**15, 1) == 1


def test_an_hour_is_full_and_no_more() -> None:
    day = Day(0)
    assert day.add(0, FULL) == FULL
    assert day.add(0, FULL) == FULL


def test_octets_that_are_none_of_a_day_are_refused() -> None:
    with pytest.raises(ValueError, match="no counts"):
        Day(0, b"123")


def test_a_clock_that_was_ahead_once_spoils_no_window() -> None:
    day = Day(1_000)
    day.add(1_000_000, 4_000)
    assert day.add(1_001, 10) == 10
    assert [day.add(1_001 + n, 10) for n in range(1, 40)][-1] == 240
