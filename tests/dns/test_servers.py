"""Name servers that lose, forge, truncate, refuse and die, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import pytest

from mta.clock import SystemClock
from mta.config.settings import Dns, Duration, Endpoint
from mta.core.route.routing import Mx, MxAnswer, Status
from mta.dns import servers as module
from mta.dns import udp, wire
from mta.dns.resolver import Resolver
from mta.dns.servers import AILING, PLAIN, PROBE, STALE, STEP, Servers
from tests.fakes.clock import HandClock
from tests.fakes.puppet import Puppet, answer, octets

Message = dns.message.Message
GOOD = "example.test. 300 MX 10 mx.test."
BAD = "example.test. 300 MX 10 forged.test."
FOUND = (Mx(10, "mx.test"),)


def good(question: Message) -> Iterable[Message]:
    """What an honest server says, whatever is asked for."""
    return [answer(question, f"{question.question[0].name} 300 MX 10 mx.test.")]


def silent(question: Message) -> Iterable[Message]:
    return []


def refusing(question: Message) -> Iterable[Message]:
    return [coded(question, dns.rcode.REFUSED)]


def coded(question: Message, rcode: dns.rcode.Rcode) -> Message:
    made = answer(question)
    made.set_rcode(rcode)
    return made


def truncated(question: Message) -> Iterable[Message]:
    return [answer(question, BAD, flags=dns.flags.TC)]


def asking(
    *servers: Endpoint, clock: HandClock | None = None, ignored: Callable[[], object] = int
) -> Resolver:
    return Resolver(Dns(servers, Duration(5.0)), clock or HandClock(), ignored)


async def nobody() -> Endpoint:
    """A port at which nobody listens."""
    async with Puppet(silent) as server:
        return server.endpoint


# what is lost, forged or broken


async def test_a_packet_that_is_lost_is_sent_again() -> None:
    clock = HandClock()
    async with Puppet(silent) as server:
        looking = asyncio.create_task(asking(server.endpoint, clock=clock).mx("example.test"))
        await server.until(1)
        server.play = good
        await clock.advance(STEP)
        assert (await looking).records == FOUND
    assert len(server.asked) == 2
    assert server.asked[0].id != server.asked[1].id


def other_id(question: Message) -> bytes:
    made = octets(answer(question, BAD))
    return bytes([made[0] ^ 1]) + made[1:]


def other_name(question: Message) -> bytes:
    made = answer(dns.message.make_query("examplf.test", "MX", id=question.id), BAD)
    return made.to_wire()


def other_kind(question: Message) -> bytes:
    made = answer(dns.message.make_query("example.test", "A", id=question.id), BAD)
    return made.to_wire()


def no_response(question: Message) -> bytes:
    made = octets(answer(question, BAD))
    return made[:2] + bytes([made[2] & 0x7F]) + made[3:]


def a_notify(question: Message) -> bytes:
    made = answer(question, BAD)
    made.set_opcode(dns.opcode.NOTIFY)
    return made.to_wire()


def no_question(question: Message) -> bytes:
    made = answer(question, BAD)
    made.question.clear()
    return made.to_wire()


FORGED = [
    other_id,
    other_name,
    other_kind,
    no_response,
    a_notify,
    no_question,
    lambda _: b"\0",
    lambda _: b"\0" * 11,
]


@pytest.mark.parametrize("forged", FORGED)
async def test_what_is_no_answer_to_the_question_is_ignored(forged: Callable[[Message], bytes]) -> None:
    counted: list[None] = []
    async with Puppet(lambda question: [forged(question), answer(question, GOOD)]) as server:
        resolver = asking(server.endpoint, ignored=lambda: counted.append(None))
        assert (await resolver.mx("example.test")).records == FOUND
    assert len(counted) == 1
    assert len(server.asked) == 1


async def test_an_answer_from_another_port_does_not_arrive() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))

        def play(question: Message) -> Iterable[Message]:
            stranger.sendto(octets(answer(question, BAD)), server.came_from[-1])
            return good(question)

        async with Puppet(play) as server:
            assert (await asking(server.endpoint).mx("example.test")).records == FOUND


async def test_the_case_of_letters_is_the_server_s() -> None:
    def shouting(question: Message) -> Iterable[bytes]:
        return [octets(answer(question, GOOD)).replace(b"example", b"eXaMPLE")]

    async with Puppet(shouting) as server:
        assert (await asking(server.endpoint).mx("Example.TEST")).records == FOUND


def cut(made: bytes) -> bytes:
    return made[:-30]


def longer(made: bytes) -> bytes:
    return made + b"\0"


def more_records(made: bytes) -> bytes:
    return made[:7] + b"\x09" + made[8:]


def looping(made: bytes) -> bytes:
    """The owner of the record is a pointer to itself."""
    at = made.index(b"\xc0\x0c")
    return made[:at] + b"\xc0" + bytes([at]) + made[at + 2 :]


def wrong_length(made: bytes) -> bytes:
    at = made.index(b"\x00\x00\x01\x2c") + 4  # behind the ttl
    return made[:at] + bytes([made[at], made[at + 1] + 1]) + made[at + 2 :]


@pytest.mark.parametrize("harm", [cut, longer, more_records, looping, wrong_length])
async def test_an_answer_that_cannot_be_read_is_asked_of_the_next_server(
    harm: Callable[[bytes], bytes],
) -> None:
    async with (
        Puppet(lambda question: [harm(octets(answer(question, BAD)))]) as broken,
        Puppet(good) as well,
    ):
        assert (await asking(broken.endpoint, well.endpoint).mx("example.test")).records == FOUND
        told = await asking(broken.endpoint).mx("example.test")
    assert told.status is Status.TROUBLE
    assert "answered what cannot be read: " in told.text


async def test_a_server_that_does_not_ask_for_us_has_not_said_that_there_is_nothing() -> None:
    def referring(question: Message) -> Iterable[Message]:
        made = dns.message.make_response(question)
        made.authority.append(dns.rrset.from_text("test.", 300, "IN", "NS", "ns.test."))
        return [made]

    async with Puppet(referring) as lame, Puppet(good) as well:
        assert (await asking(lame.endpoint).mx("example.test")).status is Status.TROUBLE
        assert (await asking(lame.endpoint, well.endpoint).mx("example.test")).records == FOUND


# more than a datagram holds


async def test_a_truncated_answer_is_asked_for_by_tcp_and_what_it_held_is_not_used() -> None:
    async with Puppet(truncated, good) as server:
        assert (await asking(server.endpoint).mx("example.test")).records == FOUND
    assert (len(server.asked), len(server.by_tcp)) == (1, 1)


async def test_many_records_come_whole() -> None:
    records = [f"example.test. 300 TXT mx{n}.example.test." for n in range(1000)]
    async with Puppet(truncated, lambda question: [answer(question, *records)]) as server:
        found = await asking(server.endpoint).txt("example.test")
    assert len(found.records) == 1000


@pytest.mark.parametrize(
    "stream", [None, silent, lambda q: [b"\0" * 12], lambda q: [other_id(q)], lambda q: [other_name(q)]]
)
async def test_a_server_that_does_not_speak_tcp_is_none_for_this_question(stream: object) -> None:
    async with Puppet(truncated, stream) as deaf, Puppet(good) as well:  # type: ignore[arg-type]
        assert (await asking(deaf.endpoint, well.endpoint).mx("example.test")).records == FOUND
        assert (await asking(deaf.endpoint).mx("example.test")).status is Status.TROUBLE


async def test_connections_are_few_and_the_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STREAMS", 2)
    async with Puppet(truncated, good) as server:
        resolver = asking(server.endpoint)
        answers = await asyncio.gather(*(resolver.mx(f"d{n}.test") for n in range(20)))
    assert all(each.status is Status.FOUND for each in answers)
    assert len(server.by_tcp) == 20


async def test_a_connection_that_stays_mute_ends_with_its_question() -> None:
    clock = HandClock()
    async with Puppet(truncated, silent, keeps_open=True) as server:
        looking = asyncio.create_task(asking(server.endpoint, clock=clock).mx("example.test"))
        await server.connected.wait()
        await clock.advance(5.0)
        told = await looking
        assert told.text == f"{server.endpoint} said nothing: timed out after 5s"
        await server.hung_up.wait()


# servers that are not there, or do not do EDNS


async def test_a_server_that_died_is_passed_over_while_the_clock_stands() -> None:
    dead = await nobody()
    async with Puppet(good) as well:
        resolver = asking(dead, well.endpoint)
        assert (await resolver.mx("example.test")).records == FOUND
    told = await asking(dead).mx("example.test")
    assert told.status is Status.TROUBLE
    assert told.text == f"{dead} cannot be asked: Connection refused"


async def test_a_server_that_misses_questions_is_asked_behind_the_others_and_now_and_then_again() -> None:
    clock = HandClock()
    async with Puppet(silent) as ill, Puppet(good) as well:
        resolver = asking(ill.endpoint, well.endpoint, clock=clock)
        for n in range(AILING):
            looking = asyncio.create_task(resolver.mx(f"d{n}.test"))
            await ill.until(n + 1)
            await clock.advance(STEP)
            assert (await looking).status is Status.FOUND
        asked = len(ill.asked)
        await resolver.mx("first.test")  # goes to both: the ill one is looked after
        assert len(ill.asked) == asked + 1
        for n in range(5):
            await resolver.mx(f"e{n}.test")
        assert len(ill.asked) == asked + 1
        ill.play = good
        await clock.advance(PROBE)
        well.play = silent
        assert (await resolver.mx("second.test")).status is Status.FOUND  # it is well again
        before = len(well.asked)
        assert (await resolver.mx("third.test")).status is Status.FOUND
        assert len(well.asked) == before


async def test_servers_that_all_are_ill_are_asked_in_their_order() -> None:
    clock = HandClock()
    async with Puppet(refusing) as first, Puppet(refusing) as second:
        resolver = asking(first.endpoint, second.endpoint, clock=clock)
        for n in range(2 * AILING):
            assert (await resolver.mx(f"d{n}.test")).status is Status.TROUBLE
        assert len(first.asked) == len(second.asked) == 2 * AILING
        first.play = good
        assert (await resolver.mx("example.test")).records == FOUND
        assert len(second.asked) == 2 * AILING


async def test_a_name_whose_servers_fail_says_nothing_of_ours() -> None:
    async with Puppet(lambda q: [coded(q, dns.rcode.SERVFAIL)]) as server, Puppet(good) as other:
        resolver = asking(server.endpoint, other.endpoint)
        for n in range(3 * AILING):
            await resolver.mx(f"d{n}.test")
        assert len(server.asked) == 3 * AILING


def plain_only(
    rcode: dns.rcode.Rcode, *, is_wordless: bool = False
) -> Callable[[Message], Iterable[Message]]:
    """A server that knows no EDNS, and says so."""

    def play(question: Message) -> Iterable[Message]:
        if question.edns < 0:
            return good(question)
        made = coded(question, rcode)
        if rcode is not dns.rcode.BADVERS:
            made.use_edns(-1)
        if is_wordless:
            made.question.clear()
        return [made]

    return play


@pytest.mark.parametrize(
    "play",
    [
        plain_only(dns.rcode.FORMERR),
        plain_only(dns.rcode.FORMERR, is_wordless=True),
        plain_only(dns.rcode.NOTIMP),
        plain_only(dns.rcode.BADVERS),
    ],
)
async def test_who_refuses_edns_is_asked_without_it_for_an_hour(play: object) -> None:
    clock = HandClock()
    async with Puppet(play) as server:  # type: ignore[arg-type]
        resolver = asking(server.endpoint, clock=clock)
        assert (await resolver.mx("example.test")).records == FOUND
        assert [question.edns for question in server.asked] == [0, -1]
        await resolver.mx("second.test")
        assert [question.edns for question in server.asked] == [0, -1, -1]
        await clock.advance(PLAIN)
        await resolver.mx("third.test")
        assert [question.edns for question in server.asked[3:]] == [0, -1]


async def test_a_question_says_what_we_can_read_and_that_we_want_to_know_whether_it_was_checked() -> None:
    async with Puppet(good) as server:
        await asking(server.endpoint).mx("example.test")
    (question,) = server.asked
    assert (question.edns, question.payload) == (0, wire.PAYLOAD)
    assert question.flags == dns.flags.RD | dns.flags.AD


# sockets, time and turns


def sockets(resolver: Resolver) -> int:
    return sum(len(server.ports.open) for server in resolver._servers._servers)


async def test_no_socket_is_open_when_nobody_waits() -> None:
    async with Puppet(good) as server:
        resolver = asking(server.endpoint)
        await asyncio.gather(*(resolver.mx(f"d{n}.test") for n in range(200)))
        assert sockets(resolver) == 0
        await resolver.mx("example.test")
    assert sockets(resolver) == 0
    assert len(set(server.came_from[:200])) == -(-200 // udp.ROOM)


async def test_a_port_is_used_for_few_questions_where_addresses_can_be_forged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Endpoint, "is_loopback", False)
    async with Puppet(good) as server:
        resolver = asking(server.endpoint)
        await asyncio.gather(*(resolver.mx(f"d{n}.test") for n in range(200)))
    ports = [address[1] for address in server.came_from]
    assert max(map(ports.count, ports)) == udp.LIFE_AWAY
    ids = {question.id for question in server.asked}
    assert len(ids) > 190  # of 65,536


async def test_there_are_only_so_many_sockets_and_they_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "PORTS", 3)
    monkeypatch.setattr(udp, "ROOM", 2)
    async with Puppet(good) as server:
        resolver = asking(server.endpoint)
        answers = await asyncio.gather(*(resolver.mx(f"d{n}.test") for n in range(60)))
    assert all(each.status is Status.FOUND for each in answers)
    ports = [address[1] for address in server.came_from]
    assert [ports.count(port) for port in dict.fromkeys(ports)] == [20, 20, 20]


async def test_only_so_many_questions_are_under_way_and_the_others_have_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 4)
    clock = HandClock()
    async with Puppet(silent) as server:
        resolver = asking(server.endpoint, clock=clock)
        looking = [asyncio.create_task(resolver.mx(f"d{n}.test")) for n in range(6)]
        await server.until(4)
        assert resolver.questions == 6
        server.play = good
        await clock.advance(STEP)
        answers = await asyncio.gather(*looking)
    assert all(each.status is Status.FOUND for each in answers)
    assert [question.question[0].name.to_text() for question in server.asked[-2:]] == ["d4.test.", "d5.test."]


async def test_questions_that_nobody_can_be_asked_end_without_a_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many wait for their turn: one that ends at once must not stand on the one before."""
    monkeypatch.setattr(module, "AT_ONCE", 4)
    resolver = asking(Endpoint("ns.example", 53))
    answers = await asyncio.gather(*(resolver.mx(f"d{n}.test") for n in range(3000)))
    assert {each.text for each in answers} == {"ns.example:53 cannot be asked: it is no address"}


async def test_questions_that_are_answered_leave_nothing_behind() -> None:
    async with Puppet(good) as server:
        resolver = asking(server.endpoint)
        for n in range(4 * STALE):
            await resolver.mx(f"d{n}.test")
        servers: Servers = resolver._servers
        assert (servers.under_way, resolver.questions) == (0, 0)
        assert len(servers._due) <= STALE + 2


async def test_a_late_answer_of_one_server_is_no_answer_to_the_next_question() -> None:
    """The first is silent, the second answers; then the first speaks, to nobody."""
    clock = HandClock()
    late: list[Message] = []
    async with Puppet(lambda q: late.append(q) or []) as slow, Puppet(good) as well:
        resolver = asking(slow.endpoint, well.endpoint, clock=clock)
        looking = asyncio.create_task(resolver.mx("example.test"))
        await slow.until(1)
        await clock.advance(STEP)
        found: MxAnswer = await looking
        assert found.records == FOUND
        slow.transport.sendto(octets(answer(late[0], BAD)), slow.came_from[0])
        assert (await resolver.mx("example.test")).records == FOUND


async def test_a_real_clock_ends_a_question() -> None:
    async with Puppet(silent) as server:
        resolver = Resolver(Dns((server.endpoint,), Duration(0.05)), SystemClock())
        told = await resolver.mx("example.test")
    assert told.text == f"{server.endpoint} said nothing: timed out after 0.05s"


async def test_what_is_known_of_a_server_outlives_that_it_is_named_again() -> None:
    """resolv.conf is read again after each trouble."""
    ill, well = Endpoint("192.0.2.1", 53), Endpoint("192.0.2.2", 53)
    servers = Servers(HandClock(), int)
    servers.use([ill, well])
    first = servers._servers[0]
    first.missed = AILING
    servers.use([well, ill, ill])
    assert [server.endpoint for server in servers._servers] == [well, ill, ill]
    assert [server is first for server in servers._servers] == [False, True, False]
