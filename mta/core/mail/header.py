"""The header block of a message that comes in: what is wrong with it, what is taken out, what is put on top.

Between: admission asks; docs/headers.md shows the same table to people.
Contract: pure. `TABLE` is all that we do about a header block. `scan` judges it in one pass of C, in a time
    that grows with the number of its octets, and no further than the limit; the body is never looked at.
    `stamp` makes the only changes.
Raises: HeaderError, carrying the reply to give, from `scan`.
Standards: RFC 5322 2.2, 3.6 (fields, and how often), 3.6.3, 3.6.6 (Bcc), RFC 5321 4.4 (Return-Path),
    RFC 6409 8 (what a submission server may add), RFC 6376 3.5, 5.4.2, 8.15 (h= covers the last fields of a
    name, and those that are not there).
Why: two readers of a field that stands there twice may each take another one for it, and where one sees a
    body another one sees fields. So what cannot be read in one way only is refused. What every program does
    wrong, and what can be mended without a guess, is mended, but never under a signature.
"""

from __future__ import annotations

import enum
import re
from typing import NamedTuple

import msgspec

from mta.core.mail.text import fit
from mta.core.model import Reply

MAX_FIELDS = 10_000
SHOWN = 40  # characters of a line that a reply quotes


class Fate(enum.Enum):
    """What becomes of it, in the words of the documentation."""

    REFUSED = "refused: 550 5.6.0"
    TOO_LARGE = "refused: 552 5.6.0"
    LOOP = "refused: 554 5.4.6"
    FORBIDDEN = "refused: 550 5.7.1"
    REMOVED = "removed"
    ONE_STAYS = "the first stays, others are removed; where a DKIM-Signature covers some, those stay"
    ADDED = "one is put on top"
    TOLD = "none is added, and the reception event says so (`reason`)"
    PASSED = "passed on as it is"
    OBEYED = "obeyed and removed; what cannot be is refused: 550 5.6.0 or 5.7.1"


class HeaderFault(NamedTuple):
    """One thing that may be wrong with a header block."""

    what: str
    fate: Fate
    names: tuple[bytes, ...] = ()  # of the fields that it is about


TABLE = (
    HeaderFault("a first line that begins with a blank", Fate.REFUSED),
    HeaderFault("a line that is no field: no `name:` of printable ASCII", Fate.REFUSED),
    HeaderFault("first lines of a mailbox file: `From ann ...`, `>From ann ...`", Fate.REMOVED),
    HeaderFault("no `From`", Fate.REFUSED),
    HeaderFault("an address in `From` that cannot be read, once some domain was added", Fate.REFUSED),
    HeaderFault(
        "a second `From`, `Sender`, `Subject`, `To`, `Cc` or `Reply-To`",
        Fate.REFUSED,
        (b"from", b"sender", b"subject", b"to", b"cc", b"reply-to"),
    ),
    HeaderFault(
        "an address in `From`, `Sender`, `Resent-From` or `Resent-Sender` that the credential may not use",
        Fate.FORBIDDEN,
        (b"from", b"sender", b"resent-from", b"resent-sender"),
    ),
    HeaderFault("a second `Date` or `Message-ID`", Fate.ONE_STAYS, (b"date", b"message-id")),
    HeaderFault("no `Date` or `Message-ID`, or an empty one", Fate.ADDED, (b"date", b"message-id")),
    HeaderFault(
        "no `Date` or `Message-ID`, but a DKIM-Signature of the application names it in `h=`",
        Fate.TOLD,
        (b"dkim-signature",),
    ),
    HeaderFault("`Return-Path`", Fate.REMOVED, (b"return-path",)),
    HeaderFault(
        "`Bcc`, `Resent-Bcc`: in any case, empty, folded, with blanks before the colon, signed",
        Fate.REMOVED,
        (b"bcc", b"resent-bcc"),
    ),
    HeaderFault(
        "`X-MTA-Stream`, `X-MTA-Tag`, `X-MTA-Metadata`, `X-MTA-Send-At`, `X-MTA-Expires`, `X-MTA-Score`, "
        "`X-MTA-Require-TLS`: in any case, folded, signed",
        Fate.OBEYED,
        (
            b"x-mta-stream",
            b"x-mta-tag",
            b"x-mta-metadata",
            b"x-mta-send-at",
            b"x-mta-expires",
            b"x-mta-score",
            b"x-mta-require-tls",
        ),
    ),
    HeaderFault("more than `limits.hops` `Received` fields", Fate.LOOP, (b"received",)),
    HeaderFault("more than `limits.header` octets, or 10,000 fields", Fate.TOO_LARGE),
    HeaderFault("a line over 998 octets", Fate.PASSED),
)


def _names(fate: Fate) -> tuple[bytes, ...]:
    return tuple(name for row in TABLE if row.fate is fate for name in row.names)


_ONCE = _names(Fate.REFUSED)
_OURS = _names(Fate.OBEYED)
_OUT = _names(Fate.REMOVED) + _OURS
_JUDGED = _names(Fate.FORBIDDEN)
_ASKED = (b"list-unsubscribe", b"list-unsubscribe-post", b"feedback-id", b"cfbl-address")  # by others
_USUAL = {
    b"from", b"to", b"cc", b"reply-to", b"subject", b"date", b"message-id", b"received", b"dkim-signature",
    *_ASKED,
}  # fmt: skip
_SHOWN = {name: name.decode().title().replace("-Id", "-ID") for row in TABLE for name in row.names}

# Over lower-case octets: to compare names by case would take twice the time. What is no field has no name.
# Quantifiers that never go back: of 40 MB of folded Bcc the others kept 2.4 GB of places to go back to.
# Ours have one beginning: each line is asked for it once.
_OUR = b"x-mta-"
_FIELD = re.compile(
    rb"\n(?:(%b|%b(?:%b))[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)|(?![ \t]|[!-9;-~]++[ \t]*+:|\Z))"
    % (
        b"|".join(sorted({*_SHOWN, *_ASKED} - {*_OURS})),
        _OUR,
        b"|".join(name.removeprefix(_OUR) for name in _OURS),
    )
)
_MESSAGE_ID = re.compile(rb"\n(message-id)[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)")
_ODD = (b" ", b"\t", b">")  # as a first octet
_MAILBOX = re.compile(rb"(?:>*+From (?![ \t]*+:)[^\n]*+\n)*+")
_SIGNED = re.compile(rb"(?:\A|;)\s*+h\s*+=([^;]*+)")

Places = dict[bytes, list[re.Match[bytes]]]


class Header(msgspec.Struct, frozen=True):
    """What admission asks of a header block."""

    authors: list[
        tuple[str, bytes]
    ]  # of fields that say whose mail it is, From first: name, lower-case value
    message_id: bytes  # empty where there is none
    adds_date: bool
    adds_message_id: bool
    hops: int  # Received fields
    out: list[tuple[int, int]]  # where there is what does not go on, in order
    reason: str  # what was left undone, and why
    fields: list[tuple[bytes, bytes]] = []  # all that were looked at, in order: lower-case name and value
    is_list: bool = False  # it has a List-Unsubscribe field
    ours: tuple[tuple[bytes, bytes], ...] = ()  # of X-MTA fields the lower-case name and the value


class HeaderError(Exception):
    """The message cannot be taken; `reply` says why."""

    def __init__(self, code: int, text: str, enhanced: str = "5.6.0") -> None:
        super().__init__(text)
        self.reply = Reply(code, enhanced, text)


def begun(pieces: list[bytes], size: int) -> list[bytes]:
    """The same content, with so many octets in its first piece, or all of them."""
    count, reached = 1, len(pieces[0])
    while reached < size and count < len(pieces):
        reached += len(pieces[count])
        count += 1
    return pieces if count == 1 else [b"".join(pieces[:count]), *pieces[count:]]


def scan(content: bytes, limit: int) -> Header:
    """Judge the header block, which has `limit` octets at most."""
    block = _block(content, limit)
    begin = 0  # behind what is of a mailbox file
    if content[:1] in _ODD or content.startswith(b"From "):
        if (mailbox := _MAILBOX.match(content, 0, len(block) - 1)) is not None:
            begin = mailbox.end()
        if block.startswith((b"\n ", b"\n\t"), begin):
            raise HeaderError(550, "The header begins with a blank; a field is a name, a colon and a value")
    fields = _FIELD.findall(block, begin)
    last = dict(fields)
    if b"" in last:
        raise _no_field(content, block, begin)
    if b"from" not in last:
        raise HeaderError(550, "The message has 0 From fields; it needs exactly one")
    if len(last) == len(fields) and not begin and last.keys() <= _USUAL:  # the ninety-nine in a hundred
        date, known = last.get(b"date"), last.get(b"message-id")
        is_whole = date is not None and known is not None
        is_empty = (date is not None and not date.strip()) or (known is not None and not known.strip())
        if (is_whole or b"dkim-signature" not in last) and not is_empty:
            message_id = b"" if known is None else _message_id(content, block)
            authors = [("From", last[b"from"].strip())]
            is_list, hops = b"list-unsubscribe" in last, b"received" in last
            return Header(authors, message_id, date is None, known is None, hops, [], "", fields, is_list)
    return _judge(content, block, begin, fields)


def values(header: Header, name: bytes) -> list[bytes]:
    """What the fields of a name say that `scan` looks at, in lower case, folded or not."""
    return [value.strip() for each, value in header.fields if each == name]


def addable(header: Header, name: bytes) -> bool:
    """May such a field be put on top? It is missing, and no signature says that it is."""
    signatures = values(header, b"dkim-signature")
    return not values(header, name) and not any(_covered(each, name) for each in signatures)


def _judge(content: bytes, block: bytes, begin: int, fields: list[tuple[bytes, bytes]]) -> Header:
    places: Places = {}
    for found in _FIELD.finditer(block, begin):
        places.setdefault(found[1], []).append(found)
    for name in _ONCE:
        if (count := len(places.get(name, ()))) > 1:
            needs = "it needs exactly one" if name == b"from" else "it may have one"
            raise HeaderError(550, f"The message has {count} {_SHOWN[name]} fields; {needs}")
    taken = [each for name in _OUT for each in places.get(name, ())]
    _, adds_date, reason = _one(places, b"date", taken)
    known, adds_message_id, more = _one(places, b"message-id", taken)
    out = sorted((each.start(), min(each.end(), len(block) - 1)) for each in taken)
    return Header(
        [(_SHOWN[name], each[2].strip()) for name in _JUDGED for each in places.get(name, ())],
        b"" if known is None else _value(known, content),
        adds_date,
        adds_message_id,
        len(places.get(b"received", ())),
        [(0, begin), *out] if begin else out,
        "; ".join(filter(None, (reason, more))),
        fields,
        any(name == b"list-unsubscribe" for name, _ in fields),
        tuple((name, _value(each, content)) for name in _OURS for each in places.get(name, ())),
    )


def _block(content: bytes, limit: int) -> bytes:
    """The fields in lower case, each behind a line feed: to find those is quick, to find `^` is not."""
    if content.startswith(b"\r\n"):
        return b"\n"
    end = content.find(b"\r\n\r\n", 0, limit + 2)
    if end < 0 and len(content) > limit:
        raise HeaderError(552, f"The header block is larger than {limit} octets")
    block = (b"\n" + (content if end < 0 else content[: end + 2])).lower()
    if len(block) > MAX_FIELDS:
        lines = block.count(b"\n") - 1 - block.count(b"\n ") - block.count(b"\n\t")
        if lines > MAX_FIELDS:
            raise HeaderError(552, f"The header block is larger than {MAX_FIELDS} fields")
    return block


def _value(found: re.Match[bytes], content: bytes) -> bytes:
    begin, end = found.span(2)
    return content[begin - 1 : end - 1].strip()  # the block has a line feed before the content


def _message_id(content: bytes, block: bytes) -> bytes:
    found = _MESSAGE_ID.search(block)
    return _value(found, content) if found is not None else b""


def _no_field(content: bytes, block: bytes, begin: int) -> HeaderError:
    begin = next(found.start() for found in _FIELD.finditer(block, begin) if found[1] is None)
    line = content[begin : begin + SHOWN * 4].partition(b"\r")[0].decode("utf-8", "replace")
    number = block.count(b"\n", 0, begin + 1)
    return HeaderError(550, f"Line {number} of the header is no field: {fit(line, SHOWN)}")


def _one(
    places: Places, name: bytes, taken: list[re.Match[bytes]]
) -> tuple[re.Match[bytes] | None, bool, str]:
    """The field that counts, whether one is to be put on top, and why not where it is not."""
    there = places.get(name, [])
    if len(there) == 1 and there[0][2].strip():
        return there[0], False, ""
    signed = max((_covered(each[2], name) for each in places.get(b"dkim-signature", ())), default=0)
    # A signature covers the last ones (RFC 6376 5.4.2). An empty field is none.
    stay = there[-signed:] if signed else [each for each in there if each[2].strip()][:1]
    taken += there[:-signed] if signed else [each for each in there if each not in stay]
    counts = next((each for each in stay if each[2].strip()), None)
    if counts is not None or not signed:
        return counts, counts is None, ""
    return None, False, f"no {_SHOWN[name]} was added: a DKIM-Signature of the application covers that field"


def _covered(signature: bytes, name: bytes) -> int:
    """How often a signature names the field."""
    listed = _SIGNED.search(signature)
    return listed[1].translate(None, b" \t\r\n").split(b":").count(name) if listed else 0


def stamp(pieces: list[bytes], header: Header, fields: bytes) -> list[bytes]:
    """Put `fields` on top and take out what does not go on: the only changes that we make to a message."""
    content = pieces[0]
    stamped = [fields]
    start = 0
    for begin, end in header.out:
        stamped.append(content[start:begin])
        start = end
    stamped.append(content[start:] if start else content)
    stamped += pieces[1:]
    return stamped
