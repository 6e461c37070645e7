"""The segments of the event log: one file a UTC day, and which of them a reader needs.

Between: the event log makes and removes them; erasure rewrites them; a trace reads them.
Contract: the file of the setting (`events.jsonl`) takes the lines of today; that of a day past is named
    beside it, `events-2026-11-21.jsonl`, or `events-2026-11-21.1.jsonl` where the day had one already. No
    line is later than the day of its segment, so what happened since a time is in the segments of that
    day and after. A queue id encodes a time. Where the clock was set back, ids go on from the later
    time: who finds nothing of an id looks in all segments.
Raises: OSError.
Standards: RFC 3339 5.6 (full-date), in UTC.
Why: a day is what operators and laws count in, and a removed file costs nothing. There is no limit by
    size: it would bound no disk (retention does) and spare no reader a line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple

from mta.core.event import rfc3339
from mta.disk import sync_names

DAY = 86400.0  # seconds
_DAY = re.compile(r"([0-9]{4}-[0-9][0-9]-[0-9][0-9])(?:\.([0-9]{1,9}))?")


class _Segment(NamedTuple):
    """In the order of time."""

    day: str
    number: int
    path: Path


def day_of(at: float) -> str:
    """Seconds since the epoch -> "2026-11-21"; the texts sort as the days do."""
    return rfc3339(at)[:10]


def segments(path: Path, since: float) -> list[Path]:
    """The files that may hold lines of that time or later, oldest first; today's is the last.

    Beside a daemon a file may be renamed while it is read: who found its name gone asks again.
    """
    first = day_of(since)
    found = [segment.path for segment in _past(path) if segment.day >= first]
    return [*found, path] if path.exists() else found


def expired(path: Path, retention: float, now: float) -> list[Path]:
    """The segments whose whole day is longer ago than that."""
    return [segment.path for segment in _past(path) if _end(segment.day) + retention <= now]


def free_name(path: Path, day: str) -> Path:
    """What today's file is called when its day is over; no file has that name."""
    number = max((segment.number for segment in _past(path) if segment.day == day), default=-1) + 1
    return path.with_name(f"{path.stem}-{day}{f'.{number}' if number else ''}{path.suffix}")


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> int:
    """Pass every line through `change`; how many it changed. A crash leaves the old file or the new one.

    Nobody else may append meanwhile. The file keeps its owner and mode; one without changes is left alone.
    """
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)  # of a rewrite that was killed: it names others, and nobody reads it
    with path.open("rb") as old:
        if all(change(line) == line for line in old):
            return 0
        old.seek(0)
        try:
            with partial.open("wb") as new:
                status = os.fstat(old.fileno())
                os.fchmod(new.fileno(), status.st_mode)
                os.fchown(new.fileno(), status.st_uid, status.st_gid)
                changed = _copy(old, new.write, change)
                new.flush()
                os.fsync(new.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    sync_names(path.parent)
    return changed


def _copy(lines: Iterable[bytes], write: Callable[[bytes], object], change: Callable[[bytes], bytes]) -> int:
    count = 0
    for line in lines:
        changed = change(line)
        write(changed)
        count += changed != line
    return count


def _past(path: Path) -> list[_Segment]:
    return sorted(_found(path))


def _found(path: Path) -> Iterator[_Segment]:
    head, tail = f"{path.stem}-", path.suffix
    for entry in os.scandir(path.parent):
        name = entry.name
        if not (name.startswith(head) and name.endswith(tail)):
            continue
        match = _DAY.fullmatch(name[len(head) : len(name) - len(tail)])
        if match is not None and _is_day(match[1]):
            yield _Segment(match[1], int(match[2] or 0), path.with_name(name))


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _end(day: str) -> float:
    return datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() + DAY
