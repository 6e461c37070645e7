"""A peer that treats each of our addresses as the test says, at any number of connections.

Between: a test sets `says[address]`; the daemon dials `port` from its sources.
Contract: `says` is TAKES, SILENT (no greeting, until the word changes), DROPS, or a reply to RCPT; a 421 ends
    the connection. It holds for every RCPT that comes from then on. `dials` and `taken` count by our address.
Raises: nothing; what a client does wrong gets 500.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import Self

TAKES, SILENT, DROPS = "takes", "silent", "drops"


class Doorman:
    """`async with Doorman() as peer:` answers at `peer.port`."""

    port: int

    def __init__(self) -> None:
        self.says: defaultdict[str, str] = defaultdict(lambda: TAKES)
        self.dials: Counter[str] = Counter()
        self.taken: Counter[str] = Counter()
        self._accepted: dict[asyncio.StreamWriter, bool] = {}  # has this transaction a recipient?
        self._over = False
        self._moved = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        self.hang_up()
        await asyncio.gather(*self._tasks)

    def hang_up(self) -> None:
        self._over = True
        for writer in self._accepted:
            writer.transport.abort()
        self._tell()

    def say(self, address: str, words: str) -> None:
        """From now on."""
        self.says[address] = words
        self._tell()

    async def dialled(self, address: str, count: int = 1) -> None:
        """Wait until so many connections have come from this address."""
        async with asyncio.timeout(10):
            while self.dials[address] < count:
                self._moved.clear()
                await self._moved.wait()

    def _tell(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._accepted[writer] = False
        address = writer.get_extra_info("peername")[0]
        self.dials[address] += 1
        self._tell()
        try:
            while self.says[address] == SILENT and not self._over:
                await self._moved.wait()
            if self.says[address] == DROPS or self._over:
                return
            writer.write(b"220 mx.test ESMTP\r\n")
            while line := await reader.readline():
                if not await self._command(line.strip().upper(), address, reader, writer):
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._tasks.discard(task)
            del self._accepted[writer]
            writer.close()

    async def _command(
        self, line: bytes, address: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one line; False at the end."""
        said = "250 ok"
        if line.startswith(b"MAIL"):
            self._accepted[writer] = False
        elif line.startswith(b"EHLO"):
            said = "250-mx.test\r\n250-PIPELINING\r\n250 8BITMIME"
        elif line.startswith(b"RCPT") and self.says[address] not in (TAKES, SILENT, DROPS):
            said = self.says[address]
        elif line.startswith(b"RCPT"):
            self._accepted[writer] = True
        elif line == b"DATA" and not self._accepted[writer]:
            said = "554 5.5.1 no valid recipients"
        elif line == b"DATA":
            writer.write(b"354 go on\r\n")
            await reader.readuntil(b"\r\n.\r\n")
            self.taken[address] += 1
        elif line == b"QUIT":
            said = "221 bye"
        writer.write(said.encode() + b"\r\n")
        return not said.startswith(("421", "221"))
