"""The routes of the settings: fixed next hops, by domain.

Between: the settings name them; `delivery.router` answers with them before it asks DNS.
Contract: pure. Two that differ are two sites, even at one endpoint; those that are alike share their terms.
Raises: nothing for settings that were loaded.
"""

from __future__ import annotations

from collections.abc import Mapping

from mta.config.settings import StaticRoute
from mta.core.route.provider import Providers
from mta.core.route.routing import Host, Login, Route
from mta.core.route.terms import UNLIMITED, Layer, Terms, resolve


def routes(said: Mapping[str, StaticRoute], origin: str, providers: Providers) -> dict[str, Route]:
    """What they come to; `origin` is who said it."""
    found: dict[str, Route] = {}
    sites: dict[str, Route] = {}
    for domain, each in said.items():
        route = _route(each, f"{origin} {domain}", providers)
        first = sites.setdefault(route.site, route)
        if first._replace(said=()) == route._replace(said=()):
            route = route._replace(bounds=first.bounds)
        else:
            route = route._replace(site=f"{domain}@{route.site}")
        found[domain] = route
    return found


def _route(said: StaticRoute, origin: str, providers: Providers) -> Route:
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
    route = Route.on(str(said.host), hosts, resolve((Layer(origin, terms),)))
    # Its rate is a bucket of the lane's: who set it for his own relay means it to the letter.
    free = route.bounds._replace(rate=UNLIMITED)
    match = providers.match(hosts, "")  # whose words its answers are in; the limits are the route's
    name = "" if match is None else match.provider.name
    return route._replace(static=True, login=login, bounds=free, provider=name)
