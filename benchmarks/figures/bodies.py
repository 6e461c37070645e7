"""Where contents are cheaper as files than in the database: `spool.bodies.THRESHOLD` rests on this.

Between: whoever runs `python -m benchmarks.figures.bodies`.
Contract: us a message, of CPU (user + system, of this process) and of wall time, for a content's whole life:
    a row with the content, written eight in a transaction and removed later; or a file and a row without,
    eight at a time, removed later. The crossing is where the file's CPU is less, between two sizes in a
    straight line; the middle of ROUNDS interleaved rounds counts.
Raises: OSError, sqlite3.Error.
Why: what else a message costs is the same for both and left out. What SQLite's checkpoint writes is in it,
    for a content that is removed soon may be written twice all the same. The kernel's own threads are not.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.figures import relay
from mta.spool import database
from mta.spool import statements as sql
from mta.spool.bodies import THRESHOLD, Bodies

KIB = 1024
SIZES = [size * KIB for size in (2, 8, 16, 32, 48, 64, 100, 256, 1024)]
BATCH = 8
WAITING = 8  # batches that are written before the first is removed
ROUNDS = 3
OCTETS = 80 * KIB * KIB  # to write for a figure: SQLite checkpoints every 32 MB
MOST = 100  # batches for a figure


class Cost(NamedTuple):
    """Microseconds a message."""

    cpu: float
    wall: float


Write = Callable[[Sequence[int], bytes], None]
Remove = Callable[[Sequence[int]], None]


def life(write: Write, remove: Remove, content: bytes, first: int) -> tuple[Cost, int]:
    """Batches are written and, some batches later, removed; what it cost, and the next free id."""
    batches = min(OCTETS // (len(content) * BATCH), MOST)
    waiting: deque[range] = deque()
    cpu, wall = time.process_time(), time.perf_counter()
    for start in range(first, first + batches * BATCH, BATCH):
        waiting.append(range(start, start + BATCH))
        write(waiting[-1], content)
        if len(waiting) > WAITING:
            remove(waiting.popleft())
    while waiting:
        remove(waiting.popleft())
    spent = time.process_time() - cpu, time.perf_counter() - wall
    messages = batches * BATCH
    return Cost(*(seconds / messages * 1e6 for seconds in spent)), first + messages


class Blobs:
    """A content is a value of its row."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def write(self, messages: Sequence[int], content: bytes | None) -> None:
        rows = [value for message in messages for value in (message, content)]
        values = ",".join(["(?, ?)"] * len(messages))
        self._commit(sql.INSERT_BODIES + values, rows)

    def remove(self, messages: Sequence[int]) -> None:
        self._commit(sql.DELETE_BODIES, [json.dumps([*messages])])

    def _commit(self, statement: str, values: Sequence[object]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute(statement, values)
        self._connection.execute("COMMIT")


class Files:
    """A content is a file; its row says only that."""

    def __init__(self, connection: sqlite3.Connection, bodies: Bodies) -> None:
        self._rows = Blobs(connection)
        self._bodies = bodies

    def write(self, messages: Sequence[int], content: bytes) -> None:
        self._bodies.write((message, content) for message in messages)
        self._rows.write(messages, None)

    def remove(self, messages: Sequence[int]) -> None:
        self._rows.remove(messages)
        self._bodies.remove(messages)


def crossing(sizes: Sequence[int], blob: Sequence[float], file: Sequence[float]) -> float | None:
    """The size from which on the file is cheaper; None where it never is."""
    gains = [one - other for one, other in zip(blob, file, strict=True)]
    for n in range(len(gains) - 1, -1, -1):
        if gains[n] <= 0:
            if n + 1 == len(gains):
                return None
            return sizes[n] + (sizes[n + 1] - sizes[n]) * -gains[n] / (gains[n + 1] - gains[n])
    return float(sizes[0])


def measure(directory: Path) -> dict[str, list[Cost]]:
    """The middle round of each way and size."""
    bodies = Bodies(directory / "bodies")
    bodies.sweep(set())
    connection = database.connect(directory)
    try:
        database.migrate(connection)
        ways: dict[str, Blobs | Files] = {"blob": Blobs(connection), "file": Files(connection, bodies)}
        rounds: dict[tuple[str, int], list[Cost]] = {}
        free = 1
        for _ in range(ROUNDS):
            for size in SIZES:
                for name, way in ways.items():
                    cost, free = life(way.write, way.remove, b"x" * size, free)
                    rounds.setdefault((name, size), []).append(cost)
    finally:
        connection.close()
    return {name: [_middle(rounds[name, size]) for size in SIZES] for name in ways}


def _middle(costs: list[Cost]) -> Cost:
    return Cost(median(cost.cpu for cost in costs), median(cost.wall for cost in costs))


def report(found: dict[str, list[Cost]]) -> None:
    print("| KiB | blob CPU | file CPU | blob wall | file wall |\n| --: | --: | --: | --: | --: |")
    for size, blob, file in zip(SIZES, found["blob"], found["file"], strict=True):
        figures = " | ".join(f"{us:.0f}" for us in (blob.cpu, file.cpu, blob.wall, file.wall))
        print(f"| {size // KIB} | {figures} |")
    for column, name in enumerate(("CPU", "wall time")):
        at = crossing(SIZES, *([cost[column] for cost in found[way]] for way in ("blob", "file")))
        words = "is never cheaper" if at is None else f"costs less {name} from {at / KIB:.0f} KiB on"
        print(f"a file {words}")
    print(f"the spool's threshold is {THRESHOLD // KIB} KiB")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.figures.bodies", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--directory", type=Path, default="/var/tmp", help="on a real disk (%(default)s)")
    args = parser.parse_args()

    def benchmark(home: Path) -> int:
        report(measure(home))
        return 0

    return relay.in_directory(args.directory, benchmark)


if __name__ == "__main__":
    sys.exit(main())
