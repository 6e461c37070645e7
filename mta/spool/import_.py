"""Messages come into the spool from a directory that export has written.

Between: `mta spool import`, under the spool's lock; `spool.parcel` has the form of the files.
Contract: `check` reads every file and tells all that is wrong before anything is put in. `take` keeps
    state, attempts, due and expiry, and the queue id where it is free; otherwise the message gets another
    one of the same millisecond and instance. What is here already (one of these ids, the sender, size and
    SHA-256) is passed over, so an import that was cut off is simply repeated. One commit takes a bounded
    part. Once a daemon has delivered what was imported, importing it again sends it again.
Raises: SpoolError, ParcelError, OSError, sqlite3.Error.
Why: another id is found, not drawn: the same file comes to the same one when it is imported again.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from msgspec.json import encode

from mta.core.event import Event, Type, about
from mta.core.model import Message, Recipient
from mta.core.queue.lifecycle import State
from mta.core.queueid import others, parse, text
from mta.spool import statements as sql
from mta.spool.bodies import Bodies
from mta.spool.commit import Update
from mta.spool.database import SpoolError, connect_reader
from mta.spool.parcel import RECORD, ParcelError, Record, digest, names, read_content, read_record, strays
from mta.spool.queue import Spool

BATCH = 256  # messages in one commit
BATCH_OCTETS = 16 * 1024 * 1024  # of contents; a larger one goes alone


@dataclass
class Taken:
    """What an import did."""

    imported: int = 0
    recipients: int = 0
    here: int = 0  # messages that the spool had already
    renamed: list[tuple[str, str]] = field(default_factory=list)  # queue id: in the directory, here


def check(directory: Path, streams: Collection[str], mode: str) -> Iterator[str]:
    """Everything that is wrong with the directory."""
    try:
        yield from strays(directory)
        found = list(names(directory))
    except OSError as error:
        yield f"{directory}: {error.strerror}"
        return
    if not found:
        yield f"{directory}: there is no message in it"
    for name in found:
        try:
            record = read_record(directory / f"{name}{RECORD}")
            read_content(directory, record)
        except ParcelError as error:
            yield str(error)
            continue
        if record.stream not in streams:
            yield f"{directory / name}{RECORD}: the settings have no stream {record.stream!r}"
        if record.mode != mode:
            yield f"{directory / name}{RECORD}: it comes from a {record.mode} spool, and this one is {mode}"


async def take(directory: Path, path: Path, spool: Spool, now: float) -> Taken:
    """Put the messages of a directory that was checked into the spool of `path`, which runs."""
    taken = Taken()
    with closing(connect_reader(path)) as connection:
        importer = _Importer(spool, connection, Bodies(path / "bodies"), taken, now)
        for name in names(directory):
            record = read_record(directory / f"{name}{RECORD}")
            await importer.add(record, read_content(directory, record))
        await importer.commit()
    return taken


class _Importer:
    """Gathers what one commit will hold."""

    def __init__(
        self, spool: Spool, connection: sqlite3.Connection, bodies: Bodies, taken: Taken, now: float
    ) -> None:
        self._spool = spool
        self._connection = connection
        self._bodies = bodies
        self._taken = taken
        self._now = now
        self._messages: dict[int, tuple[Message, Record]] = {}
        self._octets = 0

    async def add(self, record: Record, content: bytes) -> None:
        if len(self._messages) >= BATCH or self._octets + len(content) > BATCH_OCTETS:
            await self.commit()
        queue_id = self._place(record)
        if queue_id is None:
            self._taken.here += 1
            return
        self._messages[queue_id] = (_message(record, queue_id, content), record)
        self._octets += len(content)

    def _place(self, record: Record) -> int | None:
        """The id that the message gets; None where it is here already."""
        wanted = parse(record.queue_id)
        for candidate in chain((wanted,), others(wanted)):
            if candidate in self._messages:
                continue
            row = self._connection.execute(sql.OWNER, (candidate,)).fetchone()
            if row is None:
                return candidate
            if self._is_here(candidate, row, record):
                return None
        raise SpoolError(f"{record.queue_id}: every queue id that it could have is taken")

    def _is_here(self, queue_id: int, row: tuple[str, int, bytes | None], record: Record) -> bool:
        sender, size, content = row
        if (sender, size) != (record.sender, record.size):
            return False
        return digest(self._bodies.read(queue_id) if content is None else content) == record.sha256

    async def commit(self) -> None:
        """All that was added, in one transaction."""
        messages, self._messages, self._octets = self._messages, {}, 0
        if not messages:
            return
        committed = asyncio.gather(*(self._put(message, record) for message, record in messages.values()))
        updates = [update for message, record in messages.values() for update in _updates(message, record)]
        await asyncio.gather(committed, self._spool.lease(updates))
        for message, record in messages.values():
            self._taken.imported += 1
            self._taken.recipients += len(message.recipients)
            if text(message.id) != record.queue_id:
                self._taken.renamed.append((record.queue_id, text(message.id)))

    def _put(self, message: Message, record: Record) -> asyncio.Future[None]:
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(error: Exception | None) -> None:
            if error is None:
                committed.set_result(None)
            else:
                committed.set_exception(error)

        self._spool.put(message, list(_receptions(message, record, self._now)), done)
        return committed


def _message(record: Record, queue_id: int, content: bytes) -> Message:
    return Message(
        queue_id,
        record.sender,
        record.tenant,
        record.stream,
        record.credential,
        record.expires.timestamp(),
        record.size,
        record.message_id,
        record.option_bits,
        [Recipient(each.n, each.address, each.domain, each.attempts) for each in record.recipients],
        content,
        True,
        priority=record.priority,
        tags=tuple(record.tags),
        score=record.score,
        metadata=record.metadata_text,
        body_hash=bytes.fromhex(record.body_hash),
        return_path=record.return_path,
    )


def _updates(message: Message, record: Record) -> Iterator[Update]:
    """What differs from a message that was just submitted; a fresh one is recovered by the next start."""
    for recipient in record.recipients:
        if recipient.due is not None:
            due = recipient.due.timestamp()
            last = None if recipient.last is None else encode(recipient.last).decode()
            yield Update(State.DEFERRED, recipient.attempts, due, message.id, recipient.n, last)


def _receptions(message: Message, record: Record, now: float) -> Iterator[Event]:
    for recipient in message.recipients:
        event = about(Type.RECEPTION, message, recipient, now)
        event.reason = "imported"
        if event.queue_id != record.queue_id:
            event.reason += f"; its queue id was {record.queue_id}"
        yield event
