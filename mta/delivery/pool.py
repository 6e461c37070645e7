"""Where mail that may go waits in memory: which lane takes it, and what lanes share.

Between: the gate offers batches with their routes; `delivery.connections` dials for the lanes; the spool says
    when outcomes may be noted again.
Contract: `gate`, `choose` and `offer` are synchronous; a lane is made when somebody comes to it. Where there
    are as many as may be (`delivery.lanes`) mail for another site waits on disk. One task for each content
    that has to be read from disk; none for fresh mail.
Raises: nothing; a bug over one lane is its own.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from mta.clock import Clock
from mta.config.policy import Current, Policy
from mta.core.answers.classify import Judge
from mta.core.event import MAX_REASON, Event, Type, rfc3339
from mta.core.limits.order import Share
from mta.core.limits.throttle import RateLimit
from mta.core.model import Batch, Go, Message, Option, Wait
from mta.core.returns.verp import Verp
from mta.core.route.routing import Route
from mta.core.route.source import Source
from mta.delivery.branches import Branches
from mta.delivery.connect import Connector
from mta.delivery.connections import Connections
from mta.delivery.contents import Contents
from mta.delivery.lane import FULL_WAIT, LANE_FULL, Lane
from mta.delivery.lanes import Lanes
from mta.metrics import Metrics
from mta.outbound.outcome import Settler
from mta.smtp.client import QUIT_TIMEOUT, Connection
from mta.spool.queue import Spool

NO_LANE = "no lane is free"
SOON = 2 * QUIT_TIMEOUT  # seconds until one will be
BARRED = 60.0  # seconds until an address of ours that could not be bound is tried again

log = logging.getLogger(__name__)


class Pool:
    """Every lane."""

    def __init__(
        self,
        connector: Connector,
        current: Current,
        settler: Settler,
        spool: Spool,
        verp: Verp,
        connections: int,
        signed: Callable[[bytes], Awaitable[bytes]],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._current = current
        self._settler = settler
        self._spool = spool
        self.verp = verp
        self._clock = clock
        self._metrics = metrics
        self._lanes = Lanes(clock, self._forgotten, self.bug)
        self.out: Connections[Lane] = Connections(connector, connections, clock, metrics)
        self.out.on_closed = self._lanes.closed
        self.idle: OrderedDict[Connection, Lane] = self.out.idle
        self.queue = self.out.queue
        self.contents = Contents(spool, current.policy.settings.limits.memory, signed)
        self._branches = Branches(spool, clock, metrics)
        self._rates: dict[str, RateLimit] = {}  # of static routes, by site
        self._barred: dict[str, float] = {}  # sources that cannot be bound, until a monotonic time
        self._starved: set[Lane] = set()  # stopped taking until outcomes are settled
        self.draining = False  # we are going down
        # A lane that was full has room again, for this priority and tenant.
        self.on_room: Callable[[str, Share], None] = lambda site, share: None

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to serve; connections run in `tasks`."""
        self.out.start(tasks)
        self.contents.start(tasks)
        await self._branches.start()
        self._spool.on_room = self._feed_starved
        self._lanes.start()

    async def drain(self, grace: float) -> None:
        """Let transactions under way end, up to `grace` seconds; what waits stays on disk."""
        self.draining = True
        self._whatever(self._branches.stop)
        self._lanes.stop()
        now = self._clock.now()
        for lane in self._lanes:
            self._whatever(self._let_go, lane, now)
        await self.out.drain(grace)

    def _let_go(self, lane: Lane, now: float) -> None:
        self._settler.each(lane.take_all(), lambda batch: self._settler.postpone(batch, now))

    # What another policy changes

    def adopted(self, old: Policy, new: Policy) -> None:
        """Lanes of other sources or to other next hops are left; the rest reads answers by the new rules."""
        sources = {source.name: source for source in new.sources.used}
        hops = {route.site: route for route in new.routes.values()}
        for lane in self._lanes:
            if lane.is_leaving:
                continue
            said = lane.route.static and not new.settings.sandbox  # there it is the sandbox, as before
            route = hops.get(lane.route.site) if said else lane.route
            if route is not None and lane.route.is_apart:
                route = route.secured
            if route is None or sources.get(lane.source.name) != lane.source:
                self._whatever(self._lanes.leave, lane)
            else:
                self._whatever(self._goes_on, lane, route)
        for site in set(self._rates) - set(hops):
            del self._rates[site]

    def _goes_on(self, lane: Lane, route: Route) -> bool:
        """Take a route of another policy, or leave the lane: its connections are of another kind."""
        if _kind(lane.route) != _kind(route):
            self._lanes.leave(lane)
            return False
        self._branches.rebound(lane.traffic, route.bounds)
        lane.follow(route, self._judge(route))
        return True

    def _judge(self, route: Route) -> Judge:
        return partial(self._current.policy.rules.judge, provider=route.provider)

    # What the gate asks

    def gate(self, route: Route, share: Share) -> Go | Wait:
        """May mail of this priority and tenant come in for this route, of whatever stream it is?"""
        if self.draining:
            return Wait(self._clock.now(), "shutting down")
        answers = []
        for lane in self._of_any_stream(route):
            answer = lane.gate(share)
            if isinstance(answer, Go):
                return answer
            answers.append(answer)
        if not answers:
            return self._no_lane()
        return min(answers, key=lambda wait: (wait.reason != LANE_FULL, wait.until))

    def room(self, route: Route, share: Share, most: int) -> int:
        """How many recipients of this priority and tenant, up to so many, one of its lanes takes."""
        room = 0
        for lane in self._of_any_stream(route):
            if isinstance(lane.gate(share), Go):
                room = max(room, lane.room(share))
                if room >= most:
                    return most
        return room

    def choose(self, route: Route, message: Message) -> Lane | Wait:
        """The lane that takes this message: its first source's that may; else until when it has to wait."""
        if message.options & Option.REQUIRE_TLS:
            route = self._secured(route)
        if self.draining:
            return Wait(self._clock.now(), "shutting down")
        share = (message.priority, message.tenant)
        full: Wait | None = None
        for lane in self._usable(route, self._current.policy.sources.order(message.stream, message.id)):
            answer = lane.gate(share)
            if isinstance(answer, Go):
                return lane
            if answer.reason != LANE_FULL:
                # Only what is full makes room for the next: else throttled mail would stray.
                return full or answer
            full = full or answer
        return full or self._no_lane()

    def offer(self, route: Route, batch: Batch) -> Wait | None:
        """Let a batch in, or say until when it has to wait."""
        lane = self.choose(route, batch.message)
        if isinstance(lane, Wait):
            return lane
        lane.route = self._secured(route) if lane.route.is_apart else route
        lane.push(batch)
        return None

    def _secured(self, route: Route) -> Route:
        """For mail that asks for TLS by itself; in the sandbox, which no mail leaves, it gets none."""
        return route if route.tls_required or self._current.policy.settings.sandbox else route.secured

    @property
    def sources(self) -> tuple[Source, ...]:
        """Those that mail may leave from."""
        return self._current.policy.sources.used

    @property
    def lanes(self) -> int:
        return len(self._lanes)

    @property
    def connections(self) -> int:
        return len(self.out)

    @property
    def learned(self) -> int:
        """Branches whose limits are remembered."""
        return self._branches.learned

    @property
    def batches(self) -> Iterator[list[Batch]]:
        """Everything that is in memory to be sent, lane by lane."""
        for lane in self._lanes:
            yield list(lane.batches)
        yield self.contents.lent

    # What lanes ask

    @property
    def may_take(self) -> bool:
        """May transactions begin?"""
        return not self.draining and self._spool.has_room

    def is_wanted(self, connection: Connection) -> bool:
        """Does a lane wait, of whatever branch, that should have the place of this one now?"""
        return self.out.is_wanted(connection)

    def starved(self, lane: Lane) -> None:
        """The lane stops until outcomes are settled."""
        self._starved.add(lane)

    def has_room(self, lane: Lane, share: Share) -> None:
        self.on_room(lane.route.site, share)

    def bar(self, source: Source, reason: str) -> None:
        """The source is of no use for anybody now."""
        now = self._clock.monotonic()
        if now < self.barred_until(source):
            return  # told already
        self._barred[source.name] = now + BARRED
        log.error("%s; its mail goes over others of its pool, or waits", reason)
        self._spool.report([_state_event(reason, self._clock.now(), BARRED, source.name)])

    def tell(self, lane: Lane, reason: str, until: float = 0.0) -> None:
        """A site has gone, or come back."""
        now, route = self._clock.now(), lane.route
        if route.is_apart:
            reason = f"for mail that requires TLS: {reason}"
        event = _state_event(reason, now, until - now, lane.source.name, route.site, route.provider)
        self._spool.report([event])

    def barred_until(self, source: Source) -> float:
        """Monotonic; in the past where it may be used."""
        return self._barred.get(source.name, 0.0)

    def has_other(self, lane: Lane, message: Message) -> bool:
        """May another source of the message's send it where this lane goes?"""
        return any(not other.reach.is_barred for other in self._others(lane, message))

    def has_untried(self, lane: Lane, message: Message) -> bool:
        """Is there one of which nobody knows that it does not get through either?"""
        others = (other.reach for other in self._others(lane, message))
        return any(not (other.is_barred or other.is_failing) for other in others)

    def _others(self, lane: Lane, message: Message) -> Iterator[Lane]:
        for source in self._current.policy.sources.order(message.stream, message.id):
            if source.name != lane.source.name and (other := self._lane(lane.route, source)) is not None:
                yield other

    def rests(self, connection: Connection) -> None:
        """It has nothing to do."""
        self.out.rests(connection)

    def may_dial(self, lane: Lane) -> bool:
        """May it have one more connection? Else it is kicked when it may."""
        return self.out.may_dial(lane)

    def open(self, lane: Lane) -> None:
        """Dial for a lane."""
        self.out.open(lane)
        self._lanes.stalls(lane)

    def stalls(self, lane: Lane) -> None:
        """Mail waits in it: it is looked at soon."""
        self._lanes.stalls(lane)

    def bug(self, error: Exception) -> None:
        self._metrics.bug("delivery", "a bug in a lane or a connection", error)

    # Inside

    def _of_any_stream(self, route: Route) -> Iterator[Lane]:
        """The lanes that mail for this route may come in at, pool by pool."""
        for pool in self._current.policy.sources.pools:
            yield from self._usable(route, pool.sources)

    def _usable(self, route: Route, sources: Sequence[Source]) -> Iterable[Lane]:
        """The lanes of these sources, in their order; barred ones only where all are."""
        if len(sources) == 1:
            lane = self._lane_on(route, sources[0])
            return () if lane is None else (lane,)
        return self._unbarred(route, sources)

    def _unbarred(self, route: Route, sources: Sequence[Source]) -> Iterator[Lane]:
        """One after another: a lane that nobody comes to is not made, and one may have left for the next."""
        barred: list[Source] = []
        others = False
        for source in sources:
            lane = self._lane_on(route, source)
            if lane is None:
                continue
            if lane.reach.is_barred:
                barred.append(source)
            else:
                others = True
                yield lane
        for source in barred if not others else ():
            if (lane := self._lane_on(route, source)) is not None:
                yield lane

    def _no_lane(self) -> Wait:
        """As many as may be have mail, or a connection, which is closed where it is idle."""
        wait = SOON if self.out.spare() else FULL_WAIT
        return Wait(math.ceil(self._clock.now() + wait * (1 + self._clock.dice())), NO_LANE)

    def _lane_on(self, route: Route, source: Source) -> Lane | None:
        """The lane, on the terms of this route: they may be of a newer policy than its own."""
        lane = self._lanes.get(route, source)
        # Of one policy the routes to a site share their bounds.
        if lane is not None and (lane.route.bounds is route.bounds or self._goes_on(lane, route)):
            return lane
        lane = self._lane(route, source)
        if lane is not None:
            self._branches.rebound(lane.traffic, route.bounds)  # others may share the branch since before
        return lane

    def _lane(self, route: Route, source: Source) -> Lane | None:
        """The lane; None where there are as many as may be, and none can leave."""
        lane = self._lanes.get(route, source)
        if lane is None and self._lanes.has_room():
            traffic = self._branches.enter(route, source)
            judge, rate = self._judge(route), self._rate(route)
            lane = Lane(route, source, self, traffic, rate, judge, self._settler, self._clock)
            self._lanes.add(lane)
            traffic.enter(lane)
        return lane

    def _rate(self, route: Route) -> RateLimit:
        """A static route's is for all sources together: a relay may count by login."""
        made = RateLimit(route.limits.rate)
        if not route.static:
            return made
        known = self._rates.setdefault(route.site, made)
        known.become(made.rate, self._clock.monotonic())  # where no lane was there to follow the policy
        return known

    def state(self, route: Route, source: Source) -> dict[str, Any] | None:
        """How fast we send there now, and why; None where nothing is known."""
        known = self._branches.known(route, source)
        if known is None:
            return None
        lane = self._lanes.get(route, source)
        dead, barred = (lane.reach.dead_for, lane.reach.barred_for) if lane else (0.0, 0.0)
        return known.state | {"dead_for": round(dead, 1), "barred_for": round(barred, 1)}

    def _forgotten(self, lane: Lane) -> None:
        self.out.forget(lane)
        self._starved.discard(lane)
        self._branches.leave(lane, lane.traffic)

    def _whatever(self, call: Callable[..., object], *arguments: object) -> None:
        """Call it; a bug in it is counted, and ends here."""
        try:
            call(*arguments)
        except Exception as error:
            self.bug(error)

    def _feed_starved(self) -> None:
        starved, self._starved = self._starved, set()
        for lane in starved:
            lane.kick()


def _kind(route: Route) -> tuple[object, ...]:
    """What makes a connection, or whose limits it counts to, another's."""
    hosts = route.hosts if route.static else ()  # else they are the site
    return route.static, hosts, route.login, route.tls_required, route.provider, route.above


def _state_event(
    reason: str, now: float, wait: float, source: str, site: str = "", provider: str = ""
) -> Event:
    """What the event log says of a source, or of one towards a site; so it stays for `wait` seconds."""
    return Event(
        time=rfc3339(now), type=Type.STATE, source=source, site=site, provider=provider,
        reason=reason[:MAX_REASON], due=rfc3339(now + wait) if wait > 0 else "",
    )  # fmt: skip
