"""A sink that counts recipients, and that can keep its senders waiting: `sink.py PORT [--hold]`.

Between: `load.Sink` starts it where smtp-sink does not do: it counts messages, and cannot be told to go on.
Contract: every line `rcpt=N` counts the deliveries so far: a message is one for each of its recipients. With
    `--hold` no message is answered until SIGUSR1, and `held=N` counts those that wait. Listens
    everywhere unless told where, so that one sink can be many sites.
Why: it parses as little as it may: it must not be what limits the MTA.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from typing import cast

import uvloop

GREETING = b"220 sink.test ESMTP\r\n"
EHLO = b"250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 104857600\r\n"
OK = b"250 2.0.0 Ok\r\n"
DATA = b"354 End with a dot\r\n"
BYE = b"221 2.0.0 Bye\r\n"
END = b"\r\n.\r\n"


class Count:
    """What all connections share."""

    def __init__(self, hold: bool) -> None:
        self.hold = hold
        self.held: list[Connection] = []
        self.recipients = 0

    def taken(self, recipients: int) -> None:
        self.recipients += recipients
        os.write(1, b"rcpt=%d\r" % self.recipients)

    def hold_back(self, connection: Connection) -> None:
        self.held.append(connection)
        os.write(1, b"held=%d\r" % len(self.held))

    def release(self) -> None:
        self.hold = False
        for connection in self.held:
            connection.let_go()


class Connection(asyncio.Protocol):
    """One sender."""

    def __init__(self, count: Count) -> None:
        self._count = count
        self._in = b""
        self._recipients = 0
        self._data: bytearray | None = None  # a message on its way in
        self._held = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(GREETING)

    def data_received(self, data: bytes) -> None:
        if self._data is not None:
            start = max(len(self._data) - len(END), 0)
            self._data += data
            data = self._message(start)
        if self._held:
            self._in += data
        elif data:
            self._commands(self._in + data)

    def _message(self, start: int = 0) -> bytes:
        """What follows the message, if its end is here."""
        assert self._data is not None
        end = self._data.find(END, start)
        if end < 0:
            return b""
        rest = bytes(self._data[end + len(END) :])
        self._data = None
        if self._count.hold:
            self._held = True
            self._count.hold_back(self)
        else:
            self._taken()
        return rest

    def _taken(self) -> None:
        self._count.taken(self._recipients)
        self._recipients = 0
        self._transport.write(OK)

    def let_go(self) -> None:
        """The message that was held is answered after all."""
        self._held = False
        self._taken()
        self._commands(self._in)

    def _commands(self, octets: bytes) -> None:
        replies = []
        position = 0
        while end := octets.find(b"\n", position) + 1:
            verb = octets[position : position + 4].upper()
            position = end
            if verb == b"RCPT":
                self._recipients += 1
                replies.append(OK)
            elif verb == b"DATA":
                replies.append(DATA)
                break
            elif verb == b"QUIT":
                replies.append(BYE)
            else:
                replies.append(EHLO if verb == b"EHLO" else OK)
        self._in = octets[position:]
        self._transport.write(b"".join(replies))
        if replies and replies[-1] is BYE:
            self._transport.close()
        elif replies and replies[-1] is DATA:
            # A message may begin behind its DATA only where nobody waits for the 354.
            self._data, self._in = bytearray(b"\r\n" + self._in), b""
            if rest := self._message():
                self._commands(rest)


async def serve(address: str, port: int, hold: bool) -> None:
    count = Count(hold)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_signal_handler(signal.SIGUSR1, count.release)
    await loop.create_server(lambda: Connection(count), address, port, backlog=2000)
    await stopping.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("port", type=int)
    parser.add_argument("--address", default="0.0.0.0")
    parser.add_argument("--hold", action="store_true")
    args = parser.parse_args()
    uvloop.run(serve(args.address, args.port, args.hold))


if __name__ == "__main__":
    main()
