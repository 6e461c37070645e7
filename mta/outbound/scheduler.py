"""Which mail is due, and the way to its lane.

Between: the spool says what is due, the router where it goes, the pool whether its lane takes it.
Contract: fresh mail goes straight on; what a gate shuts out is postponed and leaves memory. Retries are
    leased (attempt and next due time committed) before anything is dialled, a whole round at once; those that
    their own source keeps out get another due time instead, and let the rest of their line pass.
    A bug of ours over a batch defers that batch, one over a line lets the others of its round pass, and
    after one over the agenda it is made anew.
Raises: nothing that mail can cause.
Standards: RFC 5321 4.5.4.1.
Why: an agenda of domains is all that is held of the backlog, so no event costs time or memory in
    proportion to it; one stuck site costs one look each time its gate says. When everything is due at
    once, rounds are small, few names are looked up at a time, and the domains that wait for an answer
    stand aside: neither the disk nor DNS is flooded, and fresh mail gets in between.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial

from mta.clock import Clock
from mta.core.limits.order import Share
from mta.core.limits.window import Window
from mta.core.model import Batch, Go, Line, Message, Outcome, Recipient, Wait
from mta.core.queue.agenda import Agenda
from mta.core.queue.lifecycle import State
from mta.core.queueid import first_id, text
from mta.core.route.routing import Route
from mta.delivery.lane import LANE_FULL
from mta.delivery.pool import Pool
from mta.delivery.router import Router
from mta.metrics import Metrics
from mta.outbound.clockwatch import ClockWatch
from mta.outbound.expiry import Expiry
from mta.outbound.leases import Leases, Lot
from mta.outbound.outcome import Settler, Trace
from mta.outbound.strays import Strays
from mta.spool.commit import Update
from mta.spool.database import SpoolError
from mta.spool.queue import Spool
from mta.spool.reader import Due

ROUND = 200  # domains looked at in one round
LEASED = 200  # recipients leased in one round, shared among its domains: a commit of a few milliseconds
LOOKUPS = 100  # routes of retries looked up at once; fresh mail has the rest of the resolver
MOST_FRESH = 50_000  # recipients in their first attempt; what comes then waits on disk, and its turn
RESOLVING = 10_000  # recipients that may wait in memory for their route
BUSY_WAIT = 60.0  # seconds until mail comes back that found too much waiting for DNS
BEHIND_WAIT = 5.0  # seconds until retries are looked at again after a bug, or a disk that refuses
STUCK_WAIT = 30.0  # seconds, at the least, until mail is looked at again that is under way
Leased = tuple[Route | Outcome, Batch]
ANY = ("*", "", 0)  # where lines are parked while too many sites have retries


class Scheduler:
    """Fresh mail, retries, expiry."""

    def __init__(
        self,
        router: Router,
        pool: Pool,
        windows: Mapping[str, Window],
        settler: Settler,
        spool: Spool,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._router = router
        self._pool = pool
        self._windows = windows  # of streams that may not be delivered at every hour
        self._settler = settler
        self._spool = spool
        self._clock = clock
        self._metrics = metrics
        self._agenda = Agenda()
        self._leases = Leases()
        self._watch = ClockWatch(spool, max(settler.longest_wait, router.longest_retry), clock, metrics)
        self._expiry = Expiry(settler, spool, self._leases, clock, metrics)
        self._strays = Strays(self._held, self._leases, settler, spool, clock, metrics)
        self._meanwhile: dict[Line, float] | None = None  # noted while the agenda is made anew
        self._lacks = False  # after a bug the agenda may lack lines, and is made anew
        self._resolving: dict[str, list[Batch]] = {}
        self._unrouted = 0  # recipients in `_resolving`
        self._unknown: deque[str] = deque()  # domains with retries, and no route yet
        self._waiting_for_route: dict[str, dict[Line, float]] = {}  # domain -> its lines, and their due times
        self._lookups = 0
        self._wake = asyncio.Event()
        self._running: list[asyncio.Task[None]] = []

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Rebuild the agenda and begin."""
        self._tasks = tasks
        self._settler.on_due = self.note
        self._spool.on_due = self.note
        self._settler.on_released = self._released
        self._settler.on_notice = self.accepted
        self._pool.on_room = self._lane_has_room
        self._watch.on_set_ahead = self._prolong
        self._watch.on_set_back = self._look_ahead
        self._expiry.before_look = self._watch.look
        await self._watch.start()
        self._settler.clock_moved = lambda: self._watch.is_behind
        await self._look_ahead()
        works = (self._retry(), self._expiry.run(), self._watch.run(), self._strays.run())
        self._running = [tasks.create_task(work) for work in works]

    async def _look_ahead(self) -> None:
        """What waits, and until when; also where the clock was set back, and all that is noted is wrong."""
        meanwhile = self._meanwhile = {}
        try:
            if self._running:
                await self._spool.lease([])  # what was noted before is on disk
            agenda = Agenda()
            for line, due in await self._spool.reader.lines():
                agenda.note(line, due)
            for line, due in meanwhile.items():
                agenda.note(line, due)
            self._agenda = agenda
        finally:
            self._meanwhile = None
        self._wake.set()

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
        for batches in list(self._resolving.values()):
            yield list(batches)

    def stop(self) -> None:
        """No more retries; fresh mail that comes in is postponed by the pool's gate."""
        self._unknown.clear()
        for task in self._running:
            task.cancel()

    # Fresh mail

    def accepted(self, message: Message) -> None:
        """A message was committed: this is its first attempt."""
        recipients = message.recipients
        if message.release is not None:
            self._spool.release(message)
            for recipient in recipients:
                self.note(message.line(recipient), message.release)
            return
        message.held = len(recipients)
        if self._spool.tally.fresh > MOST_FRESH:
            self._settler.postpone(Batch(message, recipients), self._clock.now())
            return
        if len(recipients) == 1:
            self._send(recipients[0].domain, Batch(message, recipients))
            return
        try:
            sites = self._by_site(recipients)
        except Exception as error:
            self._settler.fail(Batch(message, recipients), error)
            return
        for domain, group in sites:
            self._send(domain, Batch(message, group))

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

    def _send(self, domain: str, batch: Batch) -> None:
        try:
            route = self._router.cached(domain)
        except Exception as error:
            self._settler.fail(batch, error)
            return
        if route is not None:
            self._dispatch(route, batch)
        elif self._unrouted >= RESOLVING:
            self._settler.postpone(batch, self._clock.now() + BUSY_WAIT)
        else:
            waiting = self._resolving.get(domain)
            if waiting is None:
                self._tasks.create_task(self._resolve(domain))
                waiting = self._resolving[domain] = []
            self._unrouted += len(batch.recipients)
            waiting.append(batch)

    async def _resolve(self, domain: str) -> None:
        route: Route | Outcome | None = None
        try:
            route = await self._router.route(domain)
        except Exception as error:
            self._bug(error)
        finally:
            batches = self._resolving.pop(domain)
            self._unrouted -= sum(len(batch.recipients) for batch in batches)
            self._settler.each(batches, partial(self._go_on_to, route))

    def _go_on_to(self, route: Route | Outcome | None, batch: Batch) -> None:
        if route is None:
            self._settler.postpone(batch, self._clock.now() + BUSY_WAIT)
        else:
            self._dispatch(route, batch)

    def _dispatch(self, route: Route | Outcome, batch: Batch) -> None:
        if isinstance(route, Outcome):
            self._settler.settle(batch, [route] * len(batch.recipients), Trace())
            return
        message = batch.message
        if message.expires <= self._clock.now() and self._settler.is_over(message):
            # While we were down, or a gate was shut: nobody is dialled.
            self._settler.expire(batch, Trace(route))
            return
        try:
            wait = self._hours(message) or self._pool.offer(route, batch)
            if wait is None:
                return
            until = self._park(route, batch, wait.until) if wait.reason == LANE_FULL else wait.until
        except Exception as error:
            self._settler.fail(batch, error, Trace(route))
            return
        self._settler.postpone(batch, until)

    def _park(self, route: Route, batch: Batch, until: float) -> float:
        """Nothing of these lines can go on: what they have is due at once when there is room."""
        message = batch.message
        if isinstance(self._pool.gate(route, (message.priority, message.tenant)), Go):
            return until  # only its own pool is full: another stream's mail may pass
        for line in {message.line(recipient) for recipient in batch.recipients}:
            self._agenda.park((route.site, line.priority), line, until)
        return self._clock.now()

    def _released(self, message: Message, recipient: Recipient) -> None:
        lot = self._leases.give_back(message, recipient)
        if lot is not None and self._leases.is_low(lot):
            site, _, priority = lot
            self._has_room(site, priority)

    def _hours(self, message: Message) -> Wait | None:
        """Until when its stream may not be delivered, if it may not now."""
        window = self._windows.get(message.stream) if self._windows else None
        answer = None if window is None else window.ask(self._clock.now())
        return answer if isinstance(answer, Wait) else None

    # Retries

    def note(self, line: Line, due: float) -> None:
        """The line has mail that is due then."""
        if self._meanwhile is not None:
            self._meanwhile[line] = min(due, self._meanwhile.get(line, due))
        try:
            if self._agenda.note(line, due):
                self._wake.set()
        except Exception:
            self._lacks = True
            self._wake.set()
            raise

    def _lane_has_room(self, site: str, share: Share) -> None:
        self._has_room(site, share[0])

    def _has_room(self, site: str, priority: int) -> None:
        now = self._clock.now()
        woken = self._agenda.wake((site, priority), self._room(site, priority), now)
        if not self._leases.shuts_out(ANY):
            woken |= self._agenda.wake(ANY, 1, now)
        if woken:
            self._wake.set()

    def _lots(self, site: str, priority: int) -> list[Lot]:
        return [(site, source.name, priority) for source in self._pool.sources]

    def _room(self, site: str, priority: int) -> int:
        """How many retries more may wait in memory, in the lot that may have most."""
        return max(map(self._leases.room, self._lots(site, priority)))

    async def _retry(self) -> None:
        while True:
            self._wake.clear()
            try:
                if not await self._watch.look():
                    await self._clock.sleep(BEHIND_WAIT)
                    continue
                if self._lacks:
                    await self._look_ahead()
                    self._lacks = False
                await self._go_on()
            except Exception as error:
                self._bug(error)
                self._lacks = True
                await self._clock.sleep(BEHIND_WAIT)

    async def _go_on(self) -> None:
        """A round of what is due, or the wait for the next."""
        now = self._clock.now()
        lines = self._agenda.take(now, ROUND)
        if lines:
            try:
                await self._round(lines, now)
            except Exception as error:
                await self._one_by_one(lines, now, error)
            return
        due = self._agenda.next()
        if due is not None:
            alarm = self._clock.call_later(max(due - now, 0.0), self._wake.set)
            await self._wake.wait()
            alarm.cancel()
        else:
            await self._wake.wait()

    async def _one_by_one(self, lines: list[tuple[Line, float]], now: float, error: Exception) -> None:
        """After a bug of ours in a round: it is one line's, and the others pass. A disk's are all lines'."""
        self._bug(error)
        apart = len(lines) > 1 and not isinstance(error, sqlite3.Error | OSError | SpoolError)
        for each in lines:
            if apart:
                try:
                    await self._round([each], now)
                    continue
                except Exception as another:
                    self._bug(another)
            self.note(each[0], now + BUSY_WAIT)

    async def _round(self, lines: list[tuple[Line, float]], now: float) -> None:
        """Lease what is due in these lines, in one commit, and send it on."""
        # Due times are noted before they are on disk, where we look.
        async with self._leases.looking(lambda: self._spool.lease([])):
            wanted = self._wanted(lines, now)
            found = await self._spool.reader.due([(line, room) for line, _, room in wanted], now)
            routed = [(route, due) for (_, route, _), due in zip(wanted, found, strict=True)]
            leased = await self._lease(routed, now)
        for route, batch in leased:
            self._settler.each([batch], partial(self._dispatch, route))
        for (line, route, _), due in zip(wanted, found, strict=True):
            if due.rest is not None:
                self.note(line, due.rest)
            if isinstance(route, Route) and self._pool.room(route, _share(line), 1):
                self._agenda.wake((route.site, line.priority), self._room(route.site, line.priority), now)

    def _wanted(self, lines: list[tuple[Line, float]], now: float) -> list[tuple[Line, Route | Outcome, int]]:
        """The lines that are open, each with its route and how many recipients to take."""
        most = max(LEASED // len(lines), 1)
        wanted: list[tuple[Line, Route | Outcome, int]] = []
        rooms: dict[tuple[str, int], int] = {}
        for line, due in lines:
            route = self._router.cached(line.domain)
            if route is None:
                self._look_up(line, due)
                continue
            if isinstance(route, Outcome):
                wanted.append((line, route, most))
                continue
            place = (route.site, line.priority)
            gate = self._pool.gate(route, _share(line))
            if isinstance(gate, Wait):
                if gate.reason == LANE_FULL:
                    self._agenda.park(place, line, gate.until)
                else:
                    self.note(line, max(gate.until, now + 1.0))
                continue
            if place not in rooms:
                rooms[place] = self._room(*place)
            room = min(rooms[place], self._pool.room(route, _share(line), most))
            rooms[place] -= room
            if room:
                wanted.append((line, route, room))
            else:
                shut_out = all(map(self._leases.shuts_out, self._lots(*place)))
                self._agenda.park(ANY if shut_out else place, line, now + BUSY_WAIT)
        return wanted

    async def _lease(self, found: list[tuple[Route | Outcome, Due]], now: float) -> list[Leased]:
        """Take what is free, and commit that its attempt begins."""
        leased: list[Leased] = []
        updates: list[Update] = []
        for route, due in found:
            for message in due.messages:
                try:
                    updates += self._take(route, message, now, leased)
                except Exception as error:
                    self._metrics.bug("outbound", f"{text(message.id)} cannot be tried", error)
                    updates += self._after_bug(message, now)
        try:
            if updates:
                await self._spool.lease(updates)
        except BaseException:
            for _, batch in leased:
                self._settler.postpone(batch, now + BUSY_WAIT)
            raise
        return leased

    def _take(
        self, route: Route | Outcome, message: Message, now: float, leased: list[Leased]
    ) -> list[Update]:
        # Whose attempt takes longer than its wait is moved, or it would be read again and again.
        stuck = self._leases.under_way(message)
        updates = [self._until_next(message, each, now, route) for each in stuck]
        recipients = self._leases.free(message)
        lot = self._lot(route, message)
        if isinstance(lot, Wait):
            return [*updates, *self._put_off(message, lot.until)]
        for recipient in recipients:
            recipient.attempts += 1
            updates.append(self._until_next(message, recipient, now, route))
        for recipient in recipients:
            self._leases.take(message, recipient, lot)
        if recipients:
            message.held = len(recipients)
            leased.append((route, Batch(message, recipients)))
        return updates

    def _after_bug(self, message: Message, now: float) -> Iterator[Update]:
        """It would be read again and again; the attempt counts."""
        for each in self._leases.free(message):
            due = self._settler.plain_due(message, each, now)
            yield Update(State.DEFERRED, each.attempts + 1, due, message.id, each.n)
            self.note(message.line(each), due)

    def _lot(self, route: Route | Outcome, message: Message) -> Lot | Wait:
        """Where a retry waits in memory; or until when it stays on disk, and others of its line pass."""
        hours = self._hours(message)
        if hours is not None:
            return hours
        if isinstance(route, Outcome):
            return "", "", message.priority
        lane = self._pool.choose(route, message)
        if isinstance(lane, Wait):
            return lane
        lot = (route.site, lane.source.name, message.priority)
        if self._leases.room(lot) or not self._room(route.site, message.priority):
            return lot  # where no lot has room any more, the next look sees it
        return Wait(self._leases.comes_back(lot, self._clock.now()), LANE_FULL)

    def _put_off(self, message: Message, until: float) -> Iterator[Update]:
        """A gate that is shut takes no attempt."""
        for each in self._leases.free(message):
            due = min(until, message.expires)
            yield Update(State.DEFERRED, each.attempts, due, message.id, each.n)
            self.note(message.line(each), due)

    def _until_next(
        self, message: Message, recipient: Recipient, now: float, route: Route | Outcome
    ) -> Update:
        known = route if isinstance(route, Route) else None
        due = self._settler.next_due(message, recipient, now, known) or message.expires
        due = max(due, now + STUCK_WAIT)
        return Update(State.DEFERRED, recipient.attempts, due, message.id, recipient.n)

    # Routes of retries

    def _look_up(self, line: Line, due: float) -> None:
        """The line stands aside until its route is known; others go on."""
        waiting = self._waiting_for_route.get(line.domain)
        if waiting is not None:
            waiting[line] = due
            return
        self._waiting_for_route[line.domain] = {line: due}
        self._unknown.append(line.domain)
        self._start_lookups()

    def _start_lookups(self) -> None:
        while self._unknown and self._lookups < LOOKUPS:
            self._lookups += 1
            self._tasks.create_task(self._find_route(self._unknown.popleft()))

    async def _find_route(self, domain: str) -> None:
        failed = False
        try:
            await self._router.route(domain)
        except Exception as error:
            self._bug(error)
            failed = True
        self._lookups -= 1
        try:
            for line, due in self._waiting_for_route.pop(domain, {}).items():
                # With its old due time it goes before those that have no route yet.
                self.note(line, self._clock.now() + BUSY_WAIT if failed else due)
            self._start_lookups()
        except Exception as error:
            self._bug(error)

    def _bug(self, error: Exception) -> None:
        self._metrics.bug("outbound", "a bug in the scheduler", error)


def _share(line: Line) -> Share:
    return line.priority, line.tenant
