"""What DNS shows of sending domains, kept in memory for the checks.

Between: `guard.identity` asks for what is known; the resolver is asked in the background.
Contract: `walked` and `shown` answer at once: what is known, or None. Who asks for what is not known, or was
    looked up some time ago, has it looked up: `AT_ONCE` questions, each name once, `WAITING` names at most,
    beyond which nothing is begun. `fresh_walk` and `fresh_key` wait for that. An answer is asked for again
    after its ttl, an hour at most; while DNS gives none the former one holds for `HOLDS`.
Raises: nothing; a bug over one name is told, and leaves it unknown.
Standards: RFC 9989 4.10, RFC 6376 3.6.2.
Why: a check must not wait, and a name server that is down must not stop mail.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, NamedTuple, TypeVar

from mta.clock import Clock
from mta.core.limits.budget import RECORDS
from mta.core.mail.dmarc import TreeWalk, Walked
from mta.core.route.routing import Status
from mta.dns.resolver import Resolver
from mta.metrics import Metrics

AT_ONCE = 8  # names
WAITING = 1000  # names
SOONEST, LATEST = 60.0, 3600.0  # seconds until a name is asked for again
HOLDS = 86_400.0  # seconds

Value = TypeVar("Value")


class _Entry(NamedTuple, Generic[Value]):
    value: Value | None
    rests: float  # until when nobody is asked; monotonic
    ends: float


class Records:
    """Walks and keys."""

    def __init__(self, resolver: Resolver, clock: Clock, metrics: Metrics) -> None:
        self._resolver = resolver
        together = _Together(clock, metrics)
        self._walks = _Kept(self._walk, together)
        self._keys = _Kept(self._ask_keys, together)
        self._together = together

    def __len__(self) -> int:
        return len(self._walks) + len(self._keys)

    def start(self, tasks: asyncio.TaskGroup) -> None:
        self._together.tasks = tasks

    def stop(self) -> None:
        """What is under way ends."""
        self._walks.stop()
        self._keys.stop()

    def walked(self, domain: str) -> Walked | None:
        """What the walk from this domain has shown."""
        return self._walks.get(domain)

    def organisation(self, domain: str) -> str:
        """The organisational domain; itself while that is not known."""
        walked = self.walked(domain) if domain else None
        return domain if walked is None else walked.organisation

    def shown(self, host: str) -> tuple[bytes, ...] | None:
        """The records where a key's should stand; none where there are none."""
        return self._keys.get(host)

    async def fresh_walk(self, domain: str) -> None:
        """Look it up, if it is time to."""
        await self._walks.fresh(domain)

    async def fresh_key(self, host: str) -> None:
        await self._keys.fresh(host)

    async def _walk(self, domain: str) -> tuple[Walked, float] | None:
        walk, ttl = TreeWalk(domain), LATEST
        while walk.question:
            answer = await self._resolver.txt(walk.question)
            if answer.status is Status.TROUBLE:
                return None
            ttl = min(ttl, answer.ttl)
            walk.answer(answer.records)
        return walk.walked, ttl

    async def _ask_keys(self, host: str) -> tuple[tuple[bytes, ...], float] | None:
        answer = await self._resolver.txt(host)
        return None if answer.status is Status.TROUBLE else (answer.records, answer.ttl)


class _Together:
    """What both kinds share."""

    tasks: asyncio.TaskGroup

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self.clock = clock
        self.metrics = metrics
        self.places = asyncio.Semaphore(AT_ONCE)


class _Kept(Generic[Value]):
    """Answers by name, those that were asked for last."""

    def __init__(
        self, fetch: Callable[[str], Awaitable[tuple[Value, float] | None]], together: _Together
    ) -> None:
        self._fetch = fetch
        self._together = together
        self._known: OrderedDict[str, _Entry[Value]] = OrderedDict()
        self._under_way: dict[str, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def stop(self) -> None:
        for task in list(self._under_way.values()):
            task.cancel()

    def get(self, name: str) -> Value | None:
        """What is known; asks again where it is time to."""
        entry, now = self._known.get(name), self._together.clock.monotonic()
        if entry is None or now >= entry.rests:
            self._begin(name)
        if entry is None or now >= entry.ends:
            return None
        self._known.move_to_end(name)
        return entry.value

    async def fresh(self, name: str) -> None:
        self.get(name)
        if name in self._under_way:
            await asyncio.wait([self._under_way[name]])

    def _begin(self, name: str) -> None:
        if name not in self._under_way and len(self._under_way) < WAITING:
            self._under_way[name] = self._together.tasks.create_task(self._look_up(name))

    async def _look_up(self, name: str) -> None:
        try:
            async with self._together.places:
                found = await self._fetch(name)
        except Exception as error:
            self._together.metrics.bug("guard", f"the records of {name} cannot be understood", error)
            found = None
        finally:
            del self._under_way[name]
        now = self._together.clock.monotonic()
        if found is not None:
            value, ttl = found
            rests = now + min(max(ttl, SOONEST), LATEST)
            self._known[name] = _Entry(value, rests, rests + HOLDS)
        else:
            before = self._known.get(name, _Entry(None, now, now))
            self._known[name] = before._replace(rests=now + SOONEST)
        self._known.move_to_end(name)
        if len(self._known) > RECORDS:
            self._known.popitem(last=False)
