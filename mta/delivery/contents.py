"""Contents that are read back from disk to be sent: each is held once, and all share one budget.

Between: a lane's transactions ask for room, hand in a batch with the connection that waits for it, and give
    the batch back when it is over; the content comes by `begin`, stuffed, or the error by `unread`. One that
    is in memory for others they take at once (`lend`), where `has` says so.
Contract: `has_room` before `read`; whoever was told False is kicked, in turn, when something was given back.
    The budget (octets) is divided by `Share`, site by site and connection by connection; a site that holds
    nothing may take half of what is free, so a slow site leaves room for the next, whatever it is sent.
    A content that several batches want is charged to the first of them that is still sent. Mail of our own
    is committed as it is, and gets its signatures here, each time its transaction begins.
Raises: nothing.
Why: what is sent slowly is held long. One large message to forty slow sites was forty contents in memory.
    A C call over many octets holds the GIL, so what is large is stuffed by slices, in a thread.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from mta.core.limits.room import Share
from mta.core.mail.dsn import MAX_RETURNED
from mta.core.mail.message import header_block, stuff
from mta.core.model import Batch, Message
from mta.core.route.routing import Route
from mta.smtp.client import Connection
from mta.spool.queue import Spool

SLICE = 1024 * 1024  # octets that one call works on
TURNS = 20  # lanes that are asked again when a content was given back


class Asker(Protocol):
    """Who waits for room."""

    route: Route

    def kick(self) -> None: ...


class Sender(Protocol):
    """Who sends them."""

    site: str

    def begin(self, connection: Connection, batch: Batch, body: bytes, head: bytes) -> None: ...

    def unread(self, connection: Connection, batch: Batch, error: Exception) -> None: ...

    def bug(self, error: Exception) -> None: ...


class Tasks(Protocol):
    """Where reading runs."""

    def create_task(self, coro: Coroutine[Any, Any, None], /) -> object: ...


class _Content:
    """One content, or the wait for it, and who sends it."""

    __slots__ = ("body", "charge", "head", "message", "senders", "share", "site")

    def __init__(self, message: Message, charge: int) -> None:
        self.message = message
        self.charge = charge  # octets of the budget
        self.body: bytes | None = None
        self.head = b""
        self.senders: dict[Batch, tuple[Sender, Connection]] = {}  # the first of them pays
        self.share: Share | None = None
        self.site = ""  # of who pays


class Contents:
    """What is in memory to be sent, besides fresh mail."""

    def __init__(self, spool: Spool, budget: int, signed: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._spool = spool
        self._signed = signed
        self._budget = Share(budget)
        self._contents: dict[int, _Content] = {}  # by message
        self._lent: dict[Batch, _Content] = {}
        self._sites: Counter[str] = Counter()  # contents that a site pays for
        self._waiting: dict[Asker, None] = {}  # lanes that found no room, in the order they came
        self._kicking = False
        self.octets = 0

    def start(self, tasks: Tasks) -> None:
        """Read in these tasks."""
        self._tasks = tasks

    def has_room(self, lane: Asker, connection: Connection, message: Message) -> bool:
        """May this content be read now?"""
        if message.id in self._contents:
            return True
        charge = self._charge(message)
        share = self._budget.open(lane.route.site, connection)
        fits = share.has_room(charge)
        share.close()
        if fits or (lane.route.site not in self._sites and 2 * charge <= self._budget.free):
            return True
        self._waiting[lane] = None
        return False

    def read(self, sender: Sender, connection: Connection, batch: Batch) -> None:
        """Fetch it, and let the sender begin."""
        message = batch.message
        content = self._contents.get(message.id)
        is_new = content is None
        if content is None:
            content = self._contents[message.id] = _Content(message, self._charge(message))
            self.octets += message.size
        content.senders[batch] = (sender, connection)
        self._lent[batch] = content
        if is_new:
            self._pay(content)
            try:
                self._tasks.create_task(self._fetch(content))
            except BaseException:
                self.give_back(batch)
                raise
        elif content.body is not None:
            _hand(content, batch, sender, connection)

    def has(self, message: Message) -> bool:
        """Was it read, and is still being sent?"""
        content = self._contents.get(message.id)
        return content is not None and content.body is not None

    def lend(self, sender: Sender, connection: Connection, batch: Batch) -> bytes:
        """The body, stuffed; `has` was asked."""
        content = self._contents[batch.message.id]
        assert content.body is not None
        content.senders[batch] = (sender, connection)
        self._lent[batch] = content
        batch.head = content.head
        return content.body

    def give_back(self, batch: Batch) -> None:
        """It is sent, or will not be; of one that borrowed nothing there is nothing to say."""
        content = self._lent.pop(batch, None)
        if content is None:
            return
        paid = next(iter(content.senders)) is batch
        del content.senders[batch]
        if not paid:
            return
        self._refund(content)
        if content.senders:
            self._pay(content)
        else:
            self._forget(content)
        if self._waiting and not self._kicking:
            self._kicking = True
            asyncio.get_running_loop().call_soon(self._kick)

    @property
    def lent(self) -> list[Batch]:
        """The batches whose contents are being read, or were."""
        return list(self._lent)

    # Inside

    def _charge(self, message: Message) -> int:
        """What is larger than half of all counts as half: it goes too, when it is alone."""
        return min(message.size, self._budget.limit // 2)

    def _pay(self, content: _Content) -> None:
        sender, connection = next(iter(content.senders.values()))
        content.site = sender.site
        content.share = self._budget.open(content.site, connection)
        content.share.take(content.charge)
        self._sites[content.site] += 1

    def _refund(self, content: _Content) -> None:
        assert content.share is not None
        content.share.close()
        self._sites[content.site] -= 1
        if not self._sites[content.site]:
            del self._sites[content.site]

    def _forget(self, content: _Content) -> None:
        self.octets -= content.message.size
        if self._contents.get(content.message.id) is content:
            del self._contents[content.message.id]

    def _kick(self) -> None:
        """Lanes in turn; who finds no room again goes to the end of the row."""
        self._kicking = False
        for _ in range(min(len(self._waiting), TURNS)):
            lane = next(iter(self._waiting))
            del self._waiting[lane]
            lane.kick()

    async def _fetch(self, content: _Content) -> None:
        message = content.message
        failure: Exception | None = None
        try:
            octets = await self._spool.reader.content(message.id)
            if not message.credential:
                octets = await self._signed(octets)
            content.head = header_block(octets[:MAX_RETURNED])
            content.body = octets if message.dotless else await _stuffed(octets)
        except Exception as error:
            failure = error
            self._contents.pop(message.id, None)  # who comes from now on reads it anew
        for batch, (sender, connection) in list(content.senders.items()):
            _hand(content, batch, sender, connection, failure)


def _hand(
    content: _Content, batch: Batch, sender: Sender, connection: Connection, failure: Exception | None = None
) -> None:
    """Each sender's bugs are its own."""
    try:
        if failure is None:
            assert content.body is not None
            sender.begin(connection, batch, content.body, content.head)
            return
    except Exception as error:
        failure = error
    try:
        sender.unread(connection, batch, failure)
    except Exception as error:
        sender.bug(error)


async def _stuffed(content: bytes) -> bytes:
    if len(content) <= SLICE:
        return stuff(content)
    pieces: list[bytes | memoryview] = []
    start = 0
    while start < len(content):
        piece, start = await asyncio.to_thread(_slice, content, start)
        pieces.append(piece)
    if sum(map(len, pieces)) == len(content):
        return content
    return await asyncio.to_thread(b"".join, pieces)


def _slice(content: bytes, start: int) -> tuple[bytes | memoryview, int]:
    """Some lines from `start` on, stuffed, and where the next ones begin."""
    end = content.find(b"\n", start + SLICE) + 1 or len(content)
    plain = memoryview(content)[start:end]
    stuffed = stuff(bytes(plain))
    return (plain if len(stuffed) == len(plain) else stuffed), end
