"""A look at each lane, or connection, when it is its time.

Between: the pool has one for its lanes, `delivery.connections` one for what is open; both say how they look,
    and when to look again.
Contract: `look` is called with the item and the monotonic time, within a second after it is due: `AT_ONCE`
    items, then the loop sees to others. It answers when to look again; None: never, the item has left.
Raises: nothing; a bug over one item is told, and costs it this look only.
Why: a timer for each command of a connection would be set and cancelled for every message. Here nothing is:
    who is looked at too early names the time that holds by now.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from mta.clock import Clock, Every, Timer
from mta.core.limits.wheel import Wheel

EACH = 1.0  # seconds
AT_ONCE = 100  # looks, a millisecond's worth

Item = TypeVar("Item", bound=Hashable)


class Lookout(Generic[Item]):
    """Items, each with its time."""

    def __init__(
        self, clock: Clock, look: Callable[[Item, float], float | None], bug: Callable[[Exception], None]
    ) -> None:
        self._clock = clock
        self._look = look
        self._bug = bug
        self._wheel: Wheel[Item] = Wheel()
        self._rest: Timer | None = None  # when the rest of those that are due is looked at
        self._every = Every(clock, EACH, self._turn, bug)

    def start(self) -> None:
        self._every.start()

    def stop(self) -> None:
        self._every.stop()
        if self._rest is not None:
            self._rest.cancel()

    def within(self, item: Item, seconds: float) -> None:
        """Look at it then, if not before."""
        self._wheel.note(item, self._clock.monotonic() + seconds)

    def discard(self, item: Item) -> None:
        """It has left."""
        self._wheel.discard(item)

    def _turn(self) -> None:
        if self._rest is None:
            self._some()

    def _some(self) -> None:
        self._rest, now = None, self._clock.monotonic()
        for _ in range(AT_ONCE):
            item = self._wheel.next(now)
            if item is None:
                return
            try:
                again = self._look(item, now)
            except Exception as error:
                self._bug(error)
                again = now
            if again is not None:
                self._wheel.note(item, max(again, now + EACH))
        self._rest = self._clock.call_later(0.0, self._some)
