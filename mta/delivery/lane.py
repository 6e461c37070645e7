"""The due mail from one source to one site that waits in memory, and how many connections it is worth.

Between: the pool pushes batches, opens connections and tells of them; what goes over those is the lane's
    `delivery.transactions`, which takes from what waits here.
Contract: bounded by recipients for each tenant and priority (`core.limits.turns`), and as a whole. `gate`
    answers Go, or Wait with the reason. Every batch that leaves without being taken is settled or postponed
    once, whatever bug of ours is met on the way.
Raises: nothing.
Why: connections pull. Nobody assigns work to connections, so nothing is searched; tasks grow with
    connections, memory with lanes, and the backlog stays on disk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

from mta.clock import Clock, Timer
from mta.core.answers.classify import Judge
from mta.core.limits.order import LOWEST, Share
from mta.core.limits.spread import Spread
from mta.core.limits.throttle import GO, RateLimit
from mta.core.limits.turns import LOW, Turns
from mta.core.model import Batch, Go, Outcome, Scope, Subject, Wait
from mta.core.route.routing import Route
from mta.core.route.source import Source
from mta.delivery.reach import Others, Reach
from mta.delivery.traffic import Traffic, is_refusal
from mta.delivery.transactions import Means, Transactions
from mta.outbound.outcome import Settler, Trace
from mta.smtp.client import Connection

BATCHES_PER_CONNECTION = 8  # so many waiting are worth one more connection; pipelining feeds one well
FULL_WAIT = 60.0  # seconds until mail comes back that found the lane full; room wakes it sooner
ENOUGH_WAIT = 60.0  # seconds until one more connection is tried where the last was refused
LANE_FULL = "lane full"
NOBODY: Share = (LOWEST, "")  # waits


class LanePool(Others["Lane"], Means["Lane"], Protocol):
    """What a lane needs of its pool."""

    def may_dial(self, lane: Lane) -> bool: ...

    def open(self, lane: Lane) -> None: ...

    def stalls(self, lane: Lane) -> None:
        """Mail waits in it: it is looked at soon."""
        ...

    def has_room(self, lane: Lane, share: Share) -> None: ...


class Lane:
    """One source's batches for one site, limits and connections."""

    def __init__(
        self,
        route: Route,
        source: Source,
        pool: LanePool,
        traffic: Traffic,
        rate: RateLimit,
        judge: Judge,
        settler: Settler,
        clock: Clock,
    ) -> None:
        self.route = route
        self.source = source
        self._pool = pool
        self.traffic = traffic
        self.judge = judge
        self._settler = settler
        self._clock = clock
        self._turns = Turns()
        self._full: set[Share] = set()  # who found no room
        self._rate = rate
        self._granted_at = 0.0  # monotonic; before that the rate grants nothing
        self._rate_timer: Timer | None = None
        self.reach: Reach[Lane] = Reach(self, source, pool, traffic, clock)
        self._enough_until = 0.0  # monotonic; no more connections than there are
        self.spread = Spread()
        self.is_spread = route.is_spread  # as its site's name says, so of every route to it
        self.serving: set[Connection] = set()
        self.idle: list[Connection] = []
        self.connections = 0  # being dialled, or open
        self.is_watched = False  # mail waits, and the pool knows
        self.is_leaving = False  # what is under way ends here, and nothing more begins
        self._transactions: Transactions[Lane] = Transactions(
            self, self._turns, traffic, self.reach, pool, settler, clock
        )

    @property
    def share(self) -> Share:
        """Whose turn it is here."""
        head = self._turns.head()
        return NOBODY if head is None else (head.message.priority, head.message.tenant)

    @property
    def has_mail(self) -> bool:
        """Does any wait?"""
        return self._turns.batches > 0

    @property
    def lacks_host(self) -> bool:
        """Has a host too few connections for its part? What the others take is not all it takes."""
        if not self.is_spread or self.connections > self.spread.connections:
            return False  # one is about to be dialled, and may be for that host
        best = self.route.hosts[0].name
        idle = {each.host for each in self.idle}
        return self.spread.lacks([best, *self.route.alike(best)], idle, self._clock.monotonic())

    # Mail comes in

    def gate(self, share: Share) -> Go | Wait:
        """May mail of this priority and tenant come in?"""
        now = self._clock.now()
        if not self._turns.room(share):
            self._full.add(share)
            # In whole seconds: a look and a commit for each message would keep the disk busy.
            return Wait(math.ceil(now + FULL_WAIT * (1 + self._clock.dice())), LANE_FULL)
        if (shut := self.traffic.shut(now, share[1])) is not None:
            return shut
        return GO if self.serving else self.reach.ask()

    def room(self, share: Share) -> int:
        """How many recipients more of this priority and tenant may wait here."""
        return self._turns.room(share)

    def push(self, batch: Batch) -> None:
        """Let a batch wait; `gate` was asked."""
        message, recipients = batch.message, batch.recipients
        # Each has a sender of his own where what comes back is taken.
        most = 1 if message.return_path else self.route.limits.recipients_per_message
        if len(recipients) <= most:
            self._turns.push(batch)
        else:
            for start in range(0, len(recipients), most):
                self._turns.push(Batch(message, recipients[start : start + most]))
        self.kick()

    def kick(self, stalled: bool = False) -> None:
        """Give idle connections work, and ask for more connections where that is not enough."""
        if not self._turns.batches:
            return
        try:
            if self.idle and not self._pool.may_take:
                self._pool.starved(self)
                return
            while self.idle and self._turns.batches and self._feed():
                pass
            while self._wants_connection(stalled):
                self.connections += 1
                try:
                    self._pool.open(self)
                except Exception:
                    self.connections -= 1
                    self.traffic.closed(self)
                    raise
            if self._turns.batches and not self.is_watched:
                self.is_watched = True
                self._pool.stalls(self)
        except Exception as error:  # who kicks has work of his own to go on with; the next look comes
            self._pool.bug(error)

    def _feed(self) -> bool:
        """Give an idle connection work; False where nothing more may go."""
        at = len(self.idle) - 1
        if self.is_spread:  # its hosts are to be used alike
            at = min(range(at + 1), key=lambda each: self.spread.turn(self.idle[each].host))
        connection = self.idle.pop(at)
        try:
            started = self._transactions.start(connection)
        except Exception as error:  # what it was to send leaves, or the next one would meet the same
            connection.drop()
            self._transactions.fail_next(None, error)
            return False
        if started:
            self._pool.idle.pop(connection, None)
        elif self._transactions.is_used_up(connection):  # a limit was learned while it was idle
            self.retire(connection)
        else:
            self.idle.insert(at, connection)
            return False
        return True

    def _wants_connection(self, stalled: bool) -> bool:
        """Does more wait than the connections at hand should take? Stalled: it has waited a second."""
        if not self._turns.batches or self.is_leaving or self._clock.monotonic() < self._granted_at:
            return False
        if self.connections:
            if self._clock.monotonic() < self._enough_until:
                return False
        elif isinstance(self.reach.ask(), Wait):
            return False
        waiting = self._turns.batches
        wanted = -(-waiting // BATCHES_PER_CONNECTION)
        if stalled and self.connections == len(self.serving) and (not self.idle or self.lacks_host):
            wanted = max(wanted, self.connections + min(self.connections, waiting))
        if self.connections >= min(wanted, self.route.limits.connections):
            return False
        if not self._pool.may_take:
            self._pool.starved(self)
            return False
        return self._pool.may_dial(self)

    # What its transactions ask and tell

    def pop(self, carrier: Connection | None = None) -> None:
        """What is next has its turn, over a connection if it is sent."""
        self._turns.pop()
        if carrier is not None and self.is_spread:
            self.spread.served(carrier.host)
        if self._full:
            self._tell_room()

    def granted(self, recipients: int) -> bool:
        """May a transaction of so many begin? If so, it is counted."""
        if self._rate.rate is None:
            return self.traffic.take(self, recipients)
        now = self._clock.monotonic()
        answer = self._rate.ask(now, recipients)
        if isinstance(answer, Go):
            return self.traffic.take(self, recipients) and isinstance(self._rate.take(now, recipients), Go)
        self._granted_at = answer.until
        if self._rate_timer is None:
            self._rate_timer = self._clock.call_later(answer.until - now, self._grant)
        return False

    def yields(self, connection: Connection) -> bool:
        """Where mail goes at a pace, and hosts share it: is it the turn of another one, that is idle?"""
        if not self.is_spread or not self.traffic.is_paced:
            return False
        turn = self.spread.turn
        return min(turn(each.host) for each in self.idle) < turn(connection.host)

    def leave_if_shut(self) -> None:
        """What was put back may be of a branch that was shut meanwhile."""
        while (batch := self._turns.head()) is not None:
            shut = self.traffic.shut(self._clock.now(), batch.message.tenant)
            if shut is None:
                break
            self.put_off(shut, batch.message.tenant)

    # What the pool tells

    def opened(self, connection: Connection) -> None:
        """A dial succeeded."""
        self.serving.add(connection)
        self.spread.opened(connection.host, self.route.alike(connection.host))
        connection.serve(self._transactions)
        self.traffic.opened()
        self._transactions.idle_again(connection)

    def failed(self, outcome: Outcome, started: float) -> None:
        """No host let us in; with no other connection, what waits is settled."""
        try:
            if self._is_hosts_own(outcome):
                return
            if is_refusal(outcome) and self.traffic.is_alone:
                self._settle_head(outcome)  # the others wait for the branch, and lose no attempt
            if self.traffic.dial_failed(started, outcome):
                return
            if self.connections > 1:
                self._enough_until = self._clock.monotonic() + ENOUGH_WAIT
                return
            waiting = self._turns.head()
            self.reach.failed(outcome, None if waiting is None else waiting.message)
        except Exception as error:  # what stays would be dialled for again, at once and for ever
            self._pool.bug(error)

        def leave(batch: Batch) -> None:
            if not self._moves(batch):
                self._settle(batch, outcome)

        self._settler.each(self.take_all(), leave)

    def waits(self, until: Wait) -> None:
        """A connection is to be had a little later: with no other one, mail comes again then."""
        if self.connections > 1:
            self._enough_until = self._clock.monotonic() + until.until - self._clock.now()
        else:
            self.put_off(until)

    def closed(self, connection: Connection | None) -> None:
        """A connection, or the attempt at one, is over."""
        self.connections -= 1
        if connection is not None:
            self.serving.discard(connection)
            self.spread.closed(connection.host)
        self.traffic.closed(self)
        if connection is not None:
            self._transactions.closed(connection)
        dead = self.reach.ask()
        if isinstance(dead, Wait) and not self.connections:
            self._postpone_all(dead.until)
        self.kick()

    def follow(self, route: Route, judge: Judge) -> None:
        """From the next transaction on these hold, of another policy."""
        self.route, self.judge = route, judge
        self._rate.become(route.limits.rate, self._clock.monotonic())
        self._granted_at = 0.0
        if self._rate_timer is not None:
            self._rate_timer.cancel()
            self._rate_timer = None
        for connection in list(self.idle):
            if self._transactions.is_used_up(connection):
                self.retire(connection)
        self.kick()

    def leave(self) -> None:
        """Its mail goes another way by now: what waits leaves, what is under way ends as it began."""
        self.is_leaving = True
        while self.idle:
            self.retire(self.idle[-1])
        self._postpone_all(self._clock.now())

    def spare(self) -> bool:
        """Give an idle connection up for another lane of the branch; False where there is none."""
        if not self.idle:
            return False
        self.retire(self.idle[-1])
        return True

    def retire(self, connection: Connection) -> None:
        """Nothing more goes over it."""
        if self._pool.idle.pop(connection, None) is not None and connection in self.idle:
            self.idle.remove(connection)
        connection.retire()

    def put_off(self, until: Wait, tenant: str | None = None) -> None:
        """The branch is shut, for one tenant or all, for longer than mail should wait in memory."""

        def leave(batch: Batch) -> None:
            if not self._moves(batch):
                self._settler.postpone(batch, until.until)

        self._settler.each(self.take_all(tenant), leave)

    def take_all(self, tenant: str | None = None) -> list[Batch]:
        """Everything that waits leaves, of one tenant or all."""
        taken = self._turns.take_all() if tenant is None else self._turns.take_tenant(tenant)
        self._tell_room()
        return taken

    @property
    def batches(self) -> Iterator[Batch]:
        """All that is in its care: what waits and what is under way, but for contents that are being read."""
        yield from self._turns
        yield from self._transactions.batches

    @property
    def is_quiet(self) -> bool:
        """Nothing waits, or is being read, nothing is open, and no limit is remembered here alone."""
        if self._turns.batches or self.connections or self._transactions.borrowers:
            return False
        granted = isinstance(self._rate.ask(self._clock.monotonic()), Go)
        return self.is_leaving or (granted and not self.traffic.holds)

    @property
    def is_forgettable(self) -> bool:
        """Nor is anything remembered against the site."""
        if not self.is_quiet or self.is_leaving:
            return self.is_quiet
        return self.reach.is_forgettable and self.spread.is_quiet(self._clock.monotonic())

    # Inside

    def _grant(self) -> None:
        self._rate_timer = None
        self.kick()
        rest = self._granted_at - self._clock.monotonic()
        if rest > 0 and self._rate_timer is None and self._turns.batches:  # others took what was granted
            self._rate_timer = self._clock.call_later(rest, self._grant)

    def _is_hosts_own(self, outcome: Outcome) -> bool:
        """Does one host want no more connections, while another may? Not by words that are a provider's."""
        verdict = outcome.verdict
        if outcome.subject is not Subject.CONNECTION or verdict is None or not verdict.is_by_rule:
            return False
        if verdict.is_own and verdict.scope is not Scope.HOST:
            return False
        alike = self.route.alike(outcome.host)
        return self.spread.is_own(outcome.host, alike, self._clock.monotonic())

    def _moves(self, batch: Batch) -> bool:
        """Where our source is of no use, and another one may be, that one has it at once."""
        if not self.reach.has_other(batch.message):
            return False
        self._settler.postpone(batch, self._clock.now())
        return True

    def _settle_head(self, outcome: Outcome) -> None:
        if self._turns.head() is not None:
            self._settler.each(
                [self._turns.pop()],
                lambda batch: self._settle(batch, self.reach.elsewhere(batch.message, outcome)),
            )

    def _postpone_all(self, until: float) -> None:
        self._settler.each(self.take_all(), lambda batch: self._settler.postpone(batch, until))

    def _settle(self, batch: Batch, outcome: Outcome) -> None:
        trace = Trace(self.route, self.source.name)
        self._settler.settle(batch, [outcome] * len(batch.recipients), trace)

    def _tell_room(self) -> None:
        for share in [share for share in self._full if self._turns.room(share) >= LOW]:
            self._full.remove(share)
            try:
                self._pool.has_room(self, share)
            except Exception as error:
                self._pool.bug(error)
