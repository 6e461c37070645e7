"""The retries: from disk to their lanes, a round at a time.

Between: the backlog says which lines are due, the gate whether they may come, the spool what they hold; the
    leases count what is in memory, and `send` has it.
Contract: retries are leased (attempt and next due time committed) before anything is dialled, a whole round
    at once; those that their own source or their hours keep out get another due time instead, and let the
    rest of their line pass. Lines are parked where what they wait for ends by a word: room in their lane, a
    place in memory, DNS; each word brings as many as there is room for, in the order of service.
    A bug of ours over one line lets the others of its round pass, after one over the agenda it is made anew.
Raises: nothing that mail can cause.
Standards: RFC 5321 4.5.4.1.
Why: when everything is due at once, rounds are small, and lines without a route stand aside: neither the
    disk nor DNS is flooded, and fresh mail gets in between.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Hashable, Iterator
from functools import partial

from mta.clock import Clock
from mta.config.policy import Current
from mta.core.limits.order import Share
from mta.core.model import Batch, Line, Message, Outcome, Recipient, Wait
from mta.core.queue.lifecycle import State
from mta.core.queueid import text
from mta.core.route.routing import Route
from mta.delivery.lane import LANE_FULL
from mta.delivery.router import Router
from mta.metrics import Metrics
from mta.outbound.backlog import Backlog
from mta.outbound.clockwatch import ClockWatch
from mta.outbound.gate import ENDS, Gate
from mta.outbound.leases import NO_PLACE, Leases, Lot
from mta.outbound.lookups import Lookups
from mta.outbound.outcome import Settler
from mta.spool.commit import Update
from mta.spool.database import SpoolError
from mta.spool.queue import Spool
from mta.spool.reader import Due

ROUND = 200  # domains looked at in one round
LEASED = 200  # recipients leased in one round, shared among its domains: a commit of a few milliseconds
PLACE_WAIT = 60.0  # seconds until a line comes back that found no place in memory; a free one wakes it sooner
BUG_WAIT = 60.0  # seconds until a line is looked at again over which we met a bug
BEHIND_WAIT = 5.0  # seconds until retries are looked at again after a bug, or a disk that refuses
STUCK_WAIT = 30.0  # seconds, at the least, until mail is looked at again that is under way

Leased = tuple[Route | Outcome, Batch]


class Retries:
    """What has been tried before, and is due again."""

    def __init__(
        self,
        router: Router,
        current: Current,
        lookups: Lookups,
        gate: Gate,
        backlog: Backlog,
        leases: Leases,
        settler: Settler,
        spool: Spool,
        watch: ClockWatch,
        clock: Clock,
        metrics: Metrics,
        send: Callable[[Route | Outcome, Batch], None],
    ) -> None:
        self._router = router
        self._current = current
        self._lookups = lookups
        self._gate = gate
        self._backlog = backlog
        self._leases = leases
        self._settler = settler
        self._spool = spool
        self._watch = watch
        self._clock = clock
        self._metrics = metrics
        self._send = send

    # What others tell

    def park(self, route: Route | Outcome, line: Line, wait: Wait) -> None:
        """A line waits for the end of what its gate has said."""
        lot: Hashable = wait.reason
        if isinstance(route, Route) and wait.reason == LANE_FULL:
            lot = _lane_of(route.site, (line.priority, line.tenant))
        self._backlog.park(lot, line, wait.until)

    def released(self, message: Message, recipient: Recipient) -> None:
        """The attempt of one recipient is over."""
        lot = self._leases.give_back(message, recipient)
        if lot is not None and self._leases.is_low(lot):
            self.has_room(lot.site, lot.share)

    def has_room(self, site: str, share: Share) -> None:
        """A lane of the site may take more of this share, or fewer of its retries are in memory."""
        self._backlog.wake(_lane_of(site, share), self._room(site, share))
        self._backlog.wake(NO_PLACE, 1, self._leases.has_place)

    def _room(self, site: str, share: Share) -> int:
        """How many retries more may wait in memory, in the lot that may have most."""
        return max(self._leases.room(lot) for lot in self._lots(site, share))

    def _lots(self, site: str, share: Share) -> Iterator[Lot]:
        return (Lot(site, source.name, *share) for source in self._current.policy.sources.used)

    # Rounds

    async def run(self) -> None:
        """For ever."""
        while True:
            self._backlog.changed.clear()
            try:
                if not await self._watch.look():
                    await self._clock.sleep(BEHIND_WAIT)
                    continue
                if self._backlog.lacks:
                    await self._backlog.look_ahead()
                await self._go_on()
            except Exception as error:
                self._bug(error)
                self._backlog.lacks = True
                await self._clock.sleep(BEHIND_WAIT)

    async def _go_on(self) -> None:
        """A round of what is due, or the wait for the next."""
        now = self._clock.now()
        lines = self._backlog.take(now, ROUND)
        if not lines:
            await self._backlog.wait(now)
            return
        try:
            await self._round(lines, now)
        except Exception as error:
            await self._one_by_one(lines, now, error)

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
            self._backlog.note(each[0], now + BUG_WAIT)

    async def _round(self, lines: list[tuple[Line, float]], now: float) -> None:
        """Lease what is due in these lines, in one commit, and send it on."""
        # Due times are noted before they are on disk, where we look.
        async with self._leases.looking(lambda: self._spool.lease([])):
            wanted = self._wanted(lines, now)
            found = await self._spool.reader.due([(line, room) for line, _, room in wanted], now)
            routed = [(route, due) for (_, route, _), due in zip(wanted, found, strict=True)]
            leased = await self._lease(routed, now)
        for route, batch in leased:
            self._settler.each([batch], partial(self._send, route))
        for (line, route, _), due in zip(wanted, found, strict=True):
            if due.rest is not None:
                self._backlog.note(line, max(due.rest, now))  # behind the others that are due
            if isinstance(route, Route) and not isinstance(self._gate.room(route, line, 1), Wait):
                share = (line.priority, line.tenant)
                self._backlog.wake(_lane_of(route.site, share), self._room(route.site, share))

    def _wanted(self, lines: list[tuple[Line, float]], now: float) -> list[tuple[Line, Route | Outcome, int]]:
        """The lines that are open, each with its route and how many recipients to take."""
        most = max(LEASED // len(lines), 1)
        wanted: list[tuple[Line, Route | Outcome, int]] = []
        rooms: dict[tuple[str, Share], int] = {}
        promised: list[Share] = []
        try:
            for line, due in lines:
                route = self._router.cached(line.domain)
                if route is None:
                    self._lookups.stand_aside(line, due)
                    continue
                room = self._gate.room(route, line, most)
                if isinstance(room, int) and isinstance(route, Route):
                    room = self._place(route.site, line, room, rooms, promised)
                if isinstance(room, int):
                    wanted.append((line, route, room))
                elif room.reason in ENDS:
                    self.park(route, line, room)
                else:
                    self._backlog.note(line, max(room.until, now + 1.0))
        finally:
            self._leases.withdraw(promised)  # what is taken of it is taken before anybody else may look
        return wanted

    def _place(
        self, site: str, line: Line, most: int, rooms: dict[tuple[str, Share], int], promised: list[Share]
    ) -> int | Wait:
        """How many of a line may come into memory, beside those of the lines before it in this round."""
        share = (line.priority, line.tenant)
        left = rooms.get((site, share))
        if left is None:
            left = self._room(site, share)
            if left and self._leases.promise(share, self._lots(site, share)):
                promised.append(share)
        rooms[site, share] = left - min(left, most)
        if left:
            return min(left, most)
        shut_out = all(map(self._leases.shuts_out, self._lots(site, share)))
        return Wait(self._clock.now() + PLACE_WAIT, NO_PLACE if shut_out else LANE_FULL)

    # Leases

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
                self._settler.postpone(batch, now + BUG_WAIT)
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
            message.on_the_way = len(recipients)
            leased.append((route, Batch(message, recipients)))
        return updates

    def _lot(self, route: Route | Outcome, message: Message) -> Lot | Wait:
        """Where a retry waits in memory; or until when it stays on disk, and others of its line pass."""
        source = self._gate.source(route, message)
        if isinstance(source, Wait):
            return source
        if isinstance(route, Outcome):
            return Lot("", "", message.priority, message.tenant)
        lot = Lot(route.site, source, message.priority, message.tenant)
        if self._leases.room(lot) or not self._room(lot.site, lot.share):
            return lot  # where no lot has room any more, the next look sees it
        return Wait(self._leases.comes_back(lot, self._clock.now()), LANE_FULL)

    def _put_off(self, message: Message, until: float) -> Iterator[Update]:
        """A gate that is shut takes no attempt."""
        for each in self._leases.free(message):
            due = min(until, message.expires)
            yield Update(State.DEFERRED, each.attempts, due, message.id, each.n)
            self._backlog.note(message.line(each), due)

    def _after_bug(self, message: Message, now: float) -> Iterator[Update]:
        """It would be read again and again; the attempt counts."""
        for each in self._leases.free(message):
            due = self._settler.plain_due(message, each, now)
            yield Update(State.DEFERRED, each.attempts + 1, due, message.id, each.n)
            self._backlog.note(message.line(each), due)

    def _until_next(
        self, message: Message, recipient: Recipient, now: float, route: Route | Outcome
    ) -> Update:
        known = route if isinstance(route, Route) else None
        due = self._settler.next_due(message, recipient, now, known) or message.expires
        due = max(due, now + STUCK_WAIT)
        return Update(State.DEFERRED, recipient.attempts, due, message.id, recipient.n)

    def _bug(self, error: Exception) -> None:
        self._metrics.bug("outbound", "a bug in the retries", error)


def _lane_of(site: str, share: Share) -> Hashable:
    """Where lines of a share are parked that wait for room in a lane."""
    return LANE_FULL, site, share
