"""MT-PRIORITY and FUTURERELEASE: what a client asks for, and what it gets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mta.core.credential import Credential
from tests.fakes.client import CONTENT, Client, greeted
from tests.fakes.clock import HandClock
from tests.fakes.house import NETWORK, House, routed, running, settings
from tests.fakes.peer import HELLO, TAKES, ScriptedPeer
from tests.fakes.relay import wait_of

MAIL = "MAIL FROM:<a@src.test>"
PATIENT = replace(NETWORK, delay=3600.0, notify=False)


@asynccontextmanager
async def bound(
    directory: Path, credential: Credential, *scripts: str
) -> AsyncIterator[tuple[House, Client, HandClock]]:
    """A daemon that relays to a scripted peer, and a client that its address lets in."""
    async with ScriptedPeer(*scripts) as peer:
        clock = HandClock()
        terms = settings(directory, routes=routed(peer.port))
        async with running(terms, clock, (credential,)) as house, await greeted(house.network) as client:
            yield house, client, clock


async def test_only_who_may_delay_is_offered_it(tmp_path: Path) -> None:
    async with bound(tmp_path, NETWORK) as (_, client, _clock):
        offers = await client.ehlo()
        assert "MT-PRIORITY" in offers
        assert not [line for line in offers if line.startswith("FUTURERELEASE")]
        assert await client.ask(f"{MAIL} HOLDFOR=60") == "550 5.7.1 You may not ask for a later release"


async def test_who_may_delay_hears_how_long(tmp_path: Path) -> None:
    async with bound(tmp_path, PATIENT) as (_, client, _clock):
        (offer,) = [line for line in await client.ehlo() if line.startswith("FUTURERELEASE")]
        assert offer.split()[1] == "3600"
        expected = "501 5.5.4 You may delay a message by 3600 seconds at most"
        assert await client.ask(f"{MAIL} HOLDFOR=3601") == expected


@pytest.mark.parametrize(
    ("parameters", "reply"),
    [
        ("HOLDFOR=60 HOLDUNTIL=2030-01-01T00:00:00Z", "501 5.5.4 HOLDFOR and HOLDUNTIL exclude each other"),
        ("HOLDFOR=soon", "501 5.5.4 HOLDFOR is a number of seconds, at least 1"),
        ("HOLDUNTIL=soon", "501 5.5.4 HOLDUNTIL is a time like 2026-12-24T18:00:00Z"),
        ("MT-PRIORITY=10", "501 5.5.4 MT-PRIORITY is a whole number from -9 to 9"),
        ("MT-PRIORITY=9", "250 2.3.6 Ok, at priority 4: you may not ask for 9"),
        ("MT-PRIORITY=-9", "250 2.1.0 Ok"),
    ],
)
async def test_what_is_said_to_parameters(tmp_path: Path, parameters: str, reply: str) -> None:
    async with bound(tmp_path, PATIENT) as (_, client, _clock):
        assert await client.ask(f"{MAIL} {parameters}") == reply


@pytest.mark.parametrize(
    "refused", ["HOLDFOR=3601", "HOLDFOR=60 SIZE=9999999999", "MT-PRIORITY=-9 HOLDFOR=soon"]
)
async def test_a_mail_command_that_was_refused_leaves_nothing_to_the_next(
    tmp_path: Path, refused: str
) -> None:
    async with bound(tmp_path, PATIENT, HELLO + TAKES) as (house, client, _clock):
        assert (await client.ask(f"{MAIL} {refused}"))[0] == "5"
        assert (await client.deliver(CONTENT, mail=" HOLDUNTIL=2000-01-01T00:00:00Z")).startswith("250 ")
        await house.event(type="delivery")  # at once


async def test_a_credential_may_ask_for_more_than_its_stream_has(tmp_path: Path) -> None:
    async with bound(tmp_path, replace(NETWORK, priority=7)) as (_, client, _clock):
        assert await client.ask(f"{MAIL} MT-PRIORITY=7") == "250 2.1.0 Ok"
        await client.ask("RSET")
        assert (
            await client.ask(f"{MAIL} MT-PRIORITY=8") == "250 2.3.6 Ok, at priority 7: you may not ask for 8"
        )


async def test_a_message_that_is_delayed_goes_at_its_time_and_not_before(tmp_path: Path) -> None:
    async with bound(tmp_path, PATIENT, HELLO + TAKES) as (house, client, clock):
        assert (await client.deliver(CONTENT, mail=" HOLDFOR=1800")).startswith("250 ")
        reception = await house.event(type="reception")
        assert wait_of(reception) == pytest.approx(1800.0, abs=0.01)
        await clock.advance(1799.0)
        assert {each["type"] for each in house.events} == {"reception", "check"}
        await clock.advance(2.0)
        delivery = await house.event(type="delivery")
        assert delivery["attempt"] == 1


async def test_a_message_that_is_delayed_survives_a_restart(tmp_path: Path) -> None:
    async with ScriptedPeer(HELLO + TAKES) as peer:
        clock = HandClock()
        terms = settings(tmp_path, routes=routed(peer.port))
        async with running(terms, clock, (PATIENT,)) as house, await greeted(house.network) as client:
            assert (await client.deliver(CONTENT, mail=" HOLDFOR=1800")).startswith("250 ")
        async with running(terms, clock, (PATIENT,)) as house:
            await clock.advance(1799.0)
            assert house.of(type="delivery") == []
            await clock.advance(2.0)
            await house.event(type="delivery")
