"""Has it become slower? Three workloads, one short round, beside what was recorded.

Between: `make bench-quick`, in under two minutes; `--record` writes `recorded.json`.
Contract: what is compared is ratios to Postfix as shipped, for a ratio means the same on two machines where
    messages a second do not, and instructions a message. A ratio may fall by TOLERANCE: Postfix alone varies
    by 15 % and more; instructions may grow by INSTRUCTIONS.
Raises: exit status 1 when a figure is worse than that or a count is wrong, 2 when a run could not be made.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.figures import instructions, relay
from benchmarks.load.workload import WORKLOADS
from benchmarks.process import Broken

MESSAGES = {"W1-keep": 4000, "W1-new": 2500, "W2-keep": 800}
RECORDED = Path(__file__).with_name("recorded.json")
TOLERANCE = 0.35
INSTRUCTIONS = 0.05
REPEATS = 1  # of a run that strangers disturbed


def ratios(directory: Path) -> dict[str, float]:
    """Ours to Postfix as shipped."""
    found = {}
    for name, messages in MESSAGES.items():
        rows = relay.rows(WORKLOADS[name], ["ours", "postfix-default"], messages, 1, directory, REPEATS)
        if not all(row["ok"] for row in rows):
            raise WrongCount
        relay.tell_noise(rows)
        found[name] = round(float(rows[0]["ratio"] or 0.0), 2)
    return found


class WrongCount(Exception):
    """A sink did not count exactly what was sent."""


def measured(directory: Path) -> dict[str, Any]:
    """What is recorded."""
    count = instructions.a_message(directory)
    if count is None:
        relay.tell("neither perf nor valgrind counts instructions here: left out")
    return {
        "ratios": ratios(directory),
        "instructions": round(count.instructions) if count else None,
        "counter": count.counter if count else None,
    }


def compare(now: dict[str, Any], then: dict[str, Any]) -> bool:
    """Tell each figure beside the recorded one; is none worse than it may be?"""
    good = True
    for name, ratio in now["ratios"].items():
        least = then["ratios"][name] * (1 - TOLERANCE)
        good &= _tell(f"{name}, times Postfix", ratio, then["ratios"][name], ratio >= least)
    if now["counter"] is not None and now["counter"] == then["counter"]:
        most = then["instructions"] * (1 + INSTRUCTIONS)
        name = f"instructions a message ({now['counter']})"
        good &= _tell(name, now["instructions"], then["instructions"], now["instructions"] <= most)
    return good


def _tell(name: str, now: float, then: float, good: bool) -> bool:
    print(f"{'pass' if good else 'FAIL'}  {name}: {now} (recorded: {then})")
    return good


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.figures.quick", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--record", action="store_true", help=f"write {RECORDED.name} instead of comparing")
    parser.add_argument("--directory", type=Path, default="/var/tmp", help="on a real disk (%(default)s)")
    return parser.parse_args()


def main() -> int:
    args = arguments()

    def benchmark(home: Path) -> int:
        if not args.record and not RECORDED.exists():
            raise Broken(f"{RECORDED} is missing: run with --record first")
        try:
            now = measured(home)
        except WrongCount:
            return 1
        if args.record:
            RECORDED.write_text(json.dumps(now, indent=2) + "\n")
            print(RECORDED.read_text(), end="")
            return 0
        return 0 if compare(now, json.loads(RECORDED.read_text())) else 1

    return relay.in_directory(args.directory, benchmark)


if __name__ == "__main__":
    sys.exit(main())
