"""Who goes first: priorities, tenants, hours. One connection, so that turns are seen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import pytest

from mta.config.settings import Duration, Stream
from mta.core.credential import Credential
from mta.core.limits.window import Window
from tests.fakes.client import CONTENT, Client, greeted
from tests.fakes.clock import HandClock
from tests.fakes.house import KEY, House, routed, running, settings
from tests.fakes.peer import HELLO, TAKES, ScriptedPeer

PASSWORDS = Credential("passwords", "acme", "transactional", kind="key", notify=False)
NEWS = Credential("news", "acme", "bulk", kind="key", notify=False)
OTHERS = Credential("others", "others", "bulk", kind="key", notify=False)
NIGHT = 1_800_003_600.0  # 2027-01-15T09:00:00Z


@asynccontextmanager
async def house_of(
    directory: Path, peer: ScriptedPeer, clock: HandClock, **streams: Stream
) -> AsyncIterator[House]:
    terms = settings(directory, routes=routed(peer.port, connections=1))
    if streams:
        terms = replace(terms, streams=streams)
    async with running(terms, clock, (PASSWORDS, NEWS, OTHERS)) as house:
        yield house


async def client_of(house: House, login: str) -> Client:
    client = await greeted(house.submissions, tls=True)
    assert (await client.auth(login, KEY)).startswith("235 ")
    return client


def order(peer: ScriptedPeer) -> list[str]:
    """Who was named in RCPT, in order."""
    commands = [command for call in peer.calls for command in call.commands]
    return [command[9:-1] for command in commands if command.startswith("RCPT")]


async def test_a_password_passes_the_newsletters_that_wait_in_memory(tmp_path: Path) -> None:
    async with ScriptedPeer("hold\n" + HELLO + TAKES * 11) as peer:
        async with house_of(tmp_path, peer, HandClock()) as house:
            news, passwords = await client_of(house, "news"), await client_of(house, "passwords")
            for number in range(10):
                assert (await news.deliver(CONTENT, f"n{number}@dst.test")).startswith("250 ")
            assert (await passwords.deliver(CONTENT, "password@dst.test")).startswith("250 ")
            await peer.at(1, "hold")
            peer.go()
            await house.event(11, type="delivery")
        assert order(peer)[0] == "password@dst.test"


async def test_a_tenants_flood_lets_the_others_through(tmp_path: Path) -> None:
    async with ScriptedPeer("hold\n" + HELLO + TAKES * 12) as peer:
        async with house_of(tmp_path, peer, HandClock()) as house:
            flood, others = await client_of(house, "news"), await client_of(house, "others")
            for number in range(10):
                assert (await flood.deliver(CONTENT, f"n{number}@dst.test")).startswith("250 ")
            for number in range(2):
                assert (await others.deliver(CONTENT, f"o{number}@dst.test")).startswith("250 ")
            await peer.at(1, "hold")
            peer.go()
            await house.event(12, type="delivery")
        assert order(peer)[:4] == ["n0@dst.test", "o0@dst.test", "n1@dst.test", "o1@dst.test"]


async def test_newsletters_on_disk_do_not_stand_before_a_password_that_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mta.core.limits.turns.CAPACITY", 2)
    monkeypatch.setattr("mta.delivery.lane.LOW", 1)
    clock = HandClock()
    async with ScriptedPeer("hold\n" + HELLO + TAKES * 9) as peer:
        async with house_of(tmp_path, peer, clock) as house:
            news, passwords = await client_of(house, "news"), await client_of(house, "passwords")
            for number in range(6):
                assert (await news.deliver(CONTENT, f"n{number}@dst.test")).startswith("250 ")
            for number in range(3):
                assert (await passwords.deliver(CONTENT, f"p{number}@dst.test")).startswith("250 ")
            await peer.at(1, "hold")
            peer.go()
            await house.event(9, type="delivery")
        told = order(peer)
        assert told[:2] == ["p0@dst.test", "p1@dst.test"]
        assert told.index("p2@dst.test") < told.index("n5@dst.test")


async def test_a_newsletter_waits_for_its_hours_and_a_password_does_not(tmp_path: Path) -> None:
    hours = Window(10 * 60, 20 * 60, frozenset(range(7)), UTC, "10:00-20:00")
    clock = HandClock(now=NIGHT)
    streams = {"transactional": Stream(), "bulk": Stream(hours=hours)}
    async with (
        ScriptedPeer(HELLO + TAKES, HELLO + TAKES) as peer,
        house_of(tmp_path, peer, clock, **streams) as house,
    ):
        news, passwords = await client_of(house, "news"), await client_of(house, "passwords")
        assert (await news.deliver(CONTENT, "n@dst.test")).startswith("250 ")
        assert (await passwords.deliver(CONTENT, "p@dst.test")).startswith("250 ")
        await house.event(type="delivery", recipient="p@dst.test")
        (waits,) = house.of(type="reception", recipient="n@dst.test")
        assert (waits["due"], waits["reason"]) == (
            "2027-01-15T10:00:00.000Z",
            "outside the delivery window 10:00-20:00",
        )
        await clock.advance(3590.0)
        assert house.of(recipient="n@dst.test", type="delivery") == []
        await clock.advance(20.0)
        delivery = await house.event(type="delivery", recipient="n@dst.test")
        assert delivery["attempt"] == 1
        assert house.of(type="deferral") == []


async def test_a_one_time_code_expires_in_minutes(tmp_path: Path) -> None:
    clock = HandClock()
    codes = Stream(expire=Duration(300.0), retry_first=Duration(30.0), retry_max=Duration(60.0))
    async with (
        ScriptedPeer(shut=True) as peer,
        house_of(tmp_path, peer, clock, transactional=codes, bulk=Stream()) as house,
    ):
        passwords = await client_of(house, "passwords")
        assert (await passwords.deliver(CONTENT, "p@dst.test")).startswith("250 ")
        await house.event(type="deferral")
        await clock.advance(400.0)
        await house.event(type="expiration")


async def test_a_flood_of_new_mail_waits_on_disk_and_is_all_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mta.outbound.scheduler.MOST_FRESH", 3)
    async with (
        ScriptedPeer("hold\n" + HELLO + TAKES * 10) as peer,
        house_of(tmp_path, peer, HandClock()) as house,
    ):
        news = await client_of(house, "news")
        for number in range(10):
            assert (await news.deliver(CONTENT, f"n{number}@dst.test")).startswith("250 ")
        await peer.at(1, "hold")
        assert house.daemon.spool.tally.fresh <= 4  # the last one is about to leave
        peer.go()
        await house.event(10, type="delivery")
        assert {each["attempt"] for each in house.of(type="delivery")} == {1}
