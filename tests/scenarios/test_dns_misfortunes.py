"""Domains that cannot be routed, asked of a real name server.

Domains that can be, by several hosts: test_several_hosts.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mta.config.settings import Dns, Duration
from tests.fakes.clock import HandClock
from tests.fakes.dns import Misfortune, NameServer, Zone
from tests.fakes.house import House, running, settings
from tests.fakes.relay import MUTE, story

B = "b@dst.test"
TIMEOUT = 0.2  # seconds


@asynccontextmanager
async def resolving(directory: Path, zone: Zone) -> AsyncIterator[tuple[House, HandClock, NameServer]]:
    """A daemon without routes, and the name server that it asks."""
    async with NameServer(zone) as server:
        clock = HandClock()
        terms = settings(directory, dns=Dns((server.endpoint,), Duration(TIMEOUT)))
        async with running(terms, clock, (MUTE,)) as house:
            yield house, clock, server


@pytest.mark.parametrize(
    ("zone", "reply", "subject"),
    [
        pytest.param(
            {("dst.test", "MX"): ["0 ."]},
            "556 5.1.10 the domain dst.test takes no mail (its MX record is null); nothing can be sent there",
            "recipient",
            id="null MX",
        ),
        pytest.param(
            {},
            "550 5.1.2 the domain dst.test does not exist (DNS answers NXDOMAIN for dst.test); "
            "correct the address",
            "recipient",
            id="NXDOMAIN",
        ),
        pytest.param(
            {("dst.test", "MX"): ["10 mx.dst.test."], ("mx.dst.test", "A"): ["127.0.0.1"]},
            "554 5.4.6 mx.dst.test points at this machine or at no host (127.0.0.1); "
            "set a route, or correct its DNS",
            "recipient",
            id="an MX on this machine",
        ),
        pytest.param(
            {("dst.test", "MX"): ["10 mx.dst.test."]},
            "550 5.4.4 the mail host mx.dst.test has no address (DNS answers NXDOMAIN for mx.dst.test); "
            "correct the domain of the address",
            "recipient",
            id="an MX without an address",
        ),
        pytest.param(
            {("dst.test", "MX"): ["10 mta.test."]},
            "554 5.4.6 we are the best MX of dst.test, its mail would loop; "
            "set a route for it, or correct its MX",
            "recipient",
            id="we are the MX",
        ),
    ],
)
async def test_a_domain_that_takes_no_mail(tmp_path: Path, zone: Zone, reply: str, subject: str) -> None:
    async with resolving(tmp_path, zone) as (house, _, _):
        await house.send(B)
        assert await story(house, 2) == [f"reception {B}", f"bounce 1 {B} {subject}: {reply}"]


@pytest.mark.parametrize("trouble", [Misfortune.SILENCE, Misfortune.SERVFAIL, Misfortune.REFUSED])
async def test_a_name_server_in_trouble_and_the_mail_waits(tmp_path: Path, trouble: Misfortune) -> None:
    async with resolving(tmp_path, {("dst.test", "MX"): trouble}) as (house, clock, server):
        await house.send(B)
        await server.until(1)
        await house.quiet()
        await clock.advance(TIMEOUT)
        received, deferral = await story(house, 2)
    assert received == f"reception {B}"
    said = f"deferral 1 {B} dns +300: 451 4.4.3 the MX records of dst.test cannot be looked up ("
    assert deferral.startswith(said)
    assert deferral.endswith("); we will ask again")


async def test_dns_comes_back_and_what_it_says_then_counts(tmp_path: Path) -> None:
    zone: dict[tuple[str, str], list[str] | Misfortune] = {("dst.test", "MX"): Misfortune.SERVFAIL}
    async with resolving(tmp_path, zone) as (house, clock, _):
        await house.send(B)
        await story(house, 2)
        zone["dst.test", "MX"] = ["0 ."]
        await clock.advance(301)
        told = await story(house, 3)
    assert told[2].startswith(f"bounce 2 {B} recipient: 556 5.1.10 the domain dst.test takes no mail ")


async def test_many_messages_to_one_domain_ask_once(tmp_path: Path) -> None:
    async with resolving(tmp_path, {("dst.test", "MX"): ["0 ."]}) as (house, _, server):
        for number in range(5):
            await house.send(f"{number}@dst.test")
        await house.event(5, type="bounce")
        assert server.asked == {("dst.test", "MX"): 1}


async def test_one_domain_without_dns_does_not_hold_up_another(tmp_path: Path) -> None:
    zone = {("slow.test", "MX"): Misfortune.SILENCE, ("dst.test", "MX"): ["0 ."]}
    async with resolving(tmp_path, zone) as (house, clock, server):
        await house.send("a@slow.test", "b@dst.test")
        await server.until(2)
        await house.quiet()
        await clock.advance(TIMEOUT)
        await house.event(type="deferral", recipient="a@slow.test")
    told = [event["type"] for event in house.events if event["type"] not in ("reception", "check")]
    assert told == ["bounce", "deferral"]
