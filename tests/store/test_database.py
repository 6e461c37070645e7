"""The file `store.db`: begun, upgraded, damaged, full, and written by one thread."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from mta.core.route.hosts import NOTHING, HostMemory, Peer
from mta.store.database import SCRIPTS, Database, NewerError, StoreError
from mta.store.hosts import HostStore
from tests.fakes.stored import memories, remember

MX = Peer("mx.test", 25, "192.0.2.1")
DEAD = NOTHING.failed(1_800_000_000.0, "Connection refused")


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[tuple[Database, HostStore, list[str]]]:
    """The store, and what it says of a new file."""
    database = Database(directory / "store.db")
    said: list[str] = []
    database.on_new = said.append
    await database.open()
    try:
        yield database, HostStore(database), said
    finally:
        await database.close()


async def loaded(directory: Path) -> dict[Peer, HostMemory]:
    async with opened(directory) as (_, hosts, _):
        return await hosts.load(100)


async def test_what_was_saved_comes_back_the_newest_last(tmp_path: Path) -> None:
    await remember(tmp_path / "store.db")
    async with opened(tmp_path) as (_, hosts, said):
        found = await hosts.load(100)
        assert found == memories()
        ages = [max(memory.tried, memory.tls_since) for memory in found.values()]
        assert ages == sorted(ages)
        assert list(await hosts.load(1)) == list(found)[-1:]
        assert said == []
    assert stat.S_IMODE((tmp_path / "store.db").stat().st_mode) == 0o600


async def test_what_is_forgotten_is_gone(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, hosts, _):
        await hosts.save({MX: DEAD, MX._replace(port=26): DEAD})
        await hosts.save({MX: None})
    assert list(await loaded(tmp_path)) == [MX._replace(port=26)]


async def test_a_memory_that_cannot_be_read_takes_no_other_with_it(tmp_path: Path) -> None:
    await remember(tmp_path / "store.db")
    with closing(sqlite3.connect(tmp_path / "store.db")) as connection, connection:
        connection.execute("UPDATE host SET failures = -1 WHERE name = 'mx3.test'")
    assert len(await loaded(tmp_path)) == len(memories()) - 1


async def test_a_file_that_is_no_database_is_set_aside_and_a_new_one_begun(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"no database" * 1000)
    async with opened(tmp_path) as (_, hosts, said):
        await hosts.save({MX: DEAD})
        (words,) = said
        assert words.startswith(f"{tmp_path}/store.db is damaged (file is not a database): ")
        assert words.endswith("it is kept as store.db.damaged, and a new one is begun")
    assert (tmp_path / "store.db.damaged").read_bytes() == b"no database" * 1000
    assert await loaded(tmp_path) == {MX: DEAD}


async def test_a_damaged_page_is_seen_when_the_file_is_opened(tmp_path: Path) -> None:
    await fill(tmp_path)
    overwrite(tmp_path)
    async with opened(tmp_path) as (_, hosts, said):
        assert await hosts.load(100) == {}
        assert len(said) == 1


async def test_a_damaged_page_that_is_met_later_begins_a_new_file(tmp_path: Path) -> None:
    await fill(tmp_path)
    async with opened(tmp_path) as (database, hosts, said):
        await database.run(lambda connection: connection.execute("PRAGMA cache_size = 0"))
        overwrite(tmp_path)
        with pytest.raises(StoreError):
            await hosts.load(-1)
        await hosts.save({MX: DEAD})
        assert len(said) == 1
        assert await hosts.load(100) == {MX: DEAD}
    assert (tmp_path / "store.db.damaged").exists()


async def fill(directory: Path) -> None:
    """So many that they fill pages."""
    async with opened(directory) as (_, hosts, _):
        await hosts.save({Peer(f"mx{n}.test", 25, "192.0.2.1"): DEAD for n in range(1000)})


def overwrite(directory: Path) -> None:
    with (directory / "store.db").open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))


async def test_a_file_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    await remember(tmp_path / "store.db")
    with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        connection.execute(f"PRAGMA user_version = {len(SCRIPTS) + 1}")
    with pytest.raises(NewerError, match="start the newer version again"):
        await Database(tmp_path / "store.db").open()
    assert not (tmp_path / "store.db.damaged").exists()


async def test_a_file_that_cannot_be_opened_is_tried_again(tmp_path: Path) -> None:
    async with opened(tmp_path / "gone") as (_, hosts, said):
        with pytest.raises(StoreError, match="No such file or directory"):
            await hosts.load(100)
        (tmp_path / "gone").mkdir()
        await hosts.save({MX: DEAD})
        assert (await hosts.load(100), said) == ({MX: DEAD}, [])


async def test_a_save_that_is_cut_off_leaves_what_was_saved_before(tmp_path: Path) -> None:
    """What a kill would find is what lies on the disk in the middle of it."""
    (tmp_path / "found").mkdir()

    def half(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM host")
        for file in ("store.db", "store.db-wal"):
            shutil.copy(tmp_path / file, tmp_path / "found")

    async with opened(tmp_path) as (database, hosts, _):
        await hosts.save({MX: DEAD})
        await database.run(half)
    assert await loaded(tmp_path / "found") == {MX: DEAD}
    assert await loaded(tmp_path) == {}


async def test_work_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def spoil(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM host")
        raise ValueError("of ours")

    async with opened(tmp_path) as (database, hosts, _):
        await hosts.save({MX: DEAD})
        with pytest.raises(ValueError, match="of ours"):
            await database.run(spoil)
        with pytest.raises(StoreError, match="no such table"):
            await database.run(lambda connection: connection.execute("DELETE FROM nowhere"))
        assert await hosts.load(100) == {MX: DEAD}
