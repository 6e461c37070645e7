"""A name server that answers in the octets that a test makes, by UDP and by TCP at one port.

Between: tests say what comes for each question; the resolver asks.
Contract: `play(message)` gives the datagrams for a question, messages or octets, none for silence;
    `stream(message)` what comes over TCP, after its length; None where nobody listens there. A connection
    that is kept open waits until the peer has `hung_up`. `asked` has the questions by UDP, `by_tcp` those by
    TCP, `came_from` the address of each datagram.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Self

import dns.flags
import dns.message
import dns.rrset

from mta.config.settings import Endpoint

Answers = Callable[[dns.message.Message], Iterable[dns.message.Message | bytes]]


def answer(question: dns.message.Message, *records: str, flags: int = 0) -> dns.message.Message:
    """A response with these records: `"example.test. 300 MX 10 mx.test."`."""
    response = dns.message.make_response(question, recursion_available=True)
    response.flags |= flags
    for record in records:
        response.answer.append(rrset(record))
    return response


def rrset(record: str) -> dns.rrset.RRset:
    name, ttl, kind, rdata = record.split(" ", 3)
    return dns.rrset.from_text(name, int(ttl), "IN", kind, rdata)


def octets(made: dns.message.Message | bytes) -> bytes:
    return made if isinstance(made, bytes) else made.to_wire(max_size=65535)


class Puppet(asyncio.DatagramProtocol):
    """`async with Puppet(play) as server:` answers at `server.endpoint`."""

    endpoint: Endpoint

    def __init__(self, play: Answers, stream: Answers | None = None, keeps_open: bool = False) -> None:
        self.play = play
        self.stream = stream
        self.keeps_open = keeps_open
        self.connected, self.hung_up = asyncio.Event(), asyncio.Event()
        self.asked: list[dns.message.Message] = []
        self.by_tcp: list[dns.message.Message] = []
        self.came_from: list[tuple[str, int]] = []
        self._arrived = asyncio.Event()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._listening: asyncio.Server | None = None
        while True:  # a port that is free for both
            self.transport, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", 0))
            self.endpoint = Endpoint(*self.transport.get_extra_info("sockname"))
            if self.stream is None:
                return self
            try:
                self._listening = await asyncio.start_server(self._connected, *self.endpoint)
                return self
            except OSError:
                self.transport.close()

    async def __aexit__(self, *error: object) -> None:
        self.transport.close()
        if self._listening is not None:
            self._listening.close()

    async def until(self, questions: int) -> None:
        """Wait until so many datagrams have come in."""
        while len(self.asked) < questions:
            self._arrived.clear()
            await self._arrived.wait()

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        question = dns.message.from_wire(data)
        self.asked.append(question)
        self.came_from.append(address)
        self._arrived.set()
        for made in self.play(question):
            self.transport.sendto(octets(made), address)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            length = int.from_bytes(await reader.readexactly(2))
            question = dns.message.from_wire(await reader.readexactly(length))
            self.by_tcp.append(question)
            self.connected.set()
            assert self.stream is not None
            for made in self.stream(question):
                sent = octets(made)
                writer.write(len(sent).to_bytes(2) + sent)
                await writer.drain()
            if self.keeps_open:
                await reader.read()
                self.hung_up.set()
        writer.close()
