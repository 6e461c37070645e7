"""Who may hold a connection: so many clients at once, and nobody can fill the house with strangers.

Between: the submission listeners tell who arrives, gets on, logs in and leaves; they close whom this names.
Contract: pure. A network is what one client counts as: an IPv4 address, an IPv6 /64. Everybody is a stranger
    until he has logged in. One network holds at most `each` connections. Strangers hold at most half of
    `most`: when they do, one of theirs leaves for the next that comes, of the network that has most of them
    the one that has made no step for longest. Where nobody is left to leave, whoever comes is refused.
Raises: nothing.
Why: who has not logged in may be anybody, and costs nothing to send. A client that logs in needs a place for
    half a second only, so he finds one; who waits with half a handshake loses his.
"""

from __future__ import annotations

from collections import Counter
from typing import Generic, NamedTuple, TypeVar

Guest = TypeVar("Guest")


class Arrival(NamedTuple, Generic[Guest]):
    """May he come in? If so, perhaps somebody else leaves."""

    is_refused: bool = False
    leaves: Guest | None = None


class Places(Generic[Guest]):
    """Every connection of a client, over all listeners."""

    def __init__(self, most: int, each: int) -> None:
        self.most = most
        self.each = each
        self._networks: dict[Guest, str] = {}  # of everybody
        self._alike: Counter[str] = Counter()  # connections by network
        self._strangers: dict[str, dict[Guest, None]] = {}  # by network, who has got on longest ago first
        self._oldest: dict[Guest, None] = {}  # the same, over all networks

    def __len__(self) -> int:
        return len(self._networks)

    @property
    def strangers(self) -> int:
        """Connections that have not logged in."""
        return len(self._oldest)

    def arrive(self, guest: Guest, network: str, *, is_known: bool = False) -> Arrival[Guest]:
        """Somebody connects; who is known by his address is no stranger. Who is refused holds no place."""
        if self._alike[network] >= self.each:
            return Arrival(is_refused=True)
        leaves: Guest | None = None
        if len(self._networks) >= self.most or (not is_known and len(self._oldest) >= self.most // 2):
            if not self._oldest:
                return Arrival(is_refused=True)
            leaves = self._least(network)
        self._networks[guest] = network
        self._alike[network] += 1
        if not is_known:
            self._strangers.setdefault(network, {})[guest] = None
            self._oldest[guest] = None
        return Arrival(leaves=leaves)

    def got_on(self, guest: Guest) -> None:
        """A stranger has made a step towards a login."""
        if guest in self._oldest:
            alike = self._strangers[self._networks[guest]]
            for row in (alike, self._oldest):
                del row[guest]
                row[guest] = None

    def logged_in(self, guest: Guest) -> None:
        """He is no stranger any more."""
        if guest in self._oldest:
            self._forget_stranger(guest)

    def leave(self, guest: Guest) -> None:
        """His connection is over; who was refused has none."""
        network = self._networks.pop(guest, None)
        if network is None:
            return
        self._alike[network] -= 1
        if not self._alike[network]:
            del self._alike[network]
        if guest in self._oldest:
            self._forget_stranger(guest, network)

    def _least(self, network: str) -> Guest:
        """Who leaves for somebody from this network."""
        own = self._strangers.get(network, {})
        most = own
        if len(own) * len(self._strangers) <= len(self._oldest):  # he has no more than his part
            most = max(self._strangers.values(), key=len)
        return next(iter(most if len(most) > 1 else self._oldest))

    def _forget_stranger(self, guest: Guest, network: str = "") -> None:
        network = network or self._networks[guest]
        del self._oldest[guest]
        alike = self._strangers[network]
        del alike[guest]
        if not alike:
            del self._strangers[network]
