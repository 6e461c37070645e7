"""Mail leaves from more than one address, and something is wrong with one of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mta.api.control import call
from mta.config.settings import Address, Endpoint, HostName, SourceSettings, StaticRoute, Stream
from tests.fakes.clock import HandClock
from tests.fakes.house import routed, running, settings
from tests.fakes.peer import HELLO, TAKES, ScriptedPeer, answers
from tests.fakes.relay import MUTE, Relay

B = "b@dst.test"
FIRST, SECOND = "127.0.0.2", "127.0.0.3"
ONE = {"mail1": SourceSettings(Address(FIRST))}
TWO = {**ONE, "mail2": SourceSettings(Address(SECOND), HostName("mail2.test"))}
MAIL1_FIRST = {"default": {"mail1": 10**9, "mail2": 1}}
HELLO2 = HELLO.replace("EHLO mta.test", "EHLO mail2.test")
LISTED = "554 5.7.1 Service unavailable; client [127.0.0.2] blocked using zen.spamhaus.org"
SLOWER = "450 4.7.1 Rate limit exceeded, slow down"


@asynccontextmanager
async def relaying(
    directory: Path,
    *scripts: str,
    sources: Mapping[str, SourceSettings] = TWO,
    pools: Mapping[str, Mapping[str, int]] = MAIL1_FIRST,
    host: str = "127.0.0.1",
    **changes: Any,
) -> AsyncIterator[Relay]:
    async with ScriptedPeer(*scripts, host=host) as peer:
        routes = {"*": StaticRoute(Endpoint(host, peer.port))} if host != "127.0.0.1" else routed(peer.port)
        terms = settings(directory, routes=routes, sources=sources, pools=pools, **changes)
        clock = HandClock()
        async with running(terms, clock, (MUTE,)) as house:
            relay = Relay(house, peer, clock)
            try:
                yield relay
            finally:
                peer.hang_up()


def callers(relay: Relay) -> list[str]:
    return [call.host for call in relay.peer.calls]


async def test_a_source_is_bound_greets_with_its_name_and_is_told(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO2 + TAKES, pools={"default": {"mail2": 1}}) as relay:
        await relay.house.send(B)
        delivery = await relay.house.event(type="delivery")
        assert callers(relay) == [SECOND]
        assert delivery["source"] == "mail2"


async def test_each_stream_leaves_from_its_own_pool(tmp_path: Path) -> None:
    streams = {"transactional": Stream(pool="passwords"), "bulk": Stream()}
    pools = {"passwords": {"mail2": 1}, "default": {"mail1": 1}}
    async with relaying(tmp_path, HELLO2 + TAKES, pools=pools, streams=streams) as relay:
        await relay.house.send(B)
        assert (await relay.house.event(type="delivery"))["source"] == "mail2"
        assert callers(relay) == [SECOND]


async def test_a_greylist_sees_the_same_source_again(tmp_path: Path) -> None:
    listed = HELLO.replace("mta.test", "*") + answers("RCPT", "450 4.2.0 Greylisted, try again")
    equals = {"default": {"mail1": 1, "mail2": 1}}
    later = HELLO.replace("mta.test", "*") + TAKES
    async with relaying(tmp_path, *[listed] * 6, *[later] * 6, pools=equals) as relay:
        for number in range(6):
            await relay.house.send(f"b{number}@dst.test")
            await relay.house.event(number + 1, type="deferral")
            await relay.clock.advance(40)  # the connection ends: each message has one of its own
        await relay.clock.advance(22)
        for number in range(6):
            await relay.clock.advance(40)  # the first is tried again after 5 minutes
            await relay.house.event(number + 1, type="delivery")
        first = {each["recipient"]: each["source"] for each in relay.house.of(type="deferral")}
        assert {each["recipient"]: each["source"] for each in relay.house.of(type="delivery")} == first
        assert set(first.values()) == {"mail1", "mail2"}


async def test_a_source_on_a_blocklist_leaves_its_mail_to_the_other_one(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + answers("RCPT", LISTED), *[HELLO2 + TAKES] * 2) as relay:
        await relay.house.send("first@dst.test")
        deferral = await relay.house.event(type="deferral")
        assert (deferral["source"], deferral["subject"]) == ("mail1", "source")
        assert deferral["permanent"] is False
        await relay.house.send("second@dst.test")  # not even tried there
        assert (await relay.house.event(type="delivery"))["source"] == "mail2"
        await relay.clock.advance(301)
        await relay.house.event(2, type="delivery", source="mail2")
        assert callers(relay) == [FIRST, SECOND, SECOND]
        (limit,) = relay.house.of(type="limit")
        assert (limit["source"], limit["reason"].partition(":")[0]) == ("mail1", "suspended")


async def test_what_waits_for_a_source_that_is_blocked_goes_over_the_other_one(tmp_path: Path) -> None:
    blocked = HELLO + "hold\n" + answers("RCPT", LISTED)
    async with relaying(tmp_path, blocked, HELLO2 + TAKES * 3, sources=TWO) as relay:
        for number in range(4):
            await relay.house.send(f"b{number}@dst.test")
        await relay.peer.at(1, "hold")
        relay.peer.go()
        await relay.house.event(3, type="delivery", source="mail2")
        assert {each["attempt"] for each in relay.house.of(type="delivery")} == {1}
        assert len(relay.house.of(type="deferral")) == 1


async def test_with_one_source_a_blocklist_bounces_and_at_the_greeting_mail_waits(tmp_path: Path) -> None:
    pools = {"default": {"mail1": 1}}
    async with relaying(tmp_path, HELLO + answers("RCPT", LISTED), sources=ONE, pools=pools) as relay:
        await relay.house.send(B)
        assert (await relay.house.event(type="bounce"))["source"] == "mail1"


async def test_a_block_is_remembered_over_a_restart(tmp_path: Path) -> None:
    async with ScriptedPeer(HELLO + answers("RCPT", LISTED), HELLO2 + TAKES) as peer:
        terms = settings(tmp_path, routes=routed(peer.port), sources=TWO, pools=MAIL1_FIRST)
        clock = HandClock()
        async with running(terms, clock, (MUTE,)) as house:
            await house.send("first@dst.test")
            await house.event(type="deferral")
        async with running(terms, clock, (MUTE,)) as house:
            await house.send("second@dst.test")
            assert (await house.event(type="delivery"))["source"] == "mail2"
            peer.hang_up()


async def test_one_source_that_is_too_fast_slows_no_other_one(tmp_path: Path) -> None:
    streams_pool = {"default": {"mail1": 1, "mail2": 1}}
    hello = HELLO.replace("mta.test", "*")
    async with relaying(tmp_path, *[hello + answers("RCPT", SLOWER)], pools=streams_pool) as relay:
        await relay.house.send(B)
        slow = await relay.house.event(type="limit")
        pool = relay.house.daemon.pool
        paths = {traffic.source: traffic.branch for traffic in pool._branches.in_use.values()}
        assert paths.keys() == {slow["source"]}  # nobody has come to the other one, and it is as it began
        assert paths[slow["source"]].rate < float("inf")


async def test_an_address_that_this_machine_has_no_more_is_told_and_the_other_source_sends(
    tmp_path: Path,
) -> None:
    gone = {**TWO, "mail1": SourceSettings(Address("192.0.2.77"))}
    async with relaying(tmp_path, HELLO2 + TAKES * 2, sources=gone) as relay:
        await relay.house.send("first@dst.test")
        delivery = await relay.house.event(type="delivery")
        assert (delivery["source"], delivery["attempt"]) == ("mail2", 1)
        (state,) = relay.house.of(type="state")
        assert state["source"] == "mail1"
        assert state["reason"] == (
            "the source mail1 (192.0.2.77) cannot be used: Cannot assign requested address"
        )
        await relay.house.send("second@dst.test")
        await relay.house.event(2, type="delivery", source="mail2")
        assert len(relay.house.of(type="state")) == 1


async def test_an_address_that_this_machine_has_no_more_and_no_other_one(tmp_path: Path) -> None:
    gone = {"mail1": SourceSettings(Address("192.0.2.77"))}
    async with relaying(tmp_path, sources=gone, pools={}) as relay:
        await relay.house.send(B)
        deferral = await relay.house.event(type="deferral")
        assert deferral["subject"] == "source"
        assert deferral["reply"] == {
            "code": 451,
            "enhanced": "4.3.5",
            "text": "the source mail1 (192.0.2.77) cannot be used: Cannot assign requested address",
        }


async def test_a_host_of_the_other_family_is_left_to_the_source_that_reaches_it(tmp_path: Path) -> None:
    mixed = {
        "mail1": SourceSettings(Address(FIRST)),
        "mail2": SourceSettings(Address("::1"), HostName("mail2.test")),
    }
    async with relaying(tmp_path, HELLO2 + TAKES, sources=mixed, host="::1") as relay:
        await relay.house.send(B)
        delivery = await relay.house.event(type="delivery")
        assert (delivery["source"], delivery["attempt"]) == ("mail2", 1)
        assert callers(relay) == ["::1"]


async def test_a_host_of_the_other_family_and_no_source_that_reaches_it(tmp_path: Path) -> None:
    async with relaying(tmp_path, sources=ONE, pools={}, host="::1") as relay:
        await relay.house.send(B)
        deferral = await relay.house.event(type="deferral")
        assert deferral["reply"]["text"] == (
            "::1 has no IPv4 address, and the source mail1 (127.0.0.2) no other; "
            "give its pool a source of the other family"
        )


async def test_a_lane_that_is_full_leaves_mail_to_the_next_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mta.core.limits.turns.CAPACITY", 2)
    slow = "hold\n" + HELLO + TAKES * 2
    async with relaying(tmp_path, slow, HELLO2 + TAKES * 2) as relay:
        for number in range(4):
            await relay.house.send(f"b{number}@dst.test")
        await relay.house.event(2, type="delivery", source="mail2")
        relay.peer.go()
        await relay.house.event(2, type="delivery", source="mail1")


async def test_what_a_source_has_learned_is_explained_apart(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.house.event(type="delivery")
        socket = relay.house.daemon.settings.control_socket
        answer = await asyncio.to_thread(call, socket, "explain", {"destination": "dst.test"})
        one, two = answer["sources"]
        assert (one["source"], one["address"], one["hostname"]) == ("mail1", FIRST, "mta.test")
        assert one["state"]["connections"] == 1
        assert (two["source"], two["hostname"]) == ("mail2", "mail2.test")
        assert two["state"] in (None, {**one["state"], "connections": 0})
