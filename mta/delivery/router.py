"""The router: a domain -> its route, and a host -> the addresses to dial.

Between: the scheduler and the look-ups ask for routes, lanes for addresses; `dns.resolver` answers us.
Contract: domains are lower-case A-labels or address literals. A route holds for the ttl of its MX
    records, at least 60 s and at most 1 h; trouble holds for 30 s, or until `ask_again`; a static route needs
    no DNS and holds for ever. What cannot be routed is an `Outcome`. Its terms come value by value from the
    default, the provider and the destination; a static route has its own.
Raises: ValueError when the settings ask for the sandbox and it has no address: nothing may leak out.
Standards: RFC 5321 5.1.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from ipaddress import ip_address
from typing import NamedTuple

from mta.clock import Clock
from mta.config.settings import Endpoint, Hop, Settings, StaticRoute
from mta.core.model import Outcome
from mta.core.queue.retry import JITTER
from mta.core.route import routing
from mta.core.route.provider import Match, Providers
from mta.core.route.routing import Host, Login, MxAnswer, Plan, Route, Status
from mta.core.route.terms import UNLIMITED, Layer, Resolved, Terms, resolve
from mta.dns.resolver import Resolver

CACHE = 50_000  # domains
SHORTEST, LONGEST = 60.0, 3600.0  # seconds that a route holds, whatever its ttl
TROUBLE = 30.0  # seconds until DNS is asked again
EVERY_DOMAIN = "*"
SHARED = {"connections", "connections_start", "rate", "rate_start"}  # a path's, not a connection's


class _Known(NamedTuple):
    """What was found for a domain, until a monotonic time."""

    answer: Route | Outcome
    until: float
    troubles: int | None = None  # so often DNS was back then, where it was in trouble


class Router:
    """Knows the static routes, asks DNS for the rest, and remembers."""

    def __init__(
        self,
        settings: Settings,
        resolver: Resolver,
        clock: Clock,
        our_addresses: frozenset[str] = frozenset(),
        sandbox: Endpoint | None = None,
        providers: Providers | None = None,
    ) -> None:
        if settings.sandbox and sandbox is None:
            raise ValueError("the settings ask for the sandbox, and the router was given no address of it")
        self._resolver = resolver
        self._clock = clock
        self._names = frozenset({settings.hostname.lower()})
        self._addresses = frozenset(str(ip_address(address)) for address in our_addresses)
        self._destinations = settings.destinations
        self._default = Layer("default", settings.destinations["default"])
        self.providers = providers or Providers()
        self._resolved = {  # what most routes have; they share it
            name: resolve((self._default, profile.layer)) for name, profile in self.providers.by_name.items()
        }
        self._unprofiled = resolve((self._default,))
        routes = {EVERY_DOMAIN: StaticRoute(Hop(sandbox))} if sandbox else settings.routes
        self._static = _static(routes, "sandbox" if sandbox else "route", self.providers)
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._troubles = 0  # that are over
        every = (*settings.destinations.values(), *(each.terms for each in self.providers.by_name.values()))
        longest = max(max(each.retry_first or 0.0, each.retry_max or 0.0) for each in every)
        self.longest_retry = longest * (1 + JITTER)  # seconds

    def cached(self, domain: str) -> Route | Outcome | None:
        """What is known of this domain now, without DNS."""
        known = self._known.get(domain)
        if known is None:
            return self._static.get(domain) or self._static.get(EVERY_DOMAIN)
        if known.until <= self._clock.monotonic() or known.troubles not in (None, self._troubles):
            return None
        self._known.move_to_end(domain)
        return known.answer

    async def route(self, domain: str) -> Route | Outcome:
        """Where this domain's mail goes."""
        known = self.cached(domain)
        if known is not None:
            return known
        if domain.startswith("["):
            return self._keep(domain, routing.literal(domain, self._port(domain)), LONGEST)
        mx = await self._resolver.mx(domain)
        known = self.cached(domain)  # of all who waited for this answer, the first has kept its route
        if known is not None:
            return known
        plan = routing.plan(domain, mx, self._names, self._port(domain))
        return self._keep(domain, plan, _holds(mx), mx.status is Status.TROUBLE)

    @property
    def heard_at(self) -> float:
        """When any name server said anything, the last time; monotonic."""
        return self._resolver.heard_at

    def ask_again(self) -> None:
        """DNS is back: what was in trouble is asked for again, whoever wants it next."""
        self._troubles += 1

    async def addresses(self, host: Host, route: Route) -> list[str] | Outcome:
        """The numeric addresses of a host in the order to try them."""
        answer = await self._resolver.addresses(host.name)
        return routing.dial(host, answer, self._addresses, route.static)

    def of_provider(self, name: str) -> Route:
        """What holds towards a provider: a route without site and hosts."""
        profile, known = self.providers.by_name[name], self._resolved[name]
        path = "" if profile.per_site else name
        return _route("", (), known)._replace(provider=name, path=path)

    def _keep(
        self, domain: str, plan: Plan | Outcome, seconds: float, is_trouble: bool = False
    ) -> Route | Outcome:
        answer = plan if isinstance(plan, Outcome) else self._found(domain, plan)
        until = self._clock.monotonic() + seconds
        self._known[domain] = _Known(answer, until, self._troubles if is_trouble else None)
        self._known.move_to_end(domain)
        if len(self._known) > CACHE:
            self._known.popitem(last=False)
        return answer

    def _found(self, domain: str, plan: Plan) -> Route:
        match = self.providers.match(plan.hosts, domain)
        own = self._destinations.get(domain)
        # A destination with terms of its own is a site of its own, or its lane would have the provider's.
        site = plan.site if own is None else f"{domain}@{plan.site}"
        route = _route(site, plan.hosts, self._terms(domain, match))
        if match is None:
            return route
        alone = match.provider.per_site or (own is not None and not SHARED.isdisjoint(own.said()))
        name = match.provider.name
        return route._replace(provider=name, matched=match.rule, path="" if alone else name)

    def _terms(self, domain: str, match: Match | None) -> Resolved:
        own = self._destinations.get(domain)
        if own is None:
            return self._unprofiled if match is None else self._resolved[match.provider.name]
        between = () if match is None else (match.provider.layer,)
        return resolve((self._default, *between, Layer(f"destination {domain}", own)))

    def _port(self, domain: str) -> int:
        own = self._destinations.get(domain)
        port = (own and own.port) or self._destinations["default"].port
        assert port is not None
        return port


def _holds(mx: MxAnswer) -> float:
    return TROUBLE if mx.status is Status.TROUBLE else min(max(mx.ttl, SHORTEST), LONGEST)


def _route(site: str, hosts: tuple[Host, ...], terms: Resolved) -> Route:
    route = Route(site, hosts, terms.limits, terms.bounds, tls_required=terms.tls_required)
    return route._replace(said=terms.said, retry=terms.retry)


def _static(routes: Mapping[str, StaticRoute], origin: str, providers: Providers) -> dict[str, Route]:
    """The routes of the settings, by domain. Two that differ are two sites, even at one endpoint."""
    found: dict[str, Route] = {}
    sites: dict[str, Route] = {}
    for domain, said in routes.items():
        login = Login(said.user, str(said.password_file)) if said.user else None
        hosts = (Host(said.host.host, said.host.port),)
        # A password goes to nobody who is not proved: TLS with a certificate, or our own machine.
        secure = said.tls == "required" or bool(login and not said.host.is_loopback)
        terms = Terms(
            connections=said.connections,
            rate=said.rate,
            messages_per_connection=said.messages_per_connection,
            recipients_per_message=said.recipients_per_message,
            tls="required" if secure else "opportunistic",
        )
        route = _route(str(said.host), hosts, resolve((Layer(f"{origin} {domain}", terms),)))
        # Its rate is a bucket of the lane's: who set it for his own relay means it to the letter.
        free = route.bounds._replace(rate=UNLIMITED)
        match = providers.match(hosts, "")  # whose words its answers are in; the limits are the route's
        name = "" if match is None else match.provider.name
        route = route._replace(static=True, login=login, bounds=free, provider=name)
        if sites.setdefault(route.site, route)._replace(said=()) != route._replace(said=()):
            route = route._replace(site=f"{domain}@{route.site}")
        found[domain] = route
    return found
