"""Hostile sites: what they take, and how they refuse.

Between: a `tests.fakes.sender.Sender` meets them.
Contract: virtual seconds, recipients a second. The same questions at the same times get the same answers.
Raises: nothing.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

BUSY = 10.0  # seconds over which a site's load is measured


class Limit(Protocol):
    """How much a site takes."""

    rate: float

    def take(self, now: float, amount: int) -> int:
        """As many of these as it takes now."""
        ...


@dataclass
class Bucket:
    """A token bucket; `depth` seconds' worth fit in."""

    rate: float
    depth: float
    tokens: float = math.inf
    at: float = 0.0

    def take(self, now: float, amount: int) -> int:
        most = max(self.rate * self.depth, 1.0)
        self.tokens = min(most, self.tokens + (now - self.at) * self.rate)
        self.at = now
        taken = min(amount, int(self.tokens + 1e-9))
        self.tokens -= taken
        return taken


@dataclass
class Fixed:
    """So much in each minute, or hour, of the site's clock."""

    rate: float
    period: float
    number: int = -1
    used: int = 0

    def take(self, now: float, amount: int) -> int:
        number = int(now / self.period)
        if number != self.number:
            self.number, self.used = number, 0
        taken = max(min(amount, round(self.rate * self.period) - self.used), 0)
        self.used += taken
        return taken


@dataclass
class Sliding:
    """So much in any minute, or hour."""

    rate: float
    period: float
    log: deque[tuple[float, int]] = field(default_factory=deque)
    used: int = 0

    def take(self, now: float, amount: int) -> int:
        while self.log and self.log[0][0] <= now - self.period:
            self.used -= self.log.popleft()[1]
        taken = max(min(amount, round(self.rate * self.period) - self.used), 0)
        self.log.append((now, taken))
        self.used += taken
        return taken


@dataclass
class Hosts:
    """Each host has a limit of its own, and chance says whose turn it is; the site may have one for all."""

    each: Sequence[Limit]
    site: Limit | None = None
    dice: random.Random = field(default_factory=lambda: random.Random(1))
    rate: float = field(init=False)

    def __post_init__(self) -> None:
        hosts = sum(limit.rate for limit in self.each)
        self.rate = hosts if self.site is None else min(hosts, self.site.rate)

    def take(self, now: float, amount: int) -> int:
        taken = self.dice.choice(self.each).take(now, amount)
        return taken if self.site is None else self.site.take(now, taken)


class Temper(NamedTuple):
    """So many refusals within so long, and nothing is taken for so long."""

    refusals: int
    within: float
    block: float


@dataclass
class Site:
    """What one site does to those who send to it."""

    limit: Limit | None = None
    connections: int | None = None
    per_connection: int | None = None  # messages, then 421
    latency: float = 0.2  # seconds to the answer
    slows: float = 1.0  # near its limit it takes up to so many times as long
    by_rule: bool = True  # a rule knows what it says
    temper: Temper | None = None
    defers: float = 0.0  # share of mail: greylisting, full mailboxes
    says_421: float = 0.0  # share of mail, without a reason
    hangs_up: float = 0.0
    weather: float = 0.0  # share of transactions that are refused as too fast, whatever the speed
    blocks: int = 0
    _refusals: deque[float] = field(default_factory=deque)
    _blocked_until: float = -1.0
    _taken: float = 0.0  # recipients, of late
    _taken_at: float = 0.0

    def dial(self, now: float, others: int) -> bool:
        if now < self._blocked_until or (self.connections is not None and others >= self.connections):
            self._refused(now)
            return False
        return True

    def mail(self, now: float, amount: int) -> int:
        if now < self._blocked_until:
            return 0
        taken = amount if self.limit is None else self.limit.take(now, amount)
        if taken < amount:
            self._refused(now)
        self._taken = self._of_late(now) + taken
        self._taken_at = now
        return taken

    def patience(self, now: float) -> float:
        """Seconds to the answer, as busy as it is now."""
        if self.limit is None or self.slows == 1.0:
            return self.latency
        idle = 1.0 - self._of_late(now) / (BUSY * self.limit.rate)
        return self.latency * min(1.0 / idle if idle > 0 else math.inf, self.slows)

    def _of_late(self, now: float) -> float:
        return self._taken * math.exp((self._taken_at - now) / BUSY)

    def _refused(self, now: float) -> None:
        if self.temper is None or now < self._blocked_until:
            return
        self._refusals.append(now)
        while self._refusals[0] < now - self.temper.within:
            self._refusals.popleft()
        if len(self._refusals) >= self.temper.refusals:
            self._blocked_until = now + self.temper.block
            self.blocks += 1
            self._refusals.clear()
