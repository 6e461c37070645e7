"""What others wrote, made fit for people: reply lines, logs, events, terminals and pages.

Between: whoever shows a text that a client, a peer or a stranger chose.
Contract: pure. What comes out is printable and on one line, at most `limit` characters: no control (C0,
    C1), no end of a line of any kind (U+2028, U+2029 too), nothing that turns the direction of what stands
    behind it, nothing that is no Unicode; each such character is a question mark. Letters of all scripts
    stay, with the joiners and spaces that they are written with. HTML has to be escaped besides.
Raises: nothing.
Standards: RFC 5198 2 (controls), UAX 9 (directions), UTR 36 3 (what deceives).
"""

from __future__ import annotations

# For patterns of what has no place in a name at all: such a name is refused, not mended.
UNFIT = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_JOINERS = "\u200c\u200d"
_ENDS = "\u2028\u2029"  # of a line and of a paragraph


def fit(text: str, limit: int) -> str:
    """The text as it may be shown."""
    text = text[:limit]
    return text if text.isprintable() else "".join(map(_fit, text))


def _fit(character: str) -> str:
    is_space = character.isspace() and character >= "\xa0" and character not in _ENDS
    return character if character.isprintable() or is_space or character in _JOINERS else "?"


def printable(line: str) -> str:
    """The line with a question mark for whatever does not print, joiners and odd spaces too."""
    return line if line.isprintable() else "".join(each if each.isprintable() else "?" for each in line)


def heard(said: str, limit: int) -> str:
    """What a peer, a library or the system said, as events, notices and logs can have it.

    A lone surrogate, which is how libraries show an octet that is no UTF-8, cannot be written anywhere.
    """
    said = said[:limit]
    if said.isprintable():
        return said
    return "".join(each if each.isprintable() else " " if each.isspace() else "\ufffd" for each in said)
