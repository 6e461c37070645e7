"""Clients that do nothing wrong, and what they feel while others do.

Between: `attacks` runs `play` in a process of its own; the attacks dial with `dial` too.
Contract: seconds. A message each 50 ms on a connection that is kept (STARTTLS); a new connection with its
    login and one message each 500 ms (implicit TLS and STARTTLS in turn); /readyz each 500 ms. A time goes
    from when it was due, so that a stall counts for all that it kept waiting. Whoever is refused, hung up on,
    or not answered for PATIENCE has failed; so has what was still to be sent that long after the end.
Raises: Unexpected where the server says something else than what leads on; OSError, EOFError.
Why: a process of its own, for what the attackers cost must not be felt here. Certificates are not checked.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import uvloop

HOST = "127.0.0.1"
CLEAN = "127.0.0.9"  # where the innocents are
PATIENCE = 10.0
KEPT, NEW = 0.05, 0.5  # seconds from one to the next
MESSAGE = b"From: <a@src.test>\r\nTo: <b@dst.test>\r\nSubject: hello\r\n\r\nHello.\r\n"
FAILURES = (OSError, EOFError)  # a timeout and an error of TLS are OSErrors

CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
CONTEXT.check_hostname = False
CONTEXT.verify_mode = ssl.CERT_NONE


class Unexpected(ConnectionError):
    """The server does not do what was asked."""


class Ports(NamedTuple):
    """Where the daemon listens, where all mail goes, and where an attack may listen."""

    starttls: int
    implicit: int
    admin: int
    sink: int
    theirs: int


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience: float) -> None:
        self.reader = reader
        self.writer = writer
        self.patience = patience

    async def say(self, octets: bytes, *codes: bytes) -> bytes:
        """Write it, and read as many replies as there are codes; any will do for an empty one: the last."""
        async with asyncio.timeout(self.patience):
            self.writer.write(octets)
            await self.writer.drain()
            for code in codes:
                while (line := await self.reader.readuntil(b"\n"))[3:4] == b"-":
                    pass
                if not line.startswith(code):
                    raise Unexpected(f"not {code.decode()}: {line.decode('latin-1')}")
            return line if codes else b""

    async def login(self, login: str, secret: str, code: bytes = b"235") -> bytes:
        plain = base64.b64encode(f"\0{login}\0{secret}".encode())
        return await self.say(b"AUTH PLAIN %b\r\n" % plain, code)

    async def begin(self, *recipients: str) -> None:
        """An envelope, up to the 354."""
        to = b"".join(b"RCPT TO:<%b>\r\n" % each.encode() for each in recipients or ["b@dst.test"])
        wanted = [b"250"] * (1 + to.count(b"\n"))
        await self.say(b"MAIL FROM:<a@src.test>\r\n%bDATA\r\n" % to, *wanted, b"354")

    async def send(self, content: bytes, *recipients: str) -> None:
        await self.begin(*recipients)
        await self.say(content + b".\r\n", b"250")


@asynccontextmanager
async def dial(
    port: int, address: str = HOST, tls: str = "implicit", patience: float = PATIENCE
) -> AsyncIterator[Client]:
    """A client that has said EHLO, over TLS that is implicit, starttls or none."""
    context = CONTEXT if tls == "implicit" else None
    async with asyncio.timeout(patience):
        streams = await asyncio.open_connection(HOST, port, ssl=context, local_addr=(address, 0))
    client = Client(*streams, patience)
    try:
        await client.say(b"", b"220")
        await client.say(b"EHLO client.test\r\n", b"250")
        if tls == "starttls":
            await client.say(b"STARTTLS\r\n", b"220")
            async with asyncio.timeout(patience):
                await client.writer.start_tls(CONTEXT)
            await client.say(b"EHLO client.test\r\n", b"250")
        yield client
    finally:
        client.writer.transport.abort()


class Watch:
    """One kind of innocent: how long it took, of those that came."""

    def __init__(self, every: float) -> None:
        self.every = every
        self.due = 0
        self.times: list[float] = []

    def summary(self, name: str) -> dict[str, float | None]:
        """Milliseconds, and how many of those that were due did not come."""
        times = sorted(self.times)

        def part(share: float) -> float | None:
            return times[int(share * (len(times) - 1))] * 1e3 if times else None

        shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
        figures = {f"{name}_{each}": part(share) for each, share in shares.items()}
        return figures | {f"{name}_failed": self.due - len(times), f"{name}_due": self.due}


class Innocents:
    """All three, until they are told to stop."""

    def __init__(self, ports: Ports, secret: str) -> None:
        self._ports = ports
        self._secret = secret
        self._end = asyncio.Event()
        self._ended = float("inf")
        self.kept, self.new, self.ready = Watch(KEPT), Watch(NEW), Watch(NEW)

    async def run(self, end: Coroutine[Any, Any, object]) -> dict[str, float | None]:
        async with AsyncExitStack() as stack:
            self._kept = await self._open(stack)
            async with asyncio.TaskGroup() as tasks:
                for work in (self._keep(stack), self._each(self.new, self._message), self._ask_always()):
                    tasks.create_task(work)
                await end
                self._ended = time.monotonic()
                self._end.set()
        kinds = {"kept": self.kept, "new": self.new, "ready": self.ready}
        return {key: value for name, watch in kinds.items() for key, value in watch.summary(name).items()}

    async def _open(self, stack: AsyncExitStack, tls: str = "starttls") -> Client:
        port = self._ports.implicit if tls == "implicit" else self._ports.starttls
        client = await stack.enter_async_context(dial(port, CLEAN, tls))
        await client.login("innocent", self._secret)
        return client

    async def _turns(self, watch: Watch) -> AsyncIterator[float]:
        """When each is due."""
        began = time.monotonic()
        while True:
            due = began + watch.due * watch.every
            with suppress(TimeoutError):
                async with asyncio.timeout(max(due - time.monotonic(), 0.0)):
                    await self._end.wait()
            if due > self._ended:
                return
            watch.due += 1
            yield due

    async def _keep(self, stack: AsyncExitStack) -> None:
        is_open = True
        async for due in self._turns(self.kept):
            if time.monotonic() > self._ended + PATIENCE:
                continue  # it has failed
            try:
                if not is_open:
                    await stack.aclose()
                    self._kept = await self._open(stack)
                    is_open = True
                await self._kept.send(MESSAGE)
                self.kept.times.append(time.monotonic() - due)
            except FAILURES:
                is_open = False

    async def _each(self, watch: Watch, one: Callable[[int], Coroutine[Any, Any, None]]) -> None:
        """Each by itself, whatever has become of the one before."""

        async def timed(due: float, number: int) -> None:
            with suppress(*FAILURES):
                async with asyncio.timeout(PATIENCE):
                    await one(number)
                watch.times.append(time.monotonic() - due)

        async with asyncio.TaskGroup() as tasks:
            async for due in self._turns(watch):
                tasks.create_task(timed(due, watch.due))

    async def _message(self, number: int) -> None:
        async with AsyncExitStack() as stack:
            client = await self._open(stack, "implicit" if number % 2 else "starttls")
            await client.send(MESSAGE)

    async def _ask_always(self) -> None:
        await self._each(self.ready, self._ask)

    async def _ask(self, number: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, self._ports.admin)
        try:
            writer.write(b"GET /readyz HTTP/1.0\r\n\r\n")
            if b" 200 " not in await reader.readline():
                raise Unexpected("not ready")
        finally:
            writer.close()


def play(pipe: Connection, ports: Ports, secret: str) -> None:
    """Until something comes through the pipe; then what they felt goes back."""

    async def played() -> dict[str, float | None]:
        return await Innocents(ports, secret).run(asyncio.to_thread(pipe.recv))

    pipe.send(uvloop.run(played()))
