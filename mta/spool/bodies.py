"""Large contents, each in a file of its own beside the database.

Between: `spool.commit` writes them before its transaction, the reader reads them, the drain removes them.
Contract: a file is on disk, its name too, when `write` returns, and only then is its row committed: a row
    without its file cannot be. A file without its row can be, after a crash: `sweep` removes it.
Raises: OSError where one cannot be written or read.
Why: SQLite writes a large blob twice (WAL, then checkpoint) and frees it page by page, but pages that are
    used again before a checkpoint are written once, so blobs win for longer than one would think: up to
    150 to 180 KiB by CPU, 250 to 270 KiB by time (`python -m benchmarks.figures.bodies` prints both). All
    files of a group are written, then all synced: the first sync's journal commit serves the others.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from mta.core.queueid import parse, text
from mta.disk import sync_names

SLICE = 2 * 1024 * 1024  # octets
THRESHOLD = 192 * 1024  # octets; a smaller content is cheaper in the database


class Bodies:
    """The folder of large contents."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _path(self, message: int) -> Path:
        return self._directory / text(message)

    def write(self, contents: Iterable[tuple[int, bytes]]) -> None:
        """Put the contents of these messages on disk, all of them or none."""
        written: list[int] = []
        descriptors: list[int] = []
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            for message, content in contents:
                descriptors.append(os.open(self._path(message), flags, 0o600))
                written.append(message)
                _write(descriptors[-1], content)
            for descriptor in descriptors:
                os.fdatasync(descriptor)
            sync_names(self._directory)
        except OSError:
            self.remove(written)
            raise
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def read(self, message: int, octets: int = -1) -> bytes:
        """A content, or its first octets."""
        with self._path(message).open("rb") as file:
            return file.read(octets)

    def remove(self, messages: Iterable[int]) -> dict[int, OSError]:
        """Contents that nobody needs any more, and why some are still there; a start removes those."""
        left: dict[int, OSError] = {}
        for message in messages:
            try:
                self._path(message).unlink(missing_ok=True)
            except OSError as error:
                left[message] = error
        return left

    def sweep(self, known: set[int]) -> int:
        """Remove files without a row, as a crash may leave them; how many there were."""
        if not self._directory.exists():
            self._directory.mkdir(mode=0o700)
            sync_names(self._directory.parent)  # else a power cut could take the folder with its files
        orphans = [message for message in contents(self._directory) if message not in known]
        return len(orphans) - len(self.remove(orphans))


def _write(descriptor: int, content: bytes) -> None:
    """Each slice is synced before the next is written: a sync of others waits for one, not for all."""
    view = memoryview(content)
    while view:
        slice_ = view[:SLICE]
        while slice_:
            slice_ = slice_[os.write(descriptor, slice_) :]
        view = view[SLICE:]
        if view:
            os.fdatasync(descriptor)


def contents(directory: Path) -> Iterator[int]:
    """The messages whose contents lie in a folder."""
    if not directory.exists():  # nobody has served here yet
        return
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                yield parse(entry.name)
            except ValueError:
                continue  # not one of ours
