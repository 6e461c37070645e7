"""All workloads, ours beside Postfix and whom else there is, and the floors that we have set ourselves.

Between: `make bench`; README.md says what the figures mean.
Contract: the figures of `relay`, and syncs a message from a short run of their own. Under the table, one
    line for each floor. W7 is W1-keep, in the same rounds, with a million recipients waiting in our spool.
    W6 has its own floors: what a signature may cost, beside one RSA operation of this machine.
    W8 has a table of its own (`latency`); its bulk mail goes at half our rate in W1-keep.
    Haraka and Exim take part in a few workloads, where they are installed; no floor depends on them.
Raises: exit status 1 when a floor is not reached or a count is wrong, 2 when a run could not be made.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.figures import latency, relay, syncs
from benchmarks.figures.relay import MTAS, Row
from benchmarks.load.workload import WORKLOADS
from benchmarks.peers import exim, haraka
from benchmarks.process import Broken, program
from mta.signing.keys import generate

POSTFIX = ["postfix-default", "postfix-tuned"]
OPTIONAL = {
    "haraka": haraka.executable,
    "exim": exim.executable,
    "postfix-opendkim": partial(program, "opendkim"),
}
FEW = {"W1-new", "W1-keep", "W2-keep"}
WITH_OPTIONAL = {"haraka": FEW, "exim": FEW, "postfix-opendkim": {"W6"}}
NAMES = [*WORKLOADS, "W8"]
COLUMNS = {**relay.COLUMNS, "syncs": ".2f"}  # fsync and fdatasync, a message

# Messages a second, of the better Postfix's.
FLOORS = {
    "W1-new": 3.0,
    "W1-keep": 4.0,
    "W2-new": 1.4,
    "W2-keep": 1.4,
    "W3": 4.0,
    "W4": 3.0,
    "W5-new": 2.0,
    "W5-keep": 2.0,
}
CPU = 0.30  # ms a message of W1-keep
# CPU ms a message that a signature may cost, beside so many RSA operations.
SIGNED = {"ours-ed25519": (0.12, 0.0), "ours-rsa": (0.1, 1.3), "ours-both": (0.22, 1.3)}
OPENDKIM = 3.0  # times the CPU of any of these, at least
BACKLOG = 1.2  # W1-keep is at most so many times as fast as W7


class Verdict(NamedTuple):
    """A floor, and what was found."""

    name: str
    value: float
    bound: float
    passed: bool

    def __str__(self) -> str:
        return f"{'pass' if self.passed else 'FAIL'}  {self.name}: {self.value:.2f} ({self.bound:.2f})"


def verdicts(rows: list[Row]) -> Iterator[Verdict]:
    """What the rows say to the floors."""
    found = {(str(row["workload"]), str(row["mta"])): row for row in rows}

    def figure(workload: str, mta: str, column: str) -> float | None:
        value = found.get((workload, mta), {}).get(column)
        return None if value is None else float(value)

    for workload, floor in FLOORS.items():
        if (ratio := figure(workload, "ours", "ratio")) is not None:
            yield Verdict(f"{workload}, times the better Postfix, at least", ratio, floor, ratio >= floor)
    if (cpu := figure("W1-keep", "ours", "cpu_ms")) is not None:
        yield Verdict("W1-keep, CPU ms a message, at most", cpu, CPU, cpu <= CPU)
    yield from _signed(lambda mta: figure("W6", mta, "cpu_ms"))
    alone, beside = figure("W1-keep", "ours", "msg_s"), figure("W7", "ours", "msg_s")
    if alone and beside is not None:
        times = alone / beside if beside else float("inf")
        yield Verdict("W7, W1-keep is so many times as fast, at most", times, BACKLOG, times <= BACKLOG)


def _signed(cpu: Callable[[str], float | None]) -> Iterator[Verdict]:
    plain, rival, operation = cpu("ours"), cpu("postfix-opendkim"), None
    for mta, (constant, operations) in SIGNED.items():
        spent = cpu(mta)
        if plain is None or spent is None:
            continue
        operation = rsa_operation() if operation is None else operation
        bound = plain + constant + operations * operation
        yield Verdict(f"W6, CPU ms a message of {mta}, at most", spent, bound, spent <= bound)
        if rival is not None:
            times, name = rival / spent, f"W6, CPU of Postfix with OpenDKIM by that of {mta}, at least"
            yield Verdict(name, times, OPENDKIM, times >= OPENDKIM)


def rsa_operation() -> float:
    """CPU ms of one signature with 2048 bits on this machine, the median of some hundreds."""
    secret, spent = generate("rsa-sha256"), []
    for _ in range(300):
        began = time.process_time()
        secret.sign(b"x" * 500)
        spent.append((time.process_time() - began) * 1e3)
    return median(spent)


def latency_verdict(rows: list[Row]) -> Verdict:
    """The last row is that with a backlog."""
    p99 = float(rows[-1]["p99_ms"] or 0.0)
    name = f"W8 with {rows[-1]['waiting']} waiting, p99 ms from our 250 to the peer, at most"
    return Verdict(name, p99, latency.BOUND, p99 <= latency.BOUND)


def latency_rows(rows: list[Row], directory: Path) -> list[Row]:
    """W8, at half the rate of W1-keep, if that was measured."""
    found = [row["msg_s"] for row in rows if (row["workload"], row["mta"]) == ("W1-keep", "ours")]
    rate = float(found[0] or 0.0) / 2 if found else latency.half_of_w1_keep(directory)
    return latency.rows(directory, rate)


def installed() -> list[str]:
    """Which of the optional ones are there; a line for each that is not."""
    found = []
    for mta, executable in OPTIONAL.items():
        try:
            executable()
        except Broken as missing:
            relay.tell(f"without {mta}: {missing}")
        else:
            found.append(mta)
    return found


def workload_rows(name: str, optional: list[str], rounds: int, directory: Path) -> list[Row]:
    """One workload, with W7 in the rounds of W1-keep."""
    workload = WORKLOADS[name]
    mtas = ["ours", *(["ours-backlog"] if name == "W1-keep" else [])]
    mtas += SIGNED if name == "W6" else POSTFIX
    mtas += [each for each in optional if name in WITH_OPTIONAL[each]]
    rows = relay.rows(workload, mtas, None, rounds, directory)
    for row in rows:
        prepare = MTAS[str(row["mta"])]
        assert prepare is not None
        row["syncs"] = syncs.a_message(prepare, workload, directory)
        if row["mta"] == "ours-backlog":
            row |= {"workload": "W7", "mta": "ours", "ratio": None}
    return rows


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.figures.full", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--workload", default=",".join(NAMES), help="some of %(default)s")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, default="/var/tmp", help="on a real disk (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one object a line; the table goes to stderr")
    args = parser.parse_args()
    args.workload = args.workload.split(",")
    if unknown := {*args.workload} - {*NAMES}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    return args


def main() -> int:
    args = arguments()

    def benchmark(home: Path) -> int:
        optional = installed() if {*args.workload} & {"W6", *FEW} else []
        names = [name for name in args.workload if name in WORKLOADS]
        rows = [row for name in names for row in workload_rows(name, optional, args.rounds, home)]
        if rows:
            relay.report(rows, COLUMNS, args.json)
        found = list(verdicts(rows))
        if "W8" in args.workload:
            times = latency_rows(rows, home)
            relay.report(times, latency.COLUMNS, args.json)
            found.append(latency_verdict(times))
        print("\n".join(["", *map(str, found)]), file=sys.stderr if args.json else sys.stdout)
        right = all(row["ok"] == row["rounds"] for row in rows)
        if not right:
            relay.tell("a sink did not count exactly what was sent")
        return 0 if right and all(verdict.passed for verdict in found) else 1

    return relay.in_directory(args.directory, benchmark)


if __name__ == "__main__":
    sys.exit(main())
