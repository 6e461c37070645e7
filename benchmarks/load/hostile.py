"""Attacks: what clients and peers do that is not nice.

Between: `attacks` starts a daemon for each, plays it, and measures; this is its table.
Contract: an attack goes on until it is cancelled, or ends by itself where it is `whole`. It counts in
    `Scene.seen` what it met; the counts stand beside the figures.
Raises: what the network does, to `attacks`, which writes it down.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count
from typing import Any, NamedTuple, cast

from benchmarks.load.innocents import CLEAN, FAILURES, HOST, Client, Ports, dial

WRONG = "nobody has this password"
LONG = 60.0  # seconds for the reply to a message that is hard to read
MB = 10**6
NOOP = b"NOOP\r\n"
HEADER = b"From: <a@src.test>\r\nSubject: attack\r\n"


class Scene(NamedTuple):
    """What an attack knows, and where it writes down what it met."""

    ports: Ports
    secrets: dict[str, str]
    seen: Counter[str]

    def dial(self, address: str = HOST, **terms: Any) -> Any:
        return dial(self.ports.implicit, address, **terms)

    def note(self, error: BaseException) -> None:
        self.seen[type(error).__name__] += 1

    @asynccontextmanager
    async def member(self, login: str = "attacker", address: str = HOST) -> AsyncIterator[Client]:
        """A client that may send, and has patience."""
        async with self.dial(address, patience=LONG) as client:
            await client.login(login, self.secrets[login])
            yield client

    async def guess(self, client: Client, login: str, secret: str = WRONG, who: str = "guess") -> None:
        began = time.monotonic()
        reply = await client.login(login, secret, b"")
        self.seen[f"{who} {reply[:3].decode()}"] += 1
        worst = f"{who} max ms"
        self.seen[worst] = max(self.seen[worst], round((time.monotonic() - began) * 1e3))


def many(number: int) -> list[str]:
    return [f"127.0.1.{1 + n}" for n in range(number)]


async def together(*works: Coroutine[Any, Any, None]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for work in works:
            tasks.create_task(work)


async def again(scene: Scene, once: Callable[[], Awaitable[None]], pause: float = 0.0) -> None:
    """Without an end, however it ends."""
    while True:
        try:
            await once()
            await asyncio.sleep(pause)
        except FAILURES as error:
            scene.note(error)
            await asyncio.sleep(max(pause, 0.02))


class Silent(asyncio.Protocol):
    """Says this, and then nothing."""

    def __init__(self, scene: Scene, first: bytes) -> None:
        self._seen = scene.seen
        self._first = first

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._seen["opened"] += 1
        cast(asyncio.Transport, transport).write(self._first)

    def connection_lost(self, error: Exception | None) -> None:
        self._seen["hung up"] += 1


async def silent(scene: Scene, port: int, first: bytes = b"", number: int = 2000) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(number):
        try:
            async with asyncio.timeout(1.0):
                await loop.create_connection(lambda: Silent(scene, first), HOST, port)
        except OSError as error:
            scene.note(error)
    await asyncio.Event().wait()


async def silent_tls(scene: Scene) -> None:
    await silent(scene, scene.ports.implicit)


async def silent_plain(scene: Scene) -> None:
    await silent(scene, scene.ports.starttls)


async def half_http(scene: Scene) -> None:
    await silent(scene, scene.ports.admin, b"GET /metrics HTTP/1.1\r\nHost: x\r\n", 500)


async def noop(scene: Scene) -> None:
    async def one(address: str) -> None:
        async with dial(scene.ports.starttls, address, "none") as client:
            while True:
                await client.say(NOOP, b"250")
                scene.seen["NOOP"] += 1
                await asyncio.sleep(1)

    await together(*(again(scene, partial(one, address)) for address in many(20) for _ in range(10)))


async def garbage(scene: Scene) -> None:
    async def one() -> None:
        reader, writer = await asyncio.open_connection(HOST, scene.ports.implicit)
        try:
            # A second octet of 3 may begin a long record, of which OpenSSL wants the rest.
            writer.write(b"\0\0" + os.urandom(300))
            async with asyncio.timeout(1):
                await reader.read()
        finally:
            writer.transport.abort()
            scene.seen["connections"] += 1

    await together(*(again(scene, one) for _ in range(4)))


async def guess_always(scene: Scene, logins: list[str], address: str = HOST, pause: float = 0.0) -> None:
    """One connection, and another whenever it is hung up."""
    turns = count()

    async def one() -> None:
        async with scene.dial(address) as client:
            while True:
                await scene.guess(client, logins[next(turns) % len(logins)])
                await asyncio.sleep(pause)

    await again(scene, one)


async def owner(scene: Scene, addresses: list[str]) -> None:
    """The right password once a second, each time from an address that nothing is remembered of."""
    turns = count()

    async def one() -> None:
        scene.seen["owner tries"] += 1
        async with scene.dial(addresses[next(turns) % len(addresses)]) as client:
            await scene.guess(client, "owner", scene.secrets["owner"], "owner")

    await again(scene, one, 1.0)


FRESH = [f"127.0.9.{1 + n}" for n in range(250)]


async def guesses(scene: Scene) -> None:
    await together(*(guess_always(scene, ["x" * 250]) for _ in range(4)))


async def spray(scene: Scene) -> None:
    logins = [login for login in scene.secrets if login.startswith("victim")]
    await together(owner(scene, FRESH), *(guess_always(scene, logins, address) for address in many(40)))


async def wrong_first(scene: Scene, login: str, address: str, owners: list[str]) -> None:
    """Five wrong ones, and then one a second, while the owner comes."""
    async with scene.dial(address) as client:
        for _ in range(5):
            await scene.guess(client, login)
    await together(owner(scene, owners), guess_always(scene, [login], address, 1.0))


async def lockout(scene: Scene) -> None:
    await wrong_first(scene, "owner", HOST, FRESH)


async def neighbour(scene: Scene) -> None:
    await wrong_first(scene, "victim0", CLEAN, [CLEAN])


async def messages(scene: Scene, content: bytes, pause: float = 0.0, **who: str) -> None:
    """One after the other."""

    async def one() -> None:
        async with scene.member(**who) as client:
            while True:
                await client.begin()
                reply = await client.say(content + b".\r\n", b"")
                scene.seen[f"message {reply[:3].decode()}"] += 1
                await asyncio.sleep(pause)

    await again(scene, one)


async def unfinished(scene: Scene) -> None:
    """Large ones, then smaller ones into what is left; an innocent's megabyte shows who has the memory."""

    def content(size: int) -> bytes:
        return HEADER + b"\r\n" + size // 80 * (78 * b"x" + b"\r\n")

    async def one(size: int, wait: float) -> None:
        await asyncio.sleep(wait)
        async with scene.member() as client:
            await client.begin()
            await client.say(content(size))
            scene.seen["unfinished"] += 1
            await client.reader.read()

    innocent = messages(scene, content(MB), 0.5, login="innocent", address=CLEAN)
    works = [partial(one, 5 * MB, 0.0)] * 50 + [partial(one, MB // 2, 2.0)] * 20
    await together(innocent, *(again(scene, work) for work in works))


async def comments(scene: Scene) -> None:
    lines = b"\r\n ".join([20 * b"(c)"] * 135)
    await messages(scene, b"From: <a@src.test>\r\n %b\r\nSubject: attack\r\n\r\nx\r\n" % lines)


async def folded(scene: Scene) -> None:
    await messages(
        scene, HEADER + b"Bcc: b@dst.test" + 5 * MB // 17 * b",\r\n   b@dst.test" + b"\r\n\r\nx\r\n"
    )


async def header_lines(scene: Scene) -> None:
    await messages(scene, HEADER + 5 * MB * b"x:\r\n" + b"\r\nx\r\n")


async def dots(scene: Scene) -> None:
    await messages(scene, HEADER + b"\r\n" + 5 * MB * b"..\r\n")


async def newlines(scene: Scene) -> None:
    await messages(scene, HEADER + b"\r\n" + 20 * MB * b"\n" + b"\r\n")


async def pipelined(scene: Scene) -> None:
    async def one() -> None:
        async with scene.member() as client:
            while True:
                async with asyncio.timeout(LONG):
                    client.writer.write(256 * 1024 // len(NOOP) * NOOP)
                    scene.seen["writes"] += 1
                    await client.reader.read(4096)
                    await client.writer.drain()

    await together(*(again(scene, one) for _ in range(4)))


async def tls_wave(scene: Scene) -> None:
    async with AsyncExitStack() as stack:
        for address in many(50):
            for _ in range(50):
                try:
                    await stack.enter_async_context(scene.dial(address, patience=LONG))
                    scene.seen["sessions"] += 1
                except FAILURES as error:
                    scene.note(error)


Replies = dict[bytes, list[bytes]]  # by verb; those to one verb take turns


class Peer(asyncio.Protocol):
    """A server that says this, and reads no more once it has been told DATA."""

    def __init__(self, scene: Scene, replies: Replies) -> None:
        self._seen = scene.seen
        self._replies = replies
        self._in = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(b"220 peer.test ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        *lines, self._in = (self._in + data).split(b"\n")
        for line in lines:
            verb = line[:4].upper()
            known = self._replies.get(verb, [b"250 2.0.0 Ok\r\n"])
            met = f"peer {verb.decode('latin-1').strip()}"
            self._transport.write(known[self._seen[met] % len(known)])
            self._seen[met] += 1
            if verb == b"DATA":
                self._transport.pause_reading()


async def with_peer(scene: Scene, replies: Replies, work: Awaitable[None]) -> None:
    loop = asyncio.get_running_loop()
    port = scene.ports.theirs
    async with await loop.create_server(lambda: Peer(scene, replies), "0.0.0.0", port, backlog=2000):
        await work


async def send(scene: Scene, content: bytes, *batches: list[str]) -> None:
    """One message for each batch, and then nothing more."""
    async with scene.member() as client:
        for batch in batches:
            await client.send(content, *batch)
            scene.seen["accepted"] += 1
        await asyncio.Event().wait()


async def slow_sites(scene: Scene) -> None:
    content = HEADER + b"\r\n" + 131_072 * (78 * b"x" + b"\r\n")
    work = send(scene, content, [f"b@site{n}.test" for n in range(40)])
    await with_peer(scene, {b"DATA": [b"354 go on\r\n"]}, work)


async def latin_peer(scene: Scene) -> None:
    replies = {
        b"EHLO": [b"250-peer.test\r\n250 STARTTLS\r\n"],
        b"STAR": [b"454 4.7.0 zur Zeit nicht verf\xfcgbar\r\n", b"220 bereit f\xfcr TLS\r\n"],
    }
    await with_peer(
        scene, replies, send(scene, HEADER + b"\r\nx\r\n", *([f"b{n}@latin.test"] for n in range(8)))
    )


async def stderr_unread(scene: Scene) -> None:
    batches = [[f"b{n}@gone.test" for n in range(first, first + 1000)] for first in (0, 1000, 2000)]
    await with_peer(
        scene, {b"RCPT": [b"550 5.1.1 no such user\r\n"]}, send(scene, HEADER + b"\r\nx\r\n", *batches)
    )


async def nothing(scene: Scene) -> None:
    """The innocents alone."""
    await asyncio.Event().wait()


class Attack(NamedTuple):
    """One row."""

    what: str
    play: Callable[[Scene], Awaitable[None]]
    settings: str = ""  # top keys
    limits: str = ""  # lines of `limits`
    routes: str = ""  # lines of `routes`
    whole: bool = False  # it has an end, which may come later than the time that it is given
    settling: float = 1.0  # seconds until the memory after it is read
    deaf: bool = False  # nobody reads the daemon's standard error


SITES = "".join(f"  site{n}.test: 127.0.1.{1 + n}:{{theirs}}\n" for n in range(40))
LATIN = "  latin.test: {{host: 127.0.0.1:{theirs}, tls: required}}\n"
# The name is the function's.
ATTACKS = {
    attack.play.__name__.replace("_", "-"): attack
    for attack in (
        Attack("nobody attacks", nothing),
        Attack("2,000 silent connections from one address to the port with implicit TLS", silent_tls),
        Attack("the same to the one with STARTTLS", silent_plain),
        Attack("200 connections from 20 addresses that say NOOP each second and never log in", noop),
        Attack("random octets instead of a ClientHello, 4 at once", garbage),
        Attack("wrong passwords for a login of 250 octets, on 4 connections", guesses),
        Attack("40 addresses guess ten known logins; `owner`, from clean ones, is none of them", spray),
        Attack("5 wrong guesses at `owner`, then one a second; `owner` comes from elsewhere", lockout),
        Attack("the same at another login from the address of `owner`", neighbour),
        Attack("50 messages stop after 5 MB, 20 after 0.5; memory 64M; an innocent's are 1 MB", unfinished,
               limits="  memory: 64M\n"),
        Attack("2,700 comments in From", comments),
        Attack("5 MB of folded Bcc", folded),
        Attack("20 MB of fields `x:`", header_lines),
        Attack("20 MB of lines of one dot", dots),
        Attack("20 MB of bare LF; bare_newlines normalise", newlines, settings="bare_newlines: normalise\n"),
        Attack("NOOP in writes of 256 KiB on 4 connections, of whose replies 4 KiB are read", pipelined),
        Attack("500 HTTP requests that do not end, to the admin port", half_http),
        Attack("2,500 TLS sessions opened, then closed; `after` is 5 s later", tls_wave,
               limits="  connections: 3000\n", whole=True, settling=5.0),
        Attack("one message of 10 MiB to 40 sites that stop reading at DATA", slow_sites, routes=SITES),
        Attack("a peer answers STARTTLS in Latin-1; its route has tls required", latin_peer, routes=LATIN),
        Attack("3,000 recipients bounce while nobody reads standard error, a pipe of 4 KiB", stderr_unread,
               routes="  gone.test: 127.0.0.1:{theirs}\n", deaf=True),
    )
}  # fmt: skip
