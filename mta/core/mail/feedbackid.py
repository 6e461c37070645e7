"""Feedback-ID: what providers sort complaints by, from a pattern of the settings.

Between: `config.units` reads the pattern; admission fills it for a message that has no such field.
Contract: pure. A pattern is up to four parts joined by colons, each of fixed text or of words such as
    {stream}; the last part is the sender's own name. In what is filled in, all but letters, digits, `.`, `_`
    and `-` is `_`, and nothing is longer than `LONGEST` characters; what is empty is `-`.
Raises: ValueError from `check`, with words, for what is no pattern.
Standards: none; Google's form a:b:c:SenderId, which Yahoo takes, too.
"""

from __future__ import annotations

import re
from functools import lru_cache

WORDS = ("stream", "tenant", "credential", "domain")
PARTS = 4
LONGEST = 100
_PART = re.compile(rf"(?:[A-Za-z0-9._-]|\{{(?:{'|'.join(WORDS)})\}})+")
_WORD = re.compile(r"\{(\w+)\}")
_UNFIT = re.compile(r"[^A-Za-z0-9._-]")


def check(pattern: str) -> None:
    """Refuse what is no pattern."""
    parts = pattern.split(":")
    if len(parts) > PARTS or not all(map(_PART.fullmatch, parts)):
        known = ", ".join(f"{{{word}}}" for word in WORDS)
        raise ValueError(
            f"{pattern!r} is no pattern: up to {PARTS} parts joined by ':', of letters and {known}"
        )
    if "{" in parts[-1]:
        raise ValueError(f"{pattern!r} is no pattern: its last part is your own name, always the same")


@lru_cache(maxsize=1024)
def filled(pattern: str, stream: str, tenant: str, credential: str, domain: str) -> str:
    """The value for a message."""
    words = dict(zip(WORDS, (stream, tenant, credential, domain), strict=True))
    return _WORD.sub(lambda found: _UNFIT.sub("_", words[found[1]])[:LONGEST] or "-", pattern)
