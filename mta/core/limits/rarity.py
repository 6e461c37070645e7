"""Refusals that come once in hundreds of transactions: of a limit that we just touch, or of the weather?

Between: `core.limits.weather` tells of each, and of the transactions behind it; the branch goes a little
    slower while `is_testing`.
Contract: pure; counts are transactions. `met` answers for each such refusal: it is a limit's, or it is to be
    tested (go on at `SLOWER` of the speed), or it is the weather's: `answers` and `refusals` say how often.
Raises: nothing.
Why: a limit that is touched at the end of each minute looks like weather. A little slower a limit refuses
    nothing, and the weather as much. Where the limit was shown it is believed for one such refusal more, then
    two, four and so on: the test costs time, and by chance the weather may have been silent in it.
"""

from __future__ import annotations

import enum
import math

SLOWER = 0.9  # of the speed that was refused: there a limit would hardly refuse
TRIED = 0.85  # of it, in a test
RARE = 100  # transactions, at no higher speed, after which a refusal is one of these
AGAIN = 2  # times those is silence enough, or so many at most
LONGEST = 1000
ENOUGH = 2  # refusals that are believed


class Seen(enum.Enum):
    """Whose it is."""

    LIMIT = enum.auto()
    UNKNOWN = enum.auto()  # it is tested from now on
    WEATHER = enum.auto()


class Rarity:
    """What one branch has shown by its rare refusals."""

    __slots__ = ("_due", "_limit", "_quiet", "_said", "_trust", "answers", "refusals")

    def __init__(self) -> None:
        self.answers = self.refusals = 0  # of the test
        self._said = math.inf  # the speed that was refused last
        self._due = 0  # transactions of a test; 0: there is none
        self._quiet = 0  # of these
        self._limit = math.inf  # the speed of one that was shown
        self._trust = [0, 1]  # refusals there that are its own: so many still, so many the next time

    @property
    def is_testing(self) -> bool:
        """Is it time to stay a little slower?"""
        return self._due > 0

    def passed(self, many: int) -> None:
        """So many transactions were not refused."""
        if self._due:
            self._quiet += many
            if self._quiet >= self._due:
                self._due, self._limit = 0, self._said
                self._trust = [self._trust[1], 2 * self._trust[1]]
                self._forget()

    def broken_off(self) -> None:
        """A refusal that is not rare: what it is, others say."""
        self._due = 0

    def met(self, speed: float, gap: int) -> Seen:
        """It was refused at a speed, after so many transactions that were not."""
        self._due = 0
        if speed > SLOWER * self._limit and self._trust[0]:
            self._trust[0] -= 1
            return Seen.LIMIT
        if speed > SLOWER * self._said:
            self._forget()
        self.answers, self.refusals = self.answers + gap, self.refusals + 1
        self._said = speed
        if self.refusals >= ENOUGH:
            return Seen.WEATHER
        self._due, self._quiet = min(AGAIN * gap, LONGEST), 0
        return Seen.UNKNOWN

    def _forget(self) -> None:
        self.answers = self.refusals = 0
        self._said = math.inf
