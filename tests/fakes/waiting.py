"""A spool in which mail waits, made before the daemon starts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mta.core.model import Message, Recipient
from mta.core.queue.lifecycle import State
from mta.metrics import Metrics
from mta.spool.commit import Update
from mta.spool.queue import Spool
from tests.fakes.clock import HandClock

CONTENT = b"From: a@src.test\r\n\r\nlate\r\n"


class Waiting(NamedTuple):
    """A message for one recipient."""

    stream: str
    address: str
    priority: int = 0
    tenant: str = "acme"
    due: float | None = None  # seconds from now; None: some time ago, after those before it


async def fill(directory: Path, clock: HandClock, mail: Iterable[Waiting | tuple[str, str]]) -> None:
    """A message of each (stream, address, ...) has been tried once, and is due, in this order."""

    async def publish(lines: bytes) -> None:
        pass

    spool = Spool(directory, "live", 1_000_000, publish, clock, Metrics())
    await spool.open(300.0)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(spool.run())
        for number, (stream, address, priority, tenant, due) in enumerate(Waiting(*each) for each in mail):
            recipient = Recipient(0, address, address.partition("@")[2])
            expires = clock.now() + 86400.0
            message = Message(
                spool.mint(), "a@src.test", tenant, stream, "app", expires, len(CONTENT), "<1@x>", 0,
                [recipient], CONTENT, priority=priority,
            )  # fmt: skip
            spool.put(message, [], lambda error: None)
            at = clock.now() + (number / 1000 - 100.0 if due is None else due)
            spool.settle(message, [], [Update(State.DEFERRED, 1, at, message.id, 0)], [])
        await spool.lease([])
        spool.stop()
    await spool.close()
