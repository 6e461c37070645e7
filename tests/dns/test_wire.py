"""Octets that name servers, and others, send: read as dnspython reads them, or not at all."""

from __future__ import annotations

import struct
import sys
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from mta.core.route.routing import Mx
from mta.dns import wire
from tests.fakes.puppet import rrset

KINDS = sorted(wire.KINDS)
LABELS = some.sampled_from(
    ["a", "b", "mx", "test", "xn--tda", "_25", "A-Z", r"od\.d", r"\000", r"\200", "x" * 63]
)
NAMES = some.lists(LABELS, max_size=3).map(lambda labels: ".".join([*labels, ""]) or ".")
TTLS = some.integers(0, 2**31 - 1)


def rdata(kind: str, target: str) -> str:
    return {
        "A": "192.0.2.65",
        "AAAA": "2001:db8::4141:0:41",
        "MX": f"10 {target}",
        "CNAME": target,
        "NS": target,
        "TXT": '"v=1; " "two"',
        "TLSA": "3 1 0 41424344",
        "SOA": f"{target} root.test. 1 2 3 4 60",
        "SRV": f"1 2 3 {target}",
    }[kind]


RECORDS = some.tuples(
    NAMES, TTLS, some.sampled_from(["A", "AAAA", "MX", "CNAME", "NS", "TXT", "TLSA", "SOA", "SRV"]), NAMES
)


@some.composite
def responses(draw: Any) -> tuple[bytes, bytes, int]:
    """A response that dnspython writes, its question, and the kind that was asked for."""
    name, kind = draw(NAMES), draw(some.sampled_from(KINDS))
    query = dns.message.make_query(name, kind, use_edns=draw(some.sampled_from([False, 0])))
    made = dns.message.make_response(query)
    made.set_rcode(draw(some.sampled_from([0, 0, 0, 3])))
    owner = name
    for number in range(draw(some.integers(0, 3))):  # a chain of its own, and what hangs on it
        target = draw(NAMES)
        made.answer.append(rrset(f"{owner} {draw(TTLS)} CNAME {target}"))
        owner = target if number < 2 else owner
    for _ in range(draw(some.integers(0, 3))):
        wanted = dns.rdatatype.to_text(dns.rdatatype.RdataType(kind))
        made.answer.append(rrset(f"{owner} {draw(TTLS)} {wanted} {rdata(wanted, draw(NAMES))}"))
    for section in (made.answer, made.authority, made.additional):
        for its_owner, ttl, its_kind, target in draw(some.lists(RECORDS, max_size=3)):
            section.append(rrset(f"{its_owner} {ttl} {its_kind} {rdata(its_kind, target)}"))
    return made.to_wire(), wire.question(wire.named(name), kind), kind


def theirs(packet: bytes, kind: int) -> tuple[list[Any], int] | None:
    """The records and their ttl as dnspython has them; None where it finds fault."""
    try:
        message = dns.message.from_wire(packet)
        assert isinstance(message, dns.message.QueryMessage)
        chain = message.resolve_chaining()
    except (dns.exception.DNSException, AssertionError):
        return None
    if chain.answer is None:
        return [], chain.minimum_ttl
    if kind == wire.NS and chain.canonical_name != message.question[0].name:
        return [], 0  # of an alias nothing counts: what it leads to is another zone
    return [_theirs(record, kind) for record in chain.answer], chain.minimum_ttl


def _theirs(record: Any, kind: int) -> Any:
    if kind == wire.MX:
        return Mx(record.preference, record.exchange.canonicalize().to_text(omit_final_dot=True))
    if kind == wire.NS:
        return record.target.canonicalize().to_text(omit_final_dot=True)
    if kind == wire.TXT:
        return b"".join(record.strings)
    if kind == wire.TLSA:
        return wire.Tlsa(record.usage, record.selector, record.mtype, record.cert)
    return record.address


def ours(packet: bytes, asked: bytes, kind: int) -> wire.Answer | None:
    if not wire.fits(packet, asked):
        return None
    try:
        return wire.parse(packet, asked, kind)
    except wire.BadPacket:
        return None


def compare(packet: bytes, asked: bytes, kind: int) -> None:
    said, known = ours(packet, asked, kind), theirs(packet, kind)
    if said is None or known is None or said.rcode not in (0, 3):
        return
    records, ttl = known
    assert sorted(said.records) == sorted(records)
    if records:
        assert said.ttl == ttl


@settings(max_examples=150, deadline=None)
@given(responses())
def test_what_the_library_writes_is_read_as_it_reads_it(made: tuple[bytes, bytes, int]) -> None:
    compare(*made)


@settings(max_examples=150, deadline=None)
@given(responses(), some.data())
def test_what_came_to_harm_on_its_way_is_read_alike_or_not_at_all(
    made: tuple[bytes, bytes, int], data: Any
) -> None:
    packet, asked, kind = made
    harmed = bytearray(packet)
    for _ in range(data.draw(some.integers(1, 4))):
        at = data.draw(some.integers(2, len(packet) - 1))
        harmed[at] = data.draw(some.sampled_from([0, 1, 12, 0x3F, 0x40, 0x80, 0xC0, 0xFF, harmed[at] ^ 1]))
    end = data.draw(some.sampled_from([len(packet), len(packet), data.draw(some.integers(0, len(packet)))]))
    compare(bytes(harmed[:end]), asked, kind)


@settings(max_examples=150, deadline=None)
@given(some.binary(max_size=200), some.sampled_from(KINDS))
def test_any_octets_behind_a_question_are_an_answer_or_none(rest: bytes, kind: int) -> None:
    asked = wire.question(b"\x01a\x00", kind)
    for counts in (b"\0\1\0\0\0\0", b"\0\2\0\1\0\1", b"\xff\xff\xff\xff\xff\xff"):
        compare(b"\0\0\x81\x80\0\1" + counts + asked + rest, asked, kind)


@given(NAMES)
def test_a_name_is_the_same_octets_and_the_same_text_as_the_library_s(name: str) -> None:
    known = dns.name.from_text(name).canonicalize()
    assert wire.named(name) == known.to_wire()
    assert wire.text(wire.named(name)) == known.to_text(omit_final_dot=True)


@pytest.mark.parametrize(
    "name",
    ["a..b", ".a", "x" * 64, "x." * 128, "x" * 63 + ("." + "x" * 63) * 3, "\ud800.test", "a\\", "\\300"],
)
def test_what_is_no_name_is_said_to_be_none(name: str) -> None:
    with pytest.raises(wire.BadName):
        wire.named(name)


def test_a_name_may_have_255_octets() -> None:
    longest = ".".join(["x" * 63, "x" * 63, "x" * 63, "x" * 61])
    assert len(wire.named(longest)) == wire.MAX_NAME
    with pytest.raises(wire.BadName):
        wire.named(longest + "x")


QUESTION = wire.question(b"\x01a\x00", wire.MX)
HEADER = b"\0\0\x81\x80\0\1"


def packet(records: int, rest: bytes) -> bytes:
    return HEADER + struct.pack(">HHH", records, 0, 0) + QUESTION + rest


def mx(exchange: bytes, owner: bytes = b"\xc0\x0c") -> bytes:
    return owner + struct.pack(">HHIH", wire.MX, 1, 60, 2 + len(exchange)) + b"\0\x0a" + exchange


START = len(packet(0, b""))


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param(mx(b"\xc0" + bytes([START + 14])), id="a pointer to itself"),
        pytest.param(
            mx(b"\xc0" + bytes([START + 16]) + b"\xc0" + bytes([START + 14])), id="two to each other"
        ),
        pytest.param(mx(b"\xff\xff"), id="a pointer behind the end"),
        pytest.param(mx(b"\x01b\xc0" + bytes([START + 14])), id="a name that ends in itself"),
        pytest.param(mx(b"\x40" + b"b" * 64 + b"\0"), id="a label of 64 octets"),
        pytest.param(mx(b"\x80\0"), id="a label of no kind"),
        pytest.param(
            mx(b"\x3f" * 1 + b"b" * 63 + (b"\x3f" + b"b" * 63) * 3 + b"\0"), id="a name of 257 octets"
        ),
        pytest.param(mx(b"\x01b\0\0"), id="an octet behind the name"),
        pytest.param(mx(b"\x01b"), id="a name without an end"),
        pytest.param(mx(b""), id="no name"),
    ],
)
def test_names_that_lie(rest: bytes) -> None:
    made = packet(1, rest)
    assert wire.fits(made, QUESTION)
    with pytest.raises(wire.BadPacket):
        wire.parse(made, QUESTION, wire.MX)


def test_a_packet_of_pointers_is_read_once() -> None:
    """A long name, and a chain of pointers to it that has a record at each link."""
    chain = b"\x01b" * 100 + b"\0"
    at = START + 12 + 2
    records, place = [mx(chain)], START + len(mx(chain))
    while place < 0x3F00:
        records.append(mx(struct.pack(">H", 0xC000 | at)))
        at, place = place + 14, place + len(records[-1])
    steps = 0

    def count(frame: object, event: str, argument: object) -> object:
        nonlocal steps
        steps += event == "line"
        return count

    made = packet(len(records), b"".join(records))
    before = sys.gettrace()
    sys.settrace(count)  # type: ignore[arg-type]
    try:
        answer = wire.parse(made, QUESTION, wire.MX)
    finally:
        sys.settrace(before)
    assert len(answer.records) == 1
    assert steps < 400 * len(records)  # `text` goes over 100 labels each time


def test_ttl_is_the_least_of_the_chain_and_a_negative_number_is_none() -> None:
    query = dns.message.make_query("a.", "MX")
    made = dns.message.make_response(query)
    made.answer += [rrset("a. 50 CNAME b."), rrset("b. 40 CNAME c."), rrset("c. 60 MX 10 d.")]
    assert wire.parse(made.to_wire(), QUESTION, wire.MX).ttl == 40
    octets = made.to_wire().replace(struct.pack(">I", 40), b"\x80\0\0\0")
    assert wire.parse(octets, QUESTION, wire.MX).ttl == 0


def test_a_negative_answer_holds_as_long_as_its_soa_says() -> None:
    made = dns.message.make_response(dns.message.make_query("a.", "MX"))
    made.answer.append(rrset("a. 500 CNAME mx.b."))
    made.authority.append(rrset("b. 400 SOA ns.b. root.b. 1 2 3 4 300"))
    assert wire.parse(made.to_wire(), QUESTION, wire.MX)[:3] == (0, (), 300)
    made.authority[0] = rrset("b. 200 SOA ns.b. root.b. 1 2 3 4 300")
    assert wire.parse(made.to_wire(), QUESTION, wire.MX).ttl == 200
    made.authority[0] = rrset("other. 200 SOA ns.b. root.b. 1 2 3 4 300")
    assert wire.parse(made.to_wire(), QUESTION, wire.MX).target == b"\x02mx\x01b\x00"


def test_records_of_others_are_none_of_ours() -> None:
    made = dns.message.make_response(dns.message.make_query("a.", "MX"))
    made.answer += [rrset("evil. 60 MX 1 evil."), rrset("a. 60 MX 10 mx."), rrset("b. 60 CNAME a.")]
    assert wire.parse(made.to_wire(), QUESTION, wire.MX).records == (Mx(10, "mx"),)


def test_a_name_that_does_not_exist_has_no_records() -> None:
    made = dns.message.make_response(dns.message.make_query("a.", "MX"))
    made.answer.append(rrset("a. 60 MX 10 mx."))
    made.set_rcode(3)
    with pytest.raises(wire.BadPacket):
        wire.parse(made.to_wire(), QUESTION, wire.MX)


def test_of_thousands_of_mx_records_the_most_preferred_are_taken() -> None:
    made = dns.message.make_response(dns.message.make_query("d.test", "MX"))
    for number in range(3000):
        made.answer.append(
            dns.rrset.from_text("d.test.", 60, "IN", "MX", f"{3000 - number} h{number}.d.test.")
        )
    packet = made.to_wire(max_size=65535)
    said = wire.parse(packet, wire.question(wire.named("d.test"), wire.MX), wire.MX)
    best = range(1, wire.EXCHANGES + 1)
    assert said.records == tuple(Mx(preference, f"h{3000 - preference}.d.test") for preference in best)
