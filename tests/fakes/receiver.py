"""A receiving server for any number of connections: it takes everything, but for what it is told.

Between: tests with many sites, where a script for each connection (`tests.fakes.peer`) would be a book.
Contract: `said` has the replies to RCPT that are not 250, by recipient domain; a test may change it. `asked`
    are the recipients of RCPT, in order, `messages` the contents, `dialled` the addresses that were dialled,
    `peak` the most that were open at once. While `go` is not set no final dot is answered. A mute one accepts
    connections and never says a word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Self


class Receiver:
    """`async with Receiver() as receiver:` answers at `receiver.port`."""

    port: int

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        said: Mapping[str, str] | None = None,
        offers: tuple[str, ...] = (),
        mute: bool = False,
    ) -> None:
        self._bind = (host, port)
        self._offers = offers
        self._arrived = asyncio.Event()
        self._mute = mute
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.said = dict(said or {})
        self.asked: list[str] = []
        self.messages: list[bytes] = []
        self.dialled: list[str] = []
        self.open = self.peak = 0
        self.go = asyncio.Event()
        self.go.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._answer, *self._bind, backlog=1000)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        self.hang_up()
        await asyncio.gather(*self._tasks)

    async def until(self, messages: int) -> None:
        """Wait until so many have come in."""
        while len(self.messages) < messages:
            self._arrived.clear()
            await self._arrived.wait()

    def hang_up(self) -> None:
        """Cut every connection: a daemon that is to stop must not wait for a server that is mute."""
        self.go.set()
        for writer in self._writers:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.append(writer)
        self.dialled.append(writer.get_extra_info("sockname")[0])
        self.open += 1
        self.peak = max(self.peak, self.open)
        try:
            if self._mute:
                await reader.read()
            else:
                await self._converse(reader, writer)
        except OSError:
            pass
        finally:
            self.open -= 1
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mx.test ESMTP\r\n")
        accepted = 0
        while line := (await reader.readline()).decode().rstrip("\r\n"):
            verb, reply = line[:4].upper(), "250 2.0.0 taken"
            if verb == "EHLO":
                reply = "\r\n".join([*(f"250-{offer}" for offer in self._offers), "250 HELP"])
            elif verb == "MAIL":
                accepted = 0
            elif verb == "RCPT":
                address = line[9:].partition(">")[0]
                self.asked.append(address)
                reply = self.said.get(address.partition("@")[2], reply)
                accepted += reply[0] == "2"
            elif verb == "DATA" and accepted:
                writer.write(b"354 go on\r\n")
                lines = []
                while (sent := await reader.readline()) not in (b".\r\n", b""):
                    lines.append(sent[1:] if sent.startswith(b".") else sent)
                self.messages.append(b"".join(lines))
                self._arrived.set()
                await self.go.wait()
            elif verb == "DATA":
                reply = "554 5.5.1 no valid recipients"
            elif verb == "QUIT":
                reply = "221 2.0.0 bye"
            writer.write(f"{reply}\r\n".encode())
