"""The resolver against a real name server that misbehaves as it is told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import dns.flags
import dns.message
import dns.rdatatype
import pytest

from mta.clock import SystemClock
from mta.config.policy import Policy, build
from mta.config.settings import Dns, Duration, Endpoint, Settings
from mta.core.route.routing import AddressAnswer, Mx, MxAnswer, Status
from mta.dns import resolver as module
from mta.dns import wire
from mta.dns.resolver import Resolver
from mta.dns.servers import STEP
from tests.fakes.clock import HandClock
from tests.fakes.dns import Misfortune, NameServer, Zone
from tests.fakes.puppet import Puppet, answer

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


# aliases


def by_name(**records: tuple[str, ...]) -> Callable[[dns.message.Message], list[dns.message.Message]]:
    """A server that has these records for a name's first label, and says nothing of others."""

    def play(question: dns.message.Message) -> list[dns.message.Message]:
        return [answer(question, *records.get(question.question[0].name.to_text().split(".")[0], ()))]

    return play


async def test_a_chain_in_one_answer_is_followed() -> None:
    records = ("a.test. 300 CNAME b.test.", "b.test. 60 CNAME c.test.", "c.test. 300 MX 10 mx.test.")
    async with Puppet(by_name(a=records)) as server:
        found = await asking(server.endpoint).mx("a.test")
    assert found.records == (Mx(10, "mx.test"),)
    assert 30 < found.ttl <= 60
    assert len(server.asked) == 1


async def test_a_chain_over_several_answers_is_followed_within_the_time_of_one_question() -> None:
    records = {
        "a": ("a.test. 300 CNAME b.test.",),
        "b": ("b.test. 60 CNAME c.test.",),
        "c": ("c.test. 300 MX 10 mx.test.",),
    }
    async with Puppet(by_name(**records)) as server:
        resolver = asking(server.endpoint)
        found = await resolver.mx("a.test")
        assert found.records == (Mx(10, "mx.test"),)
        assert found.ttl <= 60
        assert len(server.asked) == 3
        clock = HandClock()
        resolver = Resolver(Dns((server.endpoint,), Duration(5.0)), clock)
        server.asked.clear()
        server.play = lambda q: by_name(**records)(q) if "a.test" in q.question[0].name.to_text() else []
        looking = asyncio.create_task(resolver.mx("a.test"))
        await server.until(2)
        await clock.advance(5.0)
        assert (await looking).status is Status.TROUBLE


@pytest.mark.parametrize(
    "records",
    [
        pytest.param({"a": ("a.test. 300 CNAME a.test.",)}, id="to itself"),
        pytest.param({"a": ("a.test. 300 CNAME b.test.", "b.test. 300 CNAME a.test.")}, id="in one answer"),
        pytest.param({"a": ("a.test. 300 CNAME b.test.",), "b": ("b.test. 300 CNAME a.test.",)}, id="in two"),
        pytest.param(
            {f"a{n or ''}": (f"a{n or ''}.test. 300 CNAME a{n + 1}.test.",) for n in range(40)}, id="too long"
        ),
    ],
)
async def test_a_chain_without_an_end_is_trouble(records: dict[str, tuple[str, ...]]) -> None:
    async with Puppet(by_name(**records)) as server:
        found = await asking(server.endpoint).mx("a.test")
    assert found.status is Status.TROUBLE
    assert "CNAME records" in found.text
    assert len(server.asked) <= wire.CHAIN + 1


# what servers that are gone have said


async def forgotten(resolver: Resolver, server: NameServer, clock: HandClock, ttl: float) -> None:
    """The servers do not work any more, and what they said has expired."""
    server.zone = dict.fromkeys(server.zone, Misfortune.SERVFAIL)
    await clock.advance(ttl)


async def test_what_expired_is_used_while_no_server_answers_and_the_next_answer_counts() -> None:
    clock = HandClock()
    zone: Zone = {("example.test", "MX"): ["10 mx1.test."], **BOTH}
    async with NameServer(zone, ttl=60) as server:
        resolver = Resolver(Dns((server.endpoint,), Duration(5.0)), clock)
        assert (await resolver.mx("example.test")).text == ""
        await resolver.addresses("mx1.test")
        await forgotten(resolver, server, clock, 3660.0)
        server.asked.clear()
        for _ in range(2):
            found = await resolver.mx("example.test")
            assert found == MxAnswer(
                Status.FOUND,
                (Mx(10, "mx1.test"),),
                30.0,
                "no name server answers; what they said of example.test has expired 1h ago, and is used",
            )
        assert server.asked == {("example.test", "MX"): 1}
        addresses = await resolver.addresses("mx1.test")
        assert addresses.records == ("2001:db8::1", "192.0.2.1")
        assert "has expired 1h ago" in addresses.text
        server.zone = {("example.test", "MX"): ["20 mx2.test."]}
        await clock.advance(30.0)
        found = await resolver.mx("example.test")
        assert found == MxAnswer(Status.FOUND, (Mx(20, "mx2.test"),), 60.0)


async def test_what_expired_a_day_ago_is_used_no_more() -> None:
    clock = HandClock()
    async with NameServer({("example.test", "MX"): ["10 mx1.test."]}, ttl=60) as server:
        resolver = Resolver(Dns((server.endpoint,), Duration(5.0)), clock)
        await resolver.mx("example.test")
        await forgotten(resolver, server, clock, 60.0 + module.STALE)
        assert (await resolver.mx("example.test")).status is Status.TROUBLE


@pytest.mark.parametrize("negative", [Misfortune.NXDOMAIN, Misfortune.NODATA])
async def test_that_a_domain_does_not_exist_is_never_said_from_memory(negative: Misfortune) -> None:
    """Mail would bounce for it."""
    clock = HandClock()
    async with NameServer({("example.test", "MX"): negative}, ttl=60) as server:
        resolver = Resolver(Dns((server.endpoint,), Duration(5.0)), clock)
        assert (await resolver.mx("example.test")).status is not Status.TROUBLE
        await forgotten(resolver, server, clock, 60.0)
        assert (await resolver.mx("example.test")).status is Status.TROUBLE


async def test_a_domain_that_has_gone_is_not_remembered_as_it_was() -> None:
    clock = HandClock()
    async with NameServer({("example.test", "MX"): ["10 mx1.test."]}, ttl=60) as server:
        resolver = Resolver(Dns((server.endpoint,), Duration(5.0)), clock)
        await resolver.mx("example.test")
        server.zone = {}
        await clock.advance(60.0)
        assert (await resolver.mx("example.test")).status is Status.NXDOMAIN
        await forgotten(resolver, server, clock, 60.0)
        server.zone = {("example.test", "MX"): Misfortune.SERVFAIL}
        assert (await resolver.mx("example.test")).status is Status.TROUBLE


async def test_keys_that_have_expired_are_trusted_no_more() -> None:
    clock = HandClock()
    name = "_25._tcp.mx1.test"
    async with NameServer({(name, "TLSA"): ["3 1 1 " + "ab" * 32]}, ttl=60) as server:
        resolver = Resolver(Dns((server.endpoint,), Duration(5.0)), clock)
        assert (await resolver.tlsa(name)).records == (wire.Tlsa(3, 1, 1, b"\xab" * 32),)
        await forgotten(resolver, server, clock, 60.0)
        assert (await resolver.tlsa(name)).status is Status.TROUBLE


# how long


async def test_a_clock_that_is_set_back_prolongs_nothing() -> None:
    clock = HandClock()
    async with NameServer({("example.test", "MX"): ["10 mx1.test."]}, ttl=60) as server:
        resolver = Resolver(Dns((server.endpoint,), Duration(5.0)), clock)
        await resolver.mx("example.test")
        clock._now -= 3600.0
        assert (await resolver.mx("example.test")).ttl == 60.0
        await clock.advance(60.0)
        await resolver.mx("example.test")
    assert server.asked == {("example.test", "MX"): 2}


@pytest.mark.parametrize(
    ("entry", "longest"), [(["10 mx1.test."], module.LONGEST), (Misfortune.NXDOMAIN, module.LONGEST_NEGATIVE)]
)
async def test_no_answer_is_kept_for_years(entry: list[str] | Misfortune, longest: float) -> None:
    async with NameServer({("example.test", "MX"): entry}, ttl=2**31 - 1) as server:
        resolver = Resolver(Dns((server.endpoint,), Duration(5.0)), HandClock())
        assert (await resolver.mx("example.test")).ttl == longest


async def test_an_answer_without_a_ttl_is_asked_for_again() -> None:
    async with NameServer({("example.test", "MX"): ["10 mx1.test."]}, ttl=0) as server:
        resolver = asking(server.endpoint)
        for _ in range(2):
            assert (await resolver.mx("example.test")).status is Status.FOUND
        assert resolver.cache_octets == 0
    assert server.asked == {("example.test", "MX"): 2}


def with_servers(server: NameServer) -> Policy:
    return build(Settings(hostname="mta.test", listeners=(), dns=Dns((server.endpoint,))))


async def test_what_former_servers_said_is_forgotten_with_them() -> None:
    async with NameServer(BOTH) as old, NameServer({("mx1.test", "A"): ["192.0.2.9"]}) as new:
        resolver = asking(old.endpoint)
        await resolver.addresses("mx1.test")
        assert resolver.cache_octets > 0
        resolver.adopted(*(with_servers(server) for server in (old, new)))
        assert resolver.cache_octets == 0
        assert (await resolver.addresses("mx1.test")).records == ("192.0.2.9",)


# what was signed


def signed(kinds: str) -> Callable[[dns.message.Message], list[dns.message.Message]]:
    """A server that says of records of these types that it has checked them."""
    records = {"MX": "10 mx.test.", "A": "192.0.2.1", "AAAA": "2001:db8::1", "TXT": '"v=1;" " a"'}

    def play(question: dns.message.Message) -> list[dns.message.Message]:
        name, kind = question.question[0].name, dns.rdatatype.to_text(question.question[0].rdtype)
        flags = dns.flags.AD if kind in kinds.split() else 0
        return [answer(question, f"{name} 300 {kind} {records[kind]}", flags=flags)]

    return play


async def test_an_answer_that_was_checked_says_so_from_memory_too() -> None:
    async with Puppet(signed("MX A AAAA TXT")) as server:
        resolver = asking(server.endpoint)
        for _ in range(2):
            assert (await resolver.mx("example.test")).is_authentic
            assert (await resolver.addresses("example.test")).is_authentic
        text = await resolver.txt("example.test")
    assert (text.records, text.is_authentic) == ((b"v=1; a",), True)
    async with Puppet(signed("AAAA")) as server:
        resolver = asking(server.endpoint)
        assert not (await resolver.mx("example.test")).is_authentic
        assert not (await resolver.addresses("example.test")).is_authentic


async def test_a_chain_is_checked_when_all_of_it_is() -> None:
    def play(question: dns.message.Message) -> list[dns.message.Message]:
        if "alias" in question.question[0].name.to_text():
            return [answer(question, "alias.test. 300 CNAME example.test.")]
        return signed("MX")(question)

    async with Puppet(play) as server:
        found = await asking(server.endpoint).mx("alias.test")
    assert (found.status, found.is_authentic) == (Status.FOUND, False)


async def test_another_machine_can_say_that_anything_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Endpoint, "is_loopback", False)
    async with Puppet(signed("MX")) as server:
        assert not (await asking(server.endpoint).mx("example.test")).is_authentic


async def test_a_query_of_which_all_waiters_are_gone_is_remembered() -> None:
    async with NameServer({("example.test", "MX"): ["10 mx1.test."]}) as server:
        resolver = asking(server.endpoint)
        server.hold()
        only = asyncio.create_task(resolver.mx("example.test"))
        await server.until(1)
        only.cancel()
        with pytest.raises(asyncio.CancelledError):
            await only
        server.release()
        assert (await resolver.mx("example.test")).status is Status.FOUND
    assert server.asked.total() == 1


async def test_the_answer_of_former_servers_is_for_those_who_asked_them_only() -> None:
    async with NameServer(BOTH) as old, NameServer({("mx1.test", "A"): ["192.0.2.9"]}) as new:
        resolver = asking(old.endpoint)
        old.hold()
        before = asyncio.create_task(resolver.addresses("mx1.test"))
        await old.until(2)
        resolver.adopted(*(with_servers(server) for server in (old, new)))
        after = await resolver.addresses("mx1.test")
        old.release()
        assert (await before).records == ("2001:db8::1", "192.0.2.1")
        assert after.records == (await resolver.addresses("mx1.test")).records == ("192.0.2.9",)


async def test_a_bug_of_ours_is_told_to_those_who_wait_and_the_next_may_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with NameServer({("example.test", "MX"): ["10 mx1.test."]}) as server:
        resolver = asking(server.endpoint)
        with monkeypatch.context() as patch:
            patch.setattr(resolver._cache, "put", None)
            answers = await asyncio.gather(
                *(resolver.mx("example.test") for _ in range(2)), return_exceptions=True
            )
            assert [type(each) for each in answers] == [TypeError, TypeError]
        assert (await resolver.mx("example.test")).status is Status.FOUND
        assert resolver.questions == 0
