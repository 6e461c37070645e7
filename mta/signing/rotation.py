"""Rotation: keys from their birth to their end.

Between: `mta domain` makes keys here; in the daemon a round a minute looks at those that may move.
Contract: a pending key signs once each authoritative server shows its record; the one that it takes over from
    stays published until no mail that it signed can be on its way: for the longest lifetime of a stream, and
    while older mail is in the queue. Then its secret is removed, and its record is to say `p=`. A key that
    signs is followed by a new one at the age `identity.rotate`. Each step is an event (`state`) that says
    what to publish. Nothing here waits in the way of mail.
Raises: KeyFileError from `make` and `adopt`; a round raises nothing.
Standards: RFC 6376 3.6.1 (an empty p=), 6.1.2 (keys and mail that is late), RFC 6781 4.1 (rolling over).
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar

from mta.clock import Clock, Every
from mta.config.policy import Current
from mta.core.domain import (
    MAX_KEYS,
    Algorithm,
    DomainKey,
    KeyMoveError,
    KeyState,
    SendingDomain,
    activated,
    changed,
    new_selector,
)
from mta.core.event import Event, Type, rfc3339
from mta.dns.authority import Authority
from mta.metrics import Metrics
from mta.signing.keys import KeyFileError, KeyFolder, Secret, generate, prove
from mta.store import domains
from mta.store.database import Database, StoreError

ROUND = 60.0  # seconds
SOONEST, LATEST = 60.0, 900.0  # seconds between two looks at a record that is not there yet
AT_ONCE = 8  # domains that are looked at
MARGIN = 86400.0  # seconds that a key stays published beyond the life of its mail: receivers queue, too
SEEN = 3600.0  # seconds that we must have seen a key retire, whatever the wall clock says
REMIND = 86400.0  # seconds between two words about what does not move
MAX_WAITING = 10_000  # keys whose record is looked for

Result = TypeVar("Result")

log = logging.getLogger(__name__)


def make(
    keys: KeyFolder, domain: SendingDomain, what: Algorithm | Secret, now: float, selector: str | None = None
) -> SendingDomain:
    """The domain with a new key, whose secret is on disk: its first of that kind signs at once."""
    secret = what if isinstance(what, Secret) else generate(what)
    taken = {key.selector for key in domain.keys} | {found for _, found in keys.selectors(domain.name)}
    if selector is None:
        selector = new_selector(secret.algorithm, datetime.fromtimestamp(now, UTC).strftime("%Y%m%d"), taken)
    elif selector in taken:
        raise KeyMoveError(f"{domain.name} has a key {selector!r} already: take another selector")
    state = _first_state(domain.signers, secret)
    new = DomainKey(selector, secret.algorithm, secret.public, state, now, now)
    made = changed(domain, [new])
    prove(secret, new.record)
    keys.keep(domain.name, new.selector, secret)
    return made


def adopt(keys: KeyFolder, domain: SendingDomain, now: float) -> SendingDomain:
    """The domain with the secrets that lie there for it: the oldest of each kind signs.

    Whether DNS ever showed the newer ones nobody knows any more; where it does, they follow by rotation.
    """
    active: list[DomainKey] = []
    waiting: list[DomainKey] = []
    for written, selector in keys.selectors(domain.name):
        secret = keys.load(domain.name, selector)
        state = _first_state(active, secret)
        found = DomainKey(selector, secret.algorithm, secret.public, state, now, written)
        (active if state is KeyState.ACTIVE else waiting).append(found)
    return changed(domain, (*active, *waiting[-(MAX_KEYS - len(active)) :]))


def _first_state(signers: Iterable[DomainKey], secret: Secret) -> KeyState:
    is_first = all(key.algorithm != secret.algorithm for key in signers)
    return KeyState.ACTIVE if is_first else KeyState.PENDING


class _Look(NamedTuple):
    """The next look at a pending key's record."""

    at: float  # monotonic
    wait: float
    told: float  # monotonic; when it was said last that the record is not there


class Rotation:
    """All domains' keys, while the daemon runs."""

    def __init__(
        self,
        database: Database,
        keys: KeyFolder,
        current: Current,
        authority: Authority,
        oldest: Callable[[], Awaitable[float | None]],
        report: Callable[[Iterable[Event]], None],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._database = database
        self._keys = keys
        self._current = current
        self._authority = authority
        self._oldest = oldest  # when the oldest message in the queue came in
        self._report = report
        self._clock = clock
        self._bug = partial(metrics.bug, "signing", "a bug in the rotation of keys")
        self._every = Every(clock, ROUND, self._begin, self._bug)
        self._looks: dict[tuple[str, str], _Look] = {}
        self._retiring: dict[tuple[str, str], float] = {}  # since when we have seen it so, monotonic
        self._failed: dict[str, float] = {}  # domains for which no key could be made, and when; monotonic
        self._round: asyncio.Task[None] | None = None

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """The first round is a minute away."""
        self._tasks = tasks
        self._every.start()

    def stop(self) -> None:
        """A round that is under way is broken off between its steps: each of them is whole."""
        self._every.stop()
        if self._round is not None:
            self._round.cancel()

    def _begin(self) -> None:
        if self._round is None or self._round.done():
            self._round = self._tasks.create_task(self._safely())

    async def _safely(self) -> None:
        try:
            await self.round()
        except StoreError:
            pass  # the signer tells it, and tries again
        except Exception as error:
            self._bug(error)

    async def round(self) -> None:
        """Tell what has become of keys, whoever did it; look at each that may move."""
        now = self._clock.now()
        for domain, key in await self._whole(self._database.run(domains.untold)):
            self._tell(domain, _step(domain, key))
        found = await self._database.run(lambda connection: domains.moving(connection, self._older(now)))
        names = {(each.name, key.selector) for each in found for key in each.keys}
        self._looks = {each: look for each, look in self._looks.items() if each in names}
        self._retiring = {each: since for each, since in self._retiring.items() if each in names}
        permits = asyncio.Semaphore(AT_ONCE)

        async def one(domain: SendingDomain) -> None:
            async with permits:
                await self._move(domain, now)

        for raised in await asyncio.gather(*map(one, found), return_exceptions=True):
            if isinstance(raised, Exception):
                self._bug(raised)

    async def _whole(self, step: Coroutine[Any, Any, Result]) -> Result:
        """Who is cancelled leaves nothing half done behind."""
        answer = await asyncio.shield(self._tasks.create_task(_answered(step)))
        if isinstance(answer, _Raised):
            raise answer.error
        return answer

    def _older(self, now: float) -> tuple[float, float]:
        """When a key began to sign, or to retire, that may move on now."""
        policy = self._current.policy
        rotate = policy.settings.identity.rotate
        return (now - rotate if rotate else 0.0, now - max(policy.lifetimes.values()) - MARGIN)

    async def _move(self, domain: SendingDomain, now: float) -> None:
        aged, over = self._older(now)
        for key in domain.keys:
            try:
                if key.state is KeyState.PENDING:
                    await self._look(domain, key)
                elif key.state is KeyState.ACTIVE and key.since < aged:
                    await self._whole(self._follow(domain, key, now))
                elif key.state is KeyState.RETIRING and key.since < over:
                    await self._retire(domain, key, now)
            except (StoreError, _Moved):
                pass  # somebody has moved it meanwhile; the next round sees how
            except (KeyFileError, ValueError) as error:
                self._failed[domain.name] = self._clock.monotonic()
                self._tell(domain, f"the key {key.selector} cannot be followed by a new one: {error}")

    async def _look(self, domain: SendingDomain, key: DomainKey) -> None:
        """Is its record everywhere? Then it signs."""
        which, now = (domain.name, key.selector), self._clock.monotonic()
        look = self._looks.get(which, _Look(now, SOONEST / 2, now))
        if look.at > now or (which not in self._looks and len(self._looks) >= MAX_WAITING):
            return
        said = (await self._authority.txt(key.host(domain.name))).lacking(key.is_shown_by)
        said = said or self._keys.complaint(domain.name, key)
        if said:
            now, wait, told = self._clock.monotonic(), min(look.wait * 2, LATEST), look.told
            if now - told >= REMIND:
                told = now
                self._tell(domain, f"the key {key.selector} still waits: {said}; {_wanted(domain, key)}")
            self._looks[which] = _Look(now + wait, wait, told)
            return
        self._looks.pop(which, None)
        since = self._clock.now()
        await self._whole(self._change(domain.name, lambda found: activated(found, key.selector, since)))

    async def _follow(self, domain: SendingDomain, key: DomainKey, now: float) -> None:
        """It is old: a new one is made, which waits for its record."""
        kinds = {each.algorithm for each in domain.keys if each.state is KeyState.PENDING}
        failed = self._failed.get(domain.name, -REMIND)
        if key.algorithm in kinds or self._clock.monotonic() - failed < REMIND:
            return
        made = await asyncio.to_thread(make, self._keys, domain, key.algorithm, now)
        new = made.keys[-1]
        try:
            await self._change(domain.name, lambda found: _replaced(found, domain, made))
        except BaseException:  # it was removed meanwhile, or the disk is full
            await asyncio.to_thread(self._keys.forget, domain.name, new.selector)
            raise

    async def _retire(self, domain: SendingDomain, key: DomainKey, now: float) -> None:
        """No mail that it signed is under way: it is over."""
        # A clock that is wrong for a moment ends nothing.
        seen = self._retiring.setdefault((domain.name, key.selector), self._clock.monotonic())
        oldest = await self._oldest()
        if self._clock.monotonic() - seen < SEEN or (oldest is not None and oldest <= key.since + ROUND):
            return

        async def step() -> None:
            await self._change(domain.name, lambda found: [_over(found, key, now)])
            await asyncio.to_thread(self._keys.forget, domain.name, key.selector)

        await self._whole(step())

    async def _change(self, name: str, change: domains.Change) -> SendingDomain:
        def work(connection: sqlite3.Connection) -> SendingDomain:
            return domains.change_keys(connection, name, change)

        return await self._database.run(work)

    def _tell(self, domain: SendingDomain, words: str) -> None:
        log.info("%s: %s", domain.name, words)
        now = rfc3339(self._clock.now())
        self._report([Event(time=now, type=Type.STATE, domain=domain.name, reason=words)])


class _Raised(NamedTuple):
    """What a step came to; as an exception it would end the daemon's other tasks."""

    error: Exception


async def _answered(step: Coroutine[Any, Any, Result]) -> Result | _Raised:
    try:
        return await step
    except Exception as error:
        return _Raised(error)


class _Moved(Exception):
    """A key is not any more what it was when we looked."""


def _over(found: SendingDomain, key: DomainKey, now: float) -> DomainKey:
    if key not in found.keys:
        raise _Moved
    return key.moved(KeyState.RETIRED, now)


def _replaced(found: SendingDomain, before: SendingDomain, made: SendingDomain) -> tuple[DomainKey, ...]:
    if found != before:
        raise _Moved
    return made.keys


def _wanted(domain: SendingDomain, key: DomainKey) -> str:
    return f"publish {key.host(domain.name)} TXT {key.record}"


def _step(domain: SendingDomain, key: DomainKey) -> str:
    """What has become of a key, and what is to be done."""
    name = f"the key {key.selector}"
    if key.state is KeyState.PENDING:
        return f"{name} signs when every name server shows its record: {_wanted(domain, key)}"
    if key.state is KeyState.ACTIVE:
        return f"{name} signs from now on: {_wanted(domain, key)}"
    if key.state is KeyState.RETIRING:
        return f"{name} signs no more; leave its record for the mail that is on its way"
    return f"{name} is retired: {_wanted(domain, key)}, and remove that record some weeks later"
