"""Clients that have not logged in: many, silent, noisy. A customer does not notice."""

from __future__ import annotations

import asyncio
import base64
import gc
import logging
import socket
import struct
import weakref
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from mta.config.settings import Limits
from mta.core.credential import Credential
from mta.core.limits.sparing import MOST, PERIOD
from mta.intake.strangers import MAX_NAME
from mta.smtp.connection import STRANGER
from tests.fakes.client import CONTENT, Client, greeted
from tests.fakes.clock import HandClock
from tests.fakes.house import KEY, House, running, settings

APP = Credential("app", "acme", "transactional", kind="key")
PORTS = ["submission", "submissions"]


async def knock(house: House, port: int, source: str, places: ExitStack) -> socket.socket:
    """A connection from this address that says nothing."""
    own = places.enter_context(socket.socket())
    own.setblocking(False)
    own.bind((source, 0))
    await asyncio.get_running_loop().sock_connect(own, ("127.0.0.1", port))
    return own


async def until(house: House, count: int) -> None:
    """So many places are held."""
    async with asyncio.timeout(10):
        while house.daemon.intake.connections != count:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("door", PORTS)
async def test_a_client_that_connects_and_says_nothing_counts_and_is_cut(tmp_path: Path, door: str) -> None:
    clock = HandClock()
    terms = settings(tmp_path, limits=Limits(connections_per_client=5))
    async with running(terms, clock, (APP,)) as house:
        with ExitStack() as places:
            knocked = [await knock(house, getattr(house, door), "127.0.0.1", places) for _ in range(20)]
            await until(house, 5)
            await clock.advance(STRANGER + 2)
            await until(house, 0)
            assert len(house.daemon.listeners[PORTS.index(door)].connections) == 0
            for each in knocked:
                async with asyncio.timeout(10):
                    while await asyncio.get_running_loop().sock_recv(each, 4096):
                        pass


@pytest.mark.parametrize("door", PORTS)
async def test_a_customer_finds_a_place_beside_any_number_of_strangers(tmp_path: Path, door: str) -> None:
    terms = settings(tmp_path, limits=Limits(connections=20, connections_per_client=5))
    async with running(terms, credentials=(APP,)) as house:
        with ExitStack() as places:
            for n in range(60):
                await knock(house, getattr(house, door), f"127.0.1.{n % 12 + 1}", places)
            await until(house, 10)
            async with await greeted(house.submissions, tls=True) as client:
                assert (await client.auth("app", KEY)).startswith("235 ")
                for n in range(20):
                    await knock(house, getattr(house, door), f"127.0.1.{n % 12 + 1}", places)
                assert (await client.deliver()).startswith("250 ")


async def test_noop_is_no_step_towards_a_login(tmp_path: Path) -> None:
    clock = HandClock()
    async with running(settings(tmp_path), clock, (APP,)) as house, await greeted(house.submission) as client:
        for _ in range(3):
            await clock.advance(9)
            assert await client.ask("NOOP") == "250 2.0.0 OK"
            await client.ehlo()
        await clock.advance(4)
        assert await client.rest() == b"421 4.4.2 Timed out: the login took too long\r\n"


async def test_who_has_logged_in_has_the_time_of_a_customer(tmp_path: Path) -> None:
    clock = HandClock()
    terms = settings(tmp_path)
    async with running(terms, clock, (APP,)) as house, await greeted(house.submissions, tls=True) as client:
        assert (await client.auth("app", KEY)).startswith("235 ")
        await clock.advance(STRANGER * 2)
        assert (await client.deliver()).startswith("250 ")


async def test_a_flood_of_refused_logins_is_six_events_a_minute_and_a_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, name = HandClock(), "x" * 250
    with caplog.at_level(logging.INFO, "mta.intake.strangers"):
        async with running(settings(tmp_path), clock, (APP,)) as house:
            refused = 0
            response = base64.b64encode(f"\0{name}\0wrong".encode()).decode()
            for _ in range(12):
                async with await greeted(house.submissions, tls=True) as client:
                    while (said := await client.ask(f"AUTH PLAIN {response}"))[:1] in "45":
                        refused += 1
                        if said[:3] == "421":
                            break
            events = house.daemon.intake.strangers._events
            (reason,) = (each for each, count in events._told.items() if count > MOST)
            await clock.advance(PERIOD + 1)
            rest = await house.event(count=MOST + 1, reason=reason)
            rest = house.of(reason=reason)[-1]
            told = [each for each in house.of(type="rejection") if "untold" not in each]
            assert all(len(each["credential"]) == MAX_NAME for each in told)
            by_reason = {each["reason"] for each in told}
            assert all(len(house.of(reason=reason)) <= MOST + 1 for reason in by_reason)
            counted = sum(each.get("untold", 1) for each in house.of(type="rejection"))
            assert counted == refused
            assert rest["untold"] > 0
            lines = [each for each in caplog.messages if "was refused" in each]
            assert len(lines) <= MOST


async def test_garbage_instead_of_a_handshake_is_counted_and_told_sparingly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        async with running(settings(tmp_path), credentials=(APP,)) as house:
            for _ in range(30):
                async with await Client.connect(house.submissions) as client:
                    client.send(b"GET / HTTP/1.1\r\nHost: mail\r\n\r\n")
                    await client.rest()
            assert house.daemon.metrics.handshakes_failed._value.get() == 30
            told = [each for each in caplog.messages if "handshake failed" in each]
            assert len(told) == MOST
            assert not [each for each in caplog.records if each.levelno >= logging.ERROR]
            assert not house.events
            async with await greeted(house.submissions, tls=True) as client:
                assert (await client.auth("app", KEY)).startswith("235 ")


@pytest.mark.parametrize("ending", ["quit", "vanishes", "garbage"])
async def test_a_session_that_is_over_leaves_nothing_for_the_collector(tmp_path: Path, ending: str) -> None:
    """2,500 of them would hold 67 MB until the next full collection, which takes 0.1 s of the loop."""
    async with (
        running(settings(tmp_path), credentials=(APP,)) as house,
        await Client.connect(house.submissions, tls=ending != "garbage") as client,
    ):
        if ending != "garbage":
            await client.reply()
            await client.ehlo()
            await client.auth("app", KEY)
        await until(house, 1)
        (connection,) = house.daemon.listeners[1].connections
        remembered = weakref.ref(connection)
        del connection
        gc.disable()
        try:
            if ending == "vanishes":
                client.reset()
            else:
                client.say("QUIT" if ending == "quit" else "no hello")
                await client.rest()
            await until(house, 0)
            for _ in range(20):
                await asyncio.sleep(0)
            assert remembered() is None
        finally:
            gc.enable()


async def test_a_stop_does_not_wait_for_handshakes(tmp_path: Path) -> None:
    clock = HandClock()
    terms = settings(tmp_path, limits=replace(Limits(), drain=3600.0))  # type: ignore[arg-type]
    with ExitStack() as places:
        async with asyncio.timeout(10), running(terms, clock, (APP,)) as house:
            await knock(house, house.submissions, "127.0.0.1", places)
            await until(house, 1)


async def test_what_a_client_sends_with_its_first_packet_is_the_handshakes(tmp_path: Path) -> None:
    """Its hello is here before the loop asks who it is for."""
    async with running(settings(tmp_path), credentials=(APP,)) as house:
        clients = await asyncio.gather(*(greeted(house.submissions, tls=True) for _ in range(20)))
        for client in clients:
            assert (await client.auth("app", KEY)).startswith("235 ")
            assert (await client.deliver(CONTENT)).startswith("250 ")
            await client.__aexit__()


async def test_strangers_who_say_much_and_go_take_no_turns_of_a_customers(tmp_path: Path) -> None:
    body = b"From: a@src.test\r\n\r\n" + b"x" * 76 * 10_000 + b"\r\n"
    async with (
        running(settings(tmp_path), credentials=(APP,)) as house,
        await greeted(house.submissions, tls=True) as client,
    ):
        assert (await client.auth("app", KEY)).startswith("235 ")
        for _ in range(45):  # 13 seconds, had they their turns
            with ExitStack() as places:
                for n in range(50):
                    own = await knock(house, house.submission, f"127.0.1.{n + 1}", places)
                    await asyncio.get_running_loop().sock_sendall(own, b"NOOP\r\n" * 150)
                    await asyncio.sleep(0)
        await until(house, 1)
        assert (await client.deliver(body)).startswith("250 ")


@pytest.mark.parametrize("door", PORTS)
async def test_who_has_hung_up_before_anybody_looks_is_no_bug(tmp_path: Path, door: str) -> None:
    async with running(settings(tmp_path), credentials=(APP,)) as house:
        for _ in range(5):
            for _ in range(20):  # while the loop stands still, so that all are gone when it looks
                own = socket.create_connection(("127.0.0.1", getattr(house, door)))
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                own.close()
            async with await greeted(house.submission):
                pass
        await until(house, 0)
        assert house.daemon.metrics.bugs["intake"]._value.get() == 0
        async with asyncio.timeout(10):
            while house.daemon.listeners[PORTS.index(door)].connections:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.001)


async def test_a_stop_does_not_wait_for_strangers_in_their_login(tmp_path: Path) -> None:
    clock = HandClock()
    terms = settings(tmp_path, limits=replace(Limits(), drain=3600.0))  # type: ignore[arg-type]
    async with asyncio.timeout(10), running(terms, clock, (APP,)) as house:
        client = await greeted(house.submissions, tls=True)
        assert (await client.ask("AUTH LOGIN")).startswith("334 ")
        house.daemon.stop()
        assert str(await client.reply()) == "421 4.3.2 The service is going down; please come back"
        await client.rest()
        client.writer.close()


async def test_a_stop_does_not_wait_for_who_comes_as_the_door_closes(tmp_path: Path) -> None:
    terms = settings(tmp_path, limits=replace(Limits(), drain=3600.0))  # type: ignore[arg-type]
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(20), running(terms, HandClock()) as house:
        busy, door = await greeted(house.network), house.daemon.listeners[2]
        assert (await busy.ask("MAIL FROM:<a@src.test>")).startswith("250 ")
        with socket.create_server(("127.0.0.1", 0)) as ours, socket.socket() as late:
            late.connect(ours.getsockname())
            taken, _ = ours.accept()  # as the loop takes some, and tells us two rounds later
            house.daemon.stop()
            while not door.draining:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0)
            await loop.connect_accepted_socket(door._connect(door).copy, taken)
            late.setblocking(False)
            said = b""
            while octets := await loop.sock_recv(late, 4096):
                said += octets
        assert said == b"421 4.3.2 The service is going down; please come back\r\n"
        busy.writer.close()
