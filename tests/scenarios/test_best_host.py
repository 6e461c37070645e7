"""Each domain's best MX host is its own choice, and one that never greets us is not waited for twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mta.config.settings import DEFAULT, Dns, Duration
from mta.core.route.hosts import SHORT, SOONEST
from tests.fakes.clock import HandClock
from tests.fakes.dns import NameServer, Zone
from tests.fakes.house import House, running, settings
from tests.fakes.network import FIRST, SECOND, own_network
from tests.fakes.receiver import Receiver
from tests.fakes.relay import MUTE

GREETING = 300.0  # seconds that we wait for it (RFC 5321 4.5.3.2.1)
IDLE = 40.0  # seconds after which no connection is left
ZONE: Zone = {
    ("here.test", "MX"): ["10 mx1.dst.test.", "20 mx2.dst.test."],
    ("there.test", "MX"): ["20 mx1.dst.test.", "10 mx2.dst.test."],
    ("mx1.dst.test", "A"): [FIRST],
    ("mx2.dst.test", "A"): [SECOND],
}


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    """Addresses that DNS may give away."""
    with own_network():
        yield


@asynccontextmanager
async def between(
    directory: Path, *, mute: bool = False
) -> AsyncIterator[tuple[House, HandClock, Receiver, Receiver]]:
    """A daemon, and both hosts, of which the first may never greet."""
    async with (
        NameServer(ZONE) as server,
        Receiver(FIRST, mute=mute) as first,
        Receiver(SECOND, first.port) as second,
    ):
        terms = settings(
            directory,
            dns=Dns((server.endpoint,), Duration(5.0)),
            destinations={"default": replace(DEFAULT, port=first.port)},
        )
        clock = HandClock()
        async with running(terms, clock, (MUTE,)) as house:
            yield house, clock, first, second


async def sent(house: House, clock: HandClock, *recipients: str) -> None:
    """One after another, at the rate of a stranger."""
    for each in recipients:
        await house.send(each)
        await house.quiet()
        await clock.advance(2.0)
        await house.quiet()


async def test_domains_with_the_same_mx_hosts_in_opposite_order_are_each_served_by_their_own_best(
    tmp_path: Path,
) -> None:
    async with between(tmp_path) as (house, clock, first, second):
        await sent(house, clock, "b@here.test", "b@there.test", "c@here.test", "c@there.test")
        assert (first.asked, second.asked) == (
            ["b@here.test", "c@here.test"],
            ["b@there.test", "c@there.test"],
        )


async def test_a_best_mx_that_never_greets_is_not_waited_for_on_each_connection(tmp_path: Path) -> None:
    async with between(tmp_path, mute=True) as (house, clock, _first, second):
        await sent(house, clock, "b@here.test")
        await clock.asked_for(GREETING)
        await clock.advance(GREETING)
        await house.event(type="delivery", recipient="b@here.test")
        await clock.advance(IDLE)
        await sent(house, clock, "c@here.test")
        await house.event(type="delivery", recipient="c@here.test")
        assert second.asked == ["b@here.test", "c@here.test"]


async def test_a_probe_of_a_host_that_never_greeted_costs_twenty_seconds_and_no_more(tmp_path: Path) -> None:
    async with between(tmp_path, mute=True) as (house, clock, first, second):
        await sent(house, clock, "b@here.test")
        await clock.asked_for(GREETING)
        await clock.advance(GREETING)
        await house.event(type="delivery", recipient="b@here.test")
        await clock.advance(SOONEST + IDLE)
        await sent(house, clock, "c@here.test")
        await clock.asked_for(SHORT)
        await house.quiet()
        assert second.asked == ["b@here.test"]
        assert len(first.dialled) == 2
        await clock.advance(SHORT)
        await house.event(type="delivery", recipient="c@here.test")
        assert second.asked == ["b@here.test", "c@here.test"]
        (told,) = house.of(type="state", host="mx1.dst.test")
        assert told["reason"].startswith(f"mx1.dst.test [{FIRST}] is asked last: timed out")
