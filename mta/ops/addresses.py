"""The addresses of this machine, so that mail is never sent to ourselves.

Between: `daemon` asks once at start; the router refuses to dial what is in the set.
Contract: numeric addresses in their canonical form; empty where the kernel does not say.
Standards: RFC 5321 5.1 (a host must not deliver to itself by mistake).
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

_LOCAL = re.compile(r"\|-- (\S+)\n\s+/32 host LOCAL")


def local_addresses(proc: Path = Path("/proc/net")) -> frozenset[str]:
    """What the kernel routes to itself."""
    found: set[str] = set()
    try:
        found.update(_LOCAL.findall((proc / "fib_trie").read_text()))
        for line in (proc / "if_inet6").read_text().splitlines():
            found.add(str(ipaddress.IPv6Address(int(line.split()[0], 16))))
    except OSError:
        pass
    return frozenset(found)
