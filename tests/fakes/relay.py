"""A daemon in a house whose every domain goes to one scripted peer, in a time that a test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from mta.config.settings import Stream
from tests.fakes.clock import HandClock
from tests.fakes.house import NETWORK, House, routed, running, settings
from tests.fakes.peer import ScriptedPeer

MUTE = replace(NETWORK, notify=False)


@dataclass
class Relay:
    """What a test of the way out looks at."""

    house: House
    peer: ScriptedPeer
    clock: HandClock

    def types(self) -> list[str]:
        """The events so far, in short."""
        return [event["type"] for event in self.house.events]


@asynccontextmanager
async def relaying(
    directory: Path,
    *scripts: str,
    shut: bool = False,
    receive_buffer: int = 0,
    notify: bool = False,
    stream: Stream | None = None,
    **route: Any,
) -> AsyncIterator[Relay]:
    """Run a daemon that sends everything to a peer with these scripts."""
    async with ScriptedPeer(*scripts, shut=shut, receive_buffer=receive_buffer) as peer:
        terms = settings(directory, routes=routed(peer.port, **route))
        if stream is not None:
            terms = replace(terms, streams={"transactional": stream})
        clock = HandClock()
        async with running(terms, clock, (NETWORK if notify else MUTE,)) as house:
            try:
                yield Relay(house, peer, clock)
            finally:
                peer.hang_up()


def wait_of(event: dict[str, Any]) -> float:
    """Seconds from an event to the next attempt that it announces."""
    return (datetime.fromisoformat(event["due"]) - datetime.fromisoformat(event["time"])).total_seconds()
