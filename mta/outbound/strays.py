"""Mail that nobody has: in its attempt by the books, and in no lane, on no connection, waiting for no route.

Between: a task of its own; the scheduler says what is in memory, the spool what is fresh, `Leases` which
    retries are under way.
Contract: every `INTERVAL` seconds, where anything is in its attempt at all. What is missing in two looks in
    a row, and still when nobody else may look or settle, is given back: due at once, or at its written time
    where that was of no use before. The attempt counts. The spool is read in slices, from the oldest fresh
    message on; at most `MOST` recipients are looked at.
Raises: nothing.
Why: it takes a bug of ours, and each is caught where mail is taken and handed on. This is the net below: a
    fresh recipient that is lost has no due time, so neither a retry nor the expiry would ever find it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from mta.clock import Clock
from mta.core.model import Batch, Message
from mta.core.queueid import text
from mta.metrics import Metrics
from mta.outbound.leases import Leases
from mta.outbound.outcome import Settler
from mta.spool.queue import Spool
from mta.spool.reader import Key

INTERVAL = 120.0  # seconds between two looks
MOST = 50_000  # recipients in one look
GIVEN_BACK = 500  # recipients in one look
ONCE_MORE = 2  # attempts, up to which what was lost is due at once

log = logging.getLogger(__name__)


class Strays:
    """Finds them."""

    def __init__(
        self,
        in_memory: Callable[[], Iterable[list[Batch]]],
        leases: Leases,
        settler: Settler,
        spool: Spool,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._in_memory = in_memory
        self._leases = leases
        self._settler = settler
        self._spool = spool
        self._clock = clock
        self._metrics = metrics
        self._suspects: set[Key] = set()
        # No message before the first of these is fresh. What was minted before the look before the last, and
        # is not on disk, will not be.
        self._since, self._before, self._mark = 0, 0, 0

    async def run(self) -> None:
        """For ever."""
        self._since = self._before = self._mark = self._spool.mint()
        while True:
            await self._clock.sleep(INTERVAL)
            try:
                await self.look()
            except Exception as error:
                self._metrics.bug("outbound", "a look for mail that nobody has was in vain", error)

    async def look(self) -> None:
        """Once."""
        if self._spool.failing is not None:
            return  # what is settled is not on disk
        out = await self._fresh() | set(self._leases)
        for count, batches in enumerate(self._in_memory() if out else ()):
            out -= _keys(batches)
            if count % 100 == 99:
                await asyncio.sleep(0)
        twice = out & self._suspects
        self._suspects = out
        if twice:
            await self._give_back(set(sorted(twice)[:GIVEN_BACK]))

    async def _fresh(self) -> set[Key]:
        """All that are in their first attempt."""
        found: set[Key] = set()
        after: Key | None = (self._since, -1)
        while after is not None and self._spool.tally.fresh and len(found) < MOST:
            some, after = await self._spool.reader.fresh(after)
            found.update(some)
        oldest = min(found)[0] if found else self._mark
        self._since, self._before, self._mark = min(oldest, self._before), self._mark, self._spool.mint()
        return found

    async def _give_back(self, keys: set[Key]) -> None:
        async with self._leases.looking(lambda: self._spool.lease([])):
            rows = await self._spool.reader.recipients(sorted(keys))
            # Nothing is awaited from here on.
            for batches in self._in_memory():
                keys -= _keys(batches)
            for message, due in rows:
                key = (message.id, message.recipients[0].n)
                if key in keys:
                    keys.remove(key)
                    if not self._leases.is_settled(key) and (due is None or key in self._leases):
                        self._return(message, due)
            for key in keys:
                self._leases.drop(key)  # its row is gone

    def _return(self, message: Message, due: float | None) -> None:
        (recipient,) = message.recipients
        words = "%s <%s> was in its attempt, and nobody had it: it is tried again"
        log.error(words, text(message.id), recipient.address)
        self._metrics.bugs["outbound"].inc()
        now = self._clock.now()
        until = now if due is None or recipient.attempts <= ONCE_MORE else max(due, now)
        message.fresh = due is None
        message.on_the_way = 1
        recipient.attempts += 1  # postponing takes one back: that which was made counts
        self._settler.postpone(Batch(message, [recipient]), until)


def _keys(batches: list[Batch]) -> set[Key]:
    return {(batch.message.id, each.n) for batch in batches for each in batch.recipients}
