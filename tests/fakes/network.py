"""A network of our own, in which addresses that are no loopback lead to this machine.

Between: tests of MX hosts, which strangers' DNS may not place on loopback.
Contract: inside the block the sockets of this thread live in a new network namespace; all of `NET` is
    this machine, and no interface has one of its addresses. Nothing outside changes.
Raises: skips the test where the kernel does not let us (it takes root, or CAP_SYS_ADMIN) or `ip` is missing.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

NET = "198.51.100.0/24"  # RFC 5737
FIRST, SECOND, THIRD = "198.51.100.1", "198.51.100.2", "198.51.100.3"
CLONE_NEWNET = 0x40000000


@contextmanager
def own_network() -> Iterator[None]:
    """Be there, and come back."""
    libc = ctypes.CDLL(None, use_errno=True)
    ip = shutil.which("ip")
    if ip is None:
        pytest.skip("needs ip (iproute2)")
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(CLONE_NEWNET):
            pytest.skip(f"needs a network of its own: {os.strerror(ctypes.get_errno())}")
        try:
            for words in ("link set lo up", f"route add local {NET} dev lo"):
                subprocess.run([ip, *words.split()], check=True, capture_output=True, timeout=10)
            yield
        finally:
            if libc.setns(home, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "cannot go back to the network of the machine")
    finally:
        os.close(home)
