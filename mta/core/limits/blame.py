"""On which branch is a refusal charged: on the site's, or on that of the provider behind it?

Between: `delivery.traffic` asks for each refusal that is about us, where sites share a provider's limits.
Contract: pure; times are seconds of one clock that never goes back. The site is charged unless the words
    are the provider's own. Words that anybody may write are the site's, until `SITES` sites have said what
    one rule knows within `WITHIN` seconds: then the provider is charged.
Raises: nothing.
Why: behind a hosted provider each site is another customer, who writes what his rules answer. One of them
    must not shut the door of all others.
"""

from __future__ import annotations

from mta.core.model import Scope, Verdict

SITES = 3
WITHIN = 600.0  # seconds
REMEMBERED = 100  # rules that are counted
OWN = frozenset({Scope.HOST, Scope.SITE})  # scopes that a provider's own words may leave to the site


class Blame:
    """What the sites of one provider have said of us."""

    def __init__(self) -> None:
        self._said: dict[str, dict[str, float]] = {}  # rule -> site -> when, the last time

    def __len__(self) -> int:
        """Rules that are counted."""
        return len(self._said)

    def climbs(self, now: float, site: str, verdict: Verdict | None) -> bool:
        """Is this refusal the provider's?"""
        if verdict is not None and verdict.is_own:
            return verdict.scope not in OWN
        rule = "" if verdict is None else verdict.rule
        said = self._said.pop(rule, {})
        said.pop(site, None)
        said[site] = now
        latest = list(said.items())[-SITES:]  # no others matter
        self._said[rule] = {each: at for each, at in latest if at > now - WITHIN}
        if len(self._said) > REMEMBERED:
            del self._said[next(iter(self._said))]
        return len(self._said[rule]) >= SITES
