"""Thousands of sites on one machine, most of them well: what a campaign meets.

Between: `figures.campaign` starts two of these, `sites` in a network of their own, and `names` where the MTA
    under test asks.
Contract: domain `dN.test` has one mail host at an address of its own; `kind` says what is wrong with it. The
    sites print a line a second, the deliveries so far by kind, JSON; and end at the end of their input.
Standards: RFC 2544 C.2.2 (198.18.0.0/15 is for benchmarks), RFC 1035.
Why: a site of its own process each would cost more than what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import struct
import sys
from collections import Counter
from typing import cast

import uvloop

SILENT = 3.0  # seconds until a slow name server answers
NETWORK = "198.19.0.0/16"
SHARES = ("dead", 10), ("mute", 5), ("tls", 5), ("slow", 2)  # in a hundred; the rest is well
TELL = 0.5  # seconds
EHLO = b"250-mx.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
EHLO_TLS = b"250-mx.test\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 8BITMIME\r\n"
OK, GO_ON, BYE = b"250 2.0.0 Ok\r\n", b"354 go on\r\n", b"221 2.0.0 Bye\r\n"
END = b"\r\n.\r\n"


def kind(number: int) -> str:
    """What is wrong with a domain: the same share of any hundred."""
    place = number * 37 % 100
    for name, share in SHARES:
        if place < share:
            return name
        place -= share
    return "well"


def address(number: int) -> bytes:
    """Its host's; those that nobody answers for have a network of their own."""
    third = number // 250 + (128 if kind(number) == "dead" else 0)
    return bytes((198, 19, third, 1 + number % 250))


def number(host: str) -> int:
    *_, third, fourth = map(int, host.split("."))
    return third % 128 * 250 + fourth - 1


class Site(asyncio.Protocol):
    """One connection to one of them."""

    def __init__(self, taken: Counter[str]) -> None:
        self._taken = taken
        self._in = b""
        self._recipients = 0
        self._in_message = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._kind = kind(number(transport.get_extra_info("sockname")[0]))
        if self._kind != "mute":
            self._transport.write(b"220 mx.test ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        if self._kind == "mute":
            return
        self._in += data
        while (reply := self._next()) is not None:
            self._transport.write(reply)
            if reply is BYE:
                self._transport.close()

    def _next(self) -> bytes | None:
        if self._in_message:
            _, dot, rest = self._in.partition(END)
            if not dot:
                return None
            self._in, self._in_message = rest, False
            self._taken[self._kind] += self._recipients
            return OK
        line, end, rest = self._in.partition(b"\r\n")
        if not end:
            return None
        self._in = rest
        verb = line[:4].upper()
        if verb == b"EHLO":
            return EHLO_TLS if self._kind == "tls" else EHLO
        if verb == b"STAR":
            self._transport.write(b"220 2.0.0 Go ahead\r\n550 this is no handshake\r\n")
            self._transport.close()
            return b""
        if verb == b"MAIL":
            self._recipients = 0
        elif verb == b"RCPT":
            self._recipients += 1
        elif verb == b"DATA":
            self._in_message = True
            return GO_ON
        return BYE if verb == b"QUIT" else OK


class Names(asyncio.DatagramProtocol):
    """The name server of all domains: MX, A, and nothing else."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].lower())
            at += data[at] + 1
        asked = data[12 : at + 5]
        (wanted,) = struct.unpack(">H", data[at + 1 : at + 3])
        domain = next((each for each in labels if each[:1] == b"d" and each[1:].isdigit()), b"")
        records = b""
        if domain and wanted == 15 and labels[0] == domain:
            records = b"\xc0\x0c" + struct.pack(">HHIHH", 15, 1, 300, 7, 10) + b"\x02mx\xc0\x0c"
        elif domain and wanted == 1 and labels[0] == b"mx":
            records = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 300, 4) + address(int(domain[1:]))
        head = data[:2] + b"\x81\x80" + struct.pack(">HHHH", 1, bool(records), 0, 0)
        answer = head + asked + records
        if domain and kind(int(domain[1:])) == "slow":
            asyncio.get_running_loop().call_later(SILENT, self._transport.sendto, answer, peer)
        else:
            self._transport.sendto(answer, peer)


async def sites() -> None:
    taken: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Site(taken), "0.0.0.0", 25, backlog=8192)
    over = asyncio.ensure_future(loop.run_in_executor(None, sys.stdin.read))
    async with server:
        while not over.done():
            print(json.dumps(taken), flush=True)
            await asyncio.wait([over], timeout=TELL)


async def names(host: str) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(Names, (host, 53))
    print("{}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="?", help="be the name server, at this address; else the sites")
    host = parser.parse_args().names
    uvloop.run(names(host) if host else sites())


if __name__ == "__main__":
    main()
