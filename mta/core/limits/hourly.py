"""What is told once, and then counted until the hour is over: objections of checks.

Between: `guard.checks` asks before an event, and empties it once an hour and at the end.
Contract: pure. `met` gives the objection, with `more` of them that no event of their own tells of: 0 says
    that this is the first one. Of more than `EACH` domains of one credential the rest are one, without a
    domain, and so are those of all credentials beyond `MOST`, without either. Who keeps one may count it
    himself, until `rest`, which gives those with more of them, and forgets all.
Raises: nothing.
Why: a campaign of a million messages has one fault, not a million.
"""

from __future__ import annotations

import msgspec

MOST = 10_000  # objections an hour
EACH = 100  # of one credential


class Objection(msgspec.Struct):
    """Who objects to whose mail."""

    check: str
    credential: str
    domain: str
    more: int = 0


class Hourly:
    """Those of this hour."""

    def __init__(self) -> None:
        self._met: dict[tuple[str, str, str], Objection] = {}
        self._each: dict[str, int] = {}

    def met(self, check: str, credential: str, domain: str) -> Objection:
        """Once more."""
        key = check, credential, domain
        found = self._met.get(key)
        if found is None:
            if len(self._met) >= MOST:
                key = check, "", ""
            elif self._each.get(credential, 0) >= EACH:
                key = check, credential, ""
            found = self._met.get(key)
            if found is None:
                self._each[credential] = self._each.get(credential, 0) + 1
                found = self._met[key] = Objection(*key)
                return found
        found.more += 1
        return found

    def rest(self) -> list[Objection]:
        """What was counted and not told."""
        counted = [each for each in self._met.values() if each.more]
        self._met.clear()
        self._each.clear()
        return counted
