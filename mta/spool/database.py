"""The queue's SQLite file: opened, locked, brought to this version's schema, stamped with its mode.

Between: `spool.queue` opens it; `mta spool` commands take the same lock.
Contract: one process at a time (flock on `lock`). Schema files are numbered and applied in order;
    `PRAGMA user_version` is the number of the last one.
Raises: SpoolError with words for the operator.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import aiosqlite

from mta import disk
from mta.spool import statements as sql

FILE = "queue.db"


class SpoolError(Exception):
    """The spool cannot be used; the text says why and what to do."""


def take_lock(directory: Path) -> int:
    """The descriptor that holds the spool's lock; closing it gives the lock back."""
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise SpoolError(f"{directory} is in use by another process; stop that one first") from None
    except OSError:  # a network file system without locks
        os.close(descriptor)
        raise
    return descriptor


async def in_thread(connector: Callable[[], sqlite3.Connection]) -> aiosqlite.Connection:
    """A connection in a thread of its own; where it cannot be made, the thread has ended."""
    connection = aiosqlite.Connection(connector, 64)
    try:
        return await connection
    except BaseException:
        # aiosqlite has told it to end and does not wait; it tells the loop, which may be closed by then.
        await asyncio.to_thread(connection._thread.join)
        raise


def connect(directory: Path) -> sqlite3.Connection:
    """The writer's connection, statements cached, transactions explicit."""
    (directory / FILE).touch(mode=0o600)  # SQLite would let everybody read it; -wal and -shm get the same
    connection = sqlite3.connect(directory / FILE, isolation_level=None, cached_statements=256)
    for pragma in sql.PRAGMAS:
        connection.execute(pragma)
    return connection


def connect_reader(directory: Path) -> sqlite3.Connection:
    """A second connection that can only read; WAL lets it read while the writer writes."""
    return disk.read_only(directory / FILE)


def checkpoint(connection: sqlite3.Connection) -> None:
    """Move to the database what no reader holds in the WAL."""
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


def scripts() -> list[str]:
    """The schema files, in order; this version's schema is their number."""
    return sorted(
        entry.name for entry in resources.files("mta.spool.schema").iterdir() if entry.name[:4].isdigit()
    )


def schema(connection: sqlite3.Connection) -> int:
    """The schema of the file; 0 where it is new."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to this version's schema."""
    files, version = scripts(), schema(connection)
    if version > len(files):
        raise SpoolError(
            f"the spool has schema {version}, this version knows {len(files)}: start the newer version again"
        )
    for number, name in enumerate(files[version:], version + 1):
        script = resources.files("mta.spool.schema").joinpath(name).read_text()
        connection.executescript(f"BEGIN;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")


def refuse_other_schema(connection: sqlite3.Connection) -> None:
    """Rows of another schema are not for this version to read."""
    version, known = schema(connection), len(scripts())
    if version > known:
        raise SpoolError(f"the spool has schema {version}, this version knows {known}: use the newer version")
    if version == 0:
        raise SpoolError(f"{FILE} is empty: put the one with the mail back, or start mta to begin a new one")
    if version < known:
        raise SpoolError(
            f"the spool has schema {version}, this version's is {known}: use the older version, "
            "or look again when mta serve has brought it up"
        )


def stamp(connection: sqlite3.Connection, name: str, value: str) -> str | None:
    """Keep a value beside the mail; what it was before, None where there was none."""
    row = connection.execute(sql.GET_META, (name,)).fetchone()
    former = None if row is None else str(row[0])
    if former != value:
        connection.execute(sql.SET_META, (name, value))
    return former


def claim_mode(connection: sqlite3.Connection, mode: str) -> None:
    """Stamp a new spool with its mode; refuse one that has the other."""
    row = connection.execute(sql.GET_META, ("mode",)).fetchone()
    if row is None:
        connection.execute(sql.SET_META, ("mode", mode))
    elif row[0] != mode:
        raise SpoolError(
            f"this spool was made for {row[0]} mode and the settings say {mode}: "
            f"use another spool.path, or set the mode back"
        )
