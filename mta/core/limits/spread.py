"""How the connections to one site are spread over its hosts, and which of these want no more.

Between: a lane keeps one, and tells of refusals; `delivery.connect` orders hosts by it, and dials.
Contract: pure; times are seconds of one clock that never goes back; hosts are names. Among hosts of one
    preference the one with the fewest connections comes first, and one more of its is missing where all of
    them are busy and another host has more. A host that refuses one more while another of its preference is
    not known to do so has a limit of its own, for `BELIEVED` seconds; where no other is left, it is the
    site's. One that says that another should be asked is shunned until a time. Mail that has waited for a
    host to get well, once, goes on without that.
Raises: nothing.
Standards: RFC 5321 5.1 (hosts of one preference share the load).
Why: a limit that each host counts for itself is met at one of them while the others have room; and what a
    site takes is the sum of what they take only where all are used alike.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable

BELIEVED = 300.0  # seconds; then one more is tried
SHUN = 300.0  # seconds that a host is left alone after it said that another one should be asked


class Spread:
    """One lane's connections by host."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()  # being dialled, or open
        self._passed: set[str] = set()  # hosts that have none, and did not take the last one
        self._full: dict[str, float] = {}  # until when
        self._shunned: dict[str, float] = {}  # until when
        self._served: dict[str, int] = {}  # at which turn, the last time
        self._turns = 0
        self._waits_until = -math.inf

    def rank(self, host: str, now: float) -> tuple[bool, int]:
        """The lowest is dialled first, of one preference: whether it wants no more, and how many it has."""
        return self._full.get(host, now) > now, self._open[host]

    @property
    def connections(self) -> int:
        """Of all hosts, being dialled or open."""
        return self._open.total()

    def lacks(self, hosts: Collection[str], idle: Collection[str], now: float) -> bool:
        """Has any of these fewer connections than another, all of them busy?

        One that has none and did not take the last would be missing for ever, be it dead or told to rest.
        """
        most = max(self._open[host] for host in hosts)
        are_few = self.connections <= len(hosts)
        return any(
            self._open[host] < most
            and host not in idle
            and (are_few or host not in self._passed)
            and self._full.get(host, now) <= now
            for host in hosts
        )

    def turn(self, host: str) -> int:
        """The lowest is served first, of hosts with an idle connection."""
        return self._served.get(host, 0)

    def served(self, host: str) -> None:
        """A transaction begins there."""
        self._turns += 1
        self._served[host] = self._turns

    def is_shunned(self, host: str, now: float) -> bool:
        """Did it say that another one should be asked?"""
        return self._shunned.get(host, now) > now

    def shun(self, host: str, now: float, wait: float | None) -> None:
        """It said so; for so many seconds, if it knew."""
        self._shunned[host] = now + (wait or SHUN)

    def dialled(self, host: str) -> None:
        """A connection, or the attempt at one."""
        self._open[host] += 1

    def opened(self, host: str, peers: Iterable[str]) -> None:
        """It took one more; peers that had none would have been asked before."""
        self._passed.discard(host)
        if self._open[host] > 1:
            self._passed.update(peer for peer in peers if not self._open[peer])
        self._full.pop(host, None)
        self._waits_until = -math.inf

    def waits(self, until: float) -> None:
        """The lane's mail waits until then for a host to get well."""
        self._waits_until = until

    def has_waited(self, now: float) -> bool:
        """Has it done so, and nobody has taken it since?"""
        return 0 <= now - self._waits_until < BELIEVED

    def closed(self, host: str) -> None:
        """It is over."""
        self._open[host] -= 1
        if not self._open[host]:
            del self._open[host]
            self._served.pop(host, None)

    def is_own(self, host: str, peers: Iterable[str], now: float) -> bool:
        """A host refused one more: is that its own limit, for others of its preference may have room?"""
        was_full = self._full.get(host, now) > now  # and was asked: the others do not answer
        self._full[host] = now + BELIEVED
        if not was_full and any(self._full.get(peer, now) <= now for peer in peers):
            return True
        self._full.clear()  # it is the site's
        return False

    def is_quiet(self, now: float) -> bool:
        """Is nothing remembered against any host?"""
        until = max((*self._full.values(), *self._shunned.values()), default=-math.inf)
        return now > max(until, self._waits_until + BELIEVED)
