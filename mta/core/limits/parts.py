"""How much of something bounded one share may hold: no more than it leaves free.

Between: fresh mail in memory, mail that waits for its route, questions to DNS and places for retries are
    counted here by share (a priority and a tenant, or what else competes).
Contract: pure. Who is alone holds a half; two who want all have a third each; who has none finds room as
    long as there is any. Nobody gives up what he holds for another. What is taken without asking counts, too.
Raises: nothing.
Why: with one bound for all, whoever comes first with a flood shuts everybody else out.
"""

from __future__ import annotations

from collections.abc import Hashable


class Parts:
    """One bound, and who holds how much below it."""

    __slots__ = ("_held", "held", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0  # by all
        self._held: dict[Hashable, int] = {}

    def __len__(self) -> int:
        """Shares that hold anything."""
        return len(self._held)

    def has_room(self, share: Hashable) -> bool:
        """May it take one more?"""
        return self._held.get(share, 0) < self.most - self.held

    def of(self, share: Hashable) -> int:
        """What it holds."""
        return self._held.get(share, 0)

    def take(self, share: Hashable, amount: int = 1) -> bool:
        """It holds so much more; False if it had no room before that."""
        held = self._held.get(share, 0)
        had_room = held < self.most - self.held
        self._held[share] = held + amount
        self.held += amount
        return had_room

    def give_back(self, share: Hashable, amount: int = 1) -> None:
        """It holds so much less; who holds nothing is forgotten."""
        left = self._held.get(share, 0) - amount
        if left > 0:
            self._held[share] = left
        else:
            amount += left  # no more than it held
            self._held.pop(share, None)
        self.held -= amount
