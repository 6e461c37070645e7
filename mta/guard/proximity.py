"""Bulk-sender proximity: how near a From domain is to what makes it a bulk sender at a provider.

Between: outcomes tell of what was delivered; `guard.checks` asks, and hears once a day of a pair that is
    near; `store.volumes` keeps the counts.
Contract: recipients that a provider took, of each From domain, in the last 24 hours; `BULK_SENDER` of them
    are what the large ones name, `NEAR` is where we say so. `VOLUMES` pairs are counted. What has changed is
    saved once a minute and at the end, off the loop; where that fails it is told once, and tried again: what
    a crash costs is the last minute.
Raises: nothing: mail goes without it.
Why: who has sent 5,000 a day to a provider once is a bulk sender there, some say for ever, and is refused
    for what was overlooked before.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable
from functools import partial

from mta.clock import Clock, Every
from mta.core.check import Answer, Mail, Refuse
from mta.core.limits.budget import VOLUMES
from mta.core.limits.day import HOUR, HOURS, Day
from mta.core.mail.header import HeaderError, scan
from mta.core.mail.mailbox import domains
from mta.core.mail.message import header_block
from mta.core.model import Batch, Go, Message
from mta.metrics import Metrics
from mta.store.database import StoreError
from mta.store.volumes import Pair, VolumeStore

BULK_SENDER = 5000  # recipients in 24 hours
NEAR = 4000
SAVE_INTERVAL = 60.0  # seconds
DAY = HOURS * HOUR

log = logging.getLogger(__name__)


class Proximity:
    """The counts."""

    def __init__(
        self, store: VolumeStore, organisation: Callable[[str], str], clock: Clock, metrics: Metrics
    ) -> None:
        self._store = store
        self._organisation = organisation  # providers count a domain with all below it
        self._clock = clock
        self._days: dict[Pair, Day] = {}
        self._changed: set[Pair] = set()
        self._is_ill = False  # the store, and that was told
        self._bug = partial(metrics.bug, "guard", "a bug in the counts of what domains send")
        self._saving = Every(clock, SAVE_INTERVAL, self._save, self._bug)
        self._saved: asyncio.Task[None] | None = None
        self.on_near: Callable[[Mail, Refuse], bool] = lambda mail, answer: False  # was it told?

    def __len__(self) -> int:
        return len(self._days)

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Remember; saves run in `tasks`."""
        self._tasks = tasks
        try:
            self._days = await self._store.load(VOLUMES)
        except StoreError as error:
            self._tell_ill(error)
        self._saving.start()

    async def stop(self) -> None:
        """Save, for the last time."""
        self._saving.stop()
        if self._saved is not None:
            await self._saved
        await self._write()

    def ask(self, mail: Mail, now: float) -> Answer:
        """Is the domain near it at the provider that the mail goes to?"""
        whose = self._organisation(mail.author)
        day = self._days.get((whose, mail.provider))
        count = 0 if day is None else day.turn(int(now / HOUR))
        return Go() if count < NEAR else _near(whose, mail.provider, count)

    def delivered(self, batch: Batch, provider: str, many: int) -> None:
        """So many recipients of a message were taken there."""
        message = batch.message
        if not message.author:
            message.author = _author(batch)
        author = self._organisation(message.author)
        if not author:
            return
        now = self._clock.now()
        pair = author, provider
        day = self._days.get(pair)
        if day is None:
            day = self._days[pair] = Day(int(now / HOUR))
            if len(self._days) > VOLUMES:
                self._forget(pair, int(now / HOUR))
        self._changed.add(pair)
        count = day.add(int(now / HOUR), many)
        if count < NEAR or now - DAY < day.told <= now:
            return
        if self.on_near(_mail(message, author, provider), _near(author, provider, count)):
            day.told = now

    def _forget(self, new: Pair, hour: int) -> None:
        """Make room for a tenth."""
        for day in self._days.values():
            day.turn(hour)
        least = heapq.nsmallest(VOLUMES // 10 + 1, self._days, key=lambda pair: self._days[pair].total)
        for pair in least:
            if pair != new:
                del self._days[pair]
                self._changed.add(pair)

    def _save(self) -> None:
        hour = int(self._clock.now() / HOUR)
        for pair in [pair for pair, day in self._days.items() if hour - day.hour >= HOURS]:
            del self._days[pair]
            self._changed.add(pair)
        if self._changed and (self._saved is None or self._saved.done()):
            self._saved = self._tasks.create_task(self._write())

    async def _write(self) -> None:
        changed, self._changed = self._changed, set()
        if not changed:
            return
        try:
            await self._store.save({pair: self._days.get(pair) for pair in changed})
        except StoreError as error:
            self._changed.update(self._days, changed)  # the file may be another one now
            self._tell_ill(error)
        except Exception as error:
            self._bug(error)
        else:
            self._is_ill = False

    def _tell_ill(self, error: StoreError) -> None:
        if not self._is_ill:
            self._is_ill = True
            log.error("what domains send to providers is counted, and not kept: %s", error)


def _author(batch: Batch) -> str:
    """Of a message that was read from disk."""
    content = batch.message.content
    head = batch.head if content is None else header_block(content)
    try:
        authors = domains(scan(head, len(head)).authors[0][1])
    except HeaderError:  # a notice of ours has a From; what was imported may have none
        return ""
    return authors[0] if len(authors) == 1 else ""


def _mail(message: Message, author: str, provider: str) -> Mail:
    sender = message.sender.rpartition("@")[2].lower()
    return Mail(author, sender, message.stream, message.tenant, message.credential, provider=provider)


def _near(author: str, provider: str, count: int) -> Refuse:
    return Refuse(
        f"{author} has sent {count} recipients to {provider} in 24 hours; from {BULK_SENDER} on it is a bulk "
        "sender there: it needs SPF, DKIM, DMARC and, for news, one-click unsubscription"
    )
