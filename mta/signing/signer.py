"""The signer: the fields that say whose a message is, made off the event loop.

Between: admission hands over what a plan says is to be signed; `delivery.contents` asks for what mail of our
    own gets when its transaction begins.
Contract: `sign` calls back once, in the loop, at once or later, with `Signed`, or with the error that says
    why not. RSA, and much content, is signed in threads, at most `BATCH` messages a hop; Ed25519 alone of
    little content at once, which takes less than the hop. The first key of a plan must sign, which is RSA
    where its domain has one; others that cannot are left out. What is wrong with keys is in `complaints`
    until a look at them finds nothing.
Raises: nothing; SigningError goes to whoever waits.
Standards: RFC 6376 5 (signing), 6.1 (each signature stands for itself).
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
from mta.core.domain import DomainKey
from mta.core.limits.budget import SIGNERS
from mta.core.mail import dkim
from mta.metrics import Metrics
from mta.signing.keys import KeyFileError, KeyFolder, Secret
from mta.signing.plans import Plans, Signers, SigningPlan

BATCH = 8  # messages a hop; RSA for these takes some 10 ms
BATCH_OCTETS = 256 * 1024  # of contents a hop, but for one that is larger
QUICK = 16 * 1024  # octets; of so little Ed25519 is quicker than a hop
LARGE = 1024 * 1024  # octets; such contents wait for each other, and nobody for them
TURNS = 8  # of the event loop, until a hop begins
HOPS = 2  # at once
LOOK_AGAIN = 10.0  # seconds between looks at what is wrong
MAX_TROUBLE = 100  # keys that are looked at again

log = logging.getLogger(__name__)


class SigningError(Exception):
    """A signature cannot be made now; the text says why, and is for clients."""


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

    def __init__(self, plans: Plans, keys: KeyFolder, host: str, clock: Clock, metrics: Metrics) -> None:
        self._plans = plans
        self._keys = keys
        self._host = host  # whose mail our own is
        self._clock = clock
        self._metrics = metrics
        self._threads: ThreadPoolExecutor | None = None
        self._jobs: deque[_Job] = deque()
        self._large: deque[_Job] = deque()
        self._hops = 0  # under way
        self._is_gathering = False
        self._is_large = False  # is one under way?
        self._secrets: dict[tuple[str, DomainKey], Secret] = {}
        self._trouble: dict[tuple[str, DomainKey], str] = {}
        bug = partial(metrics.bug, "signing", "a bug in a look at keys")
        self._every = Every(clock, LOOK_AGAIN, self._look_again, bug)

    def start(self) -> None:
        """Begin."""
        self._threads = ThreadPoolExecutor(HOPS + 1, "sign")
        self._every.start()

    def stop(self) -> None:
        """Nothing more comes; what is under way ends."""
        self._every.stop()
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None

    @property
    def complaints(self) -> list[str]:
        """Keys that cannot sign, and why."""
        return [f"the key {key.selector} of {name}: {why}" for (name, key), why in self._trouble.items()]

    def _look_again(self) -> None:
        """Is what was wrong with keys still so?"""
        for name, key in list(self._trouble)[:BATCH]:
            domain = self._plans.get(name)
            if domain is None or key not in domain.signers or not self._keys.complaint(name, key):
                del self._trouble[name, key]

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
        plan = self._plans.of((self._host,))
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
