"""Who may have one more connection to a peer: one bound over all sites, and one order of those who wait.

Between: `delivery.connections` asks for its lanes before they dial, and tells what was taken and given back.
Contract: pure. A share (a priority and a tenant) holds no more of `most` than it leaves free
    (`core.limits.parts`). Who is told no waits, in the order of service (`core.limits.waiting`); `next` names
    whose turn it is when there is room, and in his turn he has one. While somebody waits whose share has room
    nobody else is served. `urgency` and `waits` say whether to close an idle one would be of use,
    `is_wanted` whether one that is in use should end after a while.
Raises: nothing.
Why: each site has its window, but nothing bounded their sum: mail to ten thousand sites was ten thousand
    sockets, and files and memory ran out for clients and the disk, too.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Generic, TypeVar

from mta.core.limits.order import LOWEST, Share
from mta.core.limits.parts import Parts
from mta.core.limits.waiting import Waiting

NOBODYS = LOWEST - 1  # priority

Item = TypeVar("Item")  # hashable


class Outgoing(Generic[Item]):
    """Every connection to a peer, being dialled or open."""

    def __init__(self, most: int) -> None:
        self._held = Parts(most)
        self._waiting: Waiting[Item] = Waiting()
        self.queue: Collection[Item] = self._waiting.shares  # who was told no; always the same object
        self.chosen: Item | None = None  # whose turn it is

    @property
    def most(self) -> int:
        return self._held.most

    @most.setter
    def most(self, most: int) -> None:
        """Another one holds from now on; what is open beyond it stays."""
        self._held.most = most

    @property
    def held(self) -> int:
        """Connections."""
        return self._held.held

    @property
    def waiting(self) -> int:
        """Who was told no."""
        return len(self._waiting)

    def ask(self, item: Item, share: Share) -> bool:
        """May it have one more? Else it waits."""
        has_room = self._held.has_room
        if has_room(share) and (item is self.chosen or self._waiting.first(has_room) is None):
            return True
        self._waiting.add(item, share)
        return False

    def take(self, item: Item, share: Share) -> None:
        """It has one more. For another one it waits behind the others."""
        if item is self.chosen:
            self.chosen = None
        self._waiting.discard(item)
        self._held.take(share)

    def give_back(self, share: Share) -> None:
        """A connection is over."""
        self._held.give_back(share)

    @property
    def urgency(self) -> int:
        """The priority of who would be served if one connection, whoever's, were over."""
        held, free = self._held, self._held.most - self._held.held + 1
        item = self._waiting.first(lambda share: held.of(share) < free)
        return NOBODYS if item is None else self._waiting.share(item)[0]

    def waits(self, share: Share) -> bool:
        """Does any of this share wait? If many enough of its connections were over it would be served."""
        return self._waiting.has(share)

    def is_wanted(self, share: Share) -> bool:
        """Does anybody wait who should have what one of this share has had for a while?"""
        held = self._held
        if not self.waiting or held.held > held.most or self.waits(share):
            return self.waiting > 0
        less = max(held.most - held.held + 1, held.of(share) - 1)  # who would have one, or has fewer
        return self._waiting.first(lambda other: held.of(other) < less) is not None

    def next(self) -> Item | None:
        """Whose turn it is, if there is room for any who wait; the turn ends with the next call."""
        self.chosen = self._waiting.first(self._held.has_room)
        if self.chosen is not None:
            self._waiting.served(self.chosen, stays=False)
        return self.chosen

    def leave(self, item: Item) -> None:
        """It waits no more."""
        self._waiting.discard(item)
