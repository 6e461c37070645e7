"""What an outcome means for a recipient: state, next attempt, event, notice. All in one commit.

Between: lanes and the scheduler hand in outcomes; the spool commits; the backlog hears of due times.
Contract: `settle` takes one outcome for each recipient of the batch, `postpone` gives an attempt back.
    Neither waits: the commit follows, within what `Spool.has_room` allows to be unsettled. Neither raises:
    a bug of ours is counted, costs one recipient one attempt, and keeps nothing that was delivered, or whose
    time is over, in the queue. Whoever meets one over a batch that he has taken hands it to `fail`.
Raises: nothing.
Standards: RFC 5321 4.5.4.1 (retries), 6.1 (notices; never to a null sender), RFC 3464 (their form).
Why: recording after the peer's answer and before anything else sees it keeps the window in which a
    crash sends twice to one batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from mta.clock import Clock
from mta.config.policy import Current
from mta.core.answers.classify import OUR_FAULT
from mta.core.event import Event, ReplyField, Type, about, rfc3339
from mta.core.mail import dsn
from mta.core.mail.message import header_block
from mta.core.mail.text import fit
from mta.core.model import Batch, Kind, Line, Message, Option, Outcome, Recipient, Reply, Verdict
from mta.core.queue.last import EXPIRED, expired, read, was_ambiguous, written
from mta.core.queue.lifecycle import FINAL, Cause, State, move
from mta.core.queueid import created, text
from mta.core.route.routing import Route
from mta.metrics import Metrics
from mta.spool.commit import Unwritable, Update
from mta.spool.queue import Spool

# What every delivery asks for is looked up once: in Python 3.11 a member by its enum's name takes 150 ns.
_DELIVERED, _FRESH, _DEFERRED, _GONE = Kind.DELIVERED, State.FRESH, State.DEFERRED, State.DELIVERED
_TYPES = {
    Kind.DELIVERED: Type.DELIVERY,
    Kind.DEFERRED: Type.DEFERRAL,
    Kind.BOUNCED: Type.BOUNCE,
    Kind.EXPIRED: Type.EXPIRATION,
    Kind.AMBIGUOUS: Type.AMBIGUOUS,
}
_UNQUOTED = Reply(554, "5.0.0", "The reason cannot be shown")
NOTICE_LIFETIME = 5 * 86400.0  # seconds; a notice is worth as long a try as any mail

MAX_SAID = 2000  # characters of a peer's reply in the log
OF_STREAM = ("", "connection", "unknown")  # retry classes that know nothing better than the stream's schedule

log = logging.getLogger(__name__)


class Trace(msgspec.Struct, frozen=True):
    """How an attempt was made, for its events."""

    route: Route | None = None
    source: str = ""
    tls: str = ""
    duration: float = 0.0  # seconds
    note: str = ""  # what else is to be known of the connection


NOWHERE = Trace()


class _Result(NamedTuple):
    """What becomes of one recipient."""

    outcome: Outcome
    state: State
    due: float | None  # None: it is final
    event: Event | None  # None: not even a plain one can be made


class Settler:
    """The only mover of states while the daemon runs."""

    def __init__(
        self,
        spool: Spool,
        current: Current,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._spool = spool
        self._current = current
        self._clock = clock
        self._metrics = metrics
        self.on_due: Callable[[Line, float], None] = lambda line, due: None
        self.on_released: Callable[[Message, Recipient], None] = lambda message, recipient: None
        self.on_notice: Callable[[Message], None] = lambda message: None
        self.on_delivered: Callable[[Batch, str, int], None] = lambda batch, provider, many: None
        self.clock_moved: Callable[[], bool] = lambda: False  # and the spool does not know it yet

    def settle(
        self, batch: Batch, outcomes: Sequence[Outcome], trace: Trace, sooner: float | None = None
    ) -> None:
        """Note what became of every recipient of a batch. On disk what is deferred is due at `sooner`, where
        somebody tells that what keeps it back is over, and has its line parked."""
        message = batch.message
        now = self._clock.now()
        done: list[Recipient] = []
        updates: list[Update] = []
        events: list[Event] = []
        failed: list[tuple[Recipient, Outcome]] = []  # whom a notice is due for
        if len(outcomes) != len(batch.recipients):
            self._metrics.bug("outbound", "as many outcomes as recipients", ValueError(len(outcomes)))
            outcomes = [OUR_FAULT] * len(batch.recipients)
        for recipient, outcome in zip(batch.recipients, outcomes, strict=True):
            due = last = None
            cause: Kind | Cause = outcome.kind
            kind = outcome.kind
            try:
                if kind is not _DELIVERED:
                    outcome, due = self._next(message, recipient, outcome, now, trace.route)
                    kind = outcome.kind
                    cause = Cause.DOUBT if kind is Kind.AMBIGUOUS and due is None else kind
                    last = None if due is None else written(outcome, trace.tls, now)
                    _log(message, recipient, outcome, due)
                state = move(_FRESH if message.fresh else _DEFERRED, cause)
                event: Event | None = self._event(message, recipient, outcome, due, now, trace)
                self._metrics.outcomes[kind].inc()
                if kind is _DELIVERED:
                    self._metrics.delivery_seconds.observe(now - created(message.id))
            except Exception as error:
                outcome, state, due, event = self._despite(error, message, recipient, outcome, now)
            if event is not None:
                events.append(event)
            if state in FINAL:
                done.append(recipient)
                if state is not _GONE:
                    failed.append((recipient, outcome))
            else:
                assert due is not None
                at = due if sooner is None else min(sooner, due)
                updates.append(Update(state, recipient.attempts, at, message.id, recipient.n, last))
                self._tell_due(message, recipient, due)
        self._spool.settle(message, done, updates, events)
        if failed:
            self._tell_sender(batch, failed, now)
        if trace.route is not None and trace.route.provider and len(done) > len(failed):
            self._tell_delivered(batch, trace.route.provider, len(done) - len(failed))
        self._let_go(batch)

    def tell_again(self, batch: Batch, outcome: Outcome, trace: Trace) -> None:
        """It took its time and came to nothing, and is made again at once: no attempt, but an event."""
        now = self._clock.now()
        for recipient in batch.recipients:
            _log(batch.message, recipient, outcome, now)
        self._spool.report(
            [self._event(batch.message, each, outcome, now, now, trace) for each in batch.recipients]
        )

    def expire(self, batch: Batch, trace: Trace) -> None:
        """Its time is over without another attempt: each recipient goes with what became of the last one."""
        self.settle(batch, [expired(recipient.last) for recipient in batch.recipients], trace)

    def postpone(self, batch: Batch, until: float) -> None:
        """A gate of ours said later: the attempt is given back, and the mail waits on disk."""
        message = batch.message
        state = move(State.FRESH if message.fresh else State.DEFERRED, Cause.POSTPONE)
        updates = []
        for recipient in batch.recipients:
            due = min(until, message.expires)
            updates.append(Update(state, recipient.attempts - 1, due, message.id, recipient.n))
            self._tell_due(message, recipient, due)
        self._spool.settle(message, [], updates, [])
        self._let_go(batch)

    def fail(self, batch: Batch, error: Exception, trace: Trace = NOWHERE) -> None:
        """A bug of ours was met over a batch: it is counted, and the batch tried again after a wait."""
        self._metrics.bug("outbound", f"{text(batch.message.id)} met an error of ours", error)
        self.settle(batch, [OUR_FAULT] * len(batch.recipients), trace)

    def each(self, batches: Iterable[Batch], leave: Callable[[Batch], object]) -> None:
        """Let batches that were taken out leave: what is raised over one must not keep the others."""
        for batch in batches:
            try:
                try:
                    leave(batch)
                except Exception as error:
                    self.fail(batch, error)
            except Exception as error:  # nobody has it now, and it is found
                self._metrics.bug("outbound", f"nobody has {text(batch.message.id)} any more", error)

    def is_over(self, message: Message) -> bool:
        """Is its time over, on a clock that can be believed?"""
        return message.expires <= self._clock.now() and not self.clock_moved()

    def _despite(
        self, error: Exception, message: Message, recipient: Recipient, outcome: Outcome, now: float
    ) -> _Result:
        """What becomes of a recipient after a bug over its outcome; nothing here may meet it once more."""
        self._metrics.bug("outbound", f"an outcome of {text(message.id)} met an error of ours", error)
        due = None
        if outcome.kind is Kind.DELIVERED:
            state = State.DELIVERED
        elif self.is_over(message):
            outcome, state = EXPIRED, State.EXPIRED
        else:
            outcome, state = OUR_FAULT, State.DEFERRED
            due = self.plain_due(message, recipient, now)
        try:
            event = about(_TYPES[outcome.kind], message, recipient, now)
            event.attempt = recipient.attempts
            event.reply = ReplyField(outcome.reply.code, outcome.reply.enhanced, outcome.reply.text)
            event.due = "" if due is None else rfc3339(due)
        except Exception as another:
            self._metrics.bug("outbound", f"{text(message.id)} has an outcome without an event", another)
            return _Result(outcome, state, due, None)
        return _Result(outcome, state, due, event)

    def plain_due(self, message: Message, recipient: Recipient, now: float) -> float:
        """When its next attempt is due by its stream alone, without a question that could meet a bug."""
        schedule = self._current.policy.schedule(message.stream)
        wait = min(schedule.first * 2.0 ** min(max(recipient.attempts - 1, 0), 30), schedule.maximum)
        return now + wait if self.clock_moved() else min(now + wait, message.expires)

    def _tell_due(self, message: Message, recipient: Recipient, due: float) -> None:
        try:
            self.on_due(message.line(recipient), due)
        except Exception as error:
            self._metrics.bug("outbound", f"nobody heard when {text(message.id)} is due", error)

    def _tell_delivered(self, batch: Batch, provider: str, many: int) -> None:
        try:
            self.on_delivered(batch, provider, many)
        except Exception as error:
            self._metrics.bug("outbound", f"nobody counted {text(batch.message.id)}", error)

    def _next(
        self, message: Message, recipient: Recipient, outcome: Outcome, now: float, route: Route | None
    ) -> tuple[Outcome, float | None]:
        """When a recipient that was not delivered is tried again, if it is."""
        if outcome.kind is Kind.BOUNCED or outcome.kind is Kind.EXPIRED:
            return outcome, None
        if outcome.kind is Kind.AMBIGUOUS and was_ambiguous(recipient.last):
            return outcome, None  # whoever never says that he took it may have it ten times
        due = self.next_due(message, recipient, now, route, outcome.verdict)
        if due is None and self.clock_moved():
            due = self.plain_due(message, recipient, now)
        if due is None:
            return (outcome if outcome.kind is Kind.AMBIGUOUS else outcome._replace(kind=Kind.EXPIRED)), None
        return outcome, due

    def next_due(
        self,
        message: Message,
        recipient: Recipient,
        now: float,
        route: Route | None,
        verdict: Verdict | None = None,
    ) -> float | None:
        """When the attempt after this one is due; None if this is the last."""
        policy = self._current.policy
        schedule = policy.schedule(message.stream)
        if route is not None:
            schedule = schedule.at_least(route.retry)
        wait = None
        if verdict is not None and (verdict.wait is not None or verdict.retry not in OF_STREAM):
            wait = policy.rules.wait(verdict, recipient.attempts)
            if route is not None and not verdict.stated:
                wait = max(wait, route.retry.first)
        lifetime = message.expires - created(message.id)
        return schedule.due(recipient.attempts, now, message.expires, self._clock.dice(), wait, lifetime)

    def _event(
        self, message: Message, recipient: Recipient, outcome: Outcome, due: float | None, now: float,
        trace: Trace,
    ) -> Event:  # fmt: skip
        reply = outcome.reply
        event = about(_TYPES[outcome.kind], message, recipient, now)
        if trace.route is not None:
            event.site = trace.route.site
            event.provider = trace.route.provider
        event.source = trace.source
        event.host = outcome.host
        event.attempt = recipient.attempts
        event.reply = ReplyField(reply.code, reply.enhanced, reply.text, outcome.command)
        event.tls = trace.tls
        event.duration_ms = int(trace.duration * 1000)
        if trace.note:
            event.reason = trace.note
        if outcome.verdict is not None:
            event.rule = outcome.verdict.rule
        if outcome.kind is not _DELIVERED:
            event.subject = outcome.subject.value
            event.permanent = due is None
            if due is not None:
                event.due = rfc3339(due)
            elif outcome.kind is Kind.EXPIRED and not trace.tls:
                last = read(recipient.last)
                event.tls = "" if last is None else last.tls
        return event

    def _tell_sender(self, batch: Batch, failed: list[tuple[Recipient, Outcome]], now: float) -> None:
        """A notice that cannot be made keeps no message in the queue; perhaps it can without quotations."""
        message, content = batch.message, batch.message.content
        try:
            head = batch.head if content is None else header_block(content[: dsn.MAX_RETURNED])
            self._notify(message, failed, head, now)
        except Exception as error:
            self._metrics.bug("outbound", f"the notice of {text(message.id)} cannot be made", error)
            try:
                plain = [(each, outcome._replace(reply=_UNQUOTED, host="")) for each, outcome in failed]
                self._notify(message, plain, b"", now)
            except Exception as another:
                self._metrics.bug("outbound", f"the sender of {text(message.id)} is not told", another)

    def _notify(
        self, message: Message, failed: list[tuple[Recipient, Outcome]], head: bytes, now: float
    ) -> None:
        """Tell the sender, in the same commit."""
        if not is_told(message):
            return
        queue_id = self._spool.mint()
        notice = dsn.failure_notice(
            message,
            failed,
            head=head,
            notice_id=queue_id,
            hostname=self._current.policy.settings.hostname,
            now=now,
            expires=now + NOTICE_LIFETIME,
        )
        self._put(notice, about(Type.RECEPTION, notice, notice.recipients[0], now))

    def _put(self, notice: Message, reception: Event) -> None:
        def done(error: Exception | None) -> None:
            if error is None:
                self.on_notice(notice)
            elif not isinstance(error, Unwritable):
                self._put(notice, reception)  # with the outcomes that it tells of, which are kept too

        self._spool.put(notice, [reception], done)

    def _let_go(self, batch: Batch) -> None:
        """The batch leaves memory."""
        message = batch.message
        for recipient in batch.recipients:
            try:
                self.on_released(message, recipient)
            except Exception as error:
                self._metrics.bug("outbound", f"nobody heard that {text(message.id)} was let go", error)
        message.on_the_way -= len(batch.recipients)
        if message.on_the_way <= 0:
            self._spool.release(message)


def is_told(message: Message) -> bool:
    """Does the sender want to hear of failures?"""
    return bool(message.sender and message.options & Option.NOTIFY)


def _log(message: Message, recipient: Recipient, outcome: Outcome, due: float | None) -> None:
    """For the operator's eye; the event has the rest. What goes well is not logged."""
    until = f", again at {rfc3339(due)}" if due is not None else ""
    where = f" by {outcome.host}" if outcome.host else ""
    shown = text(message.id)
    said = fit(" ".join(str(outcome.reply).split()), MAX_SAID)  # a peer may not write our lines
    address = fit(recipient.address, MAX_SAID)
    log.info("%s <%s> %s%s%s: %s", shown, address, outcome.kind.value, where, until, said)
