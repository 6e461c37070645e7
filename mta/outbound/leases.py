"""The retries in memory: which they are, and how many more may come.

Between: the retries and the expiry take recipients that they have read from the spool; the settler gives
    them back when their attempt is over.
Contract: nobody takes a recipient twice. While somebody looks into the spool nobody else does, and what
    was settled since the look began is not free: the rows that are read may be older than its commit.
    A lot (one share's mail from one source to one site) may have `LOT` retries in memory, less where its
    share has many lots or there are many shares, one at the least; and no share (a priority and a tenant)
    has more lots than it leaves free for others.
Raises: nothing.
Why: due mail of a million domains must neither fill the memory nor leave a live site waiting for a dead
    one, nor what one source cannot get rid of the mail of another, nor one tenant's mute hosts the mail of
    the next. Fresh mail is not counted here: it is in memory already, and goes first.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from mta.core.limits.order import Share
from mta.core.limits.parts import Parts
from mta.core.model import Message, Recipient
from mta.spool.reader import Key

LOT = 500  # recipients of one lot: half a lane's share, the rest is for fresh mail
ALL = 10_000  # recipients, shared among the shares that have any, and in each among its lots
COME_BACK = 2.0  # seconds until one that found its lot full is read again ...
SPACING = 0.005  # ... and between it and the next: of a large backlog only so many are written anew
LONGEST = 600.0  # seconds that this may take; where it seems to be more, the clock was set back
LOTS = 2000  # each has at least one connection, or a dial that may take minutes to fail; a share alone: half

NO_PLACE = "no place in memory"


class Lot(NamedTuple):
    """Where a retry waits in memory; site and source are "" where it has no route."""

    site: str
    source: str
    priority: int
    tenant: str

    @property
    def share(self) -> Share:
        return self.priority, self.tenant


class Leases:
    """Retries by recipient and lot."""

    def __init__(self) -> None:
        self._lots: dict[Key, Lot] = {}
        self._counts: dict[Lot, int] = {}
        self._places = Parts(LOTS)  # lots by share
        self._returns: dict[Lot, float] = {}  # of full ones: when the last that found no room comes back
        self._settled: set[Key] | None = None  # given back while somebody looks
        self._turn = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._lots)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._lots)

    def __contains__(self, key: Key) -> bool:
        return key in self._lots

    @asynccontextmanager
    async def looking(self, flush: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """Around a look into the spool, which `flush` brings up to date first."""
        async with self._turn:
            self._settled = set()  # before the flush: what comes while it is written may not be in it
            try:
                await flush()
                yield
            finally:
                self._settled = None

    def free(self, message: Message) -> list[Recipient]:
        """Its recipients that may be taken."""
        done = self._settled or ()
        keys = ((message.id, each.n) for each in message.recipients)
        return [
            each
            for each, key in zip(message.recipients, keys, strict=True)
            if key not in self._lots and key not in done
        ]

    def under_way(self, message: Message) -> list[Recipient]:
        """Its recipients whose attempts are not over."""
        return [each for each in message.recipients if (message.id, each.n) in self._lots]

    def take(self, message: Message, recipient: Recipient, lot: Lot) -> None:
        """Its attempt begins."""
        self._lots[message.id, recipient.n] = lot
        count = self._counts.get(lot, 0)
        self._counts[lot] = count + 1
        if not count:
            self._places.take(lot.share)

    def give_back(self, message: Message, recipient: Recipient) -> Lot | None:
        """Its attempt is over; its lot, if it was a retry."""
        key = (message.id, recipient.n)
        if self._settled is not None:
            self._settled.add(key)
        return self.drop(key) if self._lots else None

    def drop(self, key: Key) -> Lot | None:
        """It is no more; the lot that it was in."""
        lot = self._lots.pop(key, None)
        if lot is not None:
            left = self._counts[lot] - 1
            if left:
                self._counts[lot] = left
            else:
                del self._counts[lot]
                self._places.give_back(lot.share)
                self._returns.pop(lot, None)
        return lot

    def is_settled(self, key: Key) -> bool:
        """Was it given back since this look began?"""
        return self._settled is not None and key in self._settled

    def has_place(self, share: Share) -> bool:
        """May it have one lot more?"""
        return self._places.has_room(share)

    def promise(self, share: Share, lots: Iterable[Lot]) -> bool:
        """Until `withdraw` it has a place more, for one of these lots; False if one of them has its own."""
        if any(lot in self._counts for lot in lots):
            return False
        self._places.take(share)
        return True

    def withdraw(self, promised: Iterable[Share]) -> None:
        """What was promised is taken, or not."""
        for share in promised:
            self._places.give_back(share)

    def shuts_out(self, lot: Lot) -> bool:
        """Has its share as many lots as it may, and this one none?"""
        return lot not in self._counts and not self.has_place(lot.share)

    def room(self, lot: Lot) -> int:
        """How many retries more a lot may have."""
        return 0 if self.shuts_out(lot) else max(self._part(lot) - self._counts.get(lot, 0), 0)

    def comes_back(self, lot: Lot, now: float) -> float:
        """When one for which a lot has no room is due again; wall-clock time, those of a second together."""
        earliest = now + COME_BACK
        due = max(self._returns.get(lot, earliest) + SPACING, earliest)
        if due > now + LONGEST:
            due = earliest
        if lot in self._counts:
            self._returns[lot] = due
        return float(math.ceil(due))  # a look and a commit for each would keep the disk busy

    def is_low(self, lot: Lot) -> bool:
        """Has it come down to so few that more are worth a look?"""
        return self._counts.get(lot, 0) in (0, self._part(lot) // 2)

    def _part(self, lot: Lot) -> int:
        lots = self._places.of(lot.share)
        shares = len(self._places) + (not lots)
        return max(min(LOT, ALL // shares // (lots + 1)), 1)
