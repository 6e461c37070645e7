"""A daemon in a house whose every domain goes to one scripted peer, in a time that a test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from mta.config.settings import DEFAULT, Dns, Duration, ProviderSettings, Stream
from mta.core.model import Message
from mta.core.queue.retry import Schedule
from tests.fakes.clock import HandClock
from tests.fakes.dns import NameServer
from tests.fakes.house import NETWORK, House, routed, running, settings
from tests.fakes.network import FIRST, own_network
from tests.fakes.peer import ScriptedPeer

MUTE = replace(NETWORK, notify=False)
# The peers here have no certificate of a provider.
IN_THE_CLEAR = {name: ProviderSettings(tls="opportunistic") for name in ("google", "gmx")}


@dataclass
class Relay:
    """What a test of the way out looks at."""

    house: House
    peer: ScriptedPeer
    clock: HandClock
    heard: int = -1  # events about mail that the test knows of; -1: it does not count them

    async def told(self, count: int) -> list[str]:
        """What became of the mail, a line for each event, when so many have been told; more are a fault."""
        self.heard = count
        return await story(self.house, count)

    async def come_due(self) -> None:
        """Let the time pass until what is told last is tried again."""
        (*_, last) = (event for event in self.house.events if "due" in event and "recipient" in event)
        wait = datetime.fromisoformat(last["due"]).timestamp() - self.clock.now()
        await self.leap(wait + 1)

    async def leap(self, seconds: float) -> None:
        """Let time pass at once: what would have gone off on the way goes off when it is over."""
        self.clock._move(self.clock.monotonic() + seconds - 1)
        await self.clock.advance(1)

    def types(self) -> list[str]:
        """The events about mail so far, in short."""
        return [event["type"] for event in mail(self.house)]


@asynccontextmanager
async def relaying(
    directory: Path,
    *scripts: str,
    shut: bool = False,
    receive_buffer: int = 0,
    notify: bool = False,
    stream: Stream | None = None,
    mx: str = "",
    eight_bit: Literal["send", "convert", "return"] = "send",
    returns: Callable[[Message], str] | None = None,
    **route: Any,
) -> AsyncIterator[Relay]:
    """Run a daemon that sends everything to a peer with these scripts.

    With `mx` the peer is what DNS has by this name for dst.test, in a network of its own, and not a route.
    `returns` says at which domain somebody takes what comes back for a message.
    """
    async with AsyncExitStack() as stack:
        if mx:
            stack.enter_context(own_network())
        host = FIRST if mx else "127.0.0.1"
        peer = await stack.enter_async_context(
            ScriptedPeer(*scripts, shut=shut, receive_buffer=receive_buffer, host=host)
        )
        terms = settings(directory, routes={} if mx else routed(peer.port, **route))
        if mx:
            zone = {("dst.test", "MX"): [f"10 {mx}."], (mx, "A"): [FIRST]}
            server = await stack.enter_async_context(NameServer(zone))
            terms = replace(
                terms,
                destinations={"default": replace(DEFAULT, port=peer.port, connections_start=None, **route)},
                providers=IN_THE_CLEAR,
                dns=Dns((server.endpoint,), Duration(5.0)),
            )
        if stream is not None:
            terms = replace(terms, streams={"transactional": stream})
        terms = replace(terms, eight_bit=eight_bit)
        clock = HandClock()
        async with running(terms, clock, (NETWORK if notify else MUTE,), returns) as house:
            relay = Relay(house, peer, clock)
            try:
                yield relay
            finally:
                peer.hang_up()
    if relay.heard >= 0:
        assert len(mail(house)) == relay.heard, [line(event) for event in mail(house)]


def wait_of(event: dict[str, Any]) -> float:
    """Seconds from an event to the next attempt that it announces."""
    return (datetime.fromisoformat(event["due"]) - datetime.fromisoformat(event["time"])).total_seconds()


def named(seconds: float) -> str:
    """A wait that a peer or a rule names, as `line` shows it: with the jitter of the dice of our clock."""
    due = Schedule().due(1, 0.0, 1e9, HandClock().dice(), seconds)
    return f"+{due:.0f}"


class _Some:
    """Equal to whatever is there."""

    def __eq__(self, other: object) -> bool:
        return other is not None

    __hash__ = None  # type: ignore[assignment]


async def story(house: House, count: int) -> list[str]:
    """What became of the mail, a line for each event, when so many have been told."""
    await house.event(count, queue_id=_Some())
    return [line(event) for event in mail(house)]


def mail(house: House) -> list[dict[str, Any]]:
    """The events about mail, in the order they were told."""
    return [event for event in house.events if "queue_id" in event]


def line(event: dict[str, Any]) -> str:
    """An event in short: `deferral 1 b@dst.test policy +300: 451 4.7.1 later (RCPT)`."""
    kind = event["type"]
    words = [kind, str(event.get("attempt", "")), event["recipient"], event.get("subject", "")]
    if "due" in event:
        words.append(f"+{wait_of(event):.0f}")
    if "permanent" in event:
        assert event["permanent"] is ("due" not in event), event
        assert event["permanent"] or kind in ("deferral", "ambiguous"), event
    said = event.get("reply")
    text = " ".join(filter(None, words))
    if said is None:
        return text
    reply = " ".join(filter(None, (str(said["code"]), said.get("enhanced"), said.get("text"))))
    return f"{text}: {reply} ({said['command']})" if "command" in said else f"{text}: {reply}"
