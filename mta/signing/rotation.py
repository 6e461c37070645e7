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
import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

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
    retired,
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
MAX_WAITING = 10_000  # keys whose record is looked for


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
    said: str


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
        self._round: asyncio.Task[None] | None = None

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """The first round is a minute away."""
        self._tasks = tasks
        self._every.start()

    def stop(self) -> None:
        """A round that is under way is broken off: each of its steps is whole."""
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
            pass  # it is told where it is used for mail
        except Exception as error:
            self._bug(error)

    async def round(self) -> None:
        """Look at each key that may move."""
        now = self._clock.now()
        found = await self._database.run(lambda connection: domains.moving(connection, self._older(now)))
        pending = {(each.name, key.selector) for each in found for key in each.keys}
        self._looks = {each: look for each, look in self._looks.items() if each in pending}
        permits = asyncio.Semaphore(AT_ONCE)

        async def one(domain: SendingDomain) -> None:
            async with permits:
                await self._move(domain, now)

        await asyncio.gather(*map(one, found))

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
                    await self._follow(domain, key, now)
                elif key.state is KeyState.RETIRING and key.since < over:
                    await self._retire(domain, key, now)
            except (KeyMoveError, StoreError, ValueError):
                pass  # somebody has moved it meanwhile; the next round sees how
            except KeyFileError as error:
                self._tell(domain, f"the key {key.selector} cannot be moved on: {error}")

    async def _look(self, domain: SendingDomain, key: DomainKey) -> None:
        """Is its record everywhere? Then it signs."""
        which, now = (domain.name, key.selector), self._clock.monotonic()
        look = self._looks.get(which, _Look(now, SOONEST / 2, ""))
        if look.at > now or (which not in self._looks and len(self._looks) >= MAX_WAITING):
            return
        said = (await self._authority.txt(key.host(domain.name))).lacking(key.is_shown_by)
        if said:
            wait = min(look.wait * 2, LATEST)
            self._looks[which] = _Look(self._clock.monotonic() + wait, wait, said)
            return
        self._looks.pop(which, None)
        since = self._clock.now()
        changed = await self._change(domain.name, lambda found: activated(found, key.selector, since))
        former = [each.selector for each in changed.keys if each.state is KeyState.RETIRING]
        rest = f"; leave {' and '.join(former)} published" if former else ""
        self._tell(domain, f"the key {key.selector} signs now: every name server shows its record{rest}")

    async def _follow(self, domain: SendingDomain, key: DomainKey, now: float) -> None:
        """It is old: a new one is made, which waits for its record."""
        kinds = {each.algorithm for each in domain.keys if each.state is KeyState.PENDING}
        if key.algorithm in kinds:
            return
        made = await asyncio.to_thread(make, self._keys, domain, key.algorithm, now)
        new = made.keys[-1]
        await self._change(domain.name, lambda _: [new])
        age = (now - key.since) / 86400
        words = (
            f"the key {key.selector} has signed for {age:.0f} days; its follower signs when every name server"
        )
        self._tell(domain, f"{words} shows its record: publish {new.host(domain.name)} TXT {new.record}")

    async def _retire(self, domain: SendingDomain, key: DomainKey, now: float) -> None:
        """No mail that it signed is under way: it is over."""
        oldest = await self._oldest()
        if oldest is not None and oldest <= key.since:
            return
        await self._change(domain.name, lambda found: [retired(found, key.selector, now)])
        await asyncio.to_thread(self._keys.forget, domain.name, key.selector)
        words = f"the key {key.selector} is retired: publish {key.host(domain.name)} TXT v=DKIM1; p="
        self._tell(domain, f"{words}, and remove that record some weeks later")

    async def _change(self, name: str, change: domains.Change) -> SendingDomain:
        def work(connection: sqlite3.Connection) -> SendingDomain:
            return domains.change_keys(connection, name, change)

        return await self._database.run(work)

    def _tell(self, domain: SendingDomain, words: str) -> None:
        now = rfc3339(self._clock.now())
        self._report([Event(time=now, type=Type.STATE, reason=f"{domain.name}: {words}")])
