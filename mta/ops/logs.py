"""Lines for the operator, written by a thread: who does not read them stops nobody.

Between: `daemon` puts this between the root logger and its handlers for as long as it runs; services log as
    ever.
Contract: a line is formatted and written in a thread of its own. At most `WAITING` lines wait; further ones
    are left out, and a line says how many. The end waits `PATIENCE` seconds for what waits, no longer. Where
    standard error goes to the journal each line begins with its priority.
Raises: nothing.
Standards: sd-daemon(3) (`<N>` before a line), systemd.exec(5) ($JOURNAL_STREAM).
Why: standard error may be a pipe that nobody reads, a terminal that is stopped, a disk that is full: a write
    in the loop would then be the end of all mail. The thread writes to the descriptor: one that is stuck in a
    write through Python's own stream holds its lock, and the interpreter could not end.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging.handlers import QueueHandler

WAITING = 10_000  # lines, some 5 MB
PATIENCE = 1.0  # seconds


_PRIORITIES = (  # from the highest level down
    (logging.CRITICAL, "<2>"),
    (logging.ERROR, "<3>"),
    (logging.WARNING, "<4>"),
    (logging.INFO, "<6>"),
)
_DEBUG = "<7>"


def priority(level: int) -> str:
    """What the journal wants to see before a line of this level."""
    return next((prefix for least, prefix in _PRIORITIES if level >= least), _DEBUG)


def goes_to_journal(environment: Mapping[str, str], descriptor: int = 2) -> bool:
    """Is standard error what systemd has connected with the journal? It may have been redirected since."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class Journal(logging.Formatter):
    """The priority stands before each line, of a traceback too, and instead of the level's name."""

    def __init__(self) -> None:
        super().__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        prefix = priority(record.levelno)
        return "\n".join(prefix + line for line in super().format(record).split("\n"))


class _Aside(QueueHandler):
    """Hands records over, and never waits."""

    def __init__(self, waiting: queue.Queue[logging.LogRecord | None]) -> None:
        super().__init__(waiting)
        self.left_out = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """It stays in this process: what it holds is formatted by the thread."""
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.left_out += 1


@contextmanager
def aside() -> Iterator[None]:
    """Around the life of a daemon: the root logger's streams get their lines from a thread."""
    root = logging.getLogger()
    streams = {each: descriptor for each in root.handlers if (descriptor := _descriptor(each)) is not None}
    if not streams:
        yield
        return
    waiting: queue.Queue[logging.LogRecord | None] = queue.Queue(WAITING)
    between = _Aside(waiting)
    # Not to be waited for by the interpreter's end: it may be stuck in its write for ever.
    writer = threading.Thread(target=_write, args=(between, waiting, streams), name="log", daemon=True)
    for each in streams:
        root.removeHandler(each)
    root.addHandler(between)
    writer.start()
    try:
        yield
    finally:
        root.removeHandler(between)
        for each in streams:
            root.addHandler(each)
        try:
            waiting.put(None, timeout=PATIENCE)
            writer.join(PATIENCE)
        except queue.Full:  # nobody reads
            pass


def _descriptor(handler: logging.Handler) -> int | None:
    """Where a plain stream handler writes to; None for any other."""
    if type(handler) not in (logging.StreamHandler, logging.FileHandler):
        return None
    try:
        return int(handler.stream.fileno())  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):  # no stream, closed, or only in memory
        return None


def _write(
    between: _Aside, waiting: queue.Queue[logging.LogRecord | None], streams: dict[logging.Handler, int]
) -> None:
    while (record := waiting.get()) is not None:
        if between.left_out:
            count, between.left_out = between.left_out, 0
            words = "%d lines were left out here: they were not read in time"
            told = logging.LogRecord(__name__, logging.WARNING, __file__, 0, words, (count,), None)
            _put_out(told, streams)
        _put_out(record, streams)


def _put_out(record: logging.LogRecord, streams: dict[logging.Handler, int]) -> None:
    for handler, descriptor in streams.items():
        if record.levelno < handler.level:
            continue
        try:
            view = memoryview(f"{handler.format(record)}\n".encode(errors="backslashreplace"))
            while view:
                view = view[os.write(descriptor, view) :]
        except Exception:  # its reader is gone, or the record cannot be formatted: there is nobody to tell
            continue
