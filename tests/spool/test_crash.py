"""A daemon is killed at every row of the crash table, and some more at random: nothing acknowledged is lost.

`make crash RUNS=n` makes n random runs (tests/crash).
"""

from __future__ import annotations

import asyncio
import errno
import json
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mta.api.control import call
from mta.core.event import Event, Type
from mta.core.model import Message
from mta.metrics import Metrics
from mta.spool import crash as table
from mta.spool import database, statements
from mta.spool.bodies import Bodies
from mta.spool.queue import Spool
from mta.spool.reader import Reader
from tests.crash.__main__ import FIRST, MAXIMUM, OFF, bring_to_the_end, run
from tests.crash.books import Books
from tests.crash.mail import SIZES, Mail
from tests.fakes.clock import HandClock
from tests.fakes.doomed import CHECKPOINT_AT, POINTS
from tests.fakes.home import PATIENCE, Home, Nursery

RUNS = 6
LARGE = SIZES[-1]
FIRST_RETRY = 300.0  # seconds; the default
JITTER = 30.0  # seconds


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("template"))
    home.prepare(FIRST, MAXIMUM)
    return home


@dataclass(slots=True)
class Disk:
    """What a kill has left."""

    recipients: list[tuple[Message, float | None]] = field(default_factory=list)  # each with its due time
    files: set[str] = field(default_factory=set)
    outbox: int = 0  # rows
    log: bytes = b""

    @property
    def fresh(self) -> int:
        return sum(1 for message, due in self.recipients if due is None and _attempts(message) == 1)


def _attempts(message: Message) -> int:
    return message.recipients[0].attempts


def on_disk(home: Home) -> Disk:
    """Looked at in a copy: what SQLite recovers there is not recovered here."""
    disk = Disk()
    scratch = home.directory / "scratch"
    shutil.copytree(home.directory / "var/spool", scratch, ignore=shutil.ignore_patterns("control"))
    connection = database.connect(scratch)
    disk.outbox = len(connection.execute(statements.OUTBOX).fetchall())
    disk.recipients = asyncio.run(_recipients(scratch))
    connection.close()
    disk.files = {path.name for path in (scratch / "bodies").iterdir()}
    disk.log = (scratch / "events.jsonl").read_bytes() if (scratch / "events.jsonl").exists() else b""
    shutil.rmtree(scratch)
    return disk


async def _recipients(directory: Path) -> list[tuple[Message, float | None]]:
    reader = Reader(Bodies(directory / "bodies"))
    await reader.open(directory)
    try:
        return list(await reader.queue(1000))
    finally:
        await reader.close()


class Case:
    """One home through its lives."""

    def __init__(self, nursery: Nursery, home: Home) -> None:
        self.nursery = nursery
        self.home = home
        self.mail = Mail()
        self._clock = 0

    def dies(self, point: str, nth: int = 1, **order: Any) -> None:
        """A daemon takes what waits to be sent, and ends at this point."""
        with self.home.living(self.nursery, point, nth, later=self._clock, **order) as served:
            if served.is_ready:
                self.mail.send(served)
                if point == "while-stopping":
                    served.popen.send_signal(signal.SIGTERM)
            status = served.popen.wait(PATIENCE)
        assert self.home.doom() == point, (self.home.directory / "stderr").read_text()
        assert status in (-signal.SIGKILL, -signal.SIGXFSZ)
        self._clock += OFF

    @property
    def disk(self) -> Disk:
        return on_disk(self.home)

    def ends(self, **order: Any) -> Books:
        """Nothing is lost, and the books have no contradiction."""
        books = bring_to_the_end(self.nursery, self.home, self.mail, later=self._clock, **order)
        assert not books.lost
        assert not books.wrong
        return books


@pytest.fixture
def case(nursery: Nursery, template: Home, tmp_path: Path) -> Case:
    return Case(nursery, template.copy(tmp_path))


def test_every_row_of_the_table_has_a_point_and_every_point_a_row() -> None:
    rows = {int(number) for number in re.findall(r"(?m)^ {4}([ \d]\d) \S", table.__doc__ or "")}
    assert rows == set(range(1, 25))
    assert {place.row for place in POINTS.values()} - {0} == rows


# Rows 1 to 4: the start


@pytest.mark.parametrize("nth", [1, 3, 8, 10, 12, 14])
def test_row_1_killed_in_the_first_open(case: Case, nth: int) -> None:
    case.mail.write_one("ok")
    case.dies("first-statements", nth)
    assert case.ends().copies.total() == 1


@pytest.mark.parametrize("instructions", [20, 150])
def test_row_2_killed_while_a_schema_is_changed(case: Case, tmp_path: Path, instructions: int) -> None:
    schema = _next_schema(tmp_path / "schema")
    case.mail.write_one("ok")
    case.dies("before-dialling")
    before = case.disk
    case.dies("inside-migration", instructions, schema=schema)
    after = case.disk
    assert [message.id for message, _ in after.recipients] == [before.recipients[0][0].id]
    assert after.fresh == 1
    assert case.ends(schema=schema).copies.total() == 1


@pytest.mark.parametrize("instructions", [20, 40])
def test_row_2_killed_while_the_first_schema_is_made(case: Case, instructions: int) -> None:
    case.mail.write_one("ok")
    case.dies("inside-migration", instructions)
    assert case.ends().copies.total() == 1


def test_row_2_the_older_version_starts_after_a_migration_that_was_killed(case: Case, tmp_path: Path) -> None:
    case.mail.write_one("ok")
    case.dies("before-dialling")
    case.dies("inside-migration", 150, schema=_next_schema(tmp_path / "schema"))
    assert case.ends().copies.total() == 1


def _next_schema(folder: Path) -> str:
    """This version's schema, and one more script that touches every recipient."""
    shutil.copytree(Path(database.__file__).with_name("schema"), folder)
    (folder / "9999.sql").write_text(
        "CREATE TABLE later (n INTEGER PRIMARY KEY);\n"
        "INSERT INTO later WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t LIMIT 100) "
        "SELECT n FROM t;\n"
        "ALTER TABLE recipient ADD COLUMN later INTEGER NOT NULL DEFAULT 0;\n"
        "UPDATE recipient SET later = attempts;\n"
    )
    return str(folder)


@pytest.mark.parametrize("point", ["before-sweep", "after-sweep", "before-recovery"])
def test_row_3_killed_before_the_recovery_is_committed(case: Case, point: str) -> None:
    case.mail.write_one("ok", size=LARGE)
    case.dies("before-dialling")
    case.dies(point)
    disk = case.disk
    assert (disk.fresh, len(disk.files)) == (1, 1)
    assert case.ends().copies.total() == 1


def test_row_4_killed_after_the_recovery_the_due_time_stays_as_it_is(case: Case) -> None:
    case.mail.write_one("ok")
    case.dies("before-dialling")
    case.dies("after-recovery")
    ((message, due),) = case.disk.recipients
    assert due is not None
    assert _attempts(message) == 1
    case.dies("after-recovery")
    ((_, again),) = case.disk.recipients
    assert again == due
    assert case.ends().copies.total() == 1


# Rows 5 to 9: a message comes in


@pytest.mark.parametrize(
    ("point", "nth", "size"),
    [
        ("before-commit", 1, 300),
        ("half-a-file", 1, LARGE),
        ("file-without-row", 1, LARGE),
        ("inside-transaction", 1, 300),
        ("inside-commit", 10, 300),
        ("inside-commit", 8217, 300),
        ("inside-commit", 20_000, LARGE - 10_000),
    ],
)
def test_rows_5_to_7_killed_before_a_message_is_committed(
    case: Case, point: str, nth: int, size: int
) -> None:
    case.mail.write_one("ok", "ok", size=size)
    case.dies(point, nth)
    disk = case.disk
    assert disk.recipients == []
    assert len(disk.files) == (size == LARGE)
    assert not case.mail.acknowledged
    books = case.ends()
    assert (books.again, books.twice) == (0, 0)
    assert books.copies.total() == 2


def test_row_8_killed_in_a_checkpoint(case: Case) -> None:
    for _ in range(CHECKPOINT_AT):
        case.mail.write_one("ok", "defer", size=3000)
    case.dies("inside-checkpoint", 9000)
    assert case.ends().copies.total() >= CHECKPOINT_AT


def test_row_9_killed_before_the_250_the_client_sends_again(case: Case) -> None:
    case.mail.write_one("ok")
    case.dies("before-250")
    disk = case.disk
    assert not case.mail.acknowledged
    assert disk.fresh == 1
    books = case.ends()
    assert books.again == 1
    assert len(books.copies) == 2  # two queue ids
    assert books.twice == 0


# Rows 10 to 16: attempts and outcomes


def test_row_10_killed_before_dialling(case: Case) -> None:
    case.mail.write_one("ok", size=LARGE)
    case.dies("before-dialling")
    disk = case.disk
    assert len(case.mail.acknowledged) == 1
    assert (disk.fresh, len(disk.files)) == (1, 1)
    assert case.ends().twice == 0


def test_row_11_killed_when_the_peer_has_it_and_has_not_said_so(case: Case) -> None:
    case.mail.write_one("ok")
    case.dies("peer-has-it")
    assert case.disk.fresh == 1
    assert case.ends().twice == 1


def test_row_12_killed_before_the_lease_of_a_retry(case: Case) -> None:
    case.mail.write_one("ok")
    case.dies("before-dialling")
    case.dies("before-lease")
    ((message, due),) = case.disk.recipients
    assert due is not None
    assert _attempts(message) == 1
    assert case.ends().twice == 0


def test_row_13_killed_after_the_lease_of_a_retry(case: Case) -> None:
    case.mail.write_one("ok")
    case.dies("before-dialling")
    case.dies("after-lease")
    ((message, due),) = case.disk.recipients
    assert due is not None
    assert _attempts(message) == 2
    assert case.ends().twice == 0


@pytest.mark.parametrize(("point", "row"), [("before-settle", 14), ("settle-noted", 15)])
def test_rows_14_and_15_killed_before_the_outcome_is_committed(case: Case, point: str, row: int) -> None:
    assert POINTS[point].row == row
    case.mail.write_one("ok")
    case.dies(point)
    assert case.disk.fresh == 1
    assert case.ends().twice == 1


def test_rows_14_and_15_killed_before_a_retry_s_outcome_is_committed(case: Case) -> None:
    case.mail.write_one("ok")
    case.dies("before-dialling")
    case.dies("settle-noted")
    ((message, due),) = case.disk.recipients
    assert due is not None
    assert _attempts(message) == 2
    assert case.ends().twice == 1


def test_row_15_killed_before_a_bounce_is_committed_there_is_one_notice(case: Case) -> None:
    case.mail.write_one("bounce")
    case.dies("settle-noted")
    assert case.disk.fresh == 1
    books = case.ends()
    assert books.notices.total() == 1
    assert books.twice == 0


def test_row_16_killed_when_a_notice_was_just_committed(case: Case) -> None:
    letter = case.mail.write_one("bounce")
    case.dies("notice-committed")
    ((notice, due),) = case.disk.recipients
    assert (notice.sender, notice.recipients[0].address, due) == ("", letter.sender, None)
    books = case.ends()
    assert books.notices.total() == 1
    assert books.twice == 0


# Rows 17 to 22: events, and the end


def test_row_17_killed_before_the_append(case: Case) -> None:
    case.mail.write_one("ok", size=LARGE)
    case.dies("before-append")
    disk = case.disk
    assert disk.outbox >= 1
    assert len(disk.files) == 1
    assert b'"delivery"' not in disk.log
    assert case.ends().twice == 0


def test_row_18_killed_in_the_middle_of_the_append(case: Case) -> None:
    case.mail.write_one("ok")
    case.dies("half-an-append")
    disk = case.disk
    assert disk.outbox >= 1
    assert disk.log
    assert not disk.log.endswith(b"\n")
    assert case.ends().twice == 0


@pytest.mark.parametrize("point", ["after-append", "inside-drain"])
def test_row_19_killed_before_the_drain_is_committed_lines_are_repeated(case: Case, point: str) -> None:
    case.mail.write_one("ok", size=LARGE)
    case.dies(point)
    disk = case.disk
    assert disk.outbox >= 1
    assert len(disk.files) == 1
    assert disk.log.endswith(b"\n")
    assert case.ends().twice == 0
    seqs = [json.loads(line)["seq"] for line in _log(case).splitlines()]
    assert len(seqs) > len(set(seqs))


def test_row_20_killed_while_the_log_of_a_day_is_put_away(case: Case) -> None:
    case.mail.write_one("ok")
    case.dies("after-drain")
    log = case.home.directory / "var/spool/events.jsonl"
    yesterday = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}".encode()
    log.write_bytes(re.sub(rb'(?<="time":")\d{4}-\d\d-\d\d', yesterday, log.read_bytes()))
    case.mail.write_one("ok")
    with case.home.living(case.nursery, "while-rotating", later=OFF) as served:
        case.mail.send(served)
        served.popen.wait(PATIENCE)
    assert case.home.doom() == "while-rotating"
    assert not log.exists()
    assert case.ends().copies.total() >= 2


@pytest.mark.parametrize("point", ["after-drain", "before-removal"])
def test_row_21_killed_before_a_file_is_removed(case: Case, point: str) -> None:
    case.mail.write_one("ok", size=LARGE)
    case.dies(point)
    disk = case.disk
    assert disk.recipients == []
    assert len(disk.files) == 1
    assert case.ends().twice == 0


def test_row_22_killed_in_the_drain_of_a_stop(case: Case) -> None:
    for _ in range(10):
        case.mail.write_one("ok", "bounce", size=3000)
    case.dies("while-stopping")
    assert case.ends().twice <= 40


def test_row_23_killed_while_the_store_is_begun(case: Case) -> None:
    case.mail.write_one("ok")
    case.dies("store-begun")
    case.dies("before-dialling")
    assert case.ends().copies.total() == 1


def test_row_24_killed_while_the_secret_is_made(case: Case) -> None:
    case.mail.write_one("ok")
    case.dies("secret-drafted")
    spool = case.home.directory / "var/spool"
    assert {path.name for path in spool.glob("identity.*")} == {"identity.secret.new"}
    assert case.ends().copies.total() == 1
    assert {path.name for path in spool.glob("identity.*")} == {"identity.secret"}


def _log(case: Case) -> bytes:
    return (case.home.directory / "var/spool/events.jsonl").read_bytes()


# Random points, and what holds for all


@pytest.mark.parametrize("seed", range(RUNS))
def test_random_crashes_lose_nothing(nursery: Nursery, template: Home, tmp_path: Path, seed: int) -> None:
    found = run(nursery, template, tmp_path, seed)
    assert found.complaints == []
    assert found.counts["lost"] == 0
    assert found.counts["acknowledged"] > 0


def test_a_crash_loop_does_not_hammer_a_peer(nursery: Nursery, tmp_path: Path) -> None:
    """With the default waits: what was under way waits for its first retry, counted from its reception."""
    home = Home(tmp_path)
    home.prepare("5m", "2h")
    mail = Mail()
    for _ in range(40):
        mail.write_one("ok")
    with home.living(nursery) as served:
        mail.send(served, lambda count: served.kill() if count == 20 else None)
    for _ in range(2):
        with home.living(nursery) as served:
            for each in call(tmp_path / "var/spool/control", "queue", {"limit": 100}):
                assert each["state"] == "deferred"
                assert each["attempts"] == 1
                wait = (datetime.fromisoformat(each["due"]) - datetime.now(UTC)).total_seconds()
                assert FIRST_RETRY - 3 * PATIENCE < wait <= FIRST_RETRY + JITTER


async def test_events_that_did_not_reach_the_log_are_written_by_the_next_start(tmp_path: Path) -> None:
    told: asyncio.Queue[bytes] = asyncio.Queue()

    async def disk_full(lines: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for publish in (disk_full, told.put):
        spool = Spool(tmp_path, "live", 1000, publish, HandClock(), Metrics())
        await spool.open(FIRST_RETRY)
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(spool.run())
            if publish is disk_full:
                spool.report([Event(type=Type.REJECTION, reason="kept")])
            else:
                assert json.loads(await told.get()) == {"seq": 1, "type": "rejection", "reason": "kept"}
            spool.stop()
            await running
        await spool.close()


async def test_a_drain_that_is_under_way_at_a_stop_is_committed(tmp_path: Path) -> None:
    """Else the next start would say it again, and two drains at once could end in the wrong order."""
    told: list[bytes] = []
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow_disk(lines: bytes) -> None:
        begun.set()
        await go.wait()
        told.append(lines)

    for events in ([Event(type=Type.REJECTION, reason="once")], []):
        spool = Spool(tmp_path, "live", 1000, slow_disk, HandClock(), Metrics())
        await spool.open(FIRST_RETRY)
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(spool.run())
            if events:
                spool.report(events)
                await begun.wait()
            spool.stop()
            for _ in range(100):  # turns of the loop: all that can end does
                await asyncio.sleep(0)
            go.set()
            await running
        await spool.close()
    assert [json.loads(lines)["reason"] for lines in told] == ["once"]
