"""What waits on disk, as far as it is known in memory: lines with their due times, and what they wait for.

Between: the settler and the spool tell when lines are due, the gate's answers have them parked; the retries
    take what is due, and hear by `changed` that there may be some.
Contract: times are wall-clock seconds. `look_ahead` reads all lines anew, at the start, where the clock was
    set back, and after a bug over the agenda (`lacks`); what is noted meanwhile is not lost.
Raises: SpoolError from `look_ahead`; a bug of ours from `note`, whose line is found again.
Why: an agenda of lines is all that is held of the backlog, so no event costs time or memory in proportion to
    it; one stuck site costs one look each time its gate says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable

from mta.clock import Clock
from mta.core.limits.order import Share
from mta.core.model import Line
from mta.core.queue.agenda import Agenda
from mta.spool.queue import Spool


class Backlog:
    """The agenda, in use."""

    def __init__(self, spool: Spool, clock: Clock) -> None:
        self._spool = spool
        self._clock = clock
        self._agenda = Agenda()
        self._meanwhile: dict[Line, float] | None = None  # noted while the agenda is made anew
        self.lacks = False  # after a bug the agenda may lack lines
        self.changed = asyncio.Event()  # something may be due sooner

    async def look_ahead(self) -> None:
        """What waits, and until when."""
        meanwhile = self._meanwhile = {}
        try:
            await self._spool.lease([])  # what was noted before is on disk
            agenda = Agenda()
            for line, due in await self._spool.reader.lines():
                agenda.note(line, due)
            for line, due in meanwhile.items():
                agenda.note(line, due)
            self._agenda = agenda
        finally:
            self._meanwhile = None
        self.lacks = False
        self.changed.set()

    def note(self, line: Line, due: float) -> None:
        """The line has mail that is due then."""
        if self._meanwhile is not None:
            self._meanwhile[line] = min(due, self._meanwhile.get(line, due))
        try:
            if self._agenda.note(line, due):
                self.changed.set()
        except Exception:
            self.lacks = True
            self.changed.set()
            raise

    def park(self, lot: Hashable, line: Line, until: float) -> None:
        """The line waits for something there, until then at most."""
        self._agenda.park(lot, line, until)

    def wake(self, lot: Hashable, most: int, may: Callable[[Share], bool] = lambda share: True) -> None:
        """What was waited for there has come, for so many lines, of the shares that may go."""
        if self._agenda.wake(lot, most, self._clock.now(), may):
            self.changed.set()

    def take(self, now: float, most: int) -> list[tuple[Line, float]]:
        """Lines that are due, in the order of service; they leave."""
        return self._agenda.take(now, most)

    async def wait(self, now: float) -> None:
        """Until something is due, or may be."""
        due = self._agenda.next()
        if due is None:
            await self.changed.wait()
            return
        alarm = self._clock.call_later(max(due - now, 0.0), self.changed.set)
        await self.changed.wait()
        alarm.cancel()
