"""`mta queue` as an operator types it, beside a daemon that runs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from click.testing import CliRunner, Result

from mta.cli.main import main
from mta.config.settings import Sandbox
from tests.fakes.clock import HandClock
from tests.fakes.house import running, settings

SETTINGS = """\
hostname: mta.test
listeners:
  - {bind: "127.0.0.1:0", tls: none, auth: network}
spool: {path: spool}
"""


def ask(directory: Path, *arguments: str) -> Result:
    (directory / "mta.yaml").write_text(SETTINGS)
    return CliRunner().invoke(main, ["--config", str(directory / "mta.yaml"), "queue", "list", *arguments])


async def test_what_waits_is_listed_oldest_first(tmp_path: Path) -> None:
    clock = HandClock(1_800_000_000.0)
    async with running(settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox")), clock) as house:
        replies = [await house.send(f"defer@x{n}.test") for n in range(3)]
        await house.event(3, type="deferral")
        whole = await asyncio.to_thread(ask, tmp_path)
        two = await asyncio.to_thread(ask, tmp_path, "--limit", "2")
        data = await asyncio.to_thread(ask, tmp_path, "--json", "--limit", "1")
    ids = [reply.rpartition(" ")[2] for reply in replies]
    header, *rows = (line.split() for line in whole.stdout.splitlines())
    assert header == ["QUEUE", "ID", "STATE", "ATTEMPTS", "DUE", "SIZE", "SENDER", "RECIPIENT"]
    assert {row[4] for row in rows} == {"0.23K"}
    assert [(row[0], row[1], row[2], row[6]) for row in rows] == [
        (queue_id, "deferred", "1", f"defer@x{n}.test") for n, queue_id in enumerate(ids)
    ]
    assert len({line.index("a@src.test") for line in whole.stdout.splitlines()[1:]}) == 1
    assert not whole.stderr
    assert len(two.stdout.splitlines()) == 3
    assert two.stderr == "there are more than 2: --limit shows more\n"
    (shown,) = json.loads(data.stdout)
    assert (shown["queue_id"], shown["recipient"]) == (ids[0], "defer@x0.test")


async def test_an_empty_queue_is_called_so(tmp_path: Path) -> None:
    async with running(settings(tmp_path)):
        result = await asyncio.to_thread(ask, tmp_path)
        data = await asyncio.to_thread(ask, tmp_path, "--json")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "the queue is empty\n")
    assert data.stdout == "[]\n"


def test_a_daemon_that_does_not_run_is_told_with_its_socket(tmp_path: Path) -> None:
    result = ask(tmp_path)
    assert (result.exit_code, result.stderr) == (
        1,
        f"Error: the daemon is not running: nobody answers at {tmp_path}/spool/control\n",
    )


def test_a_limit_of_nothing_is_a_wrong_command_line(tmp_path: Path) -> None:
    assert ask(tmp_path, "--limit", "0").exit_code == 2
