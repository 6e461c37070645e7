"""What a file system does to a store: in words, and what we do so that it cannot make us lie.

Between: spool, store and event log ask for words; the writer looks at its `Place` before each commit.
Contract: `words` is for the operator: what, why, what to do. `rewrite` returns when all octets of a WAL
    that can be read are on disk. `Place.check` costs two stat(2) for a whole batch.
Raises: OSError.
Why: a sync that has failed tells once. The kernel may mark the pages clean that it could not write, and
    the next sync says yes without them. So nothing may rest on octets from before a failed sync:
    - While we run nothing does, and the connection stays. SQLite rolls such a commit back, its next one
      writes its frames over the same place in the WAL, and a checkpoint that failed copies every page
      again (it does not move on before its sync was good).
    - After a restart something would: recovery reads the WAL through the same cache, takes that commit for
      a good one and appends to it, and a power cut then ends the WAL before everything that came later.
      So we write the WAL over itself, with what can be read of it, before SQLite sees it.
    Ending the process would gain nothing, and send again what is not settled.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CHUNK = 1024 * 1024  # octets
PARTIAL = ".partial"  # how the name of a thing ends that is not whole yet

_ROOM = "free some space on its disk"
_WRITABLE = "make it writable for this user"
_DISK = "the disk fails: read the kernel's messages (dmesg) and move the spool to a disk that works"
_FILES = "let the process open more files (LimitNOFILE= in the unit)"
_DAMAGED = "stop the daemon and repair it, as docs/disk.md says"
_ADVICE = {
    sqlite3.SQLITE_FULL: _ROOM,
    sqlite3.SQLITE_READONLY: _WRITABLE,
    sqlite3.SQLITE_IOERR: _DISK,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: "move this file away, or set another spool.path",
    sqlite3.SQLITE_CANTOPEN: "see that its directory is there, that this user may write it, and that the "
    "process may open more files",
}
_ADVICE_BY_DETAIL = {
    sqlite3.SQLITE_IOERR_SHMSIZE: _ROOM,  # of the WAL's index, and SQLite does not call it full
}
_ADVICE_BY_ERRNO = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EROFS: _WRITABLE,
    errno.EACCES: _WRITABLE,
    errno.EPERM: _WRITABLE,
    errno.EIO: _DISK,
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
}
_OF_DATA = {
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_RANGE,
    sqlite3.SQLITE_TOOBIG,
}


def _code(error: BaseException) -> int:
    """SQLite's primary result code; 0 where it is not SQLite's."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def words(error: Exception) -> str:
    """What happened, and what to do."""
    if isinstance(error, OSError):
        advice = _ADVICE_BY_ERRNO.get(error.errno or 0)
    else:
        detail = getattr(error, "sqlite_errorcode", 0)
        advice = _ADVICE_BY_DETAIL.get(detail) or _ADVICE.get(_code(error))
    said = str(error)
    if _code(error) == sqlite3.SQLITE_IOERR:
        said += f" ({getattr(error, 'sqlite_errorname', '')})"  # which operation it was
    return f"{said}; {advice}" if advice else said


def is_damage(error: BaseException) -> bool:
    """Is what is on disk no longer what was written?"""
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_of_the_data(error: BaseException) -> bool:
    """Is it what was to be written that cannot be, and would everything else?

    Python raises before SQLite sees a value that it cannot bind; the machine's own faults are the disk's,
    and memory's.
    """
    if isinstance(error, OSError | MemoryError):
        return False
    return not isinstance(error, sqlite3.Error) or not _code(error) or _code(error) in _OF_DATA


def may_be_committed(error: BaseException) -> bool:
    """Can a commit that failed like this come back at the next start? Its frames may be in the WAL."""
    return _code(error) == sqlite3.SQLITE_IOERR


def rewrite(path: Path) -> None:
    """Write a file over itself and sync it: what can be read of it is on disk then."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        at = 0
        while octets := os.pread(descriptor, CHUNK, at):
            at += os.pwrite(descriptor, octets, at)
        os.fsync(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)


def create(path: Path) -> None:
    """An empty file for its owner alone, where there is none.

    It is not opened: a close of any descriptor of a file takes all locks of the process from it (POSIX
    fcntl), those of SQLite's other connections, too.
    """
    with suppress(FileExistsError):
        os.mknod(path, 0o600)


def sync_names(directory: Path) -> None:
    """New and changed names in a directory survive a power cut when this returns."""
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Whoever comes here for the same directory waits until we are through."""
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def give_to_owner(path: Path) -> None:
    """What root makes in a folder of ours is ours: `sudo mta ...` must not lock the daemon's own user out."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def read_only(path: Path) -> sqlite3.Connection:
    """A database as it is; nothing can be written by this connection."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)


class Place:
    """The database's files, and whether their names still stand for them."""

    def __init__(self, database: Path) -> None:
        self._paths = (database, database.with_name(f"{database.name}-wal"))
        self._inodes: list[tuple[int, int]] = []
        self.wal_size = 0  # octets, at the last look

    def note(self) -> None:
        """The files are open now."""
        self._inodes = [(status.st_dev, status.st_ino) for status in map(Path.stat, self._paths)]

    def check(self) -> None:
        """SQLite goes on writing to files that were removed, and a restart would find nothing."""
        for path, known in zip(self._paths, self._inodes, strict=True):
            try:
                status = path.stat()
            except FileNotFoundError:
                raise _gone(path, "removed or moved away") from None
            if (status.st_dev, status.st_ino) != known:
                raise _gone(path, "replaced")
        self.wal_size = status.st_size


def _gone(path: Path, what: str) -> OSError:
    return OSError(
        errno.ESTALE,
        f"{path} was {what} while the daemon runs; put the same file back, or save what this process still "
        "holds before it ends, as docs/disk.md says",
    )
