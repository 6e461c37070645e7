"""How often something is told that anybody can bring about.

Between: intake asks before an event or a log line about somebody who has not logged in.
Contract: pure; seconds of one clock. Of each cause `MOST` are told in a `PERIOD`; `rest` gives how many more
    there were of those whose period is over. Causes are a few words of ours, never a client's.
Raises: nothing.
Why: 2,900 refused logins a second would be 5 MB of synced event log a second; what is left out is counted.
"""

from __future__ import annotations

MOST = 6  # of one cause in a period
PERIOD = 60.0  # seconds


class Sparing:
    """What was told lately, by cause."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._told: dict[str, int] = {}

    def may_tell(self, cause: str, now: float) -> bool:
        """Once more; False: count it only."""
        if cause not in self._since:
            self._since[cause], self._told[cause] = now, 0
        self._told[cause] += 1
        return self._told[cause] <= MOST

    def rest(self, now: float) -> list[tuple[str, int]]:
        """The causes whose period is over and of which more came than were told, and how many."""
        over = [cause for cause, since in self._since.items() if now - since >= PERIOD]
        counts = [(cause, self._told[cause] - MOST) for cause in over]
        for cause in over:
            del self._since[cause], self._told[cause]
        return [(cause, count) for cause, count in counts if count > 0]
