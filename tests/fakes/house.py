"""The whole daemon in this process: real sockets, real SQLite, real files; its events as a list."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from mta.clock import Clock, SystemClock
from mta.config.policy import build
from mta.config.settings import (
    AdminSettings,
    Endpoint,
    ListenerSettings,
    Settings,
    SpoolSettings,
    StaticRoute,
    Tls,
)
from mta.core.credential import Credential
from mta.core.event import Event
from mta.core.model import Message
from mta.daemon import Daemon
from mta.ops.certificate import self_signed
from mta.spool.commit import Done
from mta.store.credentials import CredentialStore
from tests.fakes.clock import HandClock

LOOPBACK = Endpoint("127.0.0.1", 0)
KEY = "mta_0123456789abcdefghijklmnopqrstuvwxyz"
CALM = 10  # looks at a house in which nothing has happened since the one before
NETWORK = Credential("network", "acme", "transactional", networks=("127.0.0.0/8",), kind="network")


@cache
def certificate() -> tuple[Path, Path]:
    """One self-signed certificate for all tests."""
    return self_signed(["localhost", "127.0.0.1"], Path(mkdtemp(prefix="mta-test-")))


def client_context() -> ssl.SSLContext:
    """Trusts the test certificate."""
    return ssl.create_default_context(cafile=certificate()[0])


def settings(directory: Path, **changes: Any) -> Settings:
    """Loopback, ports chosen by the system: submission, submissions, network-bound."""
    made = Settings(
        hostname="mta.test",
        listeners=(
            ListenerSettings(LOOPBACK),
            ListenerSettings(LOOPBACK, tls="implicit"),
            ListenerSettings(LOOPBACK, tls="none", auth="network"),
        ),
        tls=Tls(*certificate()),
        spool=SpoolSettings(directory / "spool"),
        admin=AdminSettings(LOOPBACK),
    )
    return replace(made, **changes)


def routed(port: int, **terms: Any) -> dict[str, StaticRoute]:
    """Everything to one peer on loopback."""
    return {"*": StaticRoute(Endpoint("127.0.0.1", port), **terms)}


class House:
    """A daemon that runs, and what it has said."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.events: list[dict[str, Any]] = []
        self._told = asyncio.Event()
        daemon.event_log.on_published = self._tell

    def _tell(self, lines: bytes) -> None:
        self.events += [json.loads(line) for line in lines.splitlines()]
        self._told.set()

    @property
    def submission(self) -> int:
        return int(self.daemon.listeners[0].port)

    @property
    def submissions(self) -> int:
        return int(self.daemon.listeners[1].port)

    @property
    def network(self) -> int:
        return int(self.daemon.listeners[2].port)

    def of(self, **wanted: Any) -> list[dict[str, Any]]:
        """The events so far that have these fields."""
        return [each for each in self.events if all(each.get(k) == v for k, v in wanted.items())]

    async def event(self, count: int = 1, **wanted: Any) -> dict[str, Any]:
        """The first event with these fields, when `count` of them have been told."""
        async with asyncio.timeout(10):
            while len(self.of(**wanted)) < count:
                self._told.clear()
                await self._told.wait()
        return self.of(**wanted)[0]

    async def quiet(self) -> None:
        """Nothing more happens, in the loop, over sockets or on disk, while the hands of the clock stand."""
        calm, before = 0, -1
        while calm < CALM:
            for _ in range(CALM):
                await asyncio.sleep(0)
            await self.daemon.spool.lease([])
            now = len(self.events) + self.daemon.pool.connections
            calm, before = (calm + 1 if now == before else 0), now

    async def send(
        self,
        *recipients: str,
        content: bytes = b"",
        sender: str = "a@src.test",
        origin: str = "127.0.0.1",
        priority: int | None = None,
    ) -> str:
        """Submit a message on the network-bound listener, from an address; the last reply, after the dot."""
        message = content or b"From: a@src.test\r\nTo: b@dst.test\r\nSubject: hello\r\n\r\nHello.\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", self.network, local_addr=(origin, 0))
        try:
            await reader.readline()
            asks = "" if priority is None else f" MT-PRIORITY={priority}"
            lines = ["EHLO client.test", f"MAIL FROM:<{sender}>{asks}"]
            lines += [f"RCPT TO:<{each}>" for each in recipients]
            said = ""
            for line in [*lines, "DATA"]:
                writer.write(line.encode() + b"\r\n")
                said = await _reply(reader)
                if said[0] not in "23":
                    return said
            writer.write(message.replace(b"\r\n.", b"\r\n..") + b".\r\n")
            return await _reply(reader)
        finally:
            writer.close()


async def _reply(reader: asyncio.StreamReader) -> str:
    while True:
        line = (await reader.readline()).decode()
        if line[3:4] != "-":
            return line.rstrip()


@asynccontextmanager
async def running(
    terms: Settings,
    clock: Clock | None = None,
    credentials: tuple[Credential, ...] = (NETWORK,),
    returns: Callable[[Message], str] | None = None,
) -> AsyncIterator[House]:
    """Run a daemon around a block, and drain it."""
    terms.spool.path.mkdir(parents=True, exist_ok=True)
    with CredentialStore(terms.spool.path / "credentials.db") as store:
        for credential in credentials:
            if store.get(credential.login) is None:
                store.add(credential, KEY if credential.kind != "network" else "")
    daemon = Daemon(build(terms), clock or SystemClock(), {})
    if returns is not None:
        put = daemon.spool.put

        def putting(message: Message, events: list[Event], done: Done) -> None:
            message.return_path = returns(message) if message.sender else ""
            put(message, events, done)

        daemon.spool.put = putting  # type: ignore[method-assign]
    house = House(daemon)
    ready = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(daemon.run(lambda _: ready.set()))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        try:
            if not serving.done():
                yield house
        except BaseException:
            if isinstance(clock, HandClock):  # a drain that waits for a test that failed ends at once
                tasks.create_task(_hasten(clock, serving))
            raise
        finally:
            daemon.stop()


async def _hasten(clock: HandClock, serving: asyncio.Task[None]) -> None:
    while not serving.done():
        await clock.advance(10.0)
