"""Time and dice, injected: nothing else in the house looks at a clock or throws dice.

Between: `daemon` makes one; services get it in their constructor; tests hand in one that they advance.
Contract: `now` is wall-clock seconds (for what is stored and shown), `monotonic` is seconds that never
    jump (for deadlines), `dice` is uniform in [0, 1). `call_later` runs a callable once, in the loop.
Raises: nothing.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A pending call."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """What services need of time."""

    def now(self) -> float: ...

    def monotonic(self) -> float: ...

    def dice(self) -> float: ...

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer: ...

    async def sleep(self, delay: float) -> None: ...


class SystemClock:
    """The machine's own time."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    dice = staticmethod(random.random)

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(delay, callback)

    async def sleep(self, delay: float) -> None:
        await asyncio.sleep(delay)
