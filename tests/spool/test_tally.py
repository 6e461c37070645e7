"""The queue in numbers, as the commits make them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from mta.core.model import Message
from mta.core.queue.lifecycle import State
from mta.spool.commit import Update
from mta.spool.queue import Spool
from tests.fakes.clock import HandClock
from tests.spool.test_spool import message, opened


async def put(spool: Spool, tenant: str, *addresses: str) -> Message:
    made = message(spool, *addresses)
    made.tenant = tenant
    told: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    spool.put(made, [], told.set_result)
    assert await told is None
    return made


def numbers(spool: Spool) -> tuple[int, int]:
    return spool.tally.fresh, spool.tally.deferred


async def test_what_comes_and_goes_is_counted_for_its_tenant(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        first = await put(spool, "acme", "a@x.test", "b@y.test")
        second = await put(spool, "other", "a@x.test")
        assert numbers(spool) == (3, 0)
        assert (spool.usage("acme"), spool.usage("other"), spool.usage("nobody")) == ((1, 5), (1, 5), (0, 0))
        spool.settle(first, [first.recipients[0]], [Update(State.DEFERRED, 1, 2e9, first.id, 1)], [])
        spool.settle(second, second.recipients, [], [])
        assert numbers(spool) == (3, 0)  # not before it is on disk
        await spool.lease([])
        assert numbers(spool) == (0, 1)
        assert (spool.usage("acme"), spool.usage("other")) == ((1, 5), (0, 0))


async def test_recipients_that_are_settled_one_by_one_are_fresh_until_then(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        made = await put(spool, "acme", "a@x.test", "b@y.test", "c@z.test")
        for left, recipient in zip((2, 1, 0), made.recipients, strict=True):
            spool.settle(made, [recipient], [], [])
            await spool.lease([])
            assert numbers(spool) == (left, 0)
        assert spool.usage("acme") == (0, 0)


async def test_a_retry_that_is_over_was_not_fresh(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        made = await put(spool, "acme", "a@x.test")
        spool.settle(made, [], [Update(State.DEFERRED, 1, 1.0, made.id, 0)], [])
        await spool.lease([])
        (((again,), _),) = await spool.reader.due([(made.line(made.recipients[0]), 1)], 2.0)
        spool.settle(again, [], [Update(State.DEFERRED, 2, 1.0, made.id, 0)], [])
        await spool.lease([])
        assert numbers(spool) == (0, 1)
        spool.settle(again, again.recipients, [], [])
        await spool.lease([])
        assert numbers(spool) == (0, 0)


async def test_a_restart_counts_once_and_nothing_is_fresh_any_more(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await put(spool, "acme", "a@x.test", "b@y.test")
        await put(spool, "other", "a@x.test")
    async with opened(tmp_path) as spool:
        assert numbers(spool) == (0, 3)
        assert (spool.usage("acme"), spool.usage("other")) == ((1, 5), (1, 5))


async def test_a_message_that_the_disk_refuses_is_not_counted(tmp_path: Path) -> None:
    clock = HandClock()
    async with opened(tmp_path, clock=clock) as spool:
        made = await put(spool, "acme", "a@x.test")
        spool.settle(made, made.recipients, [], [])
        (tmp_path / "bodies").rmdir()
        large = message(spool, "c@dst.test")
        large.content = b"x" * 1_000_000
        told: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        spool.put(large, [], told.set_result)
        assert isinstance(await told, OSError)
        assert spool.usage("acme") == (1, 5)
        await clock.advance(1.0)
        await spool.lease([])
        assert spool.usage("acme") == (0, 0)
        assert numbers(spool) == (0, 0)
