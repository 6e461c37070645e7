"""What one message costs in the spool, beside what waits there.

Between: `scale` asks for each size of queue.
Contract: microseconds of processor time a message, all threads, in commits of `BATCH`: some are taken in
    and delivered, others deferred and then delivered, each to a domain that has mail waiting.
    The least of the rounds, in which an empty and the full queue take turns.
Raises: OSError, SpoolError.
Why: processor time, and the least of it: others on the machine make it more, never less.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.load.backlog import CONTENT
from mta.clock import SystemClock
from mta.core.event import Event, Type
from mta.core.model import Message, Recipient
from mta.core.queue.lifecycle import State
from mta.metrics import Metrics
from mta.spool.commit import Update
from mta.spool.queue import Spool

BATCH = 50
BATCHES = 40
ROUNDS = 5


class Cost(NamedTuple):
    """Microseconds a message."""

    enqueue: float
    settle: float  # at the first attempt
    defer: float
    retry: float  # settled, at the second


async def compared(empty: Path, full: Path, domains: int) -> tuple[Cost, Cost]:
    """Of an empty and of a full queue."""
    rounds = [(await _round(empty, domains), await _round(full, domains)) for _ in range(ROUNDS)]
    least = [Cost(*map(min, zip(*costs, strict=True))) for costs in zip(*rounds, strict=True)]
    return least[0], least[1]


async def _round(directory: Path, domains: int) -> Cost:
    spool = Spool(directory, "live", 64_000_000, _swallow, SystemClock(), Metrics())
    await spool.open(300.0)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(spool.run())
            try:
                # Each twice: the first time warms the caches up. The pages that retries touch are for a later
                # checkpoint to write: those who come first pay for nobody.
                for _ in range(2):
                    enqueue, settle = await _at_first(spool, domains)
                for _ in range(2):
                    defer, retry = await _retried(spool, domains)
            finally:
                spool.stop()
    finally:
        await spool.close()
    return Cost(enqueue, settle, defer, retry)


async def _swallow(lines: bytes) -> None:
    pass


async def _at_first(spool: Spool, domains: int) -> tuple[float, float]:
    messages = _messages(spool, domains)
    enqueue = await _each(spool, messages, lambda message: _enqueue(spool, message))
    return enqueue, await _each(spool, messages, lambda message: _settle(spool, message))


async def _retried(spool: Spool, domains: int) -> tuple[float, float]:
    messages = _messages(spool, domains)
    await _each(spool, messages, lambda message: _enqueue(spool, message))
    defer = await _each(spool, messages, lambda message: _defer(spool, message))
    return defer, await _each(spool, messages, lambda message: _settle(spool, message))


def _enqueue(spool: Spool, message: Message) -> None:
    spool.put(message, [Event(type=Type.RECEPTION)], lambda error: None)


def _defer(spool: Spool, message: Message) -> None:
    update = Update(State.DEFERRED, 1, time.time() + 3600.0, message.id, 0)
    spool.settle(message, [], [update], [Event(type=Type.DEFERRAL)])


def _settle(spool: Spool, message: Message) -> None:
    spool.settle(message, message.recipients, [], [Event(type=Type.DELIVERY)])


async def _each(spool: Spool, messages: list[Message], work: Callable[[Message], None]) -> float:
    began = time.process_time()
    for start in range(0, len(messages), BATCH):
        for message in messages[start : start + BATCH]:
            work(message)
        await spool.lease([])
    return (time.process_time() - began) / len(messages) * 1e6


def _messages(spool: Spool, domains: int) -> list[Message]:
    return [_message(spool, random.randrange(domains)) for _ in range(BATCH * BATCHES)]


def _message(spool: Spool, n: int) -> Message:
    domain = f"waiting{n}.test"
    return Message(
        spool.mint(), "a@src0.test", "relay", "bulk", "relay", time.time() + 86400, len(CONTENT), "<1@x>", 0,
        [Recipient(0, f"b@{domain}", domain)], CONTENT, True,
    )  # fmt: skip
