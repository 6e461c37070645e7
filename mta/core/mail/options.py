"""What a client may ask for beyond the address: another priority, a later release.

Between: submission hands in parameters of MAIL and what the credential may; admission writes the result
    into the message.
Contract: pure; times are wall-clock seconds.
Raises: PathError, carrying the reply to give; ValueError from `instant`.
Standards: RFC 6710 4.1 (MT-PRIORITY), RFC 4865 3 and 4 (FUTURERELEASE: HOLDFOR, HOLDUNTIL), RFC 3339 5.6.
"""

from __future__ import annotations

import re
from datetime import datetime

from mta.core.limits.order import HIGHEST, LOWEST
from mta.core.mail.address import PathError
from mta.core.mail.text import fit

SHOWN = 40  # characters of a value that is quoted

_PRIORITY = re.compile(r"-?[0-9]")
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2})"
)
_INTERVAL = re.compile(r"[1-9][0-9]{0,8}")  # RFC 4865 3: 1 to 999999999

EXAMPLE = "a time like 2026-12-24T18:00:00Z"


def priority(value: str | None) -> int:
    """The value of MT-PRIORITY."""
    if value is None or not _PRIORITY.fullmatch(value):
        raise PathError(501, "5.5.4", f"MT-PRIORITY is a whole number from {LOWEST} to {HIGHEST}")
    return int(value)


def delay_for(value: str | None) -> float:
    """The value of HOLDFOR, in seconds."""
    if value is None or not _INTERVAL.fullmatch(value):
        raise PathError(501, "5.5.4", "HOLDFOR is a number of seconds, at least 1")
    return float(value)


def delay_until(value: str | None, now: float) -> float:
    """The value of HOLDUNTIL, as seconds from now; a time that has passed is no wait."""
    try:
        return max(instant(value or "") - now, 0.0)
    except ValueError:
        raise PathError(501, "5.5.4", f"HOLDUNTIL is {EXAMPLE}") from None


def instant(text: str) -> float:
    """An RFC 3339 date and time."""
    if not _INSTANT.fullmatch(text.upper()):
        raise ValueError(f"{fit(text, SHOWN)!r} is no time")
    try:
        return datetime.fromisoformat(text.upper()).timestamp()
    except ValueError:  # the 30th of February
        raise ValueError(f"there is no {text}") from None
