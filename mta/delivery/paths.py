"""The paths: those in use, and what was learned of them and of others.

Between: the pool asks for the path of a lane, and gives it back; what was learned goes to the spool, each
    change to the event log.
Contract: one `Traffic` for each source and provider, or site where the provider's sites have limits of their
    own. What has changed is saved once a minute, and at once where nothing may go for long. The `MAX_LEARNED`
    that changed last are remembered.
Raises: SpoolError from `start`; a bug of ours over one path is counted, and costs no other its memory.
Why: a restart that forgets begins every provider anew, and asks again who has just blocked us.
"""

from __future__ import annotations

from collections.abc import Iterable

from mta.clock import Clock, Every
from mta.core.event import Event, LimitField, Type, rfc3339
from mta.core.limits.adaptive import Change, Path, Saved
from mta.core.route.routing import Route
from mta.core.route.source import Source
from mta.core.route.terms import PathBounds
from mta.delivery.traffic import SHORT, Lane, Traffic, finite
from mta.metrics import Metrics
from mta.spool.queue import Spool

SAVE_INTERVAL = 60.0  # seconds between two looks at what has been learned
MAX_LEARNED = 10_000  # paths that are remembered


class Paths:
    """Traffic by name."""

    def __init__(self, spool: Spool, clock: Clock, metrics: Metrics) -> None:
        self._spool = spool
        self._clock = clock
        self._metrics = metrics
        self._learned: dict[str, Saved] = {}
        self._saving = Every(clock, SAVE_INTERVAL, lambda: self._save(self.in_use.values()), self._bug)
        self.in_use: dict[str, Traffic] = {}
        self._bounds: dict[str, PathBounds] = {}  # of these, as the settings say

    async def start(self) -> None:
        """Remember."""
        self._learned = await self._spool.reader.learned()
        self._saving.start()

    def stop(self) -> None:
        """Save, for the last time."""
        self._saving.stop()
        self._save(self.in_use.values())

    def enter(self, route: Route, source: Source) -> Traffic:
        """The path that a lane from this source over this route shares."""
        name = _name(route, source)
        known = self.in_use.get(name)
        if known is None:
            known = self.in_use[name] = self._begin(name, route, source)
            self._bounds[name] = route.bounds
        return known

    def leave(self, lane: Lane, traffic: Traffic) -> None:
        """A lane is no more; what nobody shares is saved and forgotten."""
        traffic.leave(lane)
        if not traffic.lanes:
            self._save([traffic])
            del self.in_use[traffic.name], self._bounds[traffic.name]

    def rebound(self, traffic: Traffic, bounds: PathBounds) -> None:
        """Where the settings say other limits by now, what was learned stays within these."""
        if self._bounds[traffic.name] == bounds:
            return
        self._bounds[traffic.name] = bounds
        before, path = traffic.path, Path(*bounds)
        if before.has_learned:
            path.restore(before.snapshot(), 0.0)
        path.until, path.reason = before.until, before.reason
        traffic.path = path
        traffic.messages_per_connection = path.messages_per_connection

    def known(self, route: Route, source: Source) -> Traffic | None:
        """The path, if it is in use or was; for people."""
        name = _name(route, source)
        if name in self.in_use or name not in self._learned:
            return self.in_use.get(name)
        return self._begin(name, route, source)

    # Inside

    def _begin(self, name: str, route: Route, source: Source) -> Traffic:
        path = Path(*route.bounds)
        traffic = Traffic(name, route, source.name, path, self._clock, self._changed, self._bug)
        known = self._learned.get(name)
        if known is not None:
            now = self._clock.now()
            path.restore(known.learned, now - known.at)
            if known.until > now:
                path.until, path.reason = self._clock.monotonic() + known.until - now, known.reason
                traffic.barred_until = path.until if known.barred else 0.0
        return traffic

    def _changed(self, traffic: Traffic, change: Change) -> None:
        """A window or a rate moved, or a path was shut."""
        wait = 0.0 if change.until is None else change.until - self._clock.monotonic()
        self._spool.report([_limit_event(traffic, change, self._clock.now(), wait)])
        if wait > SHORT:
            self._save([traffic])  # who blocks us is not to be asked again because we crashed

    def _bug(self, error: Exception) -> None:
        self._metrics.bug("delivery", "a bug in a path", error)

    def _save(self, some: Iterable[Traffic]) -> None:
        """Keep what they have learned since the last time."""
        new: dict[str, Saved] = {}
        for traffic in some:
            name = traffic.name
            try:
                saved = traffic.saved(self._clock.now())
            except Exception as error:
                self._bug(error)
                continue
            known = self._learned.get(name)
            if saved is not None and (known is None or not saved.is_like(known)):
                new[name] = saved
                self._learned.pop(name, None)  # the oldest stand first
                self._learned[name] = saved
        while len(self._learned) > MAX_LEARNED:
            del self._learned[next(iter(self._learned))]
        if new:
            self._spool.learn(new)


def _name(route: Route, source: Source) -> str:
    """What the limits from a source over a route are kept under."""
    name = route.path or route.site
    return f"{name} from {source.name}" if source.name else name


def _limit_event(traffic: Traffic, change: Change, now: float, wait: float) -> Event:
    """What the event log says of a change; it holds mail back for `wait` seconds."""
    return Event(
        time=rfc3339(now), type=Type.LIMIT,
        source=traffic.source, site=traffic.site, provider=traffic.provider,
        reason=change.reason, due=rfc3339(now + wait) if wait > 0 else "",
        limit=LimitField(change.what, finite(change.old), finite(change.new)),
    )  # fmt: skip
