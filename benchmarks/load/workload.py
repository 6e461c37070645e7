"""The load: sessions in at one end, a counting sink at the other.

Between: `relay` starts both around an MTA.
Contract: sizes in octets of body. A sink counts deliveries: a message once for each recipient, when its
    final dot was answered. It does not look inside: one lost and another delivered twice would cancel out.
Raises: Broken when the tools are missing.
Why: smtp-source does not pipeline and smtp-sink throws everything away; they are cheap, and equal for all.
    smtp-sink cannot count recipients and smtp-source cannot speak TLS: `sink.py` and `submit.py` can.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

from benchmarks.load import submit
from benchmarks.process import Process, program

SINK = Path(__file__).parents[1] / "peers/sink.py"


@dataclass(frozen=True)
class Workload:
    """What is sent, and how."""

    name: str
    size: int = 2048
    sessions: int = 20
    senders: int = 1  # each in a domain of its own, to a recipient in a domain of its own
    recipients: int = 1  # of a message, all at one domain
    keep: bool = True  # the connection, for the next message
    tls: bool = False  # STARTTLS and AUTH PLAIN first
    messages: int = 5000  # unless told otherwise

    @property
    def counting(self) -> bool:
        """Is a delivery something else than a message?"""
        return self.recipients > 1


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("W1-new", keep=False, messages=3000),
        Workload("W1-keep"),
        Workload("W2-new", size=100 * 1024, keep=False, messages=1000),
        Workload("W2-keep", size=100 * 1024, messages=1000),
        Workload("W3", senders=20),
        Workload("W4", recipients=10, messages=2000),
        Workload("W5-new", keep=False, tls=True, messages=1500),
        Workload("W5-keep", tls=True, messages=4000),
        Workload("W6"),  # W1-keep, signed with DKIM by those of the MTAs whose names say how
        # W7: W1-keep with a million recipients waiting is the MTA `ours-backlog` (relay.py).
        # W8: how long one message takes to the sink under a backlog, is `latency.py`.
    )
}


class Senders(Protocol):
    """Whoever sends; the first message is on its way when this exists."""

    def done(self) -> bool: ...

    def failed(self) -> bool: ...

    def end(self) -> None: ...


def senders(workload: Workload, messages: int, port: int) -> Senders:
    """Send so many messages to the port."""
    return Submitter(workload, messages, port) if workload.tls else Sources(workload, messages, port)


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
    argv += ["-r", str(workload.recipients)] if workload.recipients > 1 else []
    return [*argv, *(["-d"] if workload.keep else []), f"127.0.0.1:{port}"]


class Submitter:
    """`submit.send` in a process of its own; forked, for a new interpreter would cost a tenth of a second."""

    def __init__(self, workload: Workload, messages: int, port: int) -> None:
        arguments = (port, messages, workload.sessions, workload.keep, workload.size)
        self._process = get_context("fork").Process(target=submit.send, args=arguments)
        self._process.start()

    def done(self) -> bool:
        return self._process.exitcode is not None

    def failed(self) -> bool:
        return self._process.exitcode not in (None, 0)

    def end(self) -> None:
        self._process.kill()
        self._process.join()


class Sink(Process):
    """Takes everything and counts deliveries; where a message has many, `sink.py` does it."""

    def __init__(self, port: int, log: Path, counting: bool = False, hold: bool = False) -> None:
        if counting or hold:
            argv = [sys.executable, str(SINK), str(port)]
            argv += ["--hold"] if hold else []
        else:
            # As root it wants to know whom to become.
            user = ["-u", "nobody"] if os.geteuid() == 0 else []
            argv = [program("smtp-sink"), "-c", *user, f"127.0.0.1:{port}", "1000"]
        super().__init__(argv, port, log)

    def count(self) -> int:
        """Deliveries so far."""
        return self._figure(rb"(?:mesg|rcpt)=(\d+)\r")

    def held(self) -> int:
        """Messages that wait for an answer."""
        return self._figure(rb"held=(\d+)\r")

    def _figure(self, pattern: bytes) -> int:
        """Both write their figures and a carriage return, at once, whenever one changes."""
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 200))
            figures = re.findall(pattern, log.read())
        return int(figures[-1]) if figures else 0
