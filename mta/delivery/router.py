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
from ipaddress import ip_address
from typing import NamedTuple

from mta.clock import Clock
from mta.config.policy import Current, Policy
from mta.config.routes import routes
from mta.config.settings import Endpoint, Hop, StaticRoute
from mta.core.limits.budget import ROUTES
from mta.core.model import Outcome
from mta.core.route import routing
from mta.core.route.provider import Providers
from mta.core.route.routing import Host, MxAnswer, Plan, Route, Status
from mta.dns.resolver import Resolver

SHORTEST, LONGEST = 60.0, 3600.0  # seconds that a route holds, whatever its ttl
TROUBLE = 30.0  # seconds until DNS is asked again
EVERY_DOMAIN = "*"
SHARED = {"connections", "connections_start", "rate", "rate_start"}  # a branch's, not a connection's


class _Known(NamedTuple):
    """What was found for a domain, until a monotonic time."""

    answer: Route | Outcome
    until: float
    troubles: int | None = None  # so often DNS was back then, where it was in trouble


class Router:
    """Knows the static routes, asks DNS for the rest, and remembers."""

    def __init__(
        self,
        current: Current,
        resolver: Resolver,
        clock: Clock,
        our_addresses: frozenset[str] = frozenset(),
        sandbox: Endpoint | None = None,
    ) -> None:
        policy = current.policy
        if policy.settings.sandbox and sandbox is None:
            raise ValueError("the settings ask for the sandbox, and the router was given no address of it")
        self._current = current
        self._resolver = resolver
        self._clock = clock
        self._addresses = frozenset(str(ip_address(address)) for address in our_addresses)
        # There nothing leaves, whatever the policy.
        everything = {EVERY_DOMAIN: StaticRoute(Hop(sandbox))} if sandbox else {}
        self._sandbox = routes(everything, "sandbox", policy.providers)
        self._static = self._sandbox or policy.routes
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._troubles = 0  # that are over

    def adopted(self, old: Policy, new: Policy) -> None:
        """Every route is found anew; the resolver remembers what DNS said."""
        self._static = self._sandbox or new.routes
        self._known.clear()

    @property
    def providers(self) -> Providers:
        """Those that we know."""
        return self._current.policy.providers

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
        names = frozenset({self._current.policy.settings.hostname.lower()})
        plan = routing.plan(domain, mx, names, self._port(domain))
        return self._keep(domain, plan, _holds(mx), mx.status is Status.TROUBLE)

    @property
    def heard_at(self) -> float:
        """When any name server said anything, the last time; monotonic."""
        return self._resolver.heard_at

    @property
    def known(self) -> int:
        """Domains whose route is remembered."""
        return len(self._known)

    def ask_again(self) -> None:
        """DNS is back: what was in trouble is asked for again, whoever wants it next."""
        self._troubles += 1

    async def addresses(self, host: Host, route: Route) -> list[str] | Outcome:
        """The numeric addresses of a host in the order to try them."""
        answer = await self._resolver.addresses(host.name)
        return routing.dial(host, answer, self._addresses, route.static)

    def of_provider(self, name: str) -> Route:
        """What holds towards a provider: a route without site and hosts."""
        policy = self._current.policy
        above = "" if policy.providers.by_name[name].per_site else name
        return Route.on("", (), policy.profiled[name])._replace(provider=name, above=above)

    def _keep(
        self, domain: str, plan: Plan | Outcome, seconds: float, is_trouble: bool = False
    ) -> Route | Outcome:
        answer = plan if isinstance(plan, Outcome) else self._found(domain, plan)
        until = self._clock.monotonic() + seconds
        self._known[domain] = _Known(answer, until, self._troubles if is_trouble else None)
        self._known.move_to_end(domain)
        if len(self._known) > ROUTES:
            self._known.popitem(last=False)
        return answer

    def _found(self, domain: str, plan: Plan) -> Route:
        policy = self._current.policy
        match = policy.providers.match(plan.hosts, domain)
        own = policy.settings.destinations.get(domain)
        # A destination with terms of its own is a site of its own, or its lane would have the provider's.
        site = plan.site if own is None else f"{domain}@{plan.site}"
        route = Route.on(site, plan.hosts, policy.terms(domain, match))
        if match is None:
            return route
        alone = match.provider.per_site or (own is not None and not SHARED.isdisjoint(own.said()))
        name = match.provider.name
        return route._replace(provider=name, matched=match.rule, above="" if alone else name)

    def _port(self, domain: str) -> int:
        destinations = self._current.policy.settings.destinations
        own = destinations.get(domain)
        port = (own and own.port) or destinations["default"].port
        assert port is not None
        return port


def _holds(mx: MxAnswer) -> float:
    return TROUBLE if mx.status is Status.TROUBLE else min(max(mx.ttl, SHORTEST), LONGEST)
