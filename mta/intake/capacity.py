"""Room for one more message: measured here, asked before a client sends it.

Between: the daemon starts `watch`; the submission listener asks at MAIL, and takes from `memory` from DATA
    on; /readyz asks too.
Contract: `at_mail` answers with a Reply that refuses (452, with a time), or None, and never touches the disk:
    it was looked at within the last second. Sizes are octets.
Raises: OSError from `measure` where the spool or the event log has gone.
Standards: RFC 1870 6.1 (a declared size may be refused at MAIL with 452).
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

from mta.clock import Clock
from mta.config.policy import Current, Policy
from mta.core.limits.room import Free, Reserve, Share, over_quota
from mta.core.model import Reply
from mta.spool.bodies import THRESHOLD
from mta.spool.queue import Spool

INTERVAL = 1.0  # seconds between two looks at the disk
MUCH = 16  # an N-th of the reserve, taken since the last look, is a reason for the next
DEFAULT = "default"
PARTS = 2  # a message that is alone may have a half of memory (`Share`)

log = logging.getLogger(__name__)


class Capacity:
    """What this machine, and each tenant, can still take."""

    def __init__(self, current: Current, spool: Spool, clock: Clock) -> None:
        settings = current.policy.settings
        self._current = current
        self._database = settings.spool.path
        self._folders = sorted({settings.spool.path, settings.event_log.parent})
        self._reserves = [Reserve(settings.spool.reserve) for _ in self._folders]
        self._look = asyncio.Event()
        self._spool = spool
        self._clock = clock
        self.memory = Share(settings.limits.memory)

    def adopted(self, old: Policy, new: Policy) -> None:
        """The reserve counts at once; what was short is looked at again."""
        for reserve in self._reserves:
            reserve.size = new.settings.spool.reserve
        self._look.set()

    @property
    def largest(self) -> int:
        """Octets of a message: what memory has no room for even alone must not be told to try again."""
        limits = self._current.policy.settings.limits
        return min(limits.message_size, limits.memory // PARTS)

    async def watch(self) -> None:
        """Look at the disk for ever, sooner where much mail comes."""
        while True:
            timer = self._clock.call_later(INTERVAL, self._look.set)
            await self._look.wait()
            timer.cancel()
            self._look.clear()
            try:
                await self.measure()
            except Exception as error:  # of a disk the next commit will say it to every client
                log.error("the free room cannot be measured: %s", error)

    async def measure(self) -> None:
        """Look at the disk once."""
        self._spool.received = 0
        found = await asyncio.to_thread(lambda: [_free(folder) for folder in self._folders])
        for folder, reserve, free in zip(self._folders, self._reserves, found, strict=True):
            if folder == self._database:
                free = free._replace(pages=self._spool.slack.octets)
            before = reserve.short
            reserve.measured(free)
            if (reserve.short is None) != (before is None):
                verdict = "new mail is accepted again" if reserve.short is None else "new mail is refused"
                why = "there is room" if reserve.short is None else f"{reserve.short}; {reserve.remedy}"
                log.warning("%s: %s (%s)", folder, verdict, why)

    @property
    def short(self) -> list[str]:
        """Which disk is short of what, for the operator."""
        pairs = zip(self._folders, self._reserves, strict=True)
        return [
            f"{folder}: {reserve.short}; {reserve.remedy}"
            for folder, reserve in pairs
            if reserve.short is not None
        ]

    @property
    def free(self) -> int:
        """Octets left for mail on the fuller disk."""
        return min(reserve.free.room for reserve in self._reserves)

    def at_mail(self, tenant: str, declared: int) -> Reply | None:
        """May a message come? `declared` is its SIZE, 0 where the client gave none."""
        settings = self._current.policy.settings
        if self._spool.received * MUCH > settings.spool.reserve:
            self._look.set()
        for reserve in self._reserves:
            if (short := reserve.ask(declared, is_file=declared >= THRESHOLD)) is not None:
                return Reply(452, "4.3.1", f"The disk has no room: {short}; try again in 5 minutes")
        quotas = settings.limits.tenants
        quota = quotas.get(tenant) or quotas.get(DEFAULT)
        if quota is not None:
            over = over_quota(quota, *self._spool.usage(tenant), declared)
            if over is not None:
                return Reply(452, "4.3.1", f"The quota is used up: {over}; try again when some are delivered")
        return None


def _free(folder: Path) -> Free:
    found = os.statvfs(folder)
    return Free(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None)
