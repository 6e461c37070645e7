"""A person leaves the queue.

Between: `mta spool erase`, under the spool's lock; the event log is rewritten by `events.segments`.
Contract: `erase` removes the recipients with the address, and each message that has none left then, with
    its content, and the address from what was said of others. `forget` comes last: it removes from the disk
    what was deleted, by writing the database anew, and needs as much space again.
Raises: SpoolError, sqlite3.Error, OSError.
Standards: GDPR article 17.
Why: what the person has sent stays. It is mail to others, is gone by its expiry, and taking it away is
    another decision than forgetting an address: `mta spool export --sender` does that.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from mta.core.event import Type, about
from mta.core.mail.erasure import ERASED, Erasure
from mta.core.model import Message, Recipient
from mta.core.queue.lifecycle import Cause, State, move
from mta.disk import words
from mta.spool import statements as sql
from mta.spool.commit import Update
from mta.spool.database import SpoolError, connect, connect_reader
from mta.spool.queue import Spool
from mta.spool.reader import message_of

PAGE = 1000  # recipients in one commit
REASON = "erased at the request of the person"


class Erased(NamedTuple):
    """What left the queue, and what stays there."""

    recipients: int
    messages: int  # that had no other recipient
    sent: int  # messages in the queue that the person has sent
    until: float | None  # when the last of them expires at the latest


async def erase(path: Path, spool: Spool, person: Erasure, now: float) -> Erased:
    """Remove a person's recipients from the spool of `path`, which runs."""
    recipients = messages = 0
    with closing(connect_reader(path)) as connection:
        connection.create_function("names", 1, person.names, deterministic=True)
        while rows := connection.execute(sql.OF_PERSON, (person.domain, PAGE)).fetchall():
            for n, *row in rows:
                _cancel(spool, message_of(row, []), Recipient(n, ERASED, person.domain), now)
            await spool.lease([])  # with the same commit
            ids = {row[1] for row in rows}
            recipients += len(rows)
            messages += len(ids) - connection.execute(sql.LEFT, (json.dumps(list(ids)),)).fetchone()[0]
        await _erase_words(connection, spool, person)
        sent, until = connection.execute(sql.FROM_PERSON).fetchone()
    return Erased(recipients, messages, sent, until)


async def _erase_words(connection: sqlite3.Connection, spool: Spool, person: Erasure) -> None:
    """A peer's words about one recipient may name another."""

    def without(last: str | None) -> str | None:
        return None if last is None else person.line(last.encode()).decode().rstrip("\n")

    connection.create_function("mentions", 1, lambda last: without(last) != last, deterministic=True)
    while rows := connection.execute(sql.OF_OTHERS, (PAGE,)).fetchall():
        await spool.lease(
            [
                Update(State(state), attempts, due, message, n, without(last))
                for state, attempts, due, message, n, last in rows
            ]
        )


def _cancel(spool: Spool, message: Message, recipient: Recipient, now: float) -> None:
    move(State.DEFERRED, Cause.CANCEL)  # where they all stand: nothing is under way, the lock is ours
    event = about(Type.CANCEL, message, recipient, now)
    event.reason = REASON
    spool.settle(message, [recipient], [], [event])


def refuse_undrained(path: Path) -> None:
    """Lines that the event log did not take are out of reach of who rewrites it."""
    with closing(connect_reader(path)) as connection:
        (count,) = connection.execute(sql.UNDRAINED).fetchone()
    if count:
        raise SpoolError(
            "the event log did not take its last lines, and they may name the person: "
            "the queue is done, the event log is not; see to the log and repeat the command"
        )


def forget(path: Path) -> None:
    """What is deleted cannot be read from the files any more."""
    try:
        with closing(connect(path)) as connection:
            for statement in sql.FORGET:
                connection.execute(statement).fetchall()
    except sqlite3.Error as error:
        raise SpoolError(
            f"queue and event log are done, but what was deleted can still be read from free pages of the "
            f"database: {words(error)}; then repeat the command"
        ) from error
