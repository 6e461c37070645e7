"""Questions to DNS where mail goes, in the order of service, and what waits for their answers.

Between: the scheduler brings fresh batches, the retries lines, whose domains have no known route; the router
    asks. Batches go on to `on_routed`, lines back to the backlog.
Contract: one question for each domain, `AT_ONCE` in all; no share (a priority, a tenant, fresh or not) has
    more of them under way, or more recipients in memory, than it leaves free for others. While the name
    servers do not say a word, lines are parked: the first word wakes them, `WOKEN` with each answer, and no
    attempt is lost; by themselves they come back, and ask, after `SILENCE`.
Raises: nothing; a bug of ours over a question puts its mail off.
Why: one list with ten thousand domains whose servers are silent must not stand before anybody's question,
    and an outage of DNS for two minutes must not be one of hours for the mail that met it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator

from mta.clock import Clock
from mta.core.limits.order import Order
from mta.core.limits.parts import Parts
from mta.core.model import Batch, Kind, Line, Outcome, Wait
from mta.core.route.routing import Route
from mta.delivery.router import TROUBLE, Router
from mta.metrics import Metrics
from mta.outbound.backlog import Backlog

AT_ONCE = 200  # questions; the resolver has room for more, which is for the addresses of hosts
RESOLVING = 20_000  # recipients that may wait in memory for their route
BUSY_WAIT = 60.0  # seconds until mail comes back over which a question met a bug
SILENCE = TROUBLE  # seconds until mail that met silence asks again; before that the router answers for DNS
WOKEN = 100  # lines with each answer
SILENT = "DNS is silent"

Who = tuple[str, bool]  # tenant, and is it fresh?


class _Question:
    """A domain without a route, and who waits for it."""

    __slots__ = ("batches", "is_asked", "lines")

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.lines: dict[Line, float] = {}  # with their due times
        self.is_asked = False


class Lookups:
    """Every question that is open."""

    def __init__(self, router: Router, backlog: Backlog, clock: Clock, metrics: Metrics) -> None:
        self._router = router
        self._backlog = backlog
        self._clock = clock
        self._metrics = metrics
        self._questions: dict[str, _Question] = {}  # by domain
        self._order: Order[Who, OrderedDict[str, None]] = Order()  # domains that are to be asked for
        self._asked = Parts(AT_ONCE)
        self._unrouted = Parts(RESOLVING)
        self._is_silent = False  # the last question was asked, and given up, without a word from any server
        self.on_routed: Callable[[Route | Outcome | None, list[Batch]], None] = lambda route, batches: None

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Questions are asked in `tasks`."""
        self._tasks = tasks

    def stop(self) -> list[Batch]:
        """Nobody is asked any more; the fresh mail that would have been."""
        self._order.clear()
        waiting = [(domain, each) for domain, each in self._questions.items() if not each.is_asked]
        for domain, question in waiting:
            self._leave(domain, question)
        return [batch for _, question in waiting for batch in question.batches]

    @property
    def unrouted(self) -> int:
        """Recipients of fresh mail that wait here."""
        return self._unrouted.held

    @property
    def batches(self) -> Iterator[list[Batch]]:
        """The fresh mail that waits here."""
        for question in list(self._questions.values()):
            yield list(question.batches)

    def has_room(self, batch: Batch) -> bool:
        """May it wait in memory? Else it does on disk, and its line here."""
        return self._unrouted.has_room((batch.message.priority, batch.message.tenant))

    def hold(self, domain: str, batch: Batch) -> None:
        """Fresh mail waits for the route of this domain."""
        message = batch.message
        self._unrouted.take((message.priority, message.tenant), len(batch.recipients))
        self._ask_for(domain, message.priority, (message.tenant, True)).batches.append(batch)
        self._go_on()

    def stand_aside(self, line: Line, due: float) -> None:
        """The line waits until its route is known; others go on."""
        self._ask_for(line.domain, line.priority, (line.tenant, False)).lines[line] = due
        self._go_on()

    def gate(self, route: Outcome) -> Wait | None:
        """Is this no route only because DNS is silent?"""
        if not self._is_silent or route.kind is not Kind.DEFERRED:
            return None
        return Wait(self._clock.now() + SILENCE, SILENT)

    # Inside

    def _ask_for(self, domain: str, priority: int, who: Who) -> _Question:
        question = self._questions.get(domain)
        if question is None:
            question = self._questions[domain] = _Question()
        if not question.is_asked:
            row = self._order.get(priority, who)
            if row is None:
                row = OrderedDict()
                self._order.enter(priority, who, row)
            row[domain] = None
        return question

    def _go_on(self) -> None:
        """Ask, as long as there is room for the next one's question."""
        while self._asked.held < self._asked.most:
            may = (each for each in self._order.ranked() if self._asked.has_room((each[0], each[1])))
            found = next(may, None)
            if found is None:
                return
            priority, who, row = found
            domain, _ = row.popitem(last=False)
            self._order.served(priority, who, stays=bool(row))
            question = self._questions.get(domain)
            if question is None or question.is_asked:
                continue  # for somebody else, who came to his turn before
            question.is_asked = True
            self._asked.take((priority, who))
            self._tasks.create_task(self._ask(domain, question, (priority, who)))

    async def _ask(self, domain: str, question: _Question, share: tuple[int, Who]) -> None:
        route: Route | Outcome | None = None
        since = self._clock.monotonic()
        try:
            route = await self._router.route(domain)
        except Exception as error:
            self._bug(error)
        finally:
            self._asked.give_back(share)
            self._leave(domain, question)
            try:
                self._listen(route, since)
                for line, due in question.lines.items():
                    self._backlog.note(line, self._clock.now() + BUSY_WAIT if route is None else due)
                self.on_routed(route, question.batches)
            except Exception as error:
                self._bug(error)
                self._backlog.lacks = True
            try:  # all the same, or nobody would ask for those who wait
                self._go_on()
            except Exception as error:
                self._bug(error)

    def _leave(self, domain: str, question: _Question) -> None:
        del self._questions[domain]
        for batch in question.batches:
            message = batch.message
            self._unrouted.give_back((message.priority, message.tenant), len(batch.recipients))

    def _listen(self, route: Route | Outcome | None, since: float) -> None:
        """Did any name server say anything while we asked?"""
        if self._router.heard_at >= since:
            if self._is_silent:
                self._is_silent = False
                self._router.ask_again()
            self._backlog.wake(SILENT, WOKEN)
        elif isinstance(route, Outcome) and route.kind is Kind.DEFERRED:
            self._is_silent = True

    def _bug(self, error: Exception) -> None:
        self._metrics.bug("outbound", "a bug in a question to DNS", error)
