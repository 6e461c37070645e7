"""SMTP replies: octets -> `Reply` values.

Between: the SMTP client feeds what the peer sent; the dialogue reads replies.
Contract: `feed` takes any slice of the stream and gives the replies that are complete, one by one. Lines
    of one reply are joined by a line feed, each without its own enhanced code; the first of these is the
    reply's. Where lines have different codes the last one counts, if they are of one class. What is no
    printable Unicode is replaced, and of a text `MAX_TEXT` characters are kept: a reply that is too long for
    the standard is a reply. An empty line is none.
Raises: ReplyError on anything that is no reply, or one that does not end, after the replies before it, with
    the octets in its words; the connection is then of no use.
Standards: RFC 5321 4.2 (replies), 4.5.3.1.5 (512 octets; real peers send more), RFC 3463 (enhanced codes).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from mta.core.mail.text import heard
from mta.core.model import Reply

MAX_LINE = 2048  # octets of a line that are looked at
MAX_REPLY = 64 * 1024  # octets; generous over any EHLO, and a bound on what a peer makes us hold
MAX_TEXT = 2048  # characters
MAX_QUOTED = 200  # octets of what cannot be understood
_LINE = re.compile(rb"([2-5]\d\d)(?:[ -](.*+))?+\r?", re.S)
# Whole replies of one line each, and nothing else: nearly all that peers say behind EHLO.
_SINGLE = re.compile(rb"(?:[2-5]\d\d [^\n]*+\n)++")
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:[ \t]++|$)")


class ReplyError(Exception):
    """The peer does not speak SMTP."""


class ReplyParser:
    """Holds what is not yet a whole reply."""

    __slots__ = ("_lines", "_rest", "_size")

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[bytes] = []  # of a reply that goes on
        self._size = 0

    def feed(self, data: bytes) -> Iterable[Reply]:
        """The replies that are complete now."""
        if not self._rest and not self._size and len(data) <= MAX_LINE and _SINGLE.fullmatch(data):
            return map(_single, data[:-1].split(b"\n"))
        return self._feed(self._rest + data)

    def _feed(self, data: bytes) -> Iterator[Reply]:
        is_short = len(data) <= MAX_LINE
        *lines, self._rest = data.split(b"\n")
        for line in lines:
            if is_short and line[3:4] == b" " and not self._size:
                yield _single(line)
                continue
            self._size += len(line) + 1
            if self._size > MAX_REPLY:
                self._lines.append(line)
                break
            if not line.strip():
                continue
            self._lines.append(line)
            if line[3:4] != b"-":
                whole, self._lines, self._size = self._lines, [], 0
                yield _several(whole)
        if self._size + len(self._rest) > MAX_REPLY:
            raise ReplyError(f"a reply without an end: {quoted((self._lines or [self._rest])[0])}")


def reply_of(code: int, text: str) -> Reply:
    """A reply whose lines another parser has joined."""
    return _joined(code, [heard(line, MAX_TEXT).strip() for line in text[: 4 * MAX_TEXT].split("\n")])


def _parts(line: bytes) -> tuple[int, str]:
    found = _LINE.fullmatch(line[:MAX_LINE])
    if found is None:
        raise ReplyError(f"what is no reply: {quoted(line)}")
    return int(found[1]), heard((found[2] or b"").decode("utf-8", "replace"), MAX_TEXT).strip()


def quoted(octets: bytes) -> str:
    """The beginning of what cannot be understood."""
    octets = octets.rstrip(b"\r\n")
    return repr(octets[:MAX_QUOTED])[1:] + ("..." if len(octets) > MAX_QUOTED else "")


@lru_cache(maxsize=512)  # most of what a peer says, it says again
def _single(line: bytes) -> Reply:
    code, text = _parts(line)
    return _joined(code, [text])


def _several(lines: list[bytes]) -> Reply:
    parts = [_parts(line) for line in lines]
    code = parts[-1][0]
    if any(each // 100 != code // 100 for each, _ in parts):
        said = b" / ".join(line.rstrip(b"\r") for line in lines)
        raise ReplyError(f"a reply with two codes: {quoted(said)}")
    return _joined(code, [text for _, text in parts])


def _joined(code: int, texts: list[str]) -> Reply:
    """Each line may begin with an enhanced code; what follows it is the text."""
    found = [_ENHANCED.match(text) for text in texts]
    enhanced = next((each[1] for each in found if each), "")
    texts = [text[each.end() :] if each else text for text, each in zip(texts, found, strict=True)]
    return Reply(code, enhanced, "\n".join(texts)[:MAX_TEXT])
