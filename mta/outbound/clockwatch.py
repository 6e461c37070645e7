"""The machine's clock was set: what waits is treated as if it had not been.

Between: the expiry and the retries ask before each look, a timer of its own in between; the spool rewrites,
    slice by slice; the scheduler hears of it first for what is in memory, and then the backlog that due times
    changed.
Contract: set ahead (or asleep), every message lives on for as long as it had left; what came due meanwhile
    is tried, in the lanes' own measure. Set back, no retry waits longer from now than the longest wait of
    the policy, and no message lives shorter. `look` answers False, and `is_behind` True, until all of that
    is on disk: nothing may be given up for its age before. What fails is tried again at the next look. A
    start cannot know how the clock was set before it: there the due times are looked after, and lifetimes
    are as written.
Raises: SpoolError from `start`; later nothing.
Why: a date that is wrong for a minute must neither bounce a whole queue nor hold it for a year. The cost
    is a pass over the queue, paid only when it happens.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable

from mta import disk
from mta.clock import Clock
from mta.config.policy import Current
from mta.core.event import rfc3339
from mta.core.queue.drift import TOLERANCE, Drift
from mta.metrics import Metrics
from mta.spool.database import SpoolError
from mta.spool.queue import Spool

INTERVAL = 10.0  # seconds between two looks; less than drift.TOLERANCE

log = logging.getLogger(__name__)


class ClockWatch:
    """Compares the clocks."""

    def __init__(self, spool: Spool, current: Current, clock: Clock, metrics: Metrics) -> None:
        self._spool = spool
        self._current = current
        self._clock = clock
        self._metrics = metrics
        self._looking = asyncio.Lock()
        self._drift = Drift(0.0)
        self._behind: deque[Callable[[], Awaitable[None]]] = deque()  # what is not on disk yet
        self.on_set_ahead: Callable[[float, float], None] = lambda before, seconds: None
        self.on_set_back: Callable[[], Awaitable[None]] | None = None

    async def start(self) -> None:
        """From now on; nobody has read a due time yet."""
        self._drift = Drift(self._clock.now() - self._clock.monotonic())
        try:
            await self._spool.bring_forward(self._clock.now(), self._longest)
        except sqlite3.Error as error:
            raise SpoolError(f"the spool cannot be used: {disk.words(error)}") from error

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._clock.sleep(INTERVAL)
            await self.look()

    @property
    def _longest(self) -> float:
        return self._current.policy.longest_wait

    @property
    def is_behind(self) -> bool:
        """Was the clock set, and the spool does not know it yet?"""
        return bool(self._behind or self._drift.since(self._clock.now(), self._clock.monotonic()))

    async def look(self) -> bool:
        """Before anything is given up for its age; may it be?"""
        async with self._looking:
            try:
                now = self._clock.now()
                seconds = self._drift.look(now, self._clock.monotonic())
                if seconds > 0.0:
                    self._set_ahead(now, seconds)
                elif seconds < 0.0:
                    self._set_back(now, seconds)
                while self._behind:
                    await self._behind[0]()
                    self._behind.popleft()
            except (sqlite3.Error, OSError, SpoolError) as error:
                log.error("the new time is not in the spool yet, it is tried again: %s", error)
            except Exception as error:
                self._metrics.bug("outbound", "the new time is not in the spool yet", error)
                return False
            return not self._behind

    def _set_ahead(self, now: float, seconds: float) -> None:
        words = "the clock went ahead by %.0f s, to %s: all mail lives on by as much"
        log.warning(words, seconds, rfc3339(now))
        before = now - seconds + TOLERANCE / 2  # who came in the same moment; what came since is much later

        async def in_memory() -> None:  # first: while it fails nothing is given up, and it is tried again
            self.on_set_ahead(before, seconds)

        self._behind += in_memory, lambda: self._spool.prolong(before, seconds)

    def _set_back(self, now: float, seconds: float) -> None:
        words = "the clock went back by %.0f s, to %s: no retry waits longer than %.0f s from now"
        log.warning(words, -seconds, rfc3339(now), self._longest)
        self._behind.append(self._bring_forward)

    async def _bring_forward(self) -> None:
        await self._spool.bring_forward(self._clock.now(), self._longest)
        if self.on_set_back is not None:
            await self.on_set_back()
