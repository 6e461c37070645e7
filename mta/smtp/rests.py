"""When those go on who have much to say: one after the other, so that everybody else comes in between.

Between: a connection that has used up its turn of the loop asks when the next one may begin.
Contract: seconds of the loop's own time. The turns of all connections are `REST` and their own length apart.
Raises: nothing.
Why: each turn is short, but those of fifty clients in one round of the loop are not. And a thread that waits
    for the GIL asks for it when nobody has let go of it for 5 ms: without rests a commit can take 300 ms.
"""

from __future__ import annotations

REST = 0.001  # seconds


class Rests:
    """What all listeners share of the loop."""

    def __init__(self) -> None:
        self._free_at = 0.0

    def wait(self, now: float, length: float) -> float:
        """Seconds until a turn of about this length may begin; it is taken."""
        begins = max(now, self._free_at) + REST
        self._free_at = begins + length
        return begins - now
