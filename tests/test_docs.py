"""The documents say what is there, and nothing else."""

from __future__ import annotations

import ast
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from prometheus_client import generate_latest

from benchmarks.load.hostile import ATTACKS
from benchmarks.peers.hidden import cases
from benchmarks.peers.limits import FLEET
from mta import __version__
from mta.api import admin
from mta.cli.main import DEFAULT, main
from mta.cli.sandbox import OPEN
from mta.config.load import load
from mta.config.settings import (
    ADMIN_BIND,
    DAY,
    HOUR,
    MINUTE,
    IdentitySettings,
    Settings,
    SpoolSettings,
    Stream,
)
from mta.core.limits import budget, guesses, hourly, level, proofs, sparing, throttle
from mta.core.mail import carried, dmarc
from mta.core.mail.header import MAX_FIELDS
from mta.core.queueid import INSTANCES
from mta.core.returns import verp
from mta.core.route import hosts
from mta.delivery import branches
from mta.dns import cache, resolver, servers
from mta.guard import proximity, records
from mta.intake import authentication, strangers
from mta.metrics import Metrics
from mta.ops import certificate, descriptors, findings, logs, notify
from mta.sandbox.actors import ACTORS
from mta.signing import keys, rotation, secret
from mta.smtp import connection, dial, parser
from mta.spool import queue, slack, wal
from mta.spool.notes import MAX_UNSETTLED, MAX_UNSETTLED_TIME

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WORDS = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def commands(group: click.Group, path: str = "mta") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}"


def test_the_map_names_every_room_and_no_other() -> None:
    mapped = re.findall(r"(?m)^([\w.]+(?:/|\.py)) +\S", section("The map"))
    there = [entry for entry in (ROOT / "mta").iterdir() if entry.name not in ("__init__.py", "__pycache__")]
    assert sorted(mapped) == sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in there)


def test_every_actor_of_the_sandbox_is_listed_in_its_own_words() -> None:
    listed = dict(re.findall(r"(?m)^\| `(\S+)@` \| (.*) \|$", section("Try it")))
    assert listed == {name: actor.does for name, actor in ACTORS.items()}


def test_every_framework_is_told_the_port_of_the_sandbox() -> None:
    listed = dict(re.findall(r"(?m)^\| (\w+) \| (.*1025.*) \|$", section("Try it")))
    assert sorted(listed) == ["Django", "PHPMailer", "Rails", "Spring", "nodemailer"]
    assert OPEN == 1025


def test_every_command_is_listed() -> None:
    page = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    listed = re.findall(r"(?m)^\| `(mta [^`]+)` \|", page)
    assert sorted(listed) == sorted(commands(main))


@pytest.mark.parametrize("command", sorted(commands(main)))
def test_every_command_explains_itself(command: str) -> None:
    shown = CliRunner().invoke(main, [*command.split()[1:], "--help"])
    assert shown.exit_code == 0
    assert "--json" in shown.output or command == "mta serve"


def test_every_target_is_explained_by_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.search(r"(?m)^\.PHONY: (.+)$", makefile)
    assert targets is not None
    assert set(targets[1].split()) - {"help"} == set(re.findall(r"@echo 'make ([\w-]+)", makefile))
    assert set(re.findall(r"`?make ([a-z-]+)`", WORDS)) <= set(targets[1].split())
    shown = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True)
    assert shown.stdout.count("\nmake ") >= len(targets[1].split()) - 2


def test_make_venv_brings_the_command(tmp_path: Path) -> None:
    """What is installed already is not installed again; the command works from anywhere, through a link."""
    for name in ("Makefile", "requirements.lock"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / "mta").symlink_to(ROOT / "mta")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    python = tmp_path / ".venv/bin/python"
    python.write_text(f"#!/bin/sh\nexec '{sys.executable}' \"$@\"\n")
    python.chmod(0o755)
    (tmp_path / ".venv/.run").touch()
    subprocess.run(["make", "--silent", "-C", str(tmp_path), "venv"], check=True)
    away = tmp_path / "away"
    (away / "mta").mkdir(parents=True)  # which is not the program
    (away / "link").symlink_to(tmp_path / ".venv/bin/mta")
    argv = [str(away / "link"), "classify", "550 5.1.1 it's nobody"]
    told = subprocess.run(argv, cwd=away, capture_output=True, text=True, check=True)
    assert '"subject": "recipient"' in told.stdout
    shown = subprocess.run([*argv[:1], "queue", "--help"], cwd=away, capture_output=True, text=True)
    assert shown.stdout.startswith("Usage: mta queue ")


def test_an_installed_package_brings_the_command() -> None:
    """What `pipx install .` and `uv tool install .` make of it."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert {name: pkgutil.resolve_name(target) for name, target in scripts.items()} == {"mta": main}


WORDS_FOR = {3: "three", 5: "five", 6: "six", 17: "seventeen", 20: "twenty"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NUMBERS = [  # each figure of a page that stands in the code, or in a setting's default
    ("README.md", f"Python {PROJECT['project']['requires-python'][2:]} or newer"),
    ("README.md", f"At most {MAX_UNSETTLED} outcomes, or those of {MAX_UNSETTLED_TIME * 1000:.0f} ms"),
    ("README.md", f"retry interval of its reception ({Stream().retry_first / MINUTE:.0f} minutes)"),
    ("README.md", f"{connection.STRANGER:.0f} seconds for each step"),
    ("README.md", f"{WORDS_FOR[sparing.MOST]} lines of the log a minute"),
    ("README.md", f"ends within {findings.SOON.days} days"),
    ("README.md", f"From {WORDS_FOR[certificate.SOON // DAY]} days before the end of the certificate"),
    ("README.md", f"`admin.bind` ({ADMIN_BIND})"),
    ("commands.md", f"`{DEFAULT}` by default"),
    ("README.md", f"plays {WORDS_FOR[len(ATTACKS.keys() - {'nothing'})]} hostile clients and peers"),
    ("checks.md", f"a provider took {proximity.NEAR:,} recipients or more"),
    ("checks.md", f"from {proximity.BULK_SENDER:,} on it is a bulk sender"),
    ("checks.md", f"for {budget.VOLUMES:,} pairs of a domain and a provider"),
    ("checks.md", f"with {dmarc.MAX_QUERIES} questions at most"),
    ("checks.md", f"more than {hourly.EACH} domains of one credential"),
    ("destinations.md", f"by their start every {level.STEEP:.0f} seconds"),
    ("destinations.md", f"up to {throttle.LONGEST / MINUTE:.0f} minutes"),
    ("destinations.md", f"with {hosts.SHORT:.0f} seconds of patience"),
    ("destinations.md", f"up to {hosts.BELIEVED / HOUR:.0f} hours"),
    ("destinations.md", f"For {hosts.BELIEVED / HOUR:.0f} hours the host is not"),
    ("destinations.md", f"At most {hosts.MAX_ADDRESSES} addresses are dialled"),
    ("destinations.md", f"mail waits {hosts.TLS_WAIT:.0f} seconds"),
    ("destinations.md", f"{len([*cases()])} kinds of hidden limits"),
    ("destinations.md", f"{WORDS_FOR[len(FLEET)]} real servers"),
    ("destinations.md", f"after {servers.STEP:.0f} seconds of silence"),
    ("destinations.md", f"One that missed {servers.AILING} questions"),
    ("destinations.md", f"At most {servers.AT_ONCE:,} questions"),
    ("destinations.md", f"in {cache.OCTETS // 2**20} MiB of memory"),
    ("destinations.md", f"expired in the last {resolver.STALE / HOUR:.0f} hours"),
    ("destinations.md", f"every {resolver.STALE_HOLDS:.0f} seconds"),
    ("disk.md", f"from {wal.WAL_LIMIT // 2**20} MiB on"),
    ("identity.md", f"RSA with {keys.RSA_BITS} bits"),
    ("identity.md", f"fewer than {keys.LEAST_BITS} bits"),
    ("identity.md", f"`identity.rotate` ({IdentitySettings().rotate / DAY:.0f} days)"),
    ("identity.md", f"every {rotation.LATEST / MINUTE:.0f} minutes"),
    ("headers.md", f"or {MAX_FIELDS:,} fields"),
    ("headers.md", f"up to {carried.MAX_TAGS}, of {carried.MAX_TAG} octets each"),
    ("headers.md", f"of {carried.MAX_METADATA // 1024} KiB at most, without its blanks"),
    ("headers.md", f"and {carried.MAX_DEPTH} levels deep at most"),
    ("headers.md", f"`X-MTA-Score`: 0 to {carried.MAX_SCORE}"),
    ("spool.md", f"`instance` of its own in its settings (0 to {INSTANCES - 1})"),
    ("spool.md", f"({secret.MOST} at most)"),
    ("spool.md", f"after {(verp.LIFETIME + verp.WEEK) / DAY:.0f} days"),
    ("strangers.md", f"half of the files that the system allows less {descriptors.OWN}"),
    ("strangers.md", f"in the last {proofs.REMEMBERED / DAY:.0f} days"),
    ("strangers.md", f"{connection.STRANGER:.0f} s for each step"),
    ("strangers.md", f"{sparing.MOST} a minute and cause, names cut at {strangers.MAX_NAME} characters"),
    ("strangers.md", f"{guesses.PAIR.amount:.0f} in {guesses.PAIR.period / MINUTE:.0f} minutes"),
    ("strangers.md", f"{guesses.CLIENT.amount:.0f} over all logins"),
    ("strangers.md", f"at once, {authentication.WAITING} wait"),
    ("strangers.md", f"and {MAX_FIELDS:,} fields"),
    ("strangers.md", f"{parser.TURN} commands or {parser.TURN_TIME * 1000:.0f} ms of one connection"),
    ("strangers.md", f"a message over {parser.SLICE // 1024} KiB"),
    ("strangers.md", f"{connection.MAX_ERRORS}; a message that is taken makes up for"),
    ("strangers.md", f"makes up for {WORDS_FOR[connection.TAKEN // 10]}, an accepted recipient for a tenth"),
    ("strangers.md", f"{admin.CONNECTIONS} connections, {admin.SILENCE:.0f} s without"),
    ("strangers.md", f"{logs.WAITING:,} lines wait"),
    ("strangers.md", f"({queue.ASIDE // 2**20} MiB and more)"),
    ("strangers.md", f"all but {slack.KEPT // 2**20} MiB"),
    ("strangers.md", f"is told every {notify.EXTEND:.0f} s"),
]


@pytest.mark.parametrize(("page", "words"), NUMBERS, ids=[words for _, words in NUMBERS])
def test_a_number_of_a_page_is_the_one_in_the_code(page: str, words: str) -> None:
    path = next(each for each in PAGES if each.name == page)
    assert words in " ".join(path.read_text(encoding="utf-8").split())


def test_the_table_of_bounds_is_the_one_in_the_code_and_each_has_its_gauge() -> None:
    page = next(each for each in PAGES if each.name == "strangers.md").read_text(encoding="utf-8")
    table = page.partition("\n## What all of it may take\n")[2].partition("\n## ")[0]
    rows = [tuple(row.strip("| ").split(" | ")) for row in re.findall(r"(?m)^\| .+ \|$", table)]
    assert rows[1:] == [(*bound[:3], f"`{bound.gauge}`") for bound in budget.BOUNDS]
    shown = generate_latest(Metrics().registry).decode()
    gauges = set(re.findall(r"(?m)^# TYPE (\w+) gauge$", shown))
    assert {bound.gauge for bound in budget.BOUNDS} <= gauges


def test_numbers_that_the_pages_have_in_words() -> None:
    assert (sparing.PERIOD, branches.SAVE_INTERVAL) == (MINUTE, MINUTE)  # "a minute", "each minute"
    assert hosts.SOONEST == MINUTE  # "after a minute"
    assert dial.HEAD_START == 0.25  # "a quarter of a second"
    assert queue.UNWRITABLE_WAIT == HOUR  # "in an hour"
    assert resolver.LONGEST == DAY  # "a day at most"
    assert (records.SOONEST, records.HOLDS) == (MINUTE, DAY)  # "within a minute", "for a day"
    assert authentication.THREADS == 2  # "two at once", "2 for passwords"
    assert connection.ACCEPTED == 1  # a tenth of an error


def test_how_many_tests_there_are(request: pytest.FixtureRequest) -> None:
    """`make test ARGS=--collect-only` prints it. A run of some of them knows of no others."""
    said = re.search(r"runs all tests on the interpreter of `.venv` \(([\d,]+),", README)
    assert said is not None
    if request.config.args == ["tests"] and not request.config.option.keyword:
        count = len(request.session.items)
        assert abs(int(said[1].replace(",", "")) - count) <= count / 20


def test_the_settings_to_go_live_with_are_valid(tmp_path: Path) -> None:
    found = re.search(r"(?m)^ +hostname: .*\n(?: +.+\n)+", section("Go live"))
    assert found is not None
    (tmp_path / "mta.yaml").write_text(found[0])
    assert load(tmp_path / "mta.yaml").hostname == "mail.example.com"


def test_the_user_and_the_places_of_the_unit_are_those_to_go_live_with() -> None:
    """What is typed there is what the unit, and the settings that are left out, look for."""
    unit = (ROOT / "systemd" / "mta.service").read_text()
    command = f"useradd --system --home-dir {SpoolSettings().path} --shell /usr/sbin/nologin mta"
    assert f"       {command}\n" in section("Go live")
    assert f": {command}\n" in unit
    assert f"install -d -m 700 -o mta -g mta {SpoolSettings().path}\n" in section("Go live")
    assert "\nUser=mta\nGroup=mta\nStateDirectory=mta\nStateDirectoryMode=0700\n" in unit
    assert f"--config {DEFAULT} serve\n" in unit
    doors = {(each.bind.port, each.tls) for each in Settings.__dataclass_fields__["listeners"].default}
    assert doors == {(587, "starttls"), (465, "implicit")}


def test_the_first_login_to_go_live_with_is_added(tmp_path: Path) -> None:
    (command,) = re.findall(r"(?m)^ +mta (credential add .+)$", section("Go live"))
    (tmp_path / "mta.yaml").write_text(
        f"hostname: mail.example.com\nlisteners: []\nspool: {{path: {tmp_path / 'spool'}}}\n"
    )
    argv = ["--config", str(tmp_path / "mta.yaml"), *shlex.split(command)]
    assert CliRunner().invoke(main, argv).exit_code == 0
    listed = CliRunner().invoke(main, [*argv[:2], "credential", "list"])
    assert re.search(r"(?m)^shop: .*, from shop\.example\.com, rate 1000/min$", listed.output), listed.output


def test_each_file_says_at_its_top_what_it_promises() -> None:
    files = [*(ROOT / "mta").rglob("*.py")]
    assert [path for path in files if not ast.get_docstring(ast.parse(path.read_text("utf-8")))] == []


EXAMPLES = re.findall(
    rf"(?m)^\n((?: {{4}}(?:{'|'.join(each.name for each in fields(Settings))}):.*\n(?: {{5,}}.*\n)*)+)",
    WORDS,
)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.split(":")[0].strip())
def test_every_example_of_settings_is_valid(tmp_path: Path, example: str) -> None:
    missing = (
        "" if "\n    hostname:" in f"\n{example}" else "    hostname: mail.example.com\n    listeners: []\n"
    )
    (tmp_path / "mta.yaml").write_text(example + missing)
    load(tmp_path / "mta.yaml")


def test_the_command_of_the_unit_is_one() -> None:
    unit = (ROOT / "systemd" / "mta.service").read_text()
    found = re.search(r"(?m)^ExecStart=/opt/mta/.venv/bin/python -m mta (.*)$", unit)
    assert found is not None
    shown = CliRunner().invoke(main, [*shlex.split(found[1]), "--help"])
    assert (shown.exit_code, shown.output.split("\n")[0]) == (0, "Usage: main serve [OPTIONS]")


def test_every_file_that_is_linked_to_is_there() -> None:
    documents = [*PAGES, ROOT / "CHANGELOG.md", *ROOT.glob("*/README.md")]
    for document in documents:
        for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_is_there(page: Path) -> None:
    named = set(re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8")))
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"(?m)^(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"))
    }
    assert named <= there


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_metric_that_a_page_names_is_there(page: Path) -> None:
    shown = generate_latest(Metrics().registry).decode()
    there = set(re.findall(r"(?m)^# TYPE (\w+) ", shown))
    assert set(re.findall(r"`(mta_\w+)`", page.read_text(encoding="utf-8"))) <= there


def test_the_changelog_knows_this_version() -> None:
    assert f"\n## {__version__} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_the_locks_name_no_place_and_pin_every_dependency(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert not re.search(r"(?m)://|^-|^--", text)
    pinned = set(re.findall(r"(?m)^([a-z0-9-]+)==", text))
    project = (ROOT / "pyproject.toml").read_text()
    dependencies = re.search(r"(?s)\ndependencies = \[(.*?)\]", project)
    assert dependencies is not None
    assert set(re.findall(r'"([a-z0-9-]+)', dependencies[1])) <= pinned
    for name, entry in re.findall(r"(?ms)^([a-z0-9-]+)==(.*?)(?=^[a-z]|\Z)", text):
        assert "--hash=sha256:" in entry, name


def test_every_page_can_be_found_from_the_front_door() -> None:
    for page in PAGES[1:]:
        assert f"](docs/{page.name})" in README, page.name


def test_the_front_door_is_short() -> None:
    assert len(README.splitlines()) < 230


LINES = sorted({found[1] for found in re.finditer(r"(?m)^ {4,}(mta [^\n#\[]+?)\s*(?:#.*)?$", WORDS)})


@pytest.mark.parametrize("line", LINES)
def test_every_command_of_a_page_is_one(line: str) -> None:
    shown = CliRunner().invoke(main, [*shlex.split(line)[1:], "--help"])
    assert shown.exit_code == 0, shown.output
