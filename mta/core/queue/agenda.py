"""Which line to look at, and when: all that is held in memory of the mail that waits on disk.

Between: the retries note when a line has mail that is due, take those whose time has come, and park those
    that wait for something else than time: room at their site, room in memory, DNS.
Contract: pure; times are wall-clock seconds. One entry for each line with mail that waits, the earliest
    due time known. What is due leaves in the order of service (`core.limits.order`), within a share the
    oldest first; as a line is a domain's, and comes back behind the others, domains take turns. A parked
    line comes back when `wake` calls it, in the same order, or at its `until`. A line costs O(log lines)
    when it is noted or taken, and O(shares in its lot) when it is woken.
Raises: nothing.
Why: a heap for each share, with entries that moved left in it until they outnumber the others: to look
    for one in its middle, or to put all that is due into an order, would cost time in proportion to it.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from mta.core.limits.order import Order, Share
from mta.core.model import Line

SLACK = 1000  # outdated entries that are not worth a clean-up

Key = TypeVar("Key", Line, Share)


class _Times(Generic[Key]):
    """When each of some keys is due, the earliest first."""

    __slots__ = ("_due", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[float, Key]] = []
        self._due: dict[Key, float] = {}

    def __len__(self) -> int:
        return len(self._due)

    def note(self, key: Key, due: float) -> bool:
        """It is due then; False where that is not before what is known."""
        known = self._due.get(key)
        if known is not None and known <= due:
            return False
        self._due[key] = due
        if len(self._heap) > 2 * len(self._due) + SLACK:
            self._heap = [(when, each) for each, when in self._due.items()]
            heapq.heapify(self._heap)
        else:
            heapq.heappush(self._heap, (due, key))
        return True

    def next(self) -> float | None:
        """When the first is due."""
        heap = self._heap
        while heap and self._due.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)  # an older entry of a key that moved
        return heap[0][0] if heap else None

    def is_due(self, now: float) -> bool:
        """Has the time of one come?"""
        due = self.next()
        return due is not None and due <= now

    def pop(self) -> tuple[Key, float]:
        """The first leaves; `next` has said when it is due."""
        due, key = heapq.heappop(self._heap)
        del self._due[key]
        return key, due


class Agenda:
    """Lines by their due time, and those that are parked."""

    def __init__(self) -> None:
        self._shares: dict[Share, _Times[Line]] = {}
        self._later: _Times[Share] = _Times()  # when the first line of a share is due
        self._due: Order[str, _Times[Line]] = Order()  # shares of which one is
        self._parked: dict[Hashable, Order[str, OrderedDict[Line, None]]] = {}  # by lot
        self._until: dict[Line, float] = {}  # parked line -> when it comes back by itself

    def __len__(self) -> int:
        return sum(map(len, self._shares.values()))

    def note(self, line: Line, due: float) -> bool:
        """The line has mail that is due then; True if that may be the first of all now."""
        if self._until:
            due = max(due, self._until.get(line, due))
        share = line[1:]
        times = self._shares.get(share)
        if times is None:
            times = self._shares[share] = _Times()
        if not times.note(line, due) or self._due.get(*share) is not None:
            return False
        return self._later.note(share, due) and self._later.next() == due

    def next(self) -> float | None:
        """When to look again, at the latest."""
        times = [each.next() for each in (self._later, *self._due)]
        return min((due for due in times if due is not None), default=None)

    def take(self, now: float, most: int) -> list[tuple[Line, float]]:
        """Lines whose time has come, with their due times, in the order of service; they leave."""
        while self._later.is_due(now):
            share, _ = self._later.pop()
            self._due.enter(*share, self._shares[share])
        taken: list[tuple[Line, float]] = []
        while len(taken) < most and (found := next(self._due.ranked(), None)) is not None:
            priority, tenant, times = found
            if times.is_due(now):  # else the clock was set back
                line, due = times.pop()
                self._until.pop(line, None)
                taken.append((line, due))
            self._served((priority, tenant), times, now)
        return taken

    def _served(self, share: Share, times: _Times[Line], now: float) -> None:
        stays = times.is_due(now)
        self._due.served(*share, stays=stays)
        if not stays:
            due = times.next()
            if due is None:
                del self._shares[share]
            else:
                self._later.note(share, due)

    def park(self, lot: Hashable, line: Line, until: float) -> None:
        """The line waits for something there, until then at most."""
        rows = self._parked.get(lot)
        if rows is None:
            rows = self._parked[lot] = Order()
        row = rows.get(line.priority, line.tenant)
        if row is None:
            row = OrderedDict()  # a dict looks for its first among all that have left
            rows.enter(line.priority, line.tenant, row)
        row[line] = None
        self._until[line] = until
        self.note(line, until)

    def wake(
        self, lot: Hashable, most: int, now: float, may: Callable[[Share], bool] = lambda share: True
    ) -> bool:
        """So many of the lines parked there, of shares that may go, are due now; False if there were none."""
        rows = self._parked.get(lot)
        if rows is None:
            return False
        for _ in range(most):
            found = next((each for each in rows.ranked() if may((each[0], each[1]))), None)
            if found is None:
                break
            priority, tenant, row = found
            line, _none = row.popitem(last=False)
            rows.served(priority, tenant, stays=bool(row))
            if self._until.pop(line, None) is not None:  # else its time came before
                self.note(line, now)
        if not rows:
            del self._parked[lot]
        return True
