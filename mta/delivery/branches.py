"""The tree of branches: those in use, and what was learned of them and of others.

Between: the pool asks for the branch of a lane, and gives it back; what was learned goes to the spool, each
    change to the event log.
Contract: one `Traffic` for each source and site, and above it one for the provider whose limits its sites
    share. A site below a provider has no limits of its own until it is blamed for a refusal. Who was answered
    since the last minute is saved, where that has changed anything, and at once where nothing may go for
    long: nobody else is looked at. The `LEARNED` that were used last are remembered, here and on disk; what
    was learned under a former name of a site is read once.
Raises: SpoolError from `start`; a bug of ours over one branch is counted, and costs no other its memory.
Why: a restart that forgets begins every provider anew, and asks again who has just blocked us.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from mta.clock import Clock, Every
from mta.core.event import Event, LimitField, Type, rfc3339
from mta.core.limits.adaptive import Branch, Change, Saved
from mta.core.limits.budget import LEARNED
from mta.core.limits.level import Bounds
from mta.core.route.routing import Route, former_site
from mta.core.route.source import Source
from mta.core.route.terms import UNLIMITED, BranchBounds
from mta.delivery.traffic import SHORT, Traffic, Waiter, finite
from mta.metrics import Metrics
from mta.spool.queue import Spool

SAVE_INTERVAL = 60.0  # seconds between two looks at what has been learned
BLAMELESS = BranchBounds(
    UNLIMITED, Bounds(1.0, math.inf, math.inf)
)  # of a site whose provider has the limits


class Branches:
    """Traffic by name."""

    def __init__(self, spool: Spool, clock: Clock, metrics: Metrics) -> None:
        self._spool = spool
        self._clock = clock
        self._metrics = metrics
        self._learned: dict[str, Saved] = {}  # who was used longest ago stands first
        self._answered: set[Traffic] = set()  # since the last look
        self._saving = Every(clock, SAVE_INTERVAL, self._look, self._bug)
        self.in_use: dict[str, Traffic] = {}
        self._bounds: dict[str, BranchBounds] = {}  # of these, as the settings say

    async def start(self) -> None:
        """Remember."""
        self._learned = await self._spool.reader.learned()
        self._saving.start()

    def stop(self) -> None:
        """Save, for the last time."""
        self._saving.stop()
        self._save(self.in_use.values())

    @property
    def learned(self) -> int:
        """Branches that are remembered."""
        return len(self._learned)

    def enter(self, route: Route, source: Source) -> Traffic:
        """The branch of a lane from this source over this route."""
        traffic = self._of(route, source)
        for node in traffic.way:
            self.in_use.setdefault(node.name, node)
            self._bounds.setdefault(node.name, BLAMELESS if node.above else route.bounds)
            if node.name in self._learned:
                self._learned[node.name] = self._learned.pop(node.name)  # used last
        return traffic

    def leave(self, lane: Waiter, traffic: Traffic) -> None:
        """A lane is no more; what nobody shares is saved and forgotten."""
        traffic.leave(lane)
        for node in traffic.way:
            if not node.lanes:
                self._save([node])
                self._answered.discard(node)
                del self.in_use[node.name], self._bounds[node.name]

    def rebound(self, traffic: Traffic, bounds: BranchBounds) -> None:
        """Where the settings say other limits by now, what was learned stays within these."""
        top = traffic.way[-1]
        if self._bounds[top.name] == bounds:
            return
        self._bounds[top.name] = bounds
        before, branch = top.branch, Branch(*bounds, is_known=bool(top.provider))
        if before.has_learned:
            branch.restore(before.snapshot(), 0.0)
        now = self._clock.monotonic()
        if before.until > now:
            branch.shut(now, before.until, before.reason)
        top.branch = branch
        top.wake()

    def known(self, route: Route, source: Source) -> Traffic | None:
        """The branch, if it or the one above it is in use or was; for people."""
        traffic = self._of(route, source)
        names = [node.name for node in traffic.way]
        return traffic if any(name in self.in_use or name in self._learned for name in names) else None

    # Inside

    def _of(self, route: Route, source: Source) -> Traffic:
        if not route.above:
            return self._node(route.site, route.site, route.bounds, route, source, None)
        above = self._node(route.above, route.above, route.bounds, route, source, None)
        return self._node(f"{route.above}/{route.site}", route.site, BLAMELESS, route, source, above)

    def _node(
        self, key: str, place: str, bounds: BranchBounds, route: Route, source: Source, above: Traffic | None
    ) -> Traffic:
        name = _name(key, source.name)
        known = self.in_use.get(name)
        if known is not None:
            return known
        branch, clock = Branch(*bounds, is_known=bool(route.provider)), self._clock
        traffic = Traffic(
            name, place, route.provider, source.name, branch, above, clock, self._changed, self._bug
        )
        traffic.answering = self._answered
        learned = self._learned.get(name)
        if learned is None and key == route.site:
            former = _name(former_site(route.site), source.name)
            if former != name and former in self._learned:  # renamed: it may be a look only
                learned = self._learned[name] = self._learned.pop(former)
        if learned is not None:
            traffic.begin_with(learned)
        return traffic

    def _changed(self, traffic: Traffic, change: Change) -> None:
        """A window or a rate moved, or a branch was shut."""
        wait = 0.0 if change.until is None else change.until - self._clock.monotonic()
        self._spool.report([_limit_event(traffic, change, self._clock.now(), wait)])
        if wait > SHORT:
            self._save([traffic])  # who blocks us is not to be asked again because we crashed

    def _bug(self, error: Exception) -> None:
        self._metrics.bug("delivery", "a bug in a branch", error)

    def _look(self) -> None:
        answered = list(self._answered)
        self._answered.clear()
        self._save(answered)

    def _save(self, some: Iterable[Traffic]) -> None:
        """Keep what they have learned since the last time."""
        new: dict[str, Saved | None] = {}
        for traffic in some:
            name = traffic.name
            try:
                saved = traffic.saved(self._clock.now())
            except Exception as error:
                self._bug(error)
                self._answered.add(traffic)
                continue
            known = self._learned.get(name)
            if saved is not None and (known is None or not saved.is_like(known)):
                new[name] = saved
                self._learned.pop(name, None)
                self._learned[name] = saved
        while len(self._learned) > LEARNED:
            oldest = next(iter(self._learned))
            del self._learned[oldest]
            new[oldest] = None
        if new:
            self._spool.learn(new)


def _name(place: str, source: str) -> str:
    """What the limits of a branch from a source are kept under."""
    return f"{place} from {source}" if source else place


def _limit_event(traffic: Traffic, change: Change, now: float, wait: float) -> Event:
    """What the event log says of a change; it holds mail back for `wait` seconds."""
    return Event(
        time=rfc3339(now), type=Type.LIMIT,
        source=traffic.source, site=traffic.place, provider=traffic.provider,
        reason=change.reason, due=rfc3339(now + wait) if wait > 0 else "",
        limit=LimitField(change.what, finite(change.old), finite(change.new)),
    )  # fmt: skip
