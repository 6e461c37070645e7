"""How near a From domain is to a bulk sender: over restarts, once a day, within bounds, with a sick store."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest

from mta.config.settings import DEFAULT, Dns, Duration, GuardSettings, ProviderSettings, Settings
from mta.core.model import Batch, Message, Recipient
from mta.guard import proximity as module
from mta.guard.proximity import DAY, HOUR, NEAR, SAVE_INTERVAL
from tests.fakes.clock import HandClock
from tests.fakes.dns import NameServer, Zone
from tests.fakes.house import House, running, settings
from tests.fakes.network import FIRST, own_network
from tests.fakes.receiver import Receiver
from tests.fakes.relay import MUTE


def batch(
    author: str = "src.test", stream: str = "bulk", content: bytes | None = None, head: bytes = b""
) -> Batch:
    message = Message(
        1, "a@Src.test", "acme", stream, "app", 0.0, 0, "", 0, [Recipient(0, "b@dst.test", "dst.test")],
        content, author=author,
    )  # fmt: skip
    return Batch(message, message.recipients, head=head)


@asynccontextmanager
async def house(directory: Path, clock: HandClock, **changes: object) -> AsyncIterator[House]:
    async with running(settings(directory, **changes), clock, (MUTE,)) as made:
        yield made


def rows(directory: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(directory / "spool" / "store.db")) as connection:
        return connection.execute("SELECT domain, provider FROM volume ORDER BY 1, 2").fetchall()


async def test_a_domain_that_is_near_is_told_once_a_day_over_restarts(tmp_path: Path) -> None:
    clock = HandClock()
    async with house(tmp_path, clock) as one:
        one.daemon.proximity.delivered(batch(), "google", NEAR - 1)
        one.daemon.proximity.delivered(batch(), "yahoo", NEAR - 1)
        await one.quiet()
        assert one.of(type="check") == []
    async with house(tmp_path, clock) as one:
        one.daemon.proximity.delivered(batch(), "google", 1)
        told = await one.event(type="check")
        assert told["check"] == "proximity"
        assert (told["mode"], told["domain"], told["provider"]) == ("warn", "src.test", "google")
        assert (told["credential"], told["stream"]) == ("app", "bulk")
        assert told["reason"].startswith(
            "src.test has sent 4000 recipients to google in 24 hours; from 5000 on"
        )
        one.daemon.proximity.delivered(batch(), "google", 500)
    async with house(tmp_path, clock) as one:
        one.daemon.proximity.delivered(batch(), "google", 500)
        await one.quiet()
        assert one.of(type="check") == []
        clock._move(clock.monotonic() + DAY + HOUR)
        one.daemon.proximity.delivered(batch(), "google", 10)
        await one.quiet()
        assert one.of(type="check") == []  # it is far from it again
        one.daemon.proximity.delivered(batch(), "google", NEAR)
        await one.event(type="check")


async def test_a_stream_that_does_not_want_to_know_is_counted_in_silence(tmp_path: Path) -> None:
    clock = HandClock()
    async with house(tmp_path, clock, guard=GuardSettings({"proximity": "off"})) as one:
        one.daemon.proximity.delivered(batch(), "google", NEAR)
        await one.quiet()
        assert one.of(type="check") == []
        assert len(one.daemon.proximity) == 1


async def test_what_is_counted_is_saved_within_a_minute_and_goes_a_day_later(tmp_path: Path) -> None:
    clock = HandClock()
    async with house(tmp_path, clock) as one:
        one.daemon.proximity.delivered(batch(), "google", 1)
        await clock.advance(SAVE_INTERVAL)
        assert one.daemon.proximity._saved is not None
        await one.daemon.proximity._saved
        assert rows(tmp_path) == [("src.test", "google")]
        clock._move(clock.monotonic() + DAY + HOUR)
        await clock.advance(SAVE_INTERVAL)
        assert len(one.daemon.proximity) == 0
    assert rows(tmp_path) == []


async def test_whose_mail_it_is_is_read_from_what_was_sent(tmp_path: Path) -> None:
    async with house(tmp_path, HandClock()) as one:
        count = one.daemon.proximity
        count.delivered(batch("", head=b"To: x\r\nFROM : A <a@Disk.test>\r\n"), "google", 1)
        count.delivered(batch("", content=b"From: a@memory.test\r\n\r\nFrom: b@body.test\r\n"), "google", 1)
        for lost in (b"", b"From: a@b.test, c@d.test\r\n", b"From: x\r\n", b"From: a@[192.0.2.1]\r\n"):
            count.delivered(batch("", head=lost), "google", 1)
        assert sorted(domain for domain, _ in count._days) == ["disk.test", "memory.test"]


async def test_beyond_the_bound_the_smallest_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "VOLUMES", 20)
    async with house(tmp_path, HandClock()) as one:
        count = one.daemon.proximity
        for n in range(200):
            count.delivered(batch(f"d{n}.test"), "google", 1000 - n)
            assert len(count) <= 20
        assert ("d0.test", "google") in count._days
        assert ("d199.test", "google") in count._days
    assert len(rows(tmp_path)) == len(count)


async def test_a_store_that_is_ill_is_told_once_and_costs_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = HandClock()
    async with house(tmp_path, clock) as one:
        with closing(sqlite3.connect(tmp_path / "spool" / "store.db")) as other:
            other.execute("DROP TABLE volume")
            for _ in range(3):
                one.daemon.proximity.delivered(batch(), "google", 1)
                await clock.advance(SAVE_INTERVAL)
                assert one.daemon.proximity._saved is not None
                await one.daemon.proximity._saved
    assert sum("counted, and not kept" in record.message for record in caplog.records) == 1


async def test_what_a_provider_took_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NEAR", 2)
    zone: Zone = {("dst.test", "MX"): ["10 mx.partner.test."], ("mx.partner.test", "A"): [FIRST]}
    partner = ProviderSettings(match=("partner.test",), examples=("mx.partner.test",))
    with own_network():
        async with NameServer(zone) as server, Receiver(FIRST) as receiver:
            terms: Settings = settings(
                tmp_path,
                dns=Dns((server.endpoint,), Duration(5.0)),
                destinations={"default": replace(DEFAULT, port=receiver.port)},
                providers={"partner": partner},
            )
            async with running(terms, HandClock(), (MUTE,)) as one:
                await one.send("b@dst.test", "c@dst.test")
                told = await one.event(type="check", check="proximity")
                assert (told["domain"], told["provider"]) == ("src.test", "partner")
