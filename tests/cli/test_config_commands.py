"""`mta config` as an operator types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mta.cli.main import main
from mta.config.load import load

GOOD = """\
hostname: mx.example.com
listeners:
  - {bind: "127.0.0.1:0", tls: none, auth: network}
spool: {path: spool}
"""
FIVE_MISTAKES = """\
hostnam: mx.example.com
listeners:
  - {bind: "127.0.0.1", tls: none, auth: network}
spool: {memory: 64}
limits: {drain: 30 seconds, recipients: 0}
"""


def config(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--config", str(path), "config", *arguments])


def test_five_mistakes_are_told_at_once_each_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "mta.yaml"
    path.write_text(FIVE_MISTAKES)
    result = config(path, "check")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        f"{path}:1:1: hostnam: unknown key; did you mean 'hostname'?",
        f"{path}:3:12: listeners[0].bind: '127.0.0.1' has no port: "
        "write 127.0.0.1:587, [::1]:587 or mx.example.com:25",
        f"{path}:4:17: spool.memory: '64' is not a size: write a whole number and a unit: 64K, 25M, 1G",
        f"{path}:5:17: limits.drain: '30 seconds' is not a duration: "
        "write a number and a unit: 250ms, 30s, 5m, 2h, 4d",
        f"{path}:5:41: limits.recipients: 0 is too small: at least 1",
    ]
    found = json.loads(config(path, "check", "--json").stdout)
    assert [(each["line"], each["column"]) for each in found["problems"]] == [
        (1, 1), (3, 12), (4, 17), (5, 17), (5, 41),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["mx_home..test", "a b", '"a\\r\\nb"', "192.0.2.1", "-x.test"])
def test_a_hostname_that_no_server_can_have(tmp_path: Path, name: str) -> None:
    """It stands in the greeting, in EHLO and in Received: a line feed in it would begin another line."""
    path = tmp_path / "mta.yaml"
    path.write_text(GOOD.replace("mx.example.com", name))
    result = config(path, "check")
    assert result.exit_code == 2
    assert "is no host name: write mx1.example.com" in result.stderr


def test_settings_without_a_mistake_are_called_so(tmp_path: Path) -> None:
    path = tmp_path / "mta.yaml"
    path.write_text(GOOD)
    result = config(path, "check")
    assert (result.exit_code, result.output) == (0, f"{path}: no mistakes\n")
    assert json.loads(config(path, "check", "--json").stdout) == {"path": str(path), "problems": []}


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    for verb in ("check", "show"):
        result = config(tmp_path / "gone.yaml", verb)
        assert (result.exit_code, result.stderr) == (
            2,
            f"{tmp_path}/gone.yaml:1:1: cannot be read: No such file or directory\n",
        )


def test_what_is_shown_is_a_settings_file_with_the_same_meaning(tmp_path: Path) -> None:
    path, again = tmp_path / "mta.yaml", tmp_path / "again.yaml"
    path.write_text(GOOD)
    again.write_text(config(path, "show").stdout)
    assert load(again) == load(path)
    assert json.loads(config(path, "show", "--json").stdout)["limits"]["drain"] == "30s"
