"""A spool in which mail waits, as many recipients as asked for: what a bad day leaves behind.

Between: `scale` fills spools as it needs them; the MTA `ours-backlog` of `relay` starts on a copy of
    `WAITING`.
Contract: deferred messages with one recipient each, spread evenly over their domains, never tried: the clock
    watch brings what was tried forward. `WAITING` is 1,000,000 of 2 KiB in 100,000 domains, due and expiring
    in 2100: nothing of it moves. It is made once in `/var/tmp` (3 GB), and again when the schema changes.
Raises: OSError, sqlite3.Error.
Why: written straight into the tables: to have a million messages accepted and deferred would take an hour.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from mta.core.queue.lifecycle import State
from mta.core.queueid import QueueIds
from mta.spool import database
from mta.spool import statements as sql

KEPT = Path("/var/tmp")
FAR = 4102444800.0  # 2100-01-01, seconds since the epoch
PRIORITY = -4  # that of bulk mail
LONG_AGO = 1700000000.0  # fresh mail gets higher ids
CONTENT = b"From: <a@src0.test>\r\nSubject: waiting\r\n\r\n" + 25 * (b"x" * 78 + b"\r\n")


class Backlog(NamedTuple):
    """What waits."""

    messages: int
    domains: int
    due: float = FAR
    expires: float = FAR
    content: bytes = CONTENT
    options: int = 0
    stuck: int = 0  # so many of the messages, the first ones, are for STUCK


STUCK = "stuck.test"
WAITING = Backlog(1_000_000, 100_000)


def place(directory: Path) -> None:
    """Put a copy where a daemon's spool will be."""
    shutil.copyfile(_kept(), directory / database.FILE)


def _kept() -> Path:
    schema = "".join(
        entry.read_text()
        for entry in sorted(resources.files("mta.spool.schema").iterdir(), key=lambda entry: entry.name)
        if entry.name.startswith("0")
    )
    said = f"{schema}{sql.PRAGMAS}{WAITING}"
    kept = KEPT / f"mta-backlog-{hashlib.sha256(said.encode()).hexdigest()[:12]}.db"
    if not kept.exists():
        print(f"making {kept}: {WAITING.messages} messages, once", file=sys.stderr, flush=True)
        for outdated in KEPT.glob("mta-backlog-*.db"):
            outdated.unlink()
        with tempfile.TemporaryDirectory(prefix="mta-backlog-", dir=KEPT) as name:
            fill(Path(name), WAITING)
            Path(name, database.FILE).rename(kept)
    return kept


def fill(directory: Path, backlog: Backlog) -> None:
    """Make a spool in a directory."""
    connection = database.connect(directory)
    try:
        connection.execute("PRAGMA synchronous = OFF")  # it is a benchmark's, not a client's
        database.migrate(connection)
        connection.execute("BEGIN")
        ids = [*_ids(backlog.messages)]
        _insert(connection, sql.INSERT_MESSAGES, 10, (_message(id, backlog) for id in ids))
        _insert(connection, sql.INSERT_BODIES, 2, ((id, backlog.content) for id in ids))
        _insert(
            connection, sql.INSERT_RECIPIENTS, 9, (_recipient(n, id, backlog) for n, id in enumerate(ids))
        )
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def _insert(connection: sqlite3.Connection, head: str, columns: int, rows: Iterable[tuple[Any, ...]]) -> None:
    connection.executemany(f"{head}({','.join('?' * columns)})", rows)


def _ids(messages: int) -> Iterator[int]:
    ids = QueueIds(0)
    return (ids.mint(LONG_AGO + n / 1000) for n in range(messages))


def _message(id: int, backlog: Backlog) -> tuple[Any, ...]:
    size, message_id = len(backlog.content), f"<{id}@src0.test>"
    return (
        id,
        "a@src0.test",
        "relay",
        "bulk",
        "relay",
        backlog.expires,
        size,
        message_id,
        backlog.options,
        PRIORITY,
    )


def _recipient(n: int, id: int, backlog: Backlog) -> tuple[Any, ...]:
    domain = STUCK if n < backlog.stuck else f"waiting{n % backlog.domains}.test"
    return id, 0, f"b{n}@{domain}", domain, PRIORITY, "relay", int(State.DEFERRED), 0, backlog.due
