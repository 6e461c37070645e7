"""By how much somebody has set the clock.

Between: the clock watch asks at every look, and in between whether a look would see something.
Contract: pure; seconds. `look` compares the wall clock with the monotonic one since the look before. What is
    less than `TOLERANCE` is a clock that is being disciplined, and 0.0.
Raises: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

TOLERANCE = 60.0  # seconds; looks are more frequent than that


@dataclass(slots=True)
class Drift:
    """The distance between both clocks."""

    distance: float

    def look(self, now: float, monotonic: float) -> float:
        """Seconds since the last look by which the clock was set ahead, or back (negative)."""
        set_by = self.since(now, monotonic)
        self.distance = now - monotonic
        return set_by

    def since(self, now: float, monotonic: float) -> float:
        """What the next look would say."""
        set_by = now - monotonic - self.distance
        return set_by if abs(set_by) >= TOLERANCE else 0.0
