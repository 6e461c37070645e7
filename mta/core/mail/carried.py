"""What an application asks of us in the header block: the X-MTA fields, one by one.

Between: `core.mail.header` finds them and takes them out, admission obeys; a parcel's record is read by the
    same rules.
Contract: pure. `read` takes names and values as they stood there. A value is unfolded (a fold is a space)
    and UTF-8, encoded words in it are decoded. Tags are 16 at most, of 128 octets each, once each, in the
    order in which they came; metadata is compact JSON of 4 KiB at most. Times are wall-clock seconds, written
    as RFC 3339 has them and in no other way.
Raises: HeaderError, carrying the reply to give: one line that names the field, what is wrong with it and what
    to write; ValueError from `tags` and `metadata`.
Standards: RFC 5322 2.2.3 (folding), RFC 2047 2, 5 (1) and 6.2 (encoded words), RFC 8259 (JSON), RFC 3339.
Why: whoever sets a field by a library gets encoded words for what is not ASCII, and from Python's for all
    that is long and has no blank: the tag that he set is what was encoded. A field that is not understood is
    a refusal: mail in the wrong stream, or at the wrong time, is worse than mail that comes back at once.
"""

from __future__ import annotations

import json
import math
import re
from binascii import a2b_base64, a2b_qp
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from mta.core.mail.header import HeaderError
from mta.core.mail.options import EXAMPLE, instant
from mta.core.mail.text import fit

TAG = b"x-mta-tag"
MAX_TAGS = 16
MAX_TAG = 128  # octets
MAX_METADATA = 4096  # octets, compact
MAX_WRITTEN = 64 * 1024  # octets of a field: blanks and escapes of JSON are not kept
MAX_DEPTH = 20  # objects and lists in one another
MAX_DIGITS = 300  # of a whole number: what a double can have
MAX_SCORE = 100
SHOWN = 40  # characters of a value that a reply quotes
SAME = 60.0  # seconds: what MAIL asked for was counted before the content came

_CHARSETS = {"utf-8", "us-ascii", "iso-8859-1"}
_WORD = re.compile(r"=\?([A-Za-z0-9-]+)(?:\*[A-Za-z0-9-]+)?\?([BbQq])\?([!->@-~]*)\?=")
_PLAIN = _WORD.pattern.replace("([", "(?:[")
_WORDS = re.compile(rf"(?<![^ \t]){_PLAIN}(?:[ \t]+{_PLAIN})*(?![^ \t])")
_SCORE = re.compile(r"0|[1-9][0-9]?|100")

Value = TypeVar("Value")


class Carried(msgspec.Struct, frozen=True):
    """What a message carries beside its content."""

    stream: str = ""  # "": that of the credential
    tags: tuple[str, ...] = ()
    metadata: str = ""  # a JSON object
    send_at: float | None = None
    expires: float | None = None
    score: int | None = None  # 0 to 100
    requires_tls: bool = False

    def delay(self, asked: float, longest: float | None, now: float) -> float:
        """Seconds until it may go; `asked` was said at MAIL, `longest` is what the credential may ask for."""
        if self.send_at is None:
            return asked
        wait = max(self.send_at - now, 0.0)
        if asked and abs(wait - asked) > SAME:
            raise HeaderError(
                550, "X-MTA-Send-At: HOLDFOR or HOLDUNTIL named another time; write one of them"
            )
        wait = max(wait, asked)
        if wait and longest is None:
            raise HeaderError(550, "X-MTA-Send-At: you may not ask for a later release", "5.7.1")
        if longest is not None and wait > longest:
            said = f"X-MTA-Send-At: you may delay a message by {longest:.0f} seconds at most"
            raise HeaderError(550, said, "5.7.1")
        return wait

    def end(self, start: float, latest: float) -> float:
        """When its time is over: from `start` on it is tried, and at `latest` its stream gives it up."""
        if self.expires is None:
            return latest
        if self.expires <= start:
            what = "it has passed" if self.send_at is None else "it is not after the time of release"
            raise HeaderError(550, f"X-MTA-Expires: {what}; write a later time, {EXAMPLE}")
        return min(self.expires, latest)


NOTHING = Carried()


def read(fields: Sequence[tuple[bytes, bytes]], streams: Sequence[str]) -> Carried:
    """What these fields say to a credential that may use these streams."""
    if not fields:
        return NOTHING
    said: dict[bytes, list[str]] = {}
    for name, value in fields:
        said.setdefault(name, []).append(_text(name, value))
    for name, values in said.items():
        if len(values) > 1 and name != TAG:
            raise HeaderError(550, f"{_shown(name)} stands there {len(values)} times; write it once")

    def one(name: bytes, parse: Callable[[str], Value], write: str) -> Value | None:
        return _asked(name, parse, said[name][0], write) if name in said else None

    listed = _asked(TAG, _listed, said.get(TAG, ()), "X-MTA-Tag: one, two")
    stream = one(b"x-mta-stream", str, "")
    if stream is not None and stream not in streams:
        may = ", ".join(fit(each, SHOWN) for each in streams[:MAX_TAGS])
        words = f"X-MTA-Stream: you may not use {fit(stream, SHOWN)!r}; write one of {may}"
        raise HeaderError(550, words, "5.7.1")
    return Carried(
        stream or "",
        listed,
        one(b"x-mta-metadata", metadata, '{"order": 17}') or "",
        one(b"x-mta-send-at", instant, EXAMPLE),
        one(b"x-mta-expires", instant, EXAMPLE),
        one(b"x-mta-score", _score, f"a whole number from 0 to {MAX_SCORE}"),
        one(b"x-mta-require-tls", _yes, "yes, or leave it out") or False,
    )


def tags(said: Iterable[str]) -> tuple[str, ...]:
    """Tags, each of which stands alone."""
    found = tuple(dict.fromkeys(said))
    if len(found) > MAX_TAGS:
        raise ValueError(f"{len(found)} tags are more than {MAX_TAGS}")
    for tag in found:
        size = len(tag.encode("utf-8", "replace"))
        if not size:
            raise ValueError("a tag is empty")
        if size > MAX_TAG:
            raise ValueError(f"a tag has {size} octets, and may have {MAX_TAG}")
        if tag != fit(tag, MAX_TAG) or tag != tag.strip() or "," in tag:
            raise ValueError(f"{fit(tag, SHOWN)!r} is no tag: it has a comma, or what does not print")
    return found


def metadata(said: str) -> str:
    """A JSON object, without what it can do without."""
    try:
        value = json.loads(
            said,
            object_pairs_hook=_object,
            parse_float=_number,
            parse_int=_whole_number,
            parse_constant=_no_number,
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON ({error.msg} at character {error.pos + 1})") from None
    except RecursionError:
        raise ValueError(f"it is deeper than {MAX_DEPTH} levels") from None
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    if _is_deeper(value, MAX_DEPTH):
        raise ValueError(f"it is deeper than {MAX_DEPTH} levels")
    kept = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        size = len(kept.encode())
    except UnicodeEncodeError:
        raise ValueError("it has half a character (a lone surrogate)") from None
    if size > MAX_METADATA:
        raise ValueError(f"it has {size} octets, and may have {MAX_METADATA}")
    return kept


def _whole_number(said: str) -> int:
    if len(said) > MAX_DIGITS:
        raise ValueError(f"a number has {len(said)} digits, and may have {MAX_DIGITS}")
    return int(said)


def _asked(name: bytes, parse: Callable[[Any], Value], said: Any, write: str) -> Value:
    try:
        return parse(said)
    except ValueError as error:
        raise HeaderError(550, f"{_shown(name)}: {error}; write {write}") from None


def _shown(name: bytes) -> str:
    return name.decode().title().replace("Mta", "MTA").replace("Tls", "TLS")


def _text(name: bytes, value: bytes) -> str:
    """What was meant: unfolded and decoded."""
    if len(value) > MAX_WRITTEN:
        raise HeaderError(550, f"{_shown(name)} is larger than {MAX_WRITTEN} octets; write less")
    # Python's library folds between a blank and encoded words, and adds another blank there. A tab that
    # begins a line stands for the blank where it was folded; within JSON it would be none.
    unfolded = value.replace(b" \r\n =?", b" =?").replace(b"\r\n\t", b" ").replace(b"\r\n", b"")
    try:
        text = unfolded.decode()
        return _WORDS.sub(_decoded, text).strip() if "=?" in text else text
    except ValueError:
        raise HeaderError(550, f"{_shown(name)} cannot be decoded; write ASCII or UTF-8") from None


def _decoded(words: re.Match[str]) -> str:
    """Words side by side are one text; a character may begin in one and end in the next."""
    parts: list[tuple[str, list[bytes]]] = []
    for charset, encoding, said in _WORD.findall(words[0]):
        octets = a2b_base64(said) if encoding in "Bb" else a2b_qp(said, header=True)
        if charset.lower() not in _CHARSETS:
            raise ValueError(charset)
        if not parts or parts[-1][0] != charset:
            parts.append((charset, []))
        parts[-1][1].append(octets)
    return "".join(b"".join(octets).decode(charset) for charset, octets in parts)


def _listed(fields: Iterable[str]) -> tuple[str, ...]:
    return tags(tag.strip(" \t") for field in fields for tag in field.split(","))


def _score(said: str) -> int:
    if not _SCORE.fullmatch(said):
        raise ValueError(f"{fit(said, SHOWN)!r} is no score")
    return int(said)


def _yes(said: str) -> bool:
    if said.lower() != "yes":
        raise ValueError(f"{fit(said, SHOWN)!r} is not yes")
    return True


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise ValueError(f"the key {fit(name, SHOWN)!r} stands there twice")
        made[name] = value
    return made


def _number(said: str) -> float:
    number = float(said)
    if math.isinf(number):
        raise ValueError(f"{said[:SHOWN]} is too large a number")
    return number


def _no_number(said: str) -> float:
    raise ValueError(f"{said} is no number of JSON")


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    return levels == 0 or any(
        _is_deeper(each, levels - 1) for each in (value.values() if isinstance(value, dict) else value)
    )
