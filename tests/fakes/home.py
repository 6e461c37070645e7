"""The daemon as a process of its own, in a directory of its own: as a newcomer runs it.

Between: tests that start, stop and kill; the command line in `source` does the work.
Contract: `serving` and `living` yield when the daemon has announced itself on standard output, which is read
    line by line; whatever happens it is gone afterwards. Nothing waits longer than `PATIENCE` seconds.
    A `Nursery` has one daemon at a time.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import smtplib
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Timer
from typing import Any

from click.testing import CliRunner

from mta.cli.main import main
from mta.core.credential import Credential
from mta.store.credentials import CredentialStore

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0  # seconds
LAST_LINE = "Ctrl-C stops the daemon.\n"
LOGIN, KEY = "crash", "mta_0123456789abcdefghijklmnopqrstuvwxyz"
STREAM = "\nstreams:\n  transactional:\n    retry_first: {first}\n    retry_max: {maximum}\n"


class Home:
    """A current directory, with a sandbox in `var`."""

    def __init__(self, directory: Path, source: Path = ROOT) -> None:
        self.directory = directory
        self.settings = directory / "var" / "mta.yaml"
        self._environment = os.environ | {"PYTHONPATH": str(source)}

    def sandbox(self) -> None:
        """A sandbox whose ports the system chooses, so that tests do not meet."""
        done = CliRunner().invoke(main, ["sandbox", str(self.directory / "var")])
        assert done.exit_code == 0, done.output
        text = self.settings.read_text()
        self.settings.write_text(re.sub(r"127\.0\.0\.1:[0-9]+", "127.0.0.1:0", text))

    def prepare(self, first: str, maximum: str) -> None:
        """A sandbox with these waits between attempts, and a login that costs no hash."""
        self.sandbox()
        with self.settings.open("a") as settings:
            settings.write(STREAM.format(first=first, maximum=maximum))
        with CredentialStore(self.directory / "var/spool/credentials.db") as store:
            store.add(Credential(LOGIN, "default", "transactional", kind="key"), KEY)

    def copy(self, directory: Path) -> Home:
        """Another one like this, without the cost of making it."""
        shutil.copytree(self.directory / "var", directory / "var")
        return Home(directory)

    @contextmanager
    def living(self, nursery: Nursery, point: str = "", nth: int = 1, **order: Any) -> Iterator[Served]:
        """A daemon that ends at this point, if it gets there: it may be gone before it has said a word."""
        served = Served(self.directory, nursery.bear(self.directory, point=point, nth=nth, **order))
        try:
            served.is_ready = served.hears()
            yield served
        finally:
            served.kill()

    def doom(self) -> str:
        """Where the last daemon of this home ended by itself, as far as it could tell."""
        # The log's thread may have the last word.
        said = (self.directory / "stderr").read_text(errors="replace")
        told = [line for line in said.splitlines() if line.startswith("doomed: ")]
        return told[-1].removeprefix("doomed: ") if told else ""

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


class Nursery:
    """A process that has the program imported and forks daemons (tests/fakes/doomed.py)."""

    def __enter__(self) -> Nursery:
        argv = [sys.executable, "-m", "tests.fakes.doomed"]
        # To read the machine's certificates takes a tenth of a second at each start; nobody needs them here.
        environment = os.environ | {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}
        pipe = subprocess.PIPE
        self._popen = subprocess.Popen(argv, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.communicate(timeout=PATIENCE)

    def bear(self, directory: Path, **order: Any) -> Child:
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.write(json.dumps({"directory": str(directory), **order}) + "\n")
        self._popen.stdin.flush()
        return Child(self._popen.stdout)


class Child:
    """A forked daemon, with what `Served` needs of a subprocess.Popen."""

    def __init__(self, told: Iterator[str]) -> None:
        self._told = told
        born = next(line for line in told if line.startswith("born "))
        self.pid = int(born.split()[1])
        self.returncode: int | None = None
        self.stdout = self._lines()

    def _lines(self) -> Iterator[str]:
        for line in self._told:
            if line.startswith("ended "):
                self.returncode = int(line.split()[1])
                return
            yield line

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float) -> int | None:
        """Its status; where it has not ended by then, it is killed."""
        with patience(self, timeout):
            for _ in self.stdout:
                pass
        return self.returncode

    def give_up(self) -> None:
        """It hangs: its standard error will tell where."""
        self.send_signal(signal.SIGABRT)

    def communicate(self, timeout: float = PATIENCE) -> tuple[str, None]:
        with patience(self, timeout, self.give_up):
            return "".join(self.stdout), None


class Served:
    """A daemon that runs, seen from outside."""

    def __init__(self, directory: Path, popen: subprocess.Popen[str] | Child) -> None:
        self.directory = directory
        self.popen = popen
        self.banner = ""
        self.is_ready = False

    def hear(self) -> None:
        """Listen to what it says until it is ready."""
        if not self.hears():
            raise AssertionError(f"it did not start: {(self.directory / 'stderr').read_text()}")

    def hears(self) -> bool:
        """Does it become ready?"""
        assert self.popen.stdout is not None
        with patience(self.popen):
            for line in self.popen.stdout:
                self.banner += line
                if line == LAST_LINE:
                    return True
        return False

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
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as tail, patience(tail):
            assert tail.stdout is not None
            for line in tail.stdout:
                told.append(json.loads(line))
                count -= all(told[-1].get(key) == value for key, value in wanted.items())
                if not count:
                    break
            tail.kill()
        assert not count, f"{count} more were expected: {told}"
        return told

    def stop(self) -> int | None:
        """SIGTERM, and the exit status that follows."""
        self.popen.send_signal(signal.SIGTERM)
        self.rest = self.popen.communicate(timeout=PATIENCE)[0]
        return self.popen.returncode

    def kill(self) -> None:
        """As a power cut would."""
        self.popen.kill()
        self.popen.wait(PATIENCE)


@contextmanager
def patience(
    popen: subprocess.Popen[Any] | Child, seconds: float = PATIENCE, end: Callable[[], None] | None = None
) -> Iterator[None]:
    """Reading what it says ends some time, if only by its end."""
    timer = Timer(seconds, end or popen.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
