"""A spool in which a million recipients wait: what a bad day leaves behind.

Between: the MTA `ours-backlog` of `relay` starts on a copy of it.
Contract: 1,000,000 deferred messages with one recipient and 2 KiB each, in 100,000 domains, due and expiring
    in 2100: nothing of it moves. Made once in `/var/tmp` (3 GB), and again when the schema changes.
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
from typing import Any

from mta.core.lifecycle import State
from mta.core.queueid import QueueIds
from mta.spool import database
from mta.spool import statements as sql

KEPT = Path("/var/tmp")
MESSAGES = 1_000_000
DOMAINS = 100_000
FAR = 4102444800.0  # 2100-01-01, seconds since the epoch
LONG_AGO = 1700000000.0  # fresh mail gets higher ids
CONTENT = b"From: <a@src0.test>\r\nSubject: waiting\r\n\r\n" + 25 * (b"x" * 78 + b"\r\n")


def place(directory: Path) -> None:
    """Put a copy where a daemon's spool will be."""
    shutil.copyfile(_kept(), directory / database.FILE)


def _kept() -> Path:
    schema = "".join(
        entry.read_text()
        for entry in sorted(resources.files("mta.spool.schema").iterdir(), key=lambda entry: entry.name)
        if entry.name.startswith("0")
    )
    said = f"{schema}{sql.PRAGMAS}{MESSAGES}{DOMAINS}{CONTENT!r}"
    kept = KEPT / f"mta-backlog-{hashlib.sha256(said.encode()).hexdigest()[:12]}.db"
    if not kept.exists():
        print(f"making {kept}: {MESSAGES} messages, once", file=sys.stderr, flush=True)
        for outdated in KEPT.glob("mta-backlog-*.db"):
            outdated.unlink()
        with tempfile.TemporaryDirectory(prefix="mta-backlog-", dir=KEPT) as name:
            _fill(Path(name))
            Path(name, database.FILE).rename(kept)
    return kept


def _fill(directory: Path) -> None:
    connection = database.connect(directory)
    try:
        connection.execute("PRAGMA synchronous = OFF")  # it is a benchmark's, not a client's
        database.migrate(connection)
        connection.execute("BEGIN")
        ids = [*_ids()]
        _insert(connection, sql.INSERT_MESSAGES, 9, (_message(id) for id in ids))
        _insert(connection, sql.INSERT_BODIES, 2, ((id, CONTENT) for id in ids))
        _insert(connection, sql.INSERT_RECIPIENTS, 8, (_recipient(n, id) for n, id in enumerate(ids)))
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def _insert(connection: sqlite3.Connection, head: str, columns: int, rows: Iterable[tuple[Any, ...]]) -> None:
    connection.executemany(f"{head}({','.join('?' * columns)})", rows)


def _ids() -> Iterator[int]:
    ids = QueueIds(0)
    return (ids.mint(LONG_AGO + n / 1000) for n in range(MESSAGES))


def _message(id: int) -> tuple[Any, ...]:
    return id, "a@src0.test", "relay", "bulk", "relay", FAR, len(CONTENT), f"<{id}@src0.test>", 0


def _recipient(n: int, id: int) -> tuple[Any, ...]:
    domain = f"waiting{n % DOMAINS}.test"
    return id, 0, f"b{n}@{domain}", domain, "relay", int(State.DEFERRED), 5, FAR
