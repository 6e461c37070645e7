"""The load: smtp-source sessions in at one end, a counting smtp-sink at the other.

Between: `relay` starts both around an MTA.
Contract: sizes in octets of body. The sink counts messages that it took up to the final dot, not recipients,
    and does not look inside: one lost and another delivered twice would cancel out.
Raises: Broken when the tools are missing.
Why: smtp-source does not pipeline and smtp-sink throws everything away; they are cheap, and equal for all.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process import Process, program


@dataclass(frozen=True)
class Workload:
    """What is sent, and how."""

    name: str
    size: int = 2048
    sessions: int = 20
    senders: int = 1  # each in a domain of its own, to a recipient in a domain of its own
    keep: bool = True  # the connection, for the next message
    messages: int = 5000  # unless told otherwise


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("keep"),
        Workload("new", keep=False, messages=3000),
        Workload("large", size=100 * 1024, messages=1000),
        Workload("senders", senders=20),
    )
}


class Sources:
    """One smtp-source for each sender; they share the sessions and the messages."""

    def __init__(self, workload: Workload, messages: int, port: int) -> None:
        each, more = divmod(messages, workload.senders)
        self._popens = [
            subprocess.Popen(
                _source(workload, sender, each + (sender < more), port), stdin=subprocess.DEVNULL
            )
            for sender in range(workload.senders)
        ]

    def done(self) -> bool:
        return all(popen.poll() is not None for popen in self._popens)

    def failed(self) -> bool:
        return any(popen.poll() not in (None, 0) for popen in self._popens)

    def end(self) -> None:
        for popen in self._popens:
            popen.kill()
            popen.wait()


def _source(workload: Workload, sender: int, messages: int, port: int) -> list[str]:
    argv = [program("smtp-source"), "-s", str(max(1, workload.sessions // workload.senders))]
    argv += ["-l", str(workload.size), "-m", str(messages), "-M", "source.test"]
    argv += ["-f", f"a@src{sender}.test", "-t", f"b@dst{sender}.test"]
    return [*argv, *(["-d"] if workload.keep else []), f"127.0.0.1:{port}"]


class Sink(Process):
    """Takes everything and counts it."""

    def __init__(self, port: int, log: Path) -> None:
        # As root it wants to know whom to become.
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        super().__init__([program("smtp-sink"), "-c", *user, f"127.0.0.1:{port}", "1000"], port, log)

    def count(self) -> int:
        """It writes `sess=1 quit=1 mesg=1` and a carriage return, at once, whenever a figure changes."""
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 200))
            figures = re.findall(rb"mesg=(\d+)\r", log.read())
        return int(figures[-1]) if figures else 0
