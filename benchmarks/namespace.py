"""A network of its own for servers: a namespace behind a pair of virtual cables.

Between: `fleet` starts the receiving servers in it, `situations` listens in it; the daemon stays where it is,
    and dials them.
Contract: `network` makes both and takes both away, addresses included. Root, and iproute2.
Raises: Broken, with what `ip` said.
Standards: RFC 2544 C.2.2 (198.18.0.0/15 is for benchmarks).
Why: a mail server must not send to addresses of its own machine, however DNS names them.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.process import Broken

PATIENCE = 20.0  # seconds, for each command
CLONE_NEWNET = 0x40000000  # sched.h


class Network(NamedTuple):
    """Where servers may listen."""

    name: str
    addresses: list[str]

    def argv(self, command: list[str]) -> list[str]:
        """The command, in it."""
        return ["ip", "netns", "exec", self.name, *command]

    def listening(self, address: str, port: int = 25, backlog: int = 4096) -> socket.socket:
        """A socket that listens in it, for a process that is not; who never accepts is mute."""
        with ThreadPoolExecutor(1) as thread:  # a namespace is a thread's, and this one ends
            return thread.submit(self._listening, address, port, backlog).result(PATIENCE)

    def _listening(self, address: str, port: int, backlog: int) -> socket.socket:
        with Path("/run/netns", self.name).open() as inside:
            if ctypes.CDLL(None, use_errno=True).setns(inside.fileno(), CLONE_NEWNET):
                raise Broken(f"setns: {os.strerror(ctypes.get_errno())}")
        return socket.create_server((address, port), backlog=backlog)


@contextmanager
def network(addresses: int) -> Iterator[Network]:
    """A namespace with so many addresses, at most 200."""
    if os.geteuid() != 0:
        raise Broken("the servers need a network namespace of their own: run it as root")
    if shutil.which("ip") is None:
        raise Broken("ip is missing: apt-get install iproute2")
    pid = os.getpid()
    name, ours, theirs = f"mta-fleet-{pid}", f"fl{pid}a", f"fl{pid}b"
    prefix = f"198.18.{pid % 254}"
    inside = [f"{prefix}.{11 + n}" for n in range(addresses)]
    _ip("netns", "add", name)
    try:
        _ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
        _ip("addr", "add", f"{prefix}.1/24", "dev", ours)
        _ip("link", "set", ours, "up")
        for address in inside:
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", theirs)
        _ip("-n", name, "link", "set", theirs, "up")
        yield Network(name, inside)
    finally:
        # The kernel takes the cable away only when the last socket in the namespace is closed.
        subprocess.run(["ip", "link", "del", ours], capture_output=True, timeout=PATIENCE)
        _ip("netns", "del", name)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode:
        raise Broken(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
