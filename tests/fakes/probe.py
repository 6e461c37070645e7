"""The server's end alone, on a real socket: a test says what it decides, and sees what arrived.

Between: tests of `mta.smtp` script a `Desk`; `probing` serves it on loopback.
Contract: `faults` maps a point (connect, mail, rcpt, data, message, auth) to an exception to raise there;
    while `hold` is set messages wait in `waiting` for the test to answer them.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from aiosmtpd.smtp import AuthResult

from mta.clock import Clock, SystemClock
from mta.core.limits.room import Share
from mta.core.mail.address import EnvelopePath
from mta.core.model import Reply
from mta.smtp.connection import ClientTerms
from mta.smtp.listener import Listener
from mta.smtp.rests import Rests
from mta.smtp.server import Server
from tests.fakes.client import PATIENCE
from tests.fakes.house import certificate

OK = Reply(250, "2.0.0", "Ok")


class Desk:
    """What the test has said, and what it has seen."""

    def __init__(self) -> None:
        self.faults: dict[str, Exception] = {}
        self.hold = False
        self.contents: list[bytes] = []
        self.waiting: list[Probe] = []
        self.connections: list[Probe] = []
        self.bugs: list[BaseException] = []
        self.octets = 0  # that the server has read
        self.gone = 0  # connections that ended
        self.choked = 0  # connections whose client does not read
        self.ended = 0  # connections whose client has shut its side
        self._changed = asyncio.Event()

    def changed(self) -> None:
        self._changed.set()

    async def until(self, **least: int) -> None:
        """Wait until each of these counts has been reached."""
        async with asyncio.timeout(PATIENCE):
            while not all(self._count(name) >= count for name, count in least.items()):
                self._changed.clear()
                await self._changed.wait()

    def _count(self, name: str) -> int:
        seen = getattr(self, name)
        return seen if isinstance(seen, int) else len(seen)

    def at(self, point: str) -> None:
        if point in self.faults:
            raise self.faults[point]

    async def auth_PLAIN(self, connection: Probe, words: list[str]) -> AuthResult:
        self.at("auth")
        return AuthResult(success=False, handled=False, message="535 5.7.8 No")


class Probe(Server):
    """One connection; the desk decides."""

    event_handler: Desk

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.event_handler.octets += len(data)
        self.event_handler.changed()

    def eof_received(self) -> bool:
        self.event_handler.ended += 1
        self.event_handler.changed()
        return super().eof_received()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.event_handler.choked += 1
        self.event_handler.changed()

    def on_connect(self) -> Reply | None:
        self.event_handler.connections.append(self)
        self.event_handler.at("connect")
        return None

    def on_disconnect(self) -> None:
        self.event_handler.gone += 1
        self.event_handler.changed()

    def on_mail(self, sender: EnvelopePath) -> Reply | None:
        self.event_handler.at("mail")
        return None

    def on_rcpt(self, recipient: EnvelopePath) -> Reply | None:
        self.event_handler.at("rcpt")
        return None

    def on_data(self) -> Reply | None:
        self.event_handler.at("data")
        return None

    def open_share(self) -> Share:
        return self.listener.memory.open()

    def on_message(self, pieces: list[bytes], dotted: bool) -> Reply | None:
        desk = self.event_handler
        desk.at("message")
        desk.contents.append(b"".join(pieces))
        if desk.hold:
            desk.waiting.append(self)
        desk.changed()
        return None if desk.hold else OK


@asynccontextmanager
async def probing(
    desk: Desk,
    clock: Clock | None = None,
    message_size: int = 2**20,
    buffer: int | None = None,
    memory: int = 2**30,
) -> AsyncIterator[Listener]:
    """Serve the desk on a port that the system chooses; `buffer`: the kernel keeps so much of our replies."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate())
    running: set[asyncio.Task[None]] = set()

    def spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        running.add(task)
        task.add_done_callback(running.discard)
        return task

    listener = Listener(
        host="127.0.0.1", port=0, hostname="mta.test", clock=clock or SystemClock(),
        terms=ClientTerms(message_size, 300.0, 600.0, 14400.0), memory=Share(memory), rests=Rests(),
        tls_context=context, offers_auth=True, spawn=spawn, bug=desk.bugs.append,
        connect=lambda listener: Probe.template(listener, desk),
    )  # fmt: skip
    await listener.start()
    if buffer is not None:  # connections inherit it
        with socket.socket(fileno=os.dup(listener._server.sockets[0].fileno())) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    try:
        yield listener
    finally:
        await listener.drain(0.0)
