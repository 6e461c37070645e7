"""The spool: what we own until it is delivered or given up.

Between: admission puts messages in, outcome settles recipients, the scheduler leases and reads.
Contract: `put`, `settle`, `lease` and `report` only note what the next commit holds and return at once;
    the commit calls back. Reads are coroutines on a connection of their own. Times are wall-clock seconds.
Raises: SpoolError at `open`; a commit that fails reaches each `done`, and what it settled stays noted.
Standards: RFC 5321 6.1 (a 250 after the dot is a promise).
Why: one writer and group commit; the attempt is recorded with the message itself, so a crash loop
    cannot hammer a peer, and first attempts need no second write. What is on disk wherever we are stopped,
    and what the next start makes of it, stands in `spool.crash`: read it before the order of writes changes.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import math
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import cast

from mta.clock import Clock
from mta.core.adaptive import Saved
from mta.core.event import Event
from mta.core.lifecycle import Cause, State, move
from mta.core.model import Message, Recipient
from mta.core.queueid import QueueIds, first_id
from mta.metrics import Metrics
from mta.spool import database, fault
from mta.spool import statements as sql
from mta.spool.backup import keep_former
from mta.spool.bodies import Bodies
from mta.spool.commit import Batch, Committed, Done, Drained, Put, Result, Times, Update, commit
from mta.spool.reader import Reader
from mta.spool.tally import Tally

MAX_UNSETTLED = 256  # outcomes that a crash may repeat
MAX_UNSETTLED_TIME = 0.05  # seconds
TURNS = 8  # of the event loop before a commit
DRAIN_INTERVAL = 0.25  # seconds between syncs of the event log
DRAIN_BYTES = 1024 * 1024
MAX_UNDRAINED = 64 * 1024 * 1024  # octets that the event log does not take; then no mail comes in
WAL_LIMIT = 256 * 1024 * 1024  # octets; eight times the size at which SQLite moves it to the database
REMEMBERED = 30 * 86400.0  # seconds that a path's limits are of any use
RETRY_AFTER_FAILURE = 1.0  # seconds until a commit that failed is tried again
LOOK_INTERVAL = 60.0  # seconds between two looks at a WAL that is too large

log = logging.getLogger(__name__)


class Spool:
    """One directory, one writer."""

    def __init__(
        self,
        directory: Path,
        mode: str,
        memory: int,
        publish: Callable[[bytes], Awaitable[None]],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._directory = directory
        self._mode = mode
        self._publish = publish
        self._clock = clock
        self._metrics = metrics
        self._memory_budget = memory
        self._memory_used = 0
        self._bodies = Bodies(directory / "bodies")
        self.reader = Reader(self._bodies)
        self.tally = Tally()
        self._batch = Batch()
        self._wake = asyncio.Event()
        self._again = asyncio.Event()  # a commit that failed may be tried again
        self._drain_wake = asyncio.Event()
        self._undrained: list[Committed] = []
        self._undrained_bytes = 0
        self._next_seq = 1
        self._ids = QueueIds(0)
        self._unsettled = 0
        self._committing_since = math.inf  # monotonic; the oldest outcome of the commit under way
        self._closing = False
        self._place = fault.Place(directory / database.FILE)
        self.failing: str | None = None  # why the last commit failed
        self._log_failing: str | None = None  # why the event log did not take its lines
        self._stuck: str | None = None  # why the WAL only grows
        self._look_again = 0.0  # monotonic; before that nobody looks at the WAL
        self.on_room: Callable[[], None] = lambda: None  # outcomes may be noted again

    # Opening and closing

    async def open(self, first_retry: float) -> None:
        """Take the lock, bring the schema up, recover what was under way."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = database.take_lock(self._directory)
        except OSError as error:
            raise database.SpoolError(f"the spool cannot be used: {fault.words(error)}") from error
        try:
            await asyncio.to_thread(fault.rewrite, self._directory / f"{database.FILE}-wal")
            self._writer = await database.in_thread(partial(database.connect, self._directory))
            try:
                await self._writer._execute(self._prepare, first_retry)  # type: ignore[no-untyped-call]
                await self.reader.open(self._directory)
            except BaseException:
                await self._writer.close()
                raise
        except BaseException as error:
            os.close(self._lock)
            if isinstance(error, sqlite3.Error):
                where = self._directory / database.FILE
                raise database.SpoolError(f"{where}: {fault.words(error)}") from error
            if isinstance(error, OSError):
                raise database.SpoolError(f"the spool cannot be used: {fault.words(error)}") from error
            raise

    def _prepare(self, first_retry: float) -> None:
        """In the writer's thread: schema, mode, counters, recovery."""
        connection = self._writer._conn
        former = keep_former(self._directory, connection)
        if former is not None:
            log.warning("this version changes the spool; as it was before it is kept in %s", former)
        database.migrate(connection)
        database.claim_mode(connection, self._mode)
        self._undrained = [
            Committed(seq, seq + max(lines.count(b"\n"), 1), lines, json.loads(finished))
            for seq, lines, finished in connection.execute(sql.OUTBOX)
        ]
        self._undrained_bytes = sum(len(row.lines) for row in self._undrained)
        meta = {name: self._meta(connection, name) for name in ("next_seq", "last_id")}
        self._next_seq = max([meta["next_seq"], 1, *(row.next_seq for row in self._undrained)])
        (last,) = connection.execute(sql.LAST_MESSAGE).fetchone()
        finished = [id for row in self._undrained for id in row.finished]
        self._ids = QueueIds(max([meta["last_id"], last or 0, *finished]))
        files = {message for (message,) in connection.execute(sql.ALL_FILES)}
        orphans = self._bodies.sweep(files)
        if orphans:
            log.info("removed %d contents that a crash had left without their message", orphans)
        state = int(move(State.FRESH, Cause.RECOVER))
        recovered = (state, self._clock.now(), first_retry, first_retry / 10)
        connection.execute(sql.RECOVER, recovered)
        connection.execute(sql.UNLEARN, (self._clock.now() - REMEMBERED,))
        self._place.note()
        (recipients,) = connection.execute(sql.RECIPIENTS).fetchone()
        self.tally.found(recipients, connection.execute(sql.HELD))

    @staticmethod
    def _meta(connection: sqlite3.Connection, name: str) -> int:
        row = connection.execute(sql.GET_META, (name,)).fetchone()
        return int(row[0]) if row else 0

    async def close(self) -> None:
        """Give the files back. What is noted has been committed by `run`'s end."""
        await self.reader.close()
        await self._writer.close()
        os.close(self._lock)

    # What the next commit holds

    def mint(self) -> int:
        """A new queue id."""
        return self._ids.mint(self._clock.now())

    def put(self, message: Message, events: list[Event], done: Done) -> None:
        """Own a message; `done(None)` is called when it is on disk, `done(error)` when it cannot be."""
        message.fresh = message.release is None
        # A notice belongs to the outcomes that it tells of, and shares their commit.
        if message.sender and (self.reader.damaged is not None or self._undrained_bytes >= MAX_UNDRAINED):
            shut = OSError(errno.EIO, "the spool takes no new mail")  # `complaints` say why
            self._clock.call_later(RETRY_AFTER_FAILURE, partial(self._tell, done, shut))
            return
        self._batch.puts.append(Put(message, events, done))
        self._wake.set()

    def settle(
        self, message: Message, done: list[Recipient], updates: list[Update], events: Iterable[Event]
    ) -> None:
        """Note outcomes: recipients that are final, and the next attempts of others."""
        batch = self._batch
        if message.whole and len(done) == len(message.recipients):
            batch.whole.append(message.id)
        else:
            message.whole = False
            batch.done.extend((message.id, recipient.n) for recipient in done)
        batch.updates.extend(updates)
        batch.events.extend(events)
        if not batch.outcomes:
            batch.since = self._clock.monotonic()
        count = len(done) + len(updates)
        batch.outcomes += count
        if message.fresh:
            batch.fresh += count
        self._unsettled += count
        self._wake.set()

    def report(self, events: Iterable[Event]) -> None:
        """Note events that change no recipient; while the disk refuses, they are only counted."""
        if self.failing is not None or self._undrained_bytes >= MAX_UNDRAINED:
            return
        self._batch.events.extend(events)
        self._wake.set()

    def learn(self, learned: Mapping[str, Saved]) -> None:
        """Note what paths have learned, by name."""
        self._batch.learned |= learned
        self._wake.set()

    def lease(self, updates: list[Update]) -> asyncio.Future[None]:
        """Note attempts that are about to begin; the future is done when they are on disk."""
        self._batch.updates.extend(updates)
        return self._awaited()

    def prolong(self, before: float, seconds: float) -> asyncio.Future[None]:
        """Messages from before a time live so much longer."""
        self._batch.times.append(Times(sql.PROLONG, (seconds, first_id(before))))
        return self._awaited()

    def bring_forward(self, now: float, longest: float) -> asyncio.Future[None]:
        """No retry waits longer than this many seconds."""
        self._batch.times.append(Times(sql.BRING_FORWARD, {"now": now, "longest": longest}))
        return self._awaited()

    def _awaited(self) -> asyncio.Future[None]:
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._batch.waiters.append(partial(_resolve, committed))
        self._wake.set()
        return committed

    @property
    def has_room(self) -> bool:
        """False while as many outcomes are unsettled as a crash may repeat."""
        if self._undrained_bytes >= MAX_UNDRAINED:
            return False
        if not self._unsettled:
            return True
        oldest = min(self._committing_since, self._batch.since)
        return self._unsettled < MAX_UNSETTLED and self._clock.monotonic() - oldest < MAX_UNSETTLED_TIME

    def usage(self, tenant: str) -> tuple[int, int]:
        """The messages that wait for this tenant, and their octets."""
        return self.tally.of(tenant)

    @property
    def complaints(self) -> list[str]:
        """What is wrong with the disk, for the operator."""
        found = {
            "the spool cannot write": self.failing,
            "the spool is damaged": self.reader.damaged,
            "the event log cannot be written": self._log_failing,
            "the WAL of the spool only grows": self._stuck,
        }
        return [f"{what}: {why}" for what, why in found.items() if why is not None]

    # Contents in memory

    def release(self, message: Message) -> None:
        """The message leaves memory: its content is only on disk from now on."""
        if message.content is not None:
            self._memory_used -= len(message.content)
            message.content = None

    @property
    def memory_used(self) -> int:
        """Octets of contents that wait in memory for their first attempt."""
        return self._memory_used

    # The writer

    async def run(self) -> None:
        """Commit what is noted until `stop`; the last commit and the last drain are done then."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            if self._undrained:
                self._drain_wake.set()  # what a crash left in the outbox
            draining = tasks.create_task(self._drain_until_stopped())
            while not self._closing or self._batch:
                if not self._batch and self.failing is None:
                    await self._wake.wait()
                    self._wake.clear()
                elif not await self._commit_batch():
                    if self._closing:
                        break  # what was settled stays as it is on disk
                    self._clock.call_later(RETRY_AFTER_FAILURE, self._again.set)
                    await self._again.wait()
                    self._again.clear()
            await draining  # a drain may be under way: two at once would not end in the order of their rows
            await self._drain()
            if self._batch:
                await self._commit_batch()
            if self._unsettled:
                log.error("outcomes that could not be written: %d; that mail is sent again", self._unsettled)

    def stop(self) -> None:
        """Let `run` come to its end."""
        self._closing = True
        self._wake.set()
        self._again.set()
        self._drain_wake.set()

    async def _commit_batch(self) -> bool:
        # What is ready on the sockets joins. No timer: an idle loop turns eight times in 0.1 ms. With 20
        # busy clients this takes eight of nine context switches and a quarter of the CPU away.
        for _ in range(TURNS):
            await asyncio.sleep(0)
        batch, self._batch = self._batch, Batch()
        if self.failing is not None:
            batch.proof = self.mint()
        self._committing_since = batch.since
        started = self._clock.monotonic()
        try:
            result = await asyncio.shield(self._in_thread(batch))
        except (sqlite3.Error, OSError) as error:
            self._refuse(batch, error)
            return False
        finally:
            self._committing_since = math.inf
        if self.failing is not None:
            log.info("the spool can be written again")
            self.failing = None
        if result.files:
            self._tasks.create_task(asyncio.to_thread(self._bodies.remove, result.files))
        self._metrics.commit_seconds.observe(self._clock.monotonic() - started)
        self._metrics.commit_batch.observe(len(batch.puts) + batch.outcomes)
        if result.committed is not None:
            self._report(result.committed)
        self._unsettled -= batch.outcomes
        self.tally.went(batch.fresh, result.gone, result.left)
        for put in batch.puts:
            self.tally.came(put.message)
            self._keep(put.message)
            self._tell(put.done, None)
        for waiter in batch.waiters:
            self._tell(waiter, None)
        if batch.outcomes:
            self.on_room()
        if self._place.wal_size > WAL_LIMIT or self._stuck is not None:
            await self._look_at_wal()
        return True

    async def _look_at_wal(self) -> None:
        """Say so where it only grows: SQLite keeps silent when a checkpoint of its own fails."""
        if self._clock.monotonic() < self._look_again:
            return
        self._look_again = self._clock.monotonic() + LOOK_INTERVAL
        stuck = None
        try:
            if self._place.wal_size > WAL_LIMIT:
                await self._writer._execute(database.checkpoint, self._writer._conn)  # type: ignore[no-untyped-call]
        except sqlite3.Error as error:
            stuck = fault.words(error)
            log.error("the WAL of the spool only grows: %s", stuck)
        self._stuck = stuck

    def _tell(self, done: Done, error: Exception | None) -> None:
        """A bug in one listener must not take the writer from all others."""
        try:
            done(error)
        except Exception as bug:
            self._metrics.bugs["spool"].inc()
            log.error("a bug after a commit", exc_info=bug)

    async def _in_thread(self, batch: Batch) -> Result:
        def write() -> Result:
            self._place.check()
            return commit(self._writer._conn, self._bodies, batch, self._next_seq)

        return cast(Result, await self._writer._execute(write))  # type: ignore[no-untyped-call]

    def _keep(self, message: Message) -> None:
        assert message.content is not None
        if self._memory_used + len(message.content) <= self._memory_budget:
            self._memory_used += len(message.content)
        else:
            message.content = None

    def _refuse(self, batch: Batch, error: Exception) -> None:
        """A commit failed: refuse what is new, keep what was settled for the next try."""
        said = fault.words(error)
        if said != self.failing:  # it is tried again every second, and told once
            log.error("the spool cannot write: %s; new mail is refused until it can", said)
        self.failing = said
        if fault.is_damage(error):
            self.reader.damaged = said
        later = self._batch
        self._batch = Batch(
            puts=later.puts,
            whole=batch.whole + later.whole,
            done=batch.done + later.done,
            updates=batch.updates + later.updates,
            events=batch.events + later.events,
            times=batch.times + later.times,
            learned=batch.learned | later.learned,
            drained=_join(batch.drained, later.drained),
            waiters=later.waiters,
            outcomes=batch.outcomes + later.outcomes,
            fresh=batch.fresh + later.fresh,
            since=min(batch.since, later.since),
        )
        for put in batch.puts:
            self._tell(put.done, error)
        for waiter in batch.waiters:
            self._tell(waiter, error)

    # The drain

    def _report(self, committed: Committed) -> None:
        """The outbox has a row more: it is drained soon, or now if it has grown."""
        self._next_seq = committed.next_seq
        if not self._undrained:
            self._clock.call_later(DRAIN_INTERVAL, self._drain_wake.set)
        self._undrained.append(committed)
        self._undrained_bytes += len(committed.lines)
        if self._undrained_bytes >= DRAIN_BYTES and self._log_failing is None:
            self._drain_wake.set()

    async def _drain_until_stopped(self) -> None:
        while not self._closing:
            await self._drain_wake.wait()
            self._drain_wake.clear()
            await self._drain()

    async def _drain(self) -> None:
        rows, self._undrained = self._undrained, []
        if not rows:
            return
        lines = b"".join(row.lines for row in rows)
        try:
            self._place.check()  # the log may lie in the same directory, and would make it anew
            await self._publish(lines)
        except OSError as error:
            said = fault.words(error)
            if said != self._log_failing:
                log.error("the event log cannot be written: %s; its lines stay in the spool", said)
            self._log_failing = said
            self._undrained = rows + self._undrained
            self._clock.call_later(RETRY_AFTER_FAILURE, self._drain_wake.set)
            return
        if self._log_failing is not None:
            log.info("the event log can be written again")
            self._log_failing = None
        self._undrained_bytes -= len(lines)
        finished = [message for row in rows for message in row.finished]
        drained = Drained(rows[-1].seq, rows[-1].next_seq, self._ids.last, finished)
        self._batch.drained = _join(self._batch.drained, drained)
        self._wake.set()


def _join(first: Drained | None, second: Drained | None) -> Drained | None:
    if first is None or second is None:
        return second or first
    return second._replace(finished=first.finished + second.finished)


def _resolve(committed: asyncio.Future[None], error: Exception | None) -> None:
    if committed.done():
        return
    if error is None:
        committed.set_result(None)
    else:
        committed.set_exception(error)
