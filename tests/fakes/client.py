"""A raw SMTP client: says exactly the octets that it is told to, and hears replies line by line.

Between: tests of the server's end speak through it.
Contract: `connect` does not read the greeting. `reply` is the next reply; `rest` is what comes until the
    server closes. Every wait ends within `PATIENCE` seconds.
Raises: TimeoutError where the server is silent; EOFError where it has closed instead of replying.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import struct
from typing import NamedTuple, Self

from tests.fakes.house import client_context

PATIENCE = 10.0  # seconds of real time
CONTENT = b"From: a@src.test\r\nTo: b@dst.test\r\nSubject: hello\r\n\r\nHello.\r\n"
ENVELOPE = ["MAIL FROM:<a@src.test>", "RCPT TO:<b@dst.test>", "DATA"]


class Said(NamedTuple):
    """One reply."""

    code: int
    lines: list[str]  # what follows the code and the dash or space

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


class Client:
    """One connection; use it as a context manager."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, own: socket.socket
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.socket = own

    @classmethod
    async def connect(
        cls, port: int, *, tls: bool = False, buffer: int | None = None, address: str = "127.0.0.1"
    ) -> Self:
        """Dial from `address`; `buffer`: so much does the kernel keep for a client that does not read."""
        own = socket.socket()
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if buffer is not None:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        own.setblocking(False)
        own.bind((address, 0))
        limit = 2**16 if buffer is None else buffer
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_connect(own, ("127.0.0.1", port))
            terms = {"ssl": client_context(), "server_hostname": "localhost"} if tls else {}
            reader, writer = await asyncio.open_connection(sock=own, limit=limit, **terms)
        return cls(reader, writer, own)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.writer.transport.abort()

    # Sending

    def send(self, *octets: bytes) -> None:
        """One write."""
        self.writer.write(b"".join(octets))

    def say(self, *lines: str) -> None:
        """Lines, all in one write."""
        self.send(*(line.encode() + b"\r\n" for line in lines))

    async def drained(self) -> None:
        """Everything sent is in the kernel's hands."""
        async with asyncio.timeout(PATIENCE):
            await self.writer.drain()

    def finish(self) -> None:
        """Shut our side only."""
        self.writer.write_eof()

    def reset(self) -> None:
        """Vanish: the server gets a RST, not a FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    # Hearing

    async def reply(self) -> Said:
        """The next reply."""
        lines: list[str] = []
        async with asyncio.timeout(PATIENCE):
            while True:
                line = await self.reader.readline()
                if not line.endswith(b"\r\n"):
                    raise EOFError(f"the server closed after {line!r}")
                lines.append(line[4:-2].decode())
                if line[3:4] == b" ":
                    return Said(int(line[:3]), lines)

    async def replies(self, count: int) -> list[str]:
        """So many replies."""
        return [str(await self.reply()) for _ in range(count)]

    async def rest(self) -> bytes:
        """All that comes until the server closes."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    async def gone(self) -> None:
        """Our transport has closed."""
        async with asyncio.timeout(PATIENCE):
            try:
                await self.writer.wait_closed()
            except OSError:
                pass

    # Conversations

    async def ask(self, line: str) -> str:
        """Say a line and hear its reply."""
        self.say(line)
        return str(await self.reply())

    async def ehlo(self, name: str = "client.test") -> list[str]:
        """The capabilities, after the host's name."""
        self.say(f"EHLO {name}")
        said = await self.reply()
        assert said.code == 250, said
        return said.lines[1:]

    async def starttls(self) -> None:
        """Upgrade; the server has said 220."""
        async with asyncio.timeout(PATIENCE):
            await self.writer.start_tls(client_context(), server_hostname="localhost")

    async def auth(self, login: str, secret: str) -> str:
        """AUTH PLAIN with an initial response."""
        return await self.ask(f"AUTH PLAIN {plain(login, secret)}")

    async def deliver(
        self, content: bytes = CONTENT, *recipients: str, sender: str = "a@src.test", mail: str = ""
    ) -> str:
        """MAIL, RCPT, DATA and the content, dots stuffed: the last reply."""
        to = [f"RCPT TO:<{each}>" for each in recipients or ["b@dst.test"]]
        for line in [f"MAIL FROM:<{sender}>{mail}", *to]:
            said = await self.ask(line)
            if said[0] != "2":
                return said
        return await self.data(content)

    async def data(self, content: bytes) -> str:
        """DATA and the content: the last reply."""
        said = await self.ask("DATA")
        if said[0] != "3":
            return said
        self.send(stuffed(content))
        return str(await self.reply())


def plain(login: str, secret: str) -> str:
    """The response of AUTH PLAIN."""
    return base64.b64encode(f"\0{login}\0{secret}".encode()).decode()


def stuffed(content: bytes) -> bytes:
    """As DATA carries it, the final dot included."""
    return (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


async def greeted(port: int, *, tls: bool = False, ehlo: bool = True, address: str = "127.0.0.1") -> Client:
    """A client that has heard the greeting and said EHLO."""
    client = await Client.connect(port, tls=tls, address=address)
    said = await client.reply()
    assert str(said) == "220 mta.test ESMTP", said
    if ehlo:
        await client.ehlo()
    return client


async def opened(port: int) -> Client:
    """A client that has been told 354."""
    client = await greeted(port)
    client.say(*ENVELOPE)
    assert (await client.replies(3))[2].startswith("354 ")
    return client
