"""DNS messages as octets: a question to send, and what an answer to it says.

Between: `servers` sends and checks with it, `resolver` names what it wants.
Contract: pure. A name is octets in lower case, without pointers, the root's zero at its end; a question is
    its name, type and class; ttl is seconds. Only records whose owner is the end of the chain of CNAME
    records count, of MX records the `EXCHANGES` that are preferred; what stands beside them is walked over.
    Each octet of an answer is read a bounded number of times: every name in it is taken apart once, and kept
    for the pointers to it.
Raises: `BadName` for a text that is no name; `BadPacket`, and nothing else, for octets that are no answer.
Standards: RFC 1035 3.1, 4.1 (format), RFC 2181 8 (ttl), RFC 2308 2, 5 (negative answers), RFC 6840 5.7 (AD in
    a question), RFC 6891 6.1 (OPT), RFC 7766 8 (length before a message on TCP is not part of it).
Why: a library's message for each answer costs a hundred times the work that its few octets need. What is
    rare, names with odd characters and TXT, is the library's.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from socket import AF_INET6, inet_ntoa, inet_ntop
from typing import Any, NamedTuple

from dns import name as names
from dns import rdata, rdataclass, rdatatype
from dns.exception import DNSException

from mta.core.route.routing import Mx

A, NS, CNAME, SOA, MX, TXT, AAAA, OPT, TLSA = 1, 2, 5, 6, 15, 16, 28, 41, 52
KINDS = {A: "A", NS: "NS", MX: "MX", TXT: "TXT", AAAA: "AAAA", TLSA: "TLSA"}  # what can be asked for
IN = 1

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
# Whoever cannot read a question does not repeat it.
WORDLESS = frozenset({FORMERR, SERVFAIL, NOTIMP, REFUSED})

PAYLOAD = 1232  # octets: such a datagram is never fragmented (DNS flag day 2020)
MAX_NAME = 255  # octets (RFC 1035 2.3.4)
EXCHANGES = 200  # MX records, the most preferred: twice what a route has of hosts
CHAIN = 16  # CNAME records from the question to its answer

_HEADER = 12  # octets
_QR, _OPCODE, _AA, _TC = 0x80, 0x78, 0x04, 0x02  # of the third octet
_AD = 0x20  # of the fourth
_ASKS = b"\x01\x20\x00\x01\x00\x00\x00\x00\x00"  # RD, AD; one question, other records: 0 or 1
_OPT = b"\x00" + struct.pack(">HHIH", OPT, PAYLOAD, 0, 0)
_TAILS = {kind: struct.pack(">HH", kind, IN) for kind in KINDS}
_RECORD = struct.Struct(">HHIH")  # type, class, ttl, length of what follows
_COUNTS = struct.Struct(">HHH")
_PLAIN = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}")
_SEEN_PLAIN = re.compile(rb"[a-z0-9_.-]+")


class BadName(ValueError):
    """It cannot be asked for."""


class BadPacket(ValueError):
    """It is no answer."""


class Tlsa(NamedTuple):
    """One TLSA record (RFC 6698 2.1)."""

    usage: int
    selector: int
    matching: int
    data: bytes


class Answer(NamedTuple):
    """What a server says to a question."""

    rcode: int
    records: tuple[Any, ...] = ()  # `Mx`, addresses and name servers as text, octets of TXT, `Tlsa`
    ttl: int = 0  # of the record that ends first, the chain's too; of a negative answer what its SOA says
    is_authentic: bool = False  # the AD bit: the server says that it has checked the signatures
    target: bytes = b""  # the end of the chain, where the answer says nothing of it
    is_referral: bool = False  # ask others: this server does not do it for us


def named(host: str) -> bytes:
    """A name from its text; always absolute."""
    low = host.lower().removesuffix(".")
    if len(low) <= MAX_NAME - 2 and _PLAIN.fullmatch(low):
        return b"".join([b"%c%b" % (len(label), label) for label in low.encode().split(b".")]) + b"\0"
    try:
        return names.from_text(host).canonicalize().to_wire() or b"\0"
    except DNSException as error:
        raise BadName(str(error)) from error


def text(name: bytes) -> str:
    """A name as text without the final dot; the root is "."."""
    labels, at = [], 0
    while length := name[at]:
        labels.append(name[at + 1 : at + 1 + length])
        at += 1 + length
    joined = b".".join(labels)
    if _SEEN_PLAIN.fullmatch(joined) and joined.count(b".") == len(labels) - 1:
        return joined.decode()
    return names.Name([*labels, b""]).to_text(omit_final_dot=True)


def question(name: bytes, kind: int) -> bytes:
    """What is asked."""
    return name + _TAILS[kind]


def query(asked: bytes, is_plain: bool = False) -> bytes:
    """A message that asks it, but for the two octets of its id; plain is without EDNS."""
    return _ASKS + b"\x00" + asked if is_plain else _ASKS + b"\x01" + asked + _OPT


def fits(packet: bytes, asked: bytes) -> bool:
    """Is it a response to this question? Its id has been looked at."""
    if len(packet) < _HEADER or packet[2] & (_QR | _OPCODE) != _QR:
        return False
    if packet[4:6] == b"\x00\x01":
        # No octet of a length, of a class or of our types is a capital letter.
        return packet[_HEADER : _HEADER + len(asked)].lower() == asked
    return packet[4:6] == b"\x00\x00" and packet[3] & 15 in WORDLESS


def is_truncated(packet: bytes) -> bool:
    """Does it say that there is more than a datagram holds?"""
    return bool(packet[2] & _TC)


def parse(packet: bytes, asked: bytes, kind: int) -> Answer:
    """What a response that fits its question says."""
    rcode = packet[3] & 15
    if rcode not in (NOERROR, NXDOMAIN):
        return Answer(rcode)
    try:
        return _parse(packet, asked, kind, rcode)
    except (IndexError, struct.error):
        raise BadPacket("it is cut short") from None


def _parse(packet: bytes, asked: bytes, kind: int, rcode: int) -> Answer:
    owner = asked[:-4]
    known = {_HEADER: owner}
    answers, authorities, others = _COUNTS.unpack_from(packet, 6)
    aliases: dict[bytes, tuple[bytes, int]] = {}
    found: dict[bytes, list[tuple[Any, int]]] = {}
    at = _answers(packet, _HEADER + len(asked), answers, kind, known, aliases, found)
    soa, is_delegated, at = _authority(packet, at, authorities, known)
    high, at = _additional(packet, at, others)
    if at != len(packet):
        raise BadPacket("there is something behind its end")
    if high:
        return Answer(high << 4 | rcode)
    if kind == NS:  # of the name itself: what it is an alias of stands in another zone
        aliases.clear()
    end, ttl = _followed(owner, aliases, found)
    is_authentic = bool(packet[3] & _AD)
    if records := found.get(end):
        if rcode == NXDOMAIN:
            raise BadPacket("it has records of a name that it says does not exist")
        ttl = min(ttl, *[one for _, one in records])
        values = list(dict.fromkeys([value for value, _ in records]))
        if kind == MX:
            best = values if len(values) <= EXCHANGES else sorted(values)[:EXCHANGES]
            values = [Mx(preference, text(name)) for preference, name in best]
        return Answer(rcode, tuple(values), ttl, is_authentic)
    if soa is not None and end.endswith(soa[0]):  # RFC 2308 5
        return Answer(rcode, (), min(ttl, soa[1]), is_authentic)
    if end != owner and rcode == NOERROR:
        return Answer(rcode, (), ttl, is_authentic, end)
    is_referral = is_delegated and soa is None and rcode == NOERROR and not packet[2] & _AA  # RFC 2308 2.2
    return Answer(rcode, (), 0, is_authentic, is_referral=is_referral)


def _answers(
    packet: bytes,
    at: int,
    count: int,
    kind: int,
    known: dict[int, bytes],
    aliases: dict[bytes, tuple[bytes, int]],
    found: dict[bytes, list[tuple[Any, int]]],
) -> int:
    """Where the section ends; its records by their owners."""
    size, read = len(packet), _READERS[kind]
    for _ in range(count):
        if packet[at] == 0xC0 and packet[at + 1] == _HEADER:
            owner, at = known[_HEADER], at + 2
        else:
            owner, at = _name(packet, at, known)
        its_kind, its_class, ttl, length = _RECORD.unpack_from(packet, at)
        at += 10
        end = at + length
        if end > size:
            raise BadPacket("it is cut short")
        if its_class == IN and its_kind in (kind, CNAME):
            ttl = ttl if ttl < 1 << 31 else 0  # RFC 2181 8
            if its_kind == kind:
                found.setdefault(owner, []).append((read(packet, at, end, known), ttl))
            else:
                ttl = min(ttl, aliases[owner][1]) if owner in aliases else ttl
                aliases[owner] = _whole(packet, at, end, known), ttl
        at = end
    return at


def _authority(
    packet: bytes, at: int, count: int, known: dict[int, bytes]
) -> tuple[tuple[bytes, int] | None, bool, int]:
    """Owner and negative ttl of the SOA record, whether there are NS records, and where the section ends."""
    soa, is_delegated = None, False
    for _ in range(count):
        start, at = at, _skipped(packet, at)
        kind, its_class, ttl, length = _RECORD.unpack_from(packet, at)
        at += 10
        if kind == NS:
            is_delegated = True
        elif kind == SOA and its_class == IN and soa is None:
            owner, _ = _name(packet, start, known)
            _, ends = _name(packet, at, known)
            _, ends = _name(packet, ends, known)
            if ends + 20 != at + length:
                raise BadPacket("its SOA record is broken")
            (minimum,) = struct.unpack_from(">I", packet, ends + 16)
            least = min(ttl, minimum)
            soa = owner, least if least < 1 << 31 else 0
        at += length
    return soa, is_delegated, at


def _additional(packet: bytes, at: int, count: int) -> tuple[int, int]:
    """The high octet of the rcode (RFC 6891 6.1.3), and where the section ends."""
    high = 0
    for _ in range(count):
        at = _skipped(packet, at)
        kind, _, ttl, length = _RECORD.unpack_from(packet, at)
        if kind == OPT:
            high = ttl >> 24
        at += 10 + length
    return high, at


def _followed(
    name: bytes, aliases: Mapping[bytes, tuple[bytes, int]], found: Mapping[bytes, object]
) -> tuple[bytes, int]:
    """Where the chain from this name ends, and the least ttl on the way."""
    ttl, left = (1 << 31) - 1, CHAIN
    while name not in found and (alias := aliases.get(name)):
        if not left:
            raise BadPacket("its CNAME records are a loop, or too many")
        left -= 1
        name, ttl = alias[0], min(ttl, alias[1])
    return name, ttl


def _name(packet: bytes, at: int, known: dict[int, bytes]) -> tuple[bytes, int]:
    """The name that stands there, and where it ends.

    Pointers only go back, in front of all that was read of this name, so there are no loops.
    """
    limit, end = at, 0
    parts: list[tuple[int, bytes]] = []  # each label, or pointer, and where it stands
    while True:
        if end and (before := known.get(at)) is not None:
            name = before
            break
        length = packet[at]
        if length == 0:
            name, end = b"\0", end or at + 1
            break
        if length < 64:
            parts.append((at, packet[at : at + 1 + length].lower()))
            at += 1 + length
            continue
        if length < 0xC0:
            raise BadPacket("it has a label of a kind that there is not")
        target = (length & 0x3F) << 8 | packet[at + 1]
        if target >= limit:
            raise BadPacket("a pointer in it does not point back")
        parts.append((at, b""))
        end = end or at + 2
        at = limit = target
    for place, label in reversed(parts):
        name = label + name
        if len(name) > MAX_NAME:
            raise BadPacket("it has a name that is too long")
        known[place] = name
    return name, end


def _skipped(packet: bytes, at: int) -> int:
    """Where the name that stands there ends."""
    while length := packet[at]:
        if length >= 0xC0:
            return at + 2
        at += 1 + length
    return at + 1


def _whole(packet: bytes, at: int, end: int, known: dict[int, bytes]) -> bytes:
    """The name that fills a record."""
    name, ends = _name(packet, at, known)
    if ends != end:
        raise BadPacket("a record's length is not that of its name")
    return name


def _a(packet: bytes, at: int, end: int, known: object) -> str:
    if end - at != 4:
        raise BadPacket("it has an IPv4 address that is none")
    return inet_ntoa(packet[at:end])


def _aaaa(packet: bytes, at: int, end: int, known: object) -> str:
    if end - at != 16:
        raise BadPacket("it has an IPv6 address that is none")
    return inet_ntop(AF_INET6, packet[at:end])


def _ns(packet: bytes, at: int, end: int, known: dict[int, bytes]) -> str:
    return text(_whole(packet, at, end, known))


def _mx(packet: bytes, at: int, end: int, known: dict[int, bytes]) -> tuple[int, bytes]:
    return packet[at] << 8 | packet[at + 1], _whole(packet, at + 2, end, known)


def _txt(packet: bytes, at: int, end: int, known: object) -> bytes:
    try:
        record: Any = rdata.from_wire(rdataclass.IN, rdatatype.TXT, packet, at, end - at)
    except DNSException as error:
        raise BadPacket(f"it has a broken TXT record: {error}") from error
    return b"".join(record.strings)


def _tlsa(packet: bytes, at: int, end: int, known: object) -> Tlsa:
    """Digests of a wrong length are for the reader: such a record is unusable, the answer is not."""
    if end - at < 4:
        raise BadPacket("it has a TLSA record without data")
    return Tlsa(packet[at], packet[at + 1], packet[at + 2], packet[at + 3 : end])


_READERS: Mapping[int, Callable[[bytes, int, int, dict[int, bytes]], Any]] = {
    A: _a, NS: _ns, MX: _mx, TXT: _txt, AAAA: _aaaa, TLSA: _tlsa,
}  # fmt: skip
