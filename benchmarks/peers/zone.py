"""A name server that knows every domain: each has one MX, which has one address of each family.

Between: `figures.names` runs `python -m benchmarks.peers.zone`, a process of its own, and asks.
Contract: its first line is its UDP port on loopback. It ends with its standard input. Answers are made of the
    question's octets: it costs a fraction of what whoever asks it does.
Standards: RFC 1035 4.1.
"""

from __future__ import annotations

import asyncio
import struct
import sys

RESPONSE = b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00"  # recursion desired and available, one answer
TTL = 300
RDATA = {
    1: b"\xc0\x00\x02\x01",
    15: b"\x00\x0a\x02mx\xc0\x0c",  # mx. and the name that was asked for
    28: b"\x20\x01\x0d\xb8" + bytes(11) + b"\x01",
}


class Zone(asyncio.DatagramProtocol):
    """Answers."""

    async def listen(self) -> int:
        """The port."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", 0))
        return int(self._transport.get_extra_info("sockname")[1])

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        end = data.index(b"\0", 12) + 5
        kind = data[end - 3]
        rdata = RDATA[kind]
        record = b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, TTL, len(rdata)) + rdata
        self._transport.sendto(data[:2] + RESPONSE + data[12:end] + record, address)


async def serve() -> None:
    print(await Zone().listen(), flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve())
