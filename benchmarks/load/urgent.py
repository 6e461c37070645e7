"""The transactional mail of W8: submitted at a steady rate, and stamped where it comes in.

Between: `latency` and `situations` send with a `Sender` to a daemon that relays to a `Peer` of their own.
Contract: seconds of one clock, from the last octet of our 250 to the final dot at the peer. What has not come
    `PATIENCE` after the last was sent counts as taking until then.
Raises: ConnectionError when the daemon hung up.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from benchmarks.load.flow import Flow, Mail
from benchmarks.peers.sink import Connection, Count

PATIENCE = 10.0  # seconds
MARK = b"<t."


def percentile(times: list[float], part: float) -> float:
    """Of sorted seconds, in milliseconds."""
    return times[int(part * (len(times) - 1))] * 1e3


def _alike(n: int) -> str:
    """The recipient where all are one."""
    return "b@dst0.test"


class Arrivals(Count):
    """What came, and when the transactional part of it did."""

    def __init__(self) -> None:
        super().__init__(hold=False)
        self.at: dict[str, float] = {}
        self.moved = asyncio.Event()

    def taken(self, recipients: int) -> None:
        self.recipients += recipients

    def stamp(self, tag: str) -> None:
        self.at.setdefault(tag, time.monotonic())
        self.moved.set()


class Peer(Connection):
    """A sink that knows transactional mail by its sender."""

    def __init__(self, arrivals: Arrivals) -> None:
        super().__init__(arrivals)
        self._arrivals = arrivals
        self._tag = ""

    def _commands(self, octets: bytes) -> None:
        _, mark, rest = octets.partition(MARK)
        if mark and b"@" in rest:
            self._tag = rest.partition(b"@")[0].decode()
        super()._commands(octets)

    def _taken(self) -> None:
        if self._tag:
            self._arrivals.stamp(self._tag)
            self._tag = ""
        super()._taken()


class Sender:
    """The transactional mail."""

    def __init__(
        self, port: int, arrivals: Arrivals, every: float, recipient: Callable[[int], str] = _alike
    ) -> None:
        self._port = port
        self._arrivals = arrivals
        self._every = every
        self._recipient = recipient
        self.sent = 0
        self.refused: Counter[str] = Counter()  # by reply
        self.accepted: dict[str, float] = {}

    async def run(self, seconds: float) -> None:
        """Send for so long, and wait for what is under way."""
        async with Flow(self._port, "transactional", 4) as urgent:
            urgent.on_accepted = self._note
            began = time.monotonic()
            while (elapsed := time.monotonic() - began) < seconds:
                if elapsed >= self.sent * self._every:
                    tag = str(self.sent)
                    urgent.add(Mail(f"t.{tag}@src0.test", self._recipient(self.sent), tag))
                    self.sent += 1
                await asyncio.sleep(max(began + self.sent * self._every - time.monotonic(), 0.0))
            await self._rest()
            urgent.check()
            self.refused = urgent.refused

    def _note(self, tag: str) -> None:
        self.accepted[tag] = time.monotonic()

    async def _rest(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while len(self._arrivals.at) < self.sent:
                    self._arrivals.moved.clear()
                    await self._arrivals.moved.wait()

    def times(self, warm: float) -> tuple[list[float], int]:
        """Of all that were sent after so long, sorted; and how many had not come."""
        now, arrived = time.monotonic(), self._arrivals.at
        counted = [tag for tag in self.accepted if int(tag) * self._every >= warm]
        late = sum(tag not in arrived for tag in counted)
        # Both stamps are callbacks of one loop, which may see the peer's before ours.
        return sorted(max(arrived.get(tag, now) - self.accepted[tag], 0.0) for tag in counted), late
