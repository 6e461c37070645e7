"""Which mail is due, and the way to its lane.

Between: the spool says what is due, the router where it goes, the pool whether its lane takes it.
Contract: fresh mail goes straight on; what a gate shuts out is postponed and leaves memory. Retries are
    leased (attempt and next due time committed) before anything is dialled, a whole round at once.
    Expiry has a timer of its own and needs neither lanes nor peers.
Raises: nothing that mail can cause.
Standards: RFC 5321 4.5.4.1.
Why: a heap of domains with their earliest due time is all that is held of the backlog, so no event
    costs time or memory in proportion to it; one stuck site costs one look each time its gate says.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import defaultdict
from collections.abc import Iterable

from mta.clock import Clock
from mta.core.classify import EXPIRED
from mta.core.dsn import MAX_RETURNED
from mta.core.lifecycle import State
from mta.core.message import header_block
from mta.core.model import Batch, Message, Outcome, Recipient, Wait
from mta.core.routing import Route
from mta.metrics import Metrics
from mta.outbound.outcome import Settler, Trace
from mta.outbound.pool import Pool
from mta.outbound.router import Router
from mta.spool.commit import Update
from mta.spool.queue import Spool

ROUND = 200  # domains looked at in one round
RESOLVING = 10_000  # recipients that may wait in memory for their route
BUSY_WAIT = 60.0  # seconds until mail comes back that found too much waiting for DNS
STUCK_WAIT = 30.0  # seconds until a domain is looked at again whose due mail is all under way
EXPIRY_INTERVAL = 30.0  # seconds
EXPIRY_BATCH = 500  # messages

log = logging.getLogger(__name__)


class Scheduler:
    """Fresh mail, retries, expiry."""

    def __init__(
        self,
        router: Router,
        pool: Pool,
        settler: Settler,
        spool: Spool,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._router = router
        self._pool = pool
        self._settler = settler
        self._spool = spool
        self._clock = clock
        self._metrics = metrics
        self._heap: list[tuple[float, str]] = []
        self._due: dict[str, float] = {}  # the earliest due time of each domain with mail that waits
        self._leased: set[tuple[int, int]] = set()  # retries in memory: never lease them twice
        self._resolving: dict[str, list[Batch]] = {}
        self._unrouted = 0  # recipients in `_resolving`
        self._parked: defaultdict[str, set[str]] = defaultdict(set)  # site -> domains that found it full
        self._full: dict[str, float] = {}  # such a domain -> when to look again if no room is told
        self._wake = asyncio.Event()

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Rebuild the heap and begin."""
        self._tasks = tasks
        self._settler.on_due = self.note
        self._settler.on_released = self._released
        self._settler.on_notice = self.accepted
        self._pool.on_room = self._site_has_room
        for domain, due in await self._spool.reader.due_domains():
            self.note(domain, due)
        self._running = [tasks.create_task(self._retry()), tasks.create_task(self._expire())]

    def stop(self) -> None:
        """No more retries; fresh mail that comes in is postponed by the pool's gate."""
        for task in self._running:
            task.cancel()

    # Fresh mail

    def accepted(self, message: Message) -> None:
        """A message was committed: this is its first attempt."""
        recipients = message.recipients
        message.held = len(recipients)
        if len(recipients) == 1:
            self._send(recipients[0].domain, Batch(message, recipients))
            return
        domains: dict[str, list[Recipient]] = {}
        for recipient in recipients:
            domains.setdefault(recipient.domain, []).append(recipient)
        sites: dict[str, tuple[str, list[Recipient]]] = {}  # domains of one site go in one transaction
        for domain, group in domains.items():
            route = self._router.cached(domain)
            site = route.site if isinstance(route, Route) else f"@{domain}"
            sites.setdefault(site, (domain, []))[1].extend(group)
        for domain, group in sites.values():
            self._send(domain, Batch(message, group))

    def _send(self, domain: str, batch: Batch) -> None:
        route = self._router.cached(domain)
        if route is not None:
            self._dispatch(route, batch)
        elif self._unrouted >= RESOLVING:
            self._settler.postpone(batch, self._clock.now() + BUSY_WAIT)
        else:
            waiting = self._resolving.get(domain)
            self._unrouted += len(batch.recipients)
            if waiting is not None:
                waiting.append(batch)
            else:
                self._resolving[domain] = [batch]
                self._tasks.create_task(self._resolve(domain))

    async def _resolve(self, domain: str) -> None:
        route: Route | Outcome | None = None
        try:
            route = await self._router.route(domain)
        except Exception as error:
            self._bug(error)
        finally:
            batches = self._resolving.pop(domain)
            for batch in batches:
                self._unrouted -= len(batch.recipients)
                if route is None:
                    self._settler.postpone(batch, self._clock.now() + BUSY_WAIT)
                else:
                    self._dispatch(route, batch)

    def _dispatch(self, route: Route | Outcome, batch: Batch) -> None:
        if isinstance(route, Outcome):
            self._settler.settle(batch, [route] * len(batch.recipients), Trace())
            return
        gate = self._pool.gate(route)
        if isinstance(gate, Wait):
            until = gate.until
            if gate.reason == "lane full":
                self._park(route, {recipient.domain for recipient in batch.recipients}, until)
                until = self._clock.now()  # due at once when there is room
            self._settler.postpone(batch, until)
        else:
            self._pool.offer(route, batch)

    def _released(self, message: Message, recipient: Recipient) -> None:
        self._leased.discard((message.id, recipient.n))

    # Retries

    def note(self, domain: str, due: float) -> None:
        """The domain has mail that is due then."""
        due = max(due, self._full.get(domain, due))
        known = self._due.get(domain)
        if known is None or due < known:
            self._due[domain] = due
            heapq.heappush(self._heap, (due, domain))
            if self._heap[0][1] == domain:
                self._wake.set()

    def _park(self, route: Route, domains: Iterable[str], until: float) -> None:
        """Their lane is full: they wait for room, not for their due time."""
        for domain in domains:
            self._parked[route.site].add(domain)
            self._full[domain] = until
            self.note(domain, until)

    def _site_has_room(self, site: str) -> None:
        for domain in self._parked.pop(site, ()):
            self._full.pop(domain, None)
            self.note(domain, self._clock.now())

    async def _retry(self) -> None:
        while True:
            self._wake.clear()
            now = self._clock.now()
            domains = self._pop_due(now)
            if domains:
                try:
                    await self._round(domains, now)
                except Exception as error:
                    self._bug(error)
                    for domain in domains:
                        self.note(domain, now + BUSY_WAIT)
                continue
            if self._heap:
                alarm = self._clock.call_later(max(self._heap[0][0] - now, 0.0), self._wake.set)
                await self._wake.wait()
                alarm.cancel()
            else:
                await self._wake.wait()

    def _pop_due(self, now: float) -> list[str]:
        domains: list[str] = []
        while self._heap and self._heap[0][0] <= now and len(domains) < ROUND:
            due, domain = heapq.heappop(self._heap)
            if self._due.get(domain) == due:  # else an older entry of a domain that moved
                del self._due[domain]
                self._full.pop(domain, None)
                domains.append(domain)
        return domains

    async def _round(self, domains: list[str], now: float) -> None:
        """Lease what is due in these domains, in one commit, and send it on."""
        await self._spool.lease([])  # due times are noted before they are on disk, where we look
        leases: list[tuple[Route | Outcome, Batch]] = []
        updates: list[Update] = []
        for domain in domains:
            route = self._router.cached(domain)
            if route is None:
                self._tasks.create_task(self._resolve_then_note(domain))
                continue
            gate = None if isinstance(route, Outcome) else self._pool.gate(route)
            if isinstance(gate, Wait):
                if gate.reason == "lane full" and isinstance(route, Route):
                    self._park(route, [domain], gate.until)
                else:
                    self.note(domain, max(gate.until, now + 1.0))
                continue
            room = ROUND if isinstance(route, Outcome) else self._pool.room(route)
            found = await self._lease(domain, now, room, updates)
            leases += [(route, batch) for batch in found]
        if updates:
            await self._spool.lease(updates)
        for route, batch in leases:
            self._dispatch(route, batch)
        for domain in domains:
            if domain not in self._due:
                due = await self._spool.reader.next_due(domain)
                if due is not None:
                    self.note(domain, due if due > now else now + (STUCK_WAIT if not updates else 0.0))

    async def _lease(self, domain: str, now: float, room: int, updates: list[Update]) -> list[Batch]:
        batches = []
        for message in await self._spool.reader.due(domain, now, room):
            recipients = self._free(message)
            for recipient in recipients:
                recipient.attempts += 1
                due = self._settler.next_due(message, recipient, now) or message.expires
                updates.append(Update(State.DEFERRED, recipient.attempts, due, message.id, recipient.n))
                self._leased.add((message.id, recipient.n))
            if recipients:
                message.held = len(recipients)
                batches.append(Batch(message, recipients))
        return batches

    def _free(self, message: Message) -> list[Recipient]:
        """Its recipients that are not under way."""
        return [each for each in message.recipients if (message.id, each.n) not in self._leased]

    async def _resolve_then_note(self, domain: str) -> None:
        try:
            await self._router.route(domain)
            self.note(domain, self._clock.now())
        except Exception as error:
            self._bug(error)
            self.note(domain, self._clock.now() + BUSY_WAIT)

    # Expiry

    async def _expire(self) -> None:
        while True:
            await self._clock.sleep(EXPIRY_INTERVAL)
            try:
                while await self._expire_some(self._clock.now()):
                    pass
            except Exception as error:
                self._bug(error)

    async def _expire_some(self, now: float) -> bool:
        """Give up what is over its time and not under way; True if there may be more."""
        messages = await self._spool.reader.expired(now, EXPIRY_BATCH)
        gave_up = False
        for message in messages:
            recipients = self._free(message)
            if recipients:
                gave_up = True
                head = header_block(await self._spool.reader.head(message.id, MAX_RETURNED))
                batch = Batch(message, recipients, head=head)
                self._settler.settle(batch, [EXPIRED] * len(recipients), Trace())
        if gave_up:
            await self._spool.lease([])  # seen by the next look
        return gave_up

    def _bug(self, error: Exception) -> None:
        self._metrics.bugs["outbound"].inc()
        log.error("a bug in the scheduler", exc_info=error)
