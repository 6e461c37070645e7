"""Contents that are read back from disk to be sent: one memory for all, and a slow site never has it all."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mta.config.settings import Endpoint, Size, StaticRoute
from mta.core.mail.message import stuff
from mta.delivery import contents
from tests.fakes.clock import HandClock
from tests.fakes.house import House, running, settings
from tests.fakes.receiver import Receiver
from tests.fakes.relay import MUTE

MIB = 1 << 20
SLOW, QUICK = "127.0.8.1", "127.0.8.2"
LARGE = b"From: a@src.test\r\n\r\n" + (b"." + b"x" * 75 + b"\r\n") * (MIB // 78)


class Peers:
    """On every loopback address; they read a body only after `go`, but for the quick ones."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.asked = 0  # bodies that are waited for
        self.moved = asyncio.Event()
        self.bodies: list[tuple[str, bytes]] = []
        self.tasks: set[asyncio.Task[None]] = set()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        name = writer.get_extra_info("sockname")[0]
        try:
            writer.write(b"220 mx\r\n")
            while line := await reader.readline():
                if line == b"DATA\r\n":
                    writer.write(b"354 go on\r\n")
                    self.asked += 1
                    self.moved.set()
                    if name != QUICK:
                        await self.go.wait()
                    self.bodies.append((name, await reader.readuntil(b"\r\n.\r\n")))
                    self.moved.set()
                writer.write(b"250 ok\r\n")
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def until_asked(self, count: int) -> None:
        async with asyncio.timeout(10):
            while self.asked < count:
                self.moved.clear()
                await self.moved.wait()


@asynccontextmanager
async def served(directory: Path, hosts: dict[str, str], memory: int) -> AsyncIterator[tuple[House, Peers]]:
    peers = Peers()
    server = await asyncio.start_server(peers.answer, "0.0.0.0", 0, limit=16 * MIB)
    port = server.sockets[0].getsockname()[1]
    routes = {domain: StaticRoute(Endpoint(host, port)) for domain, host in hosts.items()}
    terms = settings(directory, routes=routes)
    terms = replace(
        terms,
        spool=replace(terms.spool, memory=Size(1)),
        limits=replace(terms.limits, memory=Size(memory)),
    )
    async with running(terms, HandClock(), (MUTE,)) as house:
        try:
            yield house, peers
        finally:
            peers.go.set()
            for task in peers.tasks:
                task.cancel()
            server.close()


async def test_one_message_to_many_slow_sites_is_in_memory_once(tmp_path: Path) -> None:
    hosts = {f"d{n}.test": f"127.0.9.{n + 1}" for n in range(12)}
    async with served(tmp_path, hosts, 4 * MIB) as (house, peers):
        assert (await house.send(*(f"b@{domain}" for domain in hosts), content=LARGE)).startswith("250 ")
        await peers.until_asked(12)
        assert MIB // 2 < house.daemon.pool.contents.octets < 2 * MIB
        peers.go.set()
        await house.event(12, type="delivery")
        assert house.daemon.pool.contents.octets == 0
        assert house.daemon.pool.contents._budget.used == 0
        assert {body.count(b"\r\n..xxx") for _, body in peers.bodies} == {LARGE.count(b"\r\n.xxx")}


@pytest.mark.parametrize("memory", [4 * MIB, MIB + MIB // 4, MIB // 2])
async def test_a_slow_site_with_large_mail_leaves_room_for_a_quick_one(tmp_path: Path, memory: int) -> None:
    """Also where a content is larger than any share, or than all: it is sent alone, and small mail passes."""
    async with served(tmp_path, {"slow.test": SLOW, "quick.test": QUICK}, 64 * MIB) as (house, peers):
        pool = house.daemon.pool.contents
        pool._budget.limit = memory
        for n in range(12):
            await house.send(f"b{n}@slow.test", content=LARGE)
        await peers.until_asked(1)
        for _ in range(20):
            await house.send("b@quick.test")
        await house.event(20, type="delivery")
        assert not house.of(type="delivery", recipient="b0@slow.test")
        if memory > MIB:
            assert pool.octets <= memory
        peers.go.set()
        await house.event(32, type="delivery")
        assert (pool.octets, pool._budget.used, pool._sites, pool._lent) == (0, 0, {}, {})


async def test_large_mail_of_a_quick_site_passes_that_of_a_slow_one(tmp_path: Path) -> None:
    async with served(tmp_path, {"slow.test": SLOW, "quick.test": QUICK}, 4 * MIB) as (house, peers):
        for n in range(8):
            await house.send(f"b{n}@slow.test", content=LARGE)
        await peers.until_asked(1)
        for n in range(8):
            await house.send(f"b{n}@quick.test", content=LARGE)
        await house.event(8, type="delivery")
        peers.go.set()
        await house.event(16, type="delivery")
        assert house.daemon.pool.contents.octets == 0


async def test_a_site_that_hangs_up_while_its_only_mail_is_read_from_a_slow_disk_is_not_forgotten(
    tmp_path: Path,
) -> None:
    clock, disk = HandClock(), threading.Event()
    async with Receiver() as receiver:
        routes = {"dst.test": StaticRoute(Endpoint("127.0.0.1", receiver.port))}
        terms = settings(tmp_path, routes=routes)
        terms = replace(terms, spool=replace(terms.spool, memory=Size(1)))
        async with running(terms, clock, (MUTE,)) as house:
            pool = house.daemon.pool
            await house.send("a@dst.test")
            await house.event(type="delivery")
            try:
                slow = asyncio.create_task(house.daemon.spool.reader._ask(lambda _: disk.wait()))
                await house.send("b@dst.test")
                await house.quiet()
                receiver.hang_up()
                await house.quiet()
                assert (len(pool.contents.lent), pool.connections) == (1, 0)
                await clock.advance(3.0)
                assert pool.lanes == 1
            finally:
                disk.set()
            await slow
            await house.event(2, type="delivery")
            await clock.advance(100.0)  # and is, when nothing is left
            await house.quiet()
            assert pool.lanes == 0
            assert house.daemon.metrics.bugs["delivery"]._value.get() == 0


async def test_a_content_is_stuffed_by_slices_as_it_would_be_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(7)
    for _ in range(200):
        lines = (b"." * dice.randrange(3) + b"x" * dice.randrange(6) for _ in range(dice.randrange(1, 40)))
        content = b"\r\n".join(lines) + b"\r\n"
        monkeypatch.setattr(contents, "SLICE", dice.randrange(1, 30))
        assert await contents._stuffed(content) == stuff(content)
