"""The memory of hosts over restarts, with a store that is ill, and within its bound."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from mta.config.settings import Endpoint, StaticRoute
from mta.core.route.hosts import BELIEVED, NOTHING, Peer
from mta.delivery.hosts import SAVE_INTERVAL
from mta.store.database import NewerError
from tests.fakes.clock import HandClock
from tests.fakes.house import House, running, settings
from tests.fakes.peer import HELLO, TAKES, ScriptedPeer
from tests.fakes.relay import MUTE

B = "b@dst.test"
MX = Peer("mx.test", 25, "192.0.2.1")


@asynccontextmanager
async def house(directory: Path, clock: HandClock, port: int = 9) -> AsyncIterator[House]:
    routes = {"*": StaticRoute(Endpoint("127.0.0.1", port))}
    async with running(settings(directory, routes=routes), clock, (MUTE,)) as made:
        yield made


def rows(directory: Path) -> int:
    with closing(sqlite3.connect(directory / "spool" / "store.db")) as connection:
        return int(connection.execute("SELECT count(*) FROM host").fetchone()[0])


async def test_what_is_known_of_a_host_outlives_a_restart_and_is_forgotten_in_its_time(
    tmp_path: Path,
) -> None:
    clock = HandClock()
    async with house(tmp_path, clock) as one:
        one.daemon.hosts.failed(MX, "Connection refused")
        known = one.daemon.hosts.recall(MX)
    async with house(tmp_path, clock) as one:
        assert one.daemon.hosts.recall(MX) == known
        assert one.of(type="state", host="mx.test") == []  # it was told
        one.daemon.hosts.answered(MX)
        await one.event(type="state", reason="mx.test [192.0.2.1] answers again")
        one.daemon.hosts.failed(MX, "Connection refused")
    clock._move(clock.monotonic() + 2 * BELIEVED)
    async with house(tmp_path, clock) as one:
        assert len(one.daemon.hosts) == 0
    assert rows(tmp_path) == 0


async def test_what_has_changed_is_saved_within_a_minute(tmp_path: Path) -> None:
    clock = HandClock()
    async with house(tmp_path, clock) as one:
        one.daemon.hosts.failed(MX, "Connection refused")
        await clock.advance(SAVE_INTERVAL)
        await one.daemon.database.run(lambda connection: None)  # behind it
        assert rows(tmp_path) == 1


async def test_the_newest_memories_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mta.delivery.hosts.MOST", 3)
    async with house(tmp_path, HandClock()) as one:
        hosts = one.daemon.hosts
        for n in range(5):
            hosts.failed(MX._replace(name=f"mx{n}.test"), "Connection refused")
        assert len(hosts) == 3
        assert hosts.recall(MX._replace(name="mx1.test")) == NOTHING
        assert hosts.recall(MX._replace(name="mx2.test")).is_bad
    assert rows(tmp_path) == 3


async def test_a_host_of_which_nothing_bad_is_known_costs_nothing(tmp_path: Path) -> None:
    async with ScriptedPeer(HELLO + TAKES) as peer, house(tmp_path, HandClock(), peer.port) as one:
        await one.send(B)
        await one.event(type="delivery")
        assert len(one.daemon.hosts) == 0


async def test_a_store_that_is_damaged_is_set_aside_once_and_mail_goes(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "store.db").write_bytes(b"no database" * 1000)
    async with ScriptedPeer(HELLO + TAKES) as peer, house(tmp_path, HandClock(), peer.port) as one:
        told = await one.event(type="state")
        assert "is kept as store.db.damaged, and a new one is begun" in told["reason"]
        await one.send(B)
        await one.event(type="delivery")
        one.daemon.hosts.failed(MX, "Connection refused")
    assert rows(tmp_path) == 1


async def test_a_store_that_was_removed_is_made_anew(tmp_path: Path) -> None:
    async with house(tmp_path, HandClock()) as one:
        one.daemon.hosts.failed(MX, "Connection refused")
    for path in (tmp_path / "spool").glob("store.db*"):
        path.unlink()
    async with house(tmp_path, HandClock()) as one:
        assert len(one.daemon.hosts) == 0


async def test_a_store_that_cannot_be_written_is_told_once_and_written_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = HandClock()
    (tmp_path / "spool" / "store.db").mkdir(parents=True)
    async with ScriptedPeer(HELLO + TAKES) as peer, house(tmp_path, clock, peer.port) as one:
        await one.send(B)
        await one.event(type="delivery")
        one.daemon.hosts.failed(MX, "Connection refused")
        for _ in range(3):
            await clock.advance(SAVE_INTERVAL)
            await one.daemon.hosts._write()
        said = [each.message for each in caplog.records if "of hosts is not kept" in each.message]
        assert len(said) == 1
        assert said[0].startswith("what is remembered of hosts is not kept: ")
        (tmp_path / "spool" / "store.db").rmdir()
    assert rows(tmp_path) == 1


async def test_a_store_of_a_newer_version_is_refused_in_words(tmp_path: Path) -> None:
    async with house(tmp_path, HandClock()):
        pass
    with closing(sqlite3.connect(tmp_path / "spool" / "store.db")) as connection:
        connection.execute("PRAGMA user_version = 999")
    with pytest.raises(ExceptionGroup) as caught:
        async with house(tmp_path, HandClock()):
            pass
    assert caught.group_contains(NewerError, match="start the newer version again")
