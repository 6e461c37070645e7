"""A stop comes to its end, whatever is going on at that moment."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import smtplib
import subprocess
import sys
from pathlib import Path

import pytest

from mta.config.settings import Sandbox
from tests.fakes.home import PATIENCE, ROOT, Home, patience
from tests.fakes.house import running, settings


async def test_a_stop_in_the_very_moment_of_a_dial_ends(tmp_path: Path) -> None:
    """The dial's task is cancelled before its first step: it must still say that it is over."""
    terms = settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox"))
    async with running(terms) as house:
        await house.send("ok@dst.test")
        await house.event(type="delivery")
        pool = house.daemon.pool
        (lane,) = pool._lanes.values()
        lane.connections += 1  # as `Lane.kick` does
        pool.open(lane)
        async with asyncio.timeout(10):
            await pool.drain(1.0)
        assert lane.connections == 0


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.init()
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
