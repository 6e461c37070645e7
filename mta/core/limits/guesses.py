"""Who may guess at a secret now.

Between: authentication asks before each hash, and tells of each one that proved nothing.
Contract: pure; times are seconds handed in by the caller. A client is a network, a login its octets; `proven`
    says that this client has proved this login before. Five failures in ten minutes are a pair's: so much
    holds for everybody. Who has not proved the login may fail at 20 in ten minutes over all logins. And
    after 20 failures of such clients in ten minutes a login is under attack: then nobody guesses at it
    who has failed lately, anywhere. Lately is ten minutes after one failure, twice as long after each
    further one, a day at most. All tables are bounded; what failed longest ago makes room.
Raises: nothing.
Why: a limit of the login alone is a switch that shuts its owner out, and any stranger can hold it down. Under
    attack a client without a failure still has one try, so the owner comes in from anywhere, and a
    botnet gets few guesses for each address that it has.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TypeVar

from mta.core.limits.throttle import GO, Rate, RateLimit
from mta.core.model import Go, Wait

PAIR = Rate(5, 600.0)  # and one more every 2 minutes after that
CLIENT = Rate(20, 600.0)
LOGIN = Rate(20, 600.0)
LATELY = 600.0  # seconds, after one failure
LONGEST = 86400.0
FORGOTTEN = 2 * LONGEST  # after the last failure: were it a day as well, each day would be a first one
BOUND = 32_768  # of each table: at the 20 hashes a second of two threads half an hour's failures

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


@dataclass(slots=True)
class _Record:
    """The failures of one client."""

    limit: RateLimit = field(default_factory=lambda: RateLimit(CLIENT))
    failures: int = 0
    last: float = 0.0

    def count(self, now: float) -> None:
        self.failures = self.recent(now) + 1
        self.last = now
        self.limit.take(now)

    def recent(self, now: float) -> int:
        return self.failures if now < self.last + FORGOTTEN else 0

    @property
    def clean_at(self) -> float:
        return self.last + min(LATELY * 2.0 ** min(self.failures - 1, 10), LONGEST)


class Guesses:
    """The failures of late, by client and login."""

    def __init__(self) -> None:
        self._pairs: OrderedDict[tuple[str, bytes], RateLimit] = OrderedDict()
        self._clients: OrderedDict[str, _Record] = OrderedDict()
        self._logins: OrderedDict[bytes, RateLimit] = OrderedDict()

    def ask(self, client: str, login: bytes, proven: bool, now: float) -> Go | Wait:
        """May this client try a secret of this login?"""
        pair = self._pairs.get((client, login))
        answer = pair.ask(now) if pair is not None else GO
        record = self._clients.get(client)
        if proven or record is None:
            return answer
        answers = [answer, record.limit.ask(now), self._attacked(login, record, now)]
        return max((each for each in answers if isinstance(each, Wait)), default=GO)

    def _attacked(self, login: bytes, record: _Record, now: float) -> Go | Wait:
        limit = self._logins.get(login)
        answer = limit.ask(now) if limit is not None else GO
        if isinstance(answer, Go) or record.clean_at <= now:
            return GO
        return Wait(min(answer.until, record.clean_at), answer.reason)

    def failures(self, client: str, now: float) -> int:
        """How often the client has failed, since it was last without a failure for two days."""
        record = self._clients.get(client)
        return 0 if record is None else record.recent(now)

    def failed(self, client: str, login: bytes, proven: bool, now: float) -> None:
        """Its secret was wrong."""
        _put(self._pairs, (client, login), self._pairs.get((client, login)) or RateLimit(PAIR)).take(now)
        _put(self._clients, client, self._clients.get(client) or _Record()).count(now)
        if not proven:
            _put(self._logins, login, self._logins.get(login) or RateLimit(LOGIN)).take(now)

    def succeeded(self, client: str, login: bytes) -> None:
        """Its secret was right: it may mistype it anew. What it did to others stays."""
        self._pairs.pop((client, login), None)


def _put(table: OrderedDict[_K, _V], key: _K, value: _V) -> _V:
    table[key] = value
    table.move_to_end(key)
    if len(table) > BOUND:
        table.popitem(last=False)
    return value
