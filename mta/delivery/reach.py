"""Does one source get through to one site, and who else may where it does not.

Between: a lane tells of dials and lost connections, and asks before it dials or gives mail up.
Contract: a site where nobody takes mail is left alone for a time (`core.limits.throttle`); a source that
    cannot dial it, or seems to be the only one that gets no answer, is barred there: others are asked
    first. Times are wall-clock seconds where mail waits for them, else monotonic.
Raises: nothing.
Why: mail that one source cannot get rid of is another one's, at once; and what no source can is not asked
    for every second.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from mta.clock import Clock
from mta.core.limits.throttle import DeadSite
from mta.core.model import Go, Kind, Message, Outcome, Reaction, Scope, Subject, Wait
from mta.core.route.source import Source
from mta.delivery.traffic import Traffic, is_refusal

MEMORY = 3600.0  # seconds that a dead site is remembered after its time
BARRED = 1800.0  # seconds until a source that could not dial a site at all is tried there again
GOODBYES = 3  # connections in a row that are lost with mail under way: nobody is at home there


Lane = TypeVar("Lane")
Whose = TypeVar("Whose", contravariant=True)


class Others(Protocol[Whose]):
    """What the pool knows of this source, and of others, towards a lane's site."""

    def tell(self, lane: Whose, reason: str, until: float = 0.0) -> None: ...

    def bar(self, source: Source, reason: str) -> None: ...

    def barred_until(self, source: Source) -> float: ...

    def has_other(self, lane: Whose, message: Message) -> bool: ...

    def has_untried(self, lane: Whose, message: Message) -> bool: ...


class Reach(Generic[Lane]):
    """One source towards one site."""

    def __init__(
        self, lane: Lane, source: Source, others: Others[Lane], traffic: Traffic, clock: Clock
    ) -> None:
        self._lane = lane
        self._source = source
        self._others = others
        self._traffic = traffic
        self._clock = clock
        self._dead = DeadSite()
        self._losses = 0  # connections that were lost with mail under way, since mail was last answered
        self._barred_until = 0.0  # monotonic; the source cannot dial this site
        self.is_doubtful = False  # since mail was last answered something went wrong

    # Gates

    def ask(self) -> Go | Wait:
        """May somebody be dialled?"""
        return self._dead.ask(self._clock.now())

    @property
    def dead_for(self) -> float:
        """Seconds for which nobody is dialled, since nobody answered."""
        answer = self.ask()
        return answer.until - self._clock.now() if isinstance(answer, Wait) else 0.0

    @property
    def is_barred(self) -> bool:
        """Is this source, and perhaps no other one, of no use for this site now?"""
        return self.barred_for > 0

    @property
    def barred_for(self) -> float:
        """Seconds for which other sources are asked first."""
        until = max(self._barred_until, self._traffic.barred_until, self._others.barred_until(self._source))
        return max(until - self._clock.monotonic(), 0.0)

    @property
    def is_failing(self) -> bool:
        """Did nobody there take mail from this source, the last time?"""
        return self._dead.failures > 0

    @property
    def is_forgettable(self) -> bool:
        """Is nothing remembered against the site?"""
        return self._clock.now() > self._dead.until + MEMORY and not self.is_barred

    # What became of it

    def answered(self) -> None:
        """Mail was answered, after some that was not."""
        self.is_doubtful = False
        self._losses = 0
        if self._dead.failures:
            self._dead.answered()
            self._others.tell(self._lane, "mail is answered again")

    def lost(self) -> None:
        """A connection was lost with mail under way."""
        self.is_doubtful = True
        self._losses += 1

    def lost_again(self, outcome: Outcome) -> None:
        """Mail was lost on two connections. Who says why, or takes mail in between, is not dead."""
        if self._losses >= GOODBYES and not is_refusal(outcome):
            self._dead.failed(self._clock.now())
            self._tell_dead(outcome)

    def failed(self, outcome: Outcome, waiting: Message | None) -> None:
        """Nobody let us in, and there is no other connection."""
        self.is_doubtful = True
        self._dead.failed(self._clock.now())
        self._bar(outcome, waiting)
        self._tell_dead(outcome)

    def has_other(self, message: Message) -> bool:
        """Is our source of no use, and may another one be? That one has the mail at once."""
        return self.is_barred and self._others.has_other(self._lane, message)

    def elsewhere(self, message: Message, outcome: Outcome) -> Outcome:
        """Where another source may have it, mail is not given up, and does not wait for as long as ours."""
        verdict = outcome.verdict
        if verdict is None or verdict.reaction is not Reaction.OTHER_SOURCE:
            return outcome
        if not self._others.has_other(self._lane, message):
            return outcome
        verdict = verdict._replace(permanent=False, wait=None, retry="")
        return outcome._replace(kind=Kind.DEFERRED, verdict=verdict)

    # Inside

    def _tell_dead(self, outcome: Outcome) -> None:
        """Nobody there took mail: the site is left alone for a while."""
        if self._dead.failures == 1 and outcome.subject is not Subject.SOURCE:  # that is told of the source
            self._others.tell(self._lane, f"left alone: {outcome.reply.text}", self._dead.until)

    def _bar(self, outcome: Outcome, waiting: Message | None) -> None:
        wait = self.dead_for  # not less, or mail would come back and wait for the rest of it
        if outcome.subject is Subject.SOURCE and outcome.verdict is None:
            if outcome.scope is Scope.SOURCE:
                self._others.bar(self._source, outcome.reply.text)
            else:
                wait = BARRED
        elif outcome.subject is not Subject.NETWORK or not self._is_alone_in_failing(waiting):
            return
        self._barred_until = self._clock.monotonic() + wait

    def _is_alone_in_failing(self, waiting: Message | None) -> bool:
        """Once is weather. Nobody answered again, and from another source that is not known."""
        return (
            self._dead.failures > 1 and waiting is not None and self._others.has_untried(self._lane, waiting)
        )
