"""The resolver: a name -> its MX records or its addresses, as a value.

Between: `outbound.router` asks; dnspython speaks to the name servers.
Contract: names are A-labels, always taken as absolute; ttl is seconds that are left, of the record that
    expires first. A query ends within the timeout of the settings, with TROUBLE if need be. Identical
    questions under way are one query, which lives on when one of those who wait for it is cancelled.
Raises: nothing; every failure of DNS is a `Status` and a text for the operator.
Standards: RFC 1035, RFC 2308 (negative answers), RFC 6891 (EDNS), RFC 6761 6.3 (localhost).
Why: dnspython has no single-flight, and tells the answers apart by exceptions only.
"""

from __future__ import annotations

import asyncio
import math
from ipaddress import ip_address
from typing import Any, NamedTuple

from dns import asyncresolver, name
from dns.exception import DNSException
from dns.nameserver import Do53Nameserver
from dns.rdataclass import IN
from dns.rdatatype import AAAA, ANY, MX, A, RdataType
from dns.resolver import NXDOMAIN, Answer, LRUCache

from mta.clock import Clock
from mta.config import settings
from mta.core.reply import fit
from mta.core.routing import AddressAnswer, Mx, MxAnswer, Status

CACHE = 50_000  # answers
AT_ONCE = 256  # queries under way; each holds a socket
PAYLOAD = 1232  # octets: such a datagram is never fragmented (DNS flag day 2020)
LOCALHOST = ("127.0.0.1", "::1")


class _Found(NamedTuple):
    """The answer to one question, records as dnspython has them."""

    status: Status
    records: tuple[Any, ...] = ()
    ttl: float = 0.0
    text: str = ""


class Resolver:
    """Asks the name servers of the settings, else those of /etc/resolv.conf."""

    def __init__(self, dns: settings.Dns, clock: Clock) -> None:
        self._clock = clock
        self._stub = asyncresolver.Resolver(configure=False)
        self._stub.nameservers = [Do53Nameserver(server.host, server.port) for server in dns.servers]
        self._stub.lifetime = dns.timeout
        self._stub.cache = self._cache = LRUCache(CACHE)
        self._stub.use_edns(0, 0, PAYLOAD)
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._asking: dict[tuple[str, RdataType], asyncio.Task[_Found]] = {}

    async def mx(self, domain: str) -> MxAnswer:
        """The MX records of a domain, in no order."""
        found = await asyncio.shield(self._ask(domain, MX))
        records = tuple(Mx(record.preference, _text(record.exchange)) for record in found.records)
        return MxAnswer(found.status, records, found.ttl, found.text)

    async def addresses(self, host: str) -> AddressAnswer:
        """The addresses of a host, IPv6 before IPv4; a numeric name is its own address."""
        try:
            return AddressAnswer(Status.FOUND, (str(ip_address(host)),), math.inf)
        except ValueError:
            pass
        if host == "localhost":
            return AddressAnswer(Status.FOUND, LOCALHOST, math.inf)
        asked = self._ask(host, AAAA), self._ask(host, A)  # both are under way before we wait for one
        return _both(await asyncio.shield(asked[0]), await asyncio.shield(asked[1]))

    def _ask(self, host: str, kind: RdataType) -> asyncio.Task[_Found]:
        """The query that answers this question. It is nobody's child: those who wait share it."""
        question = (host, kind)
        task = self._asking.get(question)
        if task is None:
            task = self._asking[question] = asyncio.create_task(self._query(host, kind))
            task.add_done_callback(lambda _: self._asking.pop(question))
        return task

    async def _query(self, host: str, kind: RdataType) -> _Found:
        try:
            absolute = name.from_text(host)
        except DNSException as error:
            return _Found(Status.NXDOMAIN, ttl=math.inf, text=fit(f"not a domain name: {error}"))
        try:
            if not self._stub.nameservers:
                self._stub.read_resolv_conf("/etc/resolv.conf")
            async with self._turns:
                answer = await self._stub.resolve(absolute, kind, raise_on_no_answer=False)
        except NXDOMAIN:
            kept = self._cache.get((absolute, ANY, IN))  # where dnspython keeps that a name does not exist
            return _Found(Status.NXDOMAIN, (), self._left(kept), f"DNS answers NXDOMAIN for {host}")
        except (DNSException, ValueError) as error:  # ValueError: a name server that is no address
            return _Found(Status.TROUBLE, text=fit(str(error)))
        if answer.rrset is None:
            return _Found(Status.NODATA, (), self._left(answer), f"DNS has no {kind.name} record for {host}")
        return _Found(Status.FOUND, tuple(answer.rrset), self._left(answer))

    def _left(self, answer: Answer | None) -> float:
        """The cache keeps an answer's end in wall time; a clock that jumps must not prolong it."""
        if answer is None:  # its ttl was 0
            return 0.0
        left = min(answer.chaining_result.minimum_ttl, answer.expiration - self._clock.now())
        return max(left, 0.0)


def _text(absolute: name.Name) -> str:
    return absolute.canonicalize().to_text(omit_final_dot=True)


def _both(six: _Found, four: _Found) -> AddressAnswer:
    """One answer of two: what is there counts; then trouble, for it may hide addresses."""
    trouble = next((one for one in (six, four) if one.status is Status.TROUBLE), None)
    if six.records or four.records:
        records = tuple(record.address for record in (*six.records, *four.records))
        ttl = min(one.ttl for one in (six, four) if one.status is not Status.TROUBLE)
        return AddressAnswer(Status.FOUND, records, ttl, trouble.text if trouble else "")
    if trouble:
        return AddressAnswer(Status.TROUBLE, text=trouble.text)
    status = six.status if six.status is four.status else Status.NODATA
    return AddressAnswer(status, (), min(six.ttl, four.ttl), four.text)
