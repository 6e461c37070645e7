"""Hostile sites, and a sender that meets them, in virtual time."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol
from functools import partial

from mta.core.adaptive import Path, Refusal
from mta.core.model import Go, Subject


class Limit(Protocol):
    def take(self, now: float, amount: int) -> int: ...


class Bucket:
    def __init__(self, rate: float, depth: float) -> None:
        self.rate, self.depth, self.tokens, self.at = rate, depth, depth, 0.0

    def take(self, now: float, amount: int) -> int:
        self.tokens = min(self.depth, self.tokens + (now - self.at) * self.rate)
        self.at = now
        taken = min(amount, int(self.tokens + 1e-9))
        self.tokens -= taken
        return taken

    def change(self, factor: float) -> None:
        self.rate *= factor
        self.depth = max(self.depth * factor, 1.0)
        self.tokens = min(self.tokens, self.depth)


class Window:
    """So many in each minute or hour by the site's clock."""

    def __init__(self, rate: float, period: float) -> None:
        self.rate, self.period, self.number, self.used = rate, period, -1, 0

    def take(self, now: float, amount: int) -> int:
        number = int(now / self.period)
        if number != self.number:
            self.number, self.used = number, 0
        taken = max(min(amount, round(self.rate * self.period) - self.used), 0)
        self.used += taken
        return taken

    def change(self, factor: float) -> None:
        self.rate *= factor


class Sliding:
    def __init__(self, rate: float, period: float) -> None:
        self.rate, self.period = rate, period
        self.log: deque[tuple[float, int]] = deque()
        self.used = 0

    def take(self, now: float, amount: int) -> int:
        while self.log and self.log[0][0] <= now - self.period:
            self.used -= self.log.popleft()[1]
        taken = max(min(amount, round(self.rate * self.period) - self.used), 0)
        if taken:
            self.log.append((now, taken))
            self.used += taken
        return taken

    def change(self, factor: float) -> None:
        self.rate *= factor


@dataclass
class Site:
    limit: Bucket | Window | Sliding | None = None
    connections: int | None = None
    per_connection: int | None = None
    latency: float = 0.2
    by_rule: bool = True
    temper: tuple[int, float, float] | None = None  # refusals, within, block
    greylists: float = 0.0
    full: float = 0.0
    says_421: float = 0.0
    hangs_up: float = 0.0
    refusals: deque[float] = field(default_factory=deque)
    blocked_until: float = -1.0
    blocks: int = 0

    def refuse(self, now: float) -> None:
        if self.temper is None:
            return
        many, within, block = self.temper
        self.refusals.append(now)
        while self.refusals[0] < now - within:
            self.refusals.popleft()
        if len(self.refusals) >= many and now >= self.blocked_until:
            self.blocked_until = now + block
            self.blocks += 1
            self.refusals.clear()

    def dial(self, now: float, open: int) -> bool:
        if now < self.blocked_until or (self.connections is not None and open >= self.connections):
            self.refuse(now)
            return False
        return True

    def mail(self, now: float, amount: int) -> int:
        if now < self.blocked_until:
            return 0
        taken = amount if self.limit is None else self.limit.take(now, amount)
        if taken < amount:
            self.refuse(now)
        return taken


@dataclass
class Connection:
    carried: int = 0
    busy: bool = False


class Sender:
    """A lane's behaviour: as many connections as help, one transaction at a time on each."""

    def __init__(self, path: Path, site: Site, seed: int = 1, batch: int = 1, offered: float | None = None):
        self.path, self.site, self.batch = path, site, batch
        self.dice = random.Random(seed)
        self.now = 0.0
        self.events: list = []
        self.n = 0
        self.queue = float("inf") if offered is None else 0.0
        self.offered = offered
        self.idle: list[Connection] = []
        self.open = 0
        self.dialling = 0
        self.delivered = 0
        self.refused = 0
        self.dials_refused = 0
        self.noise = 0
        self.attempts = 0
        self.wake_at = float("inf")
        self.minutes: list[list[float]] = []
        self.peak = 0
        self.at(0.0, self._minute)
        self.at(0.0, self._sweep)
        if offered is not None:
            self.at(0.0, self._arrive)

    def at(self, when: float, what: Callable[[], None]) -> None:
        self.n += 1
        heapq.heappush(self.events, (when, self.n, what))

    def run(self, until: float) -> None:
        while self.events and self.events[0][0] <= until:
            self.now, _, what = heapq.heappop(self.events)
            what()
        self.now = until

    def _minute(self) -> None:
        self.minutes.append(
            [
                self.now,
                self.delivered,
                self.refused,
                self.attempts,
                self.path.rate,
                self.path.connections,
                self.dials_refused,
            ]
        )
        self.at(self.now + 60.0, self._minute)

    def _sweep(self) -> None:
        self._kick()
        self.at(self.now + 1.0, self._sweep)

    def _arrive(self) -> None:
        self.queue += self.batch
        self._kick()
        self.at(self.now + self.dice.expovariate(self.offered / self.batch), self._arrive)

    def _wake(self) -> None:
        if self.now >= self.wake_at:
            self.wake_at = float("inf")
            self._kick()

    def _kick(self) -> None:
        while self.queue >= self.batch and self.idle:
            answer = self.path.take(self.now, self.batch)
            if isinstance(answer, Go):
                self._send(self.idle.pop())
                continue
            assert answer.until > self.now
            if answer.until < self.wake_at:
                self.wake_at = answer.until
                self.at(answer.until, self._wake)
            return
        while self.queue >= self.batch and isinstance(
            self.path.dial(self.now, self.open + self.dialling), Go
        ):
            self.dialling += 1
            self.at(self.now + min(self.site.latency, 1.0), partial(self._dialled, self.now))

    def _dialled(self, started: float) -> None:
        self.dialling -= 1
        if self.site.dial(self.now, self.open):
            self.open += 1
            self.peak = max(self.peak, self.open)
            self.idle.append(Connection())
            self.path.opened(self.open)
        else:
            self.dials_refused += 1
            self.path.refused(self.now, Refusal(Subject.CONNECTION, self.site.by_rule, started, self.open))
        self._kick()

    def _send(self, connection: Connection) -> None:
        site = self.site
        started = self.now
        self.queue -= self.batch
        self.attempts += self.batch
        dice = self.dice.random()
        if site.per_connection is not None and connection.carried >= site.per_connection:
            what, taken = "421", 0
        elif dice < site.says_421:
            what, taken = "421", 0
        elif dice < site.says_421 + site.hangs_up:
            what, taken = "lost", 0
        else:
            taken = site.mail(self.now, self.batch)
            what = "mail"
        self.at(
            self.now + site.latency * (0.75 + 0.5 * self.dice.random()),
            lambda: self._answered(connection, started, what, taken),
        )

    def _answered(self, connection: Connection, started: float, what: str, taken: int) -> None:
        path = self.path
        refused = self.batch - taken
        if what == "mail":
            connection.carried += 1
            if taken:
                other = sum(self.dice.random() < self.site.greylists + self.site.full for _ in range(taken))
                self.delivered += taken - other
                path.answered(self.now, started, taken, taken - other)
            if refused:
                self.refused += refused
                self.queue += refused
                path.refused(
                    self.now,
                    Refusal(
                        Subject.RATE,
                        self.site.by_rule,
                        started,
                        self.open - 1,
                        connection.carried - 1,
                        refused,
                    ),
                )
            used_up = (
                path.messages_per_connection is not None
                and connection.carried >= path.messages_per_connection
            )
            if used_up:
                self.open -= 1
            else:
                self.idle.append(connection)
        else:
            self.open -= 1
            self.queue += refused
            if what == "421":
                self.noise += refused
                path.refused(
                    self.now,
                    Refusal(Subject.CONNECTION, False, started, self.open, connection.carried, refused),
                )
        self._kick()
