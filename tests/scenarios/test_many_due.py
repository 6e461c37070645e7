"""Much mail that is due at once, as after a long stop: what is asked, what is dialled, who waits."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mta.config.settings import Dns, Duration
from mta.core.limits.throttle import Rate
from mta.core.model import Line
from mta.outbound.lookups import AT_ONCE
from mta.outbound.retries import ROUND
from tests.fakes.clock import HandClock
from tests.fakes.dns import NameServer
from tests.fakes.house import routed, running, settings
from tests.fakes.peer import HELLO, TAKES, ScriptedPeer
from tests.fakes.receiver import Receiver
from tests.fakes.relay import MUTE
from tests.fakes.waiting import Waiting, fill

LOOKUPS = AT_ONCE // 2  # questions of one share alone


async def test_names_of_many_domains_are_asked_for_a_few_at_a_time(tmp_path: Path) -> None:
    clock = HandClock()
    waiting = 3 * LOOKUPS
    terms = settings(tmp_path)
    await fill(terms.spool.path, clock, (("bulk", f"b@d{n}.test") for n in range(waiting)))
    async with NameServer({}) as server, ScriptedPeer(HELLO + TAKES) as peer:
        server.hold()
        routes = {"fresh.test": routed(peer.port)["*"]}
        terms = settings(tmp_path, routes=routes, dns=Dns((server.endpoint,), Duration(10)))
        async with running(terms, clock, (MUTE,)) as house:
            async with asyncio.timeout(10):
                await server.until(LOOKUPS)
            await house.send("b@fresh.test")  # the whole way, while nobody answers the others
            assert (await house.event(type="delivery"))["recipient"] == "b@fresh.test"
            assert server.asked.total() == LOOKUPS
            server.release()
            await house.event(waiting, type="bounce")
        assert set(server.asked.values()) == {1}


async def test_more_domains_than_a_round_takes_share_one_lane(tmp_path: Path) -> None:
    clock = HandClock()
    waiting = 2 * ROUND + 5
    terms = settings(tmp_path)
    await fill(terms.spool.path, clock, (("bulk", f"b@d{n}.test") for n in range(waiting)))
    async with ScriptedPeer(HELLO + TAKES * waiting) as peer:
        terms = settings(tmp_path, routes=routed(peer.port, connections=1))
        async with running(terms, clock, (MUTE,)) as house:
            await house.event(waiting, type="delivery")
            assert house.daemon.spool.tally.recipients == 0


async def test_mail_that_is_under_way_for_longer_than_its_wait_is_not_read_again_and_again(
    tmp_path: Path,
) -> None:
    clock = HandClock()
    terms = settings(tmp_path)
    await fill(terms.spool.path, clock, [("bulk", "b@dst.test"), ("bulk", "c@dst.test")])
    async with ScriptedPeer(HELLO + TAKES) as peer:
        terms = settings(tmp_path, routes=routed(peer.port, rate=Rate(1, 86400.0)))
        async with running(terms, clock, (MUTE,)) as house:
            await house.event(type="delivery")  # the other one waits in its lane for a day
            reader = house.daemon.spool.reader
            line = Line("dst.test", 0, "acme")
            ((_, leased),) = await reader.due([(line, 1)], clock.now())
            assert leased is not None
            await clock.advance(leased - clock.now() + 1.0)
            house.daemon.scheduler._backlog.note(line, clock.now())
            async with asyncio.timeout(10):
                while (found := await reader.due([(line, 1)], clock.now()))[0].messages:
                    pass
            assert found[0].rest is not None
            assert found[0].rest > clock.now()
            assert len(house.of(type="delivery")) == 1


URGENT = [
    pytest.param(4, "acme", id="a password"),
    pytest.param(-4, "other", id="a newsletter of another tenant"),
]


@pytest.mark.parametrize(("priority", "tenant"), URGENT)
async def test_newsletters_that_were_due_before_do_not_stand_before_the_name_of_others(
    tmp_path: Path, priority: int, tenant: str
) -> None:
    clock = HandClock()
    terms = settings(tmp_path)
    mail = [Waiting("bulk", f"b@d{n}.test", -4) for n in range(3 * LOOKUPS)]
    await fill(terms.spool.path, clock, [*mail, Waiting("bulk", "ann@shop.test", priority, tenant)])
    async with NameServer({}) as server:
        server.hold()
        terms = settings(tmp_path, dns=Dns((server.endpoint,), Duration(10)))
        async with running(terms, clock, (MUTE,)) as house:
            async with asyncio.timeout(10):
                await server.until(LOOKUPS)
            assert ("shop.test", "MX") in server.asked
            server.release()
            await house.event(type="bounce")


@pytest.mark.parametrize(("priority", "tenant"), URGENT)
async def test_newsletters_that_were_due_before_do_not_stand_before_the_mail_of_others(
    tmp_path: Path, priority: int, tenant: str
) -> None:
    clock = HandClock()
    terms = settings(tmp_path)
    mail = [Waiting("bulk", f"b@d{n}.test", -4) for n in range(15 * ROUND)]
    await fill(terms.spool.path, clock, [*mail, Waiting("bulk", "ann@shop.test", priority, tenant)])
    async with (
        Receiver() as receiver,
        running(settings(tmp_path, routes=routed(receiver.port)), clock, (MUTE,)) as house,
    ):
        await house.event(type="delivery", recipient="ann@shop.test")
        assert receiver.asked.index("ann@shop.test") < ROUND
