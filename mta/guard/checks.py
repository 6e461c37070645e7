"""The checks in their order, and what is told of them.

Between: admission asks about a message, outcomes about what was delivered, `mta explain` about a domain.
Contract: `ask` answers with what is not Go, each with the mode in which it was asked; the first in mode
    `enforce` wins (`core.check.deciding`). The modes are those of the policy: the stream's, else the
    guard's, else `core.check.usual`. Of each check, credential and domain the first objection of an hour is
    an event, the rest are one with their count at the end of the hour and of the daemon
    (`core.limits.hourly`); all are counted. `look` asks without telling.
Raises: nothing; a check that meets a bug of ours says Go, and the bug is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from mta.clock import Clock, Every
from mta.config.policy import Current, Policy
from mta.core.check import At, Check, CheckFinding, CheckMode, CheckName, Mail, OurDomain, Refuse, usual
from mta.core.event import MAX_REASON, Event, Type, rfc3339
from mta.core.limits.hourly import Hourly
from mta.core.mail.text import fit
from mta.core.model import Go
from mta.metrics import Metrics
from mta.spool.queue import Spool

HOUR = 3600.0  # seconds

Find = Callable[[str], OurDomain | None]  # by the domain in From


class Checks:
    """All of them."""

    def __init__(
        self,
        checks: Sequence[Check],
        find: Find,
        current: Current,
        spool: Spool,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._checks = checks
        self.domain_of = find
        self._current = current
        self._spool = spool
        self._clock = clock
        self._metrics = metrics
        self._told = Hourly()
        self._policy: Policy | None = None  # that `_asked` is made from
        self._asked: dict[tuple[At, str, bool], list[tuple[Check, CheckMode]]] = {}
        bug = partial(metrics.bug, "guard", "a bug in what is told of checks")
        self._rests = Every(clock, HOUR, self.tell_rest, bug)

    def start(self) -> None:
        self._rests.start()

    def stop(self) -> None:
        """What was not told is told now."""
        self._rests.stop()
        self.tell_rest()

    def find(self, author: str) -> OurDomain | None:
        """The sending domain of ours that signs mail with this domain in From."""
        return self.domain_of(author) if author else None

    def asks(self, at: At, stream: str, is_ours: bool) -> list[tuple[Check, CheckMode]]:
        """Which ones, in which mode: those that are not off."""
        policy = self._current.policy
        if policy is not self._policy:
            self._policy, self._asked = policy, {}
        found = self._asked.get((at, stream, is_ours))
        if found is None:
            modes = [(each, self._mode(policy, each.name, stream, is_ours)) for each in self._checks]
            found = [(each, mode) for each, mode in modes if each.at is at and mode != "off"]
            self._asked[at, stream, is_ours] = found
        return found

    def look(self, at: At, mail: Mail) -> list[CheckFinding]:
        """What is not Go."""
        findings = []
        now = self._clock.now()
        for check, mode in self.asks(at, mail.stream, mail.domain is not None):
            try:
                answer = check.ask(mail, now)
            except Exception as error:
                self._metrics.bug("guard", f"the check {check.name} met an error of ours", error)
                continue
            if not isinstance(answer, Go):
                findings.append(CheckFinding(check.name, mode, answer))
        return findings

    def ask(self, at: At, mail: Mail) -> list[CheckFinding]:
        """The same, and tell of it."""
        findings = self.look(at, mail)
        for finding in findings:
            self._tell(finding, mail)
        return findings

    def near(self, mail: Mail, answer: Refuse) -> bool:
        """A domain is near to be a bulk sender: told where its stream is not silent about that."""
        for check, mode in self.asks(At.ATTEMPT, mail.stream, self.find(mail.author) is not None):
            if check.name == "proximity":
                finding = CheckFinding(check.name, mode, answer)
                self._count(finding)
                self._spool.report([self._event(finding, mail)])
                return True
        return False

    def tell_rest(self) -> None:
        """How many more there were of what was told."""
        time = rfc3339(self._clock.now())
        rest = [
            Event(
                time=time, type=Type.CHECK, check=key.check, credential=key.credential, domain=key.domain,
                reason="more of the same in the last hour", untold=more,
            )
            for key, more in self._told.rest()
        ]  # fmt: skip
        if rest:
            self._spool.report(rest)

    def _mode(self, policy: Policy, check: CheckName, stream: str, is_ours: bool) -> CheckMode:
        settings = policy.settings
        said = settings.streams[stream].checks.get(check) if stream in settings.streams else None
        return said or settings.guard.checks.get(check) or usual(check, stream, is_ours)

    def _tell(self, finding: CheckFinding, mail: Mail) -> None:
        self._count(finding)
        new = self._told.met(finding.check, mail.credential, mail.author)
        if new is not None:
            event = self._event(finding, mail)
            event.credential, event.domain = new.credential, new.domain
            self._spool.report([event])

    def _count(self, finding: CheckFinding) -> None:
        metrics = self._metrics
        counts = metrics.check_refusals if finding.mode == "enforce" else metrics.check_warnings
        counts[finding.check].inc()

    def _event(self, finding: CheckFinding, mail: Mail) -> Event:
        return Event(
            time=rfc3339(self._clock.now()), type=Type.CHECK, check=finding.check, mode=finding.mode,
            credential=mail.credential, tenant=mail.tenant, stream=mail.stream, domain=mail.author,
            provider=mail.provider, reason=fit(finding.answer.reason, MAX_REASON),
        )  # fmt: skip
