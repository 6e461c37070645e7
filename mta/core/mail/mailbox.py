"""The addresses of a From-like field.

Between: admission asks whose mail a message says it is.
Contract: pure; takes the value of the field, folded or not, and gives each address in it, for each must be
    allowed: those of groups, too, and those that stand where a name should (`ann@b.test <ann@b.test>`, as
    many programs write it). A quoted local part that needs no quotes has none. Empty where the field cannot
    be read without guessing, or is longer than MAX_FIELD octets. `domain` is the one that all of them are
    at, as an A-label; "" where there are several, or none.
Raises: nothing.
Standards: RFC 5322 3.2 to 3.4 (of its obsolete forms only dots in a name), RFC 6854 (groups in From), RFC
    6532 (UTF-8), RFC 2047 5 (an encoded word is never part of an address).
Why: the email package takes quadratic time (2,720 comments cost two seconds), and stumbles over what nobody
    should have written: IndexError at `<`, RecursionError at `((((`. Here the words are found by one
    pattern, and their order is checked by another that never goes back.
"""

from __future__ import annotations

import re
from functools import lru_cache

from mta.core.mail.address import PathError, a_label

MAX_FIELD = 16 * 1024  # octets; five hundred authors, and some 6 ms
MAX_KEPT = 256  # octets of a field whose domain is remembered: many messages have the same author

# The ninety-nine in a hundred: one address, with a name of plain words or in quotes before it.
_ONE = re.compile(
    rb"\s*+(?:(?:[^<>\"(),:;@\\\r\n]*+|\"[^\"\\\r\n]*+\")\s*+<([^][<>\"(),:;@\\\s]++@[^][<>\"(),:;@\\\s]++)>"
    rb"|([^][<>\"(),:;@\\\s]++@[^][<>\"(),:;@\\\s]++))\s*+"
)
_CONTROL = r"\x00-\x1f\x7f"
_SPECIAL = rf'][()<>@,;:\\" {_CONTROL}'
_ATEXT = f"[^{_SPECIAL}]"  # and dots: where they may stand is not policed here
_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n]++)"
    rf"|(?P<encoded>=\?[^{_SPECIAL}?]++\?[BbQq]\?(?:[^{_SPECIAL}?]|@)*+\?=)"
    rf"|(?P<atoms>{_ATEXT}++)"
    r'|(?P<quoted>"(?:[^"\\\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\\[^\r\n\x00])*+")'
    rf"|(?P<literal>\[[^][\\{_CONTROL}]*+\])"
    r"|(?P<comment>\()"
    r"|(?P<special>[<>@,;:])"
)
_COMMENT = re.compile(r"[^()\\]*+(?:\\.[^()\\]*+)*+([()])", re.S)
_KINDS = {"encoded": "e", "atoms": "a", "quoted": "q", "literal": "l"}

_SPEC = "[aq]@[al]"
_MAILBOX = f"(?:{_SPEC}(?:<{_SPEC}>)?+|[aqel]*+<{_SPEC}>)"
_GROUP = f"[aqel]++:(?:{_MAILBOX}(?:,{_MAILBOX})*+)?+;"
_FIELD = re.compile(f"(?:{_MAILBOX}|{_GROUP})(?:,(?:{_MAILBOX}|{_GROUP}))*+")

_QUOTED_PAIR = re.compile(r"\\(.)", re.S)
_DOT_ATOM = re.compile(rf"(?!\.){_ATEXT}++(?<!\.)")


def addresses(value: bytes) -> list[str]:
    """Whose it says it is."""
    if len(value) > MAX_FIELD:
        return []
    one = _ONE.fullmatch(value)
    if one is not None and b"=?" not in (address := one[1] or one[2]):
        return [address.decode("utf-8", "replace")]
    tokens = _tokens(value.decode("utf-8", "replace"))
    order = "".join(kind for kind, _ in tokens)
    if not _FIELD.fullmatch(order):
        return []
    found = [at for at, kind in enumerate(order) if kind == "@"]
    return [f"{_local(*tokens[at - 1])}@{tokens[at + 1][1]}" for at in found]


def names_somebody(value: bytes) -> bool:
    """Does it hold something like an address at a domain, whether it can be read or not?"""
    found = addresses(value)
    return not all(address.endswith("]") for address in found) if found else b"@" in value


def domains(value: bytes) -> tuple[str, ...]:
    """The domains of its addresses, each once, in their order; an address literal has none."""
    return _remembered(value) if len(value) <= MAX_KEPT else _domains(value)


def _domains(value: bytes) -> tuple[str, ...]:
    try:
        found = dict.fromkeys(a_label(address.rpartition("@")[2]) for address in addresses(value))
    except PathError:
        return ()
    return tuple(name for name in found if not name.startswith("["))


_remembered = lru_cache(maxsize=1024)(_domains)


def _tokens(text: str) -> list[tuple[str, str]]:
    """The words and the signs between them, by a letter for their kind; none where other things are there."""
    tokens: list[tuple[str, str]] = []
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            return []
        position = token.end()
        kind = token.lastgroup
        if kind == "comment":
            position = _comment_end(text, position)
            if not position:
                return []
        elif kind == "special":
            tokens.append((token[0], token[0]))
        elif kind != "space":
            tokens.append((_KINDS[str(kind)], token[0]))
    return tokens


def _comment_end(text: str, position: int) -> int:
    """Behind a comment and those in it; 0 if it does not end."""
    depth = 1
    while depth:
        bracket = _COMMENT.match(text, position)
        if bracket is None:
            return 0
        depth += 1 if bracket[1] == "(" else -1
        position = bracket.end()
    return position


def _local(kind: str, written: str) -> str:
    if kind != "q":
        return written
    meant = _QUOTED_PAIR.sub(r"\1", written[1:-1].replace("\r", "").replace("\n", ""))
    if _DOT_ATOM.fullmatch(meant) and ".." not in meant:
        return meant
    return '"' + meant.replace("\\", "\\\\").replace('"', '\\"') + '"'
