"""One lane and the hosts of its site, in virtual time: minutes in a second.

Between: `tests/delivery/test_hosts_share_mail.py` lets mail come in, and sees which host got it.
Contract: the lane, its branch, its transactions and the life of its connections are the daemon's own. A
    `Street` stands for the pool, for who dials and for who notes outcomes; a `Line` for a connection to a
    host, which takes a recipient if its limit does and answers `latency` seconds later. Mail comes at a
    steady pace, one recipient a message, as long as the lane has room. Rates are a second.
Raises: whatever a bug raises.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NoReturn, Self, cast

from mta.clock import Every
from mta.core.answers.capabilities import Capabilities
from mta.core.answers.dialogue import Transaction
from mta.core.limits.adaptive import Branch
from mta.core.limits.level import Bounds
from mta.core.limits.spread import Spread
from mta.core.limits.throttle import RateLimit, SiteLimits
from mta.core.model import Batch, Go, Message, Reaction, Recipient, Reply, Scope, Subject, Verdict
from mta.core.returns.verp import Verp
from mta.core.route.hosts import NOTHING, in_order
from mta.core.route.routing import Host, Route
from mta.core.route.source import Source
from mta.core.route.terms import BranchBounds
from mta.delivery.connections import Connections
from mta.delivery.lane import Lane
from mta.delivery.traffic import Traffic
from mta.metrics import Metrics
from tests.fakes.clock import HandClock
from tests.fakes.sites import Limit

OK = Reply(250, "2.0.0", "ok")
SLOWLY = Reply(450, "4.7.1", "Rate limit exceeded, slow down")
SLOWER = Verdict(Subject.RATE, False, False, "rate", Reaction.NONE, Scope.SOURCE)
SHIPPED = BranchBounds(Bounds(1 / 60, 5.0, math.inf), Bounds(1.0, 2.0, 20.0))
LIMITS = SiteLimits(connections=20, messages_per_connection=100, recipients_per_message=100, rate=None)
DIAL = 0.1  # seconds


class Line:
    """A connection, as its lane sees it."""

    capabilities = Capabilities()
    tls = note = ""
    deadline = math.inf
    is_lost = False

    def __init__(self, street: Street, host: str) -> None:
        self._street = street
        self.host = host
        self.begun = self.carried = 0
        self.idle_since = street.clock.monotonic()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def serve(self, feeder: Any) -> None:
        self._feeder = feeder

    def send(self, transaction: Transaction) -> None:
        self.begun += 1
        transaction.started = self._street.clock.monotonic()
        transaction.mail_reply = OK
        if self._street.takes(self.host):
            transaction.rcpt_replies, transaction.accepted = [OK], 1
            transaction.dot_reply = OK
        else:
            transaction.rcpt_replies = [SLOWLY]
        self._street.clock.call_later(self._street.latency, partial(self._answered, transaction))

    def _answered(self, transaction: Transaction) -> None:
        following = self._feeder.take(self)
        if following is not None:
            self.send(following)
        self._feeder.finished(self, transaction)
        if following is None and not self.ended.done():
            self.idle_since = self._street.clock.monotonic()
            self._feeder.idle_again(self)

    def retire(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    async def quit(self) -> None:
        pass


class Street:
    """`async with Street(limits, offered=15.0) as street:` has a limit for each host, of one preference."""

    may_take = True
    contents = None  # all of them are in memory

    def __init__(self, limits: Mapping[str, Limit], offered: float, latency: float = 0.05) -> None:
        self.clock = HandClock()
        self.latency = latency
        self.limits = limits
        self.dead: set[str] = set()  # hosts that nobody gets through to
        self.taken: Counter[str] = Counter()  # recipients, by host
        self.refused: Counter[str] = Counter()
        self.dials: Counter[str] = Counter()
        self.draining = False
        self.verp = Verp((b"s" * 32,))
        self._offered = offered
        self._dice = random.Random(1)
        self._number = 0
        self._tasks = asyncio.TaskGroup()
        self._looking = Every(self.clock, 1.0, self._look, self.bug)
        hosts = tuple(Host(name, 25, 10) for name in limits)
        route = Route("site", hosts, LIMITS, SHIPPED)
        branch, me = Branch(*SHIPPED, is_known=False), cast(Any, self)
        traffic = Traffic(
            "site", "site", "", "", branch, None, self.clock, lambda traffic, change: None, self.bug
        )
        out: Connections[Lane] = Connections(me, 1000, self.clock, Metrics())
        self.out, self.idle, self.queue = out, out.idle, out.queue
        self.may_dial, self.open, self.rests, self.is_wanted = (
            out.may_dial,
            out.open,
            out.rests,
            out.is_wanted,
        )
        source, no_rate = Source("", "", "mta.test"), RateLimit(None)
        self.lane = Lane(route, source, me, traffic, no_rate, lambda reply, stage: SLOWER, me, self.clock)
        traffic.enter(self.lane)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self.out.start(self._tasks)
        self._looking.start()
        self._arrive()
        return self

    async def __aexit__(self, *error: Any) -> None:
        self.draining = True
        self.lane.take_all()
        await self.clock.advance(self.latency)  # what is under way ends
        self._looking.stop()
        await self.out.drain(0.0)
        await self._tasks.__aexit__(*error)

    async def minutes(self, many: int) -> tuple[float, int]:
        """So long it goes on: how many recipients a second were taken then, and how many refused at all."""
        taken, refused = self.taken.total(), self.refused.total()
        await self.clock.advance(60.0 * many)
        return (self.taken.total() - taken) / (60.0 * many), self.refused.total() - refused

    def takes(self, host: str) -> bool:
        is_taken = self.limits[host].take(self.clock.monotonic(), 1) > 0
        (self.taken if is_taken else self.refused)[host] += 1
        return is_taken

    def _arrive(self) -> None:
        if self.draining:
            return
        self.clock.call_later(1 / self._offered, self._arrive)
        if isinstance(self.lane.gate((0, "acme")), Go):
            self._number += 1
            message = Message(self._number, "a@s.test", "acme", "bulk", "c", 4e9, 1, "", 0, content=b"x\r\n")
            self.lane.push(Batch(message, [Recipient(0, "b@dst.test", "dst.test")]))

    def _look(self) -> None:
        if self.lane.has_mail and self.lane.connections:
            self.lane.kick(stalled=True)

    # Who dials

    async def connect(self, route: Route, source: Source, judge: object, spread: Spread) -> Line:
        now = self.clock.monotonic()
        hosts = in_order(
            route.hosts, lambda peer: NOTHING, now, self._dice.random,
            lambda name: spread.rank(name, now), lambda name: spread.is_shunned(name, now),
        )  # fmt: skip
        for host in hosts:
            self.dials[host.name] += 1
            spread.dialled(host.name)
            await self.clock.sleep(DIAL)
            if host.name not in self.dead:
                return Line(self, host.name)
            spread.closed(host.name)
        raise AssertionError("all are dead")

    # The pool, and who notes outcomes

    def bug(self, error: Exception) -> NoReturn:
        raise error

    def barred_until(self, source: Source) -> float:
        return 0.0

    def stalls(self, lane: Lane) -> None:
        """It is looked at each second."""

    def has_room(self, lane: Lane, share: object) -> None:
        """Mail comes anyway."""

    def settle(self, batch: Batch, outcomes: object, trace: object) -> None:
        """Nobody asks."""

    def postpone(self, batch: Batch, until: float) -> None:
        """It does not come again."""

    def each(self, batches: Iterable[Batch], leave: Callable[[Batch], object]) -> None:
        for batch in batches:
            leave(batch)
