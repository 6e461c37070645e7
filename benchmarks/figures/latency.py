"""W8: how long transactional mail takes from our 250 to its peer, while bulk mail goes the same way.

Between: `full` prints its rows and holds its bound; `python -m benchmarks.figures.latency` measures
    W1-keep first.
Contract: milliseconds from the last octet of our 250 to the final dot at the peer, both seen by one process
    on one clock; a message every `EVERY` seconds. Bulk mail is submitted meanwhile at half the rate of
    W1-keep, to the same site; in the second case 500,000 more bulk messages wait and are due, also there.
    What has not come `PATIENCE` seconds after the last was sent counts as taking until then, and is `late`.
Raises: exit status 1 when the bound is missed, 2 when a run could not be made.
Why: sink and transactional client share a process, and the bulk client has one of its own, or a stamp would
    wait for a batch of its messages.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import uvloop

from benchmarks import cpu
from benchmarks.figures import relay
from benchmarks.load import flow
from benchmarks.load.backlog import Backlog, fill
from benchmarks.load.flow import Flow, Mail
from benchmarks.load.workload import WORKLOADS
from benchmarks.peers.sink import Connection, Count
from benchmarks.process import Broken, Process

ROOT = Path(__file__).resolve().parents[2]
WAITING = 500_000  # bulk messages, of the second case
DOMAINS = 1000  # theirs; one site
EVERY = 0.02  # seconds between two transactional messages
WARM = 5.0  # seconds before the first that counts
SECONDS = 30.0
PATIENCE = 10.0
START = 60.0  # seconds, with all that waits
BOUND = 100.0  # ms, p99 while all that waits is being sent
MARK = b"<t."
SETTINGS = """\
hostname: relay.test
spool:
  path: {home}
admin:
  bind: 127.0.0.1:0
listeners:
  - bind: 127.0.0.1:{listen}
    tls: none
    auth: network
limits:
  drain: 1s
routes:
  "*": 127.0.0.1:{sink}
"""
COLUMNS = {
    "workload": "",
    "waiting": "",  # bulk messages, at the start
    "offered": ".0f",  # bulk messages a second, submitted meanwhile
    "bulk_s": ".0f",  # bulk messages a second that came, of both kinds
    "p50_ms": ".1f",
    "p99_ms": ".1f",
    "max_ms": ".1f",
    "sent": "",
    "late": "",
    "other": ".0%",
}


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


class Seen(NamedTuple):
    """What was measured in one case."""

    times: list[float]  # seconds, sorted
    late: int
    bulk: float  # deliveries a second
    other: float  # share of the machine


class Books(NamedTuple):
    """How things stand."""

    at: float
    bulk: int  # deliveries
    busy: float  # processor seconds of the machine
    known: float  # and of it, of ours


class Sender:
    """The transactional mail."""

    def __init__(self, port: int, arrivals: Arrivals) -> None:
        self._port = port
        self._arrivals = arrivals
        self.accepted: dict[str, float] = {}

    async def run(self, seconds: float) -> None:
        """Send for so long."""
        async with Flow(self._port, "transactional", 4) as urgent:
            urgent.on_accepted = self._note
            began, sent = time.monotonic(), 0
            while (elapsed := time.monotonic() - began) < seconds:
                if elapsed >= sent * EVERY:
                    urgent.add(Mail(f"t.{sent}@src0.test", "b@dst0.test", str(sent)))
                    sent += 1
                await asyncio.sleep(max(began + sent * EVERY - time.monotonic(), 0.0))
            await self._rest(sent)
            urgent.check()
            if len(self.accepted) < sent:
                words = f"of {sent} transactional messages {len(self.accepted)} were accepted"
                raise Broken(f"{words}, these refused: {dict(urgent.refused)}")

    def _note(self, tag: str) -> None:
        self.accepted[tag] = time.monotonic()

    async def _rest(self, sent: int) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while len(self._arrivals.at) < sent:
                    self._arrivals.moved.clear()
                    await self._arrivals.moved.wait()

    def times(self) -> tuple[list[float], int]:
        """Of all that count, sorted; and how many had not come."""
        now, arrived = time.monotonic(), self._arrivals.at
        counted = [tag for tag in self.accepted if int(tag) * EVERY >= WARM]
        late = sum(tag not in arrived for tag in counted)
        # Both stamps are callbacks of one loop, which may see the peer's before ours.
        return sorted(max(arrived.get(tag, now) - self.accepted[tag], 0.0) for tag in counted), late


async def _watched(sender: Sender, arrivals: Arrivals, pids: list[int]) -> Seen:
    """The window that counts begins when all is warm."""

    def books() -> Books:
        known = time.process_time() + sum(map(cpu.spent, pids))
        return Books(time.monotonic(), arrivals.recipients - len(arrivals.at), cpu.machine_busy(), known)

    sending = asyncio.create_task(sender.run(WARM + SECONDS))
    await asyncio.sleep(WARM)
    first = books()
    await asyncio.sleep(SECONDS)
    last = books()
    await sending
    times, late = sender.times()
    seconds = last.at - first.at
    other = last.busy - first.busy - (last.known - first.known)
    share = max(other, 0.0) / seconds / (os.cpu_count() or 1)
    return Seen(times, late, (last.bulk - first.bulk) / seconds, share)


async def _case(home: Path, rate: float) -> Seen:
    listen, sink = relay.free_ports(2)
    arrivals = Arrivals()
    flow.credentials(home)
    (home / "mta.yaml").write_text(SETTINGS.format(home=home, listen=listen, sink=sink))
    argv = [sys.executable, "-m", "mta", "--config", str(home / "mta.yaml"), "serve"]
    bulk_argv = ["-m", "benchmarks.load.flow", str(listen), str(rate), str(WARM + SECONDS)]
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        server = await loop.create_server(lambda: Peer(arrivals), "127.0.0.1", sink, backlog=1000)
        stack.callback(server.close)
        daemon = Process(argv, listen, home / "mta.log", START)
        await asyncio.to_thread(daemon.__enter__)
        stack.push_async_callback(asyncio.to_thread, daemon.__exit__)
        bulk = await asyncio.create_subprocess_exec(sys.executable, *bulk_argv, cwd=ROOT)
        try:
            seen = await _watched(Sender(listen, arrivals), arrivals, [daemon.pid, bulk.pid])
            if await asyncio.wait_for(bulk.wait(), PATIENCE):
                raise Broken("the client of the bulk mail has failed")
        finally:
            if bulk.returncode is None:
                bulk.terminate()
                await bulk.wait()
    return seen


def row(directory: Path, waiting: int, rate: float) -> relay.Row:
    """One case; so much bulk mail waits, so much is submitted a second."""
    with relay.fresh(directory) as home:
        fill(home, Backlog(waiting, DOMAINS, due=0.0))
        relay.tell(f"W8, {waiting} wait, {rate:.0f} more a second")
        os.sync()
        with flow.explained(home / "mta.log"):
            seen = uvloop.run(_case(home, rate))
    return {
        "workload": "W8",
        "waiting": waiting,
        "offered": rate,
        "bulk_s": seen.bulk,
        "p50_ms": _percentile(seen.times, 0.50),
        "p99_ms": _percentile(seen.times, 0.99),
        "max_ms": seen.times[-1] * 1e3,
        "sent": len(seen.times),
        "late": seen.late,
        "other": seen.other,
    }


def _percentile(times: list[float], part: float) -> float:
    return times[int(part * (len(times) - 1))] * 1e3


def rows(directory: Path, rate: float) -> list[relay.Row]:
    """Both cases; the rate is that of bulk mail."""
    return [row(directory, waiting, rate) for waiting in (0, WAITING)]


def half_of_w1_keep(directory: Path) -> float:
    """Messages a second, from a run of its own."""
    workload = WORKLOADS["W1-keep"]
    return relay.quiet_run("ours", workload, workload.messages, directory, relay.REPEATS).rate / 2


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.figures.latency", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rate", type=float, help="of bulk mail a second (half of W1-keep, measured)")
    parser.add_argument("--directory", type=Path, default="/var/tmp", help="on a real disk (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one object a line; the table goes to stderr")
    args = parser.parse_args()

    def benchmark(home: Path) -> int:
        found = rows(home, args.rate or half_of_w1_keep(home))
        relay.report(found, COLUMNS, args.json)
        return 0 if float(found[-1]["p99_ms"] or 0.0) <= BOUND else 1

    return relay.in_directory(args.directory, benchmark)


if __name__ == "__main__":
    sys.exit(main())
