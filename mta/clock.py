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


class Every:
    """`work` is called in the loop every so many seconds, from `start` to `stop`.

    A round that raises is handed to `bug`, and the next one comes all the same.
    """

    def __init__(
        self, clock: Clock, seconds: float, work: Callable[[], object], bug: Callable[[Exception], object]
    ) -> None:
        self._clock = clock
        self._seconds = seconds
        self._work = work
        self._bug = bug
        self._timer: Timer | None = None

    def start(self) -> None:
        """The first round is one interval away."""
        self._timer = self._clock.call_later(self._seconds, self._turn)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn(self) -> None:
        self.start()
        try:
            self._work()
        except Exception as error:
            self._bug(error)


class timeout:
    """`async with timeout(clock, seconds)`: asyncio.timeout on an injected clock.

    Raises: TimeoutError when the time is over.
    """

    def __init__(self, clock: Clock, delay: float) -> None:
        self._clock = clock
        self._delay = delay
        self._expired = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._timer = self._clock.call_later(self._delay, self._expire)

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self._timer.cancel()
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError(f"no answer in {self._delay:.0f} seconds")

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()
