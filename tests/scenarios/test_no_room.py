"""No room on the disk, in a tenant's share or in memory: the client hears it and keeps its mail."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import aiohttp

from mta.config.settings import Limits, Quota, Size, SpoolSettings
from mta.core.credential import Credential
from mta.smtp.parser import CROWDED
from tests.fakes.client import CONTENT, PATIENCE, Client, greeted
from tests.fakes.clock import HandClock
from tests.fakes.house import KEY, NETWORK, House, routed, running, settings
from tests.fakes.peer import HELLO, TAKES, ScriptedPeer, envelope
from tests.fakes.probe import Desk, probing

EXABYTE = 1024**6
MAIL = "MAIL FROM:<a@src.test>"
LATER = HELLO + envelope("250 ok", "451 4.3.0 later", "554 no recipients")


async def test_a_disk_below_its_reserve_refuses_mail_before_it_is_sent(tmp_path: Path) -> None:
    full = SpoolSettings(tmp_path / "spool", reserve=Size(EXABYTE))
    async with running(settings(tmp_path, spool=full)) as house, await greeted(house.network) as client:
        kept = EXABYTE // 2**20
        said = await client.ask(MAIL)
        assert said.startswith("452 4.3.1 The disk has no room: ")
        assert said.endswith(f" MiB are free and {kept} MiB are kept in reserve; try again in 5 minutes")
        told = await house.event(type="rejection")
        assert (told["reply"]["code"], told["permanent"], told["sender"]) == (452, False, "a@src.test")
        url = f"http://127.0.0.1:{house.daemon.admin.endpoint.port}/readyz"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            assert answer.status == 503
            said = await answer.text()
            assert f"{tmp_path / 'spool'}: " in said
            assert said.rstrip().endswith("; make room there, or lower spool.reserve")


async def test_a_declared_size_that_the_disk_cannot_hold(tmp_path: Path) -> None:
    limits = Limits(message_size=Size(EXABYTE), memory=Size(4 * EXABYTE))
    async with running(settings(tmp_path, limits=limits)) as house, await greeted(house.network) as client:
        said = await client.ask(f"{MAIL} SIZE={EXABYTE}")
        assert said.startswith("452 4.3.1 The disk has no room: ")
        assert said.endswith(f"too few for {EXABYTE} octets; try again in 5 minutes")
        assert await client.ask(f"{MAIL} SIZE=1000") == "250 2.1.0 Ok"


async def test_a_tenant_with_its_share_in_the_queue_waits_and_others_do_not(tmp_path: Path) -> None:
    other = Credential("other", "other", "transactional")
    limits = Limits(tenants={"default": Quota(messages=5), "acme": Quota(messages=1)})
    taken = TAKES.replace("-> 250 2.1.0 ok", "-> 250 reset\n-> 250 2.1.0 ok")
    async with ScriptedPeer(LATER + "<- RSET\n" + taken, HELLO + TAKES) as peer:
        terms = settings(tmp_path, limits=limits, routes=routed(peer.port, connections=1))
        clock = HandClock()
        async with running(terms, clock, (replace(NETWORK, notify=False), other)) as house:
            assert (await house.send("b@dst.test")).startswith("250 ")
            await house.event(type="deferral")
            full = "you have 1 messages in the queue and may have 1; try again when some are delivered"
            assert await house.send("b@dst.test") == f"452 4.3.1 The quota is used up: {full}"
            async with await greeted(house.submissions, tls=True) as client:
                assert (await client.auth("other", KEY)).startswith("235 ")
                assert (await client.deliver(CONTENT, "c@dst.test")).startswith("250 ")
            await house.event(type="delivery", tenant="other")
            await clock.advance(301.0)
            await house.event(type="delivery", tenant="acme")
            assert house.daemon.spool.usage("acme") == (0, 0)


async def test_a_tenant_whose_octets_are_used_up(tmp_path: Path) -> None:
    limits = Limits(tenants={"acme": Quota(size=Size(1000))})
    async with running(settings(tmp_path, limits=limits)) as house, await greeted(house.network) as client:
        assert (await client.ask(f"{MAIL} SIZE=1001")).startswith("452 4.3.1 The quota is used up: ")
        assert await client.ask(f"{MAIL} SIZE=1000") == "250 2.1.0 Ok"


async def test_a_message_too_many_for_memory_is_heard_to_its_end_and_not_kept() -> None:
    desk = Desk()
    async with probing(desk, memory=20_000) as listener:
        first, second = await greeted(listener.port), await greeted(listener.port)
        for client in (first, second):
            for line in (MAIL, "RCPT TO:<b@dst.test>"):
                assert (await client.ask(line)).startswith("250 ")
            assert (await client.ask("DATA")).startswith("354 ")
        first.send(b"x" * 9_000)
        await desk.until(octets=9_000)
        second.send(b"x" * 6_000)
        await desk.until(octets=15_000)
        assert listener.memory.used == 9_000
        second.send(b"x" * 2_000 + b"\r\n.\r\n")
        expected = "452 4.3.1 Too much is being received at once; try again in 30 seconds"
        assert str(await second.reply()) == expected
        first.send(b"\r\n.\r\n")
        assert str(await first.reply()) == "250 2.0.0 Ok"
        assert desk.contents == [b"x" * 9_000 + b"\r\n"]
        assert listener.memory.used == 0
        second.say(MAIL, "RCPT TO:<b@dst.test>", "DATA")
        assert [said[:3] for said in await second.replies(3)] == ["250", "250", "354"]
        second.send(b"Subject: again\r\n\r\n.\r\n")
        assert str(await second.reply()) == "250 2.0.0 Ok"


async def test_a_client_that_vanishes_in_the_middle_gives_its_memory_back() -> None:
    desk = Desk()
    async with probing(desk, memory=20_000) as listener:
        client = await greeted(listener.port)
        client.say(MAIL, "RCPT TO:<b@dst.test>", "DATA")
        await client.replies(3)
        client.send(b"x" * 9_000)
        await desk.until(octets=9_000)
        client.reset()
        await desk.until(gone=1)
        assert listener.memory.used == 0


async def unfinished(house: House, client: Client, size: int) -> None:
    """A message of which so many octets come, and no end."""
    client.say(MAIL, "RCPT TO:<b@dst.test>", "DATA")
    assert [said[:3] for said in await client.replies(3)] == ["250", "250", "354"]
    memory = house.daemon.capacity.memory
    before = memory.used
    client.send(CONTENT.ljust(size, b"x"))
    async with asyncio.timeout(PATIENCE):
        while memory.used < before + size:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0)


async def test_a_declared_size_beyond_what_memory_has_left_is_refused_at_data(tmp_path: Path) -> None:
    limits = Limits(memory=Size(100_000))
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(running(settings(tmp_path, limits=limits)))
        client, other = [await stack.enter_async_context(await greeted(house.network)) for _ in "12"]
        await unfinished(house, other, 20_000)
        client.say(f"{MAIL} SIZE=10001", "RCPT TO:<b@dst.test>")
        assert [said[:3] for said in await client.replies(2)] == ["250", "250"]
        assert await client.ask("DATA") == str(CROWDED)
        other.send(b"\r\n.\r\n")
        assert (await other.reply()).code == 250
        assert (await client.ask("DATA")).startswith("354 ")


async def test_the_size_that_is_announced_can_be_received(tmp_path: Path) -> None:
    """Whatever limits.message_size says: nobody is told for ever to try again."""
    terms = settings(tmp_path, limits=Limits(memory=Size(2_000_000)))
    async with running(terms) as house, await greeted(house.network) as client:
        assert "SIZE 1000000" in await client.ehlo()
        said = await client.ask(f"{MAIL} SIZE=1000001")
        assert said == "552 5.3.4 The message is larger than 1000000 octets"
        largest = CONTENT.ljust(999_998, b"x") + b"\r\n"
        await unfinished(house, client, 999_998)
        for octets in (b"\r\n.", b"\r", b"\n"):
            client.send(octets)
            await client.drained()
        assert (await client.reply()).code == 250
        said = await client.deliver(b"X: y\r\n" + largest)
        assert said == "552 5.3.4 The message is larger than 1000000 octets"


async def test_unfinished_messages_of_one_client_leave_room_for_everybody_else(tmp_path: Path) -> None:
    others = [
        Credential(name, tenant, "transactional", networks=(network,), kind="network")
        for name, tenant, network in (("two", "acme", "127.0.0.2"), ("three", "other", "127.0.0.3"))
    ]
    terms = settings(tmp_path, routes=routed(1), limits=Limits(memory=Size(8 * 2**20)))
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(running(terms, credentials=(NETWORK, *others)))
        memory = house.daemon.capacity.memory
        for size in (2**21, 2**19, 2**17, 2**15, 2**13):  # all that memory has for it
            greedy = await stack.enter_async_context(await greeted(house.network))
            await unfinished(house, greedy, size - 64)
        held = memory.used
        for address, size in (("127.0.0.3", 2**20), ("127.0.0.2", 2**19), ("127.0.0.1", 1024)):
            client = await stack.enter_async_context(await greeted(house.network, address=address))
            assert (await client.deliver(CONTENT.ljust(size, b"x") + b"\r\n")).startswith("250 ")
        assert memory.used == held
        crowded = await stack.enter_async_context(await greeted(house.network))
        assert await crowded.deliver(CONTENT.ljust(2**20, b"x") + b"\r\n") == str(CROWDED)
        assert memory.used == held
    assert memory.used == 0
