"""The octets of one message: line ends, dots, and the header block.

Between: the SMTP server hands over what stood between DATA and the dot; admission stamps it; the
    client stuffs it again.
Contract: contents are `bytes` with CRLF line ends and a CRLF at the end, dots not stuffed; `pieces` are such
    contents in parts. Everything here goes over the octets in bulk (C calls), never line by line, in a time
    that grows with their number; the body is never changed.
Raises: HeaderError from `scan`.
Standards: RFC 5321 4.5.2 (transparency), 2.3.8 (bare CR and LF), RFC 5322 2.2 (fields), 3.6.3, 3.6.6 (Bcc),
    RFC 6409 8 (what a submission server may add).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from io import IncrementalNewlineDecoder
from typing import NamedTuple

from mta.core.address import ascii_address

MAX_FIELDS = 10_000
_LINES = 64 * 1024
_EMPTY_LINES = b"\r\n" * _LINES
# Quantifiers that never go back: of 40 MB of folded Bcc the others kept 2.4 GB of places to go back to.
_FIELDS = re.compile(
    rb"\n(from|date|message-id|received|(?:resent-)?bcc)[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)", re.I
)
# Where it begins decides: tried again at each CR of a run that no LF follows, it would take quadratic time.
_RUN = re.compile(rb"(?<!\r)\r\r++\n")


def has_bare_newline(data: bytes) -> bool:
    """True if a CR or an LF stands alone: what smuggling is made of."""
    # The decoder that text files use notes every kind of line end in one pass of C: a quarter of the
    # time of three counts (36 us for 100 KiB).
    seen = IncrementalNewlineDecoder(None, translate=False)
    seen.decode(data.decode("latin-1"), final=True)
    return seen.newlines not in (None, "\r\n")


def normalise_newlines(data: bytes) -> bytes:
    """CRs before an LF, however many, are one CRLF with it; so is every other CR and LF."""
    if b"\r\r" in data:
        data = _RUN.sub(b"\n", data)
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def unstuff(data: bytes) -> bytes:
    """Take off the dot that transparency put before lines that start with one."""
    if data.startswith(b"."):
        data = data[1:]
    return data.replace(b"\r\n.", b"\r\n")


def stuff(content: bytes) -> bytes:
    """The content as DATA carries it, the final dot not included."""
    if content.startswith(b"."):
        content = b"." + content
    return content.replace(b"\r\n.", b"\r\n..")


class Mending:
    """A content in slices, each checked and mended as it comes: together they are what the whole would be."""

    def __init__(self, normalise: bool) -> None:
        self._normalise = normalise
        self._newlines = IncrementalNewlineDecoder(None, translate=False)
        self._returns = 0  # CRs at the end of what came: what they are the next octet tells
        self._at_start = True  # of a line
        self.pieces: list[bytes] = []  # mended
        self.size = 0  # of them
        self.dotted = False  # a line that starts with a dot has come
        self.has_nul = False

    @property
    def has_bare_newline(self) -> bool:
        return self._newlines.newlines not in (None, "\r\n")

    def feed(self, data: bytes) -> None:
        """The next slice; the CRs at its end are mended with the one behind it."""
        self._newlines.decode(data.decode("latin-1"))
        self.has_nul = self.has_nul or b"\0" in data
        rest = data.rstrip(b"\r")
        if not rest:
            self._returns += len(data)
            return
        returns, self._returns = self._returns, len(data) - len(rest)
        if not self._normalise:
            self._add(b"\r" * returns + rest)
            return
        if returns and rest.lstrip(b"\r")[:1] != b"\n":  # else one line end with the LF that has come
            self._end_lines(returns)
        self._add(normalise_newlines(rest))

    def finish(self) -> None:
        """The content is at its end."""
        self._newlines.decode("", final=True)
        if self._normalise:
            self._end_lines(self._returns)
        else:
            self._add(b"\r" * self._returns)

    def _end_lines(self, count: int) -> None:
        """Each of so many CRs stands alone; of what they become little is held, however many they are."""
        many, few = divmod(count, _LINES)
        self.pieces += [_EMPTY_LINES] * many
        self.size += len(_EMPTY_LINES) * many
        self._at_start = self._at_start or count > 0
        self._add(b"\r\n" * few)

    def _add(self, data: bytes) -> None:
        if not data:
            return
        at_start, self._at_start = self._at_start, data[-2:] == b"\r\n"
        plain = unstuff(data) if at_start else data.replace(b"\r\n.", b"\r\n")
        self.dotted = self.dotted or len(plain) < len(data)
        self.pieces.append(plain)
        self.size += len(plain)


class Header(NamedTuple):
    """What admission asks of a header block."""

    froms: list[bytes]  # the value of each From field, unfolded or not
    message_id: bytes | None
    has_date: bool
    hops: int  # Received fields
    out: list[tuple[int, int]]  # where fields that do not go on stand: Bcc, an empty Date or Message-ID


class HeaderError(Exception):
    """The header block is larger than it may be; the text is the limit."""


def header_block(content: bytes) -> bytes:
    """The header fields, the final CRLF included and the blank line not."""
    if content.startswith(b"\r\n"):
        return b""
    end = content.find(b"\r\n\r\n")
    return content if end < 0 else content[: end + 2]


def needs_smtputf8(block: bytes, sender: str, recipients: Iterable[str]) -> bool:
    """Does a message with this header block need SMTPUTF8 on its way to these (RFC 6531 3.2)?

    A body of eight bits is no reason, nor is a domain that has an A-label.
    """
    if not block.isascii():
        return True
    return not all(ascii_address(address)[0].isascii() for address in (sender, *recipients))


def begun(pieces: list[bytes], size: int) -> list[bytes]:
    """The same content, with so many octets in its first piece, or all of them."""
    count, reached = 1, len(pieces[0])
    while reached < size and count < len(pieces):
        reached += len(pieces[count])
        count += 1
    return pieces if count == 1 else [b"".join(pieces[:count]), *pieces[count:]]


def scan(content: bytes, limit: int) -> Header:
    """Find the fields that matter in one pass over the header block, which has `limit` octets at most."""
    if content.startswith(b"\r\n"):
        return Header([], None, False, 0, [])
    end = content.find(b"\r\n\r\n", 0, limit + 2)
    if end < 0 and len(content) > limit:
        raise HeaderError(f"{limit} octets")
    # Each field begins behind a line feed: to find those is quick, to find beginnings of lines is not.
    block = b"\n" + (content if end < 0 else content[: end + 2])
    lines = block.count(b"\n") - 1
    if lines > MAX_FIELDS and lines - block.count(b"\n ") - block.count(b"\n\t") > MAX_FIELDS:
        raise HeaderError(f"{MAX_FIELDS} fields")
    froms: list[bytes] = []
    out: list[tuple[int, int]] = []
    message_id: bytes | None = None
    has_date = False
    hops = 0
    for found in _FIELDS.finditer(block):
        name = found[1].lower()
        if name == b"received":
            hops += 1
        elif name == b"from":
            froms.append(found[2].strip())
        elif name.endswith(b"bcc") or not found[2].strip():
            # An empty one is none, and a second one beside it would be one too many.
            out.append((found.start(), min(found.end(), len(block) - 1)))  # in the content, its line feed too
        elif name == b"date":
            has_date = True
        else:
            message_id = found[2].strip()
    return Header(froms, message_id, has_date, hops, out)


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
