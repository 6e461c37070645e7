"""The resolver: a name -> its MX records or its addresses, as a value.

Between: `delivery.router` asks; `servers` speaks to the name servers, `cache` remembers what they said.
Contract: names are A-labels, always taken as absolute; ttl is seconds that are left, of the record that
    expires first. A query ends within the timeout of the settings, with TROUBLE if need be; an answer that
    comes before that is used, whoever else was asked meanwhile. Identical questions under way are one query,
    which lives on when one of those who wait for it is cancelled. When no server answers, MX records and
    addresses that expired less than `STALE` ago are used, for `STALE_HOLDS` each time, and the text says so;
    that a name or its records do not exist is never taken from memory in this way, for mail bounces for it.
    `is_authentic` is what a validating server on this machine says (AD). /etc/resolv.conf is read again when
    it has changed, and after a question that nobody answered.
Raises: nothing but a bug of ours; every failure of DNS is a `Status` and a text for the operator.
Standards: RFC 1035, RFC 2308 (negative answers), RFC 6761 6.3 (localhost), RFC 6840 5.8 (AD), RFC 8767
    (stale).
Why: who starts before its network has the wrong servers in resolv.conf for a second. A campaign asks for a
    hundred thousand new domains: nothing here makes a task, a timer or a socket for a question.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

from dns import resolver as stub
from dns.exception import DNSException

from mta.clock import Clock
from mta.config import settings, units
from mta.config.policy import Policy
from mta.config.settings import Endpoint
from mta.core.answers.reply import MAX_TEXT
from mta.core.mail.text import heard
from mta.core.route.routing import AddressAnswer, MxAnswer, Status
from mta.dns import wire
from mta.dns.cache import Cache, Kept
from mta.dns.servers import Question, Servers
from mta.dns.wire import Tlsa

LONGEST = 86_400.0  # seconds that an answer is kept, whatever its ttl
LONGEST_NEGATIVE = 10_800.0  # RFC 2308 5
STALE = 86_400.0  # seconds after its end that an answer may be used, when no server gives another
STALE_HOLDS = 30.0  # RFC 8767 5
STALE_KINDS = frozenset({wire.MX, wire.A, wire.AAAA})  # not what says whom to trust
PORT = 53
RESOLV_CONF = Path("/etc/resolv.conf")
LOCALHOST = ("127.0.0.1", "::1")


class TxtAnswer(NamedTuple):
    """The TXT records of a name, the strings of each as one; `text` says what went wrong."""

    status: Status
    records: tuple[bytes, ...] = ()
    ttl: float = 0.0
    text: str = ""
    is_authentic: bool = False


class NsAnswer(NamedTuple):
    """The name servers of a zone; `text` says what went wrong."""

    status: Status
    records: tuple[str, ...] = ()
    ttl: float = 0.0
    text: str = ""
    is_authentic: bool = False


class TlsaAnswer(NamedTuple):
    """The TLSA records of a name; `text` says what went wrong."""

    status: Status
    records: tuple[Tlsa, ...] = ()
    ttl: float = 0.0
    text: str = ""
    is_authentic: bool = False


class _Found(NamedTuple):
    """The answer to one question, records as `wire` has them."""

    status: Status
    records: tuple[Any, ...] = ()
    ttl: float = 0.0
    text: str = ""
    is_authentic: bool = False


class _Query:
    """A question that is under way, and who waits for its answer."""

    __slots__ = ("host", "is_authentic", "key", "kind", "question", "seen", "ttl", "waiters")
    question: Question  # what was asked of the servers, the last time

    def __init__(self, host: str, kind: int, key: bytes) -> None:
        self.host = host
        self.kind = kind
        self.key = key
        self.waiters: list[asyncio.Future[_Found]] = []
        self.seen = {key[:-4]}  # names that were asked for
        self.ttl = math.inf
        self.is_authentic = True


class Resolver:
    """Asks the name servers of the settings, else those of /etc/resolv.conf."""

    def __init__(self, dns: settings.Dns, clock: Clock, ignored: Callable[[], object] = lambda: None) -> None:
        self._clock = clock
        self._cache = Cache()
        self._servers = Servers(clock, ignored)
        self._under_way: dict[bytes, _Query] = {}
        self._hear(dns)

    @property
    def heard_at(self) -> float:
        """When a server said anything, the last time; monotonic."""
        return self._servers.heard_at

    @property
    def questions(self) -> int:
        """Under way."""
        return len(self._under_way)

    @property
    def cache_octets(self) -> int:
        """Of memory, for what is remembered."""
        return self._cache.octets

    def adopted(self, old: Policy, new: Policy) -> None:
        """Other servers may know better: then nothing is remembered of what the former ones said."""
        if new.settings.dns != old.settings.dns:
            self._hear(new.settings.dns)
            self._cache.clear()
            self._under_way.clear()  # who asked has his answer, and nobody else

    def _hear(self, dns: settings.Dns) -> None:
        self._is_told = bool(dns.servers)  # by the settings
        self._read: tuple[int, ...] | None = None  # what resolv.conf was when it was read
        self._servers.timeout = dns.timeout
        self._servers.use(dns.servers)

    async def mx(self, domain: str) -> MxAnswer:
        """The MX records of a domain, in no order."""
        return MxAnswer(*await self._find(domain, wire.MX))

    async def addresses(self, host: str) -> AddressAnswer:
        """The addresses of a host, IPv6 before IPv4; a numeric name is its own address."""
        if ":" in host or host[-1:].isdigit():
            try:
                return AddressAnswer(Status.FOUND, (str(ip_address(host)),), math.inf)
            except ValueError:
                pass
        if host == "localhost":
            return AddressAnswer(Status.FOUND, LOCALHOST, math.inf)
        asked = self._find(host, wire.AAAA), self._find(host, wire.A)  # both, before we wait for one
        return _both(await asked[0], await asked[1])

    async def txt(self, name: str) -> TxtAnswer:
        """The TXT records of a name, in no order."""
        return TxtAnswer(*await self._find(name, wire.TXT))

    async def ns(self, zone: str) -> NsAnswer:
        """The name servers of a zone, in no order; none where no zone begins at this name."""
        return NsAnswer(*await self._find(zone, wire.NS))

    async def tlsa(self, name: str) -> TlsaAnswer:
        """The TLSA records of a name such as `_25._tcp.mx.example.com`, in no order."""
        return TlsaAnswer(*await self._find(name, wire.TLSA))

    def _find(self, host: str, kind: int) -> asyncio.Future[_Found]:
        """The answer, which may be known. The query is nobody's child: those who wait share it."""
        waiter: asyncio.Future[_Found] = asyncio.get_running_loop().create_future()
        try:
            name = wire.named(host)
        except wire.BadName as error:
            text = heard(f"not a domain name: {error}", MAX_TEXT)
            waiter.set_result(_Found(Status.NXDOMAIN, ttl=math.inf, text=text))
            return waiter
        key = wire.question(name, kind)
        query = self._under_way.get(key)
        if query is None:
            kept, now = self._cache.get(key), self._clock.monotonic()
            if kept is not None and now < kept.rests:
                waiter.set_result(_remembered(kept, host, kind, now))
                return waiter
            query = self._under_way[key] = _Query(host, kind, key)
            query.waiters.append(waiter)
            try:
                self._ask(query, key)
            except Exception as error:
                self._end(query, error)
        else:
            query.waiters.append(waiter)
        return waiter

    def _ask(self, query: _Query, octets: bytes, over: float = math.inf) -> None:
        try:
            if not self._is_told:
                self._read_again()
        except (DNSException, ValueError) as error:  # ValueError: it is not UTF-8, or has no address
            self._end(query, self._trouble(query, str(error)))
            return
        query.question = self._servers.ask(octets, query.kind, partial(self._answered, query), over)

    def _answered(self, query: _Query, answer: wire.Answer | str) -> None:
        """By one of the servers, or by none. Those who wait hear of a bug of ours, too."""
        try:
            self._go_on(query, answer)
        except Exception as error:
            self._end(query, error)

    def _go_on(self, query: _Query, answer: wire.Answer | str) -> None:
        if isinstance(answer, str):
            self._end(query, self._trouble(query, answer))
            return
        query.ttl = min(query.ttl, answer.ttl)
        query.is_authentic = query.is_authentic and answer.is_authentic
        if answer.target:
            if answer.target in query.seen or len(query.seen) > wire.CHAIN:
                text = f"the CNAME records of {query.host} are a loop, or too many"
                self._end(query, self._trouble(query, text))
            else:
                query.seen.add(answer.target)
                self._ask(query, wire.question(answer.target, query.kind), query.question.over)
            return
        self._end(query, self._kept(query, answer))

    def _kept(self, query: _Query, answer: wire.Answer) -> _Found:
        """An answer that is one, remembered."""
        status, longest = Status.FOUND, LONGEST
        if not answer.records:
            status = Status.NXDOMAIN if answer.rcode == wire.NXDOMAIN else Status.NODATA
            longest = LONGEST_NEGATIVE
        now = self._clock.monotonic()
        ends = now + min(query.ttl, longest)
        kept = Kept(status, answer.records, query.is_authentic, ends, ends)
        if self._under_way.get(query.key) is not query:
            pass  # it is the answer of former servers
        elif query.ttl > 0:
            self._cache.put(query.key, kept)
        else:
            self._cache.drop(query.key)
        return _remembered(kept, query.host, query.kind, now)

    def _trouble(self, query: _Query, text: str) -> _Found:
        """No server has answered: what they said some time ago, where that does no harm."""
        self._read = None
        kept, now = self._cache.get(query.key), self._clock.monotonic()
        is_good = kept is not None and kept.status is Status.FOUND and query.kind in STALE_KINDS
        if kept is None or not is_good or now >= kept.ends + STALE:
            return _Found(Status.TROUBLE, text=heard(text, MAX_TEXT))
        kept = kept._replace(rests=now + STALE_HOLDS)
        self._cache.put(query.key, kept)
        return _remembered(kept, query.host, query.kind, now)

    def _end(self, query: _Query, found: _Found | Exception) -> None:
        if self._under_way.get(query.key) is query:
            del self._under_way[query.key]
        for waiter in query.waiters:
            if waiter.done():  # cancelled
                continue
            if isinstance(found, Exception):
                waiter.set_exception(found)
            else:
                waiter.set_result(found)

    def _read_again(self) -> None:
        """The servers of resolv.conf, where it has changed; those before, while it has none."""
        try:
            found = RESOLV_CONF.stat()
        except OSError:
            is_now: tuple[int, ...] = ()
        else:
            is_now = found.st_mtime_ns, found.st_ino, found.st_dev, found.st_size
        if is_now == self._read:
            return
        reader = stub.Resolver(configure=False)
        try:
            reader.read_resolv_conf(str(RESOLV_CONF))
            self._servers.use([Endpoint(str(address), PORT) for address in reader.nameservers])
        except (DNSException, ValueError):
            if not len(self._servers):
                raise
        self._read = is_now


def _remembered(kept: Kept, host: str, kind: int, now: float) -> _Found:
    """What is known, as an answer."""
    text = ""
    if kept.status is Status.NXDOMAIN:
        text = f"DNS answers NXDOMAIN for {host}"
    elif kept.status is Status.NODATA:
        text = f"DNS has no {wire.KINDS[kind]} record for {host}"
    elif kept.ends < kept.rests:
        age = units.about_duration(max(now - kept.ends, 0.0))
        text = f"no name server answers; what they said of {host} has expired {age} ago, and is used"
    return _Found(kept.status, kept.records, max(kept.rests - now, 0.0), text, kept.is_authentic)


def _both(six: _Found, four: _Found) -> AddressAnswer:
    """One answer of two: what is there counts; then trouble, for it may hide addresses."""
    trouble = next((one for one in (six, four) if one.status is Status.TROUBLE), None)
    said = [one for one in (six, four) if one.status is not Status.TROUBLE]
    is_authentic = all(one.is_authentic for one in said)
    if six.records or four.records:
        ttl = min(one.ttl for one in said)
        text = trouble.text if trouble else next((one.text for one in said if one.records), "")
        return AddressAnswer(Status.FOUND, six.records + four.records, ttl, text, is_authentic)
    if trouble:
        return AddressAnswer(Status.TROUBLE, text=trouble.text)
    status = six.status if six.status is four.status else Status.NODATA
    return AddressAnswer(status, (), min(six.ttl, four.ttl), four.text, is_authentic)
