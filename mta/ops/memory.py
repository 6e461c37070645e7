"""How much memory there is, and that what a wave of connections has left goes back to the system.

Between: the daemon asks how much there is; it says how many connections there are, and asks for a look every
    `LOOK` seconds.
Contract: octets. Where there are `WAVE` connections fewer than at the last high tide, the C library is told
    to trim, in a thread.
Raises: nothing.
Standards: malloc_trim(3), of glibc; other C libraries are left alone. cgroups(7), version 2: memory.max.
Why: 17,000 TLS sessions leave 430 MB in the allocator's free lists, which it keeps for itself.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from pathlib import Path

from mta.core.limits.budget import CONNECTION_MEMORY, CONNECTION_SHARE

LOOK = 10.0  # seconds
WAVE = 500  # connections


def outgoing(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Connections to peers that memory is enough for, of this machine or of our control group."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    try:
        group = groups / own.read_text().partition("0::/")[2].partition("\n")[0]
        for each in (group, *group.parents):
            if each.is_relative_to(groups) and (each / "memory.max").exists():
                said = (each / "memory.max").read_text().strip()
                found += [] if said == "max" else [int(said)]
    except (OSError, ValueError):
        pass  # no such groups here: the machine's memory is all that is known
    return max(min(found) // CONNECTION_SHARE // CONNECTION_MEMORY, 1)


class Tide:
    """How high it was."""

    def __init__(self, connections: Callable[[], int]) -> None:
        self._connections = connections
        self._high = 0

    def look(self) -> None:
        """Is a wave over?"""
        now = self._connections()
        if self._high - now >= WAVE:
            self._high = now
            asyncio.get_running_loop().run_in_executor(None, _trim)
        self._high = max(self._high, now)


def _trim() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
