"""How long fresh mail takes while something else goes on.

Between: `scale` starts it beside a daemon that relays `PROBED` to it.
Contract: one message after the other over one connection, each when the last is delivered and a pause is
    over. Seconds: `accepted` from the final dot to its 250, `delivered` to the final dot at our end.
Raises: TimeoutError, ConnectionError.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

PROBED = "fresh.test"
PAUSE = 0.02  # seconds
PATIENCE = 30.0  # seconds
ENVELOPE = f"MAIL FROM:<a@src0.test>\r\nRCPT TO:<b@{PROBED}>\r\nDATA\r\n".encode()
CONTENT = b"From: <a@src0.test>\r\nSubject: probe\r\n\r\n" + 25 * (b"x" * 78 + b"\r\n") + b".\r\n"


class Times(NamedTuple):
    """Of all messages, sorted."""

    accepted: list[float]
    delivered: list[float]


class Prober:
    """Takes messages and says when."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()

    async def listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"220 probe.test ESMTP\r\n")
            while line := await reader.readline():
                verb = line[:4].upper()
                if verb == b"DATA":
                    writer.write(b"354 go on\r\n")
                    await reader.readuntil(b"\r\n.\r\n")
                    self.arrived.set()
                writer.write(
                    b"250-probe.test\r\n250 PIPELINING\r\n" if verb == b"EHLO" else b"250 2.0.0 Ok\r\n"
                )
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def watch(prober: Prober, port: int, over: Callable[[], bool]) -> Times:
    """Send until it is over."""
    accepted: list[float] = []
    delivered: list[float] = []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await _reply(reader)
        writer.write(b"EHLO source.test\r\n")
        await _reply(reader)
        while not over():
            writer.write(ENVELOPE)
            for _ in range(3):
                await _reply(reader)
            prober.arrived.clear()
            began = time.monotonic()
            writer.write(CONTENT)
            await _reply(reader)
            accepted.append(time.monotonic() - began)
            await asyncio.wait_for(prober.arrived.wait(), PATIENCE)
            delivered.append(time.monotonic() - began)
            await asyncio.sleep(PAUSE)
    finally:
        writer.close()
    return Times(sorted(accepted), sorted(delivered))


async def _reply(reader: asyncio.StreamReader) -> None:
    while True:
        line = await asyncio.wait_for(reader.readline(), PATIENCE)
        if line[:1] not in (b"2", b"3"):
            raise ConnectionError(f"the daemon said {line!r}")
        if line[3:4] == b" ":
            return
