"""The disk fails under a daemon: nothing acknowledged is lost, nothing is taken that cannot be kept.

The table of docs/disk.md names a test of this file for each row.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import smtplib
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from mta.api.control import call
from tests.fakes.clock import HandClock
from tests.fakes.faults import CONTENT, LARGE, Patient, Ward, on_tmpfs
from tests.fakes.home import ROOT
from tests.spool.test_spool import Lines, message, opened, put

REFUSED = "452 4.3.1 The spool cannot take the message now; it was not kept, please try again"
FULL = "database or disk is full; free some space on its disk"
IO_ERROR = "disk I/O error (SQLITE_IOERR_{})"
FAILS = "the disk fails: read the kernel's messages (dmesg) and move the spool to a disk that works"
REPAIR = "stop the daemon and repair it, as docs/disk.md says"
DAMAGED = f"database disk image is malformed; {REPAIR}"
PAGE = 8192  # octets
NOT_IN_THE_TABLE = {
    "test_every_row_of_the_table_has_a_test_and_every_test_a_row",
    "test_only_a_clock_that_was_set_is_noticed_and_only_once",
}

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Patient:
    """A home that never ran."""
    home = Patient(tmp_path_factory.mktemp("seed"))
    home.prepare("5m", "2h")
    return home


@pytest.fixture
def home(seed: Patient, tmp_path: Path) -> Patient:
    shutil.copytree(seed.directory / "var", tmp_path / "var")
    return Patient(tmp_path)


@pytest.fixture(scope="module")
def used(seed: Patient, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A spool in which mail waits, and its queue ids."""
    home = Patient(tmp_path_factory.mktemp("used"))
    shutil.copytree(seed.directory / "var", home.directory / "var")
    with home.running() as ward:
        smtp = ward.connect()
        waiting = {ward.accept(smtp=smtp) for _ in range(3)}
        smtp.close()
        ward.events(3, type="deferral")
        assert ward.stop() == 0
    return home.spool, waiting


FILES = ("spool/test_faults.py", "outbound/test_clock_is_set.py")  # with the rows of docs/disk.md


@pytest.fixture
def full_house(home: Patient, used: tuple[Path, set[str]]) -> Patient:
    """A home with the mail of `used`."""
    shutil.rmtree(home.spool)
    shutil.copytree(used[0], home.spool)
    return home


def test_every_row_of_the_table_has_a_test_and_every_test_a_row() -> None:
    table = (ROOT / "docs/disk.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", table.partition("\n## ")[0]))
    here = "".join((ROOT / "tests" / name).read_text() for name in FILES)
    assert named == set(re.findall(r"(?m)^(?:async )?def (test_\w+)", here)) - NOT_IN_THE_TABLE


# The disk refuses for a time


class Sick(NamedTuple):
    """A daemon whose disk breaks and heals."""

    home: Patient
    ward: Ward


@pytest.fixture(scope="module")
def sick(seed: Patient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sick]:
    """One for all of these tests: none of them leaves a trace in it."""
    home = Patient(tmp_path_factory.mktemp("sick"))
    shutil.copytree(seed.directory / "var", home.directory / "var")
    with home.running() as ward:
        yield Sick(home, ward)


@pytest.mark.parametrize(
    ("fault", "content", "why"),
    [
        pytest.param("write queue.db-wal 28", CONTENT, FULL, id="full-in-a-commit"),
        pytest.param("write bodies/ 28", LARGE, "No space left on device; free some", id="full-in-a-file"),
        pytest.param("write queue.db-wal 5", CONTENT, f"{IO_ERROR.format('WRITE')}; {FAILS}", id="write"),
        pytest.param("sync queue.db-wal 5", CONTENT, f"{IO_ERROR.format('FSYNC')}; {FAILS}", id="sync"),
        pytest.param("sync bodies/ 5", LARGE, f"Input/output error; {FAILS}", id="sync-of-a-file"),
        pytest.param("write queue.db-wal 30", CONTENT, "(SQLITE_IOERR_WRITE)", id="read-only"),
        pytest.param("open bodies/ 30", LARGE, "; make it writable for this user", id="read-only-file"),
        pytest.param("open bodies/ 24", LARGE, "let the process open more files", id="files-used-up"),
    ],
)
def test_what_cannot_be_kept_is_refused_until_the_disk_is_well(
    sick: Sick, fault: str, content: bytes, why: str
) -> None:
    before = sick.ward.queue()
    sick.home.disk.breaks(fault)
    assert sick.ward.send(content) == REFUSED
    status, reasons = sick.ward.ready()
    assert status == 503
    assert reasons.startswith("the spool cannot write: ")
    assert why in reasons
    sick.home.disk.heals()
    taken = sick.ward.accept(content)
    assert sick.ward.ready() == (200, "ok")
    assert sick.ward.queue() == {*before, taken}


def test_a_daemon_without_clients_finds_out_by_itself_that_the_disk_is_well(home: Patient) -> None:
    with home.running() as ward:
        home.disk.breaks("write queue.db-wal 28")
        assert ward.send() == REFUSED
        home.disk.heals()
        ward.tells("the spool can be written again")
        assert ward.ready() == (200, "ok")
        assert ward.stop() == 0
    assert home.said.count("the spool cannot write") == 1  # told once, tried every second


def test_a_disk_that_is_really_full_and_gets_room_again(home: Patient) -> None:
    terms = home.settings.read_text().replace("\nspool:\n", "\nspool:\n  reserve: 0\n")
    home.settings.write_text(terms)
    with home.running(before=on_tmpfs("size=4m")) as ward:
        smtp = ward.connect()
        spool = Path(f"/proc/{ward.popen.pid}/root{home.spool}")
        waiting = {ward.accept(smtp=smtp)}
        with (spool / "fill").open("wb", buffering=0) as fill, suppress(OSError):
            for _ in range(1024):
                fill.write(b"x" * 4096)
        said = ""
        for _ in range(200):  # the WAL has used its last pages by then
            said = ward.send(smtp=smtp)
            if not said.startswith("250 "):
                break
            waiting.add(said.rpartition(" ")[2])
        assert said == REFUSED
        status, reasons = ward.ready()
        assert status == 503
        assert reasons.startswith(f"the spool cannot write: {FULL}")
        (spool / "fill").unlink()
        waiting.add(ward.accept(smtp=smtp))
        assert "cannot write" not in ward.ready()[1]
        listed = call(spool / "control", "queue", {"limit": 1000})
        assert {each["queue_id"] for each in listed} == waiting
        assert ward.stop() == 0


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("write events.jsonl 28", "[Errno 28] No space left on device; free some space on its disk"),
        ("sync events.jsonl 5", f"[Errno 5] Input/output error; {FAILS}"),
    ],
    ids=["full", "sync"],
)
def test_lines_that_the_event_log_does_not_take_wait_and_are_whole(
    home: Patient, fault: str, why: str
) -> None:
    with home.running() as ward:
        home.disk.breaks(fault)
        taken = ward.accept(to="ok@dst.test")
        ward.tells("the event log cannot be written")
        assert ward.ready() == (503, f"the event log cannot be written: {why}")
        home.disk.heals()
        told = ward.events(1, type="delivery")
        about = [(each["type"], each["queue_id"]) for each in told if "queue_id" in each]
        assert about == [("reception", taken), ("delivery", taken)]
        assert [each["seq"] for each in told] == list(range(1, len(told) + 1))
        ward.tells("the event log can be written again")
        assert ward.ready() == (200, "ok")
        assert ward.stop() == 0


async def test_an_event_log_that_stays_shut_shuts_the_door_before_memory_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mta.spool.outbox.MAX_UNDRAINED", 1)
    clock, lines = HandClock(), Lines()
    lines.broken = OSError(28, "No space left on device")
    async with opened(tmp_path, clock=clock, lines=lines) as spool:
        await put(spool, "b@dst.test")
        await spool.lease([])
        assert not spool.has_room
        told: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        spool.put(message(spool, "c@dst.test"), [], told.set_result)
        await clock.advance(1.0)
        assert str(await told) == "[Errno 5] the spool takes no new mail"
        (complaint,) = spool.complaints
        assert complaint.startswith("the event log cannot be written: [Errno 28] No space left on device; ")
        lines.broken = None
        await clock.advance(1.0)
        await lines.came.wait()
        await spool.lease([])
        assert (spool.has_room, spool.complaints) == (True, [])
        await put(spool, "c@dst.test")


def test_a_checkpoint_that_fails_loses_nothing_and_is_told(home: Patient) -> None:
    with home.running("4", "200000") as ward:
        home.disk.breaks("sync queue.db$ 5")
        smtp = ward.connect()
        waiting = {ward.accept(smtp=smtp) for _ in range(20)}
        ward.tells("the WAL of the spool only grows: disk I/O error (SQLITE_IOERR_FSYNC)")
        assert ward.ready() == (
            503, f"the WAL of the spool only grows: disk I/O error (SQLITE_IOERR_FSYNC); {FAILS}",
        )  # fmt: skip
        home.disk.heals()
        waiting.add(ward.accept(smtp=smtp))
        ward.kill()
    with home.running() as ward:
        assert ward.queue() == waiting


# A sync that failed once


def test_what_is_taken_after_a_failed_sync_survives_a_power_cut(home: Patient) -> None:
    home.remembers()
    with home.running() as ward:
        before = ward.accept()
        home.disk.breaks("sync queue.db-wal 5")
        assert ward.send() == REFUSED
        home.disk.heals()
        after = {ward.accept(), ward.accept(LARGE)}
        ward.kill()
    home.disk.power_cut(home.spool)
    with home.running() as ward:
        assert ward.queue() == {before, *after}


def test_what_a_restart_takes_after_a_failed_sync_survives_a_power_cut(home: Patient) -> None:
    home.remembers()
    with home.running() as ward:
        before = ward.accept()
        home.disk.breaks("sync queue.db-wal 5")
        assert ward.send() == REFUSED
        ward.kill()
    home.disk.heals()
    with home.running() as ward:
        after = ward.accept()
        ward.kill()
    home.disk.power_cut(home.spool)
    with home.running() as ward:
        assert ward.queue() >= {before, after}


def test_a_large_message_whose_commit_may_come_back_keeps_its_file(home: Patient) -> None:
    with home.running() as ward:
        home.disk.breaks("sync queue.db-wal 5")
        assert ward.send(LARGE) == REFUSED
        ward.kill()
    home.disk.heals()
    with home.running() as ward:
        # Recovery may find the frames of that commit: then the file must be there, or else it is swept.
        assert {path.name for path in (home.spool / "bodies").iterdir()} == ward.queue()


# Starts that are refused


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("open lock 30", "[Errno 30] Read-only file system: '{spool}/lock'; make it writable for this user"),
        ("write queue.db-wal 28", "[Errno 28] No space left on device: '{spool}/queue.db-wal'; free some"),
        ("sync queue.db-wal 5", "[Errno 5] Input/output error: '{spool}/queue.db-wal'; the disk fails"),
    ],
    ids=["read-only", "full", "sync"],
)
def test_a_start_on_a_disk_that_fails_says_why(home: Patient, fault: str, why: str) -> None:
    with home.running() as ward:
        waiting = ward.accept()
        ward.kill()
    home.disk.breaks(fault)
    said = home.refuses_to_start()
    assert said.startswith("mta: the spool cannot be used: " + why.format(spool=home.spool))
    home.disk.heals()
    with home.running() as ward:
        assert ward.queue() == {waiting}


def test_a_second_daemon_is_refused_and_the_first_does_not_mind(home: Patient) -> None:
    with home.running() as ward:
        said = home.refuses_to_start()
        assert said.endswith("/var/spool is in use by another process; stop that one first")
        ward.accept()
        assert ward.stop() == 0


def test_a_spool_of_a_newer_version_is_left_alone(full_house: Patient) -> None:
    with sqlite3.connect(full_house.spool / "queue.db") as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    assert "the spool has schema 999" in full_house.refuses_to_start()


def test_a_file_that_is_no_database_is_not_touched(full_house: Patient) -> None:
    path = full_house.spool / "queue.db"
    path.write_text("This is not a database at all, it is a text.")
    said = full_house.refuses_to_start()
    assert said.endswith("queue.db: file is not a database; move this file away, or set another spool.path")
    assert path.read_text().startswith("This is not")


@pytest.mark.parametrize("how", ["removed", "emptied"])
def test_a_database_that_was_lost_takes_no_contents_with_it(home: Patient, how: str) -> None:
    with home.running() as ward:
        waiting = ward.accept(LARGE)
        assert ward.stop() == 0
    kept = home.spool / "kept"
    (home.spool / "queue.db").rename(kept)
    if how == "emptied":
        (home.spool / "queue.db").touch()
    said = home.refuses_to_start()
    assert "queue.db is missing or empty, and bodies/ holds 1 contents: put it back, with its -wal" in said
    kept.rename(home.spool / "queue.db")
    with home.running() as ward:
        assert ward.queue() == {waiting}
        assert ward.stop() == 0


def test_a_full_disk_is_not_taken_for_a_damaged_spool(home: Patient) -> None:
    """To read what a kill left, SQLite writes an index of the WAL: without room nobody can look."""
    with home.running() as ward:
        ward.accept()
        ward.kill()
    for shm in home.spool.glob("*-shm"):
        shm.unlink()
    home.disk.breaks("write queue.db-shm 28")
    done = home.mta("--config", "var/mta.yaml", "spool", "verify")
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be looked at" in done.stderr
    assert "free some space on its disk" in done.stderr
    assert "backup" not in done.stderr


# Damage


def spoil(spool: Path, name: str) -> None:
    """Overwrite the root page of a table or an index."""
    connection = sqlite3.connect(spool / "queue.db")
    (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with (spool / "queue.db").open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(b"\xa5" * PAGE)


@pytest.mark.parametrize("name", ["recipient", "recipient_due", "message", "outbox", "meta"])
def test_a_damaged_page_that_a_start_needs_is_told(full_house: Patient, name: str) -> None:
    spoil(full_house.spool, name)
    assert full_house.refuses_to_start().endswith(DAMAGED)


@pytest.mark.parametrize("name", ["body", "message_expires"])
def test_a_damaged_page_that_a_commit_meets_shuts_the_door(full_house: Patient, name: str) -> None:
    spoil(full_house.spool, name)
    with full_house.running() as ward:
        assert ward.send() == REFUSED
        assert ward.ready() == (503, f"the spool cannot write: {DAMAGED}\nthe spool is damaged: {DAMAGED}")
        ward.tells("the spool can be written again")  # elsewhere; that is not enough
        assert ward.ready() == (503, f"the spool is damaged: {DAMAGED}")
        assert ward.send() == REFUSED
        assert ward.stop() == 0


@pytest.mark.parametrize("name", ["recipient_due", "message_expires"])
def test_a_damaged_index_is_repaired_by_export_and_import(
    full_house: Patient, used: tuple[Path, set[str]], name: str
) -> None:
    spoil(full_house.spool, name)
    spool = full_house.spool
    for step in (("export", "--all", "saved"), ("import", "saved")):
        done = full_house.mta("--config", "var/mta.yaml", "spool", *step)
        assert done.returncode == 0, done.stderr
        if step[0] == "export":
            spool.rename(full_house.directory / "damaged")
            spool.mkdir(mode=0o700)
            for file in ("credentials.db", "identity.secret"):
                shutil.copy2(full_house.directory / "damaged" / file, spool)
    with full_house.running() as ward:
        assert ward.queue() == used[1]


@pytest.mark.parametrize("tear", ["cut", "garbled", "no-shm"])
def test_a_torn_wal_keeps_what_is_before_the_tear(home: Patient, tear: str) -> None:
    with home.running() as ward:
        before = ward.accept()
        ward.events(1, type="deferral")
        size = (home.spool / "queue.db-wal").stat().st_size
        last = ward.accept()
        ward.kill()
    wal = home.spool / "queue.db-wal"
    octets = wal.read_bytes()
    if tear == "cut":
        wal.write_bytes(octets[: size + 100])
    elif tear == "garbled":
        wal.write_bytes(octets[:size] + b"\xa5" * (len(octets) - size))
    else:
        (home.spool / "queue.db-shm").unlink()
    with home.running() as ward:
        assert ward.queue() == ({before, last} if tear == "no-shm" else {before})
        assert ward.accept()
        assert ward.ready() == (200, "ok")


def test_a_spool_without_its_wal_is_as_the_last_checkpoint_left_it(
    full_house: Patient, used: tuple[Path, set[str]]
) -> None:
    with full_house.running() as ward:
        ward.accept()
        ward.kill()
    for end in ("wal", "shm"):
        (full_house.spool / f"queue.db-{end}").unlink()
    with full_house.running() as ward:
        assert ward.queue() == used[1]


# Somebody removes things


def test_a_spool_that_was_removed_takes_nothing_more_and_can_be_saved(home: Patient) -> None:
    with home.running() as ward:
        waiting = ward.accept()
        ward.events(1, type="deferral")
        saved = home.directory / "saved"
        shutil.copytree(home.spool, saved, ignore=lambda _, names: {*names} - {"credentials.db"})
        shutil.rmtree(home.spool)
        assert ward.send() == REFUSED
        status, reasons = ward.ready()
        assert status == 503
        assert f"{home.spool}/queue.db was removed or moved away while the daemon runs; " in reasons
        assert not home.spool.exists()  # nothing makes it anew behind the operator's back
        for number in Path(f"/proc/{ward.popen.pid}/fd").iterdir():  # as docs/disk.md says
            with suppress(FileNotFoundError):  # closed meanwhile
                name = Path(str(number.readlink()).removesuffix(" (deleted)")).name
                if name in ("queue.db", "queue.db-wal"):
                    (saved / name).write_bytes(number.read_bytes())
        assert ward.stop() == 0
    saved.rename(home.spool)
    with home.running() as ward:
        assert ward.queue() == {waiting}


def test_a_spool_that_was_moved_away_and_back_goes_on(home: Patient) -> None:
    with home.running() as ward:
        before = ward.accept()
        home.spool.rename(home.directory / "away")
        assert ward.send() == REFUSED
        (home.directory / "away").rename(home.spool)
        after = ward.accept()
        assert ward.queue() == {before, after}
        assert ward.ready() == (200, "ok")


def test_another_file_in_the_place_of_the_database_is_seen(home: Patient) -> None:
    with home.running() as ward:
        ward.accept()
        shutil.copy(home.spool / "queue.db", home.directory / "copy")
        (home.directory / "copy").replace(home.spool / "queue.db")
        assert ward.send() == REFUSED
        assert "queue.db was replaced while the daemon runs; " in ward.ready()[1]


def test_an_event_log_that_was_removed_is_made_anew(home: Patient) -> None:
    settings = home.settings.read_text()
    home.settings.write_text(settings + "\nevents:\n  path: log/events.jsonl\n")
    with home.running() as ward:
        ward.accept(to="ok@dst.test")
        ward.events(1, type="delivery")
        shutil.rmtree((home.directory / ward.facts["event_log"]).parent)
        taken = ward.accept(to="ok@dst.test")
        log = home.directory / ward.facts["event_log"]
        assert ward.stop() == 0
    told = [each for line in log.read_text().splitlines() if "queue_id" in (each := json.loads(line))]
    assert [(each["type"], each["queue_id"]) for each in told] == [("reception", taken), ("delivery", taken)]


# Files are used up


def test_no_file_left_for_a_connection_out_defers_the_mail(home: Patient) -> None:
    with home.running() as ward:
        smtp = ward.connect()
        ward.files(0)
        taken = ward.accept(to="ok@dst.test", smtp=smtp)
        (told,) = [each for each in ward.events(1, type="deferral") if each["type"] == "deferral"]
        assert (told["queue_id"], told["reply"]["code"]) == (taken, 451)
        ward.tells("has failed for a reason of our own: [Errno 24] Too many open files")
        ward.files(None)
        assert ward.stop() == 0


def test_no_file_left_for_a_client_hurts_nobody_else(home: Patient) -> None:
    with home.running() as ward:
        smtp = ward.connect()
        ward.files(0)
        with pytest.raises((OSError, smtplib.SMTPException)) as refused:
            ward.connect()
        assert not isinstance(refused.value, TimeoutError)
        ward.accept(smtp=smtp)
        ward.files(None)
        ward.accept()
        assert ward.stop() == 0
