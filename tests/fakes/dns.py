"""A name server: real datagrams on loopback, answers from a dict.

Between: tests script the zone; the resolver asks.
Contract: `{("example.test", "MX"): ["10 mx1.example.test."]}`; an entry may be a misfortune instead of
    records. A name that is not in the zone is NXDOMAIN, a type that its name lacks is NODATA. `asked`
    counts questions by (name, type); ttl is seconds, of every record. `hold()` keeps answers back until
    `release()`; `until(n)` waits for the n-th question.
"""

from __future__ import annotations

import asyncio
import enum
from collections import Counter
from collections.abc import Mapping
from typing import Self

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from mta.config.settings import Endpoint

Question = tuple[str, str]
Address = tuple[str, int]


class Misfortune(enum.Enum):
    """What a name server may do instead of answering with records."""

    NXDOMAIN = dns.rcode.NXDOMAIN
    NODATA = dns.rcode.NOERROR
    SERVFAIL = dns.rcode.SERVFAIL
    REFUSED = dns.rcode.REFUSED
    SILENCE = -1


Zone = Mapping[Question, list[str] | Misfortune]


class NameServer(asyncio.DatagramProtocol):
    """`async with NameServer(zone) as server:` answers at `server.endpoint`."""

    endpoint: Endpoint

    def __init__(self, zone: Zone, ttl: int = 300, host: str = "127.0.0.1", port: int = 0) -> None:
        self.zone = zone
        self._place = host, port
        self.ttl = ttl
        self.asked: Counter[Question] = Counter()
        self._held: list[tuple[dns.message.Message, Address]] | None = None
        self._arrived = asyncio.Event()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, self._place)
        self.endpoint = Endpoint(*self._transport.get_extra_info("sockname"))
        return self

    async def __aexit__(self, *error: object) -> None:
        self._transport.close()

    def hold(self) -> None:
        """Keep every answer back."""
        self._held = []

    def release(self) -> None:
        """Give the answers that were kept back, and those to come."""
        held, self._held = self._held or [], None
        for question, address in held:
            self._answer(question, address)

    async def until(self, questions: int) -> None:
        """Wait until so many questions have come in."""
        while self.asked.total() < questions:
            self._arrived.clear()
            await self._arrived.wait()

    def datagram_received(self, data: bytes, address: Address) -> None:
        question = dns.message.from_wire(data)
        self.asked[_key(question)] += 1
        self._arrived.set()
        if self._held is not None:
            self._held.append((question, address))
        else:
            self._answer(question, address)

    def _answer(self, question: dns.message.Message, address: Address) -> None:
        name, kind = _key(question)
        entry = self.zone.get((name, kind))
        if entry is None and (name, "CNAME") in self.zone:
            kind = "CNAME"
            entry = self.zone[name, kind]
        if entry is None:
            exists = any(known == name for known, _ in self.zone)
            entry = Misfortune.NODATA if exists else Misfortune.NXDOMAIN
        if entry is Misfortune.SILENCE:
            return
        response = dns.message.make_response(question, recursion_available=True)
        response.flags |= dns.flags.AA
        if isinstance(entry, Misfortune):
            response.set_rcode(dns.rcode.Rcode(entry.value))
            soa = f"ns.test. root.test. 1 2 3 4 {self.ttl}"
            response.authority.append(dns.rrset.from_text("test.", self.ttl, "IN", "SOA", soa))
        else:
            response.answer.append(dns.rrset.from_text(f"{name}.", self.ttl, "IN", kind, *entry))
        self._transport.sendto(response.to_wire(), address)


def _key(message: dns.message.Message) -> Question:
    question = message.question[0]
    return question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)
