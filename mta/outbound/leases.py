"""The retries in memory: which they are, and how many more may come.

Between: the scheduler and the expiry take recipients that they have read from the spool; the settler gives
    them back when their attempt is over.
Contract: nobody takes a recipient twice. While somebody looks into the spool nobody else does, and what
    was settled since the look began is not free: the rows that are read may be older than its commit.
    A site may have `SITE` retries in memory, less where many sites have some, one at the least.
Raises: nothing.
Why: due mail of a million domains must neither fill the memory nor leave a live site waiting for a dead
    one. Fresh mail is not counted here: it is in memory already, and goes first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from mta.core.model import Message, Recipient

SITE = 500  # recipients of one site: half a lane, the rest is for fresh mail
ALL = 10_000  # recipients, shared among the sites that have any
SITES = 1000  # each has at least one connection, or a dial that may take minutes to fail

Key = tuple[int, int]  # message, n


class Leases:
    """Retries by recipient and site."""

    def __init__(self) -> None:
        self._sites: dict[Key, str] = {}
        self._counts: dict[str, int] = {}
        self._settled: set[Key] | None = None  # given back while somebody looks
        self._turn = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._sites)

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
            if key not in self._sites and key not in done
        ]

    def under_way(self, message: Message) -> list[Recipient]:
        """Its recipients whose attempts are not over."""
        return [each for each in message.recipients if (message.id, each.n) in self._sites]

    def take(self, message: Message, recipient: Recipient, site: str) -> None:
        """Its attempt begins."""
        self._sites[message.id, recipient.n] = site
        self._counts[site] = self._counts.get(site, 0) + 1

    def give_back(self, message: Message, recipient: Recipient) -> str | None:
        """Its attempt is over; the site, if it was a retry."""
        key = (message.id, recipient.n)
        site = self._sites.pop(key, None)
        if site is not None:
            if self._settled is not None:
                self._settled.add(key)
            left = self._counts[site] - 1
            if left:
                self._counts[site] = left
            else:
                del self._counts[site]
        return site

    def shuts_out(self, site: str) -> bool:
        """Have too many other sites retries, and this one none?"""
        return len(self._counts) >= SITES and site not in self._counts

    def room(self, site: str) -> int:
        """How many retries more a site may have."""
        return 0 if self.shuts_out(site) else max(self._share() - self._counts.get(site, 0), 0)

    def is_low(self, site: str) -> bool:
        """Has it come down to so few that more are worth a look?"""
        return self._counts.get(site, 0) in (0, self._share() // 2)

    def _share(self) -> int:
        return max(min(SITE, ALL // (len(self._counts) + 1)), 1)
