"""A quantity that is learned by trying: where it stands, where it was refused, when to try more; and a meter.

Between: `core.limits.adaptive` has a level for its rate and one for its window, and measures what the site
    takes.
Contract: pure; times are seconds of one clock that never goes back.
Raises: nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

STEEP = 20.0  # seconds in which it grows by its start, without a mark: 300/min are 1200/min after a minute
EAGER = 13.0  # the same where nobody knows a limit, up to `FAST_FROM` times the start
FAST, FAST_FROM = (
    30.0,
    4.0,
)  # seconds in which it grows e-fold from there on, while answers are as fast as ever
GROWTH = 120.0  # seconds in which it grows e-fold, with a mark, or where that is faster
NEAR = 600.0  # the same near the mark: a minute's window is then exceeded by a tenth, not by the half
AGAIN = 120.0  # seconds until the next probe, where one was given up before it was refused
LEAP = 1.5  # most that one answer may add: at low rates an answer stands for minutes
REFUTED = 1.6  # times the mark, without a refusal: first marks are up to a third too low
PATIENCE = (
    60.0,
    480.0,
)  # seconds to the next probe, the first and the longest: a doubled limit is found in minutes
AGE = 86400.0  # seconds in which what was learned comes half-way (a factor of 2) back to the start
METER = 10.0  # seconds, or answers where those take longer, in which the meter forgets e-fold
MINUTE = 30.0  # the same for a mean over a minute: half of it is the mean age
LEAST = 0.1  # seconds over which it measures at least


class Bounds(NamedTuple):
    """Of a rate or a window. All three infinite: unlimited until a refusal."""

    floor: float
    start: float
    ceiling: float


@dataclass(slots=True)
class Level:
    """One learned quantity."""

    bounds: Bounds
    keep: float  # of the mark
    step: float  # the least height of a probe
    value: float
    mark: float = math.inf  # here the site refused
    lesson: float = math.inf  # here it refused although that is below a mark
    is_careful: bool = True  # where it is new
    patience: float = PATIENCE[0]
    probe_at: float = -math.inf

    @property
    def has_moved(self) -> bool:
        """Is it not as it began?"""
        return self.value != self.bounds.start or self.mark < math.inf

    @property
    def is_probing(self) -> bool:
        return self.mark * self.keep * 1.001 < self.value

    def grow(self, now: float, used: float, *, is_flat: bool = False, is_crowded: bool = False) -> None:
        """It was in the way for `used` seconds and mail was delivered, as fast as ever or much slower."""
        rest, top = self.mark * self.keep, self.bounds.ceiling
        is_near = rest <= self.value * 1.001
        growth = NEAR if is_near or is_crowded else self._growth(is_flat)
        grown = self.value * min(1 + used / growth, LEAP)
        if now < self.probe_at:
            top = min(top, rest)
        elif self.step and is_near:
            grown = max(grown, self.mark + self.step)
        self.value = max(self.value, min(grown, top))
        if self.value > self.mark * REFUTED + self.step:
            self.forget()

    def forget(self) -> None:
        """The mark was none."""
        self.mark, self.lesson, self.patience = math.inf, math.inf, PATIENCE[0]

    def _growth(self, is_flat: bool) -> float:
        """Seconds for e-fold, below the mark."""
        start = self.bounds.start
        if self.mark < math.inf or not start <= self.value < math.inf:
            return GROWTH
        if self.is_careful:
            return min(STEEP * self.value / start, GROWTH)
        if self.value < FAST_FROM * start:
            return EAGER * self.value / start
        return FAST if is_flat else GROWTH

    def give_up_probe(self, now: float) -> None:
        """The site is as slow as when it refused: here it stays."""
        self.mark = self.value / self.keep
        self.probe_at = now + AGAIN

    def fall(self, mark: float, value: float) -> None:
        self.mark = max(mark, self.bounds.floor)
        self.value = max(value, self.bounds.floor)

    def lose_patience(self) -> None:
        self.patience = min(2 * self.patience, PATIENCE[1])

    def restore(self, value: float, mark: float, age: float) -> None:
        away = 2.0 ** min(age / AGE, 64.0)
        start = self.bounds.start
        value = min(value * away, start) if value < start else max(value / away, start)
        self.mark = mark if age < AGE else math.inf
        self.value = max(min(value, self.mark * self.keep, self.bounds.ceiling), self.bounds.floor)


@dataclass(slots=True)
class Meter:
    """Answers a second, of late and in the mean since the site opened."""

    span: float = METER
    opened_at: float = math.inf
    total: int = 0
    answers: float = 0.0  # weighted
    seconds: float = 0.0  # weighted
    at: float = 0.0

    def restart(self, now: float) -> None:
        self.at, self.answers, self.seconds = now, 0.0, 0.0

    def count(self, now: float, many: int, expected: float) -> None:
        self.total += many
        if now < self.at:
            return  # what was under way when it began anew: that is in the future, and a power of e
        span = self.span * max(1.0, 1 / expected)
        left = math.exp((self.at - now) / span)
        self.answers = self.answers * left + many
        self.seconds = self.seconds * left + span * (1 - left)
        self.at = now

    def rate(self, now: float) -> float:
        return self.answers / (self.seconds + now - self.at + LEAST)

    def mean(self, now: float) -> float:
        return self.total / (now - self.opened_at + LEAST)
