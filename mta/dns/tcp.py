"""One question over TCP: for an answer that no datagram holds.

Between: `servers` asks so after a truncated answer, and cancels us when the time is over.
Contract: a connection for each question; the answer as it comes, at most 65,535 octets.
Raises: OSError, EOFError where the server does not speak TCP, or hangs up.
Standards: RFC 7766 8 (each message has its length before it, sent together with it).
"""

from __future__ import annotations

import asyncio

from mta.config.settings import Endpoint

LENGTH = 2  # octets


async def ask(server: Endpoint, packet: bytes) -> bytes:
    """The answer to this question."""
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(len(packet).to_bytes(LENGTH) + packet)
        length = int.from_bytes(await reader.readexactly(LENGTH))
        return await reader.readexactly(length)
    finally:
        writer.transport.abort()
