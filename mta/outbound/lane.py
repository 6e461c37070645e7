"""The due mail for one site that waits in memory, and the connections that take it.

Between: the pool pushes batches and opens connections; connections take transactions and tell their
    ends; outcomes go to the settler.
Contract: bounded by recipients (`CAPACITY`), one FIFO. `gate` answers Go, or Wait with the reason. Every
    batch is settled or postponed once. A content that is only on disk is read by the pool first.
Raises: nothing.
Why: connections pull. Nobody assigns work to connections, so nothing is searched; tasks grow with
    connections, memory with lanes, and the backlog stays on disk.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from mta.clock import Clock, Timer
from mta.core.classify import EXPIRED, broken, outcomes, surplus, unsendable
from mta.core.dialogue import Transaction
from mta.core.message import header_block, stuff
from mta.core.model import Batch, Go, Outcome, Wait
from mta.core.routing import Route
from mta.core.throttle import GO, DeadSite, RateLimit
from mta.outbound.outcome import Settler, Trace
from mta.smtp.client import Connection

CAPACITY = 1000  # recipients
LOW = CAPACITY // 2  # a lane that was full asks for more from here
BATCHES_PER_CONNECTION = 8  # so many waiting are worth one more connection; pipelining feeds one well
FULL_WAIT = 60.0  # seconds until mail comes back that found the lane full; room wakes it sooner
ENOUGH_WAIT = 60.0  # seconds until one more connection is tried where the last was refused
MEMORY = 3600.0  # seconds that a dead site is remembered after its time


class Host(Protocol):
    """What a lane needs of its pool."""

    draining: bool

    @property
    def may_take(self) -> bool: ...

    def open(self, lane: Lane) -> None: ...

    def read(self, lane: Lane, connection: Connection, batch: Batch) -> None: ...

    def starved(self, lane: Lane) -> None: ...

    def has_room(self, lane: Lane) -> None: ...


class Lane:
    """One site's batches, limits and connections."""

    def __init__(self, route: Route, pool: Host, settler: Settler, clock: Clock) -> None:
        self.route = route
        self._pool = pool
        self._settler = settler
        self._clock = clock
        self._queue: deque[Batch] = deque()
        self._queued = 0  # recipients
        self._was_full = False
        self._rate = RateLimit(route.limits.rate)
        self._granted_at = 0.0  # monotonic; before that the rate grants nothing
        self._rate_timer: Timer | None = None
        self._dead = DeadSite()
        self._enough_until = 0.0  # no more connections than there are
        self._under_way: dict[Transaction, Batch] = {}
        self.serving: set[Connection] = set()
        self.idle: list[Connection] = []
        self.connections = 0  # being dialled, or open

    # Mail comes in

    def gate(self) -> Go | Wait:
        """May mail come in?"""
        now = self._clock.now()
        if self._queued >= CAPACITY:
            self._was_full = True
            return Wait(now + FULL_WAIT * (1 + self._clock.dice()), "lane full")
        return GO if self.serving else self._dead.ask(now)

    def room(self) -> int:
        """How many recipients more may wait here."""
        return max(CAPACITY - self._queued, 0)

    def push(self, batch: Batch) -> None:
        """Let a batch wait; `gate` was asked."""
        most = self.route.limits.recipients_per_message
        recipients = batch.recipients
        self._queued += len(recipients)
        if len(recipients) <= most:
            self._queue.append(batch)
        else:
            for start in range(0, len(recipients), most):
                self._queue.append(Batch(batch.message, recipients[start : start + most]))
        self.kick()

    def kick(self, stalled: bool = False) -> None:
        """Give idle connections work, and ask for more connections where that is not enough."""
        while self.idle and self._queue:
            connection = self.idle.pop()
            if not self._start(connection):
                self.idle.append(connection)
                break
        while self._wants_connection(stalled):
            self.connections += 1
            self._pool.open(self)

    def _wants_connection(self, stalled: bool) -> bool:
        """Does more wait than the connections at hand should take? Stalled: it has waited a second."""
        if not self._queue or self._clock.monotonic() < self._granted_at:
            return False
        if not self._pool.may_take:
            self._pool.starved(self)
            return False
        if self._clock.now() < (self._enough_until if self.connections else self._dead.until):
            return False
        wanted = -(-len(self._queue) // BATCHES_PER_CONNECTION)
        if stalled and not self.idle and self.connections == len(self.serving):
            wanted = max(wanted, self.connections + min(self.connections, len(self._queue)))
        return self.connections < min(wanted, self.route.limits.connections)

    def _start(self, connection: Connection) -> bool:
        transaction = self.take(connection)
        if transaction is not None:
            connection.send(transaction)
            return True
        batch = self._head(connection)
        if batch is None or batch.message.content is not None or not self._granted(len(batch.recipients)):
            return False
        self._pop()
        self._pool.read(self, connection, batch)
        return True

    def begin(self, connection: Connection, batch: Batch, content: bytes) -> None:
        """The content of a batch was read: send it, if the connection is still there."""
        batch.head = header_block(content)
        transaction = self._transaction(batch, content)
        if connection.ended.done():
            transaction.started = self._clock.monotonic()
            transaction.ended_by = connection.last_word
            self.lost(connection, [(transaction, False)])
            self.kick()
        else:
            connection.send(transaction)

    # What a connection asks and tells

    def take(self, connection: Connection) -> Transaction | None:
        """The next transaction, if its content is in memory and it may go now."""
        batch = self._head(connection) if self._queue else None
        content = None if batch is None else batch.message.content
        if batch is None or content is None or not self._granted(len(batch.recipients)):
            return None
        self._pop()
        return self._transaction(batch, content)

    def finished(self, connection: Connection, transaction: Transaction) -> None:
        if self._dead.failures:
            self._dead.answered()
        batch = self._under_way.pop(transaction)
        duration = self._clock.monotonic() - transaction.started
        results = outcomes(transaction, connection.host)
        extra = surplus(transaction)
        if extra:
            self._put_back(batch.split(extra))
            results = [result for position, result in enumerate(results) if position not in extra]
        self._settler.settle(batch, results, Trace(self.route.site, connection.tls, duration))

    def idle_again(self, connection: Connection) -> None:
        if self._is_used_up(connection) or self._pool.draining:
            connection.retire()
        else:
            self.idle.append(connection)
            self.kick()

    def lost(self, connection: Connection, left: list[tuple[Transaction, bool]]) -> None:
        if connection in self.idle:
            self.idle.remove(connection)
        for transaction, after_dot in left:
            batch = self._under_way.pop(transaction)
            # What was not sent is no attempt yet; but a site that always hangs up is one.
            if not after_dot and not batch.requeued and self._pool.may_take:
                batch.requeued = True
                self._put_back(batch)
            else:
                if batch.requeued:
                    self._dead.failed(self._clock.now())
                outcome = broken(transaction, after_dot, connection.host)
                duration = self._clock.monotonic() - transaction.started
                self.settle_all(batch, outcome, Trace(self.route.site, connection.tls, duration))

    # What the pool tells

    def opened(self, connection: Connection) -> None:
        """A dial succeeded."""
        self.serving.add(connection)
        connection.serve(self)
        self.idle_again(connection)

    def failed(self, outcome: Outcome) -> None:
        """No host could be reached; with no other connection, what waits is settled."""
        if self.connections > 1:
            self._enough_until = self._clock.now() + ENOUGH_WAIT
            return
        self._dead.failed(self._clock.now())
        for batch in self.take_all():
            self.settle_all(batch, outcome, Trace(self.route.site))

    def closed(self, connection: Connection | None) -> None:
        """A connection, or the attempt at one, is over."""
        self.connections -= 1
        if connection is not None:
            self.serving.discard(connection)
        dead = self._dead.ask(self._clock.now())
        if isinstance(dead, Wait) and not self.connections:
            for batch in self.take_all():
                self._settler.postpone(batch, dead.until)
        self.kick()

    def settle_all(self, batch: Batch, outcome: Outcome, trace: Trace) -> None:
        self._settler.settle(batch, [outcome] * len(batch.recipients), trace)

    def take_all(self) -> list[Batch]:
        """Everything that waits leaves."""
        taken = list(self._queue)
        self._queue.clear()
        self._queued = 0
        self._tell_room()
        return taken

    @property
    def is_forgettable(self) -> bool:
        """Nothing waits, nothing is open, nothing is remembered against the site."""
        quiet = self._clock.now() > self._dead.until + MEMORY
        granted = isinstance(self._rate.ask(self._clock.monotonic()), Go)
        return not self._queue and not self.connections and quiet and granted

    # Inside

    def _head(self, connection: Connection) -> Batch | None:
        """What is next for this connection; what can never go over it is settled on the way."""
        while self._queue and not self._is_used_up(connection):
            if not self._pool.may_take:
                self._pool.starved(self)
                return None
            batch = self._queue[0]
            message = batch.message
            if message.expires <= self._clock.now():
                refusal: Outcome | None = EXPIRED
            else:
                refusal = unsendable(message.options, connection.capabilities.smtputf8, connection.host)
            if refusal is None:
                return batch
            self._pop()
            self.settle_all(batch, refusal, Trace(self.route.site, connection.tls))
        return None

    def _pop(self) -> None:
        batch = self._queue.popleft()
        self._queued -= len(batch.recipients)
        self._tell_room()

    def _granted(self, recipients: int) -> bool:
        if self._rate.rate is None:
            return True
        now = self._clock.monotonic()
        answer = self._rate.take(now, recipients)
        if isinstance(answer, Go):
            return True
        self._granted_at = answer.until
        if self._rate_timer is None:
            self._rate_timer = self._clock.call_later(answer.until - now, self._grant)
        return False

    def _grant(self) -> None:
        self._rate_timer = None
        self.kick()

    def _is_used_up(self, connection: Connection) -> bool:
        return connection.begun >= self.route.limits.messages_per_connection

    def _transaction(self, batch: Batch, content: bytes) -> Transaction:
        body = content if batch.message.dotless else stuff(content)
        transaction = Transaction(batch.message, batch.recipients, body)
        self._under_way[transaction] = batch
        return transaction

    def _put_back(self, batch: Batch) -> None:
        self._queued += len(batch.recipients)
        self._queue.appendleft(batch)

    def _tell_room(self) -> None:
        if self._was_full and self._queued <= LOW:
            self._was_full = False
            self._pool.has_room(self)
