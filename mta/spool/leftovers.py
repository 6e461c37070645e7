"""Contents of messages that have left, in files of their own: removed beside everything else.

Between: `spool.queue` adds what a commit has let go, and what never came to be committed.
Contract: `add` only notes; a thread removes. What cannot be removed is told once and tried again each minute,
    and a start removes what is left then (`Bodies.sweep`).
Raises: nothing.
Why: a disk that is read-only, or a directory of another owner, is no reason to stop taking and sending mail.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from mta import disk
from mta.clock import Clock
from mta.core.queueid import text
from mta.metrics import Metrics
from mta.spool.bodies import Bodies

AGAIN = 60.0  # seconds until files are removed that could not be

log = logging.getLogger(__name__)


class Leftovers:
    """Files that nobody needs."""

    def __init__(self, bodies: Bodies, clock: Clock, metrics: Metrics) -> None:
        self._bodies = bodies
        self._clock = clock
        self._metrics = metrics
        self._messages: set[int] = set()
        self._stuck: set[int] = set()  # could not be removed, and wait for the next try
        self._removing: asyncio.Task[None] | None = None

    def start(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        self.add(())

    @property
    def is_empty(self) -> bool:
        """Nothing is to be removed, or being removed."""
        return not self._messages and self._removing is None

    def add(self, messages: Iterable[int]) -> None:
        """The contents of these may go."""
        self._messages.update(messages)
        if self._removing is None and self._messages:
            self._removing = self._tasks.create_task(self._remove())

    async def _remove(self) -> None:
        left: dict[int, OSError] = {}
        try:
            while self._messages:
                messages, self._messages = self._messages, set()
                left |= await asyncio.to_thread(self._bodies.remove, messages)
        except Exception as error:
            self._metrics.bug("spool", "contents that are of no more use cannot be removed", error)
        finally:
            self._removing = None
        if left and not self._stuck:
            message, why = next(iter(left.items()))
            words = "contents that are of no more use stay on disk, %d of them, as %s: %s"
            log.error(words, len(left), text(message), disk.words(why))
            self._clock.call_later(AGAIN, self._try_again)
        self._stuck.update(left)

    def _try_again(self) -> None:
        stuck, self._stuck = self._stuck, set()
        self.add(stuck)
