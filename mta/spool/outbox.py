"""The outbox: the lines of events that are on disk in the spool, on their way to the event log.

Between: `spool.queue` adds what each commit has put there, and hears which rows may be forgotten.
Contract: rows reach the log whole and in the order of their commits, one drain at a time: soon after the
    first one, at once when they are many octets, and every second while the log does not take them.
Raises: nothing; `failing` says why the log did not take its lines.
Why: one sync of the log serves the commits of a quarter of a second. A row is forgotten by a later commit,
    so after a crash the log gets it again: each line has its `seq` to tell (`spool.crash`, rows 17 to 19).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from mta import disk
from mta.clock import Clock
from mta.spool.commit import Committed

DRAIN_INTERVAL = 0.25  # seconds between syncs of the event log
DRAIN_BYTES = 1024 * 1024
MAX_UNDRAINED = 64 * 1024 * 1024  # octets that the event log does not take; then no mail comes in
RETRY_AFTER_FAILURE = 1.0  # seconds until what a disk did not take is offered again

log = logging.getLogger(__name__)


class Outbox:
    """Rows that are committed and not drained."""

    def __init__(
        self,
        publish: Callable[[bytes], Awaitable[None]],
        place: disk.Place,
        clock: Clock,
        on_drained: Callable[[list[Committed]], None],
    ) -> None:
        self._publish = publish
        self._place = place
        self._clock = clock
        self._on_drained = on_drained
        self._rows: list[Committed] = []
        self._octets = 0
        self._wake = asyncio.Event()
        self._closing = False
        self.is_full = False
        self.failing: str | None = None

    def found(self, rows: list[Committed]) -> None:
        """What the last process left."""
        self._rows = rows
        self._count(sum(len(row.lines) for row in rows))

    def add(self, row: Committed) -> None:
        """One row more: it is drained soon, or now if there is much."""
        if not self._rows:
            self._clock.call_later(DRAIN_INTERVAL, self._wake.set)
        self._rows.append(row)
        self._count(len(row.lines))
        if self._octets >= DRAIN_BYTES and self.failing is None:
            self._wake.set()

    def _count(self, octets: int) -> None:
        self._octets += octets
        self.is_full = self._octets >= MAX_UNDRAINED

    async def run(self) -> None:
        """Drain until `stop`. What is committed after that waits for a last `drain`."""
        if self._rows:
            self._wake.set()
        while not self._closing:
            await self._wake.wait()
            self._wake.clear()
            await self.drain()

    def stop(self) -> None:
        """Let `run` come to its end."""
        self._closing = True
        self._wake.set()

    async def drain(self) -> None:
        """Offer all rows to the event log. Two drains at once would not end in the order of their rows."""
        rows, self._rows = self._rows, []
        if not rows:
            return
        lines = b"".join(row.lines for row in rows)
        try:
            self._place.check()  # the log may lie in the same directory, and would make it anew
            await self._publish(lines)
        except Exception as error:  # of whatever kind: the lines are kept, and nobody else is stopped
            said = disk.words(error)
            if said != self.failing:
                log.error("the event log cannot be written: %s; its lines stay in the spool", said)
            self.failing = said
            self._rows = rows + self._rows
            self._clock.call_later(RETRY_AFTER_FAILURE, self._wake.set)
            return
        if self.failing is not None:
            log.info("the event log can be written again")
            self.failing = None
        self._count(-len(lines))
        self._on_drained(rows)
