"""The event stream: a closed list of types and the one shape of a record.

Between: intake and outbound make them, the spool commits them with the state that they report,
    `events` writes them out.
Contract: one JSON object a line; a field at its default is left out; fields are only ever added.
    `seq` is unique and increasing; a restart may repeat lines, never change one: drop repeats by it.
    Times are RFC 3339 in UTC with milliseconds; `duration_ms` is from the first octet of the transaction.
Raises: nothing.
Standards: RFC 3339 (time).
Why: msgspec encodes a batch in one C call and leaves defaults out, so the record's type is its schema.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from mta.core.model import Message, Recipient
from mta.core.queueid import text

MAX_REASON = 1000  # characters
NO_METADATA = msgspec.Raw()


class Type(enum.Enum):
    """Every event there is."""

    RECEPTION = "reception"  # we own the message; one event per recipient
    REJECTION = "rejection"  # a client's message or login was refused
    DELIVERY = "delivery"
    DEFERRAL = "deferral"  # the peer, or the network, said later; `due` says when we try again
    BOUNCE = "bounce"
    EXPIRATION = "expiration"
    AMBIGUOUS = "ambiguous"  # the connection was lost after the dot
    CANCEL = "cancel"  # an operator took the recipient out of the queue; `reason` says what for
    LIMIT = "limit"  # a window or a rate changed
    CHECK = "check"  # a check of ours objects; `reason` says to what, `untold` how often more
    STATE = "state"  # a source, site or tenant changed its state


class ReplyField(msgspec.Struct, omit_defaults=True):
    """A peer's (or our own) SMTP reply inside an event."""

    code: int
    enhanced: str = ""
    text: str = ""
    command: str = ""


class LimitField(msgspec.Struct, omit_defaults=True):
    """What changed in how fast we send, inside an event; null: no limit."""

    what: str  # rate (recipients a second), connections
    old: float | None
    new: float | None


class Event(msgspec.Struct, omit_defaults=True, eq=False):
    """One record of the event log."""

    seq: int = 0
    time: str = ""
    type: Type | None = None
    queue_id: str = ""
    recipient: str = ""
    sender: str | None = None
    tenant: str = ""
    stream: str = ""
    credential: str = ""
    message_id: str = ""
    size: int = 0
    source: str = ""
    site: str = ""
    provider: str = ""
    host: str = ""
    attempt: int = 0
    reply: ReplyField | None = None
    subject: str = ""
    permanent: bool | None = None
    reason: str = ""
    due: str = ""
    tls: str = ""
    duration_ms: int = 0
    rule: str = ""  # the reply rule that decided
    limit: LimitField | None = None
    untold: int = 0  # so many more of the same, which no event of their own tells of
    client: str = ""  # the numeric address of who submitted, or tried to
    tags: tuple[str, ...] = ()  # the message's
    metadata: msgspec.Raw = NO_METADATA  # a JSON object: the message's, in the first of its receptions
    check: str = ""  # which one objects
    mode: str = ""  # enforce (the mail was refused), warn (it goes on)
    domain: str = ""  # in From


def about(kind: Type, message: Message, recipient: Recipient, now: float) -> Event:
    """An event of one recipient; what is known from the message is filled in."""
    event = Event(
        0, rfc3339(now), kind, text(message.id), recipient.address, message.sender, message.tenant,
        message.stream, message.credential, message.message_id, message.size,
    )  # fmt: skip
    if message.tags:
        event.tags = message.tags
    return event


_encoder = msgspec.json.Encoder()


def encode_lines(events: Iterable[Event]) -> bytes:
    """The events as JSON lines, each ended by a line feed. A text that is no Unicode is mended."""
    events = list(events)
    try:
        return _encoder.encode_lines(events)
    except UnicodeEncodeError:  # a lone surrogate: octets that somebody else sent, decoded to be lossless
        for event in events:
            _mend(event)
        return _encoder.encode_lines(events)


def _mend(record: msgspec.Struct) -> None:
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if isinstance(value, str):
            setattr(record, name, value.encode("utf-8", "replace").decode())
        elif isinstance(value, msgspec.Struct):
            _mend(value)


_MILLISECONDS = tuple(f".{each:03d}Z" for each in range(1000))


@lru_cache(maxsize=256)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339(at: float) -> str:
    """Seconds since the epoch -> "2026-11-21T21:10:00.123Z"."""
    second = int(at)
    return _second(second) + _MILLISECONDS[int((at - second) * 1000)]
