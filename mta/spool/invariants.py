"""What holds of the rows of a sound queue, at any moment.

Between: `spool.verify` asks, through a connection that can only read.
Contract: each check gives a `Violation` for each row that breaks it, and looks at one moment of the queue, so
    that nothing that is under way is taken for damage. Rows are looked at one by one: memory does not grow.
Raises: sqlite3.Error where the file cannot be read.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from mta.core.mail.address import PathError, a_label
from mta.core.mail.carried import MAX_SCORE, metadata, tags
from mta.core.queue.last import read
from mta.core.queue.lifecycle import TABLE, State
from mta.core.queueid import text
from mta.spool import statements as sql

SEND_AGAIN = "it cannot be delivered as it is; have its sender send it again"
OURS = "this must not be: keep a copy of the spool, and report it"
HASH = 32  # octets of SHA-256
ROOM = "it takes room and harms nobody; mta spool export and import leave it behind"


class Violation(NamedTuple):
    """Something that is not as it must be."""

    where: str  # a queue id, a file, a table
    what: str
    remedy: str


class _Rule(NamedTuple):
    """Rows that must not be. The first column is a message's id, the others are put into the words."""

    rows: str
    what: str
    remedy: str


_FINISHED = "SELECT value FROM outbox, json_each(CASE WHEN json_valid(finished) THEN finished ELSE '[]' END)"
_RULES = (
    _Rule(
        "SELECT message, n FROM recipient r WHERE NOT EXISTS (SELECT 1 FROM message WHERE id = r.message)",
        "recipient {} has no message",
        SEND_AGAIN,
    ),
    _Rule(
        "SELECT id FROM message m WHERE NOT EXISTS (SELECT 1 FROM recipient WHERE message = m.id)",
        "the message has no recipient left and is still here",
        ROOM,
    ),
    _Rule(
        "SELECT id FROM message m WHERE NOT EXISTS (SELECT 1 FROM body WHERE message = m.id)",
        "the message has no content",
        SEND_AGAIN,
    ),
    _Rule(
        "SELECT message FROM body b WHERE NOT EXISTS (SELECT 1 FROM message WHERE id = b.message) "
        f"AND message NOT IN ({_FINISHED})",
        "a content without its message",
        ROOM,
    ),
    _Rule(
        "SELECT m.id, length(b.content), m.size FROM message m JOIN body b ON b.message = m.id "
        "WHERE b.content IS NOT NULL AND length(b.content) <> m.size",
        "the content has {} octets, and {} were received",
        SEND_AGAIN,
    ),
    _Rule(
        "SELECT r.message, r.n, r.tenant, m.tenant FROM recipient r JOIN message m ON m.id = r.message "
        "WHERE r.tenant <> m.tenant",
        "recipient {} is of tenant {}, its message of {}",
        OURS,
    ),
    _Rule(
        f"SELECT id FROM message WHERE id IN ({_FINISHED})",
        "the outbox has it as done with, and the queue still holds it",
        OURS,
    ),
)
_RECIPIENTS = "SELECT message, n, address, domain, last, state, attempts, due FROM recipient"
_CARRYING = (
    "SELECT id, tags, score, body_hash, return_path, metadata FROM message "
    "WHERE tags IS NOT NULL OR score IS NOT NULL OR body_hash IS NOT NULL "
    "OR return_path IS NOT NULL OR metadata IS NOT NULL"
)
_COUNTERS = "SELECT name, value FROM meta WHERE name IN ('next_seq', 'last_id', 'mode')"


class _Line(msgspec.Struct):
    """What the outbox must have of an event."""

    seq: int


_line = msgspec.json.Decoder(_Line)
_ids = msgspec.json.Decoder(list[int])
_tags = msgspec.json.Decoder(list[str])


def related(connection: sqlite3.Connection) -> Iterator[Violation]:
    """Messages, recipients and contents belong together."""
    for rule in _RULES:
        for message, *values in connection.execute(rule.rows):
            yield Violation(shown(message), rule.what.format(*values), rule.remedy)


def recipients(connection: sqlite3.Connection) -> Iterator[Violation]:
    """State, attempts, due time, domain and last outcome of each."""
    for message, n, address, domain, last, *standing in connection.execute(_RECIPIENTS):
        if last is not None and read(last) is None:
            yield Violation(shown(message), f"recipient {n} has a last outcome that cannot be read", OURS)
        for what in _wrong_state(*standing):
            yield Violation(shown(message), f"recipient {n} {what}", OURS)
        right = _domain(str(address))
        if domain != right:
            what = f"recipient {n} <{address}> waits at {domain!r}, and belongs to {right!r}"
            yield Violation(shown(message), what, OURS)


def carrying(connection: sqlite3.Connection) -> Iterator[Violation]:
    """What messages carry beside their content."""
    for message, *carried in connection.execute(_CARRYING):
        for what in _wrong_carried(*carried):
            yield Violation(shown(message), what, OURS)


def _wrong_carried(
    said: str | None, score: object, body_hash: object, return_path: str | None, data: str | None
) -> Iterator[str]:
    try:
        if said is not None:
            tags(_tags.decode(said))
    except (ValueError, TypeError) as error:
        yield f"has tags that cannot be read: {error}"
    try:
        if data is not None:
            metadata(data)
    except (ValueError, TypeError) as error:
        yield f"has metadata that cannot be read: {error}"
    if score is not None and score not in range(MAX_SCORE + 1):
        yield f"has the score {score!r}"
    if return_path is not None and not _is_domain(return_path):
        yield f"has the return path {return_path!r}"
    if body_hash is not None and not (isinstance(body_hash, bytes) and len(body_hash) == HASH):
        yield "has a hash of its body that is none"


def _is_domain(text: str) -> bool:
    try:
        return str(a_label(text)) == text
    except (PathError, AttributeError, TypeError):
        return False


def _wrong_state(state: object, attempts: object, due: object) -> Iterator[str]:
    if state not in TABLE:
        yield f"is in state {state}, which is never stored"
        return
    assert isinstance(state, int)
    name = State(state).name
    least = 1 if state == State.FRESH else 0
    if not isinstance(attempts, int) or attempts < least:
        yield f"is {name} after {attempts} attempts"
    if (state == State.FRESH) != (due is None):
        yield f"is {name} and due {due}"
    elif due is not None and not (isinstance(due, float) and math.isfinite(due)):
        yield f"is due {due}, which is no time"


def _domain(address: str) -> str:
    domain = address.rpartition("@")[2]
    try:
        return a_label(domain)
    except PathError:
        return domain.lower()  # a sender's, that a notice goes to


def outbox(connection: sqlite3.Connection) -> Iterator[Violation]:
    """The event lines that the log has not, and the numbers that go on behind them."""
    connection.execute("BEGIN")
    try:
        counters = dict(connection.execute(_COUNTERS).fetchall())
        yield from _wrong_counters(counters)
        floor = counters.get("next_seq", 1)
        for seq, lines, finished in connection.execute(sql.OUTBOX):
            where = f"outbox row {seq}"
            if isinstance(floor, int) and seq < floor:
                yield Violation(where, f"its events have numbers from {seq}, {floor} is the next", OURS)
            what, count = _wrong_lines(seq, lines, finished)
            if what:
                yield Violation(where, what, OURS)
            floor = seq + max(count, 1)
    finally:
        connection.execute("COMMIT")


def _wrong_counters(counters: dict[str, Any]) -> Iterator[Violation]:
    for name in ("next_seq", "last_id"):
        value = counters.get(name, 0)
        if not isinstance(value, int) or value < 0:
            yield Violation("meta", f"{name} is {value!r}, which is no number to go on from", OURS)
    mode = counters.get("mode", "live")  # the first start stamps it
    if mode not in ("live", "sandbox"):
        yield Violation("meta", f"the mode is {mode!r}", OURS)


def _wrong_lines(seq: int, lines: bytes, finished: str) -> tuple[str, int]:
    """What is wrong with one row, and how many lines it has."""
    each = lines.splitlines()
    try:
        numbers = [_line.decode(line).seq for line in each]
        _ids.decode(finished)
    except (msgspec.DecodeError, TypeError) as error:
        return f"cannot be read: {error}", len(each)
    if numbers != list(range(seq, seq + len(each))) or not lines.endswith(b"\n" if lines else b""):
        return "its lines are not whole, or not numbered one after another", len(each)
    return "", len(each)


def shown(message: object) -> str:
    """A queue id, or what stands in its place."""
    return text(message) if isinstance(message, int) and 0 <= message < 1 << 55 else f"message {message}"
