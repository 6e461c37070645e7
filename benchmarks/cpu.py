"""What processes and the machine have spent, read from /proc.

Between: `relay` asks before and after a run.
Contract: processor time in seconds (user + system), memory in octets. Linux only.
Raises: nothing; a process that is gone has spent and holds nothing.
Standards: proc(5).
Why: a server of many processes is the sum over its tree. A process's `cutime` and `cstime` hold all of its
    children that have ended and been waited for, and theirs: the living processes' own times and those
    together miss nothing and count nothing twice. `utime` and `stime` are cut to ticks of 10 ms, which lost
    a second over Postfix's hundred processes: the threads' nanoseconds in `schedstat` go before them.
"""

from __future__ import annotations

import os
import resource
import time
from collections import defaultdict
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


def tree(root: int) -> list[int]:
    """The process and all its living descendants, parents first."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in PROC.glob("[0-9]*"):
        if fields := _stat(int(entry.name)):
            children[int(fields[1])].append(int(entry.name))
    found = [root]
    for pid in found:
        found += children[pid]
    return found


def runs(pid: int) -> bool:
    """A dead process that nobody has waited for does not."""
    return _stat(pid)[:1] not in ([], ["Z"])


def spent(root: int) -> float:
    """Processor seconds of the process's tree, ended children included."""
    total = 0.0
    for pid in tree(root):
        if fields := _stat(pid):
            utime, stime, cutime, cstime = map(int, fields[11:15])
            threads = [_read(task / "schedstat") for task in PROC.joinpath(str(pid), "task").glob("*")]
            exact = sum(int(line.split()[0]) for line in threads if line) / 1e9
            # Ended threads are in the ticks only.
            total += max(exact, (utime + stime) / TICKS) + (cutime + cstime) / TICKS
    return total


def proportional_memory(root: int) -> int:
    """PSS of the tree: a page that n processes share counts 1/n in each."""
    rollups = [_read(PROC / str(pid) / "smaps_rollup").splitlines() for pid in tree(root)]
    return sum(int(line.split()[1]) * 1024 for lines in rollups for line in lines if line.startswith("Pss:"))


def resident_memory(pid: int) -> tuple[int, int]:
    """What one process holds, pages that others share included: now, and at most since its start."""
    fields = dict(line.split(":", 1) for line in _read(PROC / str(pid) / "status").splitlines())
    now, peak = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, peak


def machine_busy() -> float:
    """Processor seconds that all processors together were not idle since boot, those stolen included."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, _read(PROC / "stat").split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


def own_and_ended() -> float:
    """Processor seconds of this process and of those of its children that it has waited for."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def _stat(pid: int) -> list[str]:
    """The fields after the command's name, which may hold blanks and brackets: state, ppid, ..."""
    return _read(PROC / str(pid) / "stat").rpartition(")")[2].split()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
