"""A program that we start in the foreground, wait for, and end.

Between: `load` starts the sink and `relay` the MTA under test; nothing else is ever ended.
Contract: seconds. A started program leads its own session: Ctrl-C reaches only us, and we end it in order.
Raises: Broken when a program is missing, ends early, is not ready in time, or will not end.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from benchmarks import cpu

PATIENCE = 20.0  # for a start, and for an end
# The MTA's own script finds the interpreter that runs us; Debian keeps Postfix out of ordinary users' paths.
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin"])


class Broken(Exception):
    """The benchmark cannot go on; the text says what to do."""


PACKAGES = {
    "opendkim": "opendkim",
    "perf": "linux-perf",
    "saslpasswd2": "sasl2-bin",
    "strace": "strace",
    "valgrind": "valgrind",
}


def program(name: str) -> str:
    """Where the program is."""
    if (path := shutil.which(name, path=PATH)) is None:
        package = PACKAGES.get(name, "postfix (elsewhere also postfix-perf-scripts)")
        raise Broken(f"{name} is missing: apt-get install {package}")
    return path


class Process:
    """Started on entry, ready when its port greets, ended with all its tree on exit."""

    def __init__(self, argv: list[str], port: int, log: Path, patience: float = PATIENCE) -> None:
        self._argv = argv
        self._port = port
        self._patience = patience
        self.log = log

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self._popen = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"PATH": PATH},
                start_new_session=True,
            )
        try:
            if not self._until(lambda: not self.alive() or self._greets()) or not self.alive():
                raise Broken(
                    f"{self._argv[0]} did not start:\n{self.log.read_text(errors='replace')[-2000:]}"
                )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Terminate the first process and wait for the whole tree; kill what stays."""
        tree = cpu.tree(self.pid) if self.alive() else []
        self._popen.terminate()
        if not self._until(lambda: not self.alive() and not any(map(cpu.runs, tree))):
            for pid in filter(cpu.runs, tree):
                os.kill(pid, signal.SIGKILL)
            self._popen.wait(self._patience)
            raise Broken(f"{self._argv[0]} would not end, and was killed")

    @property
    def pid(self) -> int:
        return self._popen.pid

    def alive(self) -> bool:
        return self._popen.poll() is None

    def _greets(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=5) as peer:
                greeting = peer.recv(512)
                peer.sendall(b"QUIT\r\n")
        except OSError:
            return False
        return greeting.startswith(b"220")

    def _until(self, condition: Callable[[], bool]) -> bool:
        return until(condition, self._patience)


def until(condition: Callable[[], bool], patience: float = PATIENCE) -> bool:
    """Did it come true in time?"""
    deadline = time.monotonic() + patience
    while not (true := condition()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return true
