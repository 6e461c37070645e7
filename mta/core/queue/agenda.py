"""Which line to look at, and when: all that is held in memory of the mail that waits on disk.

Between: the scheduler notes when a line has mail that is due, takes those whose time has come, and parks
    those whose lot (a site, at one priority) has no room.
Contract: pure; times are wall-clock seconds. One entry for each line with mail that waits, the earliest
    due time known; a parked line comes back when `wake` calls it, first come first served, or at `until`.
Raises: nothing.
Why: a heap, with entries that moved left in it until they outnumber the others: to look for one in its
    middle would cost time in proportion to the backlog.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from itertools import islice

from mta.core.model import Line

SLACK = 1000  # outdated entries that are not worth a clean-up


class Agenda:
    """Lines by their due time."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, Line]] = []
        self._due: dict[Line, float] = {}
        self._parked: dict[Hashable, dict[Line, None]] = {}  # lot -> its lines, in the order of their coming
        self._until: dict[Line, float] = {}  # parked line -> when it comes back by itself

    def __len__(self) -> int:
        return len(self._due)

    def note(self, line: Line, due: float) -> bool:
        """The line has mail that is due then; True if it is the first of all now."""
        due = max(due, self._until.get(line, due))
        known = self._due.get(line)
        if known is not None and known <= due:
            return False
        self._due[line] = due
        if len(self._heap) > 2 * len(self._due) + SLACK:
            self._heap = [(when, each) for each, when in self._due.items()]
            heapq.heapify(self._heap)
        else:
            heapq.heappush(self._heap, (due, line))
        return self._heap[0] == (due, line)

    def next(self) -> float | None:
        """When to look again, at the latest."""
        return self._heap[0][0] if self._heap else None

    def take(self, now: float, most: int) -> list[tuple[Line, float]]:
        """Lines whose time has come, with their due times, the oldest first; they leave."""
        taken: list[tuple[Line, float]] = []
        while self._heap and self._heap[0][0] <= now and len(taken) < most:
            due, line = heapq.heappop(self._heap)
            if self._due.get(line) == due:  # else an older entry of a line that moved
                del self._due[line]
                self._until.pop(line, None)
                taken.append((line, due))
        return taken

    def park(self, lot: Hashable, line: Line, until: float) -> None:
        """The line waits for room in its lot, until then at most."""
        self._parked.setdefault(lot, {})[line] = None
        self._until[line] = until
        self.note(line, until)

    def wake(self, lot: Hashable, most: int, now: float) -> bool:
        """So many of the lines parked there are due now; False if there were none."""
        waiting = self._parked.get(lot)
        if waiting is None:
            return False
        for line in list(islice(waiting, most)):
            del waiting[line]
            if self._until.pop(line, None) is not None:  # else its time came before
                self.note(line, now)
        if not waiting:
            del self._parked[lot]
        return True
