"""The checks in their order, and what is told of them.

Between: admission asks about a message, outcomes about what was delivered, `mta explain` about a domain.
Contract: `accept` asks all that are not off about a message that comes in, and answers with the one that
    forbids it: of those that do not say Go the first in mode `enforce`. The modes are those of the policy:
    the stream's, else the guard's, else `core.check.usual`. Of each check, credential and domain the first
    objection of an hour is an event, the rest are one with their count at the end of the hour and of the
    daemon (`core.limits.hourly`); all are counted. `look` asks without telling.
Raises: nothing; a check that meets a bug of ours says Go, and the bug is counted.
Why: to ask all of them costs 20,000 instructions. Of mail from a domain that nobody has added most answers
    are the same for an hour, and kept (`Steady`): those are counted only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from mta.clock import Clock, Every
from mta.config.policy import Current, Policy
from mta.core.check import (
    Answer,
    At,
    Check,
    CheckFinding,
    CheckMode,
    CheckName,
    Mail,
    Objected,
    Refuse,
    usual,
)
from mta.core.credential import Credential
from mta.core.domain import SendingDomain
from mta.core.event import MAX_REASON, Event, Type, rfc3339
from mta.core.limits.hourly import MOST, Hourly, Objection
from mta.core.mail.header import Header
from mta.core.mail.text import fit
from mta.core.model import Go
from mta.metrics import Count, Metrics
from mta.signing.plans import Plans, SigningPlan
from mta.spool.queue import Spool

HOUR = 3600.0  # seconds
NOBODY: tuple[str, ...] = ()  # signs


class Asked(NamedTuple):
    """A check, and the mode in which it is asked."""

    check: Check
    mode: CheckMode
    counter: Count


class Steady(NamedTuple):
    """What needs not be asked again of mail with the same author and sender, in this hour."""

    objections: list[tuple[Objection, Count]]
    asked: list[Asked]  # what has to be


class Checks:
    """All of them."""

    def __init__(
        self,
        checks: Sequence[Check],
        plans: Plans,
        current: Current,
        spool: Spool,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._checks = checks
        self._plans = plans
        self._current = current
        self._spool = spool
        self._clock = clock
        self._metrics = metrics
        self._told = Hourly()
        self._counts: Mapping[CheckMode, Mapping[CheckName, Count]] = {
            "warn": metrics.check_warnings,
            "enforce": metrics.check_refusals,
        }
        self._asked: dict[tuple[At, str, bool], list[Asked]] = {}
        self._steady: dict[tuple[str, str, str, str, bool, tuple[str, ...]], Steady] = {}
        bug = partial(metrics.bug, "guard", "a bug in what is told of checks")
        self._rests = Every(clock, HOUR, self.tell_rest, bug)

    def start(self) -> None:
        self._rests.start()

    def stop(self) -> None:
        """What was not told is told now."""
        self._rests.stop()
        self.tell_rest()

    def adopted(self, old: Policy, new: Policy) -> None:
        """Other modes may hold."""
        self._asked.clear()
        self._steady.clear()

    def find(self, author: str) -> SendingDomain | None:
        """The sending domain that was added for mail with this domain in From."""
        plan = self.plan(author)
        return None if plan is None else plan.own

    def plan(self, author: str) -> SigningPlan | None:
        """Who signs it."""
        return self._plans.of((author,)) if author else None

    def asks(self, at: At, stream: str, is_ours: bool) -> list[Asked]:
        """Which ones, in which mode: those that are not off."""
        found = self._asked.get((at, stream, is_ours))
        if found is None:
            found = self._asked[at, stream, is_ours] = [
                Asked(each, mode, self._counts[mode][each.name])
                for each in self._checks
                if each.at is at and (mode := self._mode(each.name, stream, is_ours)) != "off"
            ]
        return found

    def look(self, at: At, mail: Mail) -> list[CheckFinding]:
        """What is not Go; nobody is told."""
        now = self._clock.now()
        asked = self.asks(at, mail.stream, mail.domain is not None)
        answers = [(each, self._answer(each.check, mail, now)) for each in asked]
        return [
            CheckFinding(each.check.name, each.mode, answer)
            for each, answer in answers
            if not isinstance(answer, Go)
        ]

    def accept(
        self,
        credential: Credential,
        stream: str,
        author: str,
        sender: str,
        header: Header,
        plan: SigningPlan | None,
    ) -> CheckFinding | None:
        """What forbids a message that comes in; it is told of, and so is what does not."""
        login, ours, signers = credential.login, None, NOBODY
        if plan is not None:
            ours, signers = plan.own, plan.names
        key = login, stream, author, sender, header.is_list, signers
        steady = self._steady.get(key) if ours is None else None
        if steady is not None:  # nearly all mail of domains that nobody has added
            for objection, counter in steady.objections:
                objection.more += 1
                counter.value += 1
            if not steady.asked:
                return None
        asked = self.asks(At.ACCEPT, stream, ours is not None) if steady is None else steady.asked
        if not asked:
            return None
        mail = Mail(author, sender, stream, credential.tenant, login, ours, header, signers)
        if steady is not None:
            return self._ask(asked, mail, None)
        steady = Steady([], [])
        wins = self._ask(asked, mail, steady)
        if ours is None and wins is None:
            if len(self._steady) >= MOST:
                self._steady.clear()
            self._steady[key] = steady
        return wins

    def _ask(self, asked: list[Asked], mail: Mail, steady: Steady | None) -> CheckFinding | None:
        """The one that forbids it; what is steady is noted there."""
        wins = None
        now = self._clock.now()
        for each in asked:
            check, mode, counter = each
            answer = self._answer(check, mail, now)
            is_kept = steady is not None and check.is_steady(mail)
            if steady is not None and not is_kept:
                steady.asked.append(each)
            if isinstance(answer, Go):
                continue
            counter.inc()
            whose = mail.author or (mail.domain.name if mail.domain is not None else "")
            objection = self._told.met(check.name, mail.credential, whose)
            if not objection.more:
                event = self._event(check.name, mode, answer, mail)
                event.credential, event.domain = objection.credential, objection.domain
                self._spool.report([event])
            if steady is not None and is_kept:
                steady.objections.append((objection, counter))
            if mode == "enforce" and wins is None:
                wins = CheckFinding(check.name, mode, answer)
        return wins

    def near(self, mail: Mail, answer: Refuse) -> bool:
        """A domain is near to be a bulk sender: told where its stream is not silent about that."""
        for check, mode, counter in self.asks(At.ATTEMPT, mail.stream, self.find(mail.author) is not None):
            if check.name == "proximity":
                counter.inc()
                self._spool.report([self._event(check.name, mode, answer, mail)])
                return True
        return False

    def _answer(self, check: Check, mail: Mail, now: float) -> Answer:
        try:
            return check.ask(mail, now)
        except Exception as error:
            self._metrics.bug("guard", f"the check {check.name} met an error of ours", error)
            return Go()

    def tell_rest(self) -> None:
        """How many more there were of what was told."""
        time = rfc3339(self._clock.now())
        self._steady.clear()
        rest = [
            Event(
                time=time, type=Type.CHECK, check=each.check, credential=each.credential, domain=each.domain,
                reason="more of the same in the last hour", untold=each.more,
            )
            for each in self._told.rest()
        ]  # fmt: skip
        if rest:
            self._spool.report(rest)

    def _mode(self, check: CheckName, stream: str, is_ours: bool) -> CheckMode:
        settings = self._current.policy.settings
        said = settings.streams[stream].checks.get(check) if stream in settings.streams else None
        return said or settings.guard.checks.get(check) or usual(check, stream, is_ours)

    def _event(self, check: CheckName, mode: CheckMode, answer: Objected, mail: Mail) -> Event:
        return Event(
            time=rfc3339(self._clock.now()), type=Type.CHECK, check=check, mode=mode,
            credential=mail.credential, tenant=mail.tenant, stream=mail.stream, domain=mail.author,
            provider=mail.provider, reason=fit(answer.reason, MAX_REASON),
        )  # fmt: skip
