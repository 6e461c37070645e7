"""Reading the queue, beside the writer.

Between: the scheduler asks what is due, delivery asks for contents, operators ask what there is.
Contract: a read-only connection in a thread of its own (WAL: it never waits for the writer). Messages
    come without their content and with the recipients that were asked for.
Raises: SpoolError where a content is missing, which must not be.
"""

from __future__ import annotations

import asyncio
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

from mta.core.lifecycle import State
from mta.core.model import Message, Recipient
from mta.core.queueid import text
from mta.spool import database
from mta.spool import statements as sql
from mta.spool.bodies import Bodies

Rows = list[tuple[Any, ...]]


class Reader:
    """Questions to the queue."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies

    async def open(self, directory: Path) -> None:
        self._connection = await database.in_thread(partial(database.connect_reader, directory))

    async def close(self) -> None:
        await self._connection.close()

    async def due_domains(self) -> list[tuple[str, float]]:
        """Every domain with mail that waits, and its earliest due time."""
        return [(domain, due) for domain, due in await self._rows(sql.DUE_DOMAINS)]

    async def next_due(self, domain: str) -> float | None:
        """When the domain's next attempt is due; None where nothing waits."""
        ((due,),) = await self._rows(sql.NEXT_DUE, domain)
        return None if due is None else float(due)

    async def due(self, domain: str, now: float, limit: int) -> list[Message]:
        """The domain's recipients that are due, oldest first, with their messages."""
        return _messages(await self._rows(sql.DUE, domain, now, limit))

    async def expired(self, now: float, limit: int) -> list[Message]:
        """Waiting recipients of messages whose time is over."""
        return _messages(await self._rows(sql.EXPIRED, now, limit))

    async def content(self, message: int) -> bytes:
        """A message's content."""
        return await self._content(message, -1, sql.CONTENT, message)

    async def head(self, message: int, octets: int) -> bytes:
        """The first octets of a message's content."""
        return await self._content(message, octets, sql.HEAD, octets, message)

    async def _content(self, message: int, octets: int, statement: str, *values: object) -> bytes:
        rows = await self._rows(statement, *values)
        if not rows:
            raise database.SpoolError(f"the content of {text(message)} is missing")
        (content,) = rows[0]
        if content is None:
            return await asyncio.to_thread(self._bodies.read, message, octets)
        return bytes(content)

    async def counts(self) -> dict[str, int]:
        """How many recipients stand in each state."""
        return {State(state).name.lower(): count for state, count in await self._rows(sql.COUNT)}

    async def queue(self, limit: int) -> list[tuple[Message, float | None]]:
        """Recipients, oldest message first, each with its due time (None: the first attempt is under way)."""
        return [(_message(row), row[-1]) for row in await self._rows(sql.LIST, limit)]

    async def _rows(self, statement: str, *values: object) -> Rows:
        def run() -> Rows:
            connection: sqlite3.Connection = self._connection._conn
            return connection.execute(statement, values).fetchall()

        return await self._connection._execute(run)  # type: ignore[no-any-return, no-untyped-call]


def _message(row: tuple[Any, ...]) -> Message:
    queue_id, n, address, domain, attempts, sender, tenant, stream, credential, *rest, _ = row
    expires, size, message_id, options = rest
    recipient = Recipient(n, address, domain, attempts)
    return Message(
        queue_id, sender, tenant, stream, credential, expires, size, message_id, options, [recipient]
    )


def _messages(rows: Rows) -> list[Message]:
    """Rows -> messages, the recipients of one message together."""
    found: dict[int, Message] = {}
    for row in rows:
        message = _message(row)
        known = found.setdefault(message.id, message)
        if known is not message:
            known.recipients += message.recipients
    return list(found.values())
