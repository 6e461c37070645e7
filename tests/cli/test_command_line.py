"""What every command takes, whatever the shell hands over."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mta.cli.main import main

ROOT = Path(__file__).parents[2]
LATIN = os.fsdecode(b"Empf\xe4nger")
SETTINGS = """\
hostname: mail.example.com
listeners: [{bind: 127.0.0.1:0, tls: none, auth: network}]
spool: {path: spool}
"""


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


def mta(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """In a process of its own: only there are the arguments octets, and standard output a real one."""
    environment = os.environ | {"LC_ALL": "C.UTF-8", "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "mta", *arguments]
    return subprocess.run(argv, input=stdin, env=environment, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "{}", "queue", "list"],
        ["queue", "--config", "{}", "list"],
        ["queue", "list", "--config", "{}"],
        ["--config", "/nowhere", "queue", "list", "--config", "{}"],
    ],
)
def test_the_settings_file_may_be_named_before_and_behind_a_command(
    tmp_path: Path, arguments: list[str]
) -> None:
    path = tmp_path / "mta.yaml"
    path.write_text(SETTINGS)
    told = CliRunner().invoke(main, [each.format(path) for each in arguments])
    assert f"nobody answers at {tmp_path}/spool/control" in told.stderr


@pytest.mark.parametrize(
    ("words", "command"), [pytest.param(*each, id=" ".join(each[0])) for each in leaves(main)]
)
def test_every_command_takes_the_settings_file_behind_it(
    words: tuple[str, ...], command: click.Command
) -> None:
    shown = CliRunner().invoke(main, [*words, "--help"])
    assert "--config PATH" in shown.output
    assert all(parameter.type is not click.STRING for parameter in command.params)  # any octets


def test_config_check_looks_at_the_file_that_is_named_behind_it(tmp_path: Path) -> None:
    (tmp_path / "mta.yaml").write_text("hostname: a.test\nnonsense: 1\n")
    told = CliRunner().invoke(main, ["config", "check", "--config", str(tmp_path / "mta.yaml")])
    assert told.exit_code == 2
    assert f"{tmp_path}/mta.yaml:2:1: nonsense: unknown key" in told.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["explain", LATIN],
        ["credential", "add", LATIN],
        ["credential", "add", "app", "--tenant", LATIN],
        ["credential", "add", "app", "--sender", LATIN],
        ["spool", "export", "somewhere", "--domain", LATIN],
        ["spool", "erase", LATIN],
        ["classify", "--provider", LATIN, "550 5.1.1 no"],
        ["queue", "list", "--limit", LATIN],
        [LATIN],
    ],
    ids=lambda arguments: " ".join(arguments[:-1]) or "a command",
)
def test_an_argument_that_is_not_utf_8_is_refused_in_words(arguments: list[str]) -> None:
    told = mta(*arguments)
    assert (told.returncode, told.stdout) == (2, b"")
    assert b"Empf\\udce4nger" in told.stderr
    assert b"Traceback" not in told.stderr


def test_a_reply_in_any_octets_is_understood() -> None:
    told = mta("classify", os.fsdecode(b"550 5.1.1 Empf\xe4nger unbekannt"))
    assert (told.returncode, told.stderr) == (0, b"")
    assert told.stdout == mta("classify", stdin=b"550 5.1.1 Empf\xe4nger unbekannt\n").stdout


def test_a_path_in_any_octets_is_a_path(tmp_path: Path) -> None:
    made = mta("sandbox", str(tmp_path / LATIN))
    assert (made.returncode, made.stderr) == (0, b"")
    assert b"Empf\\udce4nger/mta.yaml: a sandbox" in made.stdout
    for arguments in (["config", "check"], ["config", "show"], ["credential", "list"]):
        told = mta("--config", str(tmp_path / LATIN / "mta.yaml"), *arguments)
        assert (told.returncode, told.stderr) == (0, b"")


def test_files_that_are_not_utf_8_are_named(tmp_path: Path) -> None:
    assert mta("sandbox", str(tmp_path)).returncode == 0
    (tmp_path / "password").write_bytes(b"\xff")
    (tmp_path / "spool/credentials.db").unlink()
    told = mta("sandbox", str(tmp_path))
    assert (told.returncode, told.stdout) == (1, b"")
    assert told.stderr.endswith(b"password is not UTF-8: remove it, and another is made\n")
    (tmp_path / "mta.yaml").write_bytes(b"hostname: \xe4.test\n")
    told = mta("config", "check", "--config", str(tmp_path / "mta.yaml"))
    assert (told.returncode, told.stderr.decode()) == (2, f"{tmp_path}/mta.yaml:1:1: not UTF-8 (octet 10)\n")


def test_a_password_on_standard_input_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mta.yaml").write_text(SETTINGS)
    (tmp_path / "spool").mkdir()
    settings = ["--config", str(tmp_path / "mta.yaml")]
    told = mta(*settings, "credential", "add", "app", "--password-stdin", stdin=b"a long pass\xe4word\n")
    assert told.returncode == 2
    assert told.stderr.endswith(b"Error: the password on standard input is not UTF-8\n")


def test_a_house_with_waits_that_forbid_each_other_says_so_and_does_not_start(tmp_path: Path) -> None:
    waits = "destinations:\n  default: {retry_first: 60s}\n  a.test: {retry_max: 30s}\n"
    (tmp_path / "mta.yaml").write_text(SETTINGS + waits)
    told = mta("serve", "--config", str(tmp_path / "mta.yaml"))
    words = b"mta: destination a.test: retry_first is above retry_max"
    assert (told.returncode, told.stderr[: len(words)]) == (1, words)
