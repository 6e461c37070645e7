"""Mail whose time is over is given up, delivered or not.

Between: the spool says what has expired, the settler moves it and tells the sender, as he asked.
Contract: a timer of its own; needs neither lanes nor peers. Page by page: at most about `PAGE` recipients,
    their notices and the beginnings of their messages are in memory, and each page is committed before
    the next is read. What is under way is left to its attempt, and does not hide what comes behind it. A
    bug of ours over one message is counted; neither that one nor the others stay in the queue for it.
Raises: nothing that mail can cause.
Standards: RFC 5321 4.5.4.1 (give up after days), 6.1 (the sender is told).
Why: a hundred thousand messages may expire in one minute. New mail shares the writer with them: small
    commits let it in between.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from mta.clock import Clock
from mta.core.mail.dsn import MAX_RETURNED
from mta.core.mail.message import header_block
from mta.core.model import Batch
from mta.core.queueid import text
from mta.metrics import Metrics
from mta.outbound.leases import Leases
from mta.outbound.outcome import Settler, Trace, is_told
from mta.spool.queue import Spool

INTERVAL = 30.0  # seconds between two looks
PAGE = 100  # recipients

Position = tuple[float, int]  # of a message: expires, id
START = (0.0, 0)

log = logging.getLogger(__name__)


class Expiry:
    """Gives up."""

    def __init__(
        self, settler: Settler, spool: Spool, leases: Leases, clock: Clock, metrics: Metrics
    ) -> None:
        self._settler = settler
        self._spool = spool
        self._leases = leases
        self._clock = clock
        self._metrics = metrics
        self.before_look: Callable[[], Awaitable[bool]] | None = None  # may a clock that was set be believed?

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._clock.sleep(INTERVAL)
            try:
                await self._look()
            except Exception as error:
                self._metrics.bug("outbound", "a bug in the expiry", error)

    async def _look(self) -> None:
        if self.before_look is not None and not await self.before_look():
            return
        now = self._clock.now()
        if not await self._spool.reader.expired(START, now, 1):
            return  # as nearly always: nobody's turn is taken for that
        after: Position | None = START
        while after is not None:
            after = await self._page(after, now)

    async def _page(self, after: Position, now: float) -> Position | None:
        """Give up the next ones behind a message; the last of them, None where there were none."""
        async with self._leases.looking(lambda: self._spool.lease([])):
            messages = await self._spool.reader.expired(after, now, PAGE)
            batches = [Batch(message, self._leases.free(message)) for message in messages]
            batches = [batch for batch in batches if batch.recipients]
            told = [batch.message.id for batch in batches if is_told(batch.message)]
            heads = await self._heads(told)
            self._settler.each(batches, partial(self._give_up, heads))
            await self._spool.lease([])  # the next look, whoever's, sees it
        return (messages[-1].expires, messages[-1].id) if messages else None

    async def _heads(self, messages: list[int]) -> Mapping[int, bytes]:
        try:
            return await self._spool.reader.heads(messages, MAX_RETURNED)
        except Exception as error:  # a notice without a header is better than mail that never expires
            self._metrics.bug("outbound", "the headers of mail that expires cannot be read", error)
            return {}

    def _give_up(self, heads: Mapping[int, bytes], batch: Batch) -> None:
        message = batch.message
        if is_told(message) and message.id not in heads:
            log.error("%s expires without its header: its content cannot be read", text(message.id))
        batch.head = header_block(heads.get(message.id, b""))
        self._settler.expire(batch, Trace())
