"""What receiving servers allow and do not tell, and those that `fleet` sends to.

Between: `receiver` asks at each connection and recipient; `fleet` sends to `FLEET` and counts.
Contract: seconds of one clock, never decreasing; rates are recipients a second. `take` is asked for each
    recipient. `Terms.capacity` is what a perfect sender would get through, with as much mail as `offered`.
Why: the numbers are such that two cores carry all of them together, at about 320 messages a second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

SURPLUS = 1.25  # so much more mail than a server takes: there is always some waiting
MINUTE = 60.0


class Limit(Protocol):
    """How many recipients may come."""

    per_second: float

    def take(self, now: float) -> bool: ...

    def halve(self) -> None: ...


class Bucket:
    """So many a second, and a second's worth at once."""

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self._tokens = per_second
        self._at = 0.0

    def take(self, now: float) -> bool:
        self._tokens = min(self.per_second, self._tokens + (now - self._at) * self.per_second)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def halve(self) -> None:
        self.per_second /= 2


class FixedWindow:
    """So many in each minute of the server's clock; all at once, if somebody likes."""

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self._minute = -1
        self._used = 0

    def take(self, now: float) -> bool:
        minute = int(now / MINUTE)
        if minute != self._minute:
            self._minute, self._used = minute, 0
        if self._used >= self.per_second * MINUTE:
            return False
        self._used += 1
        return True

    def halve(self) -> None:
        self.per_second /= 2


class SlidingWindow:
    """So many in the last minute, at any moment."""

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self._taken: deque[float] = deque()

    def take(self, now: float) -> bool:
        while self._taken and self._taken[0] <= now - MINUTE:
            self._taken.popleft()
        if len(self._taken) >= self.per_second * MINUTE:
            return False
        self._taken.append(now)
        return True

    def halve(self) -> None:
        self.per_second /= 2


@dataclass(frozen=True)
class Temper:
    """So many refusals in a minute, and nothing is taken for so long."""

    refusals: int
    block: float  # seconds


@dataclass(frozen=True)
class Terms:
    """One server: what it allows, how it says no, and what else is wrong with it."""

    name: str
    says: str  # for the table
    limit: Callable[[], Limit] | None = None
    connections: int | None = None  # at once
    per_connection: int | None = None  # messages
    latency: float = 0.05  # seconds, of the answer to a message
    tarpit: float = 0.0  # seconds, of every answer
    greylist: float = 0.0  # seconds from the first contact of a recipient until it is let in
    temper: Temper | None = None
    halves: bool = False  # its limit, in the middle of the run
    full: float = 0.0  # share of recipients whose mailbox is full now
    goodbye: float = 0.0  # share of recipients that are answered with a 421, for no reason of ours
    weather: float = 0.0  # share of recipients that are refused as too fast, whatever the speed
    slows: float = 1.0  # near the limit a message is answered up to so many times as late
    hosts: int = 1  # addresses, each with a limit of its own
    tenants: int = 0  # a hosted provider: so many domains, each with an MX name of its own
    deaf: int = 0  # the first so many of them refuse everything
    plenty: float = 40.0  # messages a second that are offered where nothing limits
    refusal: bytes = b"450 4.7.1 Rate limit exceeded, slow down"

    @property
    def domains(self) -> list[str]:
        """Whose MX it is."""
        return [f"{self.name}{n}.test" for n in range(self.tenants or 3)]

    def exchange(self, domain: str) -> str:
        """The name of a domain's MX."""
        return f"{domain.partition('.')[0] if self.tenants else 'mx'}.{self.name}.test"

    def hears(self, recipient: bytes) -> bool:
        """Is it for a domain that takes mail at all?"""
        return not any(b"@%s%d.test>" % (self.name.encode(), n) in recipient for n in range(self.deaf))

    def takes(self, second_half: bool) -> float | None:
        """Messages a second; None where nothing limits."""
        bounds = []
        if self.limit is not None:
            bounds.append(self.limit().per_second * self.hosts / (2 if self.halves and second_half else 1))
        if self.connections is not None:
            # A transaction is four answers: MAIL, RCPT, DATA and the dot.
            bounds.append(self.connections / (self.latency + 4 * self.tarpit))
        return min(bounds, default=None)

    @property
    def offered(self) -> float:
        """Messages a second that are sent to it, all the time."""
        takes = self.takes(second_half=False)
        return self.plenty if takes is None else takes * SURPLUS

    def capacity(self, second_half: bool) -> float:
        """Messages a second that a perfect sender delivers."""
        takes = self.takes(second_half)
        if takes is None:
            return self.offered * (1.0 - self.deaf / len(self.domains))
        return takes


FLEET = (
    Terms("bucket", "30/s, token bucket", lambda: Bucket(30.0)),
    Terms(
        "minute", "1200 in each minute, 421", lambda: FixedWindow(20.0),
        refusal=b"421 4.7.0 Too many messages from your address in this minute",
    ),
    Terms(
        "sliding", "1200 in the last minute", lambda: SlidingWindow(20.0),
        refusal=b"451 4.7.1 You are sending too fast",
    ),
    Terms("crowd", "8 connections, 0.4 s each message", connections=8, latency=0.4),
    Terms("brief", "10 messages a connection", per_connection=10, plenty=20.0),
    Terms(
        "both", "15/s and 5 connections", lambda: Bucket(15.0), connections=5, latency=0.2,
        refusal=b"452 4.7.0 Message rate too high: number of messages exceeded",
    ),
    Terms("tarpit", "0.4 s an answer, 16 connections", connections=16, latency=0.0, tarpit=0.4),
    Terms("greylist", "a new recipient waits 30 s", greylist=30.0, plenty=20.0),
    Terms("temper", "20/s; 30 refusals: shut for 60 s", lambda: Bucket(20.0), temper=Temper(30, 60.0)),
    Terms("free", "nothing"),
    Terms("halves", "30/s, then 15/s", lambda: Bucket(30.0), halves=True),
    Terms("weather", "1 % is refused at random", weather=0.01, plenty=20.0),
    Terms("storm", "10/s, and 1 % at random", lambda: Bucket(10.0), weather=0.01),
    Terms("slow", "15/s, before that 10 times as slow", lambda: Bucket(15.0), slows=10.0),
    Terms("hosted", "100 tenants, one takes nothing", tenants=100, deaf=1, plenty=20.0),
    Terms("hosts", "6/s at each of two hosts", lambda: Bucket(6.0), hosts=2),
    Terms("noise", "20/s; 3 % full, 2 % random 421", lambda: Bucket(20.0), full=0.03, goodbye=0.02),
)  # fmt: skip


def some(names: Collection[str]) -> tuple[Terms, ...]:
    """Those of the fleet that are named, in its order."""
    return tuple(terms for terms in FLEET if terms.name in names)
