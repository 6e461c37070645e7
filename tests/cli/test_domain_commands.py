"""`mta domain` as an operator types it, with a real settings file, store and keys."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mta.cli.main import main
from mta.core.domain import KeyState, SendingDomain
from mta.signing.keys import KeyFolder, Secret, generate
from mta.store.domains import DomainStore

SETTINGS = """\
hostname: mx.example.com
listeners:
  - {bind: "127.0.0.1:0", tls: none, auth: network}
spool:
  path: spool
"""
SMALL = ("--algorithm", "ed25519")

Run = Callable[..., Result]


@pytest.fixture
def mta(tmp_path: Path) -> Run:
    path = tmp_path / "mta.yaml"
    path.write_text(SETTINGS)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["--config", str(path), "domain", *arguments])

    return run


def stored(tmp_path: Path, name: str = "src.test") -> SendingDomain | None:
    with DomainStore(tmp_path / "spool") as store:
        return store.get(name)


def done(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.output


def refused(result: Result, status: int = 1) -> str:
    assert result.exit_code == status, result.output
    return result.output


def test_what_add_prints_is_the_record_of_the_key_that_signs(tmp_path: Path, mta: Run) -> None:
    output = done(mta("add", "SRC.test", "--selector", "s1"))
    domain = stored(tmp_path)
    assert domain is not None
    ((zone, strings),) = re.findall(r"(?m)^(\S+) IN TXT \( (.+) \)$", output)
    assert zone == "s1._domainkey.src.test."
    parts = re.findall(r'"([^"]*)"', strings)
    assert max(map(len, parts)) <= 255
    assert domain.signers[0].is_shown_by("".join(parts).encode())
    assert "PRIVATE" not in output


def test_everything_that_narrows_a_domain_is_kept_and_shown(tmp_path: Path, mta: Run) -> None:
    options = "--subdomains --stream bulk --return-path bounces.src.test --unsigned send --algorithm both"
    shown = json.loads(done(mta("add", "src.test", *options.split(), "--json")))
    domain = stored(tmp_path)
    assert domain is not None
    assert (domain.subdomains, domain.streams, domain.return_path) == (True, ("bulk",), "bounces.src.test")
    assert [key.algorithm for key in domain.signers] == ["rsa-sha256", "ed25519-sha256"]
    assert shown["unsigned"] == "send"
    assert json.loads(done(mta("list", "--json"))) == [shown]
    assert json.loads(done(mta("show", "src.test", "--json"))) == shown


def test_a_key_of_ones_own_is_taken_under_its_selector(tmp_path: Path, mta: Run) -> None:
    own = generate("ed25519-sha256")
    file = tmp_path / "own.pem"
    file.write_bytes(own.pem)
    done(mta("add", "src.test", "--selector", "old", "--key", str(file)))
    domain = stored(tmp_path)
    assert domain is not None
    assert [(key.selector, key.public) for key in domain.signers] == [("old", own.public)]


def test_a_rotation_goes_through_its_states_by_hand(tmp_path: Path, mta: Run) -> None:
    def states() -> dict[str, str]:
        return {
            key["selector"]: key["state"]
            for key in json.loads(done(mta("show", "src.test", "--json")))["keys"]
        }

    done(mta("add", "src.test", *SMALL, "--selector", "s1"))
    refused(mta("retire", "src.test", "s1"))
    made = json.loads(done(mta("rotate", "src.test", "--json")))["keys"]
    new = next(key["selector"] for key in made if key["state"] == "pending")
    done(mta("activate", "src.test", new))
    assert states() == {"s1": "retiring", new: "active"}
    done(mta("retire", "src.test", "s1"))
    assert states() == {"s1": "retired", new: "active"}
    assert [file.stem for file in (tmp_path / "spool/keys/src.test").iterdir()] == [new]
    assert '"v=DKIM1; k=ed25519; p="' in done(mta("show", "src.test"))
    assert "cannot become active" in refused(mta("activate", "src.test", "s1"))


def test_a_domain_that_is_removed_takes_its_keys_with_it(tmp_path: Path, mta: Run) -> None:
    done(mta("add", "src.test", *SMALL))
    done(mta("remove", "src.test"))
    assert stored(tmp_path) is None
    assert not (tmp_path / "spool/keys/src.test").exists()
    assert "there is no domain 'src.test': mta domain add src.test" in refused(mta("show", "src.test"))
    assert "mail goes unsigned" in done(mta("list"))


def test_a_domain_that_is_there_is_not_added_again(mta: Run) -> None:
    done(mta("add", "src.test", *SMALL))
    assert "src.test is there already: mta domain show src.test" in refused(mta("add", "src.test"))


def lose_store(tmp_path: Path) -> None:
    for file in (tmp_path / "spool").glob("store.db*"):
        file.unlink()


def leave(tmp_path: Path, secret: Secret) -> None:
    """As a command does that ends before its domain is in the store."""
    (tmp_path / "spool").mkdir(exist_ok=True)
    KeyFolder(tmp_path / "spool").keep("src.test", "s1", secret)


def secrets(tmp_path: Path) -> list[str]:
    return sorted(file.name for file in (tmp_path / "spool/keys/src.test").iterdir())


def test_keys_whose_domain_was_lost_are_taken_up_by_add(tmp_path: Path, mta: Run) -> None:
    done(mta("add", "src.test", *SMALL, "--selector", "s1"))
    done(mta("rotate", "src.test"))
    lose_store(tmp_path)
    done(mta("add", "src.test"))
    domain = stored(tmp_path)
    assert domain is not None
    assert [key.state for key in domain.keys] == [KeyState.ACTIVE, KeyState.PENDING]
    assert [key.selector for key in domain.signers] == ["s1"]


@pytest.mark.parametrize("own", [True, False])
def test_an_add_that_was_cut_off_is_done_by_the_same_words_again(tmp_path: Path, mta: Run, own: bool) -> None:
    made = generate("ed25519-sha256")
    (tmp_path / "own.pem").write_bytes(made.pem)
    words = ("--key", str(tmp_path / "own.pem")) if own else SMALL
    leave(tmp_path, made)
    done(mta("add", "src.test", "--selector", "s1", *words))
    domain = stored(tmp_path)
    assert domain is not None
    assert [(key.selector, key.public) for key in domain.signers] == [("s1", made.public)]


def test_what_add_is_asked_for_is_made_beside_what_lies_there(tmp_path: Path, mta: Run) -> None:
    leave(tmp_path, generate("ed25519-sha256"))
    assert "has a key 's1' already: take another" in refused(mta("add", "src.test", "--selector", "s1"))
    done(mta("add", "src.test", "--algorithm", "both"))
    domain = stored(tmp_path)
    assert domain is not None
    assert [key.algorithm for key in domain.keys] == ["ed25519-sha256", "rsa-sha256"]
    done(mta("remove", "src.test"))
    leave(tmp_path, generate("ed25519-sha256"))
    done(mta("add", "src.test", *SMALL, "--selector", "s2"))
    assert secrets(tmp_path) == ["s1.pem", "s2.pem"]


def test_an_add_that_the_store_refuses_leaves_no_secret_behind(tmp_path: Path, mta: Run) -> None:
    done(mta("add", "other.test", *SMALL))
    with closing(sqlite3.connect(tmp_path / "spool/store.db")) as connection, connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON dkim_key BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
    assert "no room" in refused(mta("add", "src.test", "--algorithm", "both"))
    assert stored(tmp_path) is None
    assert secrets(tmp_path) == []
    assert "no room" in refused(mta("rotate", "other.test"))
    assert len(list((tmp_path / "spool/keys/other.test").iterdir())) == 1


def test_of_two_adds_at_once_one_is_done_and_every_secret_is_of_a_key(tmp_path: Path, mta: Run) -> None:
    command = (
        sys.executable,
        "-m",
        "mta",
        "--config",
        str(tmp_path / "mta.yaml"),
        "domain",
        "add",
        "src.test",
    )
    begun = [subprocess.Popen((*command, *SMALL), stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[1] for process in begun]
    assert sorted(process.returncode for process in begun) == [0, 1], said
    domain = stored(tmp_path)
    assert domain is not None
    assert secrets(tmp_path) == sorted(f"{key.selector}.pem" for key in domain.keys)
    assert all(KeyFolder(tmp_path / "spool").complaint("src.test", key) == "" for key in domain.keys)


def test_one_domain_that_cannot_be_read_hides_no_other_and_can_be_removed(tmp_path: Path, mta: Run) -> None:
    done(mta("add", "good.test", *SMALL))
    before = json.loads(done(mta("add", "bad.test", *SMALL, "--json")))["keys"]
    with closing(sqlite3.connect(tmp_path / "spool/store.db")) as connection, connection:
        connection.execute("UPDATE domain SET streams = '?' WHERE name = 'bad.test'")
    listed = mta("list", "--json")
    assert [each["name"] for each in json.loads(done(listed) and listed.stdout)] == ["good.test"]
    assert "'bad.test' cannot be read" in listed.stderr
    assert "mta domain remove bad.test, and add it anew" in listed.stderr
    assert "its keys wait for mta domain add bad.test" in done(mta("remove", "bad.test"))
    assert mta("list").stderr == ""
    again = json.loads(done(mta("add", "bad.test", "--json")))["keys"]
    assert [key["record"] for key in again] == [key["record"] for key in before]  # that DNS shows


def test_keys_of_a_lost_domain_can_be_removed_and_nothing_outside_of_their_folder(
    tmp_path: Path, mta: Run
) -> None:
    leave(tmp_path, generate("ed25519-sha256"))
    for name in ("..", "../spool", ".", "", "/"):
        assert f"there is no domain {name!r}" in refused(mta("remove", name))
    done(mta("remove", "SRC.test"))
    assert not (tmp_path / "spool/keys/src.test").exists()
    assert "there is no domain 'src.test'" in refused(mta("remove", "src.test"))


@pytest.mark.parametrize("misfortune", ["gone", "another"])
def test_a_key_whose_secret_is_not_there_is_not_activated(tmp_path: Path, mta: Run, misfortune: str) -> None:
    done(mta("add", "src.test", *SMALL, "--selector", "s1"))
    (new,) = (
        key["selector"]
        for key in json.loads(done(mta("rotate", "src.test", "--json")))["keys"]
        if key["state"] == "pending"
    )
    (tmp_path / f"spool/keys/src.test/{new}.pem").unlink()
    if misfortune == "another":
        KeyFolder(tmp_path / "spool").keep("src.test", new, generate("ed25519-sha256"))
    words = {"gone": "No such file", "another": "is not the one of its record"}
    assert words[misfortune] in refused(mta("activate", "src.test", new))
    domain = stored(tmp_path)
    assert domain is not None
    assert [key.selector for key in domain.signers] == ["s1"]


def test_a_new_kind_of_key_waits_for_its_record_as_any_other(tmp_path: Path, mta: Run) -> None:
    done(mta("add", "src.test", *SMALL, "--selector", "s1"))
    made = json.loads(done(mta("rotate", "src.test", "--algorithm", "rsa", "--json")))["keys"]
    assert [(key["algorithm"], key["state"]) for key in made] == [
        ("ed25519-sha256", "active"),
        ("rsa-sha256", "pending"),
    ]


def test_whoever_retires_the_key_that_receivers_know_is_warned(mta: Run) -> None:
    both = json.loads(done(mta("add", "src.test", "--algorithm", "both", "--json")))["keys"]
    by_kind = {key["algorithm"]: key["selector"] for key in both}
    retired = mta("retire", "src.test", by_kind["rsa-sha256"])
    assert "signs with " + by_kind["ed25519-sha256"] in done(retired)
    assert retired.stderr == (
        "no RSA key of src.test signs, and few receivers check another: "
        "mta domain rotate src.test --algorithm rsa\n"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", "test"), "it is a top-level domain"),
        (("add", "a b.test"), "is no domain: write a name such as mail.example.com"),
        (("add", "src.test", "--return-path", "[192.0.2.1]"), "is no return path"),
        (("add", "src.test", "--stream", "none"), "there is no stream 'none': the settings have"),
        (("add", "src.test", "--key", "x.pem"), "--key needs --selector"),
        (("add", "src.test", "--selector", "s", "--algorithm", "both"), "--algorithm both makes two"),
        (("add", "src.test", "--selector", "a b"), "is no selector"),
        (
            ("add", "src.test", "--selector", "s", "--key", "x.pem", "--algorithm", "rsa"),
            "leave out --algorithm",
        ),
        (("show", "a b"), "is no domain"),
    ],
)
def test_a_wrong_word_is_a_wrong_command_line(mta: Run, arguments: tuple[str, ...], words: str) -> None:
    assert words in " ".join(refused(mta(*arguments), 2).split())


def test_a_key_file_that_is_none_is_refused_and_nothing_is_added(tmp_path: Path, mta: Run) -> None:
    file = tmp_path / "own.pem"
    file.write_text("no key")
    assert "is no private key in PEM form" in refused(
        mta("add", "src.test", "--selector", "s1", "--key", str(file))
    )
    assert stored(tmp_path) is None
