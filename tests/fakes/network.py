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
from functools import cache

import pytest

NET = "198.51.100.0/24"  # RFC 5737
FIRST, SECOND, THIRD = "198.51.100.1", "198.51.100.2", "198.51.100.3"
CLONE_NEWNET = 0x40000000
OURS = "/proc/thread-self/ns/net"
_LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def own_network() -> Iterator[None]:
    """Be there, and come back."""
    there = _network()
    with _home():
        _enter(there)
        yield


@cache
def _network() -> int:
    """One for all tests, as an open file."""
    ip = shutil.which("ip")
    if ip is None:
        pytest.skip("needs ip (iproute2)")
    with _home():
        if _LIBC.unshare(CLONE_NEWNET):
            pytest.skip(f"needs a network of its own: {os.strerror(ctypes.get_errno())}")
        for words in ("link set lo up", f"route add local {NET} dev lo"):
            subprocess.run([ip, *words.split()], check=True, capture_output=True, timeout=10)
        return os.open(OURS, os.O_RDONLY)


@contextmanager
def _home() -> Iterator[None]:
    """Whatever happens, be where we were afterwards."""
    home = os.open(OURS, os.O_RDONLY)
    try:
        yield
    finally:
        _enter(home)
        os.close(home)


def _enter(network: int) -> None:
    if _LIBC.setns(network, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot change the network")
