"""What DNS shows, kept for checks that cannot wait: once for each name, within bounds, through an outage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mta.config.settings import Dns, Duration
from mta.core.mail.dmarc import DmarcRecord, Walked
from mta.dns.resolver import Resolver
from mta.guard import records as module
from mta.guard.records import HOLDS, SOONEST, Records
from mta.metrics import Metrics
from tests.fakes.clock import HandClock
from tests.fakes.dns import Misfortune, NameServer, Zone

ZONE: Zone = {
    ("_dmarc.example.test", "TXT"): ['"v=DMARC1; p=none"'],
    ("s1._domainkey.example.test", "TXT"): ['"v=DKIM1; p=AA" "AA"'],
}
KEY, OTHER = "s1._domainkey.example.test", "s2._domainkey.example.test"
RECORD = b"v=DKIM1; p=AAAA"
WALKED = Walked("news.example.test", "example.test", DmarcRecord())
QUESTIONS = 3  # from news.example.test up


@asynccontextmanager
async def watching(
    zone: Zone = ZONE, ttl: int = 300
) -> AsyncIterator[tuple[Records, NameServer, HandClock, Metrics]]:
    clock, metrics = HandClock(), Metrics()
    async with NameServer(zone, ttl) as server:
        made = Records(Resolver(Dns((server.endpoint,), Duration(5.0)), clock), clock, metrics)
        async with asyncio.TaskGroup() as tasks:
            made.start(tasks)
            yield made, server, clock, metrics
            made.stop()


async def test_nobody_waits_and_each_name_is_asked_for_once() -> None:
    async with watching() as (made, server, _, _):
        server.hold()
        assert [made.walked("news.example.test") for _ in range(100)] == [None] * 100
        assert [made.shown(KEY) for _ in range(100)] == [None] * 100
        await server.until(2)
        server.release()
        await made.fresh_walk("news.example.test")
        await made.fresh_key(KEY)
        assert made.walked("news.example.test") == WALKED
        assert made.shown(KEY) == (RECORD,)
        assert made.shown(OTHER) is None
        await made.fresh_key(OTHER)
        assert made.shown(OTHER) == ()
        assert server.asked.total() == QUESTIONS + 2
        assert len(made) == 3


@pytest.mark.parametrize(("ttl", "rests"), [(1, SOONEST), (300, 300.0)])
async def test_an_answer_is_asked_for_again_in_its_time(ttl: int, rests: float) -> None:
    async with watching(ttl=ttl) as (made, server, clock, _):
        await made.fresh_key(KEY)
        await clock.advance(rests - 0.1)
        await made.fresh_key(KEY)
        assert server.asked.total() == 1
        server.zone = {("s1._domainkey.example.test", "TXT"): ['"v=DKIM1; p="']}
        await clock.advance(0.2)
        assert made.shown(KEY) == (RECORD,)  # as it was, for this moment
        await made.fresh_key(KEY)
        assert made.shown(KEY) == (b"v=DKIM1; p=",)


async def test_while_no_server_answers_what_was_known_holds_for_a_day() -> None:
    async with watching() as (made, server, clock, _):
        await made.fresh_walk("news.example.test")
        server.zone = dict.fromkeys(ZONE, Misfortune.SERVFAIL) | {
            ("_dmarc.news.example.test", "TXT"): Misfortune.SERVFAIL
        }
        await clock.advance(300.0 + HOLDS - 1.0)
        await made.fresh_walk("news.example.test")
        assert made.walked("news.example.test") == WALKED
        asked = server.asked.total()
        await clock.advance(2.0)
        assert made.walked("news.example.test") is None
        assert server.asked.total() == asked  # it rests for a minute


async def test_names_without_number_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 5)
    monkeypatch.setattr(module, "RECORDS", 3)
    async with watching({}) as (made, server, _, _):
        server.hold()
        for n in range(100):
            assert made.walked(f"d{n}.test") is None
        assert len(made._walks._under_way) == 5
        server.release()
        for n in range(5):
            await made.fresh_walk(f"d{n}.test")
        assert len(made) == 3


async def test_a_bug_over_a_name_leaves_it_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watching() as (made, _, _, metrics):
        monkeypatch.setattr(module, "TreeWalk", lambda domain: 1 / 0)
        await made.fresh_walk("news.example.test")
        assert made.walked("news.example.test") is None
        assert metrics.bugs["guard"]._value.get() == 1


async def test_what_is_under_way_ends_with_the_daemon() -> None:
    async with watching() as (made, server, _, _):
        server.hold()
        made.walked("news.example.test")
        await server.until(1)
