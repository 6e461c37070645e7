"""A sender in virtual time: a day in seconds.

Between: `tests/core/limits/test_adaptive.py` and `benchmarks/figures/throttle.py` let it meet a
    `tests.fakes.sites.Site`.
Contract: virtual seconds, recipients a second; no task, no socket, no sleep. One seed gives one day. It does
    what lanes do: an idle connection takes the next transaction, if the path lets it; where mail waits and
    none is idle, one more is dialled. Its mail never ends, unless `offered` says how much comes.
Raises: AssertionError where a gate says not before a time that has come.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from mta.core.limits.adaptive import Branch, Change, Refusal
from mta.core.model import Go, Subject
from tests.fakes.sites import Site


class Minute(NamedTuple):
    """Where things stood at the start of a minute; counts since the beginning."""

    time: float
    delivered: int
    attempts: int
    refused: int  # for our speed, and not by the weather
    dials_refused: int
    rate: float
    connections: float
    limit: float


@dataclass(eq=False)
class Connection:
    carried: int = 0


class Sender:
    """One source's mail to one site."""

    def __init__(
        self, path: Branch, site: Site, seed: int = 1, batch: int = 1, offered: float = math.inf
    ) -> None:
        self.path, self.site = path, site
        self.batch = batch  # recipients in a transaction
        self.offered = offered  # recipients a second
        self.now = 0.0
        self.delivered = self.attempts = self.refused = self.dials_refused = 0
        self.peak = 0  # connections
        self.minutes: list[Minute] = []
        self.changes: list[tuple[float, Change]] = []
        self._dice = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._queue = math.inf if offered == math.inf else 0.0
        self._idle: list[Connection] = []
        self._open = self._dialling = 0
        self._wake_at = math.inf
        self._at(0.0, self._minute)
        self._at(0.0, self._sweep)
        if offered < math.inf:
            self._at(0.0, self._arrive)

    def run(self, until: float) -> None:
        while self._events[0][0] <= until:
            self.now, _, what = heapq.heappop(self._events)
            what()
        self.now = until

    # What came of it

    def throughput(self, start: float, end: float) -> float:
        """Delivered, as a share of the limit, or of what was offered, between two times."""
        rows = [row for row in self.minutes if start <= row.time <= end]
        took = sum((two.time - one.time) * min(one.limit, self.offered) for one, two in pairwise(rows))
        return (rows[-1].delivered - rows[0].delivered) / took

    def refusals(self, start: float, end: float) -> float:
        """Refused, as a share of the attempts, between two times."""
        rows = [row for row in self.minutes if start <= row.time <= end]
        return (rows[-1].refused - rows[0].refused) / (rows[-1].attempts - rows[0].attempts)

    def found_at(self, start: float, share: float = 0.85) -> float:
        """Seconds from `start` until the next ten minutes bring that share of the limit; infinite: never."""
        for row in self.minutes:
            end = row.time + 600.0
            if start <= row.time and end <= self.now and self.throughput(row.time, end) >= share:
                return row.time - start
        return math.inf

    # Inside

    def _at(self, when: float, what: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (when, self._number, what))

    def _minute(self) -> None:
        limit = math.inf if self.site.limit is None else self.site.limit.rate
        self.minutes.append(
            Minute(
                self.now, self.delivered, self.attempts, self.refused, self.dials_refused,
                self.path.rate, self.path.connections, limit,
            )
        )  # fmt: skip
        self._at(self.now + 60.0, self._minute)

    def _sweep(self) -> None:
        self._kick()
        self._at(self.now + 1.0, self._sweep)

    def _arrive(self) -> None:
        self._queue += self.batch
        self._kick()
        self._at(self.now + self._dice.expovariate(self.offered / self.batch), self._arrive)

    def _wake(self) -> None:
        if self.now >= self._wake_at:
            self._wake_at = math.inf
            self._kick()

    def _kick(self) -> None:
        while self._queue >= self.batch and self._idle:
            answer = self.path.take(self.now, self.batch)
            if isinstance(answer, Go):
                self._send(self._idle.pop())
                continue
            assert answer.until > self.now
            if answer.until < self._wake_at:
                self._wake_at = answer.until
                self._at(answer.until, self._wake)
            return
        while self._queue >= self.batch:
            if not isinstance(self.path.dial(self.now, self._open + self._dialling), Go):
                return
            self._dialling += 1
            self._at(self.now + min(self.site.latency, 1.0), partial(self._dialled, self.now))

    def _dialled(self, started: float) -> None:
        self._dialling -= 1
        if self.site.dial(self.now, self._open):
            self._open += 1
            self.peak = max(self.peak, self._open)
            self._idle.append(Connection())
            self.path.opened(self._open)
        else:
            self.dials_refused += 1
            self._tell_refused(Refusal(Subject.CONNECTION, self.site.by_rule, started, self._open))
        self._kick()

    def _send(self, connection: Connection) -> None:
        site, dice = self.site, self._dice.random()
        self._queue -= self.batch
        self.attempts += self.batch
        taken = 0
        hangs_up = dice < site.hangs_up
        weather = 1.0 - site.weather <= dice
        goodbye = connection.carried == site.per_connection or dice < site.hangs_up + site.says_421
        if not goodbye and not weather:
            taken = site.mail(self.now, self.batch)
        answer = partial(self._answered, connection, self.now, taken, goodbye, hangs_up, weather)
        self._at(self.now + site.patience(self.now) * (0.75 + 0.5 * self._dice.random()), answer)

    def _answered(
        self, connection: Connection, started: float, taken: int, goodbye: bool, hangs_up: bool, weather: bool
    ) -> None:
        site, refused = self.site, self.batch - taken
        self._queue += refused
        if goodbye:
            self._open -= 1
            if not hangs_up:
                carried = connection.carried
                self._tell_refused(Refusal(Subject.CONNECTION, False, started, self._open, carried, refused))
            self._kick()
            return
        if taken:
            deferred = sum(self._dice.random() < site.defers for _ in range(taken)) if site.defers else 0
            self.delivered += taken - deferred
            self._tell(self.path.answered(self.now, started, taken, taken - deferred))
        if refused:
            self.refused += 0 if weather else refused
            carried = connection.carried
            refusal = Refusal(Subject.RATE, site.by_rule, started, self._open - 1, carried, refused)
            self._tell_refused(refusal)
        connection.carried += 1
        if connection.carried == self.path.messages_per_connection:
            self._open -= 1
        else:
            self._idle.append(connection)
        self._kick()

    def _tell_refused(self, refusal: Refusal) -> None:
        self._tell(self.path.refused(self.now, refusal))

    def _tell(self, change: Change | None) -> None:
        if change is not None:
            self.changes.append((self.now, change))
