"""`mta credential` as an operator types it, with a real settings file and store."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mta.cli.main import main
from mta.core.credential import Credential
from mta.core.limits.throttle import Rate
from mta.store.credentials import CredentialStore, proves_key, proves_password

SETTINGS = """\
hostname: mx.example.com
listeners:
  - {bind: "127.0.0.1:0", tls: none, auth: network}
spool:
  path: spool
"""

Run = Callable[..., Result]


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "mta.yaml"
    path.write_text(SETTINGS)
    return path


@pytest.fixture
def mta(settings: Path) -> Run:
    def run(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(main, ["--config", str(settings), "credential", *arguments], input=stdin)

    return run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "credentials.db"


def test_everything_that_narrows_a_credential_is_kept(mta: Run, path: Path) -> None:
    options = (
        "--sender example.com --sender bob@example.org --tenant acme --stream bulk,transactional "
        "--rate 20/30min --message-size 25M --recipients 50 --network 10.0.0.0/8 --key --no-notify --json"
    )
    result = mta("add", "app", *options.split())
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    with CredentialStore(path) as store:
        stored = store.current()["app"]
    assert stored.credential == Credential(
        login="app",
        tenant="acme",
        stream="bulk",
        streams=("bulk", "transactional"),
        senders=("example.com", "bob@example.org"),
        message_size=25 * 1024 * 1024,
        recipients=50,
        rate=Rate(20, 1800.0),
        networks=("10.0.0.0/8",),
        notify=False,
        kind="key",
    )
    assert shown["rate"] == "20/30min"
    assert proves_key(shown["secret"].encode(), stored.verifier)


def test_password_is_generated_and_shown_once(mta: Run, path: Path) -> None:
    added = mta("add", "ann")
    secret = added.stdout.split()[-1]
    with CredentialStore(path) as store:
        assert proves_password(secret.encode(), store.current()["ann"].verifier)
    assert secret not in mta("list").stdout + mta("list", "--json").stdout


def test_password_from_standard_input_is_not_echoed(mta: Run, path: Path) -> None:
    result = mta("add", "ann", "--password-stdin", stdin="correct horse \r\n")
    assert "horse" not in result.output
    with CredentialStore(path) as store:
        assert proves_password(b"correct horse ", store.current()["ann"].verifier)


def test_new_secret_is_of_the_same_kind(mta: Run, path: Path) -> None:
    mta("add", "app", "--key")
    secret = json.loads(mta("passwd", "app", "--json").stdout)["secret"]
    assert secret.startswith("mta_")
    with CredentialStore(path) as store:
        assert proves_key(secret.encode(), store.current()["app"].verifier)
    assert mta("passwd", "app", "--password-stdin", stdin="correct horse\n").exit_code == 2


def test_bound_network_has_no_secret_to_show(mta: Run) -> None:
    assert "secret" not in mta("add", "rack", "--bound", "--network", "10.0.0.0/8").output
    assert "secret" not in json.loads(mta("list", "--json").stdout)[0]
    assert mta("passwd", "rack").exit_code == 1


def test_list_and_remove(mta: Run) -> None:
    assert "nobody may submit yet" in mta("list").stderr
    assert json.loads(mta("list", "--json").stdout) == []
    mta("add", "app", "--key", "--sender", "example.com", "--rate", "5/s")
    assert mta("list").stdout == (
        "app: key, tenant default, stream transactional, from example.com, rate 5/s\n"
    )
    mta("add", "two", "--key", "--stream", "bulk,transactional")
    assert "\ntwo: key, tenant default, stream bulk transactional, from *\n" in mta("list").stdout
    assert json.loads(mta("remove", "app", "--json").stdout) == {"login": "app", "removed": True}
    gone = mta("remove", "app")
    assert (gone.exit_code, gone.stderr) == (1, "Error: there is no credential 'app'\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--stream bulk,", "there is no stream '': the settings have transactional, bulk"),
        ("--stream newsletter", "there is no stream 'newsletter': the settings have transactional, bulk"),
        ("--rate 100", "'100' is not a rate: write 10/s"),
        ("--message-size 25", "'25' is not a size: write a whole number and a unit"),
        ("--sender ann@x@example.com", "write user@example.com, example.com or *"),
        ("--sender ann@example.com>", "write user@example.com, example.com or *"),
        ("--sender *.example.com", "write user@example.com, example.com or *"),
        ("--network 0.0.0.0/0", "too much of the internet"),
        ("--bound", "needs the networks"),
        ("--key --password-stdin", "exclude each other"),
    ],
)
def test_mistakes_are_told_and_nothing_is_kept(mta: Run, path: Path, arguments: str, words: str) -> None:
    result = mta("add", "app", *arguments.split())
    assert result.exit_code == 2
    assert words in result.stderr
    assert not path.exists()


def test_existing_login_and_short_password_are_refused(mta: Run) -> None:
    mta("add", "app", "--key")
    assert mta("add", "app", "--key").stderr == "Error: 'app' exists already: remove it first\n"
    assert "too short" in mta("add", "ann", "--password-stdin", stdin="\n").stderr


def test_every_mistake_in_the_settings_is_told(mta: Run, settings: Path) -> None:
    settings.write_text(SETTINGS + "limit: {}\nevent: {}\n")
    result = mta("list")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 2
