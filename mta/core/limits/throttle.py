"""May we send, may we connect: now, or not before when and why.

Between: lanes ask before dialling and before each MAIL; credentials are asked at each RCPT.
Contract: pure; times are seconds handed in by the caller and only ever compared with one another.
    An answer is `Go` or `Wait(until, reason)`, never a bool.
Raises: nothing.
Standards: RFC 5321 4.5.4.1 (a host that is down is not to be hammered).
Why: a rate is kept as one number, the theoretical arrival time (GCRA, ITU-T I.371): no queue of
    stamps, no refill timer, and the wait it answers is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mta.core.model import Go, Wait

GO = Go()
LONGEST = 600.0  # seconds that a dead site is left alone


class Rate(NamedTuple):
    """So many in so long, written `100/min`."""

    amount: int
    period: float  # seconds


class SiteLimits(NamedTuple):
    """What one lane may do at one site."""

    connections: int  # at once
    messages_per_connection: int
    recipients_per_message: int  # RCPT in one transaction
    rate: Rate | None  # recipients


@dataclass(slots=True)
class RateLimit:
    """`rate.amount` at once, if all was quiet for a `rate.period`; then evenly as many in each period."""

    rate: Rate | None
    arrival: float = 0.0  # when the bucket is empty again

    def ask(self, now: float, amount: int = 1) -> Go | Wait:
        """Would `amount` more be allowed? Takes nothing."""
        if self.rate is None:
            return GO
        cost = amount * self.rate.period / self.rate.amount
        # More than one period's worth can never pass at once; it passes alone, when all is quiet.
        allowance = max(self.rate.period, cost)
        until = max(self.arrival, now) + cost - allowance
        return GO if until <= now + 1e-9 else Wait(until, "rate")

    def take(self, now: float, amount: int = 1) -> Go | Wait:
        """Take `amount` if that is allowed now."""
        answer = self.ask(now, amount)
        if self.rate is not None and isinstance(answer, Go):
            self.arrival = max(self.arrival, now) + amount * self.rate.period / self.rate.amount
        return answer

    def become(self, rate: Rate | None, now: float) -> None:
        """Another rate from now on, with the bucket as it was; no debt is longer than a period of it."""
        if rate != self.rate:
            self.rate = rate
            self.arrival = 0.0 if rate is None else min(self.arrival, now + rate.period)


@dataclass(slots=True)
class DeadSite:
    """Leaves a site alone after nobody there took mail: 30 s, doubling to 10 min, until someone does."""

    failures: int = 0
    until: float = 0.0

    def ask(self, now: float) -> Go | Wait:
        # No wait is longer: where one seems to be, the clock was set back.
        return Wait(self.until, "dead") if now < self.until <= now + LONGEST else GO

    def failed(self, now: float) -> None:
        self.failures += 1
        self.until = now + min(30.0 * 2.0 ** min(self.failures - 1, 5), LONGEST)

    def answered(self) -> None:
        self.failures = 0
        self.until = 0.0
