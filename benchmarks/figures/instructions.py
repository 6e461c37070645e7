"""How many instructions our daemon spends on a message: the figure that a busy machine does not move.

Between: `quick` asks.
Contract: instructions in user space a message of W1-keep, after a warm-up. Counted by perf where the
    processor lets it, else by valgrind; the two differ, so a figure comes with its counter's name.
Raises: Broken when a tool fails.
Why: a change of 5 % is lost in the noise of seconds. Valgrind runs the daemon fifty times slower and one
    thread at a time: batches are not those of a real run, and the kernel's work is not counted.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.figures.relay import Prepare, Rig, fresh, ours, started, watch
from benchmarks.load.workload import WORKLOADS, senders
from benchmarks.process import PATH, PATIENCE, Broken, program

WORKLOAD = WORKLOADS["W1-keep"]
MESSAGES = 500
WARM_UP = 200
SLOW = 120.0  # seconds for a start under valgrind


class Count(NamedTuple):
    """Instructions a message, and who says so."""

    instructions: float
    counter: str


def a_message(directory: Path) -> Count | None:
    """By the best counter that there is; None where there is none."""
    if _perf_counts(directory):
        return Count(_by_perf(directory), "perf")
    if shutil.which("valgrind", path=PATH):
        return Count(_by_valgrind(directory), "valgrind")
    return None


def _send(rig: Rig, messages: int) -> None:
    before = rig.sink.count()
    sources = senders(WORKLOAD, messages, rig.port)
    try:
        watch(sources, rig, before + messages)
    finally:
        sources.end()
    if rig.sink.count() != before + messages:
        raise Broken(f"the sink counted {rig.sink.count() - before} of {messages} messages")


# perf


def _perf_counts(directory: Path) -> bool:
    """A virtual machine may have no counters."""
    if shutil.which("perf", path=PATH) is None:
        return False
    log = directory / "perf"
    done = subprocess.run([*_perf(log), "true"], capture_output=True, check=False)
    return done.returncode == 0 and _counted(log) is not None


def _by_perf(directory: Path) -> float:
    with fresh(directory) as home, started(ours, WORKLOAD, home) as rig:
        assert rig.mta is not None
        _send(rig, WARM_UP)
        argv = [*_perf(home / "perf"), "-p", str(rig.mta.pid)]
        with subprocess.Popen(argv, stderr=subprocess.DEVNULL, start_new_session=True) as perf:
            _send(rig, MESSAGES)
            perf.send_signal(signal.SIGINT)
            perf.wait(PATIENCE)
        if (count := _counted(home / "perf")) is None:
            raise Broken("perf counted nothing")
        return count / MESSAGES


def _perf(log: Path) -> list[str]:
    return [program("perf"), "stat", "-x", ",", "-e", "instructions:u", "-o", str(log)]


def _counted(log: Path) -> int | None:
    found = re.search(r"^(\d+),", log.read_text(), re.MULTILINE)
    return int(found[1]) if found else None


# valgrind


def _by_valgrind(directory: Path) -> float:
    with fresh(directory) as home:
        log = home / "callgrind"
        with started(_under_callgrind(log), WORKLOAD, home, SLOW) as rig:
            assert rig.mta is not None
            _send(rig, WARM_UP)
            with _counting(rig.mta.pid):
                _send(rig, MESSAGES)
        found = re.search(r"^totals: (\d+)", log.read_text(), re.MULTILINE)
        if found is None:
            raise Broken("callgrind counted nothing")
        return int(found[1]) / MESSAGES


def _under_callgrind(log: Path) -> Prepare:
    argv = [program("valgrind"), "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={log}"]
    return lambda *ports_and_directory: [*argv, *ours(*ports_and_directory)]


@contextmanager
def _counting(pid: int) -> Iterator[None]:
    control = [program("callgrind_control"), "-i"]
    for switch in ("on", "off"):
        subprocess.run([*control, switch, str(pid)], capture_output=True, timeout=SLOW, check=True)
        if switch == "on":
            yield
