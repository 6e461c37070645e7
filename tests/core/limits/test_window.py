"""The hours in which a stream may be delivered."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import pytest

from mta.core.limits.window import Window
from mta.core.model import Go, Wait

BERLIN = ZoneInfo("Europe/Berlin")
EVERY_DAY = frozenset(range(7))
WEEK = frozenset(range(5))


def window(begin: int, end: int, days: frozenset[int] = EVERY_DAY, zone: tzinfo = UTC) -> Window:
    return Window(begin * 60, end * 60, days, zone, "the text")


def at(text: str, zone: tzinfo = UTC) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


@pytest.mark.parametrize(
    ("asked", "opens"),
    [
        ("2026-11-23T07:59:59", "2026-11-23T08:00:00"),
        ("2026-11-23T08:00:00", None),
        ("2026-11-23T19:59:59", None),
        ("2026-11-23T20:00:00", "2026-11-24T08:00:00"),
        ("2026-11-27T21:00:00", "2026-11-30T08:00:00"),  # Friday evening -> Monday
    ],
)
def test_mail_outside_its_hours_waits_for_the_next_opening(asked: str, opens: str | None) -> None:
    answer = window(8, 20, WEEK).ask(at(asked))
    wanted = Go() if opens is None else Wait(at(opens), "outside the delivery window the text")
    assert answer == wanted


def test_a_night_that_began_yesterday_goes_on() -> None:
    night = window(22, 6, frozenset({4}))  # Friday night
    assert night.ask(at("2026-11-28T05:59:00")) == Go()
    assert night.ask(at("2026-11-28T06:00:00")) == Wait(
        at("2026-12-04T22:00:00"), "outside the delivery window the text"
    )


def test_a_whole_day_is_always_open() -> None:
    assert window(0, 0).ask(at("2026-11-23T00:00:00")) == Go()


def test_the_hours_are_those_of_the_zone_also_when_its_clock_changes() -> None:
    day = window(8, 20, zone=BERLIN)
    for date in ("2026-10-24", "2026-10-25", "2026-10-26", "2026-03-29"):
        assert day.ask(at(f"{date}T08:00:00", BERLIN)) == Go()
        before = day.ask(at(f"{date}T03:30:00", BERLIN))
        assert isinstance(before, Wait)
        assert before.until == at(f"{date}T08:00:00", BERLIN)


@pytest.mark.parametrize(
    ("hours", "days", "pause"),
    [
        ((8, 20), EVERY_DAY, 12),
        ((20, 8), EVERY_DAY, 12),
        ((0, 24), EVERY_DAY, 0),
        ((8, 20), WEEK, 60),  # Friday evening to Monday
        ((10, 11), frozenset({2}), 7 * 24 - 1),
    ],
)
def test_the_longest_pause_counts_the_days_without_hours(
    hours: tuple[int, int], days: frozenset[int], pause: int
) -> None:
    assert window(*hours, days).longest_pause == pause * 3600
