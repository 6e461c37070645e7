"""Mail whose time is over: given up page by page, whatever else goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mta.config.policy import Current, build
from mta.config.settings import HostName, Settings
from mta.core.model import Batch, Message, Option, Recipient
from mta.core.queue.lifecycle import State
from mta.metrics import Metrics
from mta.outbound.expiry import INTERVAL, PAGE, Expiry
from mta.outbound.leases import Leases, Lot
from mta.outbound.outcome import Settler
from mta.spool.bodies import THRESHOLD
from mta.spool.commit import Update
from mta.spool.queue import Spool
from tests.fakes.clock import HandClock

POLICY = Current(build(Settings(HostName("mta.test"), listeners=())))
LOT = Lot("site", "", 0, "acme")
HEADER = b"From: a@src.test\r\nSubject: late\r\n\r\n"


class Rig:
    """A spool with an expiry, and what the event log got."""

    def __init__(self, directory: Path, clock: HandClock) -> None:
        self.events: list[dict[str, Any]] = []
        self._told = asyncio.Event()
        self.metrics = Metrics()
        self.clock = clock
        self.notices: list[Message] = []
        self.spool = Spool(directory, "live", 1_000_000, self._publish, clock, self.metrics)
        self.settler = Settler(self.spool, POLICY, clock, self.metrics)
        self.settler.on_notice = self.notices.append
        self.leases = Leases()
        self.expiry = Expiry(self.settler, self.spool, self.leases, clock, self.metrics)

    async def _publish(self, lines: bytes) -> None:
        self.events += [json.loads(line) for line in lines.splitlines()]
        self._told.set()

    async def waiting(self, *, options: int = 0, count: int = 1, size: int = 0) -> list[Message]:
        """Deferred messages that are over their time."""
        now = self.clock.now()
        made = []
        for n in range(count):
            message = Message(
                self.spool.mint(), "a@src.test", "acme", "bulk", "app", now - 1, 5, "<1@x>", options,
                [Recipient(0, f"b{n}@dst.test", "dst.test")], HEADER + size * b"x",
            )  # fmt: skip
            made.append(message)
            self.spool.put(message, [], lambda error: None)
        await self.spool.lease([])
        for message in made:
            update = Update(State.DEFERRED, 1, now - 10, message.id, 0)
            self.spool.settle(message, [], [update], [])
            self.spool.release(message)
        await self.spool.lease([])
        return made

    async def expirations(self, count: int) -> list[dict[str, Any]]:
        """The first so many."""
        async with asyncio.timeout(10):
            while len(found := [each for each in self.events if each["type"] == "expiration"]) < count:
                self._told.clear()
                await self._told.wait()
        return found


@asynccontextmanager
async def rigged(directory: Path) -> AsyncIterator[Rig]:
    clock = HandClock()
    rig = Rig(directory, clock)
    await rig.spool.open(300.0)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(rig.spool.run())
            looking = tasks.create_task(rig.expiry.run())
            try:
                yield rig
            finally:
                looking.cancel()
                rig.spool.stop()
    finally:
        await rig.spool.close()


async def until(rig: Rig, condition: Callable[[], bool]) -> None:
    """Commit after commit, until it is true."""
    async with asyncio.timeout(10):
        while not condition():
            await rig.spool.lease([])


async def test_mail_under_way_does_not_hide_what_expires_behind_it(tmp_path: Path) -> None:
    async with rigged(tmp_path) as rig:
        under_way = await rig.waiting(count=2 * PAGE)
        for message in under_way:
            rig.leases.take(message, message.recipients[0], LOT)
        await rig.waiting()
        await rig.clock.advance(INTERVAL)
        await until(rig, lambda: rig.spool.tally.recipients == 2 * PAGE)
        await rig.clock.advance(1.0)
        (told,) = await rig.expirations(1)
        assert told["recipient"] == "b0@dst.test"


async def test_many_pages_expire_in_one_look_and_the_sender_is_told_of_each(tmp_path: Path) -> None:
    async with rigged(tmp_path) as rig:
        await rig.waiting(count=PAGE + 5, options=Option.NOTIFY)
        await rig.clock.advance(INTERVAL)
        await until(rig, lambda: len(rig.notices) == PAGE + 5)
        told = [await rig.spool.reader.content(notice.id) for notice in rig.notices]
        assert all(b"Subject: late" in each for each in told)
        assert rig.spool.usage("acme")[0] == PAGE + 5


async def test_a_content_that_cannot_be_read_does_not_keep_its_message_from_expiring(tmp_path: Path) -> None:
    async with rigged(tmp_path) as rig:
        await rig.waiting(options=Option.NOTIFY, size=THRESHOLD)
        (file,) = (tmp_path / "bodies").iterdir()
        file.unlink()
        await rig.clock.advance(INTERVAL)
        await until(rig, lambda: bool(rig.notices))
        (notice,) = rig.notices
        assert notice.sender == ""
        assert b"Subject: late" not in await rig.spool.reader.content(notice.id)


async def test_what_was_settled_while_the_expiry_reads_is_not_given_up_again(tmp_path: Path) -> None:
    async with rigged(tmp_path) as rig:
        (message,) = await rig.waiting()
        (recipient,) = message.recipients
        rig.leases.take(message, recipient, LOT)
        async with rig.leases.looking(lambda: rig.spool.lease([])):
            (found,) = await rig.spool.reader.expired((0.0, 0), rig.clock.now(), PAGE)
            assert rig.leases.free(found) == []
            assert rig.leases.give_back(message, recipient) == LOT
            assert rig.leases.free(found) == []
        async with rig.leases.looking(lambda: rig.spool.lease([])):
            assert rig.leases.free(found) == found.recipients


async def test_the_last_message_of_a_page_has_all_its_recipients(tmp_path: Path) -> None:
    async with rigged(tmp_path) as rig:
        now = rig.clock.now()
        large = Message(
            rig.spool.mint(), "a@src.test", "acme", "bulk", "app", now - 1, 5, "<1@x>", 0,
            [Recipient(n, f"b{n}@dst.test", "dst.test") for n in range(3)], HEADER,
        )  # fmt: skip
        rig.spool.put(large, [], lambda error: None)
        await rig.spool.lease([])
        rig.settler.postpone(Batch(large, large.recipients), now - 10)
        await rig.spool.lease([])
        (found,) = await rig.spool.reader.expired((0.0, 0), now, 1)
        assert len(found.recipients) == 3
        assert await rig.spool.reader.expired((found.expires, found.id), now, 1) == []


async def test_an_event_of_each_page_is_written(tmp_path: Path) -> None:
    async with rigged(tmp_path) as rig:
        await rig.waiting(count=PAGE + 1)
        await rig.clock.advance(INTERVAL)
        await until(rig, lambda: not rig.spool.tally.recipients)
        await rig.clock.advance(1.0)
        assert len(await rig.expirations(PAGE + 1)) == PAGE + 1
        assert rig.spool.usage("acme") == (0, 0)
