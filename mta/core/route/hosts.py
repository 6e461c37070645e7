"""What is remembered of a host at an address, and whom to dial first by it.

Between: `delivery.hosts` keeps memories and tells them what happened; `delivery.search` asks whom to dial.
Contract: pure; times are wall-clock seconds, dice are handed in. A memory changes as this table says:

    what happened                       | of the host                       | of its TLS
    ------------------------------------+-----------------------------------+---------------------------------
    nobody there, mute, refuses us      | asked last; probed after 1 min,   |
                                        | then twice that, up to 6 h        |
    another family was connected first  | asked last for 10 min             |
    it is probed                        | asked last by others meanwhile    |
    nobody else answered either         | probed after 1 min: it may be us  |
    it lets us in                       | nothing                           |
    a handshake works                   |                                   | nothing, or 1.2 alone for 6 h
    none works, for the first time      |                                   | doubted: mail waits for 60 s
    none works after that, or the peer  |                                   | in the clear for 6 h, then
    has decided so (an alert)           |                                   | handshakes are tried again
    in the clear it refuses mail        |                                   | one handshake is tried at once
    it loses commands sent together     | one at a time for 6 h             |

    A host as a whole is a `Peer` without an address: all of its addresses are bad, or DNS has none.
Raises: nothing.
Standards: RFC 5321 5.1 (by preference; a bound is allowed, but more than one address is tried), RFC 8305,
    RFC 7435 (opportunistic TLS).
Why: a campaign meets thousands of dead, mute and broken hosts. Each costs half a minute, or five, once; and
    what stands in front of a host that lives does not hide it for ever.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from mta.core.route.routing import Host

BELIEVED = 6 * 3600.0  # seconds; the longest time for which a memory decides
SOONEST = 60.0  # seconds until the first probe
SLOW = 600.0  # seconds, RFC 8305 4
HELD = 120.0  # seconds that a probe may take; until then nobody else makes one
TLS_WAIT = 60.0  # seconds in which a server that restarts is back
MAX_HOSTS = 10  # looked up in one attempt
MAX_ADDRESSES = 5  # dialled in one attempt
SHARE = 2  # of these, for one host before the next has its turn
GREETING_TIMEOUT = 300.0  # RFC 5321 4.5.3.2.1
SHORT = 20.0  # seconds of patience with a host that had none for us, where there are others


class Peer(NamedTuple):
    """One address of a host, or the host as a whole (no address)."""

    name: str
    port: int
    address: str = ""


class Rung(enum.Enum):
    """How a connection is secured, from the best to the least."""

    FULL = "TLS"
    SMALL = "TLS 1.2"  # its hello fits into one segment: no large key shares
    CLEAR = "in the clear"


class TlsState(enum.Enum):
    """What we think of a peer's TLS."""

    ORDINARY = "ordinary"
    SMALL = "small"  # works with TLS 1.2 alone
    DOUBTED = "doubted"  # no handshake has worked, which may be weather
    CLEAR = "clear"  # none does


class HostMemory(NamedTuple):
    """How it went with one peer."""

    failures: int = 0  # in a row
    since: float = 0.0  # when the first of them was
    tried: float = 0.0  # when the last was
    probe: float = 0.0  # asked last until then
    why: str = ""
    tls: TlsState = TlsState.ORDINARY
    tls_since: float = 0.0
    tls_why: str = ""
    lost: float = 0.0  # when it lost commands that were sent together

    @property
    def is_bad(self) -> bool:
        """Did the last dials come to nothing?"""
        return self.failures > 0

    @property
    def is_ordinary(self) -> bool:
        """Is there nothing to remember?"""
        return not self.probe and self.tls is TlsState.ORDINARY and not self.lost

    def is_stepwise(self, now: float) -> bool:
        """Is it sent one command at a time?"""
        return 0 < self.lost <= now < self.lost + BELIEVED

    def rests(self, now: float) -> bool:
        """Is it asked last? A time that is further away was written before the clock was set back."""
        return now < self.probe <= now + BELIEVED

    def is_over(self, now: float) -> bool:
        """Is all of it too old to be of use?"""
        since = max(self.tls_since, self.lost)
        known_until = max(self.probe, since + BELIEVED if since else 0.0)
        return not known_until - 2 * BELIEVED <= now < known_until + BELIEVED

    def rungs(self, now: float, required: bool) -> tuple[Rung, ...]:
        """How to secure a connection, in the order to try; none where mail should wait for a better time.

        After handshakes that failed it is in the clear only where the memory then says so.
        """
        age = now - self.tls_since
        is_fresh = 0 <= age < BELIEVED
        if self.tls is TlsState.DOUBTED and not required and 0 <= age < TLS_WAIT:
            return ()
        secure = (
            (Rung.SMALL, Rung.FULL) if self.tls is TlsState.SMALL and is_fresh else (Rung.FULL, Rung.SMALL)
        )
        if required:
            return secure
        if self.tls is TlsState.CLEAR and is_fresh:
            return (Rung.CLEAR,)
        if self.tls is TlsState.DOUBTED and is_fresh:
            return Rung.FULL, Rung.CLEAR  # one more chance
        return *secure, Rung.CLEAR

    # What happens to it

    def failed(self, now: float, why: str) -> HostMemory:
        """A dial came to nothing."""
        wait = min(SOONEST * 2.0 ** min(self.failures, 30), BELIEVED)
        since = self.since if self.failures else now
        return self._replace(failures=self.failures + 1, since=since, tried=now, probe=now + wait, why=why)

    def rested(self, now: float, probe: float, why: str) -> HostMemory:
        """Of a host as a whole: none of its addresses is to be asked before then."""
        return self._replace(
            failures=self.failures + 1, since=self.since or now, tried=now, probe=probe, why=why
        )

    def slow(self, now: float) -> HostMemory:
        """Another one was connected while this one was not."""
        return self if self.rests(now + SLOW) else self._replace(tried=now, probe=now + SLOW)

    def probed(self, now: float) -> HostMemory:
        """Somebody finds out."""
        return self._replace(probe=now + HELD)

    def unsure(self, now: float) -> HostMemory:
        """Nobody else answered either: it may be our own network, and that says nothing of the host."""
        if not self.failures:
            return self
        return self._replace(failures=1, probe=min(self.probe, now + SOONEST))

    def answered(self) -> HostMemory:
        """It lets us in."""
        return HostMemory(tls=self.tls, tls_since=self.tls_since, tls_why=self.tls_why, lost=self.lost)

    def secured(self, now: float, rung: Rung) -> HostMemory:
        """A handshake worked."""
        if rung is Rung.FULL:
            return self._replace(tls=TlsState.ORDINARY, tls_since=0.0, tls_why="")
        is_known = self.tls is TlsState.SMALL and 0 <= now - self.tls_since < BELIEVED
        return self if is_known else self._replace(tls=TlsState.SMALL, tls_since=now)

    def unsecured(self, now: float, why: str, is_decided: bool) -> HostMemory:
        """No handshake worked; where the peer has decided so, to wait is of no use."""
        age = now - self.tls_since
        doubted = self.tls is TlsState.DOUBTED and 0 <= age < BELIEVED
        if doubted and age < TLS_WAIT and not is_decided:
            return self  # of several connections at once
        is_clear = is_decided or doubted or self.tls is TlsState.CLEAR
        return self._replace(tls=TlsState.CLEAR if is_clear else TlsState.DOUBTED, tls_since=now, tls_why=why)

    def tls_probed(self, now: float) -> HostMemory:
        """Somebody finds out whether handshakes work again."""
        return self._replace(tls_since=now - BELIEVED + HELD) if self.tls is TlsState.CLEAR else self

    def loses_commands(self, now: float) -> HostMemory:
        """Some of those that were sent together were not answered (RFC 2920 3.2)."""
        return self._replace(lost=now)

    def refused_in_the_clear(self, now: float) -> HostMemory:
        """It may want TLS after all: the next connection tries for it, and no mail waits for that."""
        if self.tls not in (TlsState.CLEAR, TlsState.DOUBTED):
            return self  # it was had meanwhile
        return self._replace(tls=TlsState.DOUBTED, tls_since=now - TLS_WAIT)


NOTHING = HostMemory()
Recall = Callable[[Peer], HostMemory]  # NOTHING where nothing is known


class Candidate(NamedTuple):
    """Whom to dial next: one address, or one of each family that race."""

    host: Host
    addresses: tuple[str, ...]
    tried: float = -math.inf  # when it failed, the last time
    probe: str = ""  # the one of the addresses that is bad, and tried again
    is_hasty: bool = False  # it has had its chance, and there are others

    def peer(self, address: str) -> Peer:
        return Peer(self.host.name, self.host.port, address)

    def patience(self, address: str) -> float:
        """Seconds for a connection, and for a greeting."""
        hasty = self.is_hasty and self.probe in ("", address)
        return SHORT if hasty else GREETING_TIMEOUT


class Choice(NamedTuple):
    """The addresses of one host."""

    now: list[Candidate]  # while it is the host's turn
    late: list[Candidate]  # when all hosts have had theirs
    until: float | None  # when those are to be asked whose TLS is in doubt


def in_order(
    hosts: Sequence[Host],
    recall: Recall,
    now: float,
    dice: Callable[[], float],
    rank: Callable[[str], tuple[bool, int]],
    is_shunned: Callable[[str], bool],
) -> list[Host]:
    """The hosts to look up this time: by preference, then by rank, equals shuffled; the bad ones last.

    One of these that is due for a probe keeps its place; the others come in the order in which they failed.
    """
    ready: list[Host] = []
    bad: list[tuple[bool, float, Host]] = []
    may_probe = True
    for host in sorted(hosts, key=lambda host: (host.preference, rank(host.name), dice())):
        memory = recall(Peer(host.name, host.port))
        if is_shunned(host.name):
            bad.append((True, memory.tried, host))
        elif not memory.is_bad:
            ready.append(host)
        elif may_probe and not memory.rests(now):
            ready.append(host)
            may_probe = False
        else:
            bad.append((False, memory.tried, host))
    return [*ready, *(host for *_, host in sorted(bad, key=lambda each: each[:2]))][:MAX_HOSTS]


def choose(
    host: Host,
    addresses: Iterable[str],
    recall: Recall,
    now: float,
    *,
    required: bool,
    races: bool,
    is_alone: bool,
    may_probe: bool,
) -> Choice:
    """Which of a host's addresses to dial, and when; it may be the only host, and a probe made already."""
    usable, until = [], []
    for address in addresses:
        memory = recall(Peer(host.name, host.port, address))
        if memory.rungs(now, required):
            usable.append((address, memory))
        else:
            until.append(memory.tls_since + TLS_WAIT)
    ready: list[Candidate] = []
    late: list[Candidate] = []
    for address, memory in usable:
        if not memory.probe:
            ready.append(Candidate(host, (address,)))
        elif may_probe and not memory.rests(now):
            is_hasty = memory.is_bad and not (is_alone and len(usable) == 1)
            ready.append(Candidate(host, (address,), memory.tried, address, is_hasty))
            may_probe = False
        else:
            late.append(Candidate(host, (address,), memory.tried))
    if races:
        ready = _paired(ready)
    return Choice(ready[:SHARE], ready[SHARE:] + late, min(until, default=None))


def latest(late: Iterable[Candidate]) -> list[Candidate]:
    """Those of all hosts that are dialled last: who was not tried for the longest time comes first.

    The first has all the patience of the standard, for a host may just be slow; the others have little.
    """
    ordered = sorted(late, key=lambda each: each.tried)
    return [
        each if not number or each.tried == -math.inf else each._replace(is_hasty=True)
        for number, each in enumerate(ordered)
    ]


def _paired(ready: Sequence[Candidate]) -> list[Candidate]:
    """Neighbours of different families race."""
    paired: list[Candidate] = []
    for each in ready:
        before = paired[-1] if paired else None
        (address,) = each.addresses
        if before is None or len(before.addresses) > 1 or (":" in before.addresses[0]) == (":" in address):
            paired.append(each)
        else:
            paired[-1] = before._replace(
                addresses=(before.addresses[0], address),
                probe=before.probe or each.probe,
                is_hasty=before.is_hasty or each.is_hasty,
            )
    return paired
