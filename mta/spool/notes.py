"""What the next commit will hold: everybody's notes, while the last commit is being written.

Between: `spool.queue` is one of these, takes the group when it commits, and says how that went.
Contract: each call only notes and returns at once; the commit calls back. Times are wall-clock seconds.
    While `has_room` is False no attempt should begin: a crash may repeat so many outcomes and no more.
Raises: nothing; what cannot be written reaches each `done` and each future as an exception.
Why: nobody waits for a disk here, so outcomes of many messages share one sync.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial

from mta import disk
from mta.clock import Clock
from mta.core.event import Event
from mta.core.limits.adaptive import Saved
from mta.core.model import Message, Recipient
from mta.core.queueid import QueueIds, first_id
from mta.metrics import Metrics
from mta.spool import statements as sql
from mta.spool.commit import Committed, Done, Drained, Group, Put, Times, Update
from mta.spool.database import SpoolError
from mta.spool.outbox import RETRY_AFTER_FAILURE, Outbox
from mta.spool.reader import Reader

MAX_UNSETTLED = 256  # outcomes that a crash may repeat
MAX_UNSETTLED_TIME = 0.05  # seconds
SLICE = 300  # messages whose times are changed in one commit, of some 10 ms

log = logging.getLogger(__name__)


class Notes:
    """The group that forms."""

    def __init__(self, reader: Reader, outbox: Outbox, clock: Clock, metrics: Metrics) -> None:
        self.reader = reader
        self._outbox = outbox
        self._clock = clock
        self._metrics = metrics
        self._group = Group()
        self._wake = asyncio.Event()
        self._ids = QueueIds(0)
        self._unsettled = 0
        self._committing_since = math.inf  # monotonic; the oldest outcome of the commit under way
        self.received = 0  # octets of contents, since whoever watches the disk looked
        self.failing: str | None = None  # why the last commit failed

    def mint(self) -> int:
        """A new queue id."""
        return self._ids.mint(self._clock.now())

    def put(self, message: Message, events: list[Event], done: Done) -> None:
        """Own a message; `done(None)` is called when it is on disk, `done(error)` when it cannot be."""
        raise NotImplementedError

    def _is_shut(self, message: Message) -> bool:
        """No new mail is taken; a notice of ours belongs to the outcomes that it tells of."""
        return bool(message.credential) and (self.reader.damaged is not None or self._outbox.is_full)

    def _put(self, put: Put) -> None:
        message = put.message
        message.fresh = message.release is None
        self.received += message.size
        self._group.puts.append(put)
        self._wake.set()

    def settle(
        self, message: Message, done: list[Recipient], updates: list[Update], events: Iterable[Event]
    ) -> None:
        """Note outcomes: recipients that are final, and the next attempts of others."""
        group = self._group
        if message.whole and len(done) == len(message.recipients):
            group.whole.append(message.id)
        else:
            message.whole = False
            group.done.extend((message.id, recipient.n) for recipient in done)
        if updates:
            group.updates.extend(updates)
        group.events.extend(events)
        if not group.outcomes:
            group.since = self._clock.monotonic()
        count = len(done) + len(updates)
        group.outcomes += count
        if message.fresh:
            group.fresh += count
        self._unsettled += count
        self._wake.set()

    def report(self, events: Iterable[Event]) -> None:
        """Note events that change no recipient; while the disk refuses, they are not kept."""
        if self.failing is not None or self._outbox.is_full:
            return
        self._group.events.extend(events)
        self._wake.set()

    def learn(self, learned: Mapping[str, Saved | None]) -> None:
        """Note what branches have learned, by name; None where one is forgotten."""
        self._group.learned |= learned
        self._wake.set()

    def lease(self, updates: list[Update]) -> asyncio.Future[None]:
        """Note attempts that are about to begin; the future is done when they are on disk."""
        self._group.updates.extend(updates)
        return self._awaited()

    async def prolong(self, before: float, seconds: float) -> None:
        """Messages from before a time live so much longer, each once: a slice that fails is tried again."""
        after, end = 0, first_id(before)
        while True:
            try:
                if not after:
                    await self._awaited()  # what was noted before is on disk, where we look
                upto = await self.reader.slice(after, end, SLICE)
                if upto is None:
                    return
                await self._move(Times(sql.PROLONG, (seconds, after, upto)))
                after = upto
            except (sqlite3.Error, OSError, SpoolError) as error:
                log.error("the times of the queue cannot be changed yet: %s", disk.words(error))
                await self._clock.sleep(RETRY_AFTER_FAILURE)

    async def bring_forward(self, now: float, longest: float) -> None:
        """No retry waits longer than this many seconds; whoever sees this fail may call it again."""
        values: dict[str, float] = {"now": now, "longest": longest, "after": 0, "upto": 0}
        while True:  # with the first slice, an empty one, what was noted before is on disk, where we look
            await self._move(Times(sql.BRING_FORWARD, values.copy()))
            values["after"] = values["upto"]
            upto = await self.reader.too_far(values, SLICE)
            if upto is None:
                return
            values["upto"] = upto

    def _move(self, times: Times) -> asyncio.Future[None]:
        """A slice is a commit of its own, so that what comes meanwhile gets in between."""
        self._group.times.append(times)
        return self._awaited()

    def _awaited(self) -> asyncio.Future[None]:
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._group.waiters.append(partial(_resolve, committed))
        self._wake.set()
        return committed

    @property
    def has_room(self) -> bool:
        """False while as many outcomes are unsettled as a crash may repeat."""
        if self._outbox.is_full:
            return False
        if not self._unsettled:
            return True
        oldest = min(self._committing_since, self._group.since)
        return self._unsettled < MAX_UNSETTLED and self._clock.monotonic() - oldest < MAX_UNSETTLED_TIME

    def _forget(self, rows: list[Committed]) -> None:
        """The event log has these rows of the outbox: the next commit removes them."""
        finished = [message for row in rows for message in row.finished]
        drained = Drained(rows[-1].seq, rows[-1].next_seq, self._ids.last, finished)
        self._group.join(Group(drained=drained))
        self._wake.set()

    def _take_back(self, failed: Group) -> None:
        """What was settled in a group that failed comes ahead of what has been noted since."""
        # Who waits for times that were not moved asks again.
        later, self._group = self._group, replace(failed, puts=[], times=[], waiters=[], proof=0)
        self._group.join(later)

    def _safely(self, work: Callable[..., object], *values: object) -> None:
        """A bug in one listener must not take the writer from all others."""
        try:
            work(*values)
        except Exception as bug:
            self._metrics.bug("spool", "a bug after a commit", bug)


def _resolve(committed: asyncio.Future[None], error: Exception | None) -> None:
    if committed.done():
        return
    if error is None:
        committed.set_result(None)
    else:
        committed.set_exception(error)
