"""Hostile sites: what they take, and how they refuse.

Between: a `tests.fakes.sender.Sender` meets them.
Contract: virtual seconds, recipients a second. The same questions at the same times get the same answers.
Raises: nothing.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol


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
    by_rule: bool = True  # a rule knows what it says
    temper: Temper | None = None
    defers: float = 0.0  # share of mail: greylisting, full mailboxes
    says_421: float = 0.0  # share of mail, without a reason
    hangs_up: float = 0.0
    weather: float = 0.0  # share of transactions that are refused as too fast, whatever the speed
    blocks: int = 0
    _refusals: deque[float] = field(default_factory=deque)
    _blocked_until: float = -1.0

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
        return taken

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
