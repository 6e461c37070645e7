"""What the operator reads of a daemon, in a terminal and in the journal."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mta.ops.logs import Journal, goes_to_journal
from tests.fakes.home import PATIENCE, ROOT, Home, patience


@pytest.mark.parametrize(
    ("level", "prefix"),
    [
        (logging.DEBUG, "<7>"),
        (logging.INFO, "<6>"),
        (logging.WARNING, "<4>"),
        (logging.ERROR, "<3>"),
        (logging.CRITICAL, "<2>"),
    ],
)
def test_each_line_has_its_priority_of_a_traceback_too(level: int, prefix: str) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("mta.x", level, __file__, 0, "bad: %s", ("so\nit is",), sys.exc_info())
    lines = Journal().format(record).split("\n")
    assert lines[:2] == [f"{prefix}mta.x: bad: so", f"{prefix}it is"]
    assert lines[-2:] == [f"{prefix}ValueError: two", f"{prefix}lines"]
    assert all(line.startswith(prefix) for line in lines)


def test_a_stream_that_was_redirected_since_is_no_journal(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w") as file:
        found = os.fstat(file.fileno())
        named = f"{found.st_dev}:{found.st_ino}"
        assert goes_to_journal({"JOURNAL_STREAM": named}, file.fileno())
        for other in ({}, {"JOURNAL_STREAM": ""}, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"}):
            assert not goes_to_journal(other, file.fileno())
    with (tmp_path / "other").open("w") as file:
        assert not goes_to_journal({"JOURNAL_STREAM": named}, file.fileno())


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.sandbox()
    return made


def journal(home: Home, settings: str = "var/mta.yaml") -> list[str]:
    """What a daemon writes to the journal from its start to its end."""
    argv = [sys.executable, "-m", "mta", "--config", settings, "serve"]
    reading, writing = os.pipe()
    found = os.fstat(writing)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
    daemon = subprocess.Popen(argv, cwd=home.directory, env=environment, stderr=writing)
    os.close(writing)
    lines = []
    with open(reading, encoding="utf-8") as told, patience(daemon):  # noqa: PTH123 - a descriptor
        for line in told:
            lines.append(line)
            if ": serving at " in line:
                daemon.send_signal(signal.SIGTERM)
    daemon.wait(PATIENCE)
    return lines


def test_a_daemon_in_the_journal_says_how_important_it_is(home: Home) -> None:
    first, *_, last = journal(home)
    assert first.startswith("<6>mta.cli.serve: serving at ")
    assert last.startswith("<6>mta.cli.serve: SIGTERM: no new mail")


def test_a_start_that_is_refused_is_an_error_in_the_journal(home: Home) -> None:
    (home.directory / "var/tls/key.pem").unlink()
    (line,) = journal(home)
    assert line.startswith("<3>mta: cannot use the certificate ")
