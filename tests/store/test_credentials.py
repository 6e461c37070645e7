"""The store of credentials on real files, between two connections."""

import sqlite3
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest
from argon2 import extract_parameters

from mta.core.credential import Credential
from mta.core.limits.throttle import Rate
from mta.store.credentials import CredentialError, CredentialStore, generate, proves_key, proves_password

KEY = Credential("app", "acme", "bulk", kind="key")
PASSWORD = Credential("ann", "acme", "transactional")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "credentials.db"


@pytest.fixture
def store(path: Path) -> Iterator[CredentialStore]:
    with CredentialStore(path) as store:
        yield store


def test_everything_that_was_added_comes_back(path: Path, store: CredentialStore) -> None:
    full = Credential(
        login="ann@example.com",
        tenant="acme",
        stream="bulk",
        senders=("example.com", "bob@example.org"),
        message_size=1024,
        recipients=7,
        rate=Rate(100, 60.0),
        networks=("10.0.0.0/8",),
        notify=False,
        kind="key",
    )
    store.add(full, generate("key"))
    store.add(KEY, generate("key"))
    with CredentialStore(path) as other:
        assert other.get(full.login) == full
        assert [stored.credential for stored in other.current().values()] == [full, KEY]


def test_a_change_elsewhere_is_seen_at_the_next_look(path: Path, store: CredentialStore) -> None:
    with CredentialStore(path) as other:
        other.add(KEY, generate("key"))
        before = store.look()
        assert store.look() == before
        assert store.find("app").credential == KEY
        other.remove("app")
        assert store.look() != before
        assert store.find("app") is None
        assert store.get("app") is None


def test_what_was_found_is_kept_until_a_look(path: Path, store: CredentialStore) -> None:
    """So a session that is looked at twice between two looks hears the same twice."""
    store.add(KEY, "mta_1")
    store.look()
    found = store.find("app")
    with CredentialStore(path) as other:
        other.replace_secret("app", "mta_2")
    assert store.find("app") is found
    store.look()
    assert proves_key(b"mta_2", store.find("app").verifier)


def test_one_row_that_is_damaged_takes_no_other_with_it(path: Path, store: CredentialStore) -> None:
    rack = Credential("rack", "acme", "bulk", networks=("10.0.0.0/8",), kind="network")
    row = Credential("row", "acme", "bulk", networks=("10.1.0.0/16",), kind="network")
    for credential in (KEY, rack, row):
        store.add(credential, "mta_1")
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE credential SET networks = '[\"10\"]', senders = '{' WHERE login = 'rack'")
    connection.close()
    with pytest.raises(CredentialError, match="'rack' cannot be read"):
        store.get("rack")
    assert store.get("app") == KEY
    assert store.bound() == [(ip_network("10.1.0.0/16"), "row")]
    store.add(Credential("new", "acme", "bulk", networks=("10.2.0.0/16",), kind="network"))
    store.remove("rack")


def test_own_changes_are_seen_too(store: CredentialStore) -> None:
    store.add(KEY, "mta_1")
    assert proves_key(b"mta_1", store.current()["app"].verifier)
    store.replace_secret("app", "mta_2")
    assert proves_key(b"mta_2", store.current()["app"].verifier)
    assert not proves_key(b"mta_1", store.current()["app"].verifier)


def test_password_is_kept_as_argon2id_only_and_no_login_costs_as_much(
    path: Path, store: CredentialStore
) -> None:
    store.add(PASSWORD, "correct horse")
    verifier = store.current()["ann"].verifier
    assert verifier.startswith("$argon2id$")
    assert proves_password(b"correct horse", verifier)
    assert not proves_password(b"battery staple", verifier)
    assert extract_parameters(store.impossible()) == extract_parameters(verifier)
    assert not proves_password(b"correct horse", store.impossible())
    files = list(path.parent.iterdir())
    assert not any(b"correct horse" in file.read_bytes() for file in files)


def test_keys_can_be_searched_for_and_hold_enough_dice() -> None:
    key = generate("key")
    assert key.startswith("mta_")
    assert len(bytes.fromhex(key.removeprefix("mta_"))) * 8 >= 160
    assert generate("key") != key


def test_files_are_ours_alone_even_where_they_were_not(path: Path) -> None:
    path.parent.mkdir()
    path.touch(mode=0o644)
    with CredentialStore(path) as store:
        store.add(KEY, generate("key"))
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(("credentials.db", "credentials.db-wal", "credentials.db-shm"), 0o600)


def test_login_that_exists_is_not_overwritten(store: CredentialStore) -> None:
    store.add(KEY, "mta_1")
    with pytest.raises(CredentialError, match="'app' exists already"):
        store.add(Credential("app", "evil", "bulk", kind="key"), "mta_2")
    assert store.get("app") == KEY


def test_unknown_login_is_neither_removed_nor_changed(store: CredentialStore) -> None:
    with pytest.raises(CredentialError, match="there is no credential 'nobody'"):
        store.remove("nobody")
    with pytest.raises(CredentialError, match="there is no credential 'nobody'"):
        store.replace_secret("nobody", "correct horse")


def test_network_has_no_secret_and_is_bound_once(store: CredentialStore) -> None:
    store.add(Credential("rack", "acme", "bulk", networks=("10.0.0.0/8",), kind="network"))
    with pytest.raises(CredentialError, match="has no secret"):
        store.replace_secret("rack", "correct horse")
    with pytest.raises(CredentialError, match=r"10\.0\.0\.0/8 is bound to 'rack' already"):
        store.add(Credential("row", "acme", "bulk", networks=("10.0.0.0/8",), kind="network"))


@pytest.mark.parametrize("secret", ["", "short"])
def test_short_password_is_refused(store: CredentialStore, secret: str) -> None:
    with pytest.raises(CredentialError, match="too short"):
        store.add(PASSWORD, secret)


def test_file_of_a_newer_version_is_left_alone(path: Path, store: CredentialStore) -> None:
    store.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(CredentialError, match="newer version"):
        store.open()


def test_file_that_is_no_database_is_told_with_its_name(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database, " * 100)
    with pytest.raises(CredentialError, match=r"credentials\.db: file is not a database"):
        CredentialStore(path).open()


def test_missing_directory_above_the_spool_is_not_invented(tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match="No such file or directory"):
        CredentialStore(tmp_path / "no" / "spool" / "credentials.db").open()


def test_closed_store_says_so(path: Path) -> None:
    with pytest.raises(CredentialError, match="is not open"):
        CredentialStore(path).current()
