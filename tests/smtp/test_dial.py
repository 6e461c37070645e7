"""Addresses that do not answer, of both families, and the one that does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mta.clock import Clock, SystemClock
from mta.smtp.dial import CONNECT_TIMEOUT, HEAD_START, Dialled, dial
from mta.smtp.trouble import LocalError, PeerError
from tests.fakes.clock import HandClock


@contextmanager
def listening(address: str, port: int = 0) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as made:
        made.bind((address, port))
        made.listen()
        yield made


@contextmanager
def silent(address: str, port: int) -> Iterator[None]:
    """Whoever connects here hears nothing at all: all of its room is taken."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as full, socket.socket(family) as first, socket.socket(family) as second:
        full.bind((address, port))
        full.listen(0)
        for each in (first, second):
            each.setblocking(False)
            each.connect_ex((address, port))
        yield


class Attempt:
    """Dial, and hear who was missed."""

    def __init__(self, *addresses: str, port: int, clock: Clock | None = None) -> None:
        self.missed: dict[str, str] = {}
        work = dial(addresses, port, "", clock or SystemClock(), self._miss, CONNECT_TIMEOUT)
        self.task = asyncio.create_task(work)

    def _miss(self, address: str, error: PeerError | None) -> None:
        self.missed[address] = str(error)

    async def connected(self) -> str:
        won = await self.task
        assert isinstance(won, Dialled)
        with won.socket:
            assert won.socket.getpeername()[0] == won.address
        return won.address


async def test_the_first_address_wins_where_it_answers() -> None:
    with listening("::1") as there, listening("127.0.0.1", port := there.getsockname()[1]):
        attempt = Attempt("::1", "127.0.0.1", port=port)
        assert (await attempt.connected(), attempt.missed) == ("::1", {})


async def test_an_address_that_refuses_gives_way_at_once_and_is_told() -> None:
    with listening("127.0.0.1") as there:
        attempt = Attempt("::1", "127.0.0.1", port=there.getsockname()[1], clock=HandClock())
        assert await attempt.connected() == "127.0.0.1"
        assert attempt.missed == {"::1": "Connection refused"}


async def test_an_address_that_is_silent_has_a_head_start_of_a_quarter_of_a_second() -> None:
    clock = HandClock()
    with listening("127.0.0.1") as there, silent("::1", port := there.getsockname()[1]):
        attempt = Attempt("::1", "127.0.0.1", port=port, clock=clock)
        await clock.asked_for(HEAD_START)
        assert not attempt.task.done()
        await clock.advance(HEAD_START)
        assert await attempt.connected() == "127.0.0.1"
        assert attempt.missed == {"::1": "None"}


async def test_where_nobody_answers_each_is_told() -> None:
    with listening("127.0.0.1") as there:
        port = there.getsockname()[1]
    attempt = Attempt("::1", "127.0.0.1", port=port)
    with pytest.raises(PeerError, match="Connection refused"):
        await attempt.task
    assert set(attempt.missed) == {"::1", "127.0.0.1"}


async def test_a_family_that_this_machine_does_not_have_is_our_own_trouble() -> None:
    with listening("127.0.0.1") as there:
        attempt = Attempt("ff0e::1", port=there.getsockname()[1])  # a multicast group: no TCP goes there
        with pytest.raises(LocalError):
            await attempt.task


async def test_a_dial_that_is_cancelled_leaves_no_socket_open() -> None:
    clock = HandClock()
    with listening("127.0.0.1") as there:
        port = there.getsockname()[1]
        with silent("::1", port), silent("127.0.0.2", port):
            attempt = Attempt("::1", "127.0.0.2", port=port, clock=clock)
            await clock.asked_for(HEAD_START)
            await clock.advance(HEAD_START)
            attempt.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await attempt.task
    assert attempt.missed == {}
