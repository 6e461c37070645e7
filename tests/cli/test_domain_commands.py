"""`mta domain` as an operator types it, with a real settings file, store and keys."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mta.cli.main import main
from mta.core.domain import KeyState, SendingDomain
from mta.signing.keys import generate
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


def test_keys_whose_domain_was_lost_are_taken_up_by_add(tmp_path: Path, mta: Run) -> None:
    done(mta("add", "src.test", *SMALL, "--selector", "s1"))
    for file in (tmp_path / "spool").glob("store.db*"):
        file.unlink()
    done(mta("add", "src.test"))
    domain = stored(tmp_path)
    assert domain is not None
    assert [(key.selector, key.state) for key in domain.keys] == [("s1", KeyState.ACTIVE)]


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
