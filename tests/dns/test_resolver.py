"""The resolver against a real name server that misbehaves as it is told."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from mta.clock import SystemClock
from mta.config.settings import Dns, Duration, Endpoint
from mta.core.route.routing import AddressAnswer, Mx, Status
from mta.dns import resolver as module
from mta.dns.resolver import Resolver
from mta.dns.servers import STEP
from tests.fakes.clock import HandClock
from tests.fakes.dns import Misfortune, NameServer, Zone

BOTH: Zone = {("mx1.test", "A"): ["192.0.2.1"], ("mx1.test", "AAAA"): ["2001:db8::1"]}


def asking(*servers: Endpoint, timeout: float = 5.0) -> Resolver:
    return Resolver(Dns(servers, Duration(timeout)), SystemClock())


async def test_mx_records_are_lower_case_names_without_the_final_dot() -> None:
    async with NameServer({("example.test", "MX"): ["10 MX1.Example.test.", "0 ."]}, ttl=120) as server:
        answer = await asking(server.endpoint).mx("example.test")
    assert answer.status is Status.FOUND
    assert set(answer.records) == {Mx(10, "mx1.example.test"), Mx(0, ".")}
    assert 60 < answer.ttl <= 120


@pytest.mark.parametrize(
    ("misfortune", "status", "words"),
    [
        (Misfortune.NXDOMAIN, Status.NXDOMAIN, "DNS answers NXDOMAIN for example.test"),
        (Misfortune.NODATA, Status.NODATA, "DNS has no MX record for example.test"),
        (Misfortune.SERVFAIL, Status.TROUBLE, "answered SERVFAIL"),
        (Misfortune.REFUSED, Status.TROUBLE, "answered REFUSED"),
        (Misfortune.SILENCE, Status.TROUBLE, "timed out"),
    ],
)
async def test_misfortunes_are_told_apart(misfortune: Misfortune, status: Status, words: str) -> None:
    timeout = 0.2 if misfortune is Misfortune.SILENCE else 5.0
    async with NameServer({("example.test", "MX"): misfortune}) as server:
        answer = await asking(server.endpoint, timeout=timeout).mx("example.test")
    assert (answer.status, answer.records) == (status, ())
    assert words in answer.text
    assert (answer.ttl > 0) is (status is not Status.TROUBLE)


@pytest.mark.parametrize("name", ["a" * 64 + ".test", "a..test", "x." * 200 + "test"])
async def test_a_bad_name_does_not_exist_and_is_not_asked_for(name: str) -> None:
    async with NameServer({}) as server:
        answer = await asking(server.endpoint).mx(name)
    assert answer.status is Status.NXDOMAIN
    assert answer.text.startswith("not a domain name: ")
    assert not server.asked


async def test_a_server_failure_is_asked_of_the_next_server() -> None:
    zone: Zone = {("example.test", "MX"): ["10 mx1.test."]}
    async with (
        NameServer({("example.test", "MX"): Misfortune.SERVFAIL}) as broken,
        NameServer(zone) as good,
    ):
        answer = await asking(broken.endpoint, good.endpoint).mx("example.test")
    assert answer.status is Status.FOUND
    assert broken.asked == good.asked


@pytest.mark.parametrize("others", [0, 1, 2])
async def test_an_answer_that_comes_before_the_time_is_over_is_used_whoever_was_asked_meanwhile(
    others: int,
) -> None:
    clock = HandClock()
    zone: Zone = {("example.test", "MX"): ["10 mx1.test."]}
    async with (
        NameServer(zone) as late,
        NameServer({("example.test", "MX"): Misfortune.SILENCE}) as silent,
    ):
        servers = (late.endpoint, *[silent.endpoint] * others)
        resolver = Resolver(Dns(servers, Duration(30.0)), clock)
        late.hold()
        asking = asyncio.create_task(resolver.mx("example.test"))
        await late.until(1)
        await clock.advance(STEP)
        await (silent if others else late).until(1 if others else 2)
        await clock.advance(1.0)
        late.release()
        answer = await asking
    assert (answer.status, answer.records) == (Status.FOUND, (Mx(10, "mx1.test"),))


async def test_nobody_is_waited_for_longer_than_the_settings_say() -> None:
    clock = HandClock()
    async with NameServer({("example.test", "MX"): Misfortune.SILENCE}) as silent:
        resolver = Resolver(Dns((silent.endpoint, silent.endpoint), Duration(30.0)), clock)
        asking = asyncio.create_task(resolver.mx("example.test"))
        for n, pause in enumerate((2.0, 2.0, 4.0, 4.0, 8.0, 8.0, 2.0)):
            await silent.until(n + 1)
            assert not asking.done()
            await clock.advance(pause)
        answer = await asking
    assert answer.status is Status.TROUBLE
    assert "timed out after 30s" in answer.text


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for /etc/resolv.conf."""
    path = tmp_path / "resolv.conf"
    monkeypatch.setattr(module, "RESOLV_CONF", path)
    return path


def write(path: Path, text: str | bytes) -> None:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def remove(path: Path) -> None:
    path.unlink()


def servers(resolver: Resolver) -> str:
    """Whom it would ask now: a question to port 53 of this machine may be answered by somebody else."""
    resolver._read_again()
    return str(resolver._servers)


async def test_resolv_conf_is_read_again_when_it_has_changed(conf: Path) -> None:
    resolver = asking(timeout=0.2)
    write(conf, "nameserver 127.0.0.2\noptions timeout:1\n")
    assert servers(resolver) == "127.0.0.2:53"
    for changed in ("", "# being written\n", "nameserver \n", "nameserver nonsense\n"):
        write(conf, changed)
        assert servers(resolver) == "127.0.0.2:53"
    remove(conf)
    assert servers(resolver) == "127.0.0.2:53"
    write(conf, "nameserver 127.0.0.3\nnameserver ::1\n")
    assert servers(resolver) == "127.0.0.3:53, [::1]:53"


async def test_a_resolv_conf_that_comes_later_than_we_is_read(conf: Path) -> None:
    resolver = asking(timeout=0.2)
    for junk in (None, b"", b"nameserver \xff\n", b"nameserver nonsense\n"):
        if junk is not None:
            write(conf, junk)
        assert (await resolver.mx("example.test")).status is Status.TROUBLE
    write(conf, "nameserver 127.0.0.3\n")
    assert servers(resolver) == "127.0.0.3:53"


async def test_servers_of_the_settings_are_not_those_of_resolv_conf(conf: Path) -> None:
    write(conf, "nameserver 127.0.0.3\n")
    async with NameServer({("example.test", "MX"): ["10 mx1.test."]}) as server:
        assert (await asking(server.endpoint).mx("example.test")).status is Status.FOUND


async def test_a_name_server_that_is_no_address_is_trouble() -> None:
    answer = await asking(Endpoint("ns.example", 53), timeout=0.2).mx("example.test")
    assert answer.status is Status.TROUBLE


async def test_addresses_of_both_families_are_one_answer() -> None:
    async with NameServer(BOTH) as server:
        answer = await asking(server.endpoint).addresses("mx1.test")
    assert answer.records == ("2001:db8::1", "192.0.2.1")


@pytest.mark.parametrize("misfortune", [Misfortune.SERVFAIL, Misfortune.SILENCE, Misfortune.NODATA])
async def test_one_family_found_is_enough(misfortune: Misfortune) -> None:
    timeout = 0.5 if misfortune is Misfortune.SILENCE else 5.0
    async with NameServer({**BOTH, ("mx1.test", "AAAA"): misfortune}) as server:
        answer = await asking(server.endpoint, timeout=timeout).addresses("mx1.test")
    assert (answer.status, answer.records) == (Status.FOUND, ("192.0.2.1",))
    assert answer.ttl > 0


@pytest.mark.parametrize(
    ("six", "status"),
    [
        (Misfortune.NXDOMAIN, Status.NXDOMAIN),
        (Misfortune.NODATA, Status.NODATA),
        (Misfortune.SERVFAIL, Status.TROUBLE),
    ],
)
async def test_trouble_may_hide_addresses(six: Misfortune, status: Status) -> None:
    four = Misfortune.NODATA if six is Misfortune.SERVFAIL else six
    async with NameServer({("mx1.test", "A"): four, ("mx1.test", "AAAA"): six}) as server:
        answer = await asking(server.endpoint).addresses("mx1.test")
    assert (answer.status, answer.records) == (status, ())


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("192.0.2.1", ("192.0.2.1",)),
        ("2001:DB8::1", ("2001:db8::1",)),
        ("localhost", ("127.0.0.1", "::1")),
    ],
)
async def test_a_number_is_never_asked_for(name: str, addresses: tuple[str, ...]) -> None:
    async with NameServer({}) as server:
        answer = await asking(server.endpoint).addresses(name)
    assert answer == AddressAnswer(Status.FOUND, addresses, float("inf"))
    assert not server.asked


async def test_fifty_identical_questions_are_one_query_each() -> None:
    async with NameServer(BOTH) as server:
        resolver = asking(server.endpoint)
        answers = await asyncio.gather(*(resolver.addresses("mx1.test") for _ in range(50)))
        again = await resolver.addresses("mx1.test")
    assert {answer.records for answer in (*answers, again)} == {("2001:db8::1", "192.0.2.1")}
    assert server.asked == Counter({("mx1.test", "A"): 1, ("mx1.test", "AAAA"): 1})


async def test_an_answer_that_was_no_answer_is_asked_for_again() -> None:
    async with NameServer({("example.test", "MX"): Misfortune.SERVFAIL}) as server:
        resolver = asking(server.endpoint)
        await resolver.mx("example.test")
        server.zone = {("example.test", "MX"): ["10 mx1.test."]}
        assert (await resolver.mx("example.test")).status is Status.FOUND


async def test_a_cancelled_waiter_leaves_the_query_to_the_others() -> None:
    async with NameServer({("example.test", "MX"): ["10 mx1.test."]}) as server:
        resolver = asking(server.endpoint)
        server.hold()
        first, second = (asyncio.create_task(resolver.mx("example.test")) for _ in range(2))
        await server.until(1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        server.release()
        assert (await second).status is Status.FOUND
    assert server.asked.total() == 1
