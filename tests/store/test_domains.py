"""Sending domains in `store.db`, between the daemon's connections and commands that are processes."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest

from mta.core.domain import DomainKey, KeyState, SendingDomain
from mta.store import domains
from mta.store.credentials import CredentialStore
from mta.store.database import Database, StoreError
from mta.store.domains import DomainStore

ADD = """
import sys
from pathlib import Path
from mta.core.domain import SendingDomain
from mta.store.domains import DomainStore
with DomainStore(Path(sys.argv[1])) as store:
    print(*(domain.name for domain in store.all()))
    store.put(SendingDomain(sys.argv[2]))
"""
ADD_CREDENTIAL = """
import sys
from pathlib import Path
from mta.core.credential import Credential
from mta.store.credentials import CredentialStore
with CredentialStore(Path(sys.argv[1])) as store:
    store.add(Credential(sys.argv[2], "acme", "bulk", kind="key"), "mta_1")
"""


async def elsewhere(script: str, *arguments: object) -> list[str]:
    """A process that ends with it, and so is the last user of a file that nobody has locked."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *map(str, arguments), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode().split()


@asynccontextmanager
async def daemon(directory: Path) -> AsyncIterator[tuple[Database, DomainStore]]:
    """Both of its connections, in its order."""
    database, store = Database(directory / "store.db"), DomainStore(directory)
    await database.open()
    store.open()
    try:
        yield database, store
    finally:
        store.close()
        await database.close()


def names(store: DomainStore) -> list[str]:
    return [domain.name for domain in store.all()]


async def test_commands_that_end_take_nothing_from_under_the_daemon(tmp_path: Path) -> None:
    """It lost its locks by a close of another descriptor, and the first command took the WAL away."""

    def own(connection: sqlite3.Connection) -> None:
        domains.write(connection, SendingDomain("own.test"))

    async with daemon(tmp_path) as (database, store):
        for name in ("one.test", "two.test"):
            before = store.look()
            await elsewhere(ADD, tmp_path, name)
            assert store.look() != before
            assert store.find(name) == SendingDomain(name)
            assert (tmp_path / "store.db-wal").exists()
        await database.run(own)
        assert await elsewhere(ADD, tmp_path, "three.test") == ["one.test", "own.test", "two.test"]
        assert names(store) == ["one.test", "own.test", "three.test", "two.test"]


async def test_a_connection_that_is_opened_anew_takes_no_lock_from_its_neighbour(tmp_path: Path) -> None:
    async with daemon(tmp_path) as (database, store):
        await database.close()
        await database.open()
        await elsewhere(ADD, tmp_path, "one.test")
        store.open()
        await elsewhere(ADD, tmp_path, "two.test")
        assert names(store) == ["one.test", "two.test"]
        assert await database.run(lambda connection: len(list(domains.read_all(connection)))) == 2


async def test_a_second_store_of_credentials_in_the_process_takes_no_lock_away(tmp_path: Path) -> None:
    path = tmp_path / "credentials.db"
    with CredentialStore(path) as store:
        with CredentialStore(path):
            pass
        for login in ("one", "two"):
            await elsewhere(ADD_CREDENTIAL, path, login)
            store.look()
            assert store.find(login) is not None


BOTH = """
import sys
from pathlib import Path
from mta.core.credential import Credential
from mta.core.domain import SendingDomain
from mta.store.credentials import CredentialStore
from mta.store.domains import DomainStore
directory, name = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
with DomainStore(directory) as domains, CredentialStore(directory / "credentials.db") as credentials:
    domains.put(SendingDomain(name))
    credentials.add(Credential(name, "acme", "bulk", kind="key"), "mta_1")
"""


async def test_of_some_who_begin_a_new_store_at_once_each_finds_it_whole(tmp_path: Path) -> None:
    """Each ran all scripts, and who came second found tables that were there already."""
    piped = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    wanted = [f"d{n}.test" for n in range(4)]
    begun = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", BOTH, str(tmp_path), name, **piped)
        for name in wanted
    ]
    for process in begun:
        assert process.stdout is not None
        await process.stdout.readline()
    await asyncio.gather(*(process.communicate(b"\n") for process in begun))
    assert [process.returncode for process in begun] == [0] * len(begun)
    with DomainStore(tmp_path) as store, CredentialStore(tmp_path / "credentials.db") as credentials:
        assert names(store) == list(credentials.current()) == wanted


def test_of_two_who_add_a_domain_at_once_the_second_is_refused(tmp_path: Path) -> None:
    key = DomainKey("s1", "ed25519-sha256", "b25l", KeyState.ACTIVE, 0.0, 0.0)
    with DomainStore(tmp_path) as store, DomainStore(tmp_path) as other:
        assert store.get("src.test") is other.get("src.test") is None
        store.put(SendingDomain("src.test", keys=(key,)))
        with pytest.raises(StoreError, match="is there already: mta domain show"):
            other.put(SendingDomain("src.test", keys=(replace(key, selector="s2"),)))
        assert store.get("src.test") == SendingDomain("src.test", keys=(key,))


def test_domains_that_cannot_be_read_take_no_other_with_them_and_can_be_removed(tmp_path: Path) -> None:
    with DomainStore(tmp_path) as store:
        for name in ("a.test", "b.test", "c.test", "d.test"):
            store.put(SendingDomain(name))
        spoil(tmp_path, "UPDATE domain SET streams = '?' WHERE name = 'a.test'")
        spoil(tmp_path, "UPDATE domain SET return_path = CAST(x'ff' AS TEXT) WHERE name = 'b.test'")
        spoil(tmp_path, "UPDATE domain SET name = CAST(x'63ff' AS TEXT) WHERE name = 'c.test'")
        store.look()
        assert names(store) == ["d.test"]
        assert [each.name for each in store.unread()] == ["a.test", "b.test", "c\ufffd"]
        for name in ("a.test", "b.test"):
            with pytest.raises(StoreError, match=f"the domain '{name}' cannot be read"):
                store.find(name)
            assert store.remove(name)
            assert not store.remove(name)
        assert [each.name for each in store.unread()] == ["c\ufffd"]


def spoil(directory: Path, statement: str) -> None:
    with closing(sqlite3.connect(directory / "store.db")) as connection, connection:
        connection.execute(statement)


def test_a_store_that_could_not_be_opened_is_opened_when_it_can_be(tmp_path: Path) -> None:
    """Until then nobody is said not to have been added: their mail would go unsigned."""
    directory = tmp_path / "spool"
    store = DomainStore(directory)
    for misfortune in (directory.touch, lambda: damaged(directory)):
        misfortune()
        for _ in range(2):
            with pytest.raises(StoreError):
                store.open()
            with pytest.raises(StoreError, match="is not open"):
                store.look()
            with pytest.raises(StoreError, match="is not open"):
                store.find("src.test")
            assert not store.is_empty
    (directory / "store.db").unlink()
    store.open()
    assert store.is_empty
    assert store.find("src.test") is None
    store.close()


def damaged(directory: Path) -> None:
    directory.unlink()
    directory.mkdir()
    (directory / "store.db").write_bytes(b"no database" * 1000)
