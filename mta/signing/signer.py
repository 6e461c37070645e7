"""The signer: the fields that say whose a message is.

Between: admission hands over what a plan says is to be signed; `delivery.contents` asks for what mail of our
    own gets when its transaction begins.
Contract: `sign` calls back once, in the loop, at once or some turns later, with `Signed`, or with the error
    that says why not. Little content is signed in the loop, `EACH_TURN` messages a turn; much, or with a key
    that was not used yet, in a thread. The first key of a plan must sign, which is RSA where its domain has
    one; others that cannot are left out. What is wrong with keys is in `complaints` until a look at them
    finds nothing.
Raises: nothing; SigningError goes to whoever waits.
Standards: RFC 6376 5 (signing), 6.1 (each signature stands for itself).
Why: RSA takes 0.25 to 0.8 ms with the GIL released, and yet threads are no gain: each waits for the GIL
    behind a busy loop, and the loop behind it. With eight messages a hop to two threads a message of 2 KiB
    took 0.61 ms of CPU more than an unsigned one, and 99 of 100 clients had their 250 after 25 ms at half
    load; in the loop it takes 0.40, more of them go through, and they have it after 8 (`python -m
    benchmarks.figures.acceptance`, two cores).
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

ASIDE = 128 * 1024  # octets; to canonicalise more takes more than a millisecond
EACH_TURN = 4  # messages that are signed in one turn of the event loop
LOOK_AGAIN = 10.0  # seconds between looks at what is wrong
MAX_TROUBLE = 100  # keys that are looked at again ...
LOOKS = 8  # ... so many at a time

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
        self._thread: ThreadPoolExecutor | None = None
        self._jobs: deque[_Job] = deque()
        self._left = EACH_TURN  # of this turn
        self._aside: deque[_Job] = deque()
        self._is_aside = False  # is one under way?
        self._secrets: dict[tuple[str, DomainKey], Secret] = {}
        self._trouble: dict[tuple[str, DomainKey], str] = {}
        bug = partial(metrics.bug, "signing", "a bug in a look at keys")
        self._every = Every(clock, LOOK_AGAIN, self._look_again, bug)

    def start(self) -> None:
        """Begin."""
        self._thread = ThreadPoolExecutor(1, "sign")
        self._every.start()

    def stop(self) -> None:
        """Nothing more comes; what is under way ends."""
        self._every.stop()
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    @property
    def complaints(self) -> list[str]:
        """Keys that cannot sign, and why."""
        return [f"the key {key.selector} of {name}: {why}" for (name, key), why in self._trouble.items()]

    def _look_again(self) -> None:
        """Is what was wrong with keys still so?"""
        for name, key in list(self._trouble)[:LOOKS]:
            domain = self._plans.get(name)
            if domain is None or key not in domain.signers or not self._keys.complaint(name, key):
                del self._trouble[name, key]

    def sign(self, plan: SigningPlan, content: bytes, done: Done) -> None:
        """Sign a content; `done` hears of it."""
        job = _Job(plan, content, int(self._clock.now()), done)
        if plan.error:
            self._end(job, SigningError(plan.error))
        elif len(content) > ASIDE or not all(signer in self._secrets for signer in plan.signers):
            self._aside.append(job)
            self._next_aside()
        elif self._left:
            self._now(job)
        else:
            self._jobs.append(job)

    def _now(self, job: _Job) -> None:
        """One of this turn of the loop; the first asks for the next turn."""
        if self._left == EACH_TURN:
            asyncio.get_running_loop().call_soon(self._turn)
        self._left -= 1
        self._end(job, self._signed(job))

    def _turn(self) -> None:
        """Another turn of the loop: what is ready on the sockets came in between."""
        self._left = EACH_TURN
        while self._jobs and self._left:
            self._now(self._jobs.popleft())

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

    def _next_aside(self) -> None:
        """One at a time; those in the loop wait for none of them."""
        if not self._aside or self._is_aside:
            return
        job, self._is_aside = self._aside.popleft(), True
        loop = asyncio.get_running_loop()
        try:
            hop = loop.run_in_executor(self._thread, self._signed, job)
        except Exception as error:  # no thread can be started
            self._metrics.bug("signing", "a thread cannot begin", error)
            loop.call_soon(self._back, job, None)
        else:
            hop.add_done_callback(partial(self._back, job))

    def _back(self, job: _Job, hop: asyncio.Future[Signed | SigningError] | None) -> None:
        self._is_aside = False
        self._next_aside()
        failed = hop is None or hop.cancelled() or hop.exception() is not None
        self._end(job, SigningError("a fault of ours") if failed or hop is None else hop.result())

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

    # In the loop, or in the thread

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
