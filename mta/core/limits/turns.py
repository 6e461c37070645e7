"""Whose turn it is: the batches that wait in one lane, by priority and tenant.

Between: a lane pushes what is due and pops what goes next.
Contract: pure. The higher priority first (-9 to 9, RFC 6710); while both wait, every tenth turn of those
    that it could have had is the lower's. Within a priority tenants take turns, and the mail of one
    tenant keeps its order. `pop` gives what `head` has shown.
Raises: IndexError from `pop` without a head.
Standards: RFC 6710 4.1 (a higher priority is served first; starvation is the receiver's to prevent).
Why: one queue for all would let one tenant's newsletter stand before everybody's passwords.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterator

from mta.core.model import Batch

CAPACITY = 1000  # recipients of one tenant at one priority
LOW = CAPACITY // 2  # who was full gets more from here
SHARE = 9  # turns in a row that a priority may take while a lower one waits
LOWEST, HIGHEST = -9, 9  # RFC 6710 4.1

Share = tuple[int, str]  # priority, tenant


class _Band:
    """The mail of one priority; the tenant whose turn it is stands first."""

    __slots__ = ("passed", "priority", "tenants")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.tenants: dict[str, deque[Batch]] = {}
        self.passed = 0  # turns that went to a higher priority while mail waited here


class Turns:
    """The batches of one lane."""

    def __init__(self) -> None:
        self._bands: list[_Band] = []  # the highest first; one that is empty stays, there are 19 at most
        self._recipients: dict[Share, int] = {}
        self._chosen: _Band | None = None
        self.batches = 0

    def __iter__(self) -> Iterator[Batch]:
        """All of them, in no order."""
        return (batch for band in self._bands for queue in band.tenants.values() for batch in queue)

    def push(self, batch: Batch) -> None:
        """Let a batch wait behind its tenant's others."""
        self._queue(batch).append(batch)
        self._add(batch, len(batch.recipients))

    def put_back(self, batch: Batch) -> None:
        """It had its turn in vain: it goes first."""
        self._queue(batch).appendleft(batch)
        self._add(batch, len(batch.recipients))

    def head(self, lowest: int = LOWEST) -> Batch | None:
        """What is next among priorities from `lowest` on."""
        chosen = None
        for band in self._bands:
            if band.priority < lowest:
                break
            if band.tenants and (chosen is None or band.passed >= SHARE):
                chosen = band
        self._chosen = chosen
        return None if chosen is None else next(iter(chosen.tenants.values()))[0]

    def pop(self) -> Batch:
        """Take what `head` has shown."""
        chosen = self._chosen
        if chosen is None:
            raise IndexError("no head was asked for, or there was none")
        self._chosen = None
        tenants = chosen.tenants
        tenant = next(iter(tenants))
        queue = tenants[tenant]
        batch = queue.popleft()
        if not queue:
            del tenants[tenant]
        elif len(tenants) > 1:
            tenants[tenant] = tenants.pop(tenant)  # to the end of the row
        self._add(batch, -len(batch.recipients), -1)
        if len(self._bands) > 1:
            self._count_turn(chosen)
        return batch

    def take_all(self) -> list[Batch]:
        """Everything leaves."""
        left = list(self)
        self._bands.clear()
        self._recipients.clear()
        self.batches = 0
        return left

    def take_tenant(self, tenant: str) -> list[Batch]:
        """Everything of one tenant leaves."""
        taken: list[Batch] = []
        for band in self._bands:
            taken += band.tenants.pop(tenant, ())
        for batch in taken:
            self._add(batch, -len(batch.recipients), -1)
        self._chosen = None
        return taken

    def room(self, share: Share) -> int:
        """How many recipients more may wait at this priority for this tenant."""
        return max(CAPACITY - self._recipients.get(share, 0), 0)

    def _queue(self, batch: Batch) -> deque[Batch]:
        message = batch.message
        for band in self._bands:
            if band.priority == message.priority:
                break
        else:
            band = _Band(message.priority)
            insort(self._bands, band, key=_downward)
        queue = band.tenants.get(message.tenant)
        if queue is None:
            queue = band.tenants[message.tenant] = deque()
        return queue

    def _add(self, batch: Batch, recipients: int, batches: int = 1) -> None:
        message = batch.message
        share = (message.priority, message.tenant)
        now = self._recipients.get(share, 0) + recipients
        if now:
            self._recipients[share] = now
        else:
            del self._recipients[share]
        self.batches += batches

    def _count_turn(self, chosen: _Band) -> None:
        chosen.passed = 0
        for band in self._bands:
            if band.priority < chosen.priority and band.tenants:
                band.passed += 1


def _downward(band: _Band) -> int:
    return -band.priority
