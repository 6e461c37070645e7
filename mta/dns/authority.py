"""What the authoritative servers of a name say, each of them, now.

Between: rotation asks whether a record that an operator publishes is to be seen everywhere.
Contract: every name server of the zone is asked itself, at each of its addresses until one answers; no memory
    is asked, ours or another's. A CNAME leads on to the servers of its own zone. A question costs some ten
    datagrams and ends within `LONGEST` seconds. Names are A-labels.
Raises: nothing but a bug of ours: `Sightings.trouble` says why nobody could be asked.
Standards: RFC 1035 4.2 (UDP, and TCP for what is long), RFC 2181 6.1 (zone cuts).
Why: a resolver that has heard that a name is not there says so for hours; and one that is not asked will not
    remember it. What receivers will see is what every authoritative server says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import NamedTuple

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
from dns.exception import DNSException

from mta.clock import Clock, timeout
from mta.core.mail.text import heard
from mta.core.route.routing import Status
from mta.dns.resolver import Resolver
from mta.dns.wire import PAYLOAD

TIMEOUT = 3.0  # seconds for one server at one address
LONGEST = 30.0  # seconds for all
CHAIN = 8  # CNAME records
MAX_SERVERS = 16  # of a zone, and addresses of a server; the root has 13
MAX_SAID = 200  # characters


class Sightings(NamedTuple):
    """What each server has of a name: its TXT records, or words why it said nothing."""

    servers: Mapping[str, tuple[bytes, ...] | str] = {}
    trouble: str = ""

    def lacking(self, is_right: Callable[[bytes], bool]) -> str:
        """Who does not show a record that is right, and what it says instead; "" where everybody does."""
        if self.trouble:
            return self.trouble
        for server, said in self.servers.items():
            if isinstance(said, str):
                return f"{server}: {said}"
            if len(said) > 1:  # which of them counts is not defined (RFC 6376 3.6.2.2)
                return f"{server} has {len(said)} records there: one may stand there"
            if not any(map(is_right, said)):
                return f"{server} has {'another record' if said else 'no record'} there"
        return ""


class _Said(NamedTuple):
    """What one server says."""

    records: tuple[bytes, ...] | str = ()
    target: str = ""  # where its CNAME leads, where it says no more
    servers: tuple[str, ...] = ()  # whom it has left this part of its zone to


class Authority:
    """Asks the servers themselves."""

    def __init__(self, resolver: Resolver, clock: Clock, port: int = 53) -> None:
        self._resolver = resolver
        self._clock = clock
        self._port = port

    async def txt(self, host: str) -> Sightings:
        """The TXT records of a name at each of its servers."""
        try:
            async with timeout(self._clock, LONGEST):
                return await self._at(host, CHAIN, await self._servers(host))
        except TimeoutError:
            return Sightings(trouble=f"the servers of {host} took longer than {LONGEST:.0f} seconds")

    async def _at(self, host: str, left: int, servers: tuple[str, ...] | str) -> Sightings:
        if isinstance(servers, str):
            return Sightings(trouble=servers)
        found: dict[str, tuple[bytes, ...] | str] = {}
        answers = await asyncio.gather(*(self._ask(server, host) for server in servers))
        for server, said in zip(servers, answers, strict=True):
            if not said.target and not said.servers:
                found[server] = said.records
                continue
            if not left:
                return Sightings(trouble=f"the records of {host} lead on and on")
            next_host = said.target or host
            next_servers = said.servers or await self._servers(next_host)
            beyond = await self._at(next_host, left - 1, next_servers)
            if beyond.trouble:
                return beyond
            found |= {f"{each} (where {server} leads)": said for each, said in beyond.servers.items()}
        return Sightings(found)

    async def _servers(self, host: str) -> tuple[str, ...] | str:
        """The servers of the zone that the name stands in: of the nearest name above that has some.

        Below a label such as `_domainkey` nothing is asked: our resolver would remember that it is not there.
        """
        labels = host.split(".")
        special = [n for n, label in enumerate(labels) if label.startswith("_")]
        name = ".".join(labels[special[-1] + 1 :] if special else labels)
        while "." in name:
            answer = await self._resolver.ns(name)
            if answer.status is Status.FOUND:
                return tuple(sorted(answer.records))[:MAX_SERVERS]
            if answer.status is Status.TROUBLE:
                return f"the name servers of {name} cannot be found: {answer.text}"
            name = name.partition(".")[2]
        return f"no name server is known for {host}"

    async def _ask(self, server: str, host: str) -> _Said:
        addresses = await self._resolver.addresses(server)
        if addresses.status is not Status.FOUND:
            return _Said(f"it has no address: {addresses.text}")
        words = ""
        for address in addresses.records[:MAX_SERVERS]:
            try:
                return await self._ask_at(address, host)
            except (DNSException, OSError, EOFError) as error:
                words = heard(f"no answer from {address}: {error or type(error).__name__}", MAX_SAID)
        return _Said(words)

    async def _ask_at(self, address: str, host: str) -> _Said:
        query = dns.message.make_query(host, dns.rdatatype.TXT, use_edns=0, payload=PAYLOAD)
        query.flags &= ~dns.flags.RD
        answer, _ = await dns.asyncquery.udp_with_fallback(query, address, TIMEOUT, self._port)
        if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return _Said(f"it answers {dns.rcode.to_text(answer.rcode())}")
        assert isinstance(answer, dns.message.QueryMessage)
        chain = answer.resolve_chaining()
        is_own = bool(answer.flags & dns.flags.AA)
        if chain.answer is not None and not is_own:
            return _Said("it is not authoritative, and answers from its memory")
        if chain.answer is not None:
            return _Said(tuple(b"".join(record.strings) for record in chain.answer))
        name = query.question[0].name
        if answer.rcode() == dns.rcode.NXDOMAIN:
            return _Said()
        if chain.canonical_name != name:
            return _Said(target=chain.canonical_name.to_text(omit_final_dot=True))
        if not is_own:
            for section in answer.authority:
                if section.rdtype == dns.rdatatype.NS and name.is_subdomain(section.name):
                    hosts = (record.target.to_text(omit_final_dot=True) for record in section)
                    return _Said(servers=tuple(sorted(hosts))[:MAX_SERVERS])
        return _Said()
