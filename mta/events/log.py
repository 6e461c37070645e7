"""The event log: JSON lines, appended and synced, in a file for each day.

Between: the spool's drain hands over lines that are committed; operators and tools read the files.
Contract: when `publish` returns the lines are on disk; a restart may write some again, with their `seq`.
    The first append of a UTC day gives the file of the day before its dated name (`events.segments`), and
    removes segments that are older than the retention (seconds). A file that somebody else renamed or
    removed is made anew at the next append, so another rotation does no harm; what it renamed is no
    segment any more.
Raises: OSError where they cannot be written; the lines then stay in the spool.
Why: one writev and one fdatasync for all of a drain, in a thread: the loop waits for no disk. The name of
    a new file is synced before its first lines are: the spool forgets them when they are said to be here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

from mta.clock import Clock
from mta.config.policy import Policy
from mta.disk import sync_names
from mta.events.segments import day_of, expired, free_name

BLOCK = 64 * 1024  # octets read at once, from the end backwards
_TIME = re.compile(rb'"time":"(\d{4}-\d\d-\d\d)T')

log = logging.getLogger(__name__)


class EventLog:
    """Today's file, and those of the days before."""

    def __init__(self, path: Path, retention: float, clock: Clock) -> None:
        self._path = path
        self._retention = retention
        self._clock = clock
        self._descriptor = -1
        self._day = ""  # of what the file holds; "" while it holds nothing that tells
        self.on_published: Callable[[bytes], None] = lambda lines: None  # who follows the stream

    def adopted(self, old: Policy, new: Policy) -> None:
        """How long files are kept counts from the next look on."""
        self._retention = new.settings.events.retention

    def open(self) -> None:
        self._open_file()
        self._remove_expired(self._clock.now())

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open_file(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o640)
        try:
            sync_names(self._path.parent)
            _cut_half_line(descriptor)
            self._day = _last_day(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self.close()
        self._descriptor = descriptor

    async def publish(self, lines: bytes) -> None:
        """Append whole lines."""
        await asyncio.to_thread(self._append, lines, self._clock.now())
        try:
            self.on_published(lines)
        except Exception:
            log.exception("a bug in who follows the event log")

    def _append(self, lines: bytes, now: float) -> None:
        if self._is_elsewhere():
            self._open_file()
        today = day_of(now)
        if self._day and self._day != today:
            self._path.rename(free_name(self._path, self._day))
            self._open_file()
            self._remove_expired(now)
        self._write(lines)
        self._day = today

    def _write(self, lines: bytes) -> None:
        start = os.fstat(self._descriptor).st_size
        try:
            view = memoryview(lines)
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fdatasync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, start)  # half a line would be read as another event
            raise

    def _is_elsewhere(self) -> bool:
        """Does the name stand for another file than ours, or for none?"""
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return True
        return not os.path.samestat(there, os.fstat(self._descriptor))

    def _remove_expired(self, now: float) -> None:
        """What cannot be removed today is tried again tomorrow; that is no reason to hold lines back."""
        try:
            for path in expired(self._path, self._retention, now):
                path.unlink(missing_ok=True)
                log.info("removed %s: older than events.retention", path)
        except OSError as error:
            log.warning("segments of the event log that are too old cannot be removed: %s", error)


def _cut_half_line(descriptor: int) -> None:
    """What a crash in the middle of an append left behind: its lines are still in the spool."""
    size = end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - BLOCK)
        block = os.pread(descriptor, end - start, start)
        end = start + block.rfind(b"\n") + 1
        if end > start:
            break
    if end < size:
        os.ftruncate(descriptor, end)


def _last_day(descriptor: int) -> str:
    """The day of the last line that tells one."""
    size = os.fstat(descriptor).st_size
    times = _TIME.findall(os.pread(descriptor, BLOCK, max(0, size - BLOCK)))
    return times[-1].decode() if times else ""
