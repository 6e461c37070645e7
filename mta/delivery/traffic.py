"""What flows over one branch now: the lanes that share it, their connections, and who waits for room.

Between: lanes ask before they dial and before each transaction, and tell how both ended;
    `core.limits.adaptive` decides; each change goes to `told` (for the event log), what was learned out by
    `saved` (for the spool).
Contract: one for each branch of the tree source -> provider -> site; a lane has its site's, with the
    provider's `above` it where sites share that one's limits. Lanes ask the lowest: all on the way are
    asked, and only then taken from. `dial` and `take` answer True or False; whoever was told False is
    kicked, in the order of service, when there is room or time. A refusal is charged to one of them. Times
    are monotonic seconds.
Raises: nothing.
Why: a provider sees one sender behind all lanes, so limits are shared, and lanes take turns; but what one of
    the provider's customers thinks of us is that customer's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from mta.clock import Clock, Timer
from mta.core.limits.adaptive import ASK_AGAIN, NO_CONNECTION, OURS, Branch, Change, Refusal, Saved, Suspended
from mta.core.limits.blame import Blame
from mta.core.limits.order import Share
from mta.core.limits.waiting import Waiting
from mta.core.model import Kind, Outcome, Reaction, Scope, Verdict, Wait

_DELIVERED = Kind.DELIVERED  # looked up once: by its enum's name it takes 150 ns
SLICE = 20  # transactions after which a connection gives way to a lane that waits for one
SUSPENDING = (Reaction.SUSPEND, Reaction.OTHER_SOURCE)
NARROW = (Scope.RECIPIENT, Scope.MESSAGE, Scope.TENANT)  # scopes that leave the rest of the branch alone
TELL_INTERVAL = 0.1  # seconds
SHORT = 60.0  # seconds that mail waits in memory for a branch; beyond that it waits on disk
SOONEST = 0.001  # seconds


class Waiter(Protocol):
    """What the traffic needs of a lane."""

    @property
    def share(self) -> Share:
        """The priority and the tenant of what goes next."""
        ...

    @property
    def lacks_host(self) -> bool:
        """Is one more connection wanted for another host, whatever the rate is?"""
        ...

    def kick(self) -> None: ...

    def spare(self) -> bool:
        """Give an idle connection up; False where there is none."""
        ...

    def put_off(self, until: Wait, tenant: str | None = None) -> None:
        """What waits, of one tenant or all, leaves memory; wall-clock time."""
        ...


class Traffic:
    """One branch, in use."""

    def __init__(
        self,
        name: str,
        place: str,
        provider: str,
        source: str,
        branch: Branch,
        above: Traffic | None,
        clock: Clock,
        told: Callable[[Traffic, Change], None],
        bug: Callable[[Exception], None],
    ) -> None:
        self.name = name
        self.place = place  # a site, or a provider
        self.provider = provider
        self.source = source
        self.branch = branch
        self.above = above
        self.way: tuple[Traffic, ...] = (self,) if above is None else (self, above)
        self.connections = 0  # being dialled, or open
        self.lanes: set[Waiter] = set()
        self.last: Change | None = None  # why it is as it is
        self.answering: set[Traffic] = set()  # the owner's: who was answered stands there, to be saved
        self._barred_until = 0.0  # monotonic; the peer wants none of this source, another one may do
        self._suspended_at = -math.inf  # monotonic; the last time
        self._delivered = 0  # recipients that the branch has not heard of
        self._transactions = 0  # theirs
        self._tell_at = 0.0  # monotonic
        self._clock = clock
        self._told = told
        self._bug = bug
        self._blame = Blame()
        self._suspended: dict[str, Suspended] = {}  # by tenant
        self._open: Counter[Waiter] = Counter()  # connections by lane
        self._for_rate: Waiting[Waiter] = Waiting()
        self._for_connection: Waiting[Waiter] = Waiting()
        self._turn: tuple[Waiting[Waiter], Waiter] | None = None  # whose it is, and for what
        self._has_got = False  # something, in this turn
        self._goes_on = False  # to wait, after it
        self._stops = False  # no place is free for it, nor perhaps for those behind it
        self._timer: Timer | None = None
        self._timer_at = math.inf  # monotonic
        self._kicking = False

    # Gates

    def shut(self, now: float, tenant: str) -> Wait | None:
        """Closed for so long that mail should not wait for it in memory; wall-clock time."""
        rest, reason = self._shut(tenant)
        if self.above is not None:
            rest, reason = max((rest, reason), self.above._shut(tenant))
        return Wait(now + rest, reason) if rest > SHORT else None

    def _shut(self, tenant: str) -> tuple[float, str]:
        """Seconds, and why."""
        monotonic = self._clock.monotonic()
        rest, reason = self.branch.until - monotonic, self.branch.reason
        if (suspended := self._suspended.get(tenant)) is not None:
            left = suspended.until - self._clock.now()
            if left <= 0:
                del self._suspended[tenant]
            elif left > rest:
                rest, reason = left, suspended.reason
        return rest, reason

    @property
    def barred_until(self) -> float:
        """Monotonic; until then the peer wants none of this source."""
        return max(node._barred_until for node in self.way)

    @property
    def messages_per_connection(self) -> int | None:
        """As the peer has shown."""
        if self.above is None:
            return self.branch.messages_per_connection
        known = [node.branch.messages_per_connection for node in self.way]
        return min((each for each in known if each is not None), default=None)

    @property
    def is_alone(self) -> bool:
        """Is there one connection only on the whole branch?"""
        return self.way[-1].connections == 1

    @property
    def holds(self) -> bool:
        """Is a tenant suspended because the peer has had enough of it? That must not be forgotten."""
        now = self._clock.now()
        return any(each.until > now for node in self.way for each in node._suspended.values())

    def suspend_tenant(self, tenant: str, wait: float, verdict: Verdict) -> None:
        """The peer has had enough of one tenant, and of nobody else."""
        node, now = self._charged(verdict), self._clock.now()
        known = node._suspended.get(tenant)
        if known is not None and known.until > now:
            return  # a burst of parallel refusals is one event
        reason = f"suspended: {verdict.rule}: tenant {tenant}"
        node._suspended[tenant] = Suspended(tenant, now + wait, reason)
        rate = node.branch.rate
        node._tell(Change("rate", rate, rate, reason, self._clock.monotonic() + wait))
        node._put_off(wait, reason, tenant)

    def _put_off(self, wait: float, reason: str, tenant: str | None = None) -> None:
        until = Wait(self._clock.now() + wait, reason)
        for lane in list(self.lanes):
            try:
                lane.put_off(until, tenant)
            except Exception as error:  # its own: the others leave memory all the same
                self._bug(error)

    def dial(self, lane: Waiter, is_chosen: bool = False) -> bool:
        """May the lane open one more connection? It is counted from then on.

        Who was chosen among all who wait for a place, of any branch, waits for no turn here.
        """
        now, lacks = self._clock.monotonic(), lane.lacks_host
        for node in self.way:
            if node._for_connection and not is_chosen and node._turn != (node._for_connection, lane):
                node._queue(node._for_connection, lane, now)
                node._make_room(lane)
                return False
            answer = node.branch.ask_dial(now, node.connections, is_first=lacks or not node._open[lane])
            if isinstance(answer, Wait):
                if answer.reason == NO_CONNECTION:
                    any(other.spare() for other in list(node._open) if other is not lane)
                node._wait(node._for_connection, lane, answer.until, now)
                return False
        for node in self.way:
            node.branch.dial(now, node.connections, is_first=lacks or not node._open[lane])
            node.connections += 1
            node._open[lane] += 1
            node._has_got = True
        return True

    def has_no_place(self, lane: Waiter) -> None:
        """No connection is free over all branches: the lane waits there; those behind it here, a second."""
        for node in self.way:
            node._stops |= node._turn == (node._for_connection, lane)

    @property
    def is_paced(self) -> bool:
        """May a transaction have to wait for its time?"""
        return not self.branch.is_free or self.above is not None

    def take(self, lane: Waiter, recipients: int) -> bool:
        """May a transaction begin?"""
        if self.branch.is_free and self.above is None:
            return True
        now = self._clock.monotonic()
        for node in self.way:
            if node._for_rate and node._turn != (node._for_rate, lane):
                node._queue(node._for_rate, lane, now)
                return False
            answer = node.branch.ask(now, recipients)
            if isinstance(answer, Wait):
                node._wait(node._for_rate, lane, answer.until, now)
                return False
        for node in self.way:
            node.branch.take(now, recipients)
            node._has_got = True
        return True

    def others_wait(self, lane: Waiter) -> bool:
        """Does another lane wait for a connection?"""
        for node in self.way:  # asked for each transaction: a generator would cost as much again
            row = node._for_connection
            if row and len(row) > (lane in row):
                return True
        return False

    # What became of it

    def opened(self) -> None:
        """A dial succeeded."""
        for node in self.way:
            node.branch.opened(node.connections)

    def closed(self, lane: Waiter) -> None:
        """A connection of the lane, or the attempt at one, is over."""
        for node in self.way:
            node.connections -= 1
            node._open[lane] -= 1
            if not node._open[lane]:
                del node._open[lane]
            node._kick()

    def ended(self, started: float, now: float, outcomes: Sequence[Outcome], carried: int) -> None:
        """A transaction was answered, or a connection broke under it; `carried` others before it."""
        first = outcomes[0]
        if first.kind is _DELIVERED and (len(outcomes) == 1 or outcomes.count(first) == len(outcomes)):
            for node in self.way:
                node._was_delivered(started, now, len(outcomes))
            return
        refused = [each for each in outcomes if _is_ours(each)]
        charged = self._charged(refused[0].verdict) if refused else None
        delivered = sum(each.kind is _DELIVERED for each in outcomes)
        for node in self.way:
            if node._delivered:
                node._tell_delivered(started, now)
            answered = len(outcomes) - (len(refused) if node is charged else 0)
            if answered:
                node._answered(now, started, answered, delivered)
        if charged is not None:
            charged._refused(refused[0], started, carried, len(refused))

    def dial_failed(self, started: float, outcome: Outcome) -> bool:
        """A peer did not let us in; True if a rule knows that as about us, and a branch answers it."""
        if outcome.verdict is None or not _is_ours(outcome):
            return False
        self._charged(outcome.verdict)._refused(outcome, started, None, 1)
        return is_refusal(outcome)

    def _charged(self, verdict: Verdict | None) -> Traffic:
        """Whose a refusal is."""
        above = self.above
        if above is None or not above._blame.climbs(self._clock.monotonic(), self.place, verdict):
            return self
        return above

    def _was_delivered(self, started: float, now: float, recipients: int) -> None:
        self._delivered += recipients
        self._transactions += 1
        # Where nothing holds mail back there is nothing to learn from each: many are told as one.
        if now >= self._tell_at or not self.branch.is_free:
            self._tell_at = now + TELL_INTERVAL
            self._tell_delivered(started, now)

    def _tell_delivered(self, started: float, now: float) -> None:
        many, self._delivered = self._delivered, 0
        transactions, self._transactions = self._transactions, 0
        self._answered(now, started, many, many, transactions)

    def _answered(
        self, now: float, started: float, recipients: int, delivered: int, transactions: int = 1
    ) -> None:
        until = self.branch.until
        self._tell(self.branch.answered(now, started, recipients, delivered, transactions))
        if self.branch.until < until:
            self.wake()  # it is open, before those who wait were told that it would be

    def _refused(self, outcome: Outcome, started: float, carried: int | None, recipients: int) -> None:
        now, verdict = self._clock.monotonic(), outcome.verdict
        if verdict is not None and verdict.reaction in SUSPENDING and verdict.wait is not None:
            if started <= self._suspended_at:
                return  # a burst of parallel refusals is one event, and costs the rate once
            self._suspended_at = now
            change = self.branch.suspend(now, now + verdict.wait, f"suspended: {verdict.rule}")
            if verdict.reaction is Reaction.OTHER_SOURCE:
                self._barred_until = self.branch.until
            self._tell(change)
        else:
            refusal = Refusal(
                outcome.subject,
                by_rule=verdict is not None and verdict.is_by_rule,
                started=started,
                open=self.connections - 1,
                carried=carried,
                recipients=recipients,
                again=verdict.wait if verdict is not None and verdict.stated else None,
            )
            self._tell(self.branch.refused(now, refusal))
        rest = self.branch.until - now
        if rest > SHORT:
            self._put_off(rest, self.branch.reason)

    def _tell(self, change: Change | None) -> None:
        self.answering.add(self)
        if change is not None:
            self.last = change
            self._told(self, change)

    # Kept, and shown

    def saved(self, now: float) -> Saved | None:
        """What to keep of it, now in wall-clock time; None where nothing is to be kept."""
        rest = self.branch.until - self._clock.monotonic()
        tenants = tuple(each for each in self._suspended.values() if each.until > now)
        saved = Saved(self.branch.snapshot(), now, tenants=tenants)
        if rest > SHORT:
            barred = self._barred_until >= self.branch.until
            return saved._replace(until=now + rest, reason=self.branch.reason, barred=barred)
        return saved if self.branch.has_learned or tenants else None

    def begin_with(self, known: Saved) -> None:
        """Begin with what was kept."""
        now, branch = self._clock.now(), self.branch
        now = max(now, known.at)  # else the clock was set back: what was saved is as of now
        branch.restore(known.learned, now - known.at)
        if known.until > now:
            monotonic = self._clock.monotonic()
            branch.shut(monotonic, monotonic + known.until - now, known.reason)
            self._barred_until = branch.until if known.barred else 0.0
        ahead = now - self._clock.now()
        self._suspended |= {each.tenant: each._replace(until=each.until - ahead) for each in known.tenants}

    @property
    def state(self) -> dict[str, Any]:
        """What holds mail back most, for the operator; rates are recipients a second, null is no limit."""
        node = min(
            self.way, key=lambda each: (-max(each._rest, 0.0), each.branch.rate, each.branch.connections)
        )
        branch, rest = node.branch, node._rest
        return {
            "connections": node.connections,
            "window": finite(branch.connections),
            "rate": finite(branch.rate),
            "messages_per_connection": self.messages_per_connection,
            "shut_for": max(round(rest, 1), 0.0),
            "reason": branch.reason if rest > 0 else node._since,
        }

    @property
    def _rest(self) -> float:
        """Seconds for which nothing goes."""
        return self.branch.until - self._clock.monotonic()

    @property
    def _since(self) -> str:
        if self.last is not None:
            return self.last.reason
        return "as it was learned before" if self.branch.has_learned else "as it began"

    # Who waits

    def enter(self, lane: Waiter) -> None:
        """A lane flows here from now on."""
        for node in self.way:
            node.lanes.add(lane)

    def leave(self, lane: Waiter) -> None:
        """A lane is no more."""
        for node in self.way:
            node.lanes.discard(lane)
            node._for_rate.discard(lane)
            node._for_connection.discard(lane)

    def _make_room(self, lane: Waiter) -> None:
        """Whoever has less urgent mail gives an idle connection up, or the lane would wait for a slice."""
        priority, _ = lane.share
        for other in list(self._open):
            if other is not lane and other.share[0] < priority and other.spare():
                return

    def wake(self) -> None:
        """Who waits is asked again now: there may be room sooner than was said."""
        if self._for_rate or self._for_connection:
            now = self._clock.monotonic()
            self._call_at(now, now)

    def _queue(self, row: Waiting[Waiter], lane: Waiter, now: float) -> None:
        """Others wait: it is not this one's turn."""
        row.add(lane, lane.share)
        if self._timer is None:
            self._call_at(now, now)

    def _wait(self, row: Waiting[Waiter], lane: Waiter, until: float, now: float) -> None:
        row.add(lane, lane.share)
        self._goes_on |= self._turn == (row, lane)
        self._call_at(until, now)

    def _call_at(self, until: float, now: float) -> None:
        """Kick then, if not before."""
        until = max(until, now + SOONEST)
        if until >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = until
        self._timer = self._clock.call_later(until - now, self._time_has_come)

    def _time_has_come(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self._kick()

    def _kick(self) -> None:
        """Lanes in the order of service, until one has to wait again.

        Whose turn has brought nothing yet goes first the next time, too: else what is large would always
        find that small ones have just taken what it waits for.
        """
        if self._kicking:
            return
        self._kicking = True
        for row in (self._for_rate, self._for_connection):
            while row:
                lane = row.head()
                self._turn = row, lane
                self._has_got = self._goes_on = self._stops = False
                try:
                    lane.kick()
                except Exception as error:
                    self._bug(error)
                self._turn = None
                if self._has_got or not self._goes_on:
                    row.served(lane, stays=self._goes_on)
                if self._stops and row:  # then the next one's turn: it may have a place
                    now = self._clock.monotonic()
                    self._call_at(now + ASK_AGAIN, now)
                if self._goes_on or self._stops:
                    break
        self._kicking = False


def finite(value: float) -> float | None:
    """A limit as JSON can say it."""
    return None if value == math.inf else float(f"{value:.4g}")


def _is_ours(outcome: Outcome) -> bool:
    """Is it about how we send, for all that goes this way?"""
    if outcome.kind is _DELIVERED or outcome.subject not in OURS:
        return False
    return outcome.verdict is None or outcome.verdict.scope not in NARROW


def is_refusal(outcome: Outcome) -> bool:
    """Were we refused, in words that a rule knows?"""
    return outcome.verdict is not None and outcome.verdict.is_by_rule and outcome.subject in OURS
