"""Every connection to a peer: who may dial, what becomes of each, and which one closes for another lane.

Between: lanes ask for a place, and to be dialled for; `delivery.connect` dials; the pool drains.
Contract: over all sites no more than `most` are being dialled or open at once, divided and in the order of
    `core.limits.outgoing`. Who is told no is kicked when it is his turn. Where it is of use to any who wait,
    that which has been idle for longest closes, but of lanes whose mail waits and comes no later. What has
    been idle for `IDLE` closes anyway. One task for each connection.
Raises: nothing; a bug in a connection's task defers what waited for it.
Standards: RFC 5321 4.5.4.1 (a connection may carry many messages).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import Generic, Protocol, TypeVar

from mta.clock import Clock, Timer
from mta.core.answers.classify import OUR_FAULT, Judge
from mta.core.limits.order import Share
from mta.core.limits.outgoing import NOBODYS, Outgoing
from mta.core.limits.spread import Spread
from mta.core.model import Outcome, Wait
from mta.core.route.routing import Route
from mta.core.route.source import Source
from mta.delivery.connect import Connector
from mta.delivery.lookout import Lookout
from mta.delivery.traffic import Traffic, Waiter
from mta.metrics import Metrics
from mta.smtp.client import Connection

IDLE = 30.0  # seconds that a connection is kept without work; no phase of a transaction may take less
TURNS = 20  # lanes that have their turn at once; then the loop sees to others
LOOKS = 20  # idle connections of which one may have to close


class Dialler(Waiter, Protocol):
    """What a connection's life needs of its lane."""

    route: Route
    source: Source
    traffic: Traffic
    connections: int

    @property
    def judge(self) -> Judge: ...

    @property
    def spread(self) -> Spread: ...

    @property
    def has_mail(self) -> bool: ...

    def opened(self, connection: Connection) -> None: ...

    def failed(self, outcome: Outcome, started: float) -> None: ...

    def waits(self, until: Wait) -> None: ...

    def closed(self, connection: Connection | None) -> None: ...

    def retire(self, connection: Connection) -> None: ...


Lane = TypeVar("Lane", bound=Dialler)


class Connections(Generic[Lane]):
    """All of them, and those who wait for one."""

    def __init__(self, connector: Connector, most: int, clock: Clock, metrics: Metrics) -> None:
        self._connector = connector
        self._clock = clock
        self._metrics = metrics
        self._places: Outgoing[Lane] = Outgoing(most)
        self._serving: set[asyncio.Task[None]] = set()
        self._dialling: set[asyncio.Task[None]] = set()  # of these
        self._lanes: dict[Connection, tuple[Lane, Share]] = {}  # of all that are open, with who dialled
        self.queue = self._places.queue  # lanes that wait for a place
        self.idle: OrderedDict[Connection, Lane] = OrderedDict()  # since when: the longest first
        self._giving_way: set[Connection] = set()
        self._going_on: Timer | None = None
        self._lookout: Lookout[Connection] = Lookout(clock, self._look, self._bug)
        self.on_closed: Callable[[Lane], None] = lambda lane: None

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Connections run in `tasks`."""
        self._tasks = tasks
        self._lookout.start()

    async def drain(self, grace: float) -> None:
        """Nobody is dialled any more; what is open may end, up to `grace` seconds."""
        self._lookout.stop()
        await asyncio.sleep(0)  # a task that is cancelled before its first step would end without a word
        for task in self._dialling:
            task.cancel()
        for connection, lane in list(self.idle.items()):
            self._whatever(lane.retire, connection)
        overdue = self._clock.call_later(grace, self._drop_all)
        while self._serving:
            await asyncio.wait(self._serving)
        overdue.cancel()

    def __len__(self) -> int:
        """Connections that are open."""
        return len(self._lanes)

    @property
    def held(self) -> int:
        """Those, and who is being dialled."""
        return self._places.held

    def become(self, most: int) -> None:
        """So many may there be from now on; beyond that nothing is dialled."""
        self._places.most = most
        self._go_on()

    # What lanes ask

    def may_dial(self, lane: Lane) -> bool:
        """May there be one more, over all and on the branch of the lane? Else it is kicked when there may."""
        if not self._places.ask(lane, lane.share):
            lane.traffic.has_no_place(lane)
            self._make_room()
            return False
        if lane.traffic.dial(lane, is_chosen=lane is self._places.chosen):
            return True
        self._places.leave(lane)  # it waits for its branch
        return False

    def open(self, lane: Lane) -> None:
        """Dial for a lane; it was asked."""
        share = lane.share
        task = self._tasks.create_task(self._serve(lane, share))
        self._places.take(lane, share)
        for some in (self._serving, self._dialling):
            some.add(task)
            task.add_done_callback(some.discard)

    def forget(self, lane: Lane) -> None:
        """The lane is no more."""
        self._places.leave(lane)

    def rests(self, connection: Connection) -> None:
        """It has nothing to do: somebody may wait for its place."""
        if connection in self.idle:
            self._make_room(connection)

    def is_wanted(self, connection: Connection) -> bool:
        """It has had its place for a while: is there anybody who should have it now?"""
        known = self._lanes.get(connection)
        return known is not None and self._places.is_wanted(known[1])

    def spare(self) -> bool:
        """Close the one that has been idle for longest: its lane is wanted for another site."""
        for connection, lane in list(islice(self.idle.items(), LOOKS)):
            if not lane.has_mail:
                lane.retire(connection)
                return True
        return False

    # Inside

    def _make_room(self, *latest: Connection) -> None:
        """That which is idle for longest closes, or the latest, if it is of use to any who wait."""
        if len(self._giving_way) >= self._places.waiting:
            return  # they are on their way
        urgency = self._places.urgency
        for connection in [*islice(self.idle, LOOKS), *latest]:
            lane, share = self._lanes[connection]
            above = lane.share[0] if lane.has_mail else NOBODYS
            if urgency > above or (share[0] > above and self._places.waits(share)):
                self._giving_way.add(connection)
                lane.retire(connection)
                return
            self.idle.move_to_end(connection)  # or the next who asks would see the same ones only

    def _go_on(self) -> None:
        """Those who wait have their turn."""
        if self._going_on is not None:
            self._going_on.cancel()
            self._going_on = None
        for _ in range(TURNS):
            lane = self._places.next()
            if lane is None:
                return
            self._whatever(lane.kick)
        self._going_on = self._clock.call_later(0.0, self._go_on)

    async def _serve(self, lane: Lane, share: Share) -> None:
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
            self._lanes[connection] = lane, share
            self._lookout.within(connection, IDLE)
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
            self._places.give_back(share)
            if connection is not None:
                self._over(connection)
            self._whatever(lane.closed, connection)
            self._whatever(self.on_closed, lane)
            self._whatever(self._go_on)
            self._whatever(self._make_room)  # one more may have to close for who waits still

    def _over(self, connection: Connection) -> None:
        if not connection.ended.done():
            self._whatever(connection.drop)
        self._lanes.pop(connection, None)
        self.idle.pop(connection, None)
        self._giving_way.discard(connection)
        self._lookout.discard(connection)

    def _look(self, connection: Connection, now: float) -> float:
        """Has it been idle, or silent, for too long?"""
        if connection not in self.idle:
            if now >= connection.deadline:
                connection.expire()
            # A phase that begins meanwhile ends no sooner, nor is it too long idle before that.
            return min(connection.deadline, now + IDLE)
        if now - connection.idle_since <= IDLE:
            return connection.idle_since + IDLE
        self.idle[connection].retire(connection)
        return now + IDLE

    def _drop_all(self) -> None:
        for connection in list(self._lanes):
            self._whatever(connection.drop, "Our server was stopped in the middle of it")

    def _bug(self, error: Exception) -> None:
        self._metrics.bug("delivery", "a bug in a connection", error)

    def _whatever(self, call: Callable[..., object], *arguments: object) -> None:
        """Call it; a bug in it is counted, and ends here."""
        try:
            call(*arguments)
        except Exception as error:
            self._bug(error)
