"""`mta config` as an operator types it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mta.cli.main import main
from mta.config.load import load
from mta.core.credential import Credential
from mta.core.domain import SendingDomain
from mta.ops.certificate import LIFETIME, self_signed
from mta.store.credentials import CredentialStore
from mta.store.domains import DomainStore

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


LIVE = """\
hostname: mail.example.com
listeners:
  - bind: 127.0.0.1:0
tls:
  certificate: tls/certificate.pem
  key: tls/key.pem
spool: {path: spool}
admin: {bind: 127.0.0.1:0}
"""
DAY = 86400.0


class Place:
    """Settings with a certificate, and what is told of them."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "mta.yaml"
        self.path.write_text(LIVE)
        self.certificate()
        self.spool = directory / "spool"
        self.spool.mkdir()

    def certificate(self, *names: str, days: float = 365.0) -> None:
        """Another one, that ends in so many days."""
        directory = self.path.parent / "tls"
        shutil.rmtree(directory, ignore_errors=True)
        end = time.time() + days * DAY
        self_signed(names or ["mail.example.com"], directory, lambda: end - LIFETIME.total_seconds())

    def credential(self, login: str, **terms: Any) -> None:
        secret = "" if terms.get("kind") == "network" else "a long password"
        with CredentialStore(self.spool / "credentials.db") as store:
            store.add(Credential(login, "default", "transactional", **terms), secret)

    def replace(self, old: str, new: str) -> None:
        text = self.path.read_text()
        assert old in text
        self.path.write_text(text.replace(old, new))

    def told(self) -> tuple[int, list[str]]:
        result = config(self.path, "check")
        return result.exit_code, [line.removeprefix(f"{self.path}:") for line in result.stderr.splitlines()]

    def date(self, days: float) -> str:
        return time.strftime("%Y-%m-%d", time.gmtime(time.time() + days * DAY))


@pytest.fixture
def at(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_settings_that_will_work_are_called_so(at: Place) -> None:
    at.credential("app")
    assert at.told() == (0, [])


@pytest.mark.parametrize(
    ("file", "place"), [("certificate", "5:16: tls.certificate"), ("key", "6:8: tls.key")]
)
def test_a_file_of_the_certificate_that_is_missing(at: Place, file: str, place: str) -> None:
    (at.path.parent / f"tls/{file}.pem").unlink()
    assert at.told() == (2, [f"{place}: {at.path.parent}/tls/{file}.pem does not exist"])


@pytest.mark.parametrize(
    ("file", "words"), [("certificate", "no certificate in PEM"), ("key", "no private key in PEM")]
)
def test_a_file_that_is_something_else(at: Place, file: str, words: str) -> None:
    (at.path.parent / f"tls/{file}.pem").write_text("junk")
    status, told = at.told()
    assert (status, len(told)) == (2, 1)
    assert told[0].endswith(f"tls.{file}: {at.path.parent}/tls/{file}.pem is {words}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become the owner of the spool")
def test_a_key_that_the_owner_of_the_spool_cannot_read(at: Place) -> None:
    home = at.path.parent
    for directory in (home, *home.parents):
        if directory.stat().st_uid == os.geteuid() and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o011)
    (home / "tls").chmod(0o755)
    os.chown(at.spool, 12345, 12345)
    words = f"cannot be read by 12345, to whom {at.spool} belongs: Permission denied"
    assert at.told() == (2, [f"6:8: tls.key: {home}/tls/key.pem {words}"])
    assert (os.geteuid(), os.getegid()) == (0, os.getgid())


def test_a_secret_that_the_next_start_would_refuse(at: Place) -> None:
    file = at.spool / "identity.secret"
    file.write_text("0" * 64)
    file.chmod(0o644)
    status, (told,) = at.told()
    assert (status, told.split(": ")[1]) == (2, "identity.secret")
    assert f"{file} is open to others than its owner (mode 0644)" in told
    file.chmod(0o600)
    assert at.told() == (0, [])


def test_a_secret_that_the_first_start_can_make_nowhere(at: Place) -> None:
    with at.path.open("a") as file:
        file.write("identity: {secret: nowhere/secret}\n")
    nowhere = at.path.parent / "nowhere"
    words = f"9:20: identity.secret: {nowhere}/secret cannot be made: {nowhere} does not exist"
    assert at.told() == (2, [words])


def test_a_key_of_another_certificate(at: Place) -> None:
    at.certificate()
    shutil.copyfile(self_signed(["x.test"], at.path.parent / "other")[1], at.path.parent / "tls/key.pem")
    tls = at.path.parent / "tls"
    words = f"tls.key: {tls}/key.pem does not fit the certificate in {tls}/certificate.pem"
    assert at.told() == (2, [f"6:8: {words}"])
    chain = (at.path.parent / "other/certificate.pem").read_text()
    with (tls / "certificate.pem").open("a") as file:
        file.write(chain)
    assert at.told() == (2, [f"6:8: {words}: its own has to stand first in that file"])


@pytest.mark.parametrize(
    ("days", "status", "words"),
    [(-1, 2, "has expired on"), (13, 0, "expires on"), (15, 0, "")],
    ids=["over", "soon", "later"],
)
def test_a_certificate_that_ends(at: Place, days: int, status: int, words: str) -> None:
    at.certificate(days=days)
    label = "" if status else "warning: "
    file = at.path.parent / "tls/certificate.pem"
    told = [f"5:16: {label}tls.certificate: {file} {words} {at.date(days)}: renew it"] if words else []
    assert at.told() == (status, told)


@pytest.mark.parametrize(
    ("name", "told"),
    [("*.example.com", False), ("MAIL.example.com", False), ("*.com", True), ("example.com", True)],
)
def test_a_certificate_for_another_name(at: Place, name: str, told: bool) -> None:
    at.certificate(name)
    status, lines = at.told()
    words = f"is for {name}, localhost and not for mail.example.com"
    assert status == 0
    assert [
        f"warning: tls.certificate: {at.path.parent}/tls/certificate.pem {words}" in each for each in lines
    ] == ([True] if told else [])


def test_a_source_that_this_machine_does_not_have(at: Place) -> None:
    at.replace("spool:", "sources:\n  here: 127.0.0.1\n  gone:\n    address: 192.0.2.7\nspool:")
    words = "mail cannot leave from 192.0.2.7: Cannot assign requested address"
    assert at.told() == (2, [f"10:14: sources.gone.address: {words}"])


def test_a_name_to_listen_at_that_nobody_can_have(at: Place) -> None:
    at.replace("bind: 127.0.0.1:0\n", f"bind: {'ä' * 70}:2525\n")
    status, told = at.told()
    assert (status, len(told)) == (2, 1)
    assert told[0].startswith("3:11: listeners[0].bind: nobody can listen at ")


@pytest.mark.parametrize(
    ("first", "second", "collide"),
    [
        ("127.0.0.1:2525", "127.0.0.1:2525", True),
        ("0.0.0.0:2525", "127.0.0.1:2525", True),
        ("127.0.0.1:2525", '"[::]:2525"', True),
        ('"[::1]:2525"', "127.0.0.1:2525", False),
        ("127.0.0.1:2525", "127.0.0.1:2526", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
    ],
)
def test_two_listeners_at_one_port(at: Place, first: str, second: str, collide: bool) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("there is no IPv6 here")
    at.replace("  - bind: 127.0.0.1:0", f"  - bind: {first}\n  - bind: {second}\n    tls: implicit")
    words = f"{second} is taken by listeners[0].bind, which says {first}".replace('"', "")
    assert at.told() == ((2, [f"4:11: listeners[1].bind: {words}"]) if collide else (0, []))


def test_a_listener_at_the_port_of_monitoring(at: Place) -> None:
    at.replace("bind: 127.0.0.1:0\n", "bind: 0.0.0.0:8025\n")
    at.replace("{bind: 127.0.0.1:0}", "{bind: 127.0.0.1:8025}")
    words = "127.0.0.1:8025 is taken by listeners[0].bind, which says 0.0.0.0:8025"
    assert at.told() == (2, [f"8:15: admin.bind: {words}"])


@pytest.mark.parametrize(
    ("listener", "is_served"),
    [
        ("bind: 127.0.0.1:0", False),
        ("{bind: 0.0.0.0:0, auth: network}", True),
        ("{bind: 127.0.0.1:0, tls: none, auth: network}", False),
    ],
    ids=["password", "network", "only-for-this-machine"],
)
def test_a_bound_credential_that_no_listener_serves(at: Place, listener: str, is_served: bool) -> None:
    at.credential("office", networks=("10.0.0.0/8",), kind="network")
    at.replace("bind: 127.0.0.1:0\n", f"{listener}\n")
    words = "add one with auth: network, at an address that its networks can reach"
    told = [] if is_served else [f"3:3: listeners: no mail can come in by office: {words}"]
    assert at.told() == (2 if told else 0, told)


def test_listeners_of_ones_own_that_shut_the_passwords_out(at: Place) -> None:
    at.credential("app")
    at.replace("bind: 127.0.0.1:0\n", "{bind: 127.0.0.1:0, auth: network}\n")
    assert at.told() == (2, ["3:3: listeners: no mail can come in by app: add one with auth: password"])


def test_a_password_file_of_a_route_that_cannot_be_used(at: Place) -> None:
    route = "routes:\n  Example.ORG: {host: 127.0.0.1:25, user: a, password_file: secret}\nspool:"
    at.replace("spool:", route)
    key = "8:61: routes.Example.ORG.password_file: "
    file = at.path.parent / "secret"
    assert at.told() == (2, [f"{key}{file} does not exist"])
    file.write_bytes(b"\n")
    assert at.told() == (2, [f"{key}{file} is empty"])
    file.write_bytes(b"\xff")
    assert at.told() == (2, [f"{key}{file} is not UTF-8"])
    file.write_bytes(b"s\xc3\xa9cret\n")
    assert at.told() == (0, [])


def test_a_warning_is_told_as_such_to_programs(at: Place) -> None:
    at.certificate(days=5)
    (problem,) = json.loads(config(at.path, "check", "--json").stdout)["problems"]
    assert (problem["severity"], problem["line"], problem["key"]) == ("warning", 5, "tls.certificate")


def test_a_signer_that_nobody_added_is_an_error_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "mta.yaml"
    path.write_text(
        'hostname: mx.example.com\nlisteners: [{bind: "127.0.0.1:0", tls: none, auth: network}]\n'
        "spool: {path: spool}\nidentity: {default: src.test, second: lopo.test}\n"
    )
    with DomainStore(tmp_path / "spool") as store:
        store.put(SendingDomain("src.test"))
    checked = CliRunner().invoke(main, ["--config", str(path), "config", "check"])
    assert "4:" in checked.output
    assert "nobody has added lopo.test: mta domain add lopo.test" in checked.output
    assert "src.test: mta" not in checked.output
