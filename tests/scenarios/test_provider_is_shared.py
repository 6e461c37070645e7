"""Many organisations behind one provider: they share its rate, but not what one of them thinks of us."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mta.config.settings import DEFAULT, Dns, Duration, Limits, ProviderSettings
from mta.core.limits.throttle import Rate
from tests.fakes.clock import HandClock
from tests.fakes.dns import NameServer, Zone
from tests.fakes.house import House, running, settings
from tests.fakes.network import FIRST, own_network
from tests.fakes.receiver import Receiver
from tests.fakes.tenants import BOTH, FROM_OTHER, URGENT

A_MINUTE = Rate(60, 60.0)
TOKENS = 4  # recipients, at the most, that go between an urgent one's coming and its going
MINUTE = 60.0  # seconds
OWN_WORDS = "550 5.7.1 TRANSPORT.RULES.RejectMessage; Client host rejected: Access denied"
PROVIDERS_WORDS = (
    "550 5.7.606 Access denied, banned sending IP [192.0.2.1]. To request removal from this list please "
    "visit https://sender.office.com/ and follow the directions. AS(1430) [x.prod.protection.outlook.com]"
)
NEWS, ANN = "news@d{}.test", "ann@shop.test"


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    """Addresses that DNS may give away."""
    with own_network():
        yield


@asynccontextmanager
async def sharing(
    directory: Path, sites: int, rate: Rate, connections: int = 500, limits: Limits | None = None
) -> AsyncIterator[tuple[House, HandClock, Receiver]]:
    """A daemon, and organisations of one provider, each a site, that share a rate and nothing else."""
    names = [*(f"d{number}.test" for number in range(sites)), "shop.test"]
    zone: Zone = {(name, "MX"): [f"10 {name}.mail.protection.outlook.com."] for name in names}
    zone = {**zone, **{(f"{name}.mail.protection.outlook.com", "A"): [FIRST] for name in names}}
    office = ProviderSettings(connections=connections, connections_start=connections, rate_start=rate)
    async with NameServer(zone) as server, Receiver(FIRST) as receiver:
        terms = settings(
            directory,
            dns=Dns((server.endpoint,), Duration(5.0)),
            destinations={"default": replace(DEFAULT, port=receiver.port)},
            providers={"office365": office},
            limits=limits or Limits(),
        )
        clock = HandClock()
        async with running(terms, clock, BOTH) as house:
            yield house, clock, receiver


async def until_asked(house: House, clock: HandClock, receiver: Receiver, address: str, seconds: int) -> None:
    """Let time pass, second by second, until a recipient has its turn, or that is too late."""
    await house.quiet()
    for _ in range(seconds):
        if address in receiver.asked:
            return
        await clock.advance(1.0)
        await house.quiet()


@pytest.mark.parametrize("sites", [30, 100])
@pytest.mark.parametrize(("origin", "priority"), URGENT)
async def test_newsletters_to_many_organisations_do_not_stand_before_the_mail_of_others(
    tmp_path: Path, sites: int, origin: str, priority: int
) -> None:
    async with sharing(tmp_path, sites, A_MINUTE) as (house, clock, receiver):
        for number in range(sites):
            await house.send(NEWS.format(number), origin=FROM_OTHER)
        await house.quiet()
        before = len(receiver.asked)
        await house.send(ANN, origin=origin, priority=priority)
        await until_asked(house, clock, receiver, ANN, 2 * TOKENS)
        assert ANN in receiver.asked
        assert receiver.asked.index(ANN) <= before + TOKENS


async def test_passwords_without_end_leave_a_tenth_to_a_newsletter(tmp_path: Path) -> None:
    async with sharing(tmp_path, 1, A_MINUTE) as (house, clock, receiver):
        for number in range(40):
            await house.send(f"p{number}@shop.test")
        await house.send(NEWS.format(0), origin=FROM_OTHER)
        await until_asked(house, clock, receiver, NEWS.format(0), 25)
        assert NEWS.format(0) in receiver.asked
        assert len(receiver.asked) < 25


async def test_who_waits_for_a_connection_does_not_slow_down_who_waits_for_the_rate(tmp_path: Path) -> None:
    async with sharing(tmp_path, 1, Rate(300, 60.0), connections=1) as (house, clock, receiver):
        for number in range(15):
            await house.send(f"p{number}@shop.test")
        await house.quiet()
        await house.send(NEWS.format(0), origin=FROM_OTHER)
        await house.quiet()
        for _ in range(20):
            await clock.advance(0.1)
            await house.quiet()
        assert len(receiver.asked) >= 8  # of ten that the rate allows in two seconds


@pytest.mark.parametrize("window", [2, 3, 10])
async def test_organisations_that_wait_for_a_connection_of_their_provider_s_and_one_of_ours_all_get_it(
    tmp_path: Path, window: int
) -> None:
    """Where both are few, who has one waits for the other, and nobody is forgotten between the two."""
    limits = Limits(connections_out=6)  # three for each of these
    async with sharing(tmp_path, 40, Rate(6000, 60.0), window, limits) as (house, clock, receiver):
        for number in range(40):
            await house.send(NEWS.format(number), origin=FROM_OTHER)
            await house.send(f"p{number}@d{number}.test")
        await house.quiet()
        for _ in range(60):
            await clock.advance(1.0)
            await house.quiet()
        assert len(receiver.asked) == 80
        assert receiver.peak <= min(window, 6)


async def refused(house: House, clock: HandClock, receiver: Receiver, site: int, message: int = 0) -> None:
    """Send to an organisation that refuses us."""
    address = f"n{message}@d{site}.test"
    await house.send(address, origin=FROM_OTHER)
    await until_asked(house, clock, receiver, address, 5)
    assert address in receiver.asked
    await house.quiet()


async def is_taken(house: House, clock: HandClock, receiver: Receiver) -> bool:
    """Is mail to another organisation sent now?"""
    await house.send(ANN)
    await until_asked(house, clock, receiver, ANN, 5)
    return ANN in receiver.asked


@pytest.mark.parametrize("sites", [1, 2])
async def test_what_one_organisation_says_of_us_does_not_shut_out_the_others(
    tmp_path: Path, sites: int
) -> None:
    async with sharing(tmp_path, sites, A_MINUTE) as (house, clock, receiver):
        for site in range(sites):
            receiver.said[f"d{site}.test"] = OWN_WORDS
            await refused(house, clock, receiver, site)
        assert await is_taken(house, clock, receiver)


async def test_organisations_that_refuse_us_one_after_another_do_not_shut_out_the_others(
    tmp_path: Path,
) -> None:
    async with sharing(tmp_path, 3, A_MINUTE) as (house, clock, receiver):
        for site in range(3):
            receiver.said[f"d{site}.test"] = OWN_WORDS
            await refused(house, clock, receiver, site)
            await clock.advance(6 * MINUTE)
        assert await is_taken(house, clock, receiver)


async def test_an_organisation_that_refuses_us_is_left_alone(tmp_path: Path) -> None:
    async with sharing(tmp_path, 1, A_MINUTE) as (house, clock, receiver):
        receiver.said["d0.test"] = OWN_WORDS
        await refused(house, clock, receiver, 0)
        await house.send("again@d0.test")
        await until_asked(house, clock, receiver, "again@d0.test", 30)
        assert receiver.asked == ["n0@d0.test"]


async def test_three_organisations_that_refuse_us_within_minutes_speak_for_their_provider(
    tmp_path: Path,
) -> None:
    async with sharing(tmp_path, 3, A_MINUTE) as (house, clock, receiver):
        for site in range(3):
            await house.send(NEWS.format(site), origin=FROM_OTHER)
            receiver.said[f"d{site}.test"] = OWN_WORDS
        for _ in range(10):
            await clock.advance(1.0)
            await house.quiet()
        assert not await is_taken(house, clock, receiver)


async def test_what_the_provider_says_of_us_shuts_all_its_organisations(tmp_path: Path) -> None:
    async with sharing(tmp_path, 1, A_MINUTE) as (house, clock, receiver):
        receiver.said["d0.test"] = PROVIDERS_WORDS
        await refused(house, clock, receiver, 0)
        assert not await is_taken(house, clock, receiver)


async def test_a_password_does_not_wait_until_a_connection_has_carried_its_slice(tmp_path: Path) -> None:
    async with sharing(tmp_path, 3, A_MINUTE, connections=2) as (house, clock, receiver):
        for site in range(3):
            for message in range(25):
                await house.send(f"n{message}@d{site}.test", origin=FROM_OTHER)
        await house.quiet()
        for _ in range(4):
            await clock.advance(1.0)
            await house.quiet()
        before = len(receiver.asked)
        await house.send(ANN)
        await until_asked(house, clock, receiver, ANN, 3 * TOKENS)
        assert ANN in receiver.asked
        assert receiver.asked.index(ANN) <= before + TOKENS
