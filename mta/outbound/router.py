"""The router: a domain -> its route, and a host -> the addresses to dial.

Between: the scheduler asks for routes, lanes for addresses; `dns.resolver` answers us.
Contract: domains are lower-case A-labels or address literals. A route holds for the ttl of its MX
    records, at least 60 s and at most 1 h; trouble holds for 30 s; a static route needs no DNS and holds
    for ever. What cannot be routed is an `Outcome`.
Raises: ValueError when the settings ask for the sandbox and it has no address: nothing may leak out.
Standards: RFC 5321 5.1.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from ipaddress import ip_address
from typing import NamedTuple

from mta.clock import Clock
from mta.config.settings import Domain, Endpoint, Settings, StaticRoute
from mta.core import routing
from mta.core.model import Outcome
from mta.core.routing import Host, Login, MxAnswer, Plan, Route, Status
from mta.core.throttle import SiteLimits
from mta.dns.resolver import Resolver

CACHE = 50_000  # domains
SHORTEST, LONGEST = 60.0, 3600.0  # seconds that a route holds, whatever its ttl
TROUBLE = 30.0  # seconds until DNS is asked again
EVERY_DOMAIN = "*"


class _Known(NamedTuple):
    """What was found for a domain, until a monotonic time."""

    answer: Route | Outcome
    until: float


class Router:
    """Knows the static routes, asks DNS for the rest, and remembers."""

    def __init__(
        self,
        settings: Settings,
        resolver: Resolver,
        clock: Clock,
        our_addresses: frozenset[str] = frozenset(),
        sandbox: Endpoint | None = None,
    ) -> None:
        if settings.sandbox and sandbox is None:
            raise ValueError("the settings ask for the sandbox, and the router was given no address of it")
        self._resolver = resolver
        self._clock = clock
        self._names = frozenset({settings.hostname.lower()})
        self._addresses = frozenset(str(ip_address(address)) for address in our_addresses)
        self._domains = settings.domains
        self._others = settings.domains.get("default", Domain())
        self._static = _static({EVERY_DOMAIN: StaticRoute(sandbox)} if sandbox else settings.routes)
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def cached(self, domain: str) -> Route | Outcome | None:
        """What is known of this domain now, without DNS."""
        known = self._known.get(domain)
        if known is None:
            return self._static.get(domain) or self._static.get(EVERY_DOMAIN)
        if known.until <= self._clock.monotonic():
            return None
        self._known.move_to_end(domain)
        return known.answer

    async def route(self, domain: str) -> Route | Outcome:
        """Where this domain's mail goes."""
        known = self.cached(domain)
        if known is not None:
            return known
        terms = self._domains.get(domain, self._others)
        if domain.startswith("["):
            return self._keep(domain, terms, routing.literal(domain, terms.port), LONGEST)
        mx = await self._resolver.mx(domain)
        known = self.cached(domain)  # of all who waited for this answer, the first has kept its route
        if known is not None:
            return known
        return self._keep(domain, terms, routing.plan(domain, mx, self._names, terms.port), _holds(mx))

    async def addresses(self, host: Host, route: Route) -> list[str] | Outcome:
        """The numeric addresses of a host in the order to try them."""
        answer = await self._resolver.addresses(host.name)
        return routing.dial(host, answer, self._addresses, route.static)

    def _keep(self, domain: str, terms: Domain, plan: Plan | Outcome, seconds: float) -> Route | Outcome:
        if isinstance(plan, Outcome):
            answer: Route | Outcome = plan
        else:
            # A domain with terms of its own is a site of its own, or its lane would have the provider's.
            site = f"{domain}@{plan.site}" if domain in self._domains else plan.site
            answer = Route(site, plan.hosts, _limits(terms))
        self._known[domain] = _Known(answer, self._clock.monotonic() + seconds)
        self._known.move_to_end(domain)
        if len(self._known) > CACHE:
            self._known.popitem(last=False)
        return answer


def _holds(mx: MxAnswer) -> float:
    return TROUBLE if mx.status is Status.TROUBLE else min(max(mx.ttl, SHORTEST), LONGEST)


def _limits(terms: Domain | StaticRoute) -> SiteLimits:
    return SiteLimits(
        terms.connections, terms.messages_per_connection, terms.recipients_per_message, terms.rate
    )


def _static(routes: Mapping[str, StaticRoute]) -> dict[str, Route]:
    """The routes of the settings, by domain. Two that differ are two sites, even at one endpoint."""
    found: dict[str, Route] = {}
    sites: dict[str, Route] = {}
    for domain, said in routes.items():
        login = Login(said.user, str(said.password_file)) if said.user else None
        hosts = (Host(said.host.host, said.host.port),)
        # A password goes to nobody who is not proved: TLS with a certificate, or our own machine.
        secure = said.tls == "required" or bool(login and not said.host.is_loopback)
        route = Route(str(said.host), hosts, _limits(said), True, login, secure)
        if sites.setdefault(route.site, route) != route:
            route = route._replace(site=f"{domain}@{route.site}")
        found[domain] = route
    return found
