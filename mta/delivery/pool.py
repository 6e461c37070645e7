"""All lanes, and the tasks of their connections.

Between: the gate offers batches with their routes; delivery opens connections; the spool says when
    outcomes may be noted again.
Contract: `gate`, `choose` and `offer` are synchronous; a lane is made when somebody comes to it. One
    task for each connection, and one for each content that has to be read from disk; none for fresh mail.
Raises: nothing; a bug in a connection's task defers what waited for it, one in the sweep is one lane's, or
    one connection's, and the next sweep comes.
Standards: RFC 5321 4.5.4.1 (a connection may carry many messages).
Why: one sweep a second looks after deadlines, idle connections and stalled lanes, instead of a timer
    for each command.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from mta.clock import Clock, Every
from mta.config.policy import Current, Policy
from mta.core.answers.classify import OUR_FAULT, Judge
from mta.core.event import Event, Type, rfc3339
from mta.core.limits.order import Share
from mta.core.limits.throttle import RateLimit
from mta.core.model import Batch, Go, Message, Outcome, Wait
from mta.core.route.routing import Route
from mta.core.route.source import Source
from mta.delivery.branches import Branches
from mta.delivery.connect import Connector
from mta.delivery.contents import Contents
from mta.delivery.lane import LANE_FULL, Lane
from mta.metrics import Metrics
from mta.outbound.outcome import Settler
from mta.smtp.client import Connection
from mta.spool.queue import Spool

SWEEP = 1.0  # seconds
IDLE = 30.0  # seconds that a connection is kept without work
MAX_REASON = 1000  # characters in an event
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
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._connector = connector
        self._current = current
        self._settler = settler
        self._spool = spool
        self._clock = clock
        self._metrics = metrics
        self._lanes: dict[tuple[str, str], Lane] = {}  # by site and source
        self._leaving: set[Lane] = set()  # no mail comes in; what is under way ends
        self.contents = Contents(spool, current.policy.settings.limits.memory)
        self._branches = Branches(spool, clock, metrics)
        self._rates: dict[str, RateLimit] = {}  # of static routes, by site
        self._barred: dict[str, float] = {}  # sources that cannot be bound, until a monotonic time
        self._starved: set[Lane] = set()  # stopped taking until outcomes are settled
        self._serving: set[asyncio.Task[None]] = set()
        self._dialling: set[asyncio.Task[None]] = set()  # of these
        self.draining = False  # we are going down
        self._sweeping = Every(clock, SWEEP, self._sweep, self.bug)
        # A lane that was full has room again, for this priority and tenant.
        self.on_room: Callable[[str, Share], None] = lambda site, share: None

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to serve; connections run in `tasks`."""
        self._tasks = tasks
        self.contents.start(tasks)
        await self._branches.start()
        self._spool.on_room = self._feed_starved
        self._sweeping.start()

    async def drain(self, grace: float) -> None:
        """Let transactions under way end, up to `grace` seconds; what waits stays on disk."""
        self.draining = True
        self._whatever(self._branches.stop)
        self._sweeping.stop()
        await asyncio.sleep(0)  # a task that is cancelled before its first step would end without a word
        for task in self._dialling:
            task.cancel()
        now = self._clock.now()
        for lane in self._every_lane():
            self._whatever(self._let_go, lane, now)
        overdue = self._clock.call_later(grace, self._drop_all)
        while self._serving:
            await asyncio.wait(self._serving)
        overdue.cancel()

    def _let_go(self, lane: Lane, now: float) -> None:
        for connection in lane.idle:
            connection.retire()
        self._settler.each(lane.take_all(), lambda batch: self._settler.postpone(batch, now))

    def _drop_all(self) -> None:
        for lane in self._every_lane():
            for connection in list(lane.serving):
                self._whatever(connection.drop, "Our server was stopped in the middle of it")

    # What another policy changes

    def adopted(self, old: Policy, new: Policy) -> None:
        """Lanes of other sources or to other next hops are left; the rest reads answers by the new rules."""
        sources = {source.name: source for source in new.sources.used}
        hops = {route.site: route for route in new.routes.values()}
        for lane in list(self._lanes.values()):
            said = lane.route.static and not new.settings.sandbox  # there it is the sandbox, as before
            route = hops.get(lane.route.site) if said else lane.route
            if route is None or sources.get(lane.source.name) != lane.source:
                self._whatever(self._leave, lane)
            else:
                self._whatever(self._goes_on, lane, route)
        for site in set(self._rates) - set(hops):
            del self._rates[site]

    def _goes_on(self, lane: Lane, route: Route) -> bool:
        """Take a route of another policy, or leave the lane: its connections are of another kind."""
        if _kind(lane.route) != _kind(route):
            self._leave(lane)
            return False
        self._branches.rebound(lane.traffic, route.bounds)
        lane.follow(route, self._judge(route))
        return True

    def _leave(self, lane: Lane) -> None:
        del self._lanes[lane.route.site, lane.source.name]
        self._leaving.add(lane)
        lane.leave()

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
        assert full is not None, "a pool without sources"
        return full

    def offer(self, route: Route, batch: Batch) -> Wait | None:
        """Let a batch in, or say until when it has to wait."""
        lane = self.choose(route, batch.message)
        if isinstance(lane, Wait):
            return lane
        lane.route = route
        lane.push(batch)
        return None

    @property
    def sources(self) -> tuple[Source, ...]:
        """Those that mail may leave from."""
        return self._current.policy.sources.used

    @property
    def lanes(self) -> int:
        return len(self._lanes) + len(self._leaving)

    @property
    def connections(self) -> int:
        return sum(len(lane.serving) for lane in self._every_lane())

    @property
    def batches(self) -> Iterator[list[Batch]]:
        """Everything that is in memory to be sent, lane by lane."""
        for lane in self._every_lane():
            yield list(lane.batches)
        yield self.contents.lent

    # What lanes ask

    @property
    def may_take(self) -> bool:
        """May transactions begin?"""
        return not self.draining and self._spool.has_room

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
            if source.name != lane.source.name:
                yield self._lane(lane.route, source)

    def open(self, lane: Lane) -> None:
        """Dial for a lane."""
        task = self._tasks.create_task(self._serve(lane))
        for some in (self._serving, self._dialling):
            some.add(task)
            task.add_done_callback(some.discard)

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
            return (self._lane_on(route, sources[0]),)
        return self._unbarred(route, sources)

    def _unbarred(self, route: Route, sources: Sequence[Source]) -> Iterator[Lane]:
        """One after another: a lane that nobody comes to is not made."""
        barred: list[Lane] = []
        for source in sources:
            lane = self._lane_on(route, source)
            if lane.reach.is_barred:
                barred.append(lane)
            else:
                yield lane
        if len(barred) == len(sources):
            yield from barred

    def _every_lane(self) -> list[Lane]:
        return [*self._lanes.values(), *self._leaving]

    def _lane_on(self, route: Route, source: Source) -> Lane:
        """The lane, on the terms of this route: they may be of a newer policy than its own."""
        lane = self._lanes.get((route.site, source.name))
        # Of one policy the routes to a site share their bounds.
        if lane is not None and (lane.route.bounds is route.bounds or self._goes_on(lane, route)):
            return lane
        lane = self._lane(route, source)
        self._branches.rebound(lane.traffic, route.bounds)  # others may share the branch since before
        return lane

    def _lane(self, route: Route, source: Source) -> Lane:
        key = (route.site, source.name)
        lane = self._lanes.get(key)
        if lane is None:
            traffic = self._branches.enter(route, source)
            judge, rate = self._judge(route), self._rate(route)
            lane = Lane(route, source, self, traffic, rate, judge, self._settler, self._clock)
            self._lanes[key] = lane
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
        lane = self._lanes.get((route.site, source.name))
        dead, barred = (lane.reach.dead_for, lane.reach.barred_for) if lane else (0.0, 0.0)
        return known.state | {"dead_for": round(dead, 1), "barred_for": round(barred, 1)}

    def _forget(self, lane: Lane) -> None:
        if lane in self._leaving:
            self._leaving.remove(lane)
        else:
            del self._lanes[lane.route.site, lane.source.name]
        self._branches.leave(lane, lane.traffic)

    async def _serve(self, lane: Lane) -> None:
        """The life of one connection."""
        connection: Connection | None = None
        started = self._clock.monotonic()
        try:
            opened = await self._connector.connect(lane.route, lane.source, lane.judge, lane.spread)
            self._dialling.discard(asyncio.current_task())
            if isinstance(opened, Wait):
                lane.waits(opened)
                return
            if isinstance(opened, Outcome):
                lane.failed(opened, started)
                return
            connection = opened
            lane.opened(connection)
            await connection.ended
            if not connection.is_lost:
                await connection.quit()
        except Exception as error:
            what = "an outbound connection has failed for a reason of our own"
            self._metrics.bug("delivery", what, error)
            if connection is None or not connection.begun:  # the next one would meet the same, at once
                self._whatever(lane.failed, OUR_FAULT, started)
        finally:
            if connection is not None and not connection.ended.done():
                self._whatever(connection.drop)
            self._whatever(lane.closed, connection)

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

    def _sweep(self) -> None:
        now = self._clock.monotonic()
        for lane in list(self._leaving):
            self._whatever(lane.leave)  # what was put back meanwhile
        for lane in self._every_lane():
            self._whatever(self._look_after, lane, now)

    def _look_after(self, lane: Lane, now: float) -> None:
        for connection in list(lane.serving):
            if now >= connection.deadline:
                self._whatever(connection.expire)
        for connection in list(lane.idle):
            if now - connection.idle_since > IDLE:
                connection.retire()
                lane.idle.remove(connection)
        lane.kick(stalled=True)
        if lane.is_forgettable:
            self._forget(lane)


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
