"""The daemon as a process of its own, in a directory of its own: as a newcomer runs it.

Between: tests that start, stop and kill; the command line in `source` does the work.
Contract: `serving` yields when the daemon has announced itself on standard output, which is read line by
    line; whatever happens it is gone afterwards. Nothing waits longer than `PATIENCE` seconds.
"""

from __future__ import annotations

import json
import os
import signal
import smtplib
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

from click.testing import CliRunner

from mta.cli.main import main

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0  # seconds
LAST_LINE = "Ctrl-C stops the daemon.\n"


class Home:
    """A current directory, with a sandbox in `var`."""

    def __init__(self, directory: Path, source: Path = ROOT) -> None:
        self.directory = directory
        self.settings = directory / "var" / "mta.yaml"
        self._environment = os.environ | {"PYTHONPATH": str(source)}

    def init(self) -> None:
        """A sandbox whose ports the system chooses, so that tests do not meet."""
        done = CliRunner().invoke(main, ["init", str(self.directory / "var")])
        assert done.exit_code == 0, done.output
        text = self.settings.read_text()
        ports = [line.rpartition(":")[2] for line in text.splitlines() if "127.0.0.1:" in line]
        for port in ports:
            text = text.replace(f"127.0.0.1:{port}\n", "127.0.0.1:0\n")
        self.settings.write_text(text)

    def mta(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command, to its end."""
        return subprocess.run(
            [sys.executable, "-m", "mta", *arguments],
            cwd=self.directory,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    @contextmanager
    def serving(self) -> Iterator[Served]:
        argv = [sys.executable, "-m", "mta", "--config", "var/mta.yaml", "serve"]
        with (self.directory / "stderr").open("w") as stderr:
            popen = subprocess.Popen(
                [*argv, "--quickstart", "var/quickstart.json"],
                cwd=self.directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        served = Served(self.directory, popen)
        try:
            served.hear()
            yield served
        finally:
            popen.kill()
            popen.communicate()


class Served:
    """A daemon that runs, seen from outside."""

    def __init__(self, directory: Path, popen: subprocess.Popen[str]) -> None:
        self.directory = directory
        self.popen = popen
        self.banner = ""

    def hear(self) -> None:
        """Listen to what it says until it is ready."""
        assert self.popen.stdout is not None
        with _patience(self.popen):
            for line in self.popen.stdout:
                self.banner += line
                if line == LAST_LINE:
                    return
        raise AssertionError(f"it did not start: {(self.directory / 'stderr').read_text()}")

    @property
    def facts(self) -> dict[str, Any]:
        """What it wrote for programs."""
        found: dict[str, Any] = json.loads((self.directory / "var" / "quickstart.json").read_text())
        return found

    @property
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.directory / self.facts["ca_file"])

    @property
    def password(self) -> str:
        return (self.directory / self.facts["password_file"]).read_text()

    def client(self, door: str = "submissions") -> smtplib.SMTP:
        """Logged in, over TLS from the start or by STARTTLS."""
        facts = self.facts
        host, port = facts[door]["host"], facts[door]["port"]
        smtp: smtplib.SMTP
        if door == "submissions":
            smtp = smtplib.SMTP_SSL(host, port, context=self.context, timeout=PATIENCE)
        else:
            smtp = smtplib.SMTP(host, port, timeout=PATIENCE)
            smtp.starttls(context=self.context)
        smtp.login(facts["user"], self.password)
        return smtp

    def events(self, count: int, **wanted: str) -> list[dict[str, Any]]:
        """All events, as soon as `count` of them have these fields; `tail` waits for the file to grow."""
        log = self.directory / self.facts["event_log"]
        told: list[dict[str, Any]] = []
        argv = ["tail", "-n", "+1", "-f", str(log)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as tail, _patience(tail):
            assert tail.stdout is not None
            for line in tail.stdout:
                told.append(json.loads(line))
                count -= all(told[-1].get(key) == value for key, value in wanted.items())
                if not count:
                    break
            tail.kill()
        assert not count, f"{count} more were expected: {told}"
        return told

    def stop(self) -> int:
        """SIGTERM, and the exit status that follows."""
        self.popen.send_signal(signal.SIGTERM)
        self.rest = self.popen.communicate(timeout=PATIENCE)[0]
        return self.popen.returncode

    def kill(self) -> None:
        """As a power cut would."""
        self.popen.kill()
        self.popen.wait(PATIENCE)


@contextmanager
def _patience(popen: subprocess.Popen[str]) -> Iterator[None]:
    """Reading what it says ends some time, if only by its end."""
    timer = Timer(PATIENCE, popen.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
