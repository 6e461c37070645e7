"""A stop comes to its end, whatever is going on at that moment."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import smtplib
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from mta.config.settings import Sandbox
from tests.fakes.home import PATIENCE, ROOT, Home, Served, patience
from tests.fakes.house import running, settings


async def test_a_stop_in_the_very_moment_of_a_dial_ends(tmp_path: Path) -> None:
    """The dial's task is cancelled before its first step: it must still say that it is over."""
    terms = settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox"))
    async with running(terms) as house:
        await house.send("ok@dst.test")
        await house.event(type="delivery")
        pool = house.daemon.pool
        (lane,) = pool._lanes
        lane.connections += 1  # as `Lane.kick` does
        pool.open(lane)
        async with asyncio.timeout(10):
            await pool.drain(1.0)
        assert lane.connections == 0


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.sandbox()
    return made


def test_a_habit_of_kill_hup_does_not_take_a_service_down(home: Home) -> None:
    """systemd takes a death by SIGHUP for a clean end, and would leave it down."""
    with home.serving() as served:
        served.popen.send_signal(signal.SIGHUP)
        with served.client() as client:
            client.sendmail("app@example.test", "ok@example.test", "From: app@example.test\r\n\r\nx\r\n")
        assert served.stop() == 0
    said = (home.directory / "stderr").read_text()
    words = "SIGHUP: nothing is read again; restart the daemon for other settings or another certificate"
    assert f"WARNING mta.cli.serve: {words}\n" in said
    assert "INFO mta.cli.serve: SIGTERM: no new mail; what is under way may end within limits.drain\n" in said


def test_a_terminal_that_closes_lets_a_message_under_way_end(home: Home) -> None:
    ours, theirs = os.openpty()
    argv = [sys.executable, "-m", "mta", "--config", "var/mta.yaml", "serve"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (
        subprocess.Popen(
            argv, cwd=home.directory, env=environment, stdin=theirs, stderr=subprocess.PIPE, text=True
        ) as daemon,
        patience(daemon),
    ):
        os.close(theirs)
        assert daemon.stderr is not None
        told = next(line for line in daemon.stderr if " serving at " in line)
        door = re.search(r"127\.0\.0\.1 port (\d+) \(tls starttls, auth password\)", told)
        assert door is not None
        client = smtplib.SMTP("127.0.0.1", int(door[1]), timeout=PATIENCE)
        client.starttls()
        client.login("app", (home.directory / "var/password").read_text())
        client.mail("app@example.test")
        daemon.send_signal(signal.SIGHUP)  # as the kernel does where the terminal is its own
        next(line for line in daemon.stderr if "SIGHUP: no new mail" in line)
        assert client.rcpt("ok@example.test")[0] == 250
        assert client.data("From: app@example.test\r\n\r\nx\r\n")[0] == 250
        client.close()
        assert daemon.wait(PATIENCE) == 0
    os.close(ours)


def test_a_stop_comes_to_its_end_though_nobody_reads_what_the_daemon_says(home: Home) -> None:
    """Standard error is a pipe that is full: it is nobody's business but its own."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    argv = [sys.executable, "-m", "mta", "--config", "var/mta.yaml", "serve"]
    argv += ["--quickstart", "var/quickstart.json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        argv, cwd=home.directory, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=writing, text=True,
    ) as popen, patience(popen):  # fmt: skip
        os.close(writing)
        served = Served(home.directory, popen)
        served.hear()
        with served.client() as client:  # its bounce is a line
            client.sendmail("app@example.test", "bounce@example.test", "From: app@example.test\r\n\r\nx\r\n")
            client.sendmail("app@example.test", "ok@example.test", "From: app@example.test\r\n\r\nx\r\n")
        popen.send_signal(signal.SIGTERM)
        assert popen.wait() == 0
    os.close(reading)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stop_with_standard_descriptors_that_were_closed_is_clean(home: Home, closed: str) -> None:
    """Start scripts close them, and the loop's own pipes would take their numbers."""
    command = f'exec "$0" -m mta --config var/mta.yaml serve {closed}'
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": str(home.directory / "notify")}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(environment["NOTIFY_SOCKET"])
        manager.settimeout(PATIENCE)
        argv = ["sh", "-c", command, sys.executable]
        with subprocess.Popen(argv, cwd=home.directory, env=environment) as popen, patience(popen):
            while manager.recv(1000) != b"READY=1":
                pass
            popen.send_signal(signal.SIGTERM)
            assert popen.wait() == 0
