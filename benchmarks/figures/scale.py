"""What a queue of a million costs: to take mail, to start, and in the latency of fresh mail.

Between: `make bench-scale`; README.md explains cases and columns.
Contract: two tables. Processor time in microseconds a message, and its ratio to an empty queue; latencies in
    milliseconds, memory in MB (10^6 octets, resident), other times in seconds. Each case has a spool and a
    daemon of its own; what waits is written straight into the tables.
Raises: exit status 2 when a run could not be made.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks import cpu
from benchmarks.figures import cost, relay
from benchmarks.load.backlog import STUCK, Backlog, fill
from benchmarks.load.probe import PROBED, Prober, Times, watch
from benchmarks.load.workload import Sink
from benchmarks.peers.nameserver import NameServer
from benchmarks.process import Process
from mta.api.control import call
from mta.core.credential import Credential
from mta.core.model import Option
from mta.spool.verify import verify
from mta.store.credentials import CredentialStore

SIZES = "10000,100000,1000000"
SECONDS = 10.0  # of watching, in each case
PATIENCE = 120.0  # for a start
EXPIRING = 100_000  # messages at once, at most
LOOK = 30.0  # seconds from its start until the daemon looks for expired mail
CONTENT = b"From: <a@src0.test>\r\nSubject: waiting\r\n\r\n" + 3 * (b"x" * 78 + b"\r\n")
CASES = ("asleep", "all due", "no dns", "half stuck", "expiry")
SETTINGS = """\
hostname: scale.test
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
dns:
  servers: [127.0.0.1:{dns}]
routes:
  {probed}: 127.0.0.1:{probe}
  {stuck}: 127.0.0.1:{holding}
"""
EVERYTHING = '  "*": 127.0.0.1:{taking}\n'

COSTS = {"recipients": "", **dict.fromkeys(cost.Cost._fields, ".0f"), "ratios": "", "verify_s": ".1f"}
COLUMNS = {
    "recipients": "",
    "case": "",
    "p50_ms": ".1f",  # of fresh mail, from its dot to the dot at its peer
    "p99_ms": ".1f",
    "250_p99": ".1f",  # from its dot to our 250
    "ready_s": ".2f",
    "first_s": ".2f",
    "start_mb": ".0f",
    "peak_mb": ".0f",
    "gone": "",  # recipients of the backlog
    "dns": "",  # questions that waited for their answer at the same time
}


class Seen(NamedTuple):
    """What a daemon did in one case."""

    times: Times
    ready: float  # seconds from its start to its greeting
    first: float | None  # and to the first delivery of the backlog
    started: int  # octets resident, when it was ready
    peak: int  # at most
    left: int  # recipients in the spool


class Rig(NamedTuple):
    """A daemon that is about to start, and its world."""

    daemon: Process
    home: Path
    listen: int
    taking: Sink
    prober: Prober
    names: NameServer


def backlog(case: str, size: int) -> Backlog:
    """What waits at the start."""
    waiting = Backlog(size, max(size // 10, 1), content=CONTENT)
    if case == "expiry":
        return waiting._replace(messages=min(size, EXPIRING), expires=1.0, options=Option.NOTIFY)
    if case == "asleep":
        return waiting
    return waiting._replace(due=0.0, stuck=size // 2 if case == "half stuck" else 0)


def row(directory: Path, case: str, size: int) -> relay.Row:
    """One case, measured."""
    waiting = backlog(case, size)
    with relay.fresh(directory) as home:
        fill(home, waiting)
        with CredentialStore(home / "credentials.db") as store:
            store.add(Credential("relay", "relay", "bulk", networks=("127.0.0.0/8",), kind="network"))
        os.sync()  # what that left dirty is not the daemon's to write
        seen, most = asyncio.run(_run(home, case))
    accepted, delivered = seen.times
    return {
        "recipients": waiting.messages,
        "case": case,
        "p50_ms": _percentile(delivered, 0.50),
        "p99_ms": _percentile(delivered, 0.99),
        "250_p99": _percentile(accepted, 0.99),
        "ready_s": seen.ready,
        "first_s": seen.first,
        "start_mb": seen.started / 1e6,
        "peak_mb": seen.peak / 1e6,
        "gone": waiting.messages - seen.left,
        "dns": most,
    }


def _percentile(times: list[float], part: float) -> float:
    """In milliseconds; the times are sorted."""
    return times[int(part * (len(times) - 1))] * 1e3


async def _run(home: Path, case: str) -> tuple[Seen, int]:
    prober, names = Prober(), NameServer()
    listen, taking, holding = relay.free_ports(3)
    async with await prober.listen() as server:
        probe = server.sockets[0].getsockname()[1]
        dns = await names.listen()
        written = SETTINGS.format(
            home=home, listen=listen, dns=dns, probed=PROBED, probe=probe, stuck=STUCK, holding=holding
        )
        (home / "mta.yaml").write_text(
            written + ("" if case == "no dns" else EVERYTHING.format(taking=taking))
        )
        argv = [sys.executable, "-m", "mta", "--config", str(home / "mta.yaml"), "serve"]
        daemon = Process(argv, listen, home / "mta.log", PATIENCE)
        with ExitStack() as stack:
            stack.callback(names.close)
            sink = stack.enter_context(Sink(taking, home / "taking.log"))
            stack.enter_context(Sink(holding, home / "holding.log", hold=True))
            seen = await _watched(Rig(daemon, home, listen, sink, prober, names), case)
    return seen, names.most


async def _watched(rig: Rig, case: str) -> Seen:
    began = time.monotonic()
    first = asyncio.create_task(_first(rig.taking, began))
    await asyncio.to_thread(rig.daemon.__enter__)
    try:
        ready = time.monotonic() - began
        started, _ = cpu.resident_memory(rig.daemon.pid)
        if case == "expiry":
            await asyncio.sleep(began + ready + LOOK - 1.0 - time.monotonic())
        end = time.monotonic() + SECONDS
        times = await watch(rig.prober, rig.listen, lambda: time.monotonic() >= end)
        status = await asyncio.to_thread(call, rig.home / "control", "status")
        _, peak = cpu.resident_memory(rig.daemon.pid)
    finally:
        first.cancel()
        await asyncio.to_thread(rig.daemon.__exit__)
    at = first.result() if first.done() and not first.cancelled() else None
    return Seen(times, ready, at, started, peak, sum(status["queue"].values()))


async def _first(sink: Sink, began: float) -> float:
    while not sink.count():  # noqa: ASYNC110 - in a thread it would outlive a case in which nothing comes
        await asyncio.sleep(0.01)
    return time.monotonic() - began


def costs(directory: Path, size: int) -> relay.Row:
    """What a message costs in the spool, beside an empty queue."""
    waiting = backlog("asleep", size)
    with relay.fresh(directory) as empty, relay.fresh(directory) as full:
        fill(full, waiting)
        began = time.monotonic()
        verify(full, lambda: None)
        looked = time.monotonic() - began
        least, found = asyncio.run(cost.compared(empty, full, waiting.domains))
    ratios = " ".join(f"{much / little:.2f}" for much, little in zip(found, least, strict=True))
    return {"recipients": size, **found._asdict(), "ratios": ratios, "verify_s": looked}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.figures.scale", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--recipients", default=SIZES, help="sizes of the queue (%(default)s)")
    parser.add_argument("--cases", default=",".join(CASES), help="some of %(default)s")
    parser.add_argument("--directory", type=Path, default="/var/tmp", help="on a real disk (%(default)s)")
    args = parser.parse_args()
    sizes = [int(size) for size in args.recipients.split(",")]

    def benchmark(home: Path) -> int:
        spool = [costs(home, size) for size in sizes]
        print(relay.table(spool, COSTS), flush=True)
        cases = [row(home, "asleep", 0)]
        for size in sizes:
            for case in args.cases.split(","):
                relay.tell(f"{size} recipients, {case}")
                cases.append(row(home, case, size))
        print(relay.table(cases, COLUMNS))
        return 0

    return relay.in_directory(args.directory, benchmark)


if __name__ == "__main__":
    sys.exit(main())
