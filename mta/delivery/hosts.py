"""The memory of hosts: how it went with each, kept over restarts.

Between: the connector tells how dials went, `delivery.search` asks; `store.hosts` keeps it; what an operator
    wants to know goes to the event log.
Contract: a host of which nothing bad is known costs nothing. `MOST` memories are kept, those that changed
    last. What has changed is saved once a minute and at the end, off the loop; where that fails it is told
    once, and tried again. An event says once that a host has gone bad, or come back, whoever dials it.
Raises: nothing: mail goes without it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from functools import partial
from typing import Any

from mta.clock import Clock, Every
from mta.core.event import MAX_REASON, Event, Type, rfc3339
from mta.core.route.hosts import BELIEVED, NOTHING, TLS_WAIT, HostMemory, Peer, Rung, TlsState
from mta.metrics import Metrics
from mta.spool.queue import Spool
from mta.store.database import StoreError
from mta.store.hosts import HostStore

MOST = 50_000  # memories
SAVE_INTERVAL = 60.0  # seconds

log = logging.getLogger(__name__)


class Hosts:
    """What we know of peers."""

    def __init__(self, store: HostStore, spool: Spool, clock: Clock, metrics: Metrics) -> None:
        self._store = store
        self._spool = spool
        self._clock = clock
        self._known: OrderedDict[Peer, HostMemory] = OrderedDict()
        self._changed: set[Peer] = set()
        self._is_ill = False  # the store, and that was told
        self._bug = partial(metrics.bug, "delivery", "a bug in the memory of hosts")
        self._saving = Every(clock, SAVE_INTERVAL, self._save, self._bug)
        self._saved: asyncio.Task[None] | None = None

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Remember; saves run in `tasks`."""
        self._tasks = tasks
        now = self._clock.now()
        try:
            loaded = await self._store.load(MOST)
        except StoreError as error:
            self._tell_ill(error)
        else:
            for peer, memory in loaded.items():
                if memory.is_over(now):
                    self._changed.add(peer)
                else:
                    self._known[peer] = memory
        self._saving.start()

    async def stop(self) -> None:
        """Save, for the last time."""
        self._saving.stop()
        if self._saved is not None:
            await self._saved
        await self._write()

    def __len__(self) -> int:
        return len(self._known)

    def recall(self, peer: Peer) -> HostMemory:
        """What is known of it."""
        return self._known.get(peer, NOTHING)

    def shown(self, peer: Peer) -> dict[str, Any] | None:
        """The same as plain data; None where nothing is known."""
        memory, now = self.recall(peer), self._clock.now()
        if memory.is_ordinary or memory.is_over(now):
            return None
        until = memory.tls_since + (TLS_WAIT if memory.tls is TlsState.DOUBTED else BELIEVED)
        is_ordinary = memory.tls is TlsState.ORDINARY
        return {
            "address": peer.address or None,
            "failures": memory.failures,
            "since": rfc3339(memory.since) if memory.is_bad else None,
            "last_until": rfc3339(memory.probe) if memory.rests(now) else None,
            "why": memory.why or None,
            "tls": None if is_ordinary else memory.tls.value,
            "tls_until": None if is_ordinary or until <= now else rfc3339(until),
            "tls_why": memory.tls_why or None,
            "stepwise_until": rfc3339(memory.lost + BELIEVED) if memory.is_stepwise(now) else None,
        }

    # What happened

    def failed(self, peer: Peer, why: str) -> None:
        """A dial came to nothing; or the host as a whole has no address that is any good."""
        before = self.recall(peer)
        after = before.failed(self._clock.now(), why)
        self._become(peer, after)
        if peer.address and not before.is_bad:
            self._tell(peer, f"is asked last: {why}", after.probe)

    def rested(self, peer: Peer, probe: float) -> None:
        """All addresses of a host are bad."""
        why = "none of its addresses is any good"
        self._become(peer, self.recall(peer).rested(self._clock.now(), probe, why))

    def slow(self, peer: Peer) -> None:
        """Another address was connected first."""
        self._become(peer, self.recall(peer).slow(self._clock.now()))

    def probed(self, peer: Peer) -> None:
        """Somebody dials it to see."""
        self._become(peer, self.recall(peer).probed(self._clock.now()))

    def unsure(self, peer: Peer) -> None:
        """Nobody else answered either."""
        self._become(peer, self.recall(peer).unsure(self._clock.now()))

    def answered(self, peer: Peer) -> None:
        """It lets us in."""
        for known in (peer, Peer(peer.name, peer.port)):
            before = self._known.get(known)
            if before is not None and before.probe:
                self._become(known, before.answered())
                if known.address and before.is_bad:
                    self._tell(known, "answers again")

    # Its TLS

    def secured(self, peer: Peer, rung: Rung) -> None:
        """A handshake worked."""
        before = self._known.get(peer)
        if before is None and rung is Rung.FULL:
            return
        before = before or NOTHING
        after = before.secured(self._clock.now(), rung)
        self._become(peer, after)
        if after.tls is before.tls:
            return
        if after.tls is TlsState.SMALL:
            self._tell(peer, "speaks TLS 1.2 only")
        else:
            self._tell(peer, "speaks TLS again")

    def unsecured(self, peer: Peer, why: str, is_decided: bool) -> HostMemory:
        """No handshake worked."""
        before, now = self.recall(peer), self._clock.now()
        after = before.unsecured(now, why, is_decided)
        self._become(peer, after)
        if after.tls is not before.tls:
            doubted = after.tls is TlsState.DOUBTED
            what = "mail waits for it a while" if doubted else "mail goes in the clear where it may"
            self._tell(peer, f"fails in TLS, {what}: {why}", now + (TLS_WAIT if doubted else BELIEVED))
        return after

    def tls_probed(self, peer: Peer) -> None:
        """Somebody tries a handshake to see."""
        self._become(peer, self.recall(peer).tls_probed(self._clock.now()))

    def refused_in_the_clear(self, peer: Peer) -> None:
        """It wants TLS after all."""
        self._become(peer, self.recall(peer).refused_in_the_clear(self._clock.now()))

    def loses_commands(self, peer: Peer) -> None:
        """Of those that were sent together some were not answered."""
        now = self._clock.now()
        before = self.recall(peer)
        self._become(peer, before.loses_commands(now))
        if not before.is_stepwise(now):
            self._tell(
                peer, "loses commands that are sent together, and gets them one by one", now + BELIEVED
            )

    # Inside

    def _become(self, peer: Peer, memory: HostMemory) -> None:
        before = self._known.get(peer, NOTHING)
        if memory == before:
            return
        self._changed.add(peer)
        if memory.is_ordinary:
            self._known.pop(peer, None)
            return
        self._known[peer] = memory
        self._known.move_to_end(peer)
        if len(self._known) > MOST:
            oldest, _ = self._known.popitem(last=False)
            self._changed.add(oldest)

    def _tell(self, peer: Peer, what: str, until: float = 0.0) -> None:
        reason = f"{peer.name} [{peer.address}] {what}"
        event = Event(
            time=rfc3339(self._clock.now()), type=Type.STATE, host=peer.name,
            reason=reason[:MAX_REASON], due=rfc3339(until) if until else "",
        )  # fmt: skip
        self._spool.report([event])

    def _save(self) -> None:
        if self._changed and (self._saved is None or self._saved.done()):
            self._saved = self._tasks.create_task(self._write())

    async def _write(self) -> None:
        changed, self._changed = self._changed, set()
        if not changed:
            return
        try:
            await self._store.save({peer: self._known.get(peer) for peer in changed})
        except StoreError as error:
            self._changed.update(self._known, changed)  # the file may be another one now
            self._tell_ill(error)
        except Exception as error:
            self._bug(error)
        else:
            self._is_ill = False

    def _tell_ill(self, error: StoreError) -> None:
        if not self._is_ill:
            self._is_ill = True
            log.error("what is remembered of hosts is not kept: %s", error)
