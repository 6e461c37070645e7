"""Authentication against a real store: what is let in, what has to wait, and what costs a hash."""

import asyncio
import shutil
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError

from mta.core.credential import Credential
from mta.core.limits.proofs import REMEMBERED
from mta.intake import authentication
from mta.intake.authentication import BUSY, FEW, LOOK, READ, THREADS, WAITING, WRONG, Authenticator, Denial
from mta.store import credentials
from mta.store.credentials import CredentialError, CredentialStore, StoredCredential
from tests.fakes.clock import HandClock

ANN = Credential("ann", "acme", "transactional")
LOCAL = Credential("local", "acme", "transactional", networks=("127.0.0.0/8",))
APP = Credential("app", "acme", "bulk", kind="key")
RACK = Credential("rack", "acme", "bulk", networks=("10.0.0.0/8", "2001:db8::/32"), kind="network")
HOST = Credential("host", "acme", "bulk", networks=("10.1.2.3/32",), kind="network")
SECRET = b"correct horse"
KEY = b"mta_" + b"7" * 48
IP = "192.0.2.7"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


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
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def authenticator(path: Path, clock: HandClock) -> AsyncIterator[Authenticator]:
    with CredentialStore(path, CHEAP) as store:
        authenticator = Authenticator(store, clock)
        await authenticator.open()
        yield authenticator
        authenticator.close()


def at_once(verify: Coroutine[Any, Any, StoredCredential | Denial]) -> Credential | Denial | None:
    """The answer, if it is given without waiting for a hash."""
    try:
        verify.send(None)
    except StopIteration as answer:
        return plainly(answer.value)
    verify.close()
    return None


def plainly(answer: StoredCredential | Denial) -> Credential | Denial:
    return answer if isinstance(answer, Denial) else answer.credential


async def told(verify: Coroutine[Any, Any, StoredCredential | Denial]) -> Credential | Denial:
    """The answer, after a hash or without one."""
    return plainly(await verify)


def reason(answer: Credential | Denial | None) -> str:
    assert isinstance(answer, Denial)
    return answer.reason


async def all_told(*verify: Coroutine[Any, Any, StoredCredential | Denial]) -> list[Credential | Denial]:
    return [plainly(answer) for answer in await asyncio.gather(*verify)]


async def attack(authenticator: Authenticator, login: bytes, clients: int = 20) -> None:
    """So many networks fail once each."""
    answers = await all_told(
        *(authenticator.verify(login, b"%d" % n, f"198.51.100.{n}") for n in range(clients))
    )
    assert set(answers) == {WRONG}


# What proves a login


async def test_success_is_remembered_for_a_month_from_its_last_use_and_in_one_network(
    authenticator: Authenticator, clock: HandClock
) -> None:
    assert await told(authenticator.verify(b"ann", SECRET, IP)) == ANN
    assert at_once(authenticator.verify(b"ann", SECRET, IP)) == ANN
    assert at_once(authenticator.verify(b"ann", SECRET, "192.0.2.8")) is None
    for _ in range(2):
        clock._monotonic += REMEMBERED - 1
        assert at_once(authenticator.verify(b"ann", SECRET, IP)) == ANN
    clock._monotonic += REMEMBERED + 1
    assert at_once(authenticator.verify(b"ann", SECRET, IP)) is None


async def test_one_ipv6_customer_is_one_network(authenticator: Authenticator) -> None:
    assert await told(authenticator.verify(b"ann", SECRET, "2001:db8:1:2::1")) == ANN
    assert at_once(authenticator.verify(b"ann", SECRET, "2001:db8:1:2:ffff::9")) == ANN
    assert at_once(authenticator.verify(b"ann", SECRET, "2001:db8:1:3::1")) is None


async def test_who_has_proved_anything_is_known_by_the_network(
    authenticator: Authenticator, clock: HandClock
) -> None:
    assert not authenticator.has_proved(IP)
    await authenticator.verify(b"ann", b"wrong", IP)
    assert not authenticator.has_proved(IP)
    await authenticator.verify(b"ann", SECRET, IP)
    await authenticator.verify(b"app", KEY, "2001:db8::1")
    assert authenticator.has_proved(IP)
    assert authenticator.has_proved(f"::ffff:{IP}")
    assert authenticator.has_proved("2001:db8::2")
    assert not authenticator.has_proved("2001:db8:0:1::1")
    assert not authenticator.has_proved("")  # a client that is gone has no address
    clock._monotonic += REMEMBERED
    assert not authenticator.has_proved(IP)


async def test_wrong_secret_unknown_login_and_wrong_network_read_the_same(
    authenticator: Authenticator,
) -> None:
    answers = await all_told(
        authenticator.verify(b"ann", b"battery staple", "192.0.2.1"),
        authenticator.verify(b"ann", b"", "192.0.2.1"),
        authenticator.verify(b"nobody", SECRET, "192.0.2.2"),
        authenticator.verify(b"local", SECRET, "192.0.2.4"),
        authenticator.verify(b"app", b"mta_wrong", "192.0.2.5"),
        authenticator.verify(b"rack", b"", "10.0.0.1"),
    )
    assert set(answers) == {WRONG}
    assert str(WRONG.reply) == "535 5.7.8 Authentication credentials invalid"
    assert await told(authenticator.verify(b"local", SECRET, "127.0.0.1")) == LOCAL


@pytest.mark.parametrize(
    "login",
    [
        b"\xff\x00",
        b"",
        b"\0",
        b"ann\0",
        b"ann ",
        b"ANN",
        b"a" * 9000,
        "\ud800".encode("utf-8", "surrogatepass"),
    ],
)
async def test_logins_that_nobody_can_have_are_wrong_like_others(
    authenticator: Authenticator, login: bytes
) -> None:
    assert await told(authenticator.verify(login, SECRET, IP)) == WRONG
    for number in range(4):
        await authenticator.verify(login, b"\0" * number, IP)
    assert reason(at_once(authenticator.verify(login, SECRET, IP))) == "limited"


async def test_key_needs_no_thread(authenticator: Authenticator) -> None:
    assert at_once(authenticator.verify(b"app", KEY, IP)) == APP


async def test_removed_credential_stops_at_once_although_remembered(
    authenticator: Authenticator, path: Path
) -> None:
    assert await told(authenticator.verify(b"ann", SECRET, IP)) == ANN
    with CredentialStore(path, CHEAP) as other:
        other.remove("ann")
    assert await told(authenticator.verify(b"ann", SECRET, IP)) == WRONG


async def test_old_password_stops_at_once_although_remembered(
    authenticator: Authenticator, path: Path
) -> None:
    assert await told(authenticator.verify(b"ann", SECRET, IP)) == ANN
    with CredentialStore(path, CHEAP) as other:
        other.replace_secret("ann", "battery staple")
    assert await told(authenticator.verify(b"ann", SECRET, IP)) == WRONG
    assert await told(authenticator.verify(b"ann", b"battery staple", IP)) == ANN


async def test_credential_removed_while_its_hash_runs_is_refused(
    authenticator: Authenticator, path: Path
) -> None:
    verify = asyncio.create_task(told(authenticator.verify(b"ann", SECRET, IP)))
    await asyncio.sleep(0)
    with CredentialStore(path, CHEAP) as other:
        other.remove("ann")
    assert await verify == WRONG


# Strangers, and owners beside them


async def test_sixth_guess_of_a_client_at_a_login_waits_and_costs_no_hash(
    authenticator: Authenticator, clock: HandClock
) -> None:
    await all_told(*(authenticator.verify(b"ann", b"%d" % n, IP) for n in range(5)))
    refusal = at_once(authenticator.verify(b"ann", SECRET, IP))
    assert isinstance(refusal, Denial)
    assert str(refusal.reply).startswith("454 4.7.0 Temporary authentication failure")
    assert refusal.reply.text.endswith("try again in 120 seconds")
    clock._monotonic += 120
    assert await told(authenticator.verify(b"ann", SECRET, IP)) == ANN


async def test_owner_logs_in_all_day_beside_somebody_who_guesses_at_his_login(
    authenticator: Authenticator, clock: HandClock
) -> None:
    guesses = Counter[str]()
    for minute in range(1440):
        for _ in range(3):
            guesses[reason(await told(authenticator.verify(b"ann", b"1234", "198.51.100.1")))] += 1
        # From home, and each hour from somewhere new.
        for client in (IP, f"10.20.0.{minute // 60}"):
            assert await told(authenticator.verify(b"ann", SECRET, client)) == ANN
        clock._monotonic += 60.0
    assert guesses["wrong"] <= 725


async def test_proven_neighbour_behind_the_gateway_of_one_who_guesses(
    authenticator: Authenticator, clock: HandClock
) -> None:
    assert await told(authenticator.verify(b"ann", SECRET, IP)) == ANN
    for number in range(20):
        assert await told(authenticator.verify(b"user%d" % number, b"1234", IP)) == WRONG
    assert reason(at_once(authenticator.verify(b"user99", b"1234", IP))) == "limited"
    assert reason(at_once(authenticator.verify(b"local", SECRET, IP))) == "limited"  # new here: it waits
    assert at_once(authenticator.verify(b"ann", SECRET, IP)) == ANN
    assert at_once(authenticator.verify(b"app", KEY, IP)) == APP


async def test_two_programs_of_one_host_and_one_has_the_old_password_of_their_login(
    authenticator: Authenticator, clock: HandClock
) -> None:
    assert await told(authenticator.verify(b"ann", SECRET, IP)) == ANN
    for _ in range(1000):
        await authenticator.verify(b"ann", b"an old password", IP)
        assert at_once(authenticator.verify(b"ann", SECRET, IP)) == ANN
        clock._monotonic += 10.0


async def test_proven_neighbour_with_another_password_beside_one_who_guesses(
    authenticator: Authenticator, path: Path
) -> None:
    assert await told(authenticator.verify(b"ann", SECRET, IP)) == ANN
    for number in range(20):
        await authenticator.verify(b"user%d" % number, b"1234", IP)
    with CredentialStore(path, CHEAP) as other:
        other.replace_secret("ann", "battery staple")
    assert await told(authenticator.verify(b"ann", b"battery staple", IP)) == ANN


async def test_botnet_at_one_login_and_its_owner_in_a_new_place(
    authenticator: Authenticator, clock: HandClock
) -> None:
    await attack(authenticator, b"ann", 200)
    for number in range(200):
        assert reason(at_once(authenticator.verify(b"ann", b"x", f"198.51.100.{number}"))) == "limited"
    assert await told(authenticator.verify(b"ann", SECRET, "203.0.113.1")) == ANN
    assert await told(authenticator.verify(b"ann", b"mistyped", "203.0.113.2")) == WRONG
    assert reason(at_once(authenticator.verify(b"ann", SECRET, "203.0.113.2"))) == "limited"
    clock._monotonic += 600
    assert await told(authenticator.verify(b"ann", SECRET, "203.0.113.2")) == ANN


async def test_client_that_tries_many_logins_waits_and_its_keys_do_not(authenticator: Authenticator) -> None:
    network = "2001:db8:1:2::"
    await all_told(*(authenticator.verify(b"user%d" % n, b"1234", f"{network}{n + 1:x}") for n in range(20)))
    assert reason(at_once(authenticator.verify(b"ann", SECRET, f"{network}99"))) == "limited"
    assert at_once(authenticator.verify(b"app", KEY, f"{network}99")) == APP
    assert await told(authenticator.verify(b"ann", SECRET, "2001:db8:1:3::1")) == ANN


async def test_hundred_guesses_at_once_are_no_more_than_one_after_another(
    authenticator: Authenticator,
) -> None:
    answers = await all_told(*(authenticator.verify(b"user%d" % n, b"1234", IP) for n in range(100)))
    kinds = Counter(reason(answer) for answer in answers)
    assert kinds["wrong"] in (20, 21)  # the first two run side by side
    assert kinds["limited"] == 100 - kinds["wrong"]


async def test_hanging_up_does_not_escape_the_count(authenticator: Authenticator) -> None:
    guesses = [asyncio.create_task(authenticator.verify(b"ann", b"%d" % n, IP)) for n in range(5)]
    await asyncio.sleep(0)
    for guess in guesses:
        guess.cancel()
    async with asyncio.timeout(10):
        for _ in count():
            await asyncio.sleep(0)  # one turn of the loop, until the threads are through
            answer = at_once(authenticator.verify(b"ann", SECRET, IP))
            if answer is not None:
                break
    assert all(guess.cancelled() for guess in guesses)
    assert reason(answer) == "limited"


# The queue for hashes


async def test_many_connections_of_one_client_share_one_hash(authenticator: Authenticator) -> None:
    many = [authenticator.verify(b"ann", SECRET, IP) for _ in range(3 * WAITING)]
    assert set(await all_told(*many)) == {ANN}


async def test_first_come_those_who_have_proved_then_those_who_have_failed_least(
    authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "THREADS", 1)  # two may end in either order
    await authenticator.verify(b"ann", SECRET, IP)
    for number in range(2):
        await authenticator.verify(b"x", b"%d" % number, "198.51.100.2")
    await authenticator.verify(b"x", b"0", "198.51.100.1")
    order: list[str] = []

    async def come(name: str, login: bytes, client: str) -> None:
        await authenticator.verify(login, name.encode(), client)
        order.append(name)

    await asyncio.gather(
        come("first", b"a", "203.0.113.1"),
        come("second", b"b", "203.0.113.2"),
        come("failed twice", b"c", "198.51.100.2"),
        come("failed once", b"d", "198.51.100.1"),
        come("clean", b"e", "203.0.113.3"),
        come("clean's second", b"f", "203.0.113.3"),
        come("clean's third", b"g", "203.0.113.3"),
        come("clean and later", b"h", "203.0.113.4"),
        come("proven", b"ann", IP),
    )
    assert order == [
        "first", "proven", "second", "clean", "clean and later",
        "failed once", "clean's second",  # by now it is clean no more
        "failed twice", "clean's third",
    ]  # fmt: skip


async def test_full_queue_sends_the_worst_away_and_not_who_is_better(authenticator: Authenticator) -> None:
    await authenticator.verify(b"local", b"wrong", "203.0.113.9")
    assert await told(authenticator.verify(b"ann", SECRET, IP)) == ANN
    crowd = [
        asyncio.create_task(
            told(authenticator.verify(b"user%d" % n, b"1234", f"198.51.{n // 250}.{n % 250}"))
        )
        for n in range(THREADS + WAITING)
    ]
    await asyncio.sleep(0)
    assert at_once(authenticator.verify(b"ann", SECRET, "203.0.113.9")) == BUSY  # it has failed
    assert at_once(authenticator.verify(b"ann", SECRET, "203.0.113.1")) == BUSY  # the latest of its kind
    assert at_once(authenticator.verify(b"ann", SECRET, IP)) == ANN
    assert at_once(authenticator.verify(b"app", KEY, IP)) == APP
    proven = asyncio.create_task(told(authenticator.verify(b"ann", b"mistyped", IP)))
    answers = await asyncio.gather(*crowd)
    assert answers[:-1] == [WRONG] * (len(crowd) - 1)
    assert answers[-1] == BUSY
    assert await proven == WRONG
    assert str(BUSY.reply).startswith("454 4.7.0 ")


async def test_one_client_cannot_fill_the_queue(authenticator: Authenticator) -> None:
    crowd = [
        asyncio.create_task(told(authenticator.verify(b"user%d" % n, b"1234", "198.51.100.1")))
        for n in range(THREADS + WAITING)
    ]
    await asyncio.sleep(0)
    assert await told(authenticator.verify(b"ann", SECRET, "203.0.113.1")) == ANN
    assert Counter(reason(answer) for answer in await asyncio.gather(*crowd))["busy"] == 1


async def test_new_login_from_a_clean_address_while_forty_guess_without_a_pause(
    authenticator: Authenticator, clock: HandClock
) -> None:
    said = Counter[str]()

    async def guess(client: str, which: int) -> None:
        for number in count():
            said[reason(await told(authenticator.verify(b"user%d-%d" % (which, number), b"1", client)))] += 1
            await asyncio.sleep(0)

    async with asyncio.timeout(60):
        crowd = [
            asyncio.create_task(guess(f"198.51.100.{n % 40}", n))
            for n in range(40 * 8)  # eight sessions each
        ]
        while said["busy"] < 10 or said["wrong"] < 100:
            clock._monotonic += 0.1
            await asyncio.sleep(0)
        for number in range(10):
            assert await told(authenticator.verify(b"ann", SECRET, f"203.0.113.{number}")) == ANN
        for each in crowd:
            each.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)


async def test_hash_that_cannot_be_computed_is_nobodys_failure(
    authenticator: Authenticator, path: Path
) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE credential SET verifier = 'nonsense' WHERE login = 'ann'")
    connection.close()
    for _ in range(30):
        with pytest.raises(InvalidHashError):
            await authenticator.verify(b"ann", SECRET, IP)
    assert await told(authenticator.verify(b"local", b"wrong", IP)) == WRONG


# Addresses


async def test_most_specific_network_wins(authenticator: Authenticator) -> None:
    assert authenticator.bound_to("10.9.9.9") == RACK
    assert authenticator.bound_to("10.1.2.3") == HOST
    assert authenticator.bound_to("::ffff:10.1.2.3") == HOST
    assert authenticator.bound_to("2001:db8::1") == RACK
    assert authenticator.bound_to("127.0.0.1") is None  # LOCAL has a password: its network narrows it


async def test_network_that_was_removed_is_bound_no_more(
    authenticator: Authenticator, path: Path, clock: HandClock
) -> None:
    assert authenticator.bound_to("10.1.2.3") == HOST
    with CredentialStore(path, CHEAP) as other:
        other.remove("host")
        await clock.advance(LOOK)
        assert authenticator.bound_to("10.1.2.3") == RACK
        other.remove("rack")
        other.add(Credential("rack", "acme", "bulk", networks=("10.7.0.0/16",), kind="network"))
    await clock.advance(LOOK)
    assert authenticator.bound_to("10.1.2.3") is None


async def test_network_that_was_added_is_bound_at_once_where_they_are_few(
    authenticator: Authenticator, path: Path
) -> None:
    assert authenticator.bound_to("203.0.113.1") is None
    new = Credential("new", "acme", "bulk", networks=("203.0.113.0/24",), kind="network")
    with CredentialStore(path, CHEAP) as other:
        other.add(new)
    assert authenticator.bound_to("203.0.113.1") == new


def many(kind: str, amount: int, path: Path) -> None:
    """So many more credentials, each with a network of its own."""
    made = [
        Credential(f"many{n}", "acme", "bulk", networks=(f"172.{n // 250}.{n % 250}.0/24",), kind=kind)
        for n in range(amount)
    ]
    statement = credentials._ADD.replace(" RETURNING login", "")
    with sqlite3.connect(path) as connection:
        connection.executemany(statement, [credentials._row(each, "") for each in made])
    connection.close()


async def read_again(authenticator: Authenticator, clock: HandClock) -> None:
    """What was changed is known in full."""
    await clock.advance(READ)
    if (reading := authenticator._reading) is not None:
        await asyncio.wait([reading])


async def test_many_networks_are_read_in_a_thread_while_the_former_ones_serve(
    authenticator: Authenticator, path: Path, clock: HandClock
) -> None:
    many("network", FEW + 1, path)
    assert authenticator.bound_to("172.0.3.1") is None
    assert authenticator.bound_to("10.1.2.3") == HOST
    await read_again(authenticator, clock)
    found = authenticator.bound_to("172.0.3.1")
    assert found is not None
    assert found.login == "many3"


async def test_twenty_thousand_credentials_and_one_more_cost_the_loop_one_row(
    authenticator: Authenticator, path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = Counter[str]()
    stored = credentials._stored

    def counted(row: tuple[Any, ...]) -> StoredCredential:
        parsed[row[0]] += 1
        return stored(row)

    monkeypatch.setattr(credentials, "_stored", counted)
    await asyncio.to_thread(many, "network", 20_000, path)
    await read_again(authenticator, clock)
    assert authenticator.bound_to("172.40.3.1") is not None
    parsed.clear()
    with CredentialStore(path, CHEAP) as other:
        other.remove("many0")
    await read_again(authenticator, clock)
    assert await told(authenticator.verify(b"ann", SECRET, IP)) == ANN
    assert authenticator.bound_to("172.79.3.1") is not None
    assert authenticator.bound_to("172.0.0.1") is None
    assert parsed == {"ann": 1, "many19753": 1}


async def test_networks_that_cannot_be_read_are_told_of_once_and_the_former_serve(
    authenticator: Authenticator, path: Path, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    many("network", FEW + 1, path)
    move(path, path.with_suffix(".away"))
    for _ in range(3):
        await read_again(authenticator, clock)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"the networks that are credentials cannot be read: {path}: unable")
    assert authenticator.bound_to("10.1.2.3") == HOST


def move(path: Path, to: Path) -> None:
    path.rename(to)


async def test_authenticator_without_a_store_does_not_open(tmp_path: Path, clock: HandClock) -> None:
    authenticator = Authenticator(CredentialStore(tmp_path / "none.db", CHEAP), clock)
    with pytest.raises(CredentialError, match="is not open"):
        await authenticator.open()
    authenticator.close()
