"""Messages leave the spool for a directory, as copies or for good.

Between: `mta spool export`; `spool.parcel` has the form of the files.
Contract: `pages` puts a page of messages into the directory, synced, before it yields them. Beside a
    daemon what is delivered meanwhile is left out. `remove` returns when a page has left the queue, with a
    `cancel` event for each recipient; a crash between the two leaves its messages in both places.
Raises: SpoolError, ParcelError, OSError, sqlite3.Error.
Why: a message goes as a whole, with all its recipients, also where one of them selected it: half a
    message would come back to a spool that has the other half under the same queue id.
    Each page is read in a transaction of its own: one for all would let the WAL grow under a daemon.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from mta.core.event import Type, about
from mta.core.lifecycle import Cause, State, move
from mta.core.model import Message, Recipient
from mta.core.queueid import text
from mta.spool import statements as sql
from mta.spool.bodies import Bodies
from mta.spool.database import SpoolError, connect_reader
from mta.spool.parcel import Record, Row, record_of, write
from mta.spool.queue import Spool

PAGE = 128  # messages; two files of each are open at once, of 1024 that a process usually may open
PAGE_OCTETS = 16 * 1024 * 1024  # of contents in memory; a larger one goes alone


class Selection(NamedTuple):
    """Which messages; one of the conditions of `spool.statements`, and its value."""

    condition: str
    value: str | None

    @classmethod
    def all(cls) -> Selection:
        return cls(sql.ANY, None)

    @classmethod
    def queue_ids(cls, ids: Sequence[int]) -> Selection:
        return cls(sql.BY_ID, json.dumps(ids))

    @classmethod
    def domains(cls, domains: Sequence[str]) -> Selection:
        """With a recipient in one of these."""
        return cls(sql.BY_DOMAIN, json.dumps(domains))

    @classmethod
    def tenant(cls, tenant: str) -> Selection:
        return cls(sql.BY_TENANT, tenant)

    @classmethod
    def sender(cls, address: str) -> Selection:
        return cls(sql.BY_SENDER, address)


def pages(spool: Path, directory: Path, selection: Selection) -> Iterator[list[Message]]:
    """Write the selected messages; each page when it is in the directory."""
    with closing(connect_reader(spool)) as connection:
        (mode,) = connection.execute(sql.GET_META, ("mode",)).fetchone()
        _refuse_unknown(connection, selection)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        bodies = Bodies(spool / "bodies")
        last = 0
        while page := _page(connection, selection, last):
            last = page[-1][0].id
            written: list[Message] = []
            for parcels in _loads(connection, bodies, page, mode):
                write(directory, [(record, content) for _, record, content in parcels])
                written += [message for message, _, _ in parcels]
            yield written


async def remove(spool: Spool, messages: Sequence[Message], reason: str, now: float) -> None:
    """Take these out of the queue, as they were exported."""
    move(State.DEFERRED, Cause.CANCEL)  # where they all stand: nothing is under way, the lock is ours
    for message in messages:
        events = [about(Type.CANCEL, message, recipient, now) for recipient in message.recipients]
        for event in events:
            event.reason = reason
        spool.settle(message, message.recipients, [], events)
    await spool.lease([])  # with the same commit


def _refuse_unknown(connection: sqlite3.Connection, selection: Selection) -> None:
    if selection.condition == sql.BY_ID:
        unknown = [text(message) for (message,) in connection.execute(sql.UNKNOWN, (selection.value,))]
        if unknown:
            raise SpoolError(f"not in the queue (delivered, or never here): {', '.join(unknown)}")


def _page(connection: sqlite3.Connection, selection: Selection, last: int) -> list[tuple[Message, list[Row]]]:
    connection.execute("BEGIN")
    try:
        statement = sql.EXPORT.format(selection.condition)
        messages = [
            replace(Message(*row), priority=priority)
            for *row, priority in connection.execute(statement, (last, selection.value, PAGE)).fetchall()
        ]
        rows: dict[int, list[Row]] = {message.id: [] for message in messages}
        ids = json.dumps(list(rows))
        for message, *row in connection.execute(sql.RECIPIENTS_OF, (ids,)):
            rows[message].append(Row(*row))
    finally:
        connection.execute("COMMIT")
    for each in messages:
        each.recipients = [Recipient(row.n, row.address, row.domain, row.attempts) for row in rows[each.id]]
        each.whole = True
    return [(each, rows[each.id]) for each in messages]


def _loads(
    connection: sqlite3.Connection, bodies: Bodies, page: Sequence[tuple[Message, list[Row]]], mode: str
) -> Iterator[list[tuple[Message, Record, bytes]]]:
    """The page with its contents, in as many parts as memory asks for."""
    parcels: list[tuple[Message, Record, bytes]] = []
    octets = 0
    for message, rows in page:
        content = _content(connection, bodies, message.id)
        if content is None:
            continue
        if parcels and octets + len(content) > PAGE_OCTETS:
            yield parcels
            parcels, octets = [], 0
        parcels.append((message, record_of(message, rows, content, mode), content))
        octets += len(content)
    if parcels:
        yield parcels


def _content(connection: sqlite3.Connection, bodies: Bodies, message: int) -> bytes | None:
    """None where the message has left meanwhile."""
    row = connection.execute(sql.CONTENT, (message,)).fetchone()
    try:
        if row is not None:
            return bodies.read(message) if row[0] is None else bytes(row[0])
    except FileNotFoundError:
        pass
    if connection.execute(sql.UNKNOWN, (json.dumps([message]),)).fetchone() is None:
        raise SpoolError(f"the content of {text(message)} is missing: `mta spool verify` says more")
    return None
