"""How many files and connections this process may have open.

Between: `daemon` asks before it opens doors.
Contract: `raise_limit` takes what the system grants and says how much that is; `places` is what of it clients
    may hold: a half, less what the process itself needs.
Raises: nothing.
Standards: getrlimit(2).
Why: many shells start programs with 1,024. Connections of clients must never use up those to peers.
"""

from __future__ import annotations

import resource

OWN = 64  # files of ours: databases, logs, listeners, threads' pipes
MOST = 65_536  # more would only cost the kernel


def raise_limit() -> int:
    """The descriptors that we may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return MOST if soft == resource.RLIM_INFINITY else soft


def places(descriptors: int) -> int:
    """Connections that clients may hold of them."""
    return max((descriptors - OWN) // 2, 1)
