"""Reading the queue, beside the writer.

Between: the retries ask what is due, delivery asks for contents, operators ask what there is.
Contract: a read-only connection in a thread of its own (WAL: it never waits for the writer). Messages
    come without their content and with the recipients that were asked for.
Raises: SpoolError where a content is missing, which must not be, or where the disk cannot be read.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from mta import disk
from mta.core.limits.adaptive import Learned, Saved, Suspended
from mta.core.model import Line, Message, Recipient
from mta.core.queueid import created, text
from mta.spool import database
from mta.spool import statements as sql
from mta.spool.bodies import Bodies

SLICE = 5000  # recipients that one question looks at

_DUE, _ID = 5, 6  # where they stand in a row of a recipient with its message

Key = tuple[int, int]  # of a recipient: message, n
LAST: Key = (2**63 - 1, 0)

Rows = list[tuple[Any, ...]]
Found = TypeVar("Found")

_TAGS = msgspec.json.Decoder(tuple[str, ...])
_TENANTS = msgspec.json.Decoder(tuple[Suspended, ...])


class Due(NamedTuple):
    """What was found for one line."""

    messages: list[Message]
    rest: float | None  # when the next one after these is due, or was


class Reader:
    """Questions to the queue."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self.damaged: str | None = None  # what is on disk is not what was written; until the next start

    async def open(self, directory: Path) -> None:
        self._connection = await database.in_thread(partial(database.connect_reader, directory))

    async def close(self) -> None:
        await self._connection.close()

    async def lines(self) -> list[tuple[Line, float]]:
        """Every line with mail that waits, and its earliest due time."""
        return [(Line(*line), due) for *line, due in await self._rows(sql.LINES)]

    async def due(self, wanted: Iterable[tuple[Line, int]], now: float) -> list[Due]:
        """Of each line so many recipients that are due, oldest first; all in one visit to the thread."""

        def look(connection: sqlite3.Connection) -> list[Due]:
            return [
                _due(connection.execute(sql.DUE, (*line, limit + 1)), now, limit) for line, limit in wanted
            ]

        return await self._ask(look)

    async def expired(self, after: tuple[float, int], now: float, limit: int) -> list[Message]:
        """Waiting recipients of messages whose time is over, from the message after this (expires, id) on.

        About as many as the limit: the last message has all of its own.
        """

        def look(connection: sqlite3.Connection) -> list[Message]:
            rows: Rows = []
            for row in connection.execute(sql.EXPIRED, (*after, now)):
                if len(rows) >= limit and row[_ID] != rows[-1][_ID]:
                    break
                rows.append(row)
            return _messages(rows)

        return await self._ask(look)

    async def fresh(self, after: Key) -> tuple[list[Key], Key | None]:
        """Of the next recipients behind one those in their first attempt, and where to go on."""

        def look(connection: sqlite3.Connection) -> tuple[list[Key], Key | None]:
            end = connection.execute(sql.SLICE_END, (*after, SLICE)).fetchone()
            rows = connection.execute(sql.FRESH, (*after, *(end or LAST))).fetchall()
            return rows, end

        return await self._ask(look)

    async def recipients(self, wanted: list[Key]) -> list[tuple[Message, float | None]]:
        """Those of these that are still there, each with its due time (None: in its first attempt)."""
        return [(_message(row), row[_DUE]) for row in await self._rows(sql.THESE, json.dumps(wanted))]

    async def oldest(self) -> float | None:
        """When the first message of the queue came in; None where there is none."""
        ((first,),) = await self._rows(sql.FIRST_MESSAGE)
        return None if first is None else created(first)

    async def slice(self, after: int, end: int, most: int) -> int | None:
        """The last of the next so many messages between two ids; None where there are none."""
        rows = await self._rows(sql.SLICE, after, end, most)
        last: int | None = rows[0][0]
        return last

    async def too_far(self, values: Mapping[str, float], most: int) -> int | None:
        """The last message of the next so many retries that wait too long after the clock was set back."""

        def look(connection: sqlite3.Connection) -> int | None:
            found: tuple[int | None] = connection.execute(sql.TOO_FAR, {**values, "most": most}).fetchone()
            return found[0]

        return await self._ask(look)

    async def learned(self) -> dict[str, Saved]:
        """What branches have learned, by name; who was used longest ago stands first."""

        def look(connection: sqlite3.Connection) -> dict[str, Saved]:
            rows = connection.execute(sql.LEARNED)
            many = len(Learned._fields)
            return {
                name: Saved._make((Learned(*row[:many]), *row[many:], bool(barred), _TENANTS.decode(tenants)))
                for name, *row, barred, tenants in rows
            }

        return await self._ask(look)

    async def content(self, message: int) -> bytes:
        """A message's content."""
        rows = await self._rows(sql.CONTENT, message)
        if not rows:
            raise database.SpoolError(f"the content of {text(message)} is missing")
        (content,) = rows[0]
        if content is None:
            return await self._file(message)
        return bytes(content)

    async def heads(self, messages: list[int], octets: int) -> dict[int, bytes]:
        """The first octets of these messages' contents; what cannot be read is left out."""
        found: dict[int, bytes] = dict(await self._rows(sql.HEADS, octets, json.dumps(messages)))
        for message in [message for message, content in found.items() if content is None]:
            try:
                found[message] = await self._file(message, octets)
            except database.SpoolError:
                del found[message]
        return found

    async def queue(self, limit: int) -> list[tuple[Message, float | None]]:
        """Recipients, oldest message first, each with its due time (None: the first attempt is under way)."""
        return [(_message(row), row[_DUE]) for row in await self._rows(sql.LIST, limit)]

    async def _rows(self, statement: str, *values: object) -> Rows:
        return await self._ask(lambda connection: connection.execute(statement, values).fetchall())

    async def _ask(self, look: Callable[[sqlite3.Connection], Found]) -> Found:
        run = partial(look, self._connection._conn)
        try:
            return await self._connection._execute(run)  # type: ignore[no-any-return, no-untyped-call]
        except sqlite3.Error as error:
            said = disk.words(error)
            if disk.is_damage(error):
                self.damaged = said
            raise database.SpoolError(f"the spool cannot be read: {said}") from error

    async def _file(self, message: int, octets: int = -1) -> bytes:
        try:
            return await asyncio.to_thread(self._bodies.read, message, octets)
        except OSError as error:
            said = f"the content of {text(message)} cannot be read: {disk.words(error)}"
            raise database.SpoolError(said) from error


def _due(rows: Iterable[tuple[Any, ...]], now: float, limit: int) -> Due:
    due: Rows = []
    for row in rows:
        if len(due) == limit or row[_DUE] > now:
            return Due(_messages(due), row[_DUE])
        due.append(row)
    return Due(_messages(due), None)


def message_of(row: Sequence[Any], recipients: list[Recipient], metadata: str | None = None) -> Message:
    """A message of its columns in `spool.statements`."""
    queue_id, sender, tenant, stream, credential, expires, size, message_id, options, *rest = row
    priority, tags, score, body_hash, return_path = rest
    return Message(
        queue_id, sender, tenant, stream, credential, expires, size, message_id, options, recipients,
        priority=priority, tags=() if tags is None else _readable(tags), score=score,
        metadata=metadata or "", body_hash=body_hash or b"", return_path=return_path or "",
    )  # fmt: skip


def _readable(tags: str) -> tuple[str, ...]:
    """Mail goes without them where they are damaged; `mta spool verify` tells."""
    try:
        return _TAGS.decode(tags)
    except (ValueError, TypeError):
        return ()


def _message(row: tuple[Any, ...]) -> Message:
    return message_of(row[_ID:], [Recipient(*row[:_DUE])])


def _messages(rows: Rows) -> list[Message]:
    """Rows -> messages, the recipients of one message together."""
    found: dict[int, Message] = {}
    for row in rows:
        message = _message(row)
        known = found.setdefault(message.id, message)
        if known is not message:
            known.recipients += message.recipients
    return list(found.values())
