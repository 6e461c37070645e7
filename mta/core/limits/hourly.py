"""What is told once, and then counted until the hour is over: objections of checks.

Between: `guard.checks` asks before an event, and empties it once an hour and at the end.
Contract: pure. `met` is the objection that an event is to tell of, or None where it was told before; of more
    than `EACH` domains of one credential the rest are one, without a domain, and so are those of all
    credentials beyond `MOST`, without either. `rest` gives how many more there were of each, and forgets
    all.
Raises: nothing.
Why: a campaign of a million messages has one fault, not a million.
"""

from __future__ import annotations

from typing import NamedTuple

MOST = 10_000  # objections an hour
EACH = 100  # of one credential


class Objection(NamedTuple):
    """Who says what about whose mail."""

    check: str
    credential: str
    domain: str


class Hourly:
    """Those of this hour."""

    def __init__(self) -> None:
        self._more: dict[Objection, int] = {}
        self._each: dict[str, int] = {}

    def met(self, check: str, credential: str, domain: str) -> Objection | None:
        """Once more."""
        for key in (
            Objection(check, credential, domain),
            Objection(check, credential, ""),
            Objection(check, "", ""),
        ):
            if key in self._more:
                self._more[key] += 1
                return None
            if not key.credential or self._has_room(key):
                break
        self._more[key] = 0
        self._each[key.credential] = self._each.get(key.credential, 0) + 1
        return key

    def _has_room(self, key: Objection) -> bool:
        if len(self._more) >= MOST:
            return False
        return not key.domain or self._each.get(key.credential, 0) < EACH

    def rest(self) -> list[tuple[Objection, int]]:
        """What was counted and not told."""
        counts = [(key, more) for key, more in self._more.items() if more]
        self._more.clear()
        self._each.clear()
        return counts
