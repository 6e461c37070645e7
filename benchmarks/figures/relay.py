"""How many messages a second an MTA relays on this machine, next to Postfix in the same run.

Between: whoever runs `python -m benchmarks.figures.relay`; README.md says how to read the table.
Contract: a run's time goes from starting the sources to the last message at the sink. Rounds go through all
    MTAs in turn, so that a slow minute hits all of them; figures are medians. Each run starts its MTA anew.
Raises: exit status 1 when a sink did not count exactly what was sent, 2 when a run could not be made.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from socket import SO_REUSEADDR, SOL_SOCKET, socket
from statistics import median
from typing import NamedTuple

from benchmarks import cpu
from benchmarks.load import backlog
from benchmarks.load.workload import WORKLOADS, Senders, Sink, Workload, senders
from benchmarks.peers import exim, haraka, postfix
from benchmarks.process import PATIENCE, Broken, Process

NOISE = 0.15  # of the machine, spent by strangers: a run above it is made again
REPEATS = 3
STALL = 30.0  # seconds without one more message at the sink
REST = 0.5  # seconds to tidy up behind the last message; that costs processor time too
PORTS = range(10000, 30000)
SERVE = Path(__file__).parents[1] / "relay-serve"

# (port to listen on, port to relay to, empty directory, port for STARTTLS and AUTH where that is measured)
# -> command that serves until SIGTERM
Prepare = Callable[[int, int, Path, int | None], list[str]]


def ours(listen: int, sink: int, directory: Path, submission: int | None) -> list[str]:
    """Our own daemon."""
    argv = [sys.executable, str(SERVE), str(listen), str(sink), str(directory)]
    return argv if submission is None else [*argv, str(submission)]


def ours_signed(kind: str) -> Prepare:
    """Our own daemon, which signs with a key of this kind, or with both."""

    def prepare(listen: int, sink: int, directory: Path, submission: int | None) -> list[str]:
        return [*ours(listen, sink, directory, submission), "--sign", kind]

    return prepare


def ours_backlog(listen: int, sink: int, directory: Path, submission: int | None) -> list[str]:
    """Our own daemon, with a million recipients waiting in its spool."""
    backlog.place(directory)
    return ours(listen, sink, directory, submission)


def ours_verp(listen: int, sink: int, directory: Path, submission: int | None) -> list[str]:
    """Our own daemon, with a return path of its own for each recipient."""
    return [*ours(listen, sink, directory, submission), "--returns", "bounces.relay.test"]


MTAS: dict[str, Prepare | None] = {
    "ours": ours,
    "ours-verp": ours_verp,
    "ours-backlog": ours_backlog,
    "ours-ed25519": ours_signed("ed25519"),
    "ours-rsa": ours_signed("rsa"),
    "ours-both": ours_signed("both"),
    "postfix-default": postfix.as_shipped,
    "postfix-tuned": postfix.tuned,
    "postfix-opendkim": postfix.signed,  # RSA
    "haraka": haraka.tuned,
    "exim": exim.relaying,
    "none": None,  # the sources straight into the sink: the most that the tools can do
}
USUAL = "ours,postfix-default,postfix-tuned,none"
FEWER = {"exim": 5}  # of a workload's messages, where one is slow and has nothing to warm up
# Do not wait for the processes that they start (SA_NOCLDWAIT): the time of those is added to nobody's, and
# cannot be told from what strangers spent.
DISOWNING = {"exim"}


class Run(NamedTuple):
    """One measured run."""

    sent: int  # messages
    counted: int  # deliveries
    recipients: int  # of a message
    seconds: float
    accepted: float  # seconds until the last 250 to a source
    cpu: float  # seconds, of the MTA, and REST
    memory: int  # octets, at the last message
    other: float  # share of the machine

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.counted / self.recipients / self.seconds if self.counted else 0.0

    @property
    def ok(self) -> bool:
        return self.sent * self.recipients == self.counted


# One table row or JSON object: its fields and how the table writes them. All but min, max and ok are medians.
COLUMNS = {
    "workload": "",
    "mta": "",
    "msg_s": ".0f",
    "min": ".0f",
    "max": ".0f",
    "accept_s": ".0f",
    "cpu_ms": ".3f",  # a message
    "pss_mb": ".0f",
    "other": ".0%",
    "ok": "",  # runs whose sink counted exactly what was sent
    "rounds": "",
    "ratio": ".2f",  # to the better Postfix
}
Row = dict[str, str | float | None]


def run(prepare: Prepare | None, workload: Workload, messages: int, directory: Path) -> Run:
    """Start the sink and the MTA, send, count, end everything."""
    with started(prepare, workload, directory) as rig:
        result = measure(workload, messages, rig)
    # Asked again when the MTA has ended: what is delivered twice comes late.
    return result._replace(counted=rig.sink.count())


class Rig(NamedTuple):
    """What a load runs through."""

    port: int  # to send to
    sink: Sink
    mta: Process | None


@contextmanager
def started(
    prepare: Prepare | None, workload: Workload, directory: Path, patience: float = PATIENCE
) -> Iterator[Rig]:
    """A sink and an MTA with an empty queue, until the block ends."""
    sink_port, listen, submission = free_ports(3)
    with ExitStack() as stack:
        sink = stack.enter_context(Sink(sink_port, directory / "sink.log", workload.counting))
        if prepare is None:
            yield Rig(sink_port, sink, None)
            return
        (home := directory / "mta").mkdir()
        port = submission if workload.tls else listen
        argv = prepare(listen, sink_port, home, submission if workload.tls else None)
        os.sync()  # what the last run, or a copied spool, left dirty is not this one's to write
        mta = stack.enter_context(Process(argv, port, directory / "mta.log", patience))
        yield Rig(port, sink, mta)


def free_ports(count: int) -> list[int]:
    """So many that nobody listens on, below those that the system gives to others by itself."""
    return [port for port in random.sample(PORTS, 100) if _is_free(port)][:count]


def _is_free(port: int) -> bool:
    with socket() as probe:
        probe.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def measure(workload: Workload, messages: int, rig: Rig) -> Run:
    """One load from beginning to end."""
    sink, mta = rig.sink, rig.mta

    def mta_spent() -> float:
        return cpu.spent(mta.pid) if mta else 0.0

    mta_before, tools_before = mta_spent(), cpu.own_and_ended() + cpu.spent(sink.pid)
    busy_before, began = cpu.machine_busy(), time.monotonic()
    sources = senders(workload, messages, rig.port)
    try:
        accepted, finished = watch(sources, rig, messages * workload.recipients)
        known = mta_spent() - mta_before + cpu.own_and_ended() + cpu.spent(sink.pid) - tools_before
        unknown = cpu.machine_busy() - busy_before - known
        capacity = (time.monotonic() - began) * (os.cpu_count() or 1)
        memory = cpu.proportional_memory(mta.pid) if mta else 0
        time.sleep(REST)
    finally:
        sources.end()
    return Run(
        sent=messages,
        counted=sink.count(),
        recipients=workload.recipients,
        seconds=finished - began,
        accepted=accepted - began,
        cpu=mta_spent() - mta_before,
        memory=memory,
        other=max(0.0, unknown / capacity),
    )


def watch(sources: Senders, rig: Rig, deliveries: int) -> tuple[float, float]:
    """When the sources had their last answer and the sink its last message; gives up when stuck."""
    now = accepted = finished = time.monotonic()
    accepting, count = True, 0
    while accepting or count < deliveries:
        time.sleep(0.002)
        now = time.monotonic()
        if accepting:
            accepted, accepting = now, not sources.done()
        if (seen := rig.sink.count()) != count:
            count, finished = seen, now
        if now - finished > STALL or sources.failed() or not (rig.mta is None or rig.mta.alive()):
            break
    return accepted, finished


@contextmanager
def fresh(directory: Path) -> Iterator[Path]:
    """An empty directory in it, for as long as the block."""
    with tempfile.TemporaryDirectory(prefix="relay-", dir=directory, ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)  # Postfix's processes give up root, and still want to read their settings
        yield Path(name)


def quiet_run(mta: str, workload: Workload, messages: int, directory: Path, repeats: int) -> Run:
    """A run that strangers did not disturb; the least disturbed one if none is to be had."""
    runs: list[Run] = []
    while len(runs) <= repeats:
        with fresh(directory) as home:
            result = run(MTAS[mta], workload, messages, home)
            noise = None if mta in DISOWNING else result.other
            told = f"{workload.name} {mta}: {result.rate:.0f} msg/s"
            tell(told if noise is None else f"{told}, other {noise:.0%}")
            if not result.ok:
                wanted = result.sent * result.recipients
                tell(f"WRONG: {wanted} deliveries were due, the sink counted {result.counted}")
                for log in set(home.rglob("*.log")) - {home / "sink.log"}:
                    tell(log.read_text(errors="replace")[-2000:])
                return result
        runs.append(result)
        if noise is None or noise <= NOISE:
            break
    return min(runs, key=lambda result: result.other)


def rows(
    workload: Workload,
    mtas: list[str],
    messages: int | None,
    rounds: int,
    directory: Path,
    repeats: int = REPEATS,
) -> list[Row]:
    """All rounds of one workload; without a number, each MTA gets the messages that are usual for it.

    The sinks speak no TLS: where it is asked for, there is no `none`.
    """
    mtas = [mta for mta in mtas if MTAS[mta] is not None or not workload.tls]
    runs: dict[str, list[Run]] = {mta: [] for mta in mtas}
    for mta in mtas * rounds:
        number = messages or workload.messages // FEWER.get(mta, 1)
        runs[mta].append(quiet_run(mta, workload, number, directory, repeats))
    rates = {mta: [result.rate for result in of] for mta, of in runs.items()}
    rival = max((median(rates[mta]) for mta in mtas if mta.startswith("postfix")), default=0.0)
    return [
        {
            "workload": workload.name,
            "mta": mta,
            "msg_s": median(rates[mta]),
            "min": min(rates[mta]),
            "max": max(rates[mta]),
            "accept_s": median(result.sent / result.accepted for result in of),
            "cpu_ms": _unless_disowned(mta, median(result.cpu / result.sent * 1e3 for result in of) or None),
            "pss_mb": median(result.memory / 1e6 for result in of) or None,
            "other": _unless_disowned(mta, median(result.other for result in of)),
            "ok": sum(result.ok for result in of),
            "rounds": rounds,
            "ratio": median(rates[mta]) / rival if rival else None,
        }
        for mta, of in runs.items()
    ]


def _unless_disowned(mta: str, figure: float | None) -> float | None:
    return None if mta in DISOWNING else figure


def table(all_rows: list[Row], columns: Mapping[str, str] = COLUMNS) -> str:
    """Markdown."""
    lines = [" | ".join(columns), " | ".join("--:" if form else "---" for form in columns.values())]
    for row in all_rows:
        cells = ((row[column], form) for column, form in columns.items())
        lines.append(" | ".join("-" if cell is None else format(cell, form) for cell, form in cells))
    return "\n".join(f"| {line} |" for line in lines)


def tell(line: str) -> None:
    """What goes on, apart from the results."""
    print(line, file=sys.stderr, flush=True)


def refuse_memory(directory: Path) -> None:
    """Syncing to memory would be no benchmark."""
    argv = ["stat", "-f", "-c", "%T", str(directory)]
    if subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip() in ("tmpfs", "ramfs"):
        raise Broken(f"{directory} is in memory: name a directory on a real disk with --directory")


def in_directory(directory: Path, benchmark: Callable[[Path], int]) -> int:
    """Run a benchmark in a directory of its own; its exit status, or 2 with a word, or 130."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end what we started before we end
    try:
        refuse_memory(directory)
        with fresh(directory) as home:
            return benchmark(home)
    except Broken as broken:
        tell(str(broken))
        return 2
    except KeyboardInterrupt:
        return 130


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.figures.relay", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--workload", default="W1-keep", help=f"some of {','.join(WORKLOADS)} (%(default)s)")
    parser.add_argument("--mta", default=USUAL, help=f"some of {','.join(MTAS)} (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, help="in a run (what is usual for both)")
    parser.add_argument("--directory", type=Path, default="/var/tmp", help="on a real disk (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one object a line; the table goes to stderr")
    args = parser.parse_args()
    args.workload, args.mta = args.workload.split(","), args.mta.split(",")
    if unknown := {*args.workload, *args.mta} - {*WORKLOADS, *MTAS}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join((*WORKLOADS, *MTAS))}")
    return args


def main() -> int:
    args = arguments()

    def benchmark(home: Path) -> int:
        all_rows: list[Row] = []
        for workload in map(WORKLOADS.__getitem__, args.workload):
            all_rows += rows(workload, args.mta, args.messages, args.rounds, home)
        report(all_rows, COLUMNS, args.json)
        return 0 if all(row["ok"] == row["rounds"] for row in all_rows) else 1

    return in_directory(args.directory, benchmark)


def report(all_rows: list[Row], columns: Mapping[str, str], as_json: bool) -> None:
    """The results."""
    print(table(all_rows, columns), file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print("\n".join(json.dumps(row) for row in all_rows))
    tell_noise(all_rows)


def tell_noise(all_rows: list[Row]) -> None:
    """Say so where the figures are worth little."""
    most = max(float(row["other"] or 0.0) for row in all_rows)
    if most > NOISE:
        tell(f"others used up to {most:.0%} of the machine: try again when it is quiet")


if __name__ == "__main__":
    sys.exit(main())
