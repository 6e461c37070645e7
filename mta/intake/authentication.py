"""Who is the client: a login and its secret, or its address alone -> a credential.

Between: the submission listener asks at AUTH, and at the connection where the address is the credential.
Contract: `verify` answers from the store as it is at that moment, `bound_to` as it was at most a tenth
    of a second ago. A wrong login, a wrong secret and a wrong network read the same and take the same
    time. After 5 failures in 10 minutes of one login or one client network the answer is 454 with
    seconds to wait, and no hash is computed; a key is exempt, for nobody guesses 192 bits. At most 2
    hashes run and 32 wait; one more is 454.
Raises: CredentialError where the store cannot be read; ValueError where the client has no numeric address.
Standards: RFC 4954 4, 6 (454 4.7.0, 535 5.7.8), RFC 5321 4.2.5.
Why: argon2 takes 0.1 s and 64 MiB, so a success is remembered for 10 minutes by an HMAC under a key of
    this process. The verifier and the client's address are part of it: a changed secret is forgotten
    by itself, and nobody can guess from elsewhere against what is remembered.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import NamedTuple, TypeVar

from mta.clock import Clock
from mta.core.credential import (
    LONGEST_LOGIN,
    Credential,
    Network,
    client_address,
    client_network,
    parse_networks,
)
from mta.core.model import Go, Reply, Wait
from mta.core.throttle import GO, Rate, RateLimit
from mta.spool.credentials import CredentialStore, StoredCredential, proves_key, proves_password

THREADS = 2
WAITING = 32
FAILURES = Rate(5, 600.0)  # and one more every 2 minutes after that
REMEMBERED = 600.0  # seconds
BOUND = 4096  # entries of each table
LOOK = 0.1  # seconds between two looks at the store for clients without a login: a look costs 40 us

_K = TypeVar("_K")
_V = TypeVar("_V")


class Refusal(NamedTuple):
    """Why not: `reason` is wrong, limited or busy."""

    reply: Reply
    reason: str


WRONG = Refusal(Reply(535, "5.7.8", "Authentication credentials invalid"), "wrong")
BUSY = Refusal(
    Reply(454, "4.7.0", "Temporary authentication failure: too many at once, try again in 5 seconds"), "busy"
)


class Authenticator:
    """Answers AUTH and binds addresses; call `close` at the end."""

    def __init__(self, store: CredentialStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._impossible = store.impossible()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="argon2")
        self._running: dict[bytes, asyncio.Future[bool]] = {}
        self._secret = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, float] = OrderedDict()  # fingerprint -> until
        self._logins = Failures()
        self._clients = Failures()
        self._looked = -LOOK  # when the store was asked for what `_bound` knows
        self._seen: Mapping[str, StoredCredential] | None = None
        self._bound = lru_cache(BOUND)(_Bindings({}).find)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def bound_to(self, client_ip: str) -> Credential | None:
        """The credential of the most specific network that the client is in; up to LOOK seconds old."""
        now = self._clock.monotonic()
        if now < self._looked + LOOK:
            return self._bound(client_ip)
        self._looked = now
        current = self._store.current()
        if current is not self._seen:
            self._seen = current
            self._bound = lru_cache(BOUND)(_Bindings(current).find)
        return self._bound(client_ip)

    async def verify(self, login: bytes, secret: bytes, client_ip: str) -> Credential | Refusal:
        """Whose login and secret are these?"""
        stored = self._find(login, client_ip)
        if stored and stored.credential.kind == "key" and proves_key(secret, stored.verifier):
            return stored.credential
        # Every failure costs one hash, whether the login exists or not.
        verifier = stored.verifier if stored and stored.credential.kind == "password" else self._impossible
        client, name, now = client_network(client_ip), login[:LONGEST_LOGIN], self._clock.monotonic()
        if isinstance(wait := self._clients.ask(client, now), Wait):
            return _limited(wait.until - now)
        fingerprint = self._fingerprint(login, verifier.encode(), client_ip.encode(), secret)
        if stored and self._remembered.get(fingerprint, now) > now:
            return stored.credential
        if isinstance(wait := self._logins.ask(name, now), Wait):
            return _limited(wait.until - now)
        running = self._running.get(fingerprint)
        if running is None:
            if len(self._running) >= THREADS + WAITING:
                return BUSY
            running = self._start(fingerprint, secret, verifier, client, name)
        # Shielded: a client that hangs up must neither escape its failure nor take others' answer away.
        proved = await asyncio.shield(running)
        again = self._find(login, client_ip)  # it may have been removed or changed meanwhile
        return again.credential if proved and again and again.verifier == verifier else WRONG

    def _find(self, login: bytes, client_ip: str) -> StoredCredential | None:
        try:
            stored = self._store.current().get(login.decode())
        except UnicodeDecodeError:
            return None
        if stored is None or stored.credential.kind == "network":
            return None
        return stored if stored.credential.allows_client(client_ip) else None

    def _fingerprint(self, *parts: bytes) -> bytes:
        return hmac.digest(self._secret, b"\0".join(parts), hashlib.sha256)

    def _start(
        self, fingerprint: bytes, secret: bytes, verifier: str, client: str, name: bytes
    ) -> asyncio.Future[bool]:
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._pool, proves_password, secret, verifier)
        self._running[fingerprint] = running
        running.add_done_callback(partial(self._settle, fingerprint, client, name))
        return running

    def _settle(self, fingerprint: bytes, client: str, name: bytes, running: asyncio.Future[bool]) -> None:
        del self._running[fingerprint]
        if running.cancelled() or running.exception() is not None:
            return  # whoever waits gets the exception; it is nobody's failed guess
        now = self._clock.monotonic()
        if running.result():
            self._logins.forget(name)  # not the client: its owner may guess at others' logins
            _keep(self._remembered, fingerprint, now + REMEMBERED)
        else:
            self._logins.count(name, now)
            self._clients.count(client, now)


class Failures:
    """Failed attempts by login or by client; the one that failed longest ago makes room."""

    def __init__(self) -> None:
        self._limits: OrderedDict[str | bytes, RateLimit] = OrderedDict()

    def ask(self, key: str | bytes, now: float) -> Go | Wait:
        limit = self._limits.get(key)
        return limit.ask(now) if limit else GO

    def count(self, key: str | bytes, now: float) -> None:
        limit = self._limits.get(key) or RateLimit(FAILURES, now)
        limit.take(now)
        _keep(self._limits, key, limit)

    def forget(self, key: str | bytes) -> None:
        self._limits.pop(key, None)


class _Bindings:
    """The networks that are credentials, the most specific first."""

    def __init__(self, current: Mapping[str, StoredCredential]) -> None:
        bound: list[tuple[Network, Credential]] = [
            (network, credential)
            for credential, _ in current.values()
            if credential.kind == "network"
            for network in parse_networks(credential.networks)
        ]
        self._bound = sorted(bound, key=lambda pair: pair[0].prefixlen, reverse=True)

    def find(self, client_ip: str) -> Credential | None:
        client = client_address(client_ip)
        return next((credential for network, credential in self._bound if client in network), None)


def _keep(table: OrderedDict[_K, _V], key: _K, value: _V) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > BOUND:
        table.popitem(last=False)


def _limited(seconds: float) -> Refusal:
    text = f"Temporary authentication failure: too many failed, try again in {math.ceil(seconds)} seconds"
    return Refusal(Reply(454, "4.7.0", text), "limited")
