"""Who waits for the same thing, in the order of service.

Between: `delivery.traffic` keeps its lanes in it that wait for the rate, or for a connection.
Contract: pure. An item waits at one priority and for one tenant; whoever comes again with another share has
    only that one. Within a row items take turns. Each call costs O(priorities), in the mean.
Raises: IndexError from `next` where nobody waits.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from mta.core.limits.order import Order, Share

Item = TypeVar("Item")  # hashable


class Waiting(Generic[Item]):
    """Items, each once."""

    def __init__(self) -> None:
        self._order: Order[str, deque[Item]] = Order()
        self._shares: dict[Item, Share] = {}  # of those that wait; a row may name others, which have gone

    def __len__(self) -> int:
        return len(self._shares)

    def __contains__(self, item: Item) -> bool:
        return item in self._shares

    def add(self, item: Item, share: Share) -> None:
        """It waits behind the others of this share; where it does already, nothing changes."""
        if self._shares.get(item) == share:
            return
        self._shares[item] = share
        priority, tenant = share
        row = self._order.get(priority, tenant)
        if row is None:
            row = deque()
            self._order.enter(priority, tenant, row)
        row.append(item)

    def discard(self, item: Item) -> None:
        """It waits no more."""
        self._shares.pop(item, None)

    def next(self) -> Item:
        """Whose turn it is: it leaves."""
        if not self._shares:
            raise IndexError("nobody waits")
        while True:
            priority, tenant, row = next(self._order.ranked())
            while row:
                item = row.popleft()
                if self._shares.get(item) == (priority, tenant):
                    del self._shares[item]
                    self._order.served(priority, tenant, stays=bool(row))
                    return item
            self._order.served(priority, tenant, stays=False)
