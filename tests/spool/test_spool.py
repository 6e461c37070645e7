"""The queue on disk: what a commit holds, what a restart finds."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mta.core.event import Event, Type
from mta.core.model import Line, Message, Recipient
from mta.core.queue.lifecycle import State
from mta.core.queueid import text
from mta.metrics import Metrics
from mta.spool import database
from mta.spool import statements as sql
from mta.spool.bodies import THRESHOLD
from mta.spool.commit import Update
from mta.spool.database import SpoolError
from mta.spool.queue import Spool
from tests.fakes.clock import HandClock

EXPIRES = 1_800_400_000.0


class Lines:
    """Where the drain goes."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.came = asyncio.Event()
        self.broken: OSError | None = None

    async def publish(self, lines: bytes) -> None:
        if self.broken is not None:
            raise self.broken
        self.seen += [json.loads(line)["seq"] for line in lines.splitlines()]
        self.came.set()


@asynccontextmanager
async def opened(
    directory: Path, *, clock: HandClock | None = None, lines: Lines | None = None, mode: str = "live"
) -> AsyncIterator[Spool]:
    """A spool whose writer runs."""
    publish = (lines or Lines()).publish
    spool = Spool(directory, mode, 1_000_000, publish, clock or HandClock(), Metrics())
    await spool.open(300.0)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(spool.run())
            try:
                yield spool
            finally:
                spool.stop()
    finally:
        await spool.close()


LINE = Line("dst.test", 0, "acme")


def message(spool: Spool, *addresses: str) -> Message:
    recipients = [Recipient(n, each, each.partition("@")[2]) for n, each in enumerate(addresses)]
    return Message(
        spool.mint(), "a@src.test", "acme", "bulk", "app", EXPIRES, 5, "<1@x>", 0, recipients, b"body\n", True
    )


async def put(spool: Spool, *addresses: str) -> Message:
    """Own a message, and wait until it is on disk."""
    made = message(spool, *addresses)
    committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(error: Exception | None) -> None:
        if error is None:
            committed.set_result(None)
        else:
            committed.set_exception(error)

    spool.put(made, [Event(type=Type.RECEPTION, recipient=each) for each in addresses], done)
    await committed
    return made


def rows(directory: Path, statement: str) -> list[tuple[object, ...]]:
    """What another process reads."""
    connection = sqlite3.connect(directory / database.FILE)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize("name", sql.HOT)
def test_hot_statements_never_scan_a_table(tmp_path: Path, name: str) -> None:
    connection = database.connect(tmp_path)
    try:
        database.migrate(connection)
        statement = sql.HOT[name]
        named = re.findall(r":(\w+)", statement)
        values = dict.fromkeys(named) if named else [None] * statement.count("?")
        plan = [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    finally:
        connection.close()
    scans = [line for line in plan if line.startswith("SCAN")]
    assert all("json_each" in line or "CONSTANT ROW" in line for line in scans), plan
    if name == "DUE":
        assert any("recipient_due (domain=?" in line for line in plan), plan


async def test_a_message_is_on_disk_when_its_commit_is_told(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        made = await put(spool, "b@dst.test", "c@dst.test")
        found = rows(tmp_path, "SELECT message, n, state, attempts, due FROM recipient")
    assert found == [(made.id, 0, 0, 1, None), (made.id, 1, 0, 1, None)]


async def test_a_message_leaves_with_its_last_recipient_and_its_body_with_the_drain(tmp_path: Path) -> None:
    lines = Lines()
    async with opened(tmp_path, lines=lines) as spool:
        made = await put(spool, "b@one.test", "c@two.test")
        spool.settle(made, [made.recipients[0]], [], [])
        await spool.lease([])
        assert rows(tmp_path, "SELECT count(*) FROM message") == [(1,)]
        spool.settle(made, [made.recipients[1]], [], [Event(type=Type.DELIVERY)])
    assert rows(tmp_path, "SELECT (SELECT count(*) FROM message), (SELECT count(*) FROM body)") == [(0, 0)]
    assert rows(tmp_path, "SELECT count(*) FROM outbox") == [(0,)]
    assert lines.seen == sorted(set(lines.seen))


async def test_what_was_under_way_is_due_after_the_first_wait_and_never_at_once(tmp_path: Path) -> None:
    clock = HandClock()
    async with opened(tmp_path, clock=clock) as spool:
        await put(spool, "b@dst.test")
    async with opened(tmp_path, clock=clock) as spool:
        ((line, due),) = await spool.reader.lines()
        assert line == LINE
        assert clock.now() + 300 <= due + 0.01
        assert due <= clock.now() + 331
        assert await spool.reader.due([(LINE, 10)], clock.now() + 299) == [([], due)]
        (((found,), rest),) = await spool.reader.due([(LINE, 10)], clock.now() + 331)
        assert rest is None
        assert [each.attempts for each in found.recipients] == [1]
        assert await spool.reader.content(found.id) == b"body\n"


async def test_an_attempt_of_long_ago_is_due_now_but_not_before_now(tmp_path: Path) -> None:
    clock = HandClock()
    async with opened(tmp_path, clock=clock) as spool:
        await put(spool, "b@dst.test")
    await clock.advance(86_400)
    async with opened(tmp_path, clock=clock) as spool:
        ((_, due),) = await spool.reader.lines()
    assert clock.now() <= due <= clock.now() + 30


async def test_lines_that_were_not_drained_come_again_with_their_seq(tmp_path: Path) -> None:
    lines = Lines()
    lines.broken = OSError("no event log")
    async with opened(tmp_path, lines=lines) as spool:
        made = await put(spool, "b@dst.test")
        spool.settle(made, made.recipients, [], [Event(type=Type.DELIVERY)])
    assert lines.seen == []
    again = Lines()
    async with opened(tmp_path, lines=again) as spool:
        await again.came.wait()  # at once, with no new mail to push them
        assert again.seen == [1, 2]
        await put(spool, "c@dst.test")
    assert again.seen == [1, 2, 3]


async def test_queue_ids_go_on_when_the_clock_was_set_back_over_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path, clock=HandClock(1_800_000_000.0)) as spool:
        made = await put(spool, "b@dst.test")
        spool.settle(made, made.recipients, [], [Event(type=Type.DELIVERY)])
    async with opened(tmp_path, clock=HandClock(1_700_000_000.0)) as spool:
        assert spool.mint() > made.id


async def test_a_deferred_recipient_waits_with_its_due_time(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        made = await put(spool, "b@dst.test")
        update = Update(State.DEFERRED, 1, 1_800_000_500.0, made.id, 0)
        spool.settle(made, [], [update], [Event(type=Type.DEFERRAL)])
        await spool.lease([])
        assert await spool.reader.due([(LINE, 1)], 1_800_000_499.0) == [([], 1_800_000_500.0)]
        assert (spool.tally.fresh, spool.tally.deferred) == (0, 1)


async def test_only_so_many_outcomes_can_be_unsettled(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        made = await put(spool, *(f"u{n}@dst.test" for n in range(256)))
        room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        spool.on_room = lambda: room.set_result(None)
        spool.settle(made, made.recipients[:255], [], [])
        assert spool.has_room
        spool.settle(made, made.recipients[255:], [], [])
        assert not spool.has_room
        await room
        assert spool.has_room


async def test_outcomes_that_wait_too_long_for_the_disk_stop_the_senders(tmp_path: Path) -> None:
    clock = HandClock()
    async with opened(tmp_path, clock=clock) as spool:
        made = await put(spool, "b@dst.test")
        spool.settle(made, made.recipients, [], [])
        assert spool.has_room
        clock._move(clock.monotonic() + 0.051)
        assert not spool.has_room


async def test_a_full_disk_refuses_the_message_and_keeps_what_was_settled(tmp_path: Path) -> None:
    clock = HandClock()
    async with opened(tmp_path, clock=clock) as spool:
        made = await put(spool, "b@dst.test")
        connection: sqlite3.Connection = spool._writer._conn
        (pages,) = await spool._writer._execute(lambda: connection.execute("PRAGMA page_count").fetchone())
        limit = f"PRAGMA max_page_count = {pages}"
        await spool._writer._execute(lambda: connection.execute(limit).fetchone())
        spool.settle(made, made.recipients, [], [Event(type=Type.DELIVERY)])
        large = message(spool, "c@dst.test")
        large.content = b"x" * (THRESHOLD - 1)
        told: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        spool.put(large, [], told.set_result)
        assert "full" in str(await told)
        assert spool.failing is not None
        await clock.advance(1.0)
        await spool.lease([])
        assert spool.failing is None
        assert rows(tmp_path, "SELECT count(*) FROM message") == [(0,)]
        assert rows(tmp_path, "SELECT count(*) FROM body WHERE message = " + str(large.id)) == [(0,)]


async def test_a_large_content_is_a_file_until_it_is_delivered(tmp_path: Path) -> None:
    content = b"x" * (THRESHOLD - 2) + b"\r\n"
    async with opened(tmp_path) as spool:
        large = message(spool, "b@dst.test")
        large.content = content
        committed: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        spool.put(large, [], committed.set_result)
        assert await committed is None
        assert rows(tmp_path, "SELECT content FROM body") == [(None,)]
        (file,) = (tmp_path / "bodies").iterdir()
        assert file.read_bytes() == content
        assert await spool.reader.content(large.id) == content
        assert await spool.reader.heads([large.id], 3) == {large.id: b"xxx"}
        spool.settle(large, large.recipients, [], [Event(type=Type.DELIVERY)])
    assert list((tmp_path / "bodies").iterdir()) == []


async def test_a_file_that_a_crash_left_without_its_message_is_swept(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        orphan = spool.mint()
    (tmp_path / "bodies" / text(orphan)).write_bytes(b"x")
    (tmp_path / "bodies" / "README").write_bytes(b"an operator's")
    async with opened(tmp_path):
        assert [path.name for path in (tmp_path / "bodies").iterdir()] == ["README"]


async def test_a_file_that_cannot_be_written_refuses_its_message(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        (tmp_path / "bodies").rmdir()
        large = message(spool, "b@dst.test")
        large.content = b"x" * THRESHOLD
        told: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        spool.put(large, [], told.set_result)
        assert isinstance(await told, FileNotFoundError)
        assert rows(tmp_path, "SELECT count(*) FROM message") == [(0,)]


async def test_two_daemons_on_one_spool_are_one_too_many(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(SpoolError, match="in use by another process"):
            async with opened(tmp_path):
                pass


async def test_a_sandbox_spool_never_goes_live(tmp_path: Path) -> None:
    async with opened(tmp_path, mode="sandbox"):
        pass
    with pytest.raises(SpoolError, match="made for sandbox mode and the settings say live"):
        async with opened(tmp_path, mode="live"):
            pass


async def test_a_spool_of_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    connection = database.connect(tmp_path)
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(SpoolError, match="start the newer version again"):
        async with opened(tmp_path):
            pass


async def test_contents_over_the_budget_are_read_from_disk(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        spool._memory_budget = 7
        first, second = await put(spool, "a@dst.test"), await put(spool, "b@dst.test")
        assert (first.content, second.content) == (b"body\n", None)
        spool.release(first)
        assert spool.memory_used == 0


def rights_of_others(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o077 for path in directory.glob("queue.db*")}


async def test_nobody_else_can_read_the_queue_wherever_it_lies(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await put(spool, "a@dst.test")
        assert rights_of_others(tmp_path) == {"queue.db": 0, "queue.db-wal": 0, "queue.db-shm": 0}
