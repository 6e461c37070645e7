"""What domains send to providers, in `store.db`: kept, forgotten, the newest first."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from mta.core.limits.day import Day
from mta.store.database import Database, StoreError
from mta.store.volumes import VolumeStore


async def test_what_was_counted_comes_back_and_what_is_forgotten_does_not(tmp_path: Path) -> None:
    database = Database(tmp_path / "store.db")
    await database.open()
    store = VolumeStore(database)
    old, new = Day(100), Day(200, told=5.0)
    old.add(100, 7)
    new.add(201, 8)
    await store.save({("a.test", "google"): old, ("b.test", "google"): new, ("c.test", "yahoo"): old})
    await store.save({("c.test", "yahoo"): None})
    found = await store.load(10)
    assert {pair: (day.hour, day.total, day.told) for pair, day in found.items()} == {
        ("b.test", "google"): (201, 8, 5.0),
        ("a.test", "google"): (100, 7, 0.0),
    }
    assert list(await store.load(1)) == [("b.test", "google")]
    await database.close()


async def test_counts_of_another_length_are_never_written(tmp_path: Path) -> None:
    database = Database(tmp_path / "store.db")
    await database.open()

    def write(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO volume VALUES ('a.test', 'google', 1, x'00', 0.0)")

    with pytest.raises(StoreError, match="CHECK"):
        await database.run(write)
    await database.close()
