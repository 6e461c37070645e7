"""Who is looked at in which second.

Between: `delivery.lookout` keeps lanes and connections in it.
Contract: pure; times are seconds of one clock. An item stands here once, at the earliest time that was noted.
    It is due from the whole second after that on. A call costs O(log seconds), whoever else stands here.
Raises: nothing.
Why: what is looked at each second costs as much as there is of it, also where nothing happens. A heap of
    items would keep each one that moved until its time came.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


class Wheel(Generic[Item]):
    """Items by second."""

    def __init__(self) -> None:
        self._seconds: dict[int, dict[Item, None]] = {}
        self._next: list[int] = []  # a heap of these
        self._of: dict[Item, int] = {}

    def __len__(self) -> int:
        return len(self._of)

    def __contains__(self, item: Item) -> bool:
        return item in self._of

    def note(self, item: Item, due: float) -> None:
        """Not later than then."""
        second, known = math.ceil(due), self._of.get(item)
        if known is not None:
            if known <= second:
                return
            del self._seconds[known][item]
        self._of[item] = second
        if second not in self._seconds:
            self._seconds[second] = {}
            heapq.heappush(self._next, second)
        self._seconds[second][item] = None

    def discard(self, item: Item) -> None:
        """It is looked at no more."""
        known = self._of.pop(item, None)
        if known is not None:
            del self._seconds[known][item]

    def next(self, now: float) -> Item | None:
        """One whose time has come; it leaves."""
        while self._next and self._next[0] <= now:
            items = self._seconds[self._next[0]]
            if items:
                item, _ = items.popitem()
                del self._of[item]
                return item
            del self._seconds[heapq.heappop(self._next)]
        return None
