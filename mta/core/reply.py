"""SMTP replies: octets -> `Reply` values.

Between: the SMTP client feeds what the peer sent; the dialogue reads replies.
Contract: `feed` takes any slice of the stream and gives the replies that are complete, one by one. Lines
    of one reply are joined by a line feed; the enhanced code of the first line is taken off every line. What
    is no printable Unicode is replaced, and of a text `MAX_TEXT` characters are kept.
Raises: ReplyError on anything that is no reply, or one that does not end, after the replies before it; the
    connection is then of no use.
Standards: RFC 5321 4.2 (replies), 4.5.3.1.5 (512 octets; real peers send more), RFC 3463 (enhanced codes).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from mta.core.model import Reply

MAX_LINE = 2048  # octets
MAX_REPLY = 32 * 1024  # octets; generous over any EHLO, and a bound on what a peer makes us hold
MAX_TEXT = 2048  # characters
_LINE = re.compile(rb"([2-5]\d\d)(?:([ -])([^\r\n]*+))?\r?")
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:[ \t]++|$)")


def fit(said: str) -> str:
    """A line that somebody else wrote, as events, notices and logs can have it: short, printable Unicode.

    A lone surrogate, which is how libraries show an octet that is no UTF-8, cannot be written anywhere.
    """
    said = said[:MAX_TEXT]
    if said.isprintable():
        return said
    return "".join(each if each.isprintable() else " " if each.isspace() else "\ufffd" for each in said)


class ReplyError(Exception):
    """The peer does not speak SMTP."""


class ReplyParser:
    """Holds what is not yet a whole reply."""

    __slots__ = ("_lines", "_rest", "_size")

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[bytes] = []  # of a reply that goes on
        self._size = 0

    def feed(self, data: bytes) -> Iterator[Reply]:
        """The replies that are complete now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if not self._lines and line[3:4] == b" ":
                yield _single(line)
                continue
            self._lines.append(line)
            self._size += len(line)
            if self._size > MAX_REPLY:
                raise ReplyError("a reply without an end")
            if line[3:4] != b"-":
                yield _several(self._lines)
                self._lines, self._size = [], 0
        if len(self._rest) > MAX_LINE:
            raise ReplyError("a reply line without an end")


def _parts(line: bytes) -> tuple[int, str]:
    found = _LINE.fullmatch(line) if len(line) <= MAX_LINE else None
    if found is None:
        raise ReplyError(f"not a reply: {line[:80]!r}")
    return int(found[1]), fit((found[3] or b"").decode("utf-8", "replace")).strip()


@lru_cache(maxsize=512)  # most of what a peer says, it says again
def _single(line: bytes) -> Reply:
    code, text = _parts(line)
    enhanced = _ENHANCED.match(text)
    return Reply(code, enhanced[1], text[enhanced.end() :]) if enhanced else Reply(code, "", text)


def _several(lines: list[bytes]) -> Reply:
    parts = [_parts(line) for line in lines]
    code = parts[-1][0]
    if any(each != code for each, _ in parts):
        raise ReplyError(f"a reply with two codes: {lines[0][:80]!r}")
    enhanced = _ENHANCED.match(parts[0][1])
    prefix = enhanced[1] if enhanced else ""
    texts = [text.removeprefix(prefix).strip() if prefix else text for _, text in parts]
    return Reply(code, prefix, "\n".join(texts)[:MAX_TEXT])
