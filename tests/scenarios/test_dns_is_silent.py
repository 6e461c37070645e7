"""Name servers that say nothing: who waits for them, who does not, and what happens when they are back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mta.config.settings import Dns, Duration
from mta.outbound.lookups import AT_ONCE, SILENCE, WOKEN
from tests.fakes.clock import HandClock
from tests.fakes.dns import Misfortune, NameServer
from tests.fakes.house import House, running, settings
from tests.fakes.tenants import BOTH, FROM_OTHER, URGENT
from tests.fakes.waiting import Waiting, fill

TIMEOUT = 5.0  # seconds
QUESTION = ("good.test", "MX")
NULL_MX = ["0 ."]  # an answer that needs no peer: the mail is returned at once


@asynccontextmanager
async def asking(
    directory: Path, silent: int, *, hold: bool = False, waiting: Iterable[Waiting] = ()
) -> AsyncIterator[tuple[House, HandClock, NameServer]]:
    """A daemon without routes, and a name server that answers for good.test and for no other."""
    zone = {(f"d{number}.test", "MX"): Misfortune.SILENCE for number in range(silent)}
    async with NameServer({**zone, QUESTION: NULL_MX}) as server:
        if hold:
            server.hold()
        clock = HandClock()
        terms = settings(directory, dns=Dns((server.endpoint,), Duration(TIMEOUT)))
        await fill(terms.spool.path, clock, waiting)
        async with running(terms, clock, BOTH) as house:
            try:
                yield house, clock, server
            finally:
                house.daemon.scheduler.stop()  # no other question takes the place of one that is given up
                await clock.advance(TIMEOUT)


async def pass_time(house: House, clock: HandClock, seconds: int) -> None:
    for _ in range(seconds):
        await clock.advance(1.0)
        await house.quiet()


async def flood(house: House, domains: int) -> None:
    """One tenant's list."""
    for start in range(0, domains, 1000):
        some = range(start, min(start + 1000, domains))
        assert (await house.send(*[f"u@d{n}.test" for n in some], origin=FROM_OTHER)).startswith("250 ")
    await house.quiet()


@pytest.mark.parametrize(("origin", "priority"), URGENT)
async def test_silent_domains_of_one_list_do_not_put_off_what_comes_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: str, priority: int
) -> None:
    monkeypatch.setattr("mta.outbound.lookups.RESOLVING", 20)
    async with asking(tmp_path, 40) as (house, _clock, _server):
        await flood(house, 40)
        await house.send("ann@good.test", origin=origin, priority=priority)
        await house.event(type="bounce", recipient="ann@good.test")  # while the clock stands


@pytest.mark.parametrize(("origin", "priority"), URGENT)
async def test_the_next_question_is_not_one_of_the_longest_list(
    tmp_path: Path, origin: str, priority: int
) -> None:
    waiting = 3 * AT_ONCE
    async with asking(tmp_path, waiting) as (house, clock, server):
        await flood(house, waiting)
        await house.send("ann@good.test", origin=origin, priority=priority)
        await clock.advance(TIMEOUT + 0.1)
        await house.quiet()
        assert QUESTION in server.asked


async def test_mail_that_met_silence_goes_when_dns_is_back(tmp_path: Path) -> None:
    async with asking(tmp_path, 0, hold=True) as (house, clock, server):
        await house.send("ann@good.test")
        await pass_time(house, clock, 120)
        server.release()
        await pass_time(house, clock, 60)
        await house.event(type="bounce", recipient="ann@good.test")


async def test_silence_costs_retries_no_attempt_and_the_first_word_wakes_them_in_order(
    tmp_path: Path,
) -> None:
    news = [Waiting("bulk", f"u@d{n}.test", -4, "other") for n in range(2 * WOKEN)]
    mail = [*news, Waiting("bulk", "ann@good.test", 4, "other")]
    async with asking(tmp_path, 0, hold=True, waiting=mail) as (house, clock, server):
        await pass_time(house, clock, int(SILENCE) - 5)  # all have met silence, and none asks again yet
        assert house.events == []
        server.release()
        server.asked.clear()
        await house.send("b@other.test")
        await house.event(len(mail) + 1, type="bounce")
        assert list(server.asked)[:2] == [("other.test", "MX"), QUESTION]
        assert {each["attempt"] for each in house.of(type="bounce")} == {1, 2}
        assert set(server.asked.values()) == {1}


async def test_a_server_that_speaks_of_its_trouble_is_not_silent(tmp_path: Path) -> None:
    async with asking(tmp_path, 0) as (house, clock, server):
        broken = ("broken.test", "MX")
        server.zone = {**server.zone, broken: Misfortune.SERVFAIL}
        await house.send("b@broken.test")
        await house.event(type="deferral")
        await house.send("ann@good.test")
        await house.event(type="bounce")
        await pass_time(house, clock, int(SILENCE) + 5)
        assert server.asked[broken] == 1


async def test_what_waits_for_its_question_when_we_stop_is_due_at_once(tmp_path: Path) -> None:
    async with asking(tmp_path, 2 * AT_ONCE) as (house, clock, server):
        await flood(house, 2 * AT_ONCE)
        asked = server.asked.total()
        assert asked == AT_ONCE // 2
        house.daemon.scheduler.stop()
        await house.quiet()
        lines = await house.daemon.spool.reader.lines()
        assert [due for _, due in lines] == [clock.now()] * (2 * AT_ONCE - asked)
