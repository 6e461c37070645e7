"""Who waits for the same thing, in the order of service.

Between: `delivery.traffic` keeps its lanes in it that wait for the rate, or for a connection;
    `core.limits.outgoing` those that wait for a place among all connections.
Contract: pure. An item waits at one priority and for one tenant; whoever comes again with another share has
    only that one. Within a row items take turns. Each call costs O(priorities), in the mean; `first` asks
    of each share once.
Raises: IndexError from `head` where nobody waits, KeyError from `share` of one that does not.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from mta.core.limits.order import Order, Share

Item = TypeVar("Item")  # hashable


class Waiting(Generic[Item]):
    """Items, each once."""

    def __init__(self) -> None:
        self._order: Order[str, OrderedDict[Item, None]] = Order()
        self.shares: dict[Item, Share] = {}  # of those that wait; to be read

    def __len__(self) -> int:
        return len(self.shares)

    def __contains__(self, item: Item) -> bool:
        return item in self.shares

    def add(self, item: Item, share: Share) -> None:
        """It waits behind the others of this share; where it does already, nothing changes."""
        if self.shares.get(item) == share:
            return
        self.discard(item)
        self.shares[item] = share
        row = self._order.get(*share)
        if row is None:
            row = OrderedDict()  # a dict looks for its first among all that have left
            self._order.enter(*share, row)
        row[item] = None

    def discard(self, item: Item) -> None:
        """It waits no more."""
        share = self.shares.pop(item, None)
        row = None if share is None else self._order.get(*share)
        if share is not None and row is not None:
            del row[item]
            if not row:
                self._order.drop(*share)

    def has(self, share: Share) -> bool:
        """Does any wait with this one?"""
        return self._order.get(*share) is not None

    def share(self, item: Item) -> Share:
        """With which it waits."""
        return self.shares[item]

    def head(self) -> Item:
        """Whose turn it is: it keeps its place until it was served."""
        if not self.shares:
            raise IndexError("nobody waits")
        _, _, row = next(self._order.ranked())
        return next(iter(row))

    def first(self, may: Callable[[Share], bool]) -> Item | None:
        """Whose turn it is among the shares that may; nobody's, where none does."""
        for priority, tenant, row in self._order.ranked():
            if may((priority, tenant)):
                return next(iter(row))
        return None

    def served(self, item: Item, *, stays: bool) -> None:
        """It had its turn: it waits behind the others again, or no more."""
        share = self.shares.get(item)
        row = None if share is None else self._order.get(*share)
        if share is None or row is None:
            return
        row.move_to_end(item)
        if not stays:
            row.popitem()
            del self.shares[item]
        self._order.served(*share, stays=bool(row))
