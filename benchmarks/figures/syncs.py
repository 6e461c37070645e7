"""How often an MTA waits for the disk: fsync and fdatasync a message.

Between: `full` asks, for a short run of its own: under strace everything is slow.
Contract: calls of all the MTA's processes, from its start's end to its last message, for a message.
Raises: Broken when strace cannot be started.
Why: strace is attached to what runs, so the MTA is still our child, and its start is not counted.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import cpu
from benchmarks.figures.relay import Prepare, Rig, fresh, started, watch
from benchmarks.load.workload import Workload, senders
from benchmarks.process import PATH, PATIENCE, Broken, program, until

MESSAGES = 300
COUNTED = re.compile(r"^(?:\s*\S+){3}\s+(\d+)\s(?:.*\s)?(?:fsync|fdatasync)$", re.MULTILINE)


def a_message(prepare: Prepare, workload: Workload, directory: Path) -> float | None:
    """Syncs a message; None where there is no strace."""
    if shutil.which("strace", path=PATH) is None:
        return None
    with fresh(directory) as home, started(prepare, workload, home) as rig:
        with _traced(rig, home / "strace") as summary:
            sources = senders(workload, MESSAGES, rig.port)
            try:
                watch(sources, rig, MESSAGES * workload.recipients)
            finally:
                sources.end()
        if rig.sink.count() != MESSAGES * workload.recipients:
            raise Broken(f"{workload.name} under strace: the sink counted {rig.sink.count()}")
        return sum(map(int, COUNTED.findall(summary.read_text()))) / MESSAGES


@contextmanager
def _traced(rig: Rig, log: Path) -> Iterator[Path]:
    """Count in the block what the MTA's processes do, and those that they start."""
    assert rig.mta is not None
    argv = [program("strace"), "-f", "-c", "-e", "trace=fsync,fdatasync", "-o", str(log)]
    for pid in cpu.tree(rig.mta.pid):
        argv += ["-p", str(pid)]
    said = log.with_suffix(".log")
    with said.open("wb") as words, subprocess.Popen(argv, stderr=words, start_new_session=True) as strace:
        try:
            if not until(lambda: b"attached" in said.read_bytes() or strace.poll() is not None):
                raise Broken("strace does not attach")
            yield log
        finally:
            strace.send_signal(signal.SIGINT)
            strace.wait(PATIENCE)
