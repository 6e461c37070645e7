"""What our daemon holds in memory: with many clients, with many peers, with large messages.

Between: `make bench-memory`; with `--sites N --connections N` the second case alone, where one bound over all
    is less than the sites want.
Contract: MB (10^6 octets), resident (shared libraries included) and proportional (a page that n processes
    share counts 1/n); descriptors in the second case. Each case has a daemon of its own, and a line before
    and after. The three: 200 idle clients that have said EHLO; 1,000 open connections to 1,000 sites, each
    with a message of 2 KiB that its peer does not answer; four messages of 50 MB at once, in and out, at
    their peak.
Raises: exit status 1 when a count is wrong, 2 when a run could not be made.
Why: a thousand sites with a connection each, for that is what an open connection costs at its dearest: each
    has a lane too. One lane opens a connection for every eight messages that wait and holds 1,000.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import smtplib
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks import cpu
from benchmarks.figures import relay
from benchmarks.load.workload import WORKLOADS, Sink, Sources, Workload
from benchmarks.process import Broken, Process, until

CLIENTS = 200
PEERS = 1000
LARGE = Workload("large", size=50_000_000, sessions=4, messages=4)
FILES = 4096  # descriptors that we and what we start may open
PATIENCE = 60.0  # seconds
MESSAGE = "From: <a@src0.test>\r\nSubject: benchmark\r\n\r\n" + 26 * (78 * "x" + "\r\n")


def tell(what: str, pid: int) -> None:
    resident, _ = cpu.resident_memory(pid)
    _tell(what, resident, cpu.proportional_memory(pid))


def _tell(what: str, resident: float, proportional: float) -> None:
    print(f"{what}: {resident / 1e6:.1f} MB resident, {proportional / 1e6:.1f} MB proportional", flush=True)


def clients(directory: Path) -> None:
    """Clients that have said EHLO and then nothing."""
    with relay.started(relay.ours, WORKLOADS["W1-keep"], directory) as rig, ExitStack() as stack:
        assert rig.mta is not None
        tell("started", rig.mta.pid)
        for n in range(CLIENTS):
            # At most 100 may come from one address.
            ours = (f"127.0.0.{2 + n // 50}", 0)
            client = socket.create_connection(("127.0.0.1", rig.port), PATIENCE, source_address=ours)
            stack.enter_context(client)
            client.sendall(b"EHLO source.test\r\n")
            while not client.recv(4096).endswith(b"ENHANCEDSTATUSCODES\r\n"):
                pass
        tell(f"{CLIENTS} idle clients", rig.mta.pid)


def peers(directory: Path, sites: int = PEERS, connections: int = 2 * PEERS) -> None:
    """Connections to as many sites, which take a message and do not answer.

    One tenant has half of the connections at most: what it leaves is for others.
    """
    most = min(sites, (connections + 1) // 2)
    sink_port, listen = relay.free_ports(2)
    home = directory / "mta"
    argv = [*relay.ours(listen, sink_port, home, None), "--sites", str(sites)]
    argv += ["--connections", str(connections)]
    with (
        Sink(sink_port, directory / "sink.log", hold=True) as sink,
        Process(argv, listen, directory / "mta.log") as mta,
    ):
        tell(f"started, {sites} sites in the settings", mta.pid)
        with smtplib.SMTP("127.0.0.1", listen, timeout=PATIENCE) as client:
            for n in range(sites):
                client.sendmail("a@src0.test", f"b@d{n}.test", MESSAGE)
        if not until(lambda: sink.held() == most, PATIENCE):
            raise Broken(f"{sink.held()} of {most} connections are open")
        files = sum(1 for _ in Path(f"/proc/{mta.pid}/fd").iterdir())
        tell(f"{most} connections to {sites} sites, {files} descriptors", mta.pid)
        began = time.monotonic()
        os.kill(sink.pid, signal.SIGUSR1)
        _count(sink, sites)
        tell(f"{time.monotonic() - began:.1f} s after the answers began", mta.pid)


def large(directory: Path) -> None:
    """Large messages on their way in and out."""
    with relay.started(relay.ours, LARGE, directory) as rig:
        assert rig.mta is not None
        tell("started", rig.mta.pid)
        sources = Sources(LARGE, LARGE.messages, rig.port)
        proportional, deadline = 0, time.monotonic() + PATIENCE
        try:
            while rig.sink.count() < LARGE.messages and time.monotonic() < deadline:
                proportional = max(proportional, cpu.proportional_memory(rig.mta.pid))
                time.sleep(0.005)
        finally:
            sources.end()
        _count(rig.sink, LARGE.messages)
        _, resident = cpu.resident_memory(rig.mta.pid)
        _tell(f"peak with {LARGE.messages} messages of {LARGE.size / 1e6:.0f} MB", resident, proportional)
        tell("after them", rig.mta.pid)


class WrongCount(Exception):
    """The sink did not count exactly what was sent."""


def _count(sink: Sink, wanted: int) -> None:
    if not until(lambda: sink.count() >= wanted, PATIENCE) or sink.count() != wanted:
        raise WrongCount(f"WRONG: {wanted} deliveries were due, the sink counted {sink.count()}")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.figures.memory", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--directory", type=Path, default="/var/tmp", help="on a real disk (%(default)s)")
    parser.add_argument("--sites", type=int, help="only the second case, with so many")
    parser.add_argument("--connections", type=int, help="limits.connections_out there (two a site)")
    args = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = max(FILES, (args.sites or 0) + 1000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, max(files, most)))
    cases: tuple[Callable[[Path], None], ...] = (clients, peers, large)
    if args.sites:
        bound = args.connections or 2 * args.sites
        cases = (partial(peers, sites=args.sites, connections=bound),)

    def benchmark(home: Path) -> int:
        try:
            for case in cases:
                with relay.fresh(home) as directory:
                    case(directory)
        except WrongCount as wrong:
            relay.tell(str(wrong))
            return 1
        return 0

    return relay.in_directory(args.directory, benchmark)


if __name__ == "__main__":
    sys.exit(main())
