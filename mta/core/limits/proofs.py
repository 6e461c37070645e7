"""What was proved of late: which client network holds the secret of which login.

Between: authentication keeps each success, and asks before it limits anybody.
Contract: pure; times are seconds handed in by the caller. A proof is good for 30 days from its last use. A
    fingerprint is what the caller compares secrets by; "" stands for a secret that no guess is compared with.
    What is remembered can be tried against 1,000 times in ten minutes by those who share the network of who
    proved it; then it is no longer compared. Bounded: where there is no room the login with the most
    networks gives up the one that it has not used for longest.
Raises: nothing.
Why: a stranger cannot make a proof, so it is what sets an owner apart from those who guess at his login,
    or from the same address.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from mta.core.limits.throttle import Rate, RateLimit
from mta.core.model import Go

REMEMBERED = 30 * 86400.0  # seconds
GUESSES = Rate(1000, 600.0)  # at a fingerprint: a program with an old secret stays below, a search does not
BOUND = 65_536  # proofs


@dataclass(slots=True)
class _Proof:
    fingerprint: bytes
    until: float
    wrong: RateLimit = field(default_factory=lambda: RateLimit(GUESSES))


@dataclass(slots=True)
class _Network:
    proofs: int
    until: float


class Proofs:
    """The proofs, by login and client network."""

    def __init__(self, bound: int = BOUND) -> None:
        self._bound = bound
        self._logins: dict[bytes, OrderedDict[str, _Proof]] = {}
        self._clients: dict[str, _Network] = {}
        self._count = 0

    def keep(self, client: str, login: bytes, fingerprint: bytes, now: float) -> None:
        """It was proved, or used, now."""
        proofs = self._logins.setdefault(login, OrderedDict())
        until = now + REMEMBERED
        known = proofs.get(client)
        if known is not None:
            known.fingerprint, known.until = fingerprint, until
            proofs.move_to_end(client)
            self._clients[client].until = until
            return
        proofs[client] = _Proof(fingerprint, until)
        self._count += 1
        standing = self._clients.setdefault(client, _Network(0, until))
        standing.proofs += 1
        standing.until = until
        if self._count > self._bound:
            self._make_room(login)

    def matches(self, client: str, login: bytes, fingerprint: bytes, now: float) -> bool:
        """Is this what was proved? Then it is good for another 30 days."""
        proof = self._find(client, login, now)
        if proof is None or not isinstance(proof.wrong.ask(now), Go):
            return False
        if proof.fingerprint != fingerprint:
            proof.wrong.take(now)
            return False
        self.keep(client, login, fingerprint, now)
        return True

    def has(self, client: str, login: bytes, now: float) -> bool:
        """Has this client proved this login?"""
        return self._find(client, login, now) is not None

    def has_any(self, client: str, now: float) -> bool:
        """Has this client proved any login?"""
        standing = self._clients.get(client)
        return standing is not None and standing.until > now

    def _find(self, client: str, login: bytes, now: float) -> _Proof | None:
        proof = self._logins[login].get(client) if login in self._logins else None
        return proof if proof is not None and proof.until > now else None

    def _make_room(self, newest: bytes) -> None:
        # Whoever holds more than an even share gives; only a login that does not looks for another one.
        if len(self._logins[newest]) > max(self._bound // len(self._logins), 1):
            login = newest
        else:
            login = max(self._logins, key=lambda each: len(self._logins[each]))
        proofs = self._logins[login]
        client, _ = proofs.popitem(last=False)
        if not proofs:
            del self._logins[login]
        self._count -= 1
        self._clients[client].proofs -= 1
        if not self._clients[client].proofs:
            del self._clients[client]
