"""Authentication against a real store: what is let in, what has to wait, and what costs a hash."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Coroutine
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher

from mta.clock import SystemClock
from mta.core.credential import Credential
from mta.core.model import Go, Wait
from mta.intake.authentication import (
    BOUND,
    BUSY,
    LOOK,
    THREADS,
    WAITING,
    WRONG,
    Authenticator,
    Failures,
    Refusal,
)
from mta.spool.credentials import CredentialStore

ANN = Credential("ann", "acme", "transactional")
LOCAL = Credential("local", "acme", "transactional", networks=("127.0.0.0/8",))
APP = Credential("app", "acme", "bulk", kind="key")
RACK = Credential("rack", "acme", "bulk", networks=("10.0.0.0/8", "2001:db8::/32"), kind="network")
HOST = Credential("host", "acme", "bulk", networks=("10.1.2.3/32",), kind="network")
SECRET = b"correct horse"
KEY = b"mta_" + b"7" * 48
IP = "192.0.2.7"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class Clock(SystemClock):
    """Time stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "credentials.db"
    with CredentialStore(path, CHEAP) as store:
        store.add(ANN, SECRET.decode())
        store.add(LOCAL, SECRET.decode())
        store.add(APP, KEY.decode())
        store.add(RACK)
        store.add(HOST)
    return path


@pytest.fixture
def path(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(template, tmp_path))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def authenticator(path: Path, clock: Clock) -> AsyncIterator[Authenticator]:
    with CredentialStore(path, CHEAP) as store:
        authenticator = Authenticator(store, clock)
        yield authenticator
        authenticator.close()


def at_once(verify: Coroutine[Any, Any, Credential | Refusal]) -> Credential | Refusal | None:
    """The answer, if it is given without waiting for a hash."""
    try:
        verify.send(None)
    except StopIteration as answer:
        result: Credential | Refusal = answer.value
        return result
    verify.close()
    return None


def reason(answer: Credential | Refusal | None) -> str:
    assert isinstance(answer, Refusal)
    return answer.reason


async def test_success_is_remembered_for_ten_minutes_and_at_one_address(
    authenticator: Authenticator, clock: Clock
) -> None:
    assert await authenticator.verify(b"ann", SECRET, IP) == ANN
    assert at_once(authenticator.verify(b"ann", SECRET, IP)) == ANN
    assert at_once(authenticator.verify(b"ann", SECRET, "192.0.2.8")) is None
    clock.seconds += 601
    assert at_once(authenticator.verify(b"ann", SECRET, IP)) is None


async def test_wrong_secret_unknown_login_and_wrong_network_read_the_same(
    authenticator: Authenticator,
) -> None:
    answers = await asyncio.gather(
        authenticator.verify(b"ann", b"battery staple", "192.0.2.1"),
        authenticator.verify(b"ann", b"", "192.0.2.1"),
        authenticator.verify(b"nobody", SECRET, "192.0.2.2"),
        authenticator.verify(b"\xff\x00", SECRET, "192.0.2.3"),
        authenticator.verify(b"local", SECRET, "192.0.2.4"),
        authenticator.verify(b"app", b"mta_wrong", "192.0.2.5"),
        authenticator.verify(b"rack", b"", "10.0.0.1"),
    )
    assert set(answers) == {WRONG}
    assert str(WRONG.reply) == "535 5.7.8 Authentication credentials invalid"
    assert await authenticator.verify(b"local", SECRET, "127.0.0.1") == LOCAL


async def test_key_needs_no_thread(authenticator: Authenticator) -> None:
    assert at_once(authenticator.verify(b"app", KEY, IP)) == APP


async def test_removed_credential_stops_at_once_although_remembered(
    authenticator: Authenticator, path: Path
) -> None:
    assert await authenticator.verify(b"ann", SECRET, IP) == ANN
    with CredentialStore(path, CHEAP) as other:
        other.remove("ann")
    assert await authenticator.verify(b"ann", SECRET, IP) == WRONG


async def test_old_password_stops_at_once_although_remembered(
    authenticator: Authenticator, path: Path
) -> None:
    assert await authenticator.verify(b"ann", SECRET, IP) == ANN
    with CredentialStore(path, CHEAP) as other:
        other.replace_secret("ann", "battery staple")
    assert await authenticator.verify(b"ann", SECRET, IP) == WRONG
    assert await authenticator.verify(b"ann", b"battery staple", IP) == ANN


async def test_credential_removed_while_its_hash_runs_is_refused(
    authenticator: Authenticator, path: Path
) -> None:
    verify = asyncio.create_task(authenticator.verify(b"ann", SECRET, IP))
    await asyncio.sleep(0)
    with CredentialStore(path, CHEAP) as other:
        other.remove("ann")
    assert await verify == WRONG


async def test_sixth_guess_at_a_login_waits_and_costs_no_hash(
    authenticator: Authenticator, clock: Clock
) -> None:
    assert await authenticator.verify(b"ann", SECRET, IP) == ANN
    await asyncio.gather(*(authenticator.verify(b"ann", b"%d" % n, f"198.51.100.{n}") for n in range(5)))
    refusal = at_once(authenticator.verify(b"ann", SECRET, "198.51.100.9"))
    assert isinstance(refusal, Refusal)
    assert str(refusal.reply).startswith("454 4.7.0 Temporary authentication failure")
    assert refusal.reply.text.endswith("try again in 120 seconds")
    assert at_once(authenticator.verify(b"ann", SECRET, IP)) == ANN  # whoever is known goes on
    clock.seconds += 120
    assert await authenticator.verify(b"ann", SECRET, "198.51.100.9") == ANN


async def test_client_that_tries_many_logins_waits_and_its_keys_do_not(authenticator: Authenticator) -> None:
    network = "2001:db8:1:2::"
    await asyncio.gather(
        *(authenticator.verify(b"user%d" % n, b"1234", f"{network}{n + 1}") for n in range(5))
    )
    assert reason(at_once(authenticator.verify(b"ann", SECRET, f"{network}99"))) == "limited"
    assert at_once(authenticator.verify(b"app", KEY, f"{network}99")) == APP
    assert await authenticator.verify(b"ann", SECRET, "2001:db8:1:3::1") == ANN


async def test_hanging_up_does_not_escape_the_count(authenticator: Authenticator) -> None:
    assert await authenticator.verify(b"ann", SECRET, IP) == ANN
    guesses = [asyncio.create_task(authenticator.verify(b"nobody", b"%d" % n, IP)) for n in range(5)]
    await asyncio.sleep(0)
    for guess in guesses:
        guess.cancel()
    async with asyncio.timeout(10):
        for _ in count():
            await asyncio.sleep(0)  # one turn of the loop, until the threads are through
            answer = at_once(authenticator.verify(b"ann", SECRET, IP))
            if answer != ANN:
                break
    assert all(guess.cancelled() for guess in guesses)
    assert reason(answer) == "limited"


async def test_many_connections_of_one_client_share_one_hash(authenticator: Authenticator) -> None:
    many = [authenticator.verify(b"ann", SECRET, IP) for _ in range(3 * WAITING)]
    assert set(await asyncio.gather(*many)) == {ANN}


async def test_full_queue_is_temporary_and_stops_nobody_who_is_known(authenticator: Authenticator) -> None:
    assert await authenticator.verify(b"ann", SECRET, IP) == ANN
    crowd = [
        asyncio.create_task(authenticator.verify(b"user%d" % n, b"1234", f"198.51.100.{n}"))
        for n in range(THREADS + WAITING)
    ]
    await asyncio.sleep(0)
    assert at_once(authenticator.verify(b"ann", SECRET, "203.0.113.1")) == BUSY
    assert BUSY.reply[:2] == (454, "4.7.0")
    assert at_once(authenticator.verify(b"ann", SECRET, IP)) == ANN
    assert at_once(authenticator.verify(b"app", KEY, IP)) == APP
    for one in crowd:
        one.cancel()


def test_table_of_failures_is_bounded_and_keeps_the_latest() -> None:
    failures = Failures()
    for n in range(BOUND + 1):
        for _ in range(5):
            failures.count(b"%d" % n, 0.0)
    assert isinstance(failures.ask(b"0", 0.0), Go)
    assert isinstance(failures.ask(b"1", 0.0), Wait)
    assert isinstance(failures.ask(b"%d" % BOUND, 0.0), Wait)


async def test_most_specific_network_wins(authenticator: Authenticator) -> None:
    assert authenticator.bound_to("10.9.9.9") == RACK
    assert authenticator.bound_to("10.1.2.3") == HOST
    assert authenticator.bound_to("::ffff:10.1.2.3") == HOST
    assert authenticator.bound_to("2001:db8::1") == RACK
    assert authenticator.bound_to("127.0.0.1") is None  # LOCAL has a password: its network narrows it


async def test_network_that_was_removed_is_bound_no_more(
    authenticator: Authenticator, path: Path, clock: Clock
) -> None:
    assert authenticator.bound_to("10.1.2.3") == HOST
    with CredentialStore(path, CHEAP) as other:
        other.remove("host")
        clock.seconds += LOOK
        assert authenticator.bound_to("10.1.2.3") == RACK
        other.remove("rack")
    clock.seconds += LOOK
    assert authenticator.bound_to("10.1.2.3") is None
