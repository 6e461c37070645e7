"""What flows over one path now: the lanes that share it, their connections, and who waits for room.

Between: lanes ask before they dial and before each transaction, and tell how both ended;
    `core.limits.adaptive` decides; each change goes to `told` (for the event log), what was learned out by
    `saved` (for the spool).
Contract: one for each (source, provider or site). `dial` and `take` answer True or False; whoever was
    told False is kicked, in turn, when there is room or time. Times are monotonic seconds.
Raises: nothing.
Why: a provider sees one sender behind all lanes, so the limits are the path's, and lanes take turns.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from mta.clock import Clock, Timer
from mta.core.limits.adaptive import NO_CONNECTION, OURS, Change, Path, Refusal, Saved
from mta.core.model import Go, Kind, Outcome, Reaction, Scope, Wait
from mta.core.route.routing import Route

SLICE = 20  # transactions after which a connection gives way to a lane that waits for one
SUSPENDING = (Reaction.SUSPEND, Reaction.OTHER_SOURCE)
NARROW = (Scope.RECIPIENT, Scope.MESSAGE, Scope.TENANT)  # scopes that leave the rest of the path alone
TELL_INTERVAL = 0.1  # seconds
SHORT = 60.0  # seconds that mail waits in memory for a path; beyond that it waits on disk


class Lane(Protocol):
    """What the traffic needs of a lane."""

    def kick(self) -> None: ...

    def spare(self) -> bool:
        """Give an idle connection up; False where there is none."""
        ...

    def put_off(self, until: Wait, tenant: str | None = None) -> None:
        """What waits, of one tenant or all, leaves memory; wall-clock time."""
        ...


class Traffic:
    """One path, in use."""

    def __init__(
        self,
        name: str,
        route: Route,
        source: str,
        path: Path,
        clock: Clock,
        told: Callable[[Traffic, Change], None],
        bug: Callable[[Exception], None],
    ) -> None:
        self.name = name
        self.site = route.path or route.site
        self.provider = route.provider
        self.source = source
        self.path = path
        self.connections = 0  # being dialled, or open
        self.lanes: set[Lane] = set()
        self.last: Change | None = None  # why it is as it is
        self.barred_until = 0.0  # monotonic; the peer wants none of this source, another one may do
        self.messages_per_connection = path.messages_per_connection  # as the peer has shown
        self._suspended_at = -math.inf  # monotonic; the last time
        self._delivered = 0  # recipients that the path has not heard of
        self._transactions = 0  # theirs
        self._tell_at = 0.0  # monotonic
        self._clock = clock
        self._told = told
        self._bug = bug
        self._held: dict[str, tuple[float, str]] = {}  # tenant -> not before, because
        self._open: Counter[Lane] = Counter()  # connections by lane
        self._waiting: dict[Lane, None] = {}  # in the order they came
        self._for_connection: set[Lane] = set()
        self._timer: Timer | None = None
        self._kicking = False

    # Gates

    def shut(self, now: float, tenant: str) -> Wait | None:
        """Closed for so long that mail should not wait for it in memory; wall-clock time."""
        monotonic = self._clock.monotonic()
        rest, reason = self.path.until - monotonic, self.path.reason
        if tenant in self._held:
            until, why = self._held[tenant]
            if until <= monotonic:
                del self._held[tenant]
            elif until - monotonic > rest:
                rest, reason = until - monotonic, why
        return Wait(now + rest, reason) if rest > SHORT else None

    @property
    def holds(self) -> bool:
        """Does a tenant wait because the peer has had enough of it? That must not be forgotten."""
        now = self._clock.monotonic()
        return any(until > now for until, _ in self._held.values())

    def hold(self, tenant: str, wait: float, reason: str) -> None:
        """The peer has had enough of one tenant, and of nobody else."""
        self._held[tenant] = (self._clock.monotonic() + wait, reason)
        self._put_off(wait, reason, tenant)

    def _put_off(self, wait: float, reason: str, tenant: str | None = None) -> None:
        until = Wait(self._clock.now() + wait, reason)
        for lane in list(self.lanes):
            try:
                lane.put_off(until, tenant)
            except Exception as error:  # its own: the others leave memory all the same
                self._bug(error)

    def dial(self, lane: Lane) -> bool:
        """May the lane open one more connection? It is counted from then on."""
        now = self._clock.monotonic()
        answer = self.path.dial(now, self.connections)
        if isinstance(answer, Go):
            self.connections += 1
            self._open[lane] += 1
            return True
        if answer.reason == NO_CONNECTION:
            self._for_connection.add(lane)
            any(other.spare() for other in list(self._open) if other is not lane)
        self._wait(lane, answer, now)
        return False

    def take(self, lane: Lane, recipients: int) -> bool:
        """May a transaction begin?"""
        if self.path.is_free:
            return True
        now = self._clock.monotonic()
        answer = self.path.take(now, recipients)
        if isinstance(answer, Go):
            return True
        self._wait(lane, answer, now)
        return False

    def others_wait(self, lane: Lane) -> bool:
        """Does another lane wait for a connection?"""
        return bool(self._for_connection - {lane}) if self._for_connection else False

    # What became of it

    def opened(self) -> None:
        """A dial succeeded."""
        self.path.opened(self.connections)

    def closed(self, lane: Lane) -> None:
        """A connection of the lane, or the attempt at one, is over."""
        self.connections -= 1
        self._open[lane] -= 1
        if not self._open[lane]:
            del self._open[lane]
        self._kick()

    def ended(self, started: float, now: float, outcomes: Sequence[Outcome], carried: int) -> None:
        """A transaction was answered, or a connection broke under it; `carried` others before it."""
        first = outcomes[0]
        if first.kind is Kind.DELIVERED and (len(outcomes) == 1 or outcomes.count(first) == len(outcomes)):
            self._delivered += len(outcomes)
            self._transactions += 1
            # Where nothing holds mail back there is nothing to learn from each: many are told as one.
            if now >= self._tell_at or not self.path.is_free:
                self._tell_at = now + TELL_INTERVAL
                self._tell_delivered(started, now)
            return
        if self._delivered:
            self._tell_delivered(started, now)
        refused = [each for each in outcomes if _is_ours(each)]
        if len(refused) < len(outcomes):
            delivered = sum(each.kind is Kind.DELIVERED for each in outcomes)
            self._tell(self.path.answered(now, started, len(outcomes) - len(refused), delivered))
        if refused:
            self._refused(refused[0], started, carried, len(refused))

    def dial_failed(self, started: float, outcome: Outcome) -> bool:
        """A peer did not let us in; True if a rule knows that as about us, and the path answers it."""
        if outcome.verdict is None or not _is_ours(outcome):
            return False
        self._refused(outcome, started, None, 1)
        return is_refusal(outcome)

    def _tell_delivered(self, started: float, now: float) -> None:
        many, self._delivered = self._delivered, 0
        transactions, self._transactions = self._transactions, 0
        self._tell(self.path.answered(now, started, many, many, transactions))
        self.messages_per_connection = self.path.messages_per_connection

    def _refused(self, outcome: Outcome, started: float, carried: int | None, recipients: int) -> None:
        now, verdict = self._clock.monotonic(), outcome.verdict
        if verdict is not None and verdict.reaction in SUSPENDING and verdict.wait is not None:
            if started <= self._suspended_at:
                return  # a burst of parallel refusals is one event, and costs the rate once
            self._suspended_at = now
            change = self.path.suspend(now, now + verdict.wait, f"suspended: {verdict.rule}")
            if verdict.reaction is Reaction.OTHER_SOURCE:
                self.barred_until = self.path.until
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
            self._tell(self.path.refused(now, refusal))
        self.messages_per_connection = self.path.messages_per_connection
        rest = self.path.until - now
        if rest > SHORT:
            self._put_off(rest, self.path.reason)

    def _tell(self, change: Change | None) -> None:
        if change is not None:
            self.last = change
            self._told(self, change)

    def saved(self, now: float) -> Saved | None:
        """What to keep of it, now in wall-clock time; None where nothing is to be kept."""
        rest = self.path.until - self._clock.monotonic()
        if rest > SHORT:
            barred = self.barred_until >= self.path.until
            return Saved(self.path.snapshot(), now, now + rest, self.path.reason, barred)
        return Saved(self.path.snapshot(), now) if self.path.has_learned else None

    @property
    def state(self) -> dict[str, Any]:
        """What it does now, for the operator; rates are recipients a second, null is no limit."""
        wait = self.path.until - self._clock.monotonic()
        return {
            "connections": self.connections,
            "window": finite(self.path.connections),
            "rate": finite(self.path.rate),
            "messages_per_connection": self.path.messages_per_connection,
            "shut_for": max(round(wait, 1), 0.0),
            "reason": self.path.reason if wait > 0 else self._since,
        }

    @property
    def _since(self) -> str:
        if self.last is not None:
            return self.last.reason
        return "as it was learned before" if self.path.has_learned else "as it began"

    # Who waits

    def leave(self, lane: Lane) -> None:
        self.lanes.discard(lane)
        self._waiting.pop(lane, None)
        self._for_connection.discard(lane)

    def _wait(self, lane: Lane, until: Wait, now: float) -> None:
        self._waiting[lane] = None
        if self._timer is None:
            self._timer = self._clock.call_later(max(until.until - now, 0.001), self._time_has_come)

    def _time_has_come(self) -> None:
        self._timer = None
        self._kick()

    def _kick(self) -> None:
        """Lanes in turn, until one has to wait again."""
        if self._kicking:
            return
        self._kicking = True
        while self._waiting:
            lane = next(iter(self._waiting))
            del self._waiting[lane]
            self._for_connection.discard(lane)
            try:
                lane.kick()
            except Exception as error:
                self._bug(error)
            if lane in self._waiting:
                break
        self._kicking = False


def finite(value: float) -> float | None:
    """A limit as JSON can say it."""
    return None if value == math.inf else float(f"{value:.4g}")


def _is_ours(outcome: Outcome) -> bool:
    """Is it about how we send, over this path as a whole?"""
    if outcome.kind is Kind.DELIVERED or outcome.subject not in OURS:
        return False
    return outcome.verdict is None or outcome.verdict.scope not in NARROW


def is_refusal(outcome: Outcome) -> bool:
    """Were we refused, in words that a rule knows?"""
    return outcome.verdict is not None and outcome.verdict.is_by_rule and outcome.subject in OURS
