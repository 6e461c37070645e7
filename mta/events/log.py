"""The event log: JSON lines, appended and synced.

Between: the spool's drain hands over lines that are committed; operators and tools read the file.
Contract: when `publish` returns the lines are on disk; a restart may write some again, with their `seq`.
Raises: OSError where they cannot be written; the lines then stay in the spool.
Why: one writev and one fdatasync for all of a drain, in a thread: the loop waits for no disk.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

BLOCK = 64 * 1024  # octets read at once, from the end backwards


class EventLog:
    """One file that only grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self.on_published: Callable[[bytes], None] = lambda lines: None  # who follows the stream

    def open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o640)
        self._cut_half_line()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _cut_half_line(self) -> None:
        """What a crash in the middle of an append left behind: its lines are still in the spool."""
        size = end = os.fstat(self._descriptor).st_size
        while end:
            start = max(0, end - BLOCK)
            block = os.pread(self._descriptor, end - start, start)
            end = start + block.rfind(b"\n") + 1
            if end > start:
                break
        if end < size:
            os.ftruncate(self._descriptor, end)

    async def publish(self, lines: bytes) -> None:
        """Append whole lines."""
        await asyncio.to_thread(self._append, lines)
        self.on_published(lines)

    def _append(self, lines: bytes) -> None:
        start = os.fstat(self._descriptor).st_size
        try:
            view = memoryview(lines)
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fdatasync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, start)  # half a line would be read as another event
            raise
