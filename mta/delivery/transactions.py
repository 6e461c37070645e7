"""What is under way on the connections of one lane, and what becomes of it.

Between: a connection takes transactions and tells their ends, contents that were on disk are handed in; a
    lane has the batches that go next, and says whether they may; outcomes go to the settler.
Contract: every batch that is taken is settled, or put back where it waited, once, whatever bug of ours is
    met on the way; then what it borrowed of `delivery.contents` is given back. A content that is only on
    disk is read first, when there is memory for it. What a peer can never take is settled before it goes.
Raises: nothing to a connection, but where settling met a bug: that costs the connection.
Why: a connection is served by this object itself: one call more between the two is paid for each message.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from mta.clock import Clock
from mta.core.answers.classify import (
    Judge,
    broken,
    despite_bug,
    outcomes,
    refused,
    shared,
    softened,
    surplus,
    unsendable,
    unsigned,
    wants_tls,
)
from mta.core.answers.dialogue import Left, Transaction
from mta.core.limits.spread import Spread
from mta.core.limits.turns import Turns
from mta.core.mail.message import header_block, stuff
from mta.core.model import Batch, Message, Outcome, Reaction, Scope
from mta.core.returns.verp import Verp
from mta.core.route.routing import Route
from mta.core.route.source import Source
from mta.delivery.contents import Contents
from mta.delivery.reach import Reach
from mta.delivery.traffic import SLICE, Traffic, Waiter, is_refusal
from mta.outbound.outcome import Settler, Trace
from mta.signing.signer import SigningError
from mta.smtp.client import Connection

TENANT_SUSPENDED = 1800.0  # seconds, where a rule names no time
MOMENT = 5.0  # seconds; what took longer leaves an event


class Origin(Waiter, Protocol):
    """What transactions need of the lane that they come from."""

    route: Route
    source: Source
    judge: Judge
    idle: list[Connection]
    is_leaving: bool
    spread: Spread

    def granted(self, recipients: int) -> bool: ...

    def yields(self, connection: Connection) -> bool: ...

    def pop(self, carrier: Connection | None = None) -> None: ...

    def leave_if_shut(self) -> None: ...


Lane = TypeVar("Lane", bound=Origin)
Whose = TypeVar("Whose", contravariant=True)


class Means(Protocol[Whose]):
    """What the pool has for the transactions of all lanes."""

    draining: bool
    contents: Contents
    verp: Verp
    idle: OrderedDict[Connection, Any]  # of all lanes, with these, in the order they became so
    queue: Collection[Any]  # lanes that wait for a connection, of whatever branch

    def is_wanted(self, connection: Connection) -> bool:
        """Does a lane wait, of whatever branch, that should have the place of this one now?"""
        ...

    @property
    def may_take(self) -> bool: ...

    def rests(self, connection: Connection) -> None: ...

    def bug(self, error: Exception) -> None: ...

    def starved(self, lane: Whose) -> None: ...


class Transactions(Generic[Lane]):
    """One lane's transactions."""

    def __init__(
        self,
        lane: Lane,
        turns: Turns,
        traffic: Traffic,
        reach: Reach[Lane],
        pool: Means[Lane],
        settler: Settler,
        clock: Clock,
    ) -> None:
        self.site = lane.route.site
        self._lane = lane
        self._turns = turns
        self._traffic = traffic
        self._reach = reach
        self._pool = pool
        self._settler = settler
        self._clock = clock
        self._under_way: dict[Transaction, Batch] = {}
        self.borrowers: set[Batch] = set()  # whose contents are being read, or were
        self._spent: set[Connection] = set()  # what is under way there ends, and nothing more begins

    @property
    def batches(self) -> Iterable[Batch]:
        """All that is under way, but for contents that are being read."""
        return self._under_way.values()

    # What a connection asks and tells

    def take(self, connection: Connection) -> Transaction | None:
        """The next transaction, if its content is in memory and it may go now."""
        batch = None
        try:
            lane = self._lane
            if lane.idle and lane.yields(connection):
                return None
            batch = self._head(connection) if self._turns.batches else None
            if batch is None:
                return None
            message = batch.message
            content = message.content
            if content is None and not self._may_borrow(connection, message):
                return None
            if not lane.granted(len(batch.recipients)):
                return None
            lane.pop(connection)
            if content is None:
                self.borrowers.add(batch)
                body = self._pool.contents.lend(self, connection, batch)
            else:
                body = content if message.dotless else stuff(content)
            sender = self._sender(batch) if message.return_path else message.sender
            transaction = Transaction(message, sender, batch.recipients, body, connection)
        except Exception as error:
            self.fail_next(batch, error)
            return None
        self._under_way[transaction] = batch
        return transaction

    def finished(self, connection: Connection, transaction: Transaction) -> None:
        batch = self._under_way.pop(transaction, None)
        if batch is None:
            return  # after a bug it may be told twice
        now = self._clock.monotonic()
        extra: set[int] = set()
        try:
            if self._reach.is_doubtful:
                self._reach.answered()
            results = outcomes(transaction, connection.host, self._lane.judge)
            extra = surplus(transaction)
            if extra:
                results = [result for position, result in enumerate(results) if position not in extra]
            self._traffic.ended(transaction.started, now, results, connection.carried)
            connection.carried += 1
            for result in results:  # a generator for each message costs more
                if result.verdict is not None:
                    self._react(batch.message.tenant, results, connection)
                    results = [self._reach.elsewhere(batch.message, each) for each in results]
                    break
        except Exception as error:
            self._pool.bug(error)
            results, extra = despite_bug(transaction, connection.host), set()
        apart = batch.split(extra) if extra else None
        try:  # first of all what was answered: a bug in the rest must not have it sent again
            self._settle(batch, results, connection, now - transaction.started)
        finally:
            if apart is not None:
                self._turns.put_back(apart)

    def idle_again(self, connection: Connection) -> None:
        if self.is_used_up(connection) or self._pool.draining:
            connection.retire()
        else:
            self._lane.idle.append(connection)
            self._pool.idle[connection] = self._lane
            self._lane.kick()
            if self._pool.queue:
                self._pool.rests(connection)

    def lost(self, connection: Connection, left: list[Left]) -> None:
        lane = self._lane
        if self._pool.idle.pop(connection, None) is not None and connection in lane.idle:
            lane.idle.remove(connection)
        if left:
            self._reach.lost()
        for each in left:
            batch = self._under_way.pop(each.transaction, None)
            if batch is None:
                continue  # it was answered, and a bug came behind it
            try:
                self._lost(connection, each, batch)
            except Exception as error:
                self._fail(batch, error, connection)
        try:
            lane.leave_if_shut()
        except Exception as error:
            self._pool.bug(error)

    def bug(self, error: Exception) -> None:
        self._pool.bug(error)

    # What the lane asks and tells

    def is_used_up(self, connection: Connection) -> bool:
        """Does nothing more go over it?"""
        lane = self._lane
        if lane.is_leaving or connection in self._spent:
            return True
        begun = connection.begun
        traffic = self._traffic
        most = traffic.messages_per_connection
        if begun >= lane.route.limits.messages_per_connection or (most is not None and begun >= most):
            return True
        limits = connection.capabilities.limits
        if limits is not None and begun >= limits.mails:
            return True
        if begun < SLICE:
            return False
        pool = self._pool  # whose queue is asked first: it is empty, nearly always
        return traffic.others_wait(lane) or (bool(pool.queue) and pool.is_wanted(connection))

    def start(self, connection: Connection) -> bool:
        """Give an idle connection what is next, or have its content read; False where nothing may go."""
        transaction = self.take(connection)
        if transaction is not None:
            connection.send(transaction)
            return True
        contents, batch = self._pool.contents, None
        try:
            batch = self._head(connection)
            if batch is None or batch.message.content is not None:
                return False
            if not contents.has_room(self._lane, connection, batch.message):
                return False
            if not self._lane.granted(len(batch.recipients)):
                return False
            self._lane.pop(connection)
            self.borrowers.add(batch)
            contents.read(self, connection, batch)
        except Exception as error:
            self.fail_next(batch, error)
            return False
        return True

    def fail_next(self, batch: Batch | None, error: Exception) -> None:
        """A bug of ours over what goes next: it leaves, or it would stand before the others for ever."""
        head = self._turns.head()
        if head is not None and (batch is None or batch is head):
            batch = self._turns.pop()
        if batch is None:
            self._pool.bug(error)
        else:
            self._fail(batch, error)

    def closed(self, connection: Connection) -> None:
        """Its end was told, and all is settled, unless a bug came between."""
        self._spent.discard(connection)
        for transaction in [each for each in self._under_way if each.carrier is connection]:
            batch = self._under_way.pop(transaction)  # the connection has forgotten it
            self._fail(batch, RuntimeError("a connection ended without a word of its mail"), connection)

    # What became of a content

    def begin(self, connection: Connection, batch: Batch, body: bytes, head: bytes) -> None:
        """The content of a batch was read: send it, if the connection is still there."""
        batch.head = head
        refusal = unsendable(batch.message.options, connection.capabilities, connection.host)
        if refusal is not None:
            needing = refused(refusal, self._sender(batch), batch.recipients, head)
            if needing and not self._refuse(connection, batch, needing, refusal):
                if not connection.ended.done():
                    self.idle_again(connection)
                return
        transaction = Transaction(batch.message, self._sender(batch), batch.recipients, body, connection)
        self._under_way[transaction] = batch
        if connection.ended.done():
            transaction.started = self._clock.monotonic()
            transaction.ended_by = connection.last_word
            self.lost(connection, [Left(transaction)])
            self._lane.kick()
        else:
            connection.send(transaction)

    def unread(self, connection: Connection, batch: Batch, error: Exception) -> None:
        """The content of a batch cannot be read, or not be sent."""
        for transaction in [each for each, its in self._under_way.items() if its is batch]:
            del self._under_way[transaction]
        try:
            if isinstance(error, SigningError):
                self._settle(batch, [unsigned(str(error))] * len(batch.recipients), connection)
            else:
                self._fail(batch, error, connection)
            if not connection.ended.done():
                self.idle_again(connection)
        except Exception as another:
            connection.broke(another)

    # Inside

    def _head(self, connection: Connection) -> Batch | None:
        """What is next for this connection; what can never go over it is settled on the way."""
        while (batch := self._turns.head()) is not None and not self.is_used_up(connection):
            if not self._pool.may_take:
                self._pool.starved(self._lane)
                return None
            message = batch.message
            if message.expires <= self._clock.now() and self._settler.is_over(message):
                self._lane.pop()
                self._settler.expire(batch, self._trace(connection))
                continue
            limits = connection.capabilities.limits
            if limits is not None and (beyond := limits.beyond(batch.recipients)):
                self._turns.part(beyond)
            refusal = unsendable(message.options, connection.capabilities, connection.host)
            if refusal is None or message.content is None:  # that is decided when it is read
                return batch
            head = header_block(message.content)
            needing = refused(refusal, self._sender(batch), batch.recipients, head)
            if not needing:
                return batch
            self._lane.pop()
            if self._refuse(connection, batch, needing, refusal):
                self._turns.put_back(batch)
        return None

    def _may_borrow(self, connection: Connection, message: Message) -> bool:
        """Is a content that is only on disk in memory for others, and may it go over this connection?

        Where 8 bits or SMTPUTF8 are missing its header block decides: `start` has it looked at.
        """
        if not self._pool.contents.has(message):
            return False
        return unsendable(message.options, connection.capabilities, connection.host) is None

    def _sender(self, batch: Batch) -> str:
        """Where a return path is used what comes back to it says whose it was; each attempt gets one anew."""
        message, now = batch.message, self._clock.now()
        if not message.return_path:
            return message.sender
        return self._pool.verp.make(message.id, batch.recipients[0].n, message.return_path, now)

    def _refuse(self, connection: Connection, batch: Batch, positions: set[int], refusal: Outcome) -> bool:
        """Give some recipients of a batch up; are there others?"""
        others = len(positions) < len(batch.recipients)
        refused = batch.split(positions) if others else batch
        refused.head = batch.head
        self._settle(refused, [refusal] * len(refused.recipients), connection)
        return others

    def _lost(self, connection: Connection, left: Left, batch: Batch) -> None:
        transaction, now = left.transaction, self._clock.monotonic()
        took = now - transaction.started
        outcome = broken(left, connection.host, self._lane.judge)
        if outcome.verdict is not None:
            self._traffic.ended(transaction.started, now, [outcome], connection.carried)
            self._react(batch.message.tenant, [outcome], connection)
        # What was not sent is no attempt yet; but a site that always hangs up is one, and so is one
        # that refuses us in words on a new connection.
        refused = is_refusal(outcome) and not connection.carried
        is_over = left.after_dot or refused
        if not is_over and batch.requeued:
            is_over = not self._leaves_host(connection, outcome)
        if not is_over and self._pool.may_take:
            if took > MOMENT:
                self._settler.tell_again(batch, outcome, self._trace(connection, took))
            self._give_back(batch)
            batch.requeued = True
            self._turns.put_back(batch)
            return
        outcome = self._reach.elsewhere(batch.message, outcome)
        results = shared(outcome, transaction, self._lane.judge)
        if batch.requeued:
            self._reach.lost_again(outcome)
        self._settle(batch, results, connection, took)

    def _leaves_host(self, connection: Connection, outcome: Outcome) -> bool:
        """A host let us in, and hung up on the first mail, again: is another one asked now (RFC 5321 5.1)?"""
        lane, verdict, now = self._lane, outcome.verdict, self._clock.monotonic()
        known = verdict is not None and verdict.is_by_rule
        if known or connection.carried or lane.spread.is_shunned(connection.host, now):
            return False
        lane.spread.shun(connection.host, now, None)
        return not all(lane.spread.is_shunned(host.name, now) for host in lane.route.hosts)

    def _react(self, tenant: str, results: Sequence[Outcome], connection: Connection) -> None:
        """What the rules ask of us beyond the mail itself; the branch has heard of its part."""
        lane = self._lane
        for verdict in {result.verdict for result in results if result.verdict is not None}:
            if verdict.reaction is Reaction.NEXT_MX and len(lane.route.hosts) > 1:
                lane.spread.shun(connection.host, self._clock.monotonic(), verdict.wait)
                self._spent.add(connection)
            elif verdict.scope is Scope.TENANT:
                self._traffic.suspend_tenant(tenant, verdict.wait or TENANT_SUSPENDED, verdict)

    def _settle(
        self, batch: Batch, results: Sequence[Outcome], connection: Connection, took: float = 0.0
    ) -> None:
        """It was answered, or never will be."""
        lane = self._lane
        trace = Trace(lane.route, lane.source.name, connection.tls, took, connection.note)
        if connection.note:
            if any(map(wants_tls, results)):
                connection.wants_tls()
                self._spent.add(connection)
            results = list(map(softened, results))
        is_lent = batch.message.content is None  # one in memory leaves it with its last recipient
        try:
            self._settler.settle(batch, results, trace)
        finally:
            if is_lent:
                self._give_back(batch)

    def _fail(self, batch: Batch, error: Exception, connection: Connection | None = None) -> None:
        """A bug of ours was met over it."""
        try:
            self._settler.fail(batch, error, self._trace(connection))
        finally:
            self._give_back(batch)

    def _give_back(self, batch: Batch) -> None:
        """What it borrowed. A bug in that is not the mail's: its answer stands, and nobody sends it again."""
        self.borrowers.discard(batch)
        try:
            self._pool.contents.give_back(batch)
        except Exception as error:
            self._pool.bug(error)

    def _trace(self, connection: Connection | None, took: float = 0.0) -> Trace:
        lane = self._lane
        if connection is None:
            return Trace(lane.route, lane.source.name)
        return Trace(lane.route, lane.source.name, connection.tls, took, connection.note)
