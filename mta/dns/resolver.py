"""The resolver: a name -> its MX records or its addresses, as a value.

Between: `delivery.router` asks; dnspython speaks to the name servers.
Contract: names are A-labels, always taken as absolute; ttl is seconds that are left, of the record that
    expires first. A query ends within the timeout of the settings, with TROUBLE if need be; an answer that
    comes before that is used, whoever else was asked meanwhile. Identical questions under way are one query,
    which lives on when one of those who wait for it is cancelled. /etc/resolv.conf is read again when it has
    changed, and after a question that nobody answered.
Raises: nothing; every failure of DNS is a `Status` and a text for the operator.
Standards: RFC 1035, RFC 2308 (negative answers), RFC 6891 (EDNS), RFC 6761 6.3 (localhost).
Why: dnspython has no single-flight, tells the answers apart by exceptions only, and closes its ear after two
    seconds, to a slow server's answer too. Who starts before its network has the wrong servers in
    resolv.conf for a second.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

from dns import asyncresolver, name
from dns.exception import DNSException
from dns.message import Message, QueryMessage, Truncated
from dns.nameserver import Do53Nameserver, Nameserver
from dns.rcode import NOERROR
from dns.rcode import NXDOMAIN as NO_NAME
from dns.rdataclass import IN
from dns.rdatatype import AAAA, ANY, MX, A, RdataType
from dns.resolver import NXDOMAIN, Answer, LRUCache

from mta.clock import Clock
from mta.config import settings, units
from mta.config.policy import Policy
from mta.core.answers.reply import MAX_TEXT
from mta.core.mail.text import heard
from mta.core.route.routing import AddressAnswer, Mx, MxAnswer, Status

CACHE = 50_000  # answers
AT_ONCE = 256  # queries under way; each holds a socket
PAYLOAD = 1232  # octets: such a datagram is never fragmented (DNS flag day 2020)
STEP = 2.0  # seconds of silence, until the next server is asked too; twice that when all have been asked
RESOLV_CONF = Path("/etc/resolv.conf")
LOCALHOST = ("127.0.0.1", "::1")


class _Found(NamedTuple):
    """The answer to one question, records as dnspython has them."""

    status: Status
    records: tuple[Any, ...] = ()
    ttl: float = 0.0
    text: str = ""


class _Servers(Nameserver):
    """Several name servers as one: when one fails or is silent the next is asked; the first answer counts."""

    def __init__(self, servers: Sequence[Do53Nameserver], clock: Clock, heard: Callable[[], None]) -> None:
        self._servers = tuple(servers)
        self._clock = clock
        self._heard = heard
        self._asking: set[asyncio.Task[Message | Exception]] = set()

    def __str__(self) -> str:
        return ", ".join(map(str, self._servers))

    __repr__ = __str__

    def kind(self) -> str:
        return "several"

    def is_always_max_size(self) -> bool:
        return False

    def answer_nameserver(self) -> str:
        return str(self)

    def answer_port(self) -> int:
        return 0

    def query(self, *_: Any, **__: Any) -> Message:
        raise NotImplementedError

    async def async_query(
        self,
        request: QueryMessage,
        timeout: float,
        source: str | None,
        source_port: int,
        max_size: bool,
        backend: Any,
        one_rr_per_rrset: bool = False,
        ignore_trailing: bool = False,
    ) -> Message:
        found = await self._first(request, timeout, backend)
        if isinstance(found, Message):
            return found
        raise OSError(found)  # dnspython asks nobody again then

    async def _first(self, request: QueryMessage, timeout: float, backend: Any) -> Message | str:
        """The first good answer, or why there is none.

        The others end by themselves, when their time is over: a question that is cancelled as it times out
        can leave a socket of which uvloop does not let go when it closes.
        """
        over = self._clock.monotonic() + timeout
        good, asked = list(self._servers), 0
        problems: dict[Nameserver, Message | Exception] = {}
        under_way: dict[asyncio.Task[Message | Exception], Nameserver] = {}
        is_time = asyncio.Event()
        while (good or under_way) and (left := over - self._clock.monotonic()) > 0:
            if good:
                server, pause = good[asked % len(good)], STEP * 2 ** (asked // len(good))
                task = asyncio.create_task(_ask(server, request, left, backend))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
                task.add_done_callback(lambda _: is_time.set())
                under_way[task] = server
                asked += 1
                left = min(left, pause)
            timer = self._clock.call_later(left, is_time.set)
            await is_time.wait()
            is_time.clear()
            timer.cancel()
            for task in [each for each in under_way if each.done()]:
                failed, found = under_way.pop(task), task.result()
                if isinstance(found, Message):
                    self._heard()
                if isinstance(found, Message) and found.rcode() in (NOERROR, NO_NAME):
                    return found
                problems[failed] = found
                good = [each for each in good if each is not failed]
        if under_way:
            return f"nothing: timed out after {units.about_duration(timeout)}"
        said = next((each for each in problems.values() if isinstance(each, Message)), None)
        return said or "; ".join(f"{server}: {error}" for server, error in problems.items())


class Resolver:
    """Asks the name servers of the settings, else those of /etc/resolv.conf."""

    def __init__(self, dns: settings.Dns, clock: Clock) -> None:
        self._clock = clock
        self.heard_at = -math.inf  # monotonic; when a server said anything, the last time
        self._stub = asyncresolver.Resolver(configure=False)
        self._stub.cache = self._cache = LRUCache(CACHE)
        self._hear(dns)
        self._stub.use_edns(0, 0, PAYLOAD)
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._asking: dict[tuple[str, RdataType], asyncio.Task[_Found]] = {}

    def adopted(self, old: Policy, new: Policy) -> None:
        """Other servers may know better: then nothing is remembered of what the former ones said."""
        if new.settings.dns != old.settings.dns:
            self._hear(new.settings.dns)
            self._cache.flush()

    def _hear(self, dns: settings.Dns) -> None:
        self._is_told = bool(dns.servers)  # by the settings
        self._read: tuple[int, ...] | None = None  # what resolv.conf was when it was read
        self._use([Do53Nameserver(server.host, server.port) for server in dns.servers])
        self._stub.timeout = self._stub.lifetime = dns.timeout

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
            return _Found(Status.NXDOMAIN, ttl=math.inf, text=heard(f"not a domain name: {error}", MAX_TEXT))
        try:
            if not self._is_told:
                self._read_again()
            async with self._turns:
                answer = await self._stub.resolve(absolute, kind, raise_on_no_answer=False)
        except NXDOMAIN:
            kept = self._cache.get((absolute, ANY, IN))  # where dnspython keeps that a name does not exist
            return _Found(Status.NXDOMAIN, (), self._left(kept), f"DNS answers NXDOMAIN for {host}")
        except (DNSException, ValueError) as error:  # ValueError: resolv.conf is not UTF-8, or has no address
            self._read = None
            return _Found(Status.TROUBLE, text=heard(str(error), MAX_TEXT))
        if answer.rrset is None:
            return _Found(Status.NODATA, (), self._left(answer), f"DNS has no {kind.name} record for {host}")
        return _Found(Status.FOUND, tuple(answer.rrset), self._left(answer))

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
        reader = asyncresolver.Resolver(configure=False)
        try:
            reader.read_resolv_conf(str(RESOLV_CONF))
            self._use([Do53Nameserver(str(address)) for address in reader.nameservers])
        except (DNSException, ValueError):
            if not self._stub.nameservers:
                raise
        self._read = is_now

    def _use(self, servers: Sequence[Do53Nameserver]) -> None:
        self._stub.nameservers = [_Servers(servers, self._clock, self._heard)] if servers else []

    def _heard(self) -> None:
        self.heard_at = self._clock.monotonic()

    def _left(self, answer: Answer | None) -> float:
        """The cache keeps an answer's end in wall time; a clock that jumps must not prolong it."""
        if answer is None:  # its ttl was 0
            return 0.0
        left = min(answer.chaining_result.minimum_ttl, answer.expiration - self._clock.now())
        return max(left, 0.0)


async def _ask(server: Nameserver, request: QueryMessage, left: float, backend: Any) -> Message | Exception:
    """One question to one server, for so many seconds at most."""
    try:
        try:
            return await server.async_query(request, left, None, 0, False, backend)
        except Truncated:
            return await server.async_query(request, left, None, 0, True, backend)
    except (DNSException, OSError, EOFError, ValueError) as error:  # ValueError: it is no address
        return error


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
