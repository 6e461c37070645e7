"""How often something is told that anybody can bring about.

Between: intake asks before an event or a log line about a refusal, the daemon about an error of the loop.
Contract: pure; seconds of one clock. Of each cause `most` are told in a `PERIOD`; `rest` gives how many more
    there were of those whose period is over. Causes are a few words of ours, never a client's.
Raises: nothing.
Why: 2,900 refused logins a second would be 5 MB of synced event log a second; what is left out is counted.
"""

from __future__ import annotations

from typing import Generic, TypeVar

MOST = 6  # of one cause in a period
PERIOD = 60.0  # seconds

Cause = TypeVar("Cause")


class Sparing(Generic[Cause]):
    """What was told lately, by cause."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._since: dict[Cause, float] = {}
        self._told: dict[Cause, int] = {}

    def may_tell(self, cause: Cause, now: float) -> bool:
        """Once more; False: count it only."""
        if cause not in self._since:
            self._since[cause], self._told[cause] = now, 0
        self._told[cause] += 1
        return self._told[cause] <= self._most

    def rest(self, now: float) -> list[tuple[Cause, int]]:
        """The causes whose period is over and of which more came than were told, and how many."""
        over = [cause for cause, since in self._since.items() if now - since >= PERIOD]
        counts = [(cause, self._told[cause] - self._most) for cause in over]
        for cause in over:
            del self._since[cause], self._told[cause]
        return [(cause, count) for cause, count in counts if count > 0]
