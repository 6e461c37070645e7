"""A message with 8-bit octets, written with 7-bit ones: part by part, in quoted-printable or base64.

Between: admission asks, where the settings say `eight_bit: convert`, before anything signs the message.
Contract: pure. Takes a whole message and gives it in pieces; what is not encoded, boundaries among it, stays
    as it is. Left alone, and named in `left`, is what an encoding would break or cannot express: what is
    signed or encrypted, header fields, and what cannot be understood. The time grows with the octets:
    MAX_DEPTH passes of C at most, MAX_PARTS steps of ours, SLICE octets of work at a time.
Raises: nothing.
Standards: RFC 2045 6 (encodings), RFC 2046 5.1 (boundaries), 5.1.5 (digest), 5.2.1 (message/rfc822 is never
    encoded itself), RFC 1847 2.1 (multipart/signed), RFC 1428 (unknown-8bit), RFC 6152 3 (conversion).
Why: the email package builds a tree of strings, in quadratic time for some, and writes what it has not
    understood in its own words.
"""

from __future__ import annotations

import re
from binascii import b2a_base64, b2a_qp
from collections.abc import Callable, Iterator
from typing import NamedTuple

MAX_DEPTH = 10
MAX_PARTS = 1000
SLICE = 57 * 4096  # octets; of base64 whole lines
_HIGH = bytes(range(128, 256))
_FIELD = re.compile(
    rb"(?:\A|\n)(content-type|content-transfer-encoding|mime-version|dkim-signature)[ \t]*+:"
    rb"([^\n]*+(?:\n[ \t][^\n]*+)*+)",
    re.I,
)
_TYPE = re.compile(rb"\s*+([^\s;/()]++/[^\s;()]++)\s*+(?:;|\Z)")
_BOUNDARY = re.compile(rb';\s*+boundary\s*+=\s*+(?:"([^"\\\r\n]{1,200})"|([^\s;"()]{1,200}+))', re.I)
_SEALED = (b"multipart/signed", b"multipart/encrypted")
_PLAIN = (b"", b"7bit", b"8bit", b"binary")


class Seven(NamedTuple):
    """What became of a message."""

    pieces: list[bytes]
    left: str  # what still has 8 bits, and why; empty where nothing has


class _Fields(NamedTuple):
    """What the header block of a message or part says of its content."""

    kind: bytes  # content type in lower case; empty where there is none
    boundary: bytes
    encoding: bytes
    places: dict[bytes, tuple[int, int]]  # of the fields by name, their last line end left out
    is_plain: bool  # each name stands there once, and is understood


def seven(content: bytes) -> Seven:
    """Encode what can be encoded."""
    converter = _Converter(content)
    converter.message(0, len(content), 0)
    pieces, done = [], 0
    for begin, end, instead in sorted(converter.edits, key=lambda edit: edit[0]):
        pieces += [content[done:begin], *instead]
        done = end
    pieces.append(content[done:])
    return Seven(pieces, ", ".join(dict.fromkeys(converter.left)))


class _Converter:
    """The edits of one message, found from the outside to the inside."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._parts = 0
        self.edits: list[tuple[int, int, list[bytes]]] = []
        self.left: list[str] = []

    def message(self, begin: int, end: int, depth: int) -> None:
        """A message: the whole, or one that is attached."""
        body = self._body(begin, end)
        fields = self._fields(begin, body)
        if b"dkim-signature" in fields.places and not self._content[begin:end].isascii():
            self.left.append("a message with a DKIM-Signature")
            return
        before = len(self.edits)
        self._part(begin, body, end, fields, b"text/plain", depth)
        if len(self.edits) > before and b"mime-version" not in fields.places:
            new = [b"MIME-Version: 1.0\r\n"]
            if not fields.kind:
                is_utf8 = all(map(_is_utf8, _slices(self._content, body, end)))
                charset = b"utf-8" if is_utf8 else b"unknown-8bit"
                new.append(b"Content-Type: text/plain; charset=%b\r\n" % charset)
            self.edits.append((max(body - 2, begin), max(body - 2, begin), new))

    def _part(self, begin: int, body: int, end: int, fields: _Fields, default: bytes, depth: int) -> None:
        if not self._content[begin:body].isascii():
            self.left.append("header fields")
        if self._content[body:end].isascii():
            return
        kind = fields.kind or default
        major = kind.partition(b"/")[0]
        if kind in _SEALED:
            self.left.append("a part that is signed or encrypted")
        elif not fields.is_plain or fields.encoding not in _PLAIN or depth > MAX_DEPTH:
            self.left.append("a part that cannot be understood")
        elif major == b"multipart":
            self._inside(fields, lambda: self._multipart(body, end, fields.boundary, kind, depth))
        elif kind == b"message/rfc822":
            self._inside(fields, lambda: self.message(body, end, depth + 1))
        elif major == b"message" and kind != b"message/global":
            self.left.append("a part of a kind that is never encoded")
        else:
            self._leaf(begin, body, end, fields, is_text=major == b"text")

    def _inside(self, fields: _Fields, convert: Callable[[], None]) -> None:
        """What holds others says what they need; it is never encoded itself."""
        before = len(self.left)
        convert()
        place = fields.places.get(b"content-transfer-encoding")
        if place is not None and fields.encoding in (b"8bit", b"binary") and len(self.left) == before:
            self.edits.append((*place, [b"Content-Transfer-Encoding: 7bit"]))

    def _multipart(self, body: int, end: int, boundary: bytes, kind: bytes, depth: int) -> None:
        content = self._content
        delimiter = re.compile(rb"\r\n--%b(--)?[ \t]*+(?=\r\n|\Z)" % re.escape(boundary))
        default = b"message/rfc822" if kind == b"multipart/digest" else b"text/plain"
        inside = 0  # where the part at hand begins
        outside = body  # where what is in none begins
        found = False
        for line in delimiter.finditer(content, max(body - 2, 0), end) if boundary else ():
            self._parts += 1
            if self._parts > MAX_PARTS:
                self.left.append("the rest of so many parts")
                return
            if inside:
                self._inner(inside, line.start(), default, depth + 1)
            else:
                self._outside(outside, line.start())
            found = True
            inside, outside = line.end() + 2, line.end()
            if line[1]:
                inside = 0
                break
        if not found:
            self.left.append("a multipart without parts")
        elif inside:
            self._inner(inside, end, default, depth + 1)
        else:
            self._outside(outside, end)

    def _outside(self, begin: int, end: int) -> None:
        if not self._content[begin : max(begin, end)].isascii():
            self.left.append("what stands outside of parts")

    def _inner(self, begin: int, end: int, default: bytes, depth: int) -> None:
        if begin < end:
            body = self._body(begin, end)
            self._part(begin, body, end, self._fields(begin, body), default, depth)

    def _leaf(self, begin: int, body: int, end: int, fields: _Fields, *, is_text: bool) -> None:
        content = self._content
        slices = list(_slices(content, body, end))
        high = sum(len(each) - len(each.translate(None, _HIGH)) for each in slices)
        if is_text and high * 6 < end - body and all(len(each) <= SLICE for each in slices):
            encoding, encoded = b"quoted-printable", [_quoted(each) for each in slices]
        else:
            encoding = b"base64"
            encoded = [_base64(content[at : min(at + SLICE, end)]) for at in range(body, end, SLICE)]
            # The line end before a boundary is the boundary's.
            encoded[-1] = encoded[-1][:-2] if end < len(content) else encoded[-1]
        self.edits.append((body, end, encoded))
        place = fields.places.get(b"content-transfer-encoding")
        new = b"Content-Transfer-Encoding: %b" % encoding
        at = max(body - 2, begin)
        self.edits.append((*place, [new]) if place is not None else (at, at, [new, b"\r\n"]))

    def _body(self, begin: int, end: int) -> int:
        """Behind the header block and its blank line."""
        if self._content.startswith(b"\r\n", begin, end):
            return begin + 2
        found = self._content.find(b"\r\n\r\n", begin, end)
        return found + 4 if found >= 0 else end

    def _fields(self, begin: int, body: int) -> _Fields:
        block = self._content[begin:body].removesuffix(b"\r\n")
        values: dict[bytes, bytes] = {}
        places: dict[bytes, tuple[int, int]] = {}
        is_plain = True
        for found in _FIELD.finditer(block):
            name = found[1].lower()
            is_plain = is_plain and (name not in values or name == b"dkim-signature")
            values[name] = found[2].strip()
            start, stop = found.start(1), found.end(2)
            places[name] = (begin + start, begin + stop - block.startswith(b"\r", stop - 1))
        told = values.get(b"content-type", b"")
        kind = _TYPE.match(told)
        boundary = _BOUNDARY.search(told)
        return _Fields(
            kind[1].lower() if kind else b"",
            (boundary[1] or boundary[2]) if boundary else b"",
            values.get(b"content-transfer-encoding", b"").lower(),
            places,
            is_plain and bool(kind or not told),
        )


def _slices(content: bytes, begin: int, end: int) -> Iterator[bytes]:
    """Whole lines, of so many octets as a slice has, or one longer line."""
    while begin < end:
        stop = content.rfind(b"\r\n", begin, min(begin + SLICE, end))
        if end - begin <= SLICE:
            stop = end
        elif stop < 0:
            stop = content.find(b"\r\n", begin, end)
            stop = end if stop < 0 else stop + 2
        else:
            stop += 2
        yield content[begin:stop]
        begin = stop


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode()
    except UnicodeDecodeError:
        return False
    return True


def _quoted(lines: bytes) -> bytes:
    if lines.endswith(b"\r\n"):
        return b2a_qp(lines)
    return b2a_qp(lines + b"\r\n")[:-2]  # without a line end it would end its own lines by LF


def _base64(octets: bytes) -> bytes:
    line = b2a_base64(octets, newline=False)
    return b"".join(line[at : at + 76] + b"\r\n" for at in range(0, len(line), 76))
