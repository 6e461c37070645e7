"""The signer: who signs a message, and the fields that say so.

Between: admission asks for a `SigningPlan` as a message comes in, and hands the content over;
    `delivery.contents` asks for what mail of our own gets when its transaction begins.
Contract: a plan says who signs, from memory, in the loop; None is nobody. `sign` calls back once, in the
    loop, at once or later, with `Signed`, or with the error that says why not. RSA, and much content, is
    signed in threads, at most `BATCH` messages a hop; Ed25519 alone of little content at once, which takes
    less than the hop. The first key of the domain in From must sign, RSA where it has one; what others
    cannot is left out. What is wrong with keys is in `complaints` until a look at them finds nothing.
Raises: nothing; SigningError goes to whoever waits.
Standards: RFC 6376 5 (signing), 5.1 (who may), 6.1 (each signature stands for itself).
Why: a hop to a thread costs 61 us alone, and 7 shared by eight; RSA takes 0.25 to 0.8 ms, in which the GIL
    is free. So what comes in the turns of the loop that the spool waits anyway goes together.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from mta.clock import Clock, Every
from mta.config.policy import Current
from mta.config.settings import IdentitySettings
from mta.core.domain import DomainKey, SendingDomain
from mta.core.limits.budget import SIGNERS
from mta.core.mail import dkim
from mta.metrics import Metrics
from mta.signing.keys import KeyFileError, KeyFolder, Secret
from mta.store.database import StoreError
from mta.store.domains import DomainStore

BATCH = 8  # messages a hop; RSA for these takes some 10 ms
BATCH_OCTETS = 256 * 1024  # of contents a hop, but for one that is larger
QUICK = 16 * 1024  # octets; of so little Ed25519 is quicker than a hop
LARGE = 1024 * 1024  # octets; such contents wait for each other, and nobody for them
TURNS = 8  # of the event loop, until a hop begins
HOPS = 2  # at once
LOOK = 0.1  # seconds between looks at the store
LOOK_AGAIN = 10.0  # seconds between looks at what is wrong
MAX_TROUBLE = 100  # keys that are looked at again

Signers = tuple[tuple[str, DomainKey], ...]  # domains and keys

log = logging.getLogger(__name__)


class SigningError(Exception):
    """A signature cannot be made now; the text says why, and is for clients."""


class SigningPlan(NamedTuple):
    """Who signs a message."""

    domain: SendingDomain | None  # whose settings hold: that of the From field, else the default
    signers: Signers
    error: str = ""  # why nobody can

    @property
    def return_path(self) -> str:
        """The domain that bounces go to; "" where the client's sender stays."""
        return "" if self.domain is None else self.domain.return_path

    @property
    def may_go_unsigned(self) -> bool:
        """Does the domain say so?"""
        return self.domain is not None and self.domain.unsigned == "send"


class Signed(NamedTuple):
    """A content with its signatures on top."""

    content: bytes
    body_hash: bytes = b""
    reason: str = ""  # why it has none, where its domain lets it go


Done = Callable[[Signed | SigningError], None]


class _Job(NamedTuple):
    plan: SigningPlan
    content: bytes
    t: int
    done: Done


class Signer:
    """Signs for all domains."""

    def __init__(
        self, store: DomainStore, keys: KeyFolder, current: Current, clock: Clock, metrics: Metrics
    ) -> None:
        self._store = store
        self._keys = keys
        self._current = current
        self._clock = clock
        self._metrics = metrics
        self._threads: ThreadPoolExecutor | None = None
        self._jobs: deque[_Job] = deque()
        self._large: deque[_Job] = deque()
        self._hops = 0  # under way
        self._is_gathering = False
        self._is_large = False  # is one under way?
        self._looked = -LOOK  # monotonic
        self._revision = -1
        self._plans: dict[str, SigningPlan | None] = {}
        self._secrets: dict[tuple[str, DomainKey], Secret] = {}
        self._searched = False
        self._is_idle = True  # nobody signs
        self._closed = ""  # why the store cannot be asked
        self._lost: frozenset[str] = frozenset()  # domains that have secrets, and are not in the store
        self._trouble: dict[tuple[str, DomainKey], str] = {}
        bug = partial(metrics.bug, "signing", "a bug in a look at keys")
        self._every = Every(clock, LOOK_AGAIN, self._look_again, bug)

    def start(self) -> None:
        """Begin; a store that cannot be opened is tried again."""
        self._threads = ThreadPoolExecutor(HOPS + 1, "sign")
        self.reopen()
        self._every.start()

    def stop(self) -> None:
        """Nothing more comes; what is under way ends."""
        self._every.stop()
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None
        self._store.close()

    def reopen(self) -> None:
        """The store is another file now."""
        self._store.close()
        self._looked = -LOOK
        self._look()

    @property
    def complaints(self) -> list[str]:
        """Whom mail is refused for, and why."""
        wrong = [f"who signs is not known: {self._closed}"] if self._closed else []
        wrong += [f"mail for {name} cannot be signed: {_lost(name)}" for name in sorted(self._lost)]
        for key, name in (("default", self._identity.default), ("second", self._identity.second)):
            if name is not None and not self._closed and self._get(name) is None:
                wrong.append(f"identity.{key} is {name}, which nobody has added: mta domain add {name}")
        return wrong + [
            f"the key {key.selector} of {name}: {why}" for (name, key), why in self._trouble.items()
        ]

    @property
    def _identity(self) -> IdentitySettings:
        return self._current.policy.settings.identity

    @property
    def known(self) -> int:
        """From domains whose signer is remembered."""
        return len(self._plans)

    # Who signs

    @property
    def is_in_use(self) -> bool:
        """Does anybody sign, or should?"""
        self._look()
        return not self._is_idle

    def plan(self, authors: tuple[str, ...]) -> SigningPlan | None:
        """Who signs what has these domains in its From field: the first of them that was added."""
        if self._clock.monotonic() - self._looked >= LOOK:
            self._look()
        if self._is_idle:
            return None
        if len(authors) > 1:
            authors = tuple(name for name in authors if self.domain(name) or self._is_lost(name)) or authors
        name = authors[0] if authors else ""
        try:
            return self._plans[name]
        except KeyError:
            pass
        plan = self._made(name)
        if plan is None or not plan.error:
            if len(self._plans) >= SIGNERS:
                self._plans.clear()
            self._plans[name] = plan
        return plan

    def domain(self, author: str) -> SendingDomain | None:
        """Whose mail it is that has this domain in From, as it was when a plan was asked for last."""
        if self._is_idle:
            return None
        try:
            return self._store.find(author)
        except StoreError:
            return None  # `plan` says why

    def _made(self, name: str) -> SigningPlan | None:
        if self._is_lost(name):
            return SigningPlan(None, (), self._closed or _lost(name))
        if self._closed:
            return None  # nobody was ever added who could be this one
        try:
            first = self._store.find(name)
            if first is None and self._identity.default is not None:
                first = self._store.get(self._identity.default)
                if first is None:
                    return SigningPlan(None, (), f"identity.default, {self._identity.default}, was not added")
            second = None if self._identity.second is None else self._store.get(self._identity.second)
        except StoreError as error:
            log.error("who signs for %s is not known: %s", name, error)
            return SigningPlan(None, (), f"what is kept of {name} cannot be read")
        if first is not None and not first.signers:
            return SigningPlan(first, (), f"no key of {first.name} is active")
        signers = [(each.name, key) for each in (first, second) if each is not None for key in each.signers]
        return SigningPlan(first, tuple(dict.fromkeys(signers))) if signers else None

    def _get(self, name: str) -> SendingDomain | None:
        try:
            return self._store.get(name)
        except StoreError:
            return None

    def _is_lost(self, name: str) -> bool:
        """It or a domain above it is: that may have been for those below."""
        labels = name.split(".")
        return bool(self._lost) and any(".".join(labels[n:]) in self._lost for n in range(len(labels)))

    def _look(self) -> None:
        now = self._clock.monotonic()
        if now - self._looked < LOOK:
            return
        self._looked = now
        try:
            if not self._store.is_open:
                self._store.open()
            revision = self._store.look()
        except StoreError as error:
            if not self._closed:
                log.error(
                    "who signs is not known: %s; mail that may be to be signed waits at its client", error
                )
                self._closed = str(error)
                self._search()
                self._judge()
            return
        if revision != self._revision or self._closed:
            self._revision, self._closed = revision, ""
            self._plans.clear()
            if self._lost or not self._searched:
                self._search()
            self._judge()

    def adopted(self, *_: object) -> None:
        """The settings have changed."""
        self._plans.clear()
        self._judge()

    def _judge(self) -> None:
        nobody = self._store.is_empty and not self._lost and not self._closed
        self._is_idle = nobody and self._identity.is_silent

    def _search(self) -> None:
        """Find domains that have secrets, and are not in the store: it was lost, or cannot be read."""
        self._searched = True
        known: frozenset[str] = frozenset()
        try:
            if not self._closed:
                known = self._store.names()
            self._lost = frozenset(self._keys.domains) - known
        except (KeyFileError, StoreError) as error:
            log.error("%s", error)

    def _look_again(self) -> None:
        """Is what was wrong with keys still so?"""
        for name, key in list(self._trouble)[:BATCH]:
            domain = self._get(name)
            if domain is None or key not in domain.signers or not self._keys.complaint(name, key):
                del self._trouble[name, key]

    # Signing

    def sign(self, plan: SigningPlan, content: bytes, done: Done) -> None:
        """Sign a content; `done` hears of it."""
        job = _Job(plan, content, int(self._clock.now()), done)
        if plan.error:
            self._end(job, SigningError(plan.error))
        elif len(content) <= QUICK and self._is_quick(plan):
            self._end(job, self._signed(job))
        elif len(content) > LARGE:
            self._large.append(job)
            self._next_large()
        else:
            self._jobs.append(job)
            if len(self._jobs) >= BATCH:
                self._hop()
            elif not self._is_gathering:
                self._is_gathering = True
                self._wait(TURNS)

    async def own(self, content: bytes) -> bytes:
        """Mail of our own, signed by whoever signs for our host name.

        Raises: SigningError.
        """
        plan = self.plan((self._current.policy.settings.hostname,))
        if plan is None:
            return content
        waiter: asyncio.Future[Signed | SigningError] = asyncio.get_running_loop().create_future()
        self.sign(plan, content, waiter.set_result)
        answer = await asyncio.shield(waiter)
        if isinstance(answer, SigningError):
            raise answer
        return answer.content

    def _is_quick(self, plan: SigningPlan) -> bool:
        if len(plan.signers) != 1:
            return False
        return plan.signers[0][1].algorithm == "ed25519-sha256" and plan.signers[0] in self._secrets

    def _wait(self, turns: int) -> None:
        """What is ready on the sockets comes along."""
        if turns and self._jobs:
            asyncio.get_running_loop().call_soon(self._wait, turns - 1)
            return
        self._is_gathering = False
        if self._jobs:
            self._hop()

    def _hop(self) -> None:
        """A thread takes the next ones, if one is free."""
        if self._hops >= HOPS or not self._jobs:
            return
        batch: list[_Job] = []
        octets = 0
        while self._jobs and len(batch) < BATCH:
            octets += len(self._jobs[0].content)
            if batch and octets > BATCH_OCTETS:
                break
            batch.append(self._jobs.popleft())
        self._hops += 1
        self._in_thread(batch, self._landed)

    def _landed(self) -> None:
        self._hops -= 1
        self._hop()

    def _next_large(self) -> None:
        if self._large and not self._is_large:
            self._is_large = True
            self._in_thread([self._large.popleft()], self._large_landed)

    def _large_landed(self) -> None:
        self._is_large = False
        self._next_large()

    def _in_thread(self, batch: list[_Job], landed: Callable[[], None]) -> None:
        try:
            hop = asyncio.get_running_loop().run_in_executor(
                self._threads, lambda: [self._signed(job) for job in batch]
            )
        except Exception as error:  # no thread can be started
            self._metrics.bug("signing", "a hop cannot begin", error)
            asyncio.get_running_loop().call_soon(self._fell, batch, landed)
        else:
            hop.add_done_callback(partial(self._back, batch, landed))

    def _fell(self, batch: list[_Job], landed: Callable[[], None]) -> None:
        landed()
        for job in batch:
            self._end(job, SigningError("a fault of ours"))

    def _back(
        self, batch: list[_Job], landed: Callable[[], None], hop: asyncio.Future[list[Signed | SigningError]]
    ) -> None:
        if hop.cancelled() or hop.exception() is not None:
            self._fell(batch, landed)
            return
        landed()
        for job, answer in zip(batch, hop.result(), strict=True):
            self._end(job, answer)

    def _end(self, job: _Job, answer: Signed | SigningError) -> None:
        if isinstance(answer, SigningError):
            self._metrics.signing_failed.inc()
            if job.plan.may_go_unsigned:
                answer = Signed(job.content, reason=f"unsigned: {answer}")
        else:
            self._metrics.signed.inc()
        try:
            job.done(answer)
        except Exception as error:
            self._metrics.bug("signing", "a bug behind a signature", error)

    # In a thread, but for what is quick

    def _signed(self, job: _Job) -> Signed | SigningError:
        try:
            with_secrets = list(self._with_secrets(job.plan.signers))
            if with_secrets[0][2] is None:
                domain, selector, _ = with_secrets[0]
                return SigningError(f"the key {selector} of {domain} cannot be used")
            prepared = dkim.prepare(job.content)
            fields = [
                _field(prepared, domain, selector, secret, job.t)
                for domain, selector, secret in with_secrets
                if secret is not None
            ]
            return Signed(b"".join((*fields, job.content)), prepared.body_hash)
        except Exception as error:
            self._metrics.bug("signing", "a bug over a signature", error)
            return SigningError("a fault of ours")

    def _with_secrets(self, signers: Signers) -> Iterator[tuple[str, str, Secret | None]]:
        for signer in signers:
            domain, key = signer
            secret = self._secrets.get(signer)
            if secret is None:
                try:
                    secret = self._keys.find(domain, key)
                except KeyFileError as error:
                    self._complain(signer, str(error))
                else:
                    if len(self._secrets) >= SIGNERS:
                        self._secrets.clear()
                    self._secrets[signer] = secret
            yield domain, key.selector, secret

    def _complain(self, signer: tuple[str, DomainKey], why: str) -> None:
        if self._trouble.get(signer) != why and len(self._trouble) < MAX_TROUBLE:
            self._trouble[signer] = why
            log.error("the key %s of %s: %s", signer[1].selector, signer[0], why)


def _field(prepared: dkim.Prepared, domain: str, selector: str, secret: Secret, t: int) -> bytes:
    field, octets = dkim.to_sign(prepared, secret.algorithm, domain, selector, t)
    return dkim.signed(field, secret.sign(octets))


def _lost(name: str) -> str:
    return f"its settings are lost: restore store.db, or mta domain add {name}"
