"""A disk that fails as a test says, under a daemon that is a process of its own.

Between: tests break the disk of a `Patient`, send it mail, and look at what it says.
Contract: `breaks` is in force when it returns, for every call from then on; `heals` ends it. `power_cut`
    makes a spool of what has reached the platter: what was synced, and not what a sync that failed had
    dropped (tests/fakes/faults.c). Nothing waits longer than PATIENCE seconds.
Raises: pytest's Skipped where there is no C compiler.
"""

from __future__ import annotations

import atexit
import http.client
import resource
import shutil
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import urlsplit

import pytest

from mta.api.control import call
from tests.fakes.home import KEY, LOGIN, PATIENCE, Home, Served, patience

SOURCE = Path(__file__).with_name("faults.c")
DEFERRED = "defer@dst.test"  # stays in the spool
CONTENT = b"From: app@example.test\r\nSubject: kept\r\n\r\nkept\r\n"
LARGE = CONTENT + b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * 4096  # a file of its own


@cache
def library() -> Path:
    """The shim, compiled."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: no disk can be made to fail")
    made = Path(mkdtemp(prefix="mta-faults-")) / "faults.so"
    atexit.register(shutil.rmtree, made.parent)
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", made, SOURCE, "-ldl"], check=True)
    return made


class Disk:
    """What is wrong with it."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "faults"
        self.platter = directory / "platter"
        self.platter.mkdir(exist_ok=True)
        self.environment = {
            "LD_PRELOAD": str(library()),
            "FAULTS": str(self._file),
            "SPOOL": str(directory / "var/spool"),
        }

    def breaks(self, *faults: str) -> None:
        """`CALL PART ERRNO` each."""
        draft = self._file.with_suffix(".new")
        draft.write_text("".join(f"{fault}\n" for fault in faults))
        draft.replace(self._file)

    def heals(self) -> None:
        self.breaks()

    def power_cut(self, spool: Path) -> None:
        """What is left goes to another spool."""
        for path in (*spool.glob("queue.db*"), *spool.glob("bodies/*"), spool / "events.jsonl"):
            left = self.platter / str(path.relative_to(spool)).replace("/", "+")
            path.unlink()
            if left.exists():
                shutil.copyfile(left, path)


class Patient(Home):
    """A home whose disk can fail."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.disk = Disk(directory)
        self._environment |= self.disk.environment

    def remembers(self) -> None:
        """From now on the platter is kept; before that nothing must have been written."""
        self._environment["PLATTER"] = str(self.disk.platter)

    @property
    def spool(self) -> Path:
        return self.directory / "var/spool"

    @property
    def said(self) -> str:
        """What it has said to the operator."""
        return (self.directory / "stderr").read_text()

    @contextmanager
    def running(self, *argv: str, before: tuple[str, ...] = ()) -> Iterator[Ward]:
        """A daemon; `argv` for tests/fakes/swift.py, which sees to frequent checkpoints."""
        program = ["-m", "tests.fakes.swift", *argv] if argv else ["-m", "mta"]
        with (self.directory / "stderr").open("w") as stderr:
            popen = subprocess.Popen(
                [*before, sys.executable, *program, "--config", "var/mta.yaml", "serve", "--quickstart",
                 "var/quickstart.json"],
                cwd=self.directory, env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=stderr, text=True,
            )  # fmt: skip
        ward = Ward(self.directory, popen)
        try:
            ward.hear()
            yield ward
        finally:
            popen.kill()
            popen.communicate()

    def refuses_to_start(self) -> str:
        """What it says instead; its exit status is that of a refusal."""
        done = self.mta("--config", "var/mta.yaml", "serve")
        assert done.returncode == 1, (done.returncode, done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
        return done.stderr.strip()


def on_tmpfs(options: str) -> tuple[str, ...]:
    """What runs a command with `var/spool` on a file system of its own, in a mount namespace of its own."""
    mount = f"cp -a var/spool var/seed && mount -t tmpfs -o {options} tmpfs var/spool"
    argv = ("unshare", "--mount", "sh", "-c")
    tried = shutil.which("unshare") and subprocess.run(
        [*argv, "mount -t tmpfs tmpfs /mnt"], capture_output=True
    )
    if not tried or tried.returncode:
        pytest.skip("no privilege to mount a file system in a namespace")
    return (*argv, f'{mount} && cp -a var/seed/. var/spool/ && exec "$@"', "sh")


class Ward(Served):
    """A daemon whose disk can fail, seen from outside."""

    def connect(self) -> smtplib.SMTP:
        door = self.facts["submissions"]
        smtp = smtplib.SMTP_SSL(door["host"], door["port"], context=self.context, timeout=PATIENCE)
        smtp.login(LOGIN, KEY)
        return smtp

    def send(self, content: bytes = CONTENT, to: str = DEFERRED, smtp: smtplib.SMTP | None = None) -> str:
        """The last reply, on a connection of its own."""
        client = smtp or self.connect()
        try:
            client.mail("app@example.test")
            client.rcpt(to)
            code, said = client.data(content)
            return f"{code} {said.decode()}"
        finally:
            if smtp is None:
                client.close()

    def accept(self, content: bytes = CONTENT, to: str = DEFERRED, smtp: smtplib.SMTP | None = None) -> str:
        """The queue id of a message that it has taken."""
        said = self.send(content, to, smtp)
        assert said.startswith("250 2.0.0 Ok: queued as "), said
        return said.rpartition(" ")[2]

    def ready(self) -> tuple[int, str]:
        """What /readyz answers."""
        where = urlsplit(self.facts["admin_url"])
        assert where.hostname is not None
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=PATIENCE)
        try:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            return answer.status, answer.read().decode().strip()
        finally:
            connection.close()

    def tells(self, words: str) -> str:
        """The line of its log that has these words, as soon as it is there."""
        argv = ["tail", "-n", "+1", "-f", str(self.directory / "stderr")]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as tail, patience(tail):
            assert tail.stdout is not None
            found = next((line for line in tail.stdout if words in line), "")
            tail.kill()
        assert found, f"it never said {words!r}"
        return found

    def queue(self) -> set[str]:
        """The queue ids that wait."""
        listed = call(self.directory / "var/spool/control", "queue", {"limit": 1000})
        return {each["queue_id"] for each in listed}

    def files(self, most: int | None = None) -> None:
        """So many files may be open from now on, besides those that are; None: as many as one likes."""
        (_, hard) = resource.prlimit(self.popen.pid, resource.RLIMIT_NOFILE)
        used = max(int(each.name) for each in Path(f"/proc/{self.popen.pid}/fd").iterdir()) + 1
        soft = hard if most is None else used + most
        resource.prlimit(self.popen.pid, resource.RLIMIT_NOFILE, (soft, hard))
