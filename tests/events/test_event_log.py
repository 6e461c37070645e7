"""The event log holds whole lines in a file for each day, whatever happened to the one who wrote it."""

from __future__ import annotations

import errno
import os
from datetime import datetime
from pathlib import Path

import pytest

from mta.core.event import rfc3339
from mta.events.log import BLOCK, EventLog
from mta.events.segments import day_of, expired, rewrite, segments
from tests.fakes.clock import HandClock

DAY = 86400.0
NOON = datetime.fromisoformat("2026-11-21T12:00:00Z").timestamp()


def opened(path: Path, now: float = NOON, retention: float = 30 * DAY) -> tuple[EventLog, HandClock]:
    clock = HandClock(now)
    log = EventLog(path, retention, clock)
    log.open()
    return log, clock


def line(seq: int, at: float = NOON) -> bytes:
    return b'{"seq":%d,"time":"%s"}\n' % (seq, rfc3339(at).encode())


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        (b"", b""),
        (b'{"seq":1}\n', b'{"seq":1}\n'),
        (b'{"seq":1}\n{"se', b'{"seq":1}\n'),
        (b'{"se', b""),
        (b"\n" + b"x" * BLOCK, b"\n"),
        (b"\n" + b"x" * (BLOCK - 1), b"\n"),
        (b'{"seq":1}\n' + b"x" * 3 * BLOCK, b'{"seq":1}\n'),
        (b"x" * 2 * BLOCK, b""),
    ],
)
async def test_half_a_line_from_a_crash_is_cut_off_and_the_next_is_whole(
    tmp_path: Path, before: bytes, kept: bytes
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(before)
    log, _ = opened(path)
    await log.publish(b'{"seq":2}\n')
    log.close()
    assert path.read_bytes() == kept + b'{"seq":2}\n'


async def test_the_first_line_of_a_day_begins_a_file_and_the_old_one_gets_its_day(tmp_path: Path) -> None:
    log, clock = opened(tmp_path / "events.jsonl")
    await log.publish(line(1))
    await clock.advance(DAY / 2 - 1)
    await log.publish(line(2))  # a second before midnight
    await clock.advance(1)
    await log.publish(line(3))
    await log.publish(line(4))
    await clock.advance(3 * DAY)  # days without mail have no file
    await log.publish(line(5))
    log.close()
    assert files(tmp_path) == {
        "events-2026-11-21.jsonl": line(1) + line(2),
        "events-2026-11-22.jsonl": line(3) + line(4),
        "events.jsonl": line(5),
    }


async def test_a_file_of_yesterday_is_found_by_its_last_line_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line(1, NOON - DAY) + line(2, NOON) + b'{"seq":3,"ti')
    log, _ = opened(path, NOON + DAY)
    assert files(tmp_path) == {"events.jsonl": line(1, NOON - DAY) + line(2, NOON)}  # not before it is needed
    await log.publish(line(3))
    log.close()
    assert files(tmp_path) == {
        "events-2026-11-21.jsonl": line(1, NOON - DAY) + line(2, NOON),
        "events.jsonl": line(3),
    }


async def test_a_crash_between_the_two_names_leaves_a_log_that_goes_on(tmp_path: Path) -> None:
    """The old file has its dated name and the new one is not there yet."""
    (tmp_path / "events-2026-11-21.jsonl").write_bytes(line(1))
    log, _ = opened(tmp_path / "events.jsonl", NOON + DAY)
    await log.publish(line(2))
    log.close()
    assert files(tmp_path) == {"events-2026-11-21.jsonl": line(1), "events.jsonl": line(2)}


async def test_a_second_file_of_a_day_never_overwrites_the_first(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    (tmp_path / "events-2026-11-21.jsonl").write_bytes(line(1))
    (tmp_path / "events-2026-11-21.9.jsonl").write_bytes(line(2))
    log, clock = opened(path)
    await log.publish(line(3))
    await clock.advance(DAY)
    await log.publish(line(4))
    log.close()
    names = ["events-2026-11-21.jsonl", "events-2026-11-21.9.jsonl", "events-2026-11-21.10.jsonl"]
    assert segments(path, NOON) == [*(tmp_path / name for name in names), path]
    assert b"".join(each.read_bytes() for each in segments(path, 0)) == line(1) + line(2) + line(3) + line(4)


async def test_a_clock_that_is_set_back_leaves_no_line_later_than_its_segment(tmp_path: Path) -> None:
    log, clock = opened(tmp_path / "events.jsonl", NOON + DAY)
    await log.publish(line(1, NOON + DAY))
    await clock.advance(-DAY)
    await log.publish(line(2, NOON))
    await clock.advance(DAY)
    await log.publish(line(3, NOON + DAY))
    log.close()
    assert files(tmp_path) == {
        "events-2026-11-21.jsonl": line(2, NOON),
        "events-2026-11-22.jsonl": line(1, NOON + DAY),
        "events.jsonl": line(3, NOON + DAY),
    }


async def test_segments_older_than_the_retention_are_removed_and_nothing_else_is(tmp_path: Path) -> None:
    mine = ["events-2026-11-18.jsonl", "events-2026-11-18.1.jsonl", "events-2026-11-19.jsonl"]
    others = ["events-2025-13-01.jsonl", "events-old.jsonl", "events.jsonl.1", "other-2020-01-01.jsonl"]
    for name in [*mine, *others]:
        (tmp_path / name).write_bytes(b"{}\n")
    log, clock = opened(tmp_path / "events.jsonl", retention=2 * DAY)
    assert set(files(tmp_path)) == {"events-2026-11-19.jsonl", "events.jsonl", *others}  # a stopped daemon's
    await log.publish(line(1))
    await clock.advance(DAY / 2)
    await log.publish(line(2))
    log.close()
    assert set(files(tmp_path)) == {"events-2026-11-21.jsonl", "events.jsonl", *others}


@pytest.mark.parametrize("renamed", [True, False])
async def test_a_file_that_somebody_took_away_is_made_anew(tmp_path: Path, renamed: bool) -> None:
    path = tmp_path / "log" / "events.jsonl"
    log, _ = opened(path)
    await log.publish(line(1))
    if renamed:
        path.rename(tmp_path / "events.jsonl.1")
    else:
        path.unlink()
        path.parent.rmdir()
    await log.publish(line(2))
    log.close()
    assert path.read_bytes() == line(2)
    assert not renamed or (tmp_path / "events.jsonl.1").read_bytes() == line(1)


async def test_lines_that_find_no_file_are_refused_and_taken_later(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log, clock = opened(path)
    await log.publish(line(1))
    path.rename(tmp_path / "aside")
    path.mkdir()
    await clock.advance(DAY)
    with pytest.raises(OSError, match="Is a directory"):
        await log.publish(line(2))
    path.rmdir()
    await log.publish(line(2))
    log.close()
    assert files(tmp_path) == {"aside": line(1), "events.jsonl": line(2)}


async def test_a_copy_and_truncate_from_outside_does_not_confuse(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log, _ = opened(path)
    await log.publish(line(1))
    os.truncate(path, 0)
    await log.publish(line(2))
    log.close()
    assert path.read_bytes() == line(2)


def test_a_reader_opens_only_the_days_that_a_queue_id_can_be_in(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for day in ("2026-11-19", "2026-11-20", "2026-11-21"):
        (tmp_path / f"events-{day}.jsonl").touch()
    assert segments(path, NOON - DAY) == [tmp_path / f"events-2026-11-{day}.jsonl" for day in (20, 21)]
    path.touch()
    assert segments(path, NOON + 5 * DAY) == [path]
    assert len(segments(path, 0)) == 4
    assert expired(path, 0, NOON) == [tmp_path / f"events-2026-11-{day}.jsonl" for day in (19, 20)]
    assert day_of(NOON) == "2026-11-21"


def test_a_rewritten_segment_keeps_owner_and_mode_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"a\nb\na\n")
    path.chmod(0o640)
    before = path.stat()
    assert rewrite(path, lambda each: each.replace(b"z", b"-")) == 0
    assert path.stat().st_ino == before.st_ino  # not touched
    assert rewrite(path, lambda each: each.replace(b"a", b"erased")) == 2
    after = path.stat()
    assert files(tmp_path) == {"events.jsonl": b"erased\nb\nerased\n"}
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_a_rewrite_that_fails_leaves_the_segment_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"a\nb\n")

    def full(each: bytes) -> bytes:
        if each == b"b\n":
            raise OSError(errno.ENOSPC, "No space left on device")
        return b"erased\n"

    with pytest.raises(OSError, match="No space left"):
        rewrite(path, full)
    assert files(tmp_path) == {"events.jsonl": b"a\nb\n"}
