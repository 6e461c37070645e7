"""Time that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count


class _Timer:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class HandClock:
    """A Clock whose hands a test moves: `await clock.advance(seconds)` runs what is due, in order."""

    def __init__(self, now: float = 1_800_000_000.0, dice: float = 0.5) -> None:
        self._now = now
        self._monotonic = 1000.0
        self.thrown = dice
        self._timers: list[tuple[float, int, _Timer]] = []
        self._order = count()
        self._asked: set[float] = set()
        self._called = asyncio.Event()

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def dice(self) -> float:
        return self.thrown

    def call_later(self, delay: float, callback: Callable[[], object]) -> _Timer:
        timer = _Timer(callback)
        self._asked.add(delay)
        self._called.set()
        if delay <= 0:
            asyncio.get_running_loop().call_soon(self._run, timer)
        else:
            heapq.heappush(self._timers, (self._monotonic + delay, next(self._order), timer))
        return timer

    async def sleep(self, delay: float) -> None:
        woken = asyncio.Event()
        timer = self.call_later(delay, woken.set)
        try:
            await woken.wait()
        finally:
            timer.cancel()

    async def asked_for(self, delay: float) -> None:
        """Somebody waits, or has waited, for exactly so many seconds."""
        async with asyncio.timeout(10):
            while delay not in self._asked:
                self._called.clear()
                await self._called.wait()

    async def advance(self, seconds: float) -> None:
        """Move the hands, stopping at each timer on the way."""
        end = self._monotonic + seconds
        while self._timers and self._timers[0][0] <= end:
            at, _, timer = heapq.heappop(self._timers)
            self._move(max(at, self._monotonic))
            self._run(timer)
            await asyncio.sleep(0)
        self._move(end)
        for _ in range(5):
            await asyncio.sleep(0)

    def _move(self, to: float) -> None:
        self._now += to - self._monotonic
        self._monotonic = to

    @staticmethod
    def _run(timer: _Timer) -> None:
        callback, timer.callback = timer.callback, None
        if callback is not None:
            callback()
