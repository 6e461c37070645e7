"""Who is the client: a login and its secret, or its address alone -> a credential.

Between: the submission listener asks at AUTH, at the connection where the address is the credential, and by
    `look` and `still` before each message whether an open session may go on.
Contract: `verify` answers from the store as it is now. `look` is up to LOOK old (`revision` is what it
    said, so who has seen that need not ask), and so is `bound_to` for what is gone or has other terms. A
    network that was added counts at once where they are few; of many it may take READ more, and the time
    to read them in a thread. A wrong login, a wrong secret and a wrong network read the same and take the
    same time. What was proved from this very network is compared before any limit and costs no hash; a key
    is exempt, for nobody guesses 192 bits. Others are limited by `core.limits.guesses`: 454 with seconds
    to wait, and no hash is computed. Two hashes run and 256 wait: first those of clients that have proved
    the login, then by failures. Two of one client stand there by that order, more of it behind everybody's
    two; the last of all is told 454 where there is no room.
Raises: CredentialError where the store cannot be read; ValueError where the client has no numeric address.
Standards: RFC 4954 4, 6 (454 4.7.0, 535 5.7.8), RFC 5321 4.2.5, RFC 9106.
Why: whoever may guess without end finds the secret, and a limit that strangers can use up shuts the owner
    out. So the owner is told from strangers by what they cannot make: a proof from his network, or a
    network without a failure. Against one login one address gets 725 guesses on its first day (5, then one
    in 2 minutes), 40 addresses about 3,000, 1,000 addresses about 11,000: 2,900 for all of them while the
    login is not under attack, and 8 for each that it has (1 on later days). Who has 65,000 networks (an IPv6
    /48) gets as many as two threads can hash. Who shares the network of an owner may also compare 144,000 a
    day with what was proved there, which is why a password is long. For this the owner is never shut out
    where he has been in 30 days, nor on his first try from a network that has not failed lately: who
    mistypes there under attack waits for ten minutes. Behind a gateway whose clients fail without end a
    login that is new there waits.
    argon2 takes 0.1 s and 64 MiB, so what was proved is kept as an HMAC under a key of this process. The
    verifier is part of it: a changed secret is forgotten by itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import math
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from mta.clock import Clock, Every, Timer
from mta.core.credential import LONGEST_LOGIN, Credential
from mta.core.limits.guesses import Guesses
from mta.core.limits.proofs import Proofs
from mta.core.model import Reply, Wait
from mta.core.networks import Networks, client_network
from mta.store.credentials import CredentialStore, StoredCredential, proves_key, proves_password

THREADS = 2
WAITING = 256
LOOK = 0.1  # seconds between two looks at the store for open sessions and for clients without a login
READ = 0.5  # seconds between two looks whether the networks have to be read again
FEW = 64  # logins whose networks are read in the loop

log = logging.getLogger(__name__)


class Denial(NamedTuple):
    """Why not: `reason` is wrong, limited or busy."""

    reply: Reply
    reason: str


WRONG = Denial(Reply(535, "5.7.8", "Authentication credentials invalid"), "wrong")
BUSY = Denial(
    Reply(454, "4.7.0", "Temporary authentication failure: too many at once, try again in 5 seconds"), "busy"
)


@dataclass(eq=False, slots=True)
class _Hash:
    """A secret that is to be compared, and who waits for the answer."""

    fingerprint: bytes
    secret: bytes
    verifier: str
    client: str
    login: bytes
    proven: bool
    turn: int  # how many more than one of the same stood here when it came
    number: int
    answer: asyncio.Future[bool | Denial]


class Authenticator:
    """Answers AUTH and binds addresses; `open` it first, call `close` at the end."""

    def __init__(self, store: CredentialStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._impossible = store.impossible()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="argon2")
        self._secret = secrets.token_bytes(32)
        self._proofs = Proofs()
        self._guesses = Guesses()
        self._hashes: dict[bytes, _Hash] = {}  # by fingerprint: those that wait and those that run
        self._waiting: list[_Hash] = []
        self._running: list[_Hash] = []
        self._number = 0
        self.revision = 0  # of the store, at a look in the last LOOK seconds; 0: one has to look again
        self._stale: Timer | None = None
        self._networks = Networks()
        self._read = 0  # revision that the networks were read at
        self._reading: asyncio.Future[Networks] | None = None
        self._complaint = ""
        self._reader = Every(clock, READ, self._read_changed, self._complain)

    async def open(self) -> None:
        """Read the networks, and go on to."""
        revision = self._look()
        self._take(revision, await asyncio.to_thread(self._read_networks))
        self._reader.start()

    def close(self) -> None:
        self._reader.stop()
        if self._stale is not None:
            self._stale.cancel()
        self._waiting.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    # Open sessions

    def look(self) -> int:
        """Another number than before if any credential was changed; up to LOOK seconds late."""
        return self.revision or self._look()

    def still(self, login: str, verifier: str, client_ip: str) -> Credential | None:
        """The credential of an open session as it is by now; None: it is over."""
        stored = self._store.find(login)
        if stored is None or stored.verifier != verifier:
            return None
        return stored.credential if stored.credential.allows_client(client_ip) else None

    def has_proved(self, client_ip: str) -> bool:
        """Has this client network proved any login in the last 30 days?"""
        now = self._clock.monotonic()
        return bool(client_ip) and self._proofs.has_any(client_network(client_ip), now)

    def _look(self) -> int:
        self.revision = self._store.look()
        if self._stale is None:
            self._stale = self._clock.call_later(LOOK, self._forget)
        return self.revision

    def _forget(self) -> None:
        self._stale, self.revision = None, 0

    # Addresses

    def bound_to(self, client_ip: str) -> Credential | None:
        """The credential of the most specific network that the client is in."""
        self.look()
        found = self._find_bound(client_ip)
        if found is None and self._read != self._look():  # it may have been added a moment ago
            networks = self._store.bound(FEW + 1)
            if len({login for _, login in networks}) <= FEW:
                self._take(self.revision, Networks(networks))
                found = self._find_bound(client_ip)
        return found

    def _find_bound(self, client_ip: str) -> Credential | None:
        for network, login in self._networks.find(client_ip):
            stored = self._store.find(login)
            if stored and stored.credential.kind == "network" and network in stored.credential.networks:
                return stored.credential
        return None

    def _read_changed(self) -> None:
        revision = self._look()
        if self._reading is None and revision != self._read:
            self._reading = asyncio.get_running_loop().run_in_executor(None, self._read_networks)
            self._reading.add_done_callback(partial(self._have_read, revision))

    def _read_networks(self) -> Networks:
        return Networks(self._store.bound())

    def _have_read(self, revision: int, reading: asyncio.Future[Networks]) -> None:
        self._reading = None
        if reading.cancelled():
            return
        if (error := reading.exception()) is not None:
            self._complain(error)
        else:
            self._take(revision, reading.result())

    def _take(self, revision: int, networks: Networks) -> None:
        self._complaint = ""
        if revision >= self._read:
            self._read, self._networks = revision, networks

    def _complain(self, error: BaseException) -> None:
        """The former ones serve; it is tried again, and told once."""
        if str(error) != self._complaint:
            self._complaint = str(error)
            log.error("the networks that are credentials cannot be read: %s", error)

    # Logins

    async def verify(self, login: bytes, secret: bytes, client_ip: str) -> StoredCredential | Denial:
        """Whose login and secret are these?"""
        self._look()
        stored = self._find(login, client_ip)
        client, name, now = client_network(client_ip), login[:LONGEST_LOGIN], self._clock.monotonic()
        if stored and stored.credential.kind == "key" and proves_key(secret, stored.verifier):
            self._proofs.keep(client, name, b"", now)
            return stored
        # Every failure costs one hash, whether the login exists or not.
        verifier = stored.verifier if stored and stored.credential.kind == "password" else self._impossible
        fingerprint = self._fingerprint(verifier.encode(), client.encode(), login, secret)
        if stored and self._proofs.matches(client, name, fingerprint, now):
            return stored
        proven = self._proofs.has(client, name, now)
        if isinstance(wait := self._guesses.ask(client, name, proven, now), Wait):
            return _limited(wait.until - now)
        hashed = self._hashes.get(fingerprint)
        if hashed is None:
            hashed = self._line_up(fingerprint, secret, verifier, client, name, proven)
        # Shielded: a client that hangs up must neither escape its failure nor take others' answer away.
        proved = await asyncio.shield(hashed.answer)
        if isinstance(proved, Denial):
            return proved
        self._look()
        again = self._find(login, client_ip)  # it may have been removed or changed meanwhile
        return again if proved and again and again.verifier == verifier else WRONG

    def _find(self, login: bytes, client_ip: str) -> StoredCredential | None:
        if len(login) > LONGEST_LOGIN:
            return None
        try:
            stored = self._store.find(login.decode())
        except UnicodeDecodeError:
            return None
        if stored is None or stored.credential.kind == "network":
            return None
        return stored if stored.credential.allows_client(client_ip) else None

    def _fingerprint(self, *parts: bytes) -> bytes:
        # Logins and secrets may hold any octet: the lengths part them.
        whole = b"".join(b"%d:%b" % (len(part), part) for part in parts)
        return hmac.digest(self._secret, whole, hashlib.sha256)

    # Hashes

    def _line_up(
        self, fingerprint: bytes, secret: bytes, verifier: str, client: str, login: bytes, proven: bool
    ) -> _Hash:
        alike = sum(
            each.client == client and each.proven == proven and (each.login == login or not proven)
            for each in self._hashes.values()
        )
        self._number += 1
        hashed = _Hash(
            fingerprint, secret, verifier, client, login, proven, max(alike - 1, 0), self._number,
            asyncio.get_running_loop().create_future(),
        )  # fmt: skip
        self._hashes[fingerprint] = hashed
        self._waiting.append(hashed)
        self._start()
        if len(self._waiting) > WAITING:
            worst = max(self._waiting, key=self._rank)
            self._waiting.remove(worst)
            self._answer(worst, BUSY)
        return hashed

    def _rank(self, hashed: _Hash) -> tuple[bool, int, int, int]:
        failures = 0 if hashed.proven else self._guesses.failures(hashed.client, self._clock.monotonic())
        return not hashed.proven, failures, hashed.turn, hashed.number

    def _start(self) -> None:
        """Let the first of those that wait have what threads are free."""
        while len(self._running) < THREADS and (ready := list(filter(self._is_ready, self._waiting))):
            hashed = min(ready, key=self._rank)
            self._waiting.remove(hashed)
            now = self._clock.monotonic()
            # Others of the same client have failed while it waited.
            wait = self._guesses.ask(hashed.client, hashed.login, hashed.proven, now)
            if isinstance(wait, Wait):
                self._answer(hashed, _limited(wait.until - now))
                continue
            loop = asyncio.get_running_loop()
            running = loop.run_in_executor(self._pool, proves_password, hashed.secret, hashed.verifier)
            self._running.append(hashed)
            running.add_done_callback(partial(self._settle, hashed))

    def _is_ready(self, hashed: _Hash) -> bool:
        """A client that has failed goes one by one: each failure counts before the next try."""
        return not self._guesses.failures(hashed.client, self._clock.monotonic()) or all(
            each.client != hashed.client for each in self._running
        )

    def _settle(self, hashed: _Hash, running: asyncio.Future[bool]) -> None:
        self._running.remove(hashed)
        if running.cancelled():
            hashed.answer.cancel()
            return
        client, login, now = hashed.client, hashed.login, self._clock.monotonic()
        if (error := running.exception()) is not None:  # it is nobody's failed guess
            del self._hashes[hashed.fingerprint]
            hashed.answer.set_exception(error)
            hashed.answer.exception()  # perhaps nobody waits
        else:
            if running.result():
                self._guesses.succeeded(client, login)
                self._proofs.keep(client, login, hashed.fingerprint, now)
            else:
                self._guesses.failed(client, login, hashed.proven, now)
            self._answer(hashed, running.result())
        self._start()

    def _answer(self, hashed: _Hash, answer: bool | Denial) -> None:
        del self._hashes[hashed.fingerprint]
        hashed.answer.set_result(answer)


def _limited(seconds: float) -> Denial:
    text = f"Temporary authentication failure: too many failed, try again in {math.ceil(seconds)} seconds"
    return Denial(Reply(454, "4.7.0", text), "limited")
