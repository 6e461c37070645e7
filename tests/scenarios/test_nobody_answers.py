"""Sites that refuse every connection: retries, the gate before a dead site, expiry."""

from __future__ import annotations

import asyncio
from pathlib import Path

from mta.api.control import call
from mta.config.settings import Duration, Stream
from mta.delivery.lanes import QUIET
from tests.fakes.peer import HELLO, TAKES
from tests.fakes.relay import Relay, relaying, wait_of

HOUR = 3600.0


async def wait_for_the_next_attempt(relay: Relay) -> dict[str, object]:
    """From the last deferral to the attempt that it announces, and what became of that."""
    told = relay.house.of(attempt=len(relay.house.of(type="deferral")))
    await relay.clock.advance(wait_of(told[-1]) + 1)
    return await relay.house.event(attempt=told[-1]["attempt"] + 1)


async def test_a_refused_connection_is_a_deferral_and_a_later_retry_delivers(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + TAKES, shut=True) as relay:
        await relay.house.send("b@dst.test")
        deferral = await relay.house.event(type="deferral")
        text = deferral["reply"]["text"]
        assert text == "No host answered; it is tried again: 127.0.0.1 [127.0.0.1]: Connection refused"
        assert (deferral["subject"], wait_of(deferral)) == ("network", 300)
        await relay.peer.open()
        await relay.clock.advance(301)
        assert (await relay.house.event(type="delivery"))["attempt"] == 2


async def test_a_dead_site_is_not_dialled_before_its_time(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + TAKES, HELLO + TAKES, shut=True) as relay:
        await relay.house.send("b@dst.test")
        await relay.house.event(type="deferral")
        await relay.peer.open()
        await relay.house.send("c@dst.test")
        await relay.clock.advance(29)
        assert relay.peer.calls == []
        await relay.clock.advance(2)
        delivery = await relay.house.event(type="delivery", recipient="c@dst.test")
        assert delivery["attempt"] == 1  # the gate has burnt none
        await relay.clock.advance(270)
        await relay.house.event(type="delivery", recipient="b@dst.test")
        assert len(relay.house.of(type="deferral")) == 1


async def test_what_the_gate_holds_back_for_less_than_a_commit_is_not_forgotten(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + TAKES, shut=True) as relay:
        await relay.house.send("b@dst.test")
        await relay.house.event(type="deferral")
        await relay.peer.open()
        await relay.clock.advance(29.999)
        await relay.house.send("c@dst.test")
        await relay.clock.advance(0.002)
        await relay.house.event(type="delivery", recipient="c@dst.test")


async def test_a_dead_site_is_forgotten_after_an_hour(tmp_path: Path) -> None:
    async with relaying(tmp_path, shut=True, stream=Stream(expire=Duration(30))) as relay:
        await relay.house.send("b@dst.test")
        await relay.house.event(type="deferral")
        await relay.clock.advance(61)
        await relay.house.event(type="expiration")
        await relay.clock.advance(HOUR - 61)
        assert relay.house.daemon.pool.lanes == 1
        await relay.clock.advance(32 + QUIET)
        assert relay.house.daemon.pool.lanes == 0


async def test_retries_double_up_to_two_hours_and_the_last_is_made_before_expiry(tmp_path: Path) -> None:
    async with relaying(tmp_path, shut=True, stream=Stream(expire=Duration(5 * HOUR))) as relay:
        start = relay.clock.now()
        await relay.house.send("b@dst.test")
        event = await relay.house.event(type="deferral")
        while event["type"] == "deferral":
            event = await wait_for_the_next_attempt(relay)
        waits = [wait_of(each) for each in relay.house.of(type="deferral")]
        assert waits[:6] == [300, 600, 1200, 2400, 4800, 7200]
        assert len(waits) == 7
        assert 5 * HOUR - 60 <= relay.clock.now() - start < 5 * HOUR
        assert event["type"] == "expiration"
        assert event["permanent"] is True
        assert event["reply"]["text"].startswith("No host answered; it is tried again: ")
        assert "due" not in event


async def test_expiry_needs_no_peer(tmp_path: Path) -> None:
    """The gate before the dead site shuts the last attempt out, so the timer alone gives the message up."""
    stream = Stream(expire=Duration(190), retry_first=Duration(35))
    async with relaying(tmp_path, shut=True, stream=stream) as relay:
        await relay.house.send("b@dst.test")
        await relay.house.event(type="deferral")
        assert (await wait_for_the_next_attempt(relay))["type"] == "deferral"
        assert (await wait_for_the_next_attempt(relay))["type"] == "deferral"
        await relay.clock.advance(85)
        await relay.house.daemon.spool.reader.queue(1)  # a look at the spool that is under way is over then
        await relay.clock.advance(31)
        expiration = await relay.house.event(type="expiration")
        assert expiration["reply"] == relay.house.of(type="deferral")[-1]["reply"]  # the last attempt's
        assert "Connection refused" in expiration["reply"]["text"]
        assert (expiration["attempt"], expiration["permanent"]) == (3, True)


async def test_an_expired_message_leaves_the_spool(tmp_path: Path) -> None:
    async with relaying(tmp_path, shut=True, stream=Stream(expire=Duration(30))) as relay:
        await relay.house.send("b@dst.test")
        assert wait_of(await relay.house.event(type="deferral")) == 27
        await relay.clock.advance(61)
        await relay.house.event(type="expiration")
        assert await relay.house.daemon.spool.reader.queue(10) == []


async def test_a_site_that_is_dead_is_told_with_the_reason_and_told_again_when_it_answers(
    tmp_path: Path,
) -> None:
    async with relaying(tmp_path, HELLO + TAKES, shut=True) as relay:
        await relay.house.send("b@dst.test")
        site = f"127.0.0.1:{relay.peer.port}"
        dead = await relay.house.event(type="state", site=site)
        assert dead["reason"].startswith("left alone: No host answered; it is tried again: 127.0.0.1")
        assert wait_of(dead) == 30
        socket = relay.house.daemon.settings.control_socket
        told = await asyncio.to_thread(call, socket, "explain", {"destination": "dst.test"})
        assert told["sources"][0]["state"]["dead_for"] == 30.0
        await relay.peer.open()
        await relay.clock.advance(301)
        await relay.house.event(type="delivery")
        await relay.house.event(2, type="state", site=site)
        (_, alive) = relay.house.of(type="state", site=site)
        assert alive["reason"] == "mail is answered again"
        assert "due" not in alive
