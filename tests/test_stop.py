"""A stop comes to its end, whatever is going on at that moment."""

from __future__ import annotations

import asyncio
from pathlib import Path

from mta.config.settings import Sandbox
from tests.fakes.house import running, settings


async def test_a_stop_in_the_very_moment_of_a_dial_ends(tmp_path: Path) -> None:
    """The dial's task is cancelled before its first step: it must still say that it is over."""
    terms = settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox"))
    async with running(terms) as house:
        await house.send("ok@dst.test")
        await house.event(type="delivery")
        pool = house.daemon.pool
        (lane,) = pool._lanes.values()
        lane.connections += 1  # as `Lane.kick` does
        pool.open(lane)
        async with asyncio.timeout(10):
            await pool.drain(1.0)
        assert lane.connections == 0
