"""The spool: what we own until it is delivered or given up.

Between: admission puts messages in, outcome settles recipients, the retries lease and read.
Contract: `put`, `settle`, `lease` and `report` only note (`spool.notes`); `run` commits what is noted, and
    calls back. Reads are coroutines on a connection of their own. Times are wall-clock seconds.
Raises: SpoolError at `open`; a commit that fails reaches each `done`, and what it settled stays noted. What
    no disk would take (a bug of ours) costs the message that it is about: the rest of its group is committed.
Standards: RFC 5321 6.1 (a 250 after the dot is a promise).
Why: one writer and group commit; the attempt is recorded with the message itself, so a crash loop
    cannot hammer a peer, and first attempts need no second write. What is on disk wherever we are stopped
    stands in `spool.crash`: read it before the order of writes changes.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

from mta import disk
from mta.clock import Clock
from mta.core.event import Event
from mta.core.model import Line, Message
from mta.core.queueid import QueueIds, text
from mta.metrics import Metrics
from mta.spool import database
from mta.spool.bodies import Bodies
from mta.spool.commit import Done, Group, Put, Result, Unwritable, commit, defer
from mta.spool.leftovers import Leftovers
from mta.spool.notes import Notes
from mta.spool.outbox import RETRY_AFTER_FAILURE, Outbox
from mta.spool.reader import Reader
from mta.spool.recovery import recover
from mta.spool.slack import Slack, octets
from mta.spool.tally import Tally
from mta.spool.wal import Wal

TURNS = 8  # of the event loop before a commit
ASIDE = 1024 * 1024  # octets; a content from there on is on disk before its commit begins
LARGE_AT_ONCE = 2  # such contents; more would only make the small ones wait for the disk
UNWRITABLE_WAIT = 3600.0  # seconds until mail whose outcome could not be written is tried again

T = TypeVar("T")

log = logging.getLogger(__name__)


class Spool(Notes):
    """One directory, one writer."""

    def __init__(
        self,
        directory: Path,
        mode: str,
        memory: int,
        publish: Callable[[bytes], Awaitable[None]],
        clock: Clock,
        metrics: Metrics,
        instance: int = 0,
    ) -> None:
        self._place = disk.Place(directory / database.FILE)
        self._bodies = Bodies(directory / "bodies")
        outbox = Outbox(publish, self._place, clock, self._forget)
        super().__init__(Reader(self._bodies), outbox, clock, metrics)
        self._instance = instance
        self._directory = directory
        self._mode = mode
        self._memory_budget = memory
        self._memory_used = 0
        self.tally = Tally()
        self._wal = Wal(self._place, clock)
        self.slack = Slack(self._with_writer, lambda: bool(self._group) or self._closing, clock, metrics)
        self._leftovers = Leftovers(self._bodies, clock, metrics)
        self._next_seq = 1
        self._again = asyncio.Event()  # a commit that failed may be tried again
        self._closing = False
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)
        self._writing = 0  # large contents on their way to the disk
        self.on_room: Callable[[], None] = lambda: None  # outcomes may be noted again
        self.on_due: Callable[[Line, float], None] = lambda line, due: None  # mail waits that nobody noted

    # Opening and closing

    async def open(self, first_retry: float) -> None:
        """Take the lock, bring the schema up, recover what was under way."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = database.take_lock(self._directory)
        except OSError as error:
            raise database.SpoolError(f"the spool cannot be used: {disk.words(error)}") from error
        try:
            await asyncio.to_thread(disk.rewrite, self._directory / f"{database.FILE}-wal")
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
                raise database.SpoolError(f"{where}: {disk.words(error)}") from error
            if isinstance(error, OSError):
                raise database.SpoolError(f"the spool cannot be used: {disk.words(error)}") from error
            raise

    def _prepare(self, first_retry: float) -> None:
        """In the writer's thread: what was there before."""
        connection = self._writer._conn
        found = recover(connection, self._directory, self._mode, self._bodies, self._clock, first_retry)
        self._place.note()
        self.slack.octets = octets(connection)
        self._outbox.found(found.outbox)
        self._next_seq = found.next_seq
        self._ids = QueueIds(found.last_id, self._instance)
        self.tally.found(found.recipients, found.held)

    async def stamp(self, name: str, value: str) -> str | None:
        """Keep a value beside the mail, before `run`; what it was before, None where there was none."""
        try:
            return await self._with_writer(partial(database.stamp, name=name, value=value))
        except sqlite3.Error as error:
            raise database.SpoolError(f"the spool cannot be used: {disk.words(error)}") from error

    async def close(self) -> None:
        """Give the files back. What is noted has been committed by `run`'s end."""
        await self.reader.close()
        await self._writer.close()
        os.close(self._lock)

    def put(self, message: Message, events: list[Event], done: Done) -> None:
        assert message.content is not None
        if self._is_shut(message):
            shut = OSError(errno.EIO, "the spool takes no new mail")  # `complaints` say why
            self._clock.call_later(RETRY_AFTER_FAILURE, partial(self._safely, done, shut))
        elif len(message.content) < ASIDE:
            self._put(Put(message, message.content, events, done))
        else:
            self._writing += 1
            self._tasks.create_task(self._put_large(message, events, done))

    async def _put_large(self, message: Message, events: list[Event], done: Done) -> None:
        """To write and sync it takes its time, in which the others' commits go on."""
        content = message.content
        assert content is not None
        try:
            async with self._large:
                await asyncio.to_thread(self._bodies.write, [(message.id, content)])
        except Exception as error:
            self._safely(done, error)
        else:
            self._put(Put(message, content, events, done, written=True))
        finally:
            self._writing -= 1
            self._wake.set()

    # What there is

    def usage(self, tenant: str) -> tuple[int, int]:
        """The messages that wait for this tenant, and their octets."""
        return self.tally.of(tenant)

    @property
    def complaints(self) -> list[str]:
        """What is wrong with the disk, for the operator."""
        found = {
            "the spool cannot write": self.failing,
            "the spool is damaged": self.reader.damaged,
            "the event log cannot be written": self._outbox.failing,
            "the WAL of the spool only grows": self._wal.stuck,
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
            self.slack.start(tasks)
            self._leftovers.start(tasks)
            draining = tasks.create_task(self._outbox.run())
            while not self._closing or self._group or self._writing:
                if not self._group and self.failing is None:
                    await self._wake.wait()
                    self._wake.clear()
                elif not await self._commit_group():
                    if self._closing:
                        break  # what was settled stays as it is on disk
                    self._clock.call_later(RETRY_AFTER_FAILURE, self._again.set)
                    await self._again.wait()
                    self._again.clear()
            await draining
            await self._outbox.drain()
            if self._group:
                await self._commit_group()
            if self._unsettled:
                log.error("outcomes that could not be written: %d; that mail is sent again", self._unsettled)

    def stop(self) -> None:
        """Let `run` come to its end."""
        self._closing = True
        self.slack.stop()
        self._wake.set()
        self._again.set()
        self._outbox.stop()

    async def _commit_group(self) -> bool:
        # What is ready on the sockets joins. No timer: an idle loop turns eight times in 0.1 ms. With 20
        # busy clients this takes eight of nine context switches and a quarter of the CPU away.
        for _ in range(TURNS):
            await asyncio.sleep(0)
        group, self._group = self._group, Group()
        if self.failing is not None:
            group.proof = self.mint()
        self._committing_since = group.since
        started = self._clock.monotonic()
        try:
            result = await asyncio.shield(self._in_thread(group))
        except Exception as error:
            if disk.is_of_the_data(error):
                return await self._commit_apart(group)
            self._refuse(group, error)
            return False
        finally:
            self._committing_since = math.inf
        self._metrics.commit_seconds.observe(self._clock.monotonic() - started)
        self._metrics.commit_batch.observe(len(group.puts) + group.outcomes)
        self._committed(group, result)
        if self._wal.is_suspect:
            await self._wal.look(self._writer)
        return True

    async def _commit_apart(self, group: Group) -> bool:
        """Something in it can never be written: halves, until that stands alone and the rest is on disk."""
        whole = Group(waiters=group.waiters, outcomes=group.outcomes, fresh=group.fresh, since=group.since)
        halves = [group.parts()]
        while halves:
            half = halves.pop()
            joined = Group()
            for part in half:
                joined.join(part)
            try:
                result = await asyncio.shield(self._in_thread(joined))
            except Exception as error:
                if not disk.is_of_the_data(error):
                    for part in (part for half in reversed(halves) for part in half):
                        joined.join(part)
                    joined.join(whole)
                    self._refuse(joined, error)
                    return False
                if len(half) > 1:
                    middle = len(half) // 2
                    halves += [half[middle:], half[:middle]]
                    continue
                try:
                    await self._give_up(joined, error)
                except Exception as again:
                    self._bug(again)
            else:
                self._committed(joined, result)
        self._committed(whole, Result(None, [], 0, []))
        return True

    async def _give_up(self, part: Group, error: Exception) -> None:
        """This one thing cannot be written: it is told, whoever brought it hears so, its mail waits."""
        shown = ", ".join(map(_shown, part.messages)) or "no message"
        self._metrics.bug("spool", f"what was noted of {shown} cannot be written", error)
        self._leftovers.add(put.message.id for put in part.puts if put.written)
        for put in part.puts:
            self._safely(put.done, Unwritable(f"{shown} cannot be written: {error!r}"))
        if part.events and not part.puts:  # what became of the mail counts without its event
            part = replace(part, events=[])
            with suppress(Exception):
                result = await asyncio.shield(self._in_thread(part))
                self._safely(self._committed, part, result)
                return
        due = self._clock.now() + UNWRITABLE_WAIT
        for line in await asyncio.shield(self._with_writer(partial(defer, part=part, due=due))):
            self.on_due(line, due)

    def _committed(self, group: Group, result: Result) -> None:
        """The group is on disk: keep the books, and tell who waits."""
        if self.failing is not None:
            log.info("the spool can be written again")
            self.failing = None
        self.slack.is_quiet = False
        if result.committed is not None:
            self._next_seq = result.committed.next_seq
            self._outbox.add(result.committed)
        self._unsettled -= group.outcomes
        self._safely(self.tally.went, group.fresh, result.gone, result.left)
        self.tally.came([put.message for put in group.puts])
        for put in group.puts:
            self._keep(put.message)
            self._safely(put.done, None)
        for waiter in group.waiters:
            self._safely(waiter, None)
        if result.files:
            self._leftovers.add(result.files)
        if group.outcomes:
            self._safely(self.on_room)

    def _bug(self, error: Exception) -> None:
        self._metrics.bug("spool", "a bug in the spool", error)

    async def _in_thread(self, group: Group) -> Result:
        def write() -> Result:
            self._place.check()
            return commit(self._writer._conn, self._bodies, group, self._next_seq)

        return await self._run_in_thread(write)

    async def _with_writer(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._run_in_thread(partial(work, self._writer._conn))

    async def _run_in_thread(self, work: Callable[[], T]) -> T:
        return cast(T, await self._writer._execute(work))  # type: ignore[no-untyped-call]

    def _keep(self, message: Message) -> None:
        assert message.content is not None
        message.metadata = ""  # whoever wants it finds it on disk: it is no part of the budget
        size = len(message.content)
        used = self._memory_used + size
        # Larger ones, and what is signed as its transaction begins, are made ready in a thread.
        if used <= self._memory_budget and size < ASIDE and message.credential:
            self._memory_used = used
        else:
            message.content = None

    def _refuse(self, group: Group, error: Exception) -> None:
        """A commit failed: refuse what is new, keep what was settled for the next try."""
        said = disk.words(error)
        if said != self.failing:  # it is tried again every second, and told once
            log.error("the spool cannot write: %s; new mail is refused until it can", said)
        self.failing = said
        if disk.is_damage(error):
            self.reader.damaged = said
        self._take_back(group)
        if not disk.may_be_committed(error):
            self._leftovers.add(put.message.id for put in group.puts if put.written)
        for put in group.puts:
            self._safely(put.done, error)
        for waiter in group.waiters:
            self._safely(waiter, error)


def _shown(message: int) -> str:
    """A queue id, whatever it is."""
    return text(message) if 0 <= message < 1 << 63 else str(message)
