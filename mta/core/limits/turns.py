"""Whose turn it is: the batches that wait in one lane, by priority and tenant.

Between: a lane pushes what is due and pops what goes next.
Contract: pure. In the order of service (`core.limits.order`); the mail of one tenant keeps its order. `pop`
    gives what `head` has shown.
Raises: IndexError from `pop` and `part` without a head.
Why: a lane is one site's, so a row is a plain deque: this is paid for each message.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from mta.core.limits.order import LOWEST, Order, Share
from mta.core.model import Batch

CAPACITY = 1000  # recipients of one tenant at one priority
LOW = CAPACITY // 2  # who was full gets more from here


class Turns:
    """The batches of one lane."""

    def __init__(self) -> None:
        self._order: Order[str, deque[Batch]] = Order()
        self._recipients: dict[Share, int] = {}
        self._head: deque[Batch] | None = None  # where what was shown stands first
        self.batches = 0

    def __iter__(self) -> Iterator[Batch]:
        """All of them, in no order."""
        return (batch for row in self._order for batch in row)

    def push(self, batch: Batch) -> None:
        """Let a batch wait behind its tenant's others."""
        self._row(batch).append(batch)
        self._add(batch, len(batch.recipients))

    def put_back(self, batch: Batch) -> None:
        """It had its turn in vain: it goes first."""
        self._row(batch).appendleft(batch)
        self._add(batch, len(batch.recipients))

    def head(self, lowest: int = LOWEST) -> Batch | None:
        """What is next among priorities from `lowest` on."""
        self._head = row = self._order.head(lowest)
        return None if row is None else row[0]

    def pop(self) -> Batch:
        """Take what `head` has shown."""
        row = self._head
        if row is None:
            raise IndexError("no head was asked for, or there was none")
        self._head = None
        batch = row.popleft()
        message = batch.message
        self._order.served(message.priority, message.tenant, stays=bool(row))
        self._add(batch, -len(batch.recipients), -1)
        return batch

    def part(self, positions: set[int]) -> None:
        """What `head` has shown keeps its turn without these recipients, who come behind it."""
        row = self._head
        if row is None:
            raise IndexError("no head was asked for, or there was none")
        row.insert(1, row[0].split(positions))
        self.batches += 1

    def take_all(self) -> list[Batch]:
        """Everything leaves."""
        left = list(self)
        self._order.clear()
        self._recipients.clear()
        self._head = None
        self.batches = 0
        return left

    def take_tenant(self, tenant: str) -> list[Batch]:
        """Everything of one tenant leaves."""
        taken = [batch for row in self._order.leave(tenant) for batch in row]
        for batch in taken:
            self._add(batch, -len(batch.recipients), -1)
        self._head = None
        return taken

    def room(self, share: Share) -> int:
        """How many recipients more may wait at this priority for this tenant."""
        return max(CAPACITY - self._recipients.get(share, 0), 0)

    def _row(self, batch: Batch) -> deque[Batch]:
        message = batch.message
        row = self._order.get(message.priority, message.tenant)
        if row is None:
            row = deque()
            self._order.enter(message.priority, message.tenant, row)
        return row

    def _add(self, batch: Batch, recipients: int, batches: int = 1) -> None:
        message = batch.message
        share = (message.priority, message.tenant)
        now = self._recipients.get(share, 0) + recipients
        if now:
            self._recipients[share] = now
        else:
            del self._recipients[share]
        self.batches += batches
