"""The machine's clock was set: what waits is treated as if it had not been.

Between: the expiry asks before each look, a timer of its own in between; the spool rewrites; the scheduler
    hears that due times have changed.
Contract: set ahead (or asleep), every message lives on for as long as it had left; what came due meanwhile
    is tried, in the lanes' own measure. Set back, no retry waits longer than `longest` (seconds) from now,
    and no message lives shorter. A start cannot know how the clock was set before it: there the due times
    are looked after, and lifetimes are as written.
Raises: SpoolError from `start`; later nothing, for the spool tries again by itself.
Why: a date that is wrong for a minute must neither bounce a whole queue nor hold it for a year. The cost
    is a pass over the queue, paid only when it happens.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable

from mta.clock import Clock
from mta.core.drift import Drift
from mta.core.event import rfc3339
from mta.spool import fault
from mta.spool.database import SpoolError
from mta.spool.queue import Spool

INTERVAL = 10.0  # seconds between two looks; less than drift.TOLERANCE

log = logging.getLogger(__name__)


class ClockWatch:
    """Compares the clocks."""

    def __init__(self, spool: Spool, longest: float, clock: Clock) -> None:
        self._spool = spool
        self._longest = longest
        self._clock = clock
        self._looking = asyncio.Lock()
        self.on_set_back: Callable[[], Awaitable[None]] | None = None

    async def start(self) -> None:
        """From now on; the scheduler has read no due time yet."""
        self._drift = Drift(self._clock.now() - self._clock.monotonic())
        try:
            await self._spool.bring_forward(self._clock.now(), self._longest)
        except sqlite3.Error as error:
            raise SpoolError(f"the spool cannot be used: {fault.words(error)}") from error

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._clock.sleep(INTERVAL)
            await self.look()

    async def look(self) -> None:
        """Before anything is given up for its age."""
        async with self._looking:
            now = self._clock.now()
            seconds = self._drift.look(now, self._clock.monotonic())
            try:
                if seconds > 0.0:
                    await self._set_ahead(now, seconds)
                elif seconds < 0.0:
                    await self._set_back(now, seconds)
            except (sqlite3.Error, OSError, SpoolError) as error:
                log.error("the new time is not in the spool yet, it is tried again: %s", error)

    async def _set_ahead(self, now: float, seconds: float) -> None:
        words = "the clock went ahead by %.0f s, to %s: all mail lives on by as much"
        log.warning(words, seconds, rfc3339(now))
        await self._spool.prolong(now - seconds, seconds)

    async def _set_back(self, now: float, seconds: float) -> None:
        words = "the clock went back by %.0f s, to %s: no retry waits longer than %.0f s from now"
        log.warning(words, -seconds, rfc3339(now), self._longest)
        await self._spool.bring_forward(now, self._longest)
        if self.on_set_back is not None:
            await self.on_set_back()
