"""The hours in which a stream may be delivered.

Between: the settings hold one for each stream that has hours; the gate asks before anything goes.
Contract: pure; `ask` answers Go, or Wait until the next opening (wall-clock seconds). Days count from
    Monday, 0; minutes from midnight by the zone's clock. A window whose end is not after its begin ends
    on the day after.
Raises: nothing.
Why: a newsletter at three in the morning is read by nobody, and complained about by some.
"""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from typing import NamedTuple

from mta.core.model import Go, Wait

GO = Go()
DAY = 24 * 60  # minutes


class Window(NamedTuple):
    """Written `08:00-20:00`, `mon-fri 08:00-20:00` or `mon-fri 08:00-20:00 Europe/Berlin`."""

    begin: int
    end: int
    days: frozenset[int]
    zone: tzinfo
    text: str  # as it was written

    @property
    def longest_pause(self) -> float:
        """Seconds from a closing to the next opening, at most; changes of the clock do not count."""
        length = self.end - self.begin + DAY * (self.end <= self.begin)
        begins = sorted(day * DAY + self.begin for day in self.days)
        following = [*begins[1:], begins[0] + 7 * DAY]
        return 60.0 * (max(after - begin for begin, after in zip(begins, following, strict=True)) - length)

    def ask(self, now: float) -> Go | Wait:
        """May mail go now?"""
        local = datetime.fromtimestamp(now, self.zone)
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        for ahead in range(-1, 9):  # yesterday's may not have ended yet; a change of the clock may hide one
            day = midnight + timedelta(days=ahead)
            if day.weekday() not in self.days:
                continue
            opening = (day + timedelta(minutes=self.begin)).timestamp()
            closing = (day + timedelta(minutes=self.end + DAY * (self.end <= self.begin))).timestamp()
            if now < closing and opening < closing:
                return GO if opening <= now else Wait(opening, f"outside the delivery window {self.text}")
        return GO  # a window that never opens is no reason to lose mail
