"""What the sandbox's peer plays, seen from outside: an application can rehearse its bad days."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from mta.config.settings import Sandbox
from tests.fakes.clock import HandClock
from tests.fakes.house import NETWORK, House, running, settings


@asynccontextmanager
async def sandbox(directory: Path) -> AsyncIterator[tuple[House, HandClock]]:
    clock = HandClock()
    terms = settings(directory, sandbox=Sandbox(directory / "sandbox"))
    async with running(terms, clock, (replace(NETWORK, notify=False),)) as house:
        yield house, clock


async def test_greylist_takes_what_comes_again(tmp_path: Path) -> None:
    async with sandbox(tmp_path) as (house, clock):
        await house.send("greylist+1@dst.test")
        refused = await house.event(type="deferral")
        assert refused["reply"]["text"] == "Greylisted, please try again in 60 seconds"
        await clock.advance(61.0)
        assert (await house.event(type="delivery"))["attempt"] == 2


async def test_full_stays_full(tmp_path: Path) -> None:
    async with sandbox(tmp_path) as (house, _clock):
        await house.send("full@dst.test")
        assert (await house.event(type="deferral"))["reply"]["enhanced"] == "4.2.2"


async def test_spam_bounces(tmp_path: Path) -> None:
    async with sandbox(tmp_path) as (house, _clock):
        await house.send("spam@dst.test")
        assert (await house.event(type="bounce"))["reply"]["enhanced"] == "5.7.1"


async def test_rate_refuses_the_eleventh_of_a_minute(tmp_path: Path) -> None:
    async with sandbox(tmp_path) as (house, _clock):
        await house.send(*(f"rate+{n}@dst.test" for n in range(11)))
        refused = await house.event(type="deferral")
        assert refused["recipient"] == "rate+10@dst.test"
        await house.event(10, type="delivery")


async def test_421_hangs_up(tmp_path: Path) -> None:
    async with sandbox(tmp_path) as (house, _clock):
        await house.send("421@dst.test")
        assert (await house.event(type="deferral"))["reply"]["code"] == 421


async def test_slow_takes_the_message_in_its_own_time(tmp_path: Path) -> None:
    async with sandbox(tmp_path) as (house, clock):
        await house.send("slow@dst.test")
        await clock.asked_for(5.0)
        await clock.advance(4.9)
        assert house.of(type="delivery") == []
        await clock.advance(0.2)
        await house.event(type="delivery")


async def test_one_who_is_slow_holds_up_nobody_who_was_named_before(tmp_path: Path) -> None:
    async with sandbox(tmp_path) as (house, clock):
        await house.send("ok@dst.test", "slow@dst.test")
        assert (await house.event(type="delivery"))["recipient"] == "ok@dst.test"
        await clock.asked_for(5.0)
        await clock.advance(5.0)
        await house.event(2, type="delivery")
