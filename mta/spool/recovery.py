"""What a start makes of a spool: its schema and mode, and what the last end has left undone.

Between: `spool.queue` calls it in the writer's thread, before anything else is written or dialled.
Contract: when `recover` returns it is on disk that every first attempt that was under way is due after its
    wait, and no content is left without its message. `first_retry` is in seconds.
Raises: SpoolError for a schema or a mode that is not ours, or a database that was lost; sqlite3.Error and
    OSError where the disk fails.
Why: a crash loop must not hammer a peer. What is found at each point of an end: `spool.crash`.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from pathlib import Path
from typing import NamedTuple

from mta.clock import Clock
from mta.core.limits.budget import LEARNED
from mta.core.queue.lifecycle import Cause, State, move
from mta.spool import database, slack
from mta.spool import statements as sql
from mta.spool.backup import keep_former
from mta.spool.bodies import Bodies, contents
from mta.spool.commit import Committed
from mta.spool.database import SpoolError
from mta.spool.tally import Held

REMEMBERED = 30 * 86400.0  # seconds that a branch's limits are of any use

log = logging.getLogger(__name__)


class Found(NamedTuple):
    """What there is."""

    outbox: list[Committed]  # not drained
    next_seq: int  # of the next line
    last_id: int  # the newest queue id that anything on disk knows
    recipients: int
    held: list[Held]


def recover(
    connection: sqlite3.Connection,
    directory: Path,
    mode: str,
    bodies: Bodies,
    clock: Clock,
    first_retry: float,
) -> Found:
    """Make good what was left."""
    _refuse_lost(connection, directory)
    former = keep_former(directory, connection)
    if former is not None:
        log.warning("this version changes the spool; as it was before it is kept in %s", former)
    database.migrate(connection)
    slack.convert(connection)
    database.claim_mode(connection, mode)
    outbox = [
        Committed(seq, seq + max(lines.count(b"\n"), 1), lines, json.loads(finished))
        for seq, lines, finished in connection.execute(sql.OUTBOX)
    ]
    next_seq = max([_meta(connection, "next_seq"), 1, *(row.next_seq for row in outbox)])
    (newest,) = connection.execute(sql.LAST_MESSAGE).fetchone()
    finished = [id for row in outbox for id in row.finished]
    last_id = max([_meta(connection, "last_id"), newest or 0, *finished])
    orphans = bodies.sweep({message for (message,) in connection.execute(sql.ALL_FILES)})
    if orphans:
        log.info("removed %d contents that a crash had left without their message", orphans)
    state = int(move(State.FRESH, Cause.RECOVER))
    connection.execute(sql.RECOVER, (state, clock.now(), first_retry, first_retry / 10))
    connection.execute(sql.UNLEARN, (clock.now() - REMEMBERED, LEARNED))
    (recipients,) = connection.execute(sql.RECIPIENTS).fetchone()
    held: list[Held] = connection.execute(sql.HELD).fetchall()
    return Found(outbox, next_seq, last_id, recipients, held)


def _refuse_lost(connection: sqlite3.Connection, directory: Path) -> None:
    """A database that begins beside contents is not theirs, and the sweep would be their end."""
    count = sum(1 for _ in contents(directory / "bodies")) if database.schema(connection) == 0 else 0
    if count:
        raise SpoolError(
            f"{directory / database.FILE} is missing or empty, and bodies/ holds {count} contents: "
            "put it back, with its -wal, or the last backup as a whole; to begin anew move bodies/ away"
        )


def _meta(connection: sqlite3.Connection, name: str) -> int:
    row = connection.execute(sql.GET_META, (name,)).fetchone()
    return int(row[0]) if row else 0
