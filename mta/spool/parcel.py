"""A message outside the spool: two files in a directory, which another spool can take in.

Between: export writes them, import reads them, whoever looks into the directory understands them.
Contract: `<queue id>.eml` is the content byte for byte as it was spooled; `<queue id>.json` is the envelope,
    what the message carries, each recipient with its state, and the SHA-256 of the content. Times are RFC
    3339 in UTC with microseconds, sizes octets. The names are there only when the files are whole and synced.
Raises: ParcelError, whose text names the file and says what is wrong with it.
Standards: RFC 5322 (the .eml), RFC 3339 (times).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final, Literal, NamedTuple

import msgspec

from mta.core.mail.address import PathError, parse
from mta.core.mail.carried import MAX_SCORE, metadata, tags
from mta.core.model import Message, Option
from mta.core.queue.last import Last
from mta.core.queue.last import read as read_last
from mta.core.queue.lifecycle import State
from mta.core.queueid import created, text
from mta.core.queueid import parse as parse_id
from mta.disk import sync_names

CONTENT, RECORD = ".eml", ".json"
FORMAT: Final = 1
SYNCS = 16  # at once: they share commits of the journal, 256 files in 90 ms where one by one takes 400

_Count = Annotated[int, msgspec.Meta(ge=0, le=0x7FFFFFFF)]
_Time = Annotated[datetime, msgspec.Meta(tz=True)]
_Stored = Literal["fresh", "deferred"]
_STATES: dict[State, _Stored] = {State.FRESH: "fresh", State.DEFERRED: "deferred"}
_OPTIONS = {name.lower(): bit for name, bit in vars(Option).items() if isinstance(bit, int)}


class ParcelError(Exception):
    """A file of a directory of parcels cannot be taken or written."""


class SpooledRecipient(NamedTuple):
    """A recipient as it is spooled."""

    n: int
    address: str
    domain: str
    state: int
    attempts: int
    due: float | None  # None while the first attempt is under way
    last: str | None = None  # JSON, core/last


class RecipientRecord(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A recipient in the .json."""

    n: _Count
    address: str
    domain: str
    state: _Stored
    attempts: _Count
    due: _Time | None
    last: Last | None = None  # a list, as core/last has it; older versions have none


class _AnyRecord(msgspec.Struct):
    """What the .json of every version says of itself."""

    format: int


class Record(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The .json of a message; what older versions have none of is left out where there is none."""

    format: Literal[1]
    mode: str  # of the spool that it comes from
    queue_id: str
    created: _Time
    expires: _Time
    sender: str
    tenant: str
    stream: str
    credential: str
    message_id: str
    options: list[str]
    priority: Annotated[int, msgspec.Meta(ge=-9, le=9)]
    size: _Count
    sha256: str
    recipients: Annotated[list[RecipientRecord], msgspec.Meta(min_length=1)]
    tags: list[str] = []
    score: Annotated[int, msgspec.Meta(ge=0, le=MAX_SCORE)] | None = None
    metadata: dict[str, Any] | None = None
    body_hash: Annotated[str, msgspec.Meta(pattern="^(?:[0-9a-f]{64})?$")] = ""
    return_path: str = ""

    @property
    def metadata_text(self) -> str:
        """As it is spooled; ValueError where it cannot be."""
        return "" if self.metadata is None else metadata(json.dumps(self.metadata))

    @property
    def option_bits(self) -> int:
        return sum(_OPTIONS[name] for name in set(self.options))


def record_of(message: Message, rows: Sequence[SpooledRecipient], content: bytes, mode: str) -> Record:
    """What the spool knows of a message."""
    if message.options & ~sum(_OPTIONS.values()):
        raise ParcelError(f"{text(message.id)} has options that cannot be written: {message.options:#x}")
    return Record(
        format=FORMAT,
        mode=mode,
        queue_id=text(message.id),
        created=_time(created(message.id)),
        expires=_time(message.expires),
        sender=message.sender,
        tenant=message.tenant,
        stream=message.stream,
        credential=message.credential,
        message_id=message.message_id,
        options=[name for name, bit in _OPTIONS.items() if message.options & bit],
        priority=message.priority,
        size=message.size,
        sha256=digest(content),
        recipients=[
            RecipientRecord(
                row.n, row.address, row.domain, _STATES[State(row.state)], row.attempts,
                None if row.due is None else _time(row.due), read_last(row.last),
            )
            for row in rows
        ],
        tags=list(message.tags),
        score=message.score,
        metadata=_readable(message.metadata),
        body_hash=message.body_hash.hex(),
        return_path=message.return_path,
    )  # fmt: skip


def _readable(metadata: str) -> dict[str, Any] | None:
    """None where there is none; and where it is damaged, for the mail is not lost with it."""
    try:
        return msgspec.json.decode(metadata, type=dict[str, Any]) if metadata else None
    except ValueError:
        return None


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


# Writing


def write(directory: Path, parcels: Sequence[tuple[Record, bytes]]) -> None:
    """Put these parcels into the directory, synced; one of the same message that is there is replaced."""
    contents = [(directory / f"{record.queue_id}{CONTENT}", content) for record, content in parcels]
    records = [(directory / f"{record.queue_id}{RECORD}", _encoded(record)) for record, _ in parcels]
    for (path, content), (record, _) in zip(contents, parcels, strict=True):
        _refuse_other(path, content)
        _refuse_other_record(directory / f"{record.queue_id}{RECORD}", record)
    # The content has its name first: a record without its content cannot be.
    _write([*contents, *records])
    sync_names(directory)


def _encoded(record: Record) -> bytes:
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


def _write(files: Sequence[tuple[Path, bytes]]) -> None:
    """All are written, then all synced, then all named."""
    partials: list[tuple[BinaryIO, Path]] = []
    try:
        for path, octets in files:
            file: BinaryIO = path.with_name(f".{path.name}.partial").open("wb")
            partials.append((file, path))
            os.fchmod(file.fileno(), 0o600)
            file.write(octets)
            file.flush()
        with ThreadPoolExecutor(SYNCS) as syncs:
            list(syncs.map(os.fsync, [file.fileno() for file, _ in partials]))
        for file, path in partials:
            Path(file.name).replace(path)
    finally:
        for file, _ in partials:
            file.close()
            Path(file.name).unlink(missing_ok=True)


def _refuse_other(path: Path, content: bytes) -> None:
    if path.exists() and path.read_bytes() != content:
        raise ParcelError(f"{path} is another message's content: export to another directory")


def _refuse_other_record(path: Path, record: Record) -> None:
    if path.exists() and not is_same(read_record(path), record):
        raise ParcelError(f"{path} is another message's record: export to another directory")


def is_same(one: Record, other: Record) -> bool:
    """The same message, whatever became of its recipients meanwhile."""
    return (one.sender, one.size, one.sha256) == (other.sender, other.size, other.sha256)


# Reading


def names(directory: Path) -> Iterator[str]:
    """The queue ids of the parcels, in the order of time."""
    yield from sorted(path.stem for path in directory.iterdir() if path.suffix == RECORD and _is_seen(path))


def strays(directory: Path) -> Iterator[str]:
    """What has no business in a directory of parcels, in words."""
    for path in sorted(filter(_is_seen, directory.iterdir())):
        if path.suffix == CONTENT:
            if not path.with_suffix(RECORD).exists():
                yield f"{path}: its {RECORD} is missing; if the export was cut off, repeat it"
        elif path.suffix != RECORD:
            yield f"{path}: no file of an export; remove it"


def _is_seen(path: Path) -> bool:
    return not path.name.startswith(".")  # a file whose writer was killed has no name yet


def read_record(path: Path) -> Record:
    """A .json; its own fields only, the content is looked at by `read_content`."""
    try:
        octets = path.read_bytes()
        if msgspec.json.decode(octets, type=_AnyRecord).format > FORMAT:
            raise ParcelError(f"{path}: a newer version wrote it; import it with that one")
        record = msgspec.json.decode(octets, type=Record)
    except OSError as error:
        raise ParcelError(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, msgspec.DecodeError) as error:
        raise ParcelError(f"{path}: it is no record of a message: {error}") from None
    for complaint in _complaints(record, path.stem):
        raise ParcelError(f"{path}: {complaint}")
    return record


def _complaints(record: Record, name: str) -> Iterator[str]:
    if record.queue_id != name:
        yield f"it says that it is {record.queue_id!r}"
    try:
        if abs(created(parse_id(record.queue_id)) - record.created.timestamp()) > 0.001:
            yield "created is not the time in the queue id"
    except ValueError as error:
        yield str(error)
    for option in set(record.options) - set(_OPTIONS):
        yield f"unknown option {option!r}"
    try:
        tags(record.tags)
        _ = record.metadata_text
    except ValueError as error:
        yield f"what it carries: {error}"
    yield from _envelope(record)


def _envelope(record: Record) -> Iterator[str]:
    """It was accepted by us once; one that was edited must not speak SMTP for us."""
    if not _is_path(b"FROM", record.sender, None):
        yield f"sender {record.sender!r} is not an address"
    if record.return_path and not _is_path(b"FROM", f"x@{record.return_path}", record.return_path):
        yield f"return path {record.return_path!r} is not a domain"
    for recipient in record.recipients:
        if not _is_path(b"TO", recipient.address, recipient.domain):
            yield f"recipient {recipient.address!r} is not an address at {recipient.domain!r}"
        if (recipient.due is None) != (recipient.state == "fresh"):
            yield f"recipient {recipient.n}: only a fresh one has no due time"
    if len({recipient.n for recipient in record.recipients}) < len(record.recipients):
        yield "two recipients have the same n"


def _is_path(keyword: bytes, address: str, domain: str | None) -> bool:
    try:
        path, rest = parse(keyword, f"{keyword.decode()}:<{address}>".encode())
    except (PathError, UnicodeEncodeError):
        return False
    return path.address == address and not rest and domain in (None, path.domain)


def read_content(directory: Path, record: Record) -> bytes:
    """The .eml, when it is what the record says."""
    path = directory / f"{record.queue_id}{CONTENT}"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ParcelError(f"{path}: it is missing, and its {RECORD} is here") from None
    except OSError as error:
        raise ParcelError(f"{path}: {error.strerror}") from None
    if len(content) != record.size:
        raise ParcelError(f"{path}: it has {len(content)} octets, its record says {record.size}")
    if digest(content) != record.sha256:
        raise ParcelError(f"{path}: its SHA-256 is not the one in its record: it was changed")
    return content
