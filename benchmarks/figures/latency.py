"""W8: how long transactional mail takes from our 250 to its peer, while bulk mail goes the same way.

Between: `full` prints its rows and holds its bound; `python -m benchmarks.figures.latency` measures
    W1-keep first, and the `situations` in which mail that has nothing to do with it is in its way.
Contract: milliseconds from the last octet of our 250 to the final dot at the peer, both seen by one process
    on one clock; a message every `EVERY` seconds. Bulk mail is submitted meanwhile at half the rate of
    W1-keep, to the same site; in the second case 500,000 more bulk messages wait and are due, also there.
    What has not come `PATIENCE` seconds after the last was sent counts as taking until then, and is `late`.
Raises: exit status 1 when a bound is missed, 2 when a run could not be made.
Why: sink and transactional client share a process, and the bulk client has one of its own, or a stamp would
    wait for a batch of its messages.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import uvloop

from benchmarks import cpu
from benchmarks.figures import relay, situations
from benchmarks.load import flow
from benchmarks.load.backlog import Backlog, fill
from benchmarks.load.urgent import PATIENCE, Arrivals, Peer, Sender, percentile
from benchmarks.load.workload import WORKLOADS
from benchmarks.process import Broken, Process

ROOT = Path(__file__).resolve().parents[2]
WAITING = 500_000  # bulk messages, of the second case
DOMAINS = 1000  # theirs; one site
EVERY = 0.02  # seconds between two transactional messages
WARM = 5.0  # seconds before the first that counts
SECONDS = 30.0
START = 60.0  # seconds, with all that waits
BOUND = 100.0  # ms, p99 while all that waits is being sent
SETTINGS = (
    flow.SETTINGS
    + """\
routes:
  "*": 127.0.0.1:{sink}
"""
)
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
    if len(sender.accepted) < sender.sent:
        words = f"of {sender.sent} transactional messages {len(sender.accepted)} were accepted"
        raise Broken(f"{words}, these refused: {dict(sender.refused)}")
    times, late = sender.times(WARM)
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
            seen = await _watched(Sender(listen, arrivals, EVERY), arrivals, [daemon.pid, bulk.pid])
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
        "p50_ms": percentile(seen.times, 0.50),
        "p99_ms": percentile(seen.times, 0.99),
        "max_ms": seen.times[-1] * 1e3,
        "sent": len(seen.times),
        "late": seen.late,
        "other": seen.other,
    }


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
        crowded = [situations.row(home, each) for each in situations.SITUATIONS]
        relay.report(crowded, situations.COLUMNS, args.json)
        own = {"W8": float(found[-1]["p99_ms"] or 0.0)}
        own |= {str(each["situation"]): float(each["own_p99"] or 0.0) for each in crowded}
        for name in (slow := [name for name, p99 in own.items() if p99 > BOUND]):
            relay.tell(f"FAIL  {name}: p99 {own[name]:.0f} ms of our own making ({BOUND:.0f})")
        return 1 if slow else 0

    return relay.in_directory(args.directory, benchmark)


if __name__ == "__main__":
    sys.exit(main())
