"""A name server that knows nothing: every question is answered SERVFAIL, after a while.

Between: `scale` gives it to a daemon whose whole queue has come due.
Contract: `asked` counts questions, `most` those that waited for their answer at the same time.
Standards: RFC 1035 4.1.1 (the header's flags).
"""

from __future__ import annotations

import asyncio

DELAY = 0.05  # seconds; a resolver that has to ask others
SERVFAIL = b"\x81\x82"  # a response, recursion desired and available, server failure


class NameServer(asyncio.DatagramProtocol):
    """Listens on loopback until `close`."""

    def __init__(self) -> None:
        self.asked = 0
        self.most = 0
        self._waiting = 0

    async def listen(self) -> int:
        """The port."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", 0))
        return int(self._transport.get_extra_info("sockname")[1])

    def close(self) -> None:
        self._transport.close()

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self.asked += 1
        self._waiting += 1
        self.most = max(self.most, self._waiting)
        asyncio.get_running_loop().call_later(DELAY, self._answer, data, address)

    def _answer(self, data: bytes, address: tuple[str, int]) -> None:
        self._waiting -= 1
        if not self._transport.is_closing():
            self._transport.sendto(data[:2] + SERVFAIL + data[4:], address)
