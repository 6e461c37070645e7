"""Where a domain's mail goes: DNS answers -> one site, its hosts in order, their addresses.

Between: `dns.resolver` makes the answers, `delivery.router` asks with them in hand.
Contract: pure; names are lower-case A-labels without the final dot (the root is
    "."), addresses are numeric text as `ipaddress` writes it, ttl is seconds. What cannot be routed is
    an `Outcome`, whose one line says what, why and what to do.
Raises: nothing.
Standards: RFC 5321 5.1 (MX), 4.1.3 (address literals), RFC 7505 (null MX), RFC 3463 (codes).
Why: domains with the same MX hosts in the same order of preference are one site, so that limits hold for
    the provider behind them. In another order they are another: its mail goes to its own best host (RFC
    5321 5.1).
"""

from __future__ import annotations

import enum
import hashlib
import ipaddress
from collections.abc import Sequence
from itertools import groupby, zip_longest
from typing import NamedTuple

from mta.core.limits.throttle import SiteLimits
from mta.core.model import Kind, Outcome, Reply, Scope, Subject
from mta.core.queue.retry import ANY, Schedule
from mta.core.route.source import Source
from mta.core.route.terms import BranchBounds, Limit, Resolved

ROOT = "."
MAX_HOSTS = 100  # of these `core.route.hosts` chooses some for each attempt
MAX_SITE = 200  # characters of a site's name


class Host(NamedTuple):
    """One name (or numeric address) to connect to."""

    name: str
    port: int
    preference: int = 0


class Login(NamedTuple):
    """How to authenticate at a smarthost."""

    user: str
    password_file: str


class Route(NamedTuple):
    """Where a domain's mail goes: one site, its hosts by preference."""

    site: str
    hosts: tuple[Host, ...]
    limits: SiteLimits
    bounds: BranchBounds  # what the path may learn
    static: bool = False  # said by a setting: loopback is allowed
    login: Login | None = None
    tls_required: bool = False
    provider: str = ""  # "" where no provider is known
    above: str = ""  # the branch whose limits it shares: the provider's; "" where the site is alone
    matched: str = ""  # what of the provider's profile fits
    said: tuple[Limit, ...] = ()  # every limit with its origin
    retry: Schedule = ANY  # waits are at least these
    is_apart: bool = False  # for mail that asks for TLS by itself: it has lanes of its own

    @property
    def is_spread(self) -> bool:
        """Do several hosts share its mail?"""
        hosts = self.hosts
        return len(hosts) > 1 and hosts[0].preference == hosts[1].preference

    @property
    def secured(self) -> Route:
        """For mail that goes under TLS or not at all."""
        return self._replace(tls_required=True, is_apart=True)

    def alike(self, name: str) -> list[str]:
        """The other hosts of this one's preference."""
        preferences = {host.preference for host in self.hosts if host.name == name}
        return [host.name for host in self.hosts if host.preference in preferences and host.name != name]

    @classmethod
    def on(cls, site: str, hosts: tuple[Host, ...], terms: Resolved) -> Route:
        """To this site on these terms."""
        limits, bounds = terms.limits, terms.bounds
        return cls(
            site, hosts, limits, bounds, tls_required=terms.tls_required, said=terms.said, retry=terms.retry
        )


class Status(enum.Enum):
    """What DNS said to one question."""

    FOUND = "found"
    NODATA = "no data"  # the name exists, without such records
    NXDOMAIN = "no such domain"
    TROUBLE = "trouble"  # no answer: ask again later


class Mx(NamedTuple):
    """One MX record."""

    preference: int
    exchange: str


class MxAnswer(NamedTuple):
    """The MX records of a domain; `text` says what went wrong."""

    status: Status
    records: tuple[Mx, ...] = ()
    ttl: float = 0.0
    text: str = ""
    is_authentic: bool = False  # signed, and checked by a name server that we trust


class AddressAnswer(NamedTuple):
    """The addresses of a name, IPv6 first; `text` says what went wrong."""

    status: Status
    records: tuple[str, ...] = ()
    ttl: float = 0.0
    text: str = ""
    is_authentic: bool = False  # all of them


class Plan(NamedTuple):
    """A site and its hosts by preference."""

    site: str
    hosts: tuple[Host, ...]


def plan(domain: str, mx: MxAnswer, ours: frozenset[str], port: int) -> Plan | Outcome:
    """The site of a domain, by its MX records; `ours` are the names of this machine."""
    if mx.status is Status.TROUBLE:
        text = f"the MX records of {domain} cannot be looked up ({mx.text}); we will ask again"
        return _deferred(Reply(451, "4.4.3", text))
    if mx.status is Status.NXDOMAIN:
        text = f"the domain {domain} does not exist ({mx.text}); correct the address"
        return _bounced(Reply(550, "5.1.2", text))
    records = mx.records or (Mx(0, domain),)  # RFC 5321 5.1: without MX the domain is its own
    if all(record.exchange == ROOT for record in records):  # RFC 7505 3
        text = f"the domain {domain} takes no mail (its MX record is null); nothing can be sent there"
        return _bounced(Reply(556, "5.1.10", text))
    named = [record for record in records if record.exchange != ROOT and _ip(record.exchange) is None]
    if not named:
        text = f"the MX records of {domain} are numbers where names must be; its owner must correct them"
        return _bounced(Reply(550, "5.4.4", text))
    hosts = _nearer(named, ours, port)
    if not hosts:
        text = f"we are the best MX of {domain}, its mail would loop; set a route for it, or correct its MX"
        return _bounced(Reply(554, "5.4.6", text))
    return Plan(_site(hosts), hosts)


def literal(domain: str, port: int) -> Plan | Outcome:
    """The site of an address literal: "[192.0.2.1]", "[IPv6:2001:db8::1]" (RFC 5321 4.1.3)."""
    inner = domain.removeprefix("[").removesuffix("]")
    address = _ip(inner[5:] if inner[:5].lower() == "ipv6:" else inner)
    if address is None:
        text = f"{domain} is no address literal; write [192.0.2.1] or [IPv6:2001:db8::1], or a domain"
        return _bounced(Reply(550, "5.1.2", text))
    return Plan(domain, (Host(str(address), port),))


def allowed(address: str, ours: frozenset[str], static: bool) -> bool:
    """May mail be sent to this address? Strangers' DNS must not point us at ourselves."""
    ip = _ip(address)
    if static or ip is None:
        return static
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped  # ::ffff:127.0.0.1 connects to 127.0.0.1, but is not `is_loopback`
    ourselves = ip.is_loopback or ip.is_unspecified or str(ip) in ours
    return not (ourselves or ip.is_multicast or ip.is_link_local)


def dial(host: Host, answer: AddressAnswer, ours: frozenset[str], static: bool) -> list[str] | Outcome:
    """The addresses of a host in the order to try them, IPv6 and IPv4 in turn."""
    if answer.status is Status.TROUBLE:
        text = f"the address of {host.name} cannot be looked up ({answer.text}); we will ask again"
        return _deferred(Reply(451, "4.4.3", text), host.name)
    if answer.status is not Status.FOUND and static:
        # The operator's mistake, or a relay that is being moved: no reason to lose mail.
        text = f"the host {host.name} has no address ({answer.text}); correct the route that names it"
        return _deferred(Reply(451, "4.4.4", text), host.name)
    if answer.status is not Status.FOUND:
        text = f"the mail host {host.name} has no address ({answer.text}); correct the domain of the address"
        return _bounced(Reply(550, "5.4.4", text), host.name)
    usable = [address for address in answer.records if allowed(address, ours, static)]
    if not usable:
        listed = ", ".join(answer.records[:3])
        text = f"{host.name} points at this machine or at no host ({listed}); set a route, or correct its DNS"
        return _bounced(Reply(554, "5.4.6", text), host.name)
    return _in_turn(usable)


def within_reach(host: Host, addresses: Sequence[str], source: Source) -> list[str] | Outcome:
    """Those of a host's addresses that a source can dial: the ones of its own family."""
    if not source.address:
        return list(addresses)
    is_ipv6 = ":" in source.address
    same = [address for address in addresses if (":" in address) == is_ipv6]
    if same:
        return same
    family = "IPv6" if is_ipv6 else "IPv4"
    text = f"{host.name} has no {family} address, and the source {source.name} ({source.address}) no other"
    text += "; give its pool a source of the other family"
    return Outcome(Kind.DEFERRED, Subject.SOURCE, Scope.SITE, Reply(451, "4.4.4", text), host.name)


def _nearer(records: Sequence[Mx], ours: frozenset[str], port: int) -> tuple[Host, ...]:
    """The hosts that are nearer to the domain than we are (RFC 5321 5.1), at most `MAX_HOSTS`."""
    limit = min((record.preference for record in records if record.exchange in ours), default=None)
    best: dict[str, int] = {}
    for preference, exchange in sorted(records):
        if limit is None or preference < limit:
            best.setdefault(exchange, preference)
    return tuple(Host(name, port, preference) for name, preference in best.items())[:MAX_HOSTS]


def former_site(site: str) -> str:
    """What a site was called while the preference of its hosts was no part of its name."""
    domain, at, hosts = site.rpartition("@")  # a destination with terms of its own has its name before them
    return domain + at + _cut(",".join(sorted(hosts.replace(";", ",").split(","))))


def _site(hosts: Sequence[Host]) -> str:
    """The hosts of each preference by name, the best first: `a,b;backup`."""
    groups = groupby(hosts, key=lambda host: host.preference)
    return _cut(";".join(",".join(sorted(host.name for host in group)) for _, group in groups))


def _cut(name: str) -> str:
    if len(name) <= MAX_SITE:
        return name
    digest = hashlib.blake2s(name.encode(), digest_size=8).hexdigest()
    return f"{name[: MAX_SITE - len(digest) - 1]}~{digest}"


def _in_turn(addresses: Sequence[str]) -> list[str]:
    """Both families in turn, that of the first address first (RFC 8305 4): one may be dead here."""
    first = [address for address in addresses if (":" in address) == (":" in addresses[0])]
    second = [address for address in addresses if (":" in address) != (":" in addresses[0])]
    return [address for pair in zip_longest(first, second) for address in pair if address]


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None


def _deferred(reply: Reply, host: str = "") -> Outcome:
    return Outcome(Kind.DEFERRED, Subject.DNS, Scope.HOST if host else Scope.RECIPIENT, reply, host)


def _bounced(reply: Reply, host: str = "") -> Outcome:
    return Outcome(Kind.BOUNCED, Subject.RECIPIENT, Scope.HOST if host else Scope.RECIPIENT, reply, host)
