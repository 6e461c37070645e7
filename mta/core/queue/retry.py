"""When to try again, and when to give up.

Between: `outbound.outcome` asks after a deferral; the retries ask when they lease.
Contract: pure; times are wall-clock seconds, dice is in [0, 1).
Standards: RFC 5321 4.5.4.1 (retry for 4 to 5 days).
Why: doubling alone leaves the last third of the lifetime unused (the next wait would pass the end);
    so one last attempt is placed just before it.
"""

from __future__ import annotations

import math
from typing import NamedTuple, NewType

Duration = NewType("Duration", float)  # seconds

JITTER = 0.1  # of the wait, either way: what failed together is not to come back together
LAST_CALL = 60.0  # seconds before expiry at which the last attempt is made ...
LAST_PART = 0.1  # ... or this part of a life that is short: a code for a login lives for minutes


class Schedule(NamedTuple):
    """The waits of one stream: `first`, doubled each time, at most `maximum`."""

    first: float = 300.0
    maximum: float = 7200.0

    def at_least(self, other: Schedule) -> Schedule:
        """With no wait that is shorter than another schedule's."""
        first = max(self.first, other.first)
        return Schedule(first, max(self.maximum, other.maximum, first))

    def due(
        self,
        attempts: int,
        now: float,
        expires: float,
        dice: float,
        wait: float | None = None,
        lifetime: float = math.inf,
    ) -> float | None:
        """When the attempt after number `attempts` is due; None if that was the last one.

        A `wait` that a peer or a rule named takes the place of ours, and is never cut short.
        """
        last = expires - min(LAST_CALL, lifetime * LAST_PART)
        if now >= last:
            return None
        if wait is not None:
            return min(now + wait * (1 + JITTER * abs(2 * dice - 1)), last)
        wait = min(self.first * 2.0 ** min(attempts - 1, 30), self.maximum)
        return min(now + wait * (1 + JITTER * (2 * dice - 1)), last)


ANY = Schedule(0.0, 0.0)  # at least nothing
