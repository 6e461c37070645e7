"""The receiving servers of `fleet`: real SMTP, each with limits of its own that it does not tell.

Between: `fleet` starts `python -m benchmarks.peers.receiver SECONDS NAME,... ADDRESS...` in a network of its
    own, one address for each host of those in `limits.FLEET`, port 25; mail comes in over TCP.
Contract: says `ready` on stdout; a line on stdin begins the run; after SECONDS one JSON object a server, and
    the end. An attempt is a recipient, or a connection or a MAIL that was refused; a refusal is one of these
    for a limit. Greylisting, full mailboxes, weather, deaf tenants and random 421s are `other`. Ages are
    seconds from the submission, which the sender's address tells (`<t.SECONDS@...>`, monotonic), to the
    answer here.
Standards: RFC 5321, RFC 2920.
Why: one process and no task for a connection: it must not be what limits the MTA.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from statistics import median
from typing import NamedTuple, cast

import uvloop

from benchmarks.peers.limits import MINUTE, Terms, some

EHLO = b"250-mx.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 104857600\r\n"
OK = b"250 2.0.0 Ok\r\n"
GO_ON = b"354 End with a dot\r\n"
NOBODY = b"554 5.5.1 No valid recipients\r\n"
CROWDED = b"421 4.7.0 Too many concurrent connections from your address"
USED_UP = b"421 4.7.0 Too many messages in this session"
BLOCKED = b"421 4.7.0 Too many messages too quickly, your address has to wait"
GREYLISTED = b"450 4.2.0 Greylisted, please try again later"
FULL = b"452 4.2.2 Mailbox full"
TROUBLE = b"421 4.3.0 Temporary system problem, try again later"
URGENT = b"<t."
END = b"\r\n.\r\n"
BUSY = 10.0  # seconds over which a server's load is measured
PATIENCE = 5.0  # seconds until a client that was told 421 is cut off


class Reply(NamedTuple):
    """What a command is answered with."""

    octets: bytes
    delay: float = 0.0  # seconds
    closes: bool = False


class Server:
    """One of the fleet: its limits and its books."""

    def __init__(self, terms: Terms, began: float, seconds: float) -> None:
        self.terms = terms
        self._limits = [] if terms.limit is None else [terms.limit() for _ in range(terms.hosts)]
        self._load = 0.0  # recipients that were taken, of late
        self._load_at = 0.0
        self._began = began
        self._seconds = seconds
        self._halved = False
        self._known: dict[bytes, float] = {}  # recipient -> first contact
        self._refusals: deque[float] = deque()
        self._blocked_until = -1.0
        self.open = 0
        self.peak = 0
        self.blocks = 0
        self._minutes: list[Counter[str]] = []
        self._halves: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        self._ages: list[float] = []  # of transactional mail, second half

    # What a connection asks

    def connect(self) -> bytes:
        """Why a connection is refused; empty: it is not."""
        most = self.terms.connections
        if self._is_blocked():
            return self._refuse(BLOCKED)
        if most is not None and self.open >= most:
            return self._refuse(CROWDED)
        self.open += 1
        self.peak = max(self.peak, self.open)
        self.count("connections")
        return b""

    def mail(self, carried: int) -> bytes:
        """Why a message is refused."""
        most = self.terms.per_connection
        if self._is_blocked():
            return self._refuse(BLOCKED)
        return self._refuse(USED_UP) if most is not None and carried >= most else b""

    def recipient(self, line: bytes, host: int) -> bytes:
        """Why a recipient is refused at one of the hosts."""
        terms, now = self.terms, self._now()
        if random.random() < terms.weather or not terms.hears(line):
            return self._other(terms.refusal)
        if terms.greylist and now - self._known.setdefault(line, now) < terms.greylist:
            return self._other(GREYLISTED)
        dice = random.random()
        if dice < terms.full:
            return self._other(FULL)
        if dice < terms.full + terms.goodbye:
            return self._other(TROUBLE)
        if terms.halves and not self._halved and now >= self._seconds / 2:
            self._halved = True
            for limit in self._limits:
                limit.halve()
        if self._limits and not self._limits[host].take(now):
            return self._refuse(terms.refusal)
        self._load, self._load_at = self._of_late(now) + 1, now
        self.count("attempts")
        return b""

    @property
    def latency(self) -> float:
        """Seconds to the answer to a message, as busy as it is now."""
        terms = self.terms
        if terms.slows == 1.0:
            return terms.latency
        most = sum(limit.per_second for limit in self._limits)
        idle = 1.0 - self._of_late(self._now()) / (BUSY * most)
        return terms.latency * min(1.0 / max(idle, 1e-9), terms.slows)

    def _of_late(self, now: float) -> float:
        return self._load * math.exp((self._load_at - now) / BUSY)

    def delivered(self, sent: float | None) -> None:
        """A message has come; if it was transactional, it was submitted at `sent`."""
        self.count("delivered")
        if sent is not None:
            self.count("urgent")
            if self._now() >= self._seconds / 2:
                self._ages.append(time.monotonic() - sent)

    def count(self, what: str) -> None:
        now = self._now()
        if not 0.0 <= now < self._seconds:
            return
        while len(self._minutes) <= now / MINUTE:
            self._minutes.append(Counter())
        self._minutes[-1][what] += 1
        self._halves[now >= self._seconds / 2][what] += 1

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _other(self, why: bytes) -> bytes:
        for what in ("attempts", "other"):
            self.count(what)
        return why

    def _refuse(self, why: bytes) -> bytes:
        for what in ("attempts", "refused"):
            self.count(what)
        now, temper = self._now(), self.terms.temper
        if temper is not None and not self._is_blocked():
            self._refusals.append(now)
            while self._refusals[0] < now - MINUTE:
                self._refusals.popleft()
            if len(self._refusals) >= temper.refusals:
                self._blocked_until = now + temper.block
                self.blocks += 1
                self._refusals.clear()
        return why

    def _is_blocked(self) -> bool:
        return self._now() < self._blocked_until

    def books(self) -> dict[str, object]:
        """The run, first and second half."""
        terms = self.terms
        return {
            "server": terms.name,
            "allowed": [terms.capacity(second) * self._seconds / 2 for second in (False, True)],
            **{
                what: [counts[what] for counts in self._halves]
                for what in ("delivered", "attempts", "refused", "other", "connections", "urgent")
            },
            "peak": self.peak,
            "blocks": self.blocks,
            "age_p50": median(self._ages) if self._ages else None,
            "minutes": [dict(counts) for counts in self._minutes],
        }


class Connection(asyncio.Protocol):
    """One sender."""

    def __init__(self, server: Server, host: int) -> None:
        self._server = server
        self._host = host
        self._in = b""
        self._is_counted = False
        self._is_over = False  # nothing it says counts any more
        self._carried = 0
        self._sent: float | None = None
        self._recipients = 0
        self._in_message = False
        self._waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        refusal = self._server.connect()
        self._is_counted = not refusal
        greeting = refusal + b"\r\n" if refusal else b"220 mx.test ESMTP\r\n"
        self._answer(Reply(greeting, self._server.terms.tarpit, bool(refusal)))

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_over = True
        if self._waiting is not None:
            self._waiting.cancel()
        self._leave()

    def data_received(self, data: bytes) -> None:
        self._in += data
        self._work()

    def _leave(self) -> None:
        if self._is_counted:
            self._is_counted = False
            self._server.open -= 1

    def _work(self) -> None:
        while not self._is_over and self._waiting is None and (reply := self._next()) is not None:
            self._answer(reply)

    def _answer(self, reply: Reply) -> None:
        if reply.delay:
            loop = asyncio.get_running_loop()
            self._waiting = loop.call_later(reply.delay, self._say, reply)
        else:
            self._say(reply)

    def _say(self, reply: Reply) -> None:
        waited, self._waiting = self._waiting, None
        self._transport.write(reply.octets)
        if reply.closes:
            # Closed with octets unread, the kernel would send a reset, and the reply might be lost.
            self._is_over = True
            self._leave()
            self._transport.write_eof()
            asyncio.get_running_loop().call_later(PATIENCE, self._transport.abort)
        elif waited is not None:
            self._work()

    def _next(self) -> Reply | None:
        """What the next octets are answered with; None if there are not enough."""
        terms = self._server.terms
        if self._in_message:
            _, dot, rest = self._in.partition(END)
            if not dot:
                return None
            self._in, self._in_message = rest, False
            self._carried += 1
            for _ in range(self._recipients):
                self._server.delivered(self._sent)
            return Reply(OK, self._server.latency + terms.tarpit)
        line, end, rest = self._in.partition(b"\r\n")
        if not end:
            return None
        self._in = rest
        return self._command(line)._replace(delay=terms.tarpit)

    def _command(self, line: bytes) -> Reply:
        verb = line[:4].upper()
        refusal = b""
        if verb == b"EHLO":
            return Reply(EHLO)
        if verb == b"QUIT":
            return Reply(b"221 2.0.0 Bye\r\n", closes=True)
        if verb == b"DATA":
            self._in_message = self._recipients > 0
            return Reply(GO_ON if self._in_message else NOBODY)
        if verb == b"MAIL":
            self._recipients = 0
            self._sent = _sent(line)
            refusal = self._server.mail(self._carried)
        elif verb == b"RCPT":
            refusal = self._server.recipient(line, self._host)
            self._recipients += not refusal
        return Reply(refusal + b"\r\n" if refusal else OK, closes=refusal.startswith(b"421"))


def _sent(mail: bytes) -> float | None:
    """When transactional mail was submitted."""
    _, urgent, rest = mail.partition(URGENT)
    return float(rest.partition(b"@")[0]) if urgent else None


async def serve(seconds: float, fleet: Sequence[Terms], addresses: list[str]) -> None:
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    began = time.monotonic()
    servers = [Server(terms, began, seconds) for terms in fleet]
    async with AsyncExitStack() as stack:
        doors = [(server, host) for server in servers for host in range(server.terms.hosts)]
        for door, address in zip(doors, addresses, strict=True):
            made = partial(Connection, *door)
            await stack.enter_async_context(await loop.create_server(made, address, 25, backlog=1000))
        print("began", flush=True)
        await asyncio.sleep(seconds)
    for server in servers:
        print(json.dumps(server.books()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("seconds", type=float)
    parser.add_argument("names")
    parser.add_argument("address", nargs="+")
    args = parser.parse_args()
    uvloop.run(serve(args.seconds, some(args.names.split(",")), args.address))


if __name__ == "__main__":
    main()
