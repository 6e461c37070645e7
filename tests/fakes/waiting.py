"""A spool in which mail waits, made before the daemon starts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from mta.core.lifecycle import State
from mta.core.model import Message, Recipient
from mta.metrics import Metrics
from mta.spool.commit import Update
from mta.spool.queue import Spool
from tests.fakes.clock import HandClock

CONTENT = b"From: a@src.test\r\n\r\nlate\r\n"


async def fill(directory: Path, clock: HandClock, mail: Iterable[tuple[str, str]]) -> None:
    """A message of each (stream, address) is due, in this order."""

    async def publish(lines: bytes) -> None:
        pass

    spool = Spool(directory, "live", 1_000_000, publish, clock, Metrics())
    await spool.open(300.0)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(spool.run())
        for number, (stream, address) in enumerate(mail):
            recipient = Recipient(0, address, address.partition("@")[2])
            expires = clock.now() + 86400.0
            message = Message(
                spool.mint(), "a@src.test", "acme", stream, "app", expires, len(CONTENT), "<1@x>", 0,
                [recipient], CONTENT,
            )  # fmt: skip
            spool.put(message, [], lambda error: None)
            due = clock.now() - 100.0 + number / 1000
            spool.settle(message, [], [Update(State.DEFERRED, 1, due, message.id, 0)], [])
        await spool.lease([])
        spool.stop()
    await spool.close()
