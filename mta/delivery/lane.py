"""The due mail from one source to one site that waits in memory, and the connections that take it.

Between: the pool pushes batches and opens connections; connections take transactions and tell their
    ends; outcomes go to the settler.
Contract: bounded by recipients for each tenant and priority (`core.limits.turns`), and as a whole. `gate`
    answers Go, or Wait with the reason. Every batch is settled or postponed once, whatever bug of ours is
    met on the way. A content that is only on disk is read first (`delivery.contents`), when there is
    memory for it.
Raises: nothing.
Why: connections pull. Nobody assigns work to connections, so nothing is searched; tasks grow with
    connections, memory with lanes, and the backlog stays on disk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

from mta.clock import Clock, Timer
from mta.core.answers.classify import (
    Judge,
    broken,
    despite_bug,
    outcomes,
    refused,
    shared,
    surplus,
    unsendable,
)
from mta.core.answers.dialogue import Left, Transaction
from mta.core.limits.order import LOWEST, Share
from mta.core.limits.throttle import GO, RateLimit
from mta.core.limits.turns import LOW, Turns
from mta.core.mail.message import header_block, stuff
from mta.core.model import Batch, Go, Outcome, Reaction, Scope, Wait
from mta.core.route.routing import Route
from mta.core.route.source import Source
from mta.delivery.contents import Contents
from mta.delivery.reach import Others, Reach
from mta.delivery.traffic import SLICE, Traffic, is_refusal
from mta.outbound.outcome import Settler, Trace
from mta.smtp.client import Connection

BATCHES_PER_CONNECTION = 8  # so many waiting are worth one more connection; pipelining feeds one well
FULL_WAIT = 60.0  # seconds until mail comes back that found the lane full; room wakes it sooner
ENOUGH_WAIT = 60.0  # seconds until one more connection is tried where the last was refused
SHUN = 300.0  # seconds that a host is left alone after it said that another one should be asked
TENANT_SUSPENDED = 1800.0  # seconds, where a rule names no time
MOMENT = 5.0  # seconds; what took longer leaves an event
LANE_FULL = "lane full"
NOBODY: Share = (LOWEST, "")  # waits


class LanePool(Others["Lane"], Protocol):
    """What a lane needs of its pool."""

    draining: bool
    contents: Contents

    @property
    def may_take(self) -> bool: ...

    def open(self, lane: Lane) -> None: ...

    def bug(self, error: Exception) -> None: ...

    def starved(self, lane: Lane) -> None: ...

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
        self._under_way: dict[Transaction, Batch] = {}
        self.shunned: dict[str, float] = {}  # hosts that are no good now -> monotonic time until then
        self._spent: set[Connection] = set()  # what is under way there ends, and nothing more begins
        self.serving: set[Connection] = set()
        self.idle: list[Connection] = []
        self.connections = 0  # being dialled, or open
        self.is_leaving = False  # what is under way ends here, and nothing more begins

    @property
    def share(self) -> Share:
        """Whose turn it is here."""
        head = self._turns.head()
        return NOBODY if head is None else (head.message.priority, head.message.tenant)

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
        most = self.route.limits.recipients_per_message
        recipients = batch.recipients
        if len(recipients) <= most:
            self._turns.push(batch)
        else:
            for start in range(0, len(recipients), most):
                self._turns.push(Batch(batch.message, recipients[start : start + most]))
        self.kick()

    def kick(self, stalled: bool = False) -> None:
        """Give idle connections work, and ask for more connections where that is not enough."""
        if not self._turns.batches:
            return
        try:
            if self.idle and not self._pool.may_take:
                self._pool.starved(self)
                return
            while self.idle and self._turns.batches:
                connection = self.idle.pop()
                try:
                    started = self._start(connection)
                except Exception as error:  # what it was to send leaves, or the next one would meet the same
                    connection.drop()
                    self._fail(None, error)
                    break
                if not started:
                    self.idle.append(connection)
                    break
            while self._wants_connection(stalled):
                self.connections += 1
                try:
                    self._pool.open(self)
                except Exception:
                    self.connections -= 1
                    self.traffic.closed(self)
                    raise
        except Exception as error:  # who kicks has work of his own to go on with; the next sweep comes
            self._pool.bug(error)

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
        if stalled and not self.idle and self.connections == len(self.serving):
            wanted = max(wanted, self.connections + min(self.connections, waiting))
        if self.connections >= min(wanted, self.route.limits.connections):
            return False
        if not self._pool.may_take:
            self._pool.starved(self)
            return False
        return self.traffic.dial(self)

    def _start(self, connection: Connection) -> bool:
        transaction = self.take(connection)
        if transaction is not None:
            connection.send(transaction)
            return True
        contents, batch = self._pool.contents, None
        try:
            batch = self._head(connection)
            if batch is None or batch.message.content is not None:
                return False
            if not contents.has_room(self, connection, batch.message):
                return False
            if not self._granted(len(batch.recipients)):
                return False
            self._pop()
            contents.read(self, connection, batch)
        except Exception as error:
            self._fail(batch, error)
            return False
        return True

    def begin(self, connection: Connection, batch: Batch, body: bytes, head: bytes) -> None:
        """The content of a batch was read: send it, if the connection is still there."""
        batch.head = head
        refusal = unsendable(batch.message.options, connection.capabilities, connection.host)
        if refusal is not None:
            needing = refused(refusal, batch.message, batch.recipients, head)
            if needing and not self._refuse(connection, batch, needing, refusal):
                self._pool.contents.give_back(batch)
                if not connection.ended.done():
                    self.idle_again(connection)
                return
        transaction = Transaction(batch.message, batch.recipients, body, connection)
        self._under_way[transaction] = batch
        if connection.ended.done():
            transaction.started = self._clock.monotonic()
            transaction.ended_by = connection.last_word
            self.lost(connection, [Left(transaction)])
            self.kick()
        else:
            connection.send(transaction)

    def unread(self, connection: Connection, batch: Batch, error: Exception) -> None:
        """The content of a batch cannot be read, or not be sent."""
        for transaction in [each for each, its in self._under_way.items() if its is batch]:
            del self._under_way[transaction]
        try:
            self._settler.fail(batch, error, self._trace(connection))
            if not connection.ended.done():
                self.idle_again(connection)
        except Exception as another:
            connection.broke(another)
        finally:
            self._pool.contents.give_back(batch)

    # What a connection asks and tells

    def take(self, connection: Connection) -> Transaction | None:
        """The next transaction, if its content is in memory and it may go now."""
        batch = None
        try:
            batch = self._head(connection) if self._turns.batches else None
            content = None if batch is None else batch.message.content
            if batch is None or content is None or not self._granted(len(batch.recipients)):
                return None
            self._pop()
            body = content if batch.message.dotless else stuff(content)
            transaction = Transaction(batch.message, batch.recipients, body, connection)
        except Exception as error:
            self._fail(batch, error)
            return None
        self._under_way[transaction] = batch
        return transaction

    def finished(self, connection: Connection, transaction: Transaction) -> None:
        batch = self._under_way.pop(transaction, None)
        if batch is None:
            return  # after a bug it may be told twice
        now = self._clock.monotonic()
        is_lent = batch.message.content is None
        extra: set[int] = set()
        try:
            if self.reach.is_doubtful:
                self.reach.answered()
            results = outcomes(transaction, connection.host, self.judge)
            extra = surplus(transaction)
            if extra:
                results = [result for position, result in enumerate(results) if position not in extra]
            self.traffic.ended(transaction.started, now, results, connection.carried)
            connection.carried += 1
            for result in results:  # a generator for each message costs more
                if result.verdict is not None:
                    self._react(batch.message.tenant, results, connection)
                    results = [self.reach.elsewhere(batch.message, each) for each in results]
                    break
        except Exception as error:
            self._pool.bug(error)
            results, extra = despite_bug(transaction, connection.host), set()
        apart = batch.split(extra) if extra else None
        try:  # first of all what was answered: a bug in the rest must not have it sent again
            self._settler.settle(batch, results, self._trace(connection, now - transaction.started))
        finally:
            if apart is not None:
                self._turns.put_back(apart)
            if is_lent:
                self._pool.contents.give_back(batch)

    def idle_again(self, connection: Connection) -> None:
        if self._is_used_up(connection) or self._pool.draining:
            connection.retire()
        else:
            self.idle.append(connection)
            self.kick()

    def lost(self, connection: Connection, left: list[Left]) -> None:
        if connection in self.idle:
            self.idle.remove(connection)
        if left:
            self.reach.lost()
        for each in left:
            batch = self._under_way.pop(each.transaction, None)
            if batch is None:
                continue  # it was answered, and a bug came behind it
            try:
                self._lost(connection, each, batch)
            except Exception as error:
                self._settler.fail(batch, error, self._trace(connection))
            finally:
                if batch.message.content is None:
                    self._pool.contents.give_back(batch)
        try:
            self._leave_if_shut()
        except Exception as error:
            self._pool.bug(error)

    def _lost(self, connection: Connection, left: Left, batch: Batch) -> None:
        transaction, now = left.transaction, self._clock.monotonic()
        took = now - transaction.started
        outcome = broken(left, connection.host, self.judge)
        if outcome.verdict is not None:
            self.traffic.ended(transaction.started, now, [outcome], connection.carried)
            self._react(batch.message.tenant, [outcome], connection)
        # What was not sent is no attempt yet; but a site that always hangs up is one, and so is one
        # that refuses us in words on a new connection.
        refused = is_refusal(outcome) and not connection.carried
        if not (left.after_dot or refused or batch.requeued) and self._pool.may_take:
            if took > MOMENT:
                self._settler.tell_again(batch, outcome, self._trace(connection, took))
            batch.requeued = True
            self._turns.put_back(batch)
            return
        outcome = self.reach.elsewhere(batch.message, outcome)
        results = shared(outcome, transaction, self.judge)
        if batch.requeued:
            self.reach.lost_again(outcome)
        self._settler.settle(batch, results, self._trace(connection, took))

    def bug(self, error: Exception) -> None:
        self._pool.bug(error)

    # What the pool tells

    def opened(self, connection: Connection) -> None:
        """A dial succeeded."""
        self.serving.add(connection)
        connection.serve(self)
        self.traffic.opened()
        self.idle_again(connection)

    def failed(self, outcome: Outcome, started: float) -> None:
        """No host let us in; with no other connection, what waits is settled."""
        try:
            if is_refusal(outcome) and self.traffic.is_alone:
                self._settle_head(outcome)  # the others wait for the path, and lose no attempt
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
                self.settle_all(batch, outcome, self._trace())

        self._settler.each(self.take_all(), leave)

    def closed(self, connection: Connection | None) -> None:
        """A connection, or the attempt at one, is over."""
        self.connections -= 1
        if connection is not None:
            self.serving.discard(connection)
            self._spent.discard(connection)
        self.traffic.closed(self)
        for transaction in [each for each in self._under_way if each.carrier is connection]:
            batch = self._under_way.pop(transaction)  # the connection has forgotten it
            self._pool.contents.give_back(batch)
            self._settler.fail(batch, RuntimeError("a connection ended without a word of its mail"))
        dead = self.reach.ask()
        if isinstance(dead, Wait) and not self.connections:
            until = dead.until
            self._settler.each(self.take_all(), lambda batch: self._settler.postpone(batch, until))
        self.kick()

    def follow(self, route: Route, judge: Judge) -> None:
        """From the next transaction on these hold, of another policy."""
        self.route, self.judge = route, judge
        self._rate.become(route.limits.rate, self._clock.monotonic())
        self._granted_at = 0.0
        if self._rate_timer is not None:
            self._rate_timer.cancel()
            self._rate_timer = None
        idle, self.idle = self.idle, []
        for connection in idle:
            self.idle_again(connection)  # unless it is used up by now
        self.kick()

    def leave(self) -> None:
        """Its mail goes another way by now: what waits leaves, what is under way ends as it began."""
        self.is_leaving = True
        while self.idle:
            self.idle.pop().retire()
        now = self._clock.now()
        self._settler.each(self.take_all(), lambda batch: self._settler.postpone(batch, now))

    def spare(self) -> bool:
        """Give an idle connection up for another lane of the path; False where there is none."""
        if not self.idle:
            return False
        self.idle.pop().retire()
        return True

    def put_off(self, until: Wait, tenant: str | None = None) -> None:
        """The path is shut, for one tenant or all, for longer than mail should wait in memory."""

        def leave(batch: Batch) -> None:
            if not self._moves(batch):
                self._settler.postpone(batch, until.until)

        self._settler.each(self.take_all() if tenant is None else self._take_tenant(tenant), leave)

    def settle_all(self, batch: Batch, outcome: Outcome, trace: Trace) -> None:
        self._settler.settle(batch, [outcome] * len(batch.recipients), trace)

    def take_all(self) -> list[Batch]:
        """Everything that waits leaves."""
        taken = self._turns.take_all()
        self._tell_room()
        return taken

    def _take_tenant(self, tenant: str) -> list[Batch]:
        taken = self._turns.take_tenant(tenant)
        self._tell_room()
        return taken

    @property
    def batches(self) -> Iterator[Batch]:
        """All that is in its care: what waits and what is under way, but for contents that are being read."""
        yield from self._turns
        yield from self._under_way.values()

    @property
    def is_forgettable(self) -> bool:
        """Nothing waits, nothing is open, nothing is remembered against the site."""
        if self.is_leaving:
            return not self._turns.batches and not self.connections
        quiet = self.reach.is_forgettable and not self.traffic.holds
        quiet = quiet and self._clock.monotonic() > max(self.shunned.values(), default=0.0)
        granted = isinstance(self._rate.ask(self._clock.monotonic()), Go)
        return not self._turns.batches and not self.connections and quiet and granted

    # Inside

    def _head(self, connection: Connection) -> Batch | None:
        """What is next for this connection; what can never go over it is settled on the way."""
        while (batch := self._turns.head()) is not None and not self._is_used_up(connection):
            if not self._pool.may_take:
                self._pool.starved(self)
                return None
            message = batch.message
            if message.expires <= self._clock.now() and self._settler.is_over(message):
                self._pop()
                self._settler.expire(batch, self._trace(connection))
                continue
            refusal = unsendable(message.options, connection.capabilities, connection.host)
            if refusal is None or message.content is None:  # that is decided when it is read
                return batch
            needing = refused(refusal, message, batch.recipients, header_block(message.content))
            if not needing:
                return batch
            self._pop()
            if self._refuse(connection, batch, needing, refusal):
                self._turns.put_back(batch)
        return None

    def _refuse(self, connection: Connection, batch: Batch, positions: set[int], refusal: Outcome) -> bool:
        """Give some recipients of a batch up; are there others?"""
        others = len(positions) < len(batch.recipients)
        refused = batch.split(positions) if others else batch
        refused.head = batch.head
        self.settle_all(refused, refusal, self._trace(connection))
        return others

    def _fail(self, batch: Batch | None, error: Exception) -> None:
        """A bug of ours over what goes next: it leaves, or it would stand before the others for ever."""
        head = self._turns.head()
        if head is not None and (batch is None or batch is head):
            batch = self._turns.pop()
        if batch is None:
            self._pool.bug(error)
        else:
            self._pool.contents.give_back(batch)
            self._settler.fail(batch, error, self._trace())

    def _pop(self) -> None:
        self._turns.pop()
        if self._full:
            self._tell_room()

    def _granted(self, recipients: int) -> bool:
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

    def _grant(self) -> None:
        self._rate_timer = None
        self.kick()

    def _is_used_up(self, connection: Connection) -> bool:
        if self.is_leaving or connection in self._spent:
            return True
        begun = connection.begun
        traffic = self.traffic
        most = traffic.messages_per_connection
        if begun >= self.route.limits.messages_per_connection or (most is not None and begun >= most):
            return True
        return begun >= SLICE and traffic.others_wait(self)

    def _react(self, tenant: str, results: Sequence[Outcome], connection: Connection) -> None:
        """What the rules ask of us beyond the mail itself; the path has heard of its part."""
        for verdict in {result.verdict for result in results if result.verdict is not None}:
            if verdict.reaction is Reaction.NEXT_MX and len(self.route.hosts) > 1:
                self.shunned[connection.host] = self._clock.monotonic() + (verdict.wait or SHUN)
                self._spent.add(connection)
            elif verdict.scope is Scope.TENANT:
                self.traffic.suspend_tenant(tenant, verdict.wait or TENANT_SUSPENDED, verdict)

    def _leave_if_shut(self) -> None:
        """What was put back may be of a path that was shut meanwhile."""
        while (batch := self._turns.head()) is not None:
            shut = self.traffic.shut(self._clock.now(), batch.message.tenant)
            if shut is None:
                break
            self.put_off(shut, batch.message.tenant)

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
                lambda batch: self.settle_all(
                    batch, self.reach.elsewhere(batch.message, outcome), self._trace()
                ),
            )

    def _trace(self, connection: Connection | None = None, duration: float = 0.0) -> Trace:
        if connection is None:
            return Trace(self.route, self.source.name)
        return Trace(self.route, self.source.name, connection.tls, duration, connection.note)

    def _tell_room(self) -> None:
        for share in [share for share in self._full if self._turns.room(share) >= LOW]:
            self._full.remove(share)
            try:
                self._pool.has_room(self, share)
            except Exception as error:
                self._pool.bug(error)
