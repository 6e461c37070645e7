"""One transaction: everything that waited, in few statements.

Between: `spool.queue` gathers a `Group` in the loop; `commit` runs in the writer's thread.
Contract: all of a group is on disk when `commit` returns, or none of it is. Lines get their `seq` here.
Raises: sqlite3.Error after a rollback, OSError where a large content cannot be written.
Why: enqueues, settles and leases share one sync; the next group forms while this one is written.
"""

from __future__ import annotations

import itertools
import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import msgspec

from mta import disk
from mta.core.event import Event, encode_lines
from mta.core.limits.adaptive import Saved
from mta.core.model import Line, Message
from mta.core.queue.lifecycle import State
from mta.core.queueid import parse
from mta.spool import statements as sql
from mta.spool.bodies import THRESHOLD, Bodies
from mta.spool.tally import Held

ROWS = 64  # at most in one step; each number of rows is a statement of its own, prepared once

T = TypeVar("T")
Done = Callable[[Exception | None], None]


class Put(msgspec.Struct):
    """A message to own. `done` hears of the commit, or of its failure."""

    message: Message
    content: bytes
    events: list[Event]
    done: Done
    written: bool = False  # its content is on disk already, in a file of its own


class Update(NamedTuple):
    """A recipient's next attempt, in the order of the statement's placeholders."""

    state: State
    attempts: int
    due: float
    message: int
    n: int
    last: str | None = None  # what became of the one before (`core.queue.last`); None: as it is kept


class Times(NamedTuple):
    """A statement that moves the times of some messages."""

    statement: str
    values: dict[str, float] | tuple[float, int, int]


class Drained(NamedTuple):
    """Outbox rows up to `seq` are in the event log; these bodies are of no more use."""

    seq: int
    next_seq: int
    last_id: int
    finished: list[int]


@dataclass(slots=True)
class Group:
    """What one commit will hold."""

    puts: list[Put] = field(default_factory=list)
    whole: list[int] = field(default_factory=list)  # messages of which every recipient is final
    done: list[tuple[int, int]] = field(default_factory=list)  # single recipients that are final
    updates: list[Update] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    times: list[Times] = field(default_factory=list)  # changes of all times, where the clock was set
    learned: dict[str, Saved | None] = field(default_factory=dict)  # by branch; None: it is forgotten
    drained: Drained | None = None
    waiters: list[Done] = field(default_factory=list)  # who wants to know, besides the puts
    proof: int = 0  # a queue id to write after a failure: shows that the disk takes something
    outcomes: int = 0  # recipients settled here
    fresh: int = 0  # those of them whose first attempt it was
    since: float = math.inf  # monotonic; when the first of them was noted

    def __bool__(self) -> bool:
        return bool(
            self.puts
            or self.whole
            or self.done
            or self.updates
            or self.events
            or self.times
            or self.learned
            or self.drained
            or self.waiters
        )

    def parts(self) -> list[Group]:
        """The same, apart by message, what is new first: each can be committed without the others.

        Who waits, and the counts, belong to the whole.
        """
        found: dict[object, Group] = {}

        def part(key: object) -> Group:
            return found.setdefault(key, Group())

        for put in self.puts:
            part(put.message.id).puts.append(put)
        for message in self.whole:
            part(message).whole.append(message)
        for pair in self.done:
            part(pair[0]).done.append(pair)
        for update in self.updates:
            part(update.message).updates.append(update)
        for event in self.events:
            part(parse(event.queue_id) if event.queue_id else Event).events.append(event)
        for name, saved in self.learned.items():
            part(name).learned[name] = saved
        if self.drained is not None:
            part(Drained).drained = self.drained
        if self.proof:
            part(sql.SET_META).proof = self.proof
        for times in self.times:  # last: whoever hears that the group failed moves them again
            part(id(times)).times.append(times)
        return list(found.values())

    def join(self, other: Group) -> None:
        """What the other holds comes behind."""
        self.puts += other.puts
        self.whole += other.whole
        self.done += other.done
        self.updates += other.updates
        self.events += other.events
        self.times += other.times
        self.learned |= other.learned
        self.drained = _later(self.drained, other.drained)
        self.waiters += other.waiters
        self.proof = self.proof or other.proof
        self.outcomes += other.outcomes
        self.fresh += other.fresh
        self.since = min(self.since, other.since)

    @property
    def messages(self) -> list[int]:
        """The messages that it is about."""
        ids = [put.message.id for put in self.puts] + self.whole
        ids += [message for message, _ in self.done] + [update.message for update in self.updates]
        return sorted(set(ids))


def _later(first: Drained | None, second: Drained | None) -> Drained | None:
    if first is None or second is None:
        return second or first
    return second._replace(finished=first.finished + second.finished)


class Unwritable(Exception):
    """It can never be committed as it is, whatever the disk does."""


class Committed(NamedTuple):
    """What the outbox got."""

    seq: int  # of the first line
    next_seq: int
    lines: bytes
    finished: list[int]


class Result(NamedTuple):
    """What a commit did."""

    committed: Committed | None  # None where there was nothing to report
    files: list[int]  # messages whose file is of no more use
    gone: int  # recipients
    left: list[Held]  # messages of which they were the last


def commit(connection: sqlite3.Connection, bodies: Bodies, group: Group, seq: int) -> Result:
    """Write the group."""
    large = [put for put in group.puts if len(put.content) >= THRESHOLD]
    unwritten = [(put.message.id, put.content) for put in large if not put.written]
    if unwritten:
        bodies.write(unwritten)
    try:
        return _commit(connection, group, seq)
    except BaseException as error:
        if not disk.may_be_committed(error):  # else a start may find the rows, or sweep the files
            apart = disk.is_of_the_data(error)  # the others are tried again, and what was written is of use
            bodies.remove(put.message.id for put in large if not (apart and put.written))
        raise


def defer(connection: sqlite3.Connection, part: Group, due: float) -> list[Line]:
    """Outcomes that cannot be written are none: their recipients wait again; the lines of these."""
    pairs = part.done + [(update.message, update.n) for update in part.updates]
    asked = (int(State.DEFERRED), due, json.dumps(part.whole), json.dumps(pairs))
    return [Line(*row) for row in connection.execute(sql.DEFER, asked).fetchall()]


def _commit(connection: sqlite3.Connection, group: Group, seq: int) -> Result:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if group.puts:
            _insert_messages(connection, group.puts)
        gone, left, finished = _settle(connection, group)
        files = _forget(connection, group.drained) if group.drained is not None else []
        for times in group.times:
            connection.execute(times.statement, times.values)
        if group.learned:
            _learn(connection, group.learned)
        if group.proof:
            connection.execute(sql.SET_META, ("last_id", group.proof))
        committed = None
        events = [event for put in group.puts for event in put.events] + group.events
        if events or finished:
            for number, event in enumerate(events, seq):
                event.seq = number
            lines = encode_lines(events)
            connection.execute(sql.INSERT_OUTBOX, (seq, lines, json.dumps(finished)))
            committed = Committed(seq, seq + max(len(events), 1), lines, finished)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return Result(committed, files, gone, left)


def _learn(connection: sqlite3.Connection, learned: Mapping[str, Saved | None]) -> None:
    kept = [
        (name, *saved.learned, *saved[1:-1], msgspec.json.encode(saved.tenants).decode())
        for name, saved in learned.items()
        if saved is not None
    ]
    connection.executemany(sql.LEARN, kept)
    connection.executemany(sql.UNUSED, [(name,) for name, saved in learned.items() if saved is None])


def _insert_messages(connection: sqlite3.Connection, puts: Sequence[Put]) -> None:
    messages = [put.message for put in puts]
    plain: list[tuple[Any, ...]] = []
    carrying: list[tuple[Any, ...]] = []
    for m in messages:
        row = (
            m.id, m.sender, m.tenant, m.stream, m.credential, m.expires, m.size, m.message_id, m.options,
            m.priority,
        )  # fmt: skip
        if m.tags or m.body_hash or m.return_path or m.metadata or m.score is not None:
            texts = m.body_hash or None, m.return_path or None, m.metadata or None
            carrying.append((*row, _tags(m.tags), m.score, *texts))
        else:
            plain.append(row)
    _insert(connection, sql.INSERT_MESSAGES, plain)
    _insert(connection, sql.INSERT_CARRYING, carrying)
    _insert(connection, sql.INSERT_BODIES, [
        (put.message.id, put.content if len(put.content) < THRESHOLD else None) for put in puts
    ])  # fmt: skip
    fresh, deferred = int(State.FRESH), int(State.DEFERRED)
    _insert(connection, sql.INSERT_RECIPIENTS, [
        (m.id, r.n, r.address, r.domain, m.priority, m.tenant, fresh, r.attempts, None)
        if m.fresh
        else (m.id, r.n, r.address, r.domain, m.priority, m.tenant, deferred, 0, m.release)
        for m in messages for r in m.recipients
    ])  # fmt: skip


def _tags(tags: tuple[str, ...]) -> str | None:
    return msgspec.json.encode(tags).decode() if tags else None


def _settle(connection: sqlite3.Connection, group: Group) -> tuple[int, list[Held], list[int]]:
    """Apply outcomes: how many recipients are gone, and what has left with them, in numbers and by id."""
    finished, gone, left = group.whole, 0, []
    if group.whole:
        gone += connection.execute(sql.DELETE_WHOLE, (json.dumps(group.whole),)).rowcount
    if group.done:
        gone += connection.execute(sql.DELETE_RECIPIENTS, (json.dumps(group.done),)).rowcount
    if group.updates:
        connection.executemany(sql.UPDATE_RECIPIENT, group.updates)
    if group.done:
        touched = json.dumps(sorted({message for message, _ in group.done}))
        finished = finished + json.loads(connection.execute(sql.FINISHED, (touched,)).fetchone()[0])
    if finished:
        ids = (json.dumps(finished),)
        left = connection.execute(sql.LEAVING, ids).fetchall()
        connection.execute(sql.DELETE_MESSAGES, ids)
    return gone, left, finished


def _forget(connection: sqlite3.Connection, drained: Drained) -> list[int]:
    """Remove what is drained; the ids of those whose content is a file, to be removed after the commit."""
    finished = json.dumps(sorted(drained.finished))
    files: list[int] = json.loads(connection.execute(sql.FILES, (finished,)).fetchone()[0])
    connection.execute(sql.DELETE_BODIES, (finished,))
    connection.execute(sql.DELETE_OUTBOX, (drained.seq,))
    connection.execute(sql.SET_META, ("next_seq", drained.next_seq))
    connection.execute(sql.SET_META, ("last_id", drained.last_id))
    return files


def _insert(connection: sqlite3.Connection, head: str, rows: Sequence[tuple[Any, ...]]) -> None:
    for chunk in _chunks(rows):
        marks = "(" + ",".join("?" * len(chunk[0])) + ")"
        connection.execute(head + ",".join([marks] * len(chunk)), list(itertools.chain.from_iterable(chunk)))


def _chunks(rows: Sequence[T]) -> Iterable[Sequence[T]]:
    for start in range(0, len(rows), ROWS):
        yield rows[start : start + ROWS]
