"""Fresh mail's way to its lane, and who hears of what in the room.

Between: intake hands in what was committed, the router says where it goes, the gate whether its lane takes
    it; the settler, the spool and the pool tell when mail is due or there is room, for the retries.
Contract: fresh mail goes straight on; what a gate shuts out is postponed and leaves memory, and comes back
    as the retries do. No share (a priority and a tenant) has more fresh mail in memory than it leaves free
    for others. A bug of ours over a batch defers that batch.
Raises: nothing that mail can cause.
Why: most mail is delivered at once, and must not wait for the disk a second time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial

from mta.clock import Clock
from mta.config.policy import Current
from mta.core.limits.parts import Parts
from mta.core.model import Batch, Message, Outcome, Recipient, Wait
from mta.core.queueid import first_id
from mta.core.route.routing import Route
from mta.delivery.pool import Pool
from mta.delivery.router import Router
from mta.metrics import Metrics
from mta.outbound.backlog import Backlog
from mta.outbound.clockwatch import ClockWatch
from mta.outbound.expiry import Expiry
from mta.outbound.gate import ENDS, Gate
from mta.outbound.leases import Leases
from mta.outbound.lookups import BUSY_WAIT, Lookups
from mta.outbound.outcome import Settler, Trace
from mta.outbound.retries import Retries
from mta.outbound.strays import Strays
from mta.spool.queue import Spool

MOST_FRESH = 100_000  # recipients in their first attempt, of one share alone a half; others wait on disk


class Scheduler:
    """Fresh mail, retries, expiry."""

    def __init__(
        self,
        router: Router,
        pool: Pool,
        current: Current,
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
        self._backlog = Backlog(spool, clock)
        self._lookups = Lookups(router, self._backlog, clock, metrics)
        self._gate = Gate(self._lookups, current, pool, clock)
        self._leases = Leases()
        self._fresh = Parts(MOST_FRESH)  # recipients by share, until they are released
        self._watch = ClockWatch(spool, current, clock, metrics)
        self._expiry = Expiry(settler, spool, self._leases, clock, metrics)
        self._strays = Strays(self._held, self._leases, settler, spool, clock, metrics)
        self._retries = Retries(
            router, current, self._lookups, self._gate, self._backlog, self._leases, settler, spool,
            self._watch, clock, metrics, self._dispatch,
        )  # fmt: skip
        self._running: list[asyncio.Task[None]] = []

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Read what waits, and begin."""
        self._lookups.start(tasks)
        self._lookups.on_routed = self._routed
        self._settler.on_due = self._spool.on_due = self._backlog.note
        self._settler.on_released = self._released
        self._settler.on_notice = self.accepted
        self._pool.on_room = self._retries.has_room
        self._watch.on_set_ahead = self._prolong
        self._watch.on_set_back = self._backlog.look_ahead
        self._expiry.before_look = self._watch.look
        await self._watch.start()
        self._settler.clock_moved = lambda: self._watch.is_behind
        await self._backlog.look_ahead()
        works = (self._retries.run(), self._expiry.run(), self._watch.run(), self._strays.run())
        self._running = [tasks.create_task(work) for work in works]

    def stop(self) -> None:
        """No more retries; fresh mail that comes in is postponed by the pool's gate."""
        for task in self._running:
            task.cancel()
        now = self._clock.now()
        try:
            self._settler.each(self._lookups.stop(), lambda batch: self._settler.postpone(batch, now))
        except Exception as error:
            self._metrics.bug("outbound", "a bug over mail that waits for its route, as we stop", error)

    def _prolong(self, before: float, seconds: float) -> None:
        """The clock was set ahead: what is in memory lives on, as what is on disk will."""
        last = first_id(before)
        messages = {batch.message for batches in self._held() for batch in batches}
        for message in messages:
            if message.id < last:
                message.expires += seconds

    def _held(self) -> Iterator[list[Batch]]:
        """All that is in memory."""
        yield from self._pool.batches
        yield from self._lookups.batches

    # Fresh mail

    def accepted(self, message: Message) -> None:
        """A message was committed: this is its first attempt."""
        recipients = message.recipients
        if message.release is not None:
            self._spool.release(message)
            for recipient in recipients:
                self._backlog.note(message.line(recipient), message.release)
            return
        message.on_the_way = len(recipients)
        if not self._fresh.take((message.priority, message.tenant), len(recipients)):
            self._settler.postpone(Batch(message, recipients), self._clock.now())
            return
        if len(recipients) == 1:
            self._route(recipients[0].domain, Batch(message, recipients))
            return
        try:
            sites = self._by_site(recipients)
        except Exception as error:
            self._settler.fail(Batch(message, recipients), error)
            return
        for domain, group in sites:
            self._route(domain, Batch(message, group))

    def _by_site(self, recipients: list[Recipient]) -> list[tuple[str, list[Recipient]]]:
        """Domains of one site go in one transaction; each group with one of its domains."""
        domains: dict[str, list[Recipient]] = {}
        for recipient in recipients:
            domains.setdefault(recipient.domain, []).append(recipient)
        sites: dict[str, tuple[str, list[Recipient]]] = {}
        for domain, group in domains.items():
            route = self._router.cached(domain)
            site = route.site if isinstance(route, Route) else f"@{domain}"
            sites.setdefault(site, (domain, []))[1].extend(group)
        return list(sites.values())

    def _route(self, domain: str, batch: Batch) -> None:
        try:
            route = self._router.cached(domain)
        except Exception as error:
            self._settler.fail(batch, error)
            return
        if route is not None:
            self._dispatch(route, batch)
        elif self._lookups.has_room(batch):
            self._lookups.hold(domain, batch)
        else:
            self._settler.postpone(batch, self._clock.now())

    def _routed(self, route: Route | Outcome | None, batches: list[Batch]) -> None:
        self._settler.each(batches, partial(self._go_on_to, route))

    def _go_on_to(self, route: Route | Outcome | None, batch: Batch) -> None:
        if route is None:
            self._settler.postpone(batch, self._clock.now() + BUSY_WAIT)
        else:
            self._dispatch(route, batch)

    def _dispatch(self, route: Route | Outcome, batch: Batch) -> None:
        """On to its lane, fresh or leased."""
        message = batch.message
        if isinstance(route, Outcome):
            self._unroutable(route, batch)
            return
        if message.expires <= self._clock.now() and self._settler.is_over(message):
            # While we were down, or a gate was shut: nobody is dialled.
            self._settler.expire(batch, Trace(route))
            return
        try:
            wait = self._gate.offer(route, batch)
            if wait is None:
                return
            until = self._park(route, batch, wait) if wait.reason in ENDS else wait.until
        except Exception as error:
            self._settler.fail(batch, error, Trace(route))
            return
        self._settler.postpone(batch, until)

    def _unroutable(self, route: Outcome, batch: Batch) -> None:
        """What DNS has said is its outcome; where it says nothing, what it has is due at its first word."""
        wait = self._lookups.gate(route)
        due = None if wait is None else self._clock.now()
        self._settler.settle(batch, [route] * len(batch.recipients), Trace(), due)
        if wait is not None:
            for line in {batch.message.line(recipient) for recipient in batch.recipients}:
                self._retries.park(route, line, wait)

    def _park(self, route: Route, batch: Batch, wait: Wait) -> float:
        """Nothing of these lines can go on: what they have is due at once when there is room."""
        for line in {batch.message.line(recipient) for recipient in batch.recipients}:
            if not isinstance(self._gate.room(route, line, 1), Wait):
                return wait.until  # only its own pool is full: another stream's mail may pass
            self._retries.park(route, line, wait)
        return self._clock.now()

    def _released(self, message: Message, recipient: Recipient) -> None:
        if message.fresh:
            self._fresh.give_back((message.priority, message.tenant))
        self._retries.released(message, recipient)
