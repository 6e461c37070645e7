"""What a client may ask for beyond the address: another priority, a later release.

Between: submission hands in parameters of MAIL and what the credential may; admission writes the result
    into the message.
Contract: pure; times are wall-clock seconds.
Raises: PathError, carrying the reply to give.
Standards: RFC 6710 4.1 (MT-PRIORITY), RFC 4865 3 and 4 (FUTURERELEASE: HOLDFOR, HOLDUNTIL).
"""

from __future__ import annotations

import re
from datetime import datetime

from mta.core.limits.order import HIGHEST, LOWEST
from mta.core.mail.address import PathError

_PRIORITY = re.compile(r"-?[0-9]")
_INTERVAL = re.compile(r"[1-9][0-9]{0,8}")  # RFC 4865 3: 1 to 999999999


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
        until = datetime.fromisoformat(value or "")
        if until.tzinfo is None or not str(value).isascii():
            raise ValueError("without a zone, or with a sign between date and time that is none")
    except ValueError:
        raise PathError(501, "5.5.4", "HOLDUNTIL is a time like 2026-12-24T18:00:00Z") from None
    return max(until.timestamp() - now, 0.0)
