"""How many files and connections this process may have open.

Between: `daemon` asks before it opens doors.
Contract: `raise_limit` takes what the system grants and says how much that is; `places` is what of it clients
    may hold: a half, less what the process itself needs. `outgoing` is what they leave to peers.
Raises: nothing.
Standards: getrlimit(2).
Why: many shells start programs with 1,024. Connections of clients must never use up those to peers.
"""

from __future__ import annotations

import resource

from mta.core.limits.budget import DESCRIPTORS

OWN = 64  # files of ours: databases, logs, listeners, threads' pipes
LOOKUPS = 256  # questions to DNS and requests to admin that are under way; each holds a socket


def raise_limit() -> int:
    """The descriptors that we may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def places(descriptors: int) -> int:
    """Connections that clients may hold of them."""
    return max((descriptors - OWN) // 2, 1)


def outgoing(descriptors: int, clients: int) -> int:
    """Connections to peers that are possible beside so many of clients."""
    return max(descriptors - OWN - LOOKUPS - clients, 1)
