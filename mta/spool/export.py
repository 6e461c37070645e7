"""Messages leave the spool for a directory, as copies or for good.

Between: `mta spool export`; `spool.parcel` has the form of the files.
Contract: `pages` puts a page of messages into the directory, synced, before it yields them. Beside a
    daemon what is delivered meanwhile is left out. What cannot be read is put into `lost`, and all else is
    written: from a damaged database as much as can be had. `remove` returns when a page has left the queue,
    with a `cancel` event for each recipient; a crash between the two leaves its messages in both places.
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
from pathlib import Path
from typing import NamedTuple

from mta.core.event import Type, about
from mta.core.model import Message, Recipient
from mta.core.queue.lifecycle import Cause, State, move
from mta.core.queueid import text
from mta.disk import is_damage
from mta.spool import salvage
from mta.spool import statements as sql
from mta.spool.bodies import Bodies
from mta.spool.database import SpoolError, connect_reader, refuse_other_schema
from mta.spool.parcel import Record, SpooledRecipient, record_of, write
from mta.spool.queue import Spool
from mta.spool.reader import message_of

PAGE = 128  # messages; two files of each are open at once, of 1024 that a process usually may open
PAGE_OCTETS = 16 * 1024 * 1024  # of contents in memory; a larger one goes alone

Page = list[tuple[Message, list[SpooledRecipient]]]


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


class Lost(NamedTuple):
    """A message that could not be exported."""

    id: int
    why: str


def pages(
    spool: Path, directory: Path, selection: Selection, mode: str, lost: list[Lost]
) -> Iterator[list[Message]]:
    """Write the selected messages; each page when it is there. `mode` is for a spool that forgot its own."""
    with closing(connect_reader(spool)) as connection:
        refuse_other_schema(connection)
        _refuse_unknown(connection, selection)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        contents = _Contents(connection, Bodies(spool / "bodies"), _mode(connection) or mode, lost)
        for page in _walk(connection, selection, lost):
            written: list[Message] = []
            for parcels in contents.load(page):
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


def _mode(connection: sqlite3.Connection) -> str | None:
    try:
        (mode,) = connection.execute(sql.GET_META, ("mode",)).fetchone()
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise
        return None
    return str(mode)


def _refuse_unknown(connection: sqlite3.Connection, selection: Selection) -> None:
    if selection.condition != sql.BY_ID:
        return
    try:
        unknown = [text(message) for (message,) in connection.execute(sql.UNKNOWN, (selection.value,))]
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise
        return  # nobody can say
    if unknown:
        raise SpoolError(f"not in the queue (delivered, or never here): {', '.join(unknown)}")


def _is_damage(error: sqlite3.Error) -> bool:
    """Text that is not UTF-8 is damage, too; Python says so without a code of SQLite's."""
    return is_damage(error) or not hasattr(error, "sqlite_errorcode")


def _walk(connection: sqlite3.Connection, selection: Selection, lost: list[Lost]) -> Iterator[Page]:
    """All that is selected; behind a place that is damaged one by one, as far as it can be found."""
    last = 0
    try:
        while page := _page(connection, sql.EXPORT, selection, last):
            yield page
            last = page[-1][0].id
        return
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise
    page = []
    for message in salvage.queue_ids(connection):
        if message > last:
            page += _alone(connection, selection, message, lost)
        if len(page) == PAGE:
            yield page
            page = []
    if page:
        yield page


def _alone(connection: sqlite3.Connection, selection: Selection, message: int, lost: list[Lost]) -> Page:
    try:
        found = _page(connection, sql.EXPORT_ONE, selection, message)
        if not found and not _page(connection, sql.EXPORT_ONE, Selection.all(), message):
            lost.append(Lost(message, "its row is missing"))
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise
        lost.append(Lost(message, "its rows are damaged"))
        return []
    return found


def _page(connection: sqlite3.Connection, statement: str, selection: Selection, message: int) -> Page:
    connection.execute("BEGIN")
    try:
        values = (message, selection.value, PAGE)
        messages = [
            message_of(row, [], metadata)
            for metadata, *row in connection.execute(statement.format(selection.condition), values).fetchall()
        ]
        rows: dict[int, list[SpooledRecipient]] = {message.id: [] for message in messages}
        ids = json.dumps(list(rows))
        for owner, *row in connection.execute(sql.RECIPIENTS_OF, (ids,)):
            rows[owner].append(SpooledRecipient(*row))
    finally:
        connection.execute("COMMIT")
    for each in messages:
        each.recipients = [Recipient(row.n, row.address, row.domain, row.attempts) for row in rows[each.id]]
        each.whole = True
    return [(each, rows[each.id]) for each in messages]


class _Contents:
    """Where the content of each message is found."""

    def __init__(self, connection: sqlite3.Connection, bodies: Bodies, mode: str, lost: list[Lost]) -> None:
        self._connection = connection
        self._bodies = bodies
        self._mode = mode
        self._lost = lost

    def load(self, page: Page) -> Iterator[list[tuple[Message, Record, bytes]]]:
        """The page with its contents, in as many parts as memory asks for."""
        parcels: list[tuple[Message, Record, bytes]] = []
        octets = 0
        for message, rows in page:
            content = self._find(message)
            if content is None:
                continue
            if parcels and octets + len(content) > PAGE_OCTETS:
                yield parcels
                parcels, octets = [], 0
            parcels.append((message, record_of(message, rows, content, self._mode), content))
            octets += len(content)
        if parcels:
            yield parcels

    def _find(self, message: Message) -> bytes | None:
        """None where the message has left meanwhile, or is lost."""
        try:
            row = self._connection.execute(sql.CONTENT, (message.id,)).fetchone()
            if row is not None:
                content = self._bodies.read(message.id) if row[0] is None else bytes(row[0])
                if len(content) == message.size:
                    return content
                self._lost.append(Lost(message.id, f"of its content {len(content)} octets are left"))
                return None
        except FileNotFoundError:
            pass
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self._lost.append(Lost(message.id, "its content is damaged"))
            return None
        # Asked after we looked: a content goes later than its message.
        if self._connection.execute(sql.UNKNOWN, (json.dumps([message.id]),)).fetchone() is None:
            self._lost.append(Lost(message.id, "its content is missing"))
        return None
