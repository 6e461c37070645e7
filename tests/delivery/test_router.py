"""The router over a real resolver and a real name server, with a clock that tests advance."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mta.clock import SystemClock, Timer
from mta.config.policy import Current, build, derive
from mta.config.rules import shipped
from mta.config.settings import Destination, Dns, Duration, Endpoint, Sandbox, Settings, StaticRoute
from mta.core.limits.level import Bounds
from mta.core.limits.throttle import Rate, SiteLimits
from mta.core.model import Kind, Outcome
from mta.core.route.provider import Provider, Providers
from mta.core.route.routing import Host, Login, Route
from mta.core.route.terms import BranchBounds, Terms
from mta.delivery import router as module
from mta.delivery.router import Router
from mta.dns.resolver import Resolver
from tests.fakes.dns import Misfortune, NameServer, Zone

SETTINGS = Settings("out.sender.test", listeners=())
ZONE: Zone = {
    ("one.test", "MX"): ["10 mx1.test.", "20 mx2.test."],
    ("two.test", "MX"): ["10 mx2.test.", "20 mx1.test."],
    ("mx1.test", "A"): ["192.0.2.1", "192.0.2.2"],
    ("mx1.test", "AAAA"): ["2001:db8::1"],
    ("trap.test", "A"): ["127.0.0.1"],
}
DEFAULT = SiteLimits(20, 100, 50, None)
UNKNOWN = BranchBounds(Bounds(1 / 60, 5.0, math.inf), Bounds(1.0, 2.0, 20.0))
GIANT = Provider(
    "giant",
    Terms(connections=5, connections_start=3, rate_start=Rate(60, 60.0), tls="required"),
    match=("giant.test",),
    because={"connections": "so it is said"},
)
FILTER = Provider("filter", Terms(connections=9), match=("filter.test",), per_site=True)


class HandClock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def dice(self) -> float:
        return 0.5

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        raise NotImplementedError

    async def sleep(self, delay: float) -> None:
        raise NotImplementedError


def routing(
    server: NameServer,
    settings: Settings = SETTINGS,
    clock: HandClock | None = None,
    timeout: float = 5.0,
    providers: tuple[Provider, ...] = (),
) -> Router:
    resolver = Resolver(Dns((server.endpoint,), Duration(timeout)), SystemClock())
    ours = frozenset({"192.0.2.2"})
    policy = derive(settings, Providers(providers), shipped())
    return Router(Current(policy), resolver, clock or HandClock(), ours)


def unsaid(route: Route | Outcome) -> Route:
    """A route without the origins of its limits."""
    assert isinstance(route, Route)
    return route._replace(said=())


def origins(route: Route | Outcome | None) -> dict[str, tuple[object, str]]:
    assert isinstance(route, Route)
    return {limit.name: (limit.value, limit.origin) for limit in route.said}


async def test_a_domain_goes_to_its_mx_hosts() -> None:
    async with NameServer(ZONE) as server:
        router = routing(server)
        assert router.cached("one.test") is None
        route = await router.route("one.test")
    hosts = (Host("mx1.test", 25, 10), Host("mx2.test", 25, 20))
    assert unsaid(route) == Route("mx1.test;mx2.test", hosts, DEFAULT, UNKNOWN)
    assert router.cached("one.test") is route


async def test_a_domain_with_terms_of_its_own_is_a_site_of_its_own() -> None:
    own = Destination(connections=1, rate=Rate(100, 60.0), port=2525)
    async with NameServer(ZONE) as server:
        router = routing(server, replace(SETTINGS, destinations={"two.test": own}))
        one, two = await router.route("one.test"), await router.route("two.test")
    assert isinstance(one, Route)
    assert isinstance(two, Route)
    assert (one.site, one.limits) == ("mx1.test;mx2.test", DEFAULT)
    assert (two.site, two.limits.rate) == ("two.test@mx2.test;mx1.test", Rate(100, 60.0))
    assert {host.port for host in two.hosts} == {2525}


@pytest.mark.parametrize(("ttl", "holds"), [(0, 60.0), (600, 600.0), (86400, 3600.0)])
async def test_a_route_holds_for_its_ttl_within_bounds(ttl: int, holds: float) -> None:
    clock = HandClock()
    async with NameServer(ZONE, ttl) as server:
        router = routing(server, clock=clock)
        route = await router.route("one.test")
    clock.time += holds - 1
    assert router.cached("one.test") is route
    clock.time += 2  # sums of seconds are not exact
    assert router.cached("one.test") is None


async def test_an_expired_route_is_looked_up_again() -> None:
    clock = HandClock()
    async with NameServer(ZONE, ttl=0) as server:
        router = routing(server, clock=clock)
        await router.route("one.test")
        await router.route("one.test")
        assert server.asked.total() == 1
        clock.time += 60
        await router.route("one.test")
        assert server.asked.total() == 2


@pytest.mark.parametrize(("misfortune", "timeout"), [(Misfortune.SERVFAIL, 5.0), (Misfortune.SILENCE, 0.2)])
async def test_trouble_is_remembered_for_half_a_minute(misfortune: Misfortune, timeout: float) -> None:
    clock = HandClock()
    async with NameServer({("one.test", "MX"): misfortune}) as server:
        router = routing(server, clock=clock, timeout=timeout)
        answer = await router.route("one.test")
        assert isinstance(answer, Outcome)
        assert (answer.kind, answer.reply.enhanced) == (Kind.DEFERRED, "4.4.3")
        clock.time += 29.9
        assert router.cached("one.test") is answer
        clock.time += 0.1
        assert router.cached("one.test") is None


async def test_fifty_who_ask_at_once_share_one_query_and_one_route() -> None:
    async with NameServer(ZONE) as server:
        router = routing(server)
        routes = await asyncio.gather(*(router.route("one.test") for _ in range(50)))
    assert len({id(route) for route in routes}) == 1
    assert server.asked.total() == 1


async def test_the_domain_that_was_not_used_for_longest_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ROUTES", 2)
    async with NameServer(ZONE) as server:
        router = routing(server)
        for domain in ("one.test", "two.test", "one.test", "three.test"):
            await router.route(domain)
    known = [domain for domain in ("one.test", "two.test", "three.test") if router.cached(domain)]
    assert known == ["one.test", "three.test"]


async def test_an_address_literal_needs_no_dns() -> None:
    async with NameServer(ZONE) as server:
        route = await routing(server).route("[192.0.2.9]")
    assert unsaid(route) == Route("[192.0.2.9]", (Host("192.0.2.9", 25),), DEFAULT, UNKNOWN)
    assert not server.asked


async def test_a_static_route_of_the_domain_comes_before_that_of_every_domain() -> None:
    relay = StaticRoute(
        Endpoint("relay.test", 587), user="u", password_file=Path("/p"), tls="required", connections=7
    )
    routes = {"*": StaticRoute(Endpoint("::1", 25)), "one.test": relay}
    async with NameServer(ZONE) as server:
        router = routing(server, replace(SETTINGS, routes=routes))
        one, other = router.cached("one.test"), router.cached("[192.0.2.9]")
        assert await router.route("one.test") is one
    assert not server.asked
    assert isinstance(one, Route)
    assert one.limits == SiteLimits(7, 1000, 50, None)
    assert (one.site, one.hosts) == ("relay.test:587", (Host("relay.test", 587),))
    assert (one.static, one.login, one.tls_required) == (True, Login("u", "/p"), True)
    assert isinstance(other, Route)
    assert (other.site, other.static, other.hosts) == ("[::1]:25", True, (Host("::1", 25),))


@pytest.mark.parametrize(
    ("host", "secure"), [("relay.test", True), ("192.0.2.1", True), ("127.0.0.1", False)]
)
async def test_a_password_goes_to_nobody_who_is_not_proved(host: str, secure: bool) -> None:
    said = StaticRoute(Endpoint(host, 587), user="u", password_file=Path("/p"))
    async with NameServer(ZONE) as server:
        route = routing(server, replace(SETTINGS, routes={"*": said})).cached("dst.test")
    assert isinstance(route, Route)
    assert route.tls_required is secure


async def test_two_static_routes_that_differ_never_share_a_site() -> None:
    relay = Endpoint("relay.test", 25)
    routes = {
        "one.test": StaticRoute(relay),
        "two.test": StaticRoute(relay, connections=1),
        "three.test": StaticRoute(relay),
    }
    async with NameServer(ZONE) as server:
        router = routing(server, replace(SETTINGS, routes=routes))
    sites = [route.site for domain in routes if isinstance(route := router.cached(domain), Route)]
    assert sites == ["relay.test:25", "two.test@relay.test:25", "relay.test:25"]


async def test_in_the_sandbox_nothing_leaves() -> None:
    settings = replace(SETTINGS, sandbox=Sandbox(Path("/box")))
    resolver = Resolver(Dns(), SystemClock())
    router = Router(Current(build(settings)), resolver, HandClock(), sandbox=Endpoint("127.0.0.1", 4025))
    for domain in ("one.test", "[192.0.2.9]", "localhost"):
        route = router.cached(domain)
        assert isinstance(route, Route)
        assert (route.site, route.hosts) == ("127.0.0.1:4025", (Host("127.0.0.1", 4025),))
        assert await router.addresses(route.hosts[0], route) == ["127.0.0.1"]
    with pytest.raises(ValueError, match="sandbox"):
        Router(Current(build(settings)), resolver, HandClock())


async def test_addresses_take_turns_and_leave_our_own_out() -> None:
    async with NameServer(ZONE) as server:
        router = routing(server)
        route = await router.route("one.test")
        assert isinstance(route, Route)
        assert await router.addresses(route.hosts[0], route) == ["2001:db8::1", "192.0.2.1"]


async def test_a_host_that_points_at_loopback_bounces_unless_a_setting_says_so() -> None:
    host = Host("trap.test", 25)
    stranger = Route("trap.test", (host,), DEFAULT, UNKNOWN)
    async with NameServer(ZONE) as server:
        router = routing(server)
        answer = await router.addresses(host, stranger)
        assert await router.addresses(host, stranger._replace(static=True)) == ["127.0.0.1"]
    assert isinstance(answer, Outcome)
    assert (answer.kind, answer.reply.enhanced, answer.host) == (Kind.BOUNCED, "5.4.6", "trap.test")


async def test_a_static_route_starts_with_all_that_it_has() -> None:
    relay = StaticRoute(Endpoint("192.0.2.1", 25), rate=Rate(10, 1.0))
    async with NameServer(ZONE) as server:
        routes = {"*": StaticRoute(Endpoint("::1", 25)), "a": relay}
        router = routing(server, replace(SETTINGS, routes=routes))
    free, bound = router.cached("b"), router.cached("a")
    assert isinstance(free, Route)
    assert isinstance(bound, Route)
    assert free.bounds == BranchBounds(Bounds(1 / 60, math.inf, math.inf), Bounds(1.0, 20.0, 20.0))
    assert bound.bounds == free.bounds  # its rate is a bucket of the lane's
    assert {origin for _, origin in origins(bound).values()} == {"route a"}


GIANTS: Zone = {
    ("big.test", "MX"): ["10 mx1.giant.test.", "10 mx2.giant.test.", "20 backup.elsewhere.test."],
    ("half.test", "MX"): ["10 mx1.giant.test.", "10 mx.elsewhere.test."],
    ("like.test", "MX"): ["10 mx.notgiant.test."],
    ("own.test", "MX"): ["10 mx1.giant.test."],
    ("safe.test", "MX"): ["10 mx.filter.test."],
}


@pytest.mark.parametrize(
    ("domain", "provider", "path", "connections", "start"),
    [
        ("big.test", "giant", "giant", 5, 3),
        ("half.test", "", "", 20, 2),
        ("like.test", "", "", 20, 2),
        ("safe.test", "filter", "", 9, 2),
    ],
)
async def test_the_best_mx_hosts_tell_the_provider_and_a_backup_does_not_matter(
    domain: str, provider: str, path: str, connections: int, start: int
) -> None:
    async with NameServer(GIANTS) as server:
        route = await routing(server, providers=(GIANT, FILTER)).route(domain)
    assert isinstance(route, Route)
    assert (route.provider, route.above) == (provider, path)
    assert route.limits.connections == connections
    assert route.bounds.connections == Bounds(1.0, start, connections)
    assert route.tls_required is (provider == "giant")


async def test_every_limit_tells_its_origin() -> None:
    default = Destination(messages_per_connection=7)
    own = Destination(recipients_per_message=3, connections=2, tls="opportunistic")
    settings = replace(SETTINGS, destinations={"default": default, "own.test": own})
    async with NameServer(GIANTS) as server:
        route = await routing(server, settings, providers=(GIANT,)).route("own.test")
    assert origins(route) == {
        "connections": (2, "destination own.test"),
        "connections_start": (2, "destination own.test"),  # not above the ceiling, which is the domain's
        "rate": (None, "default"),
        "rate_start": (Rate(60, 60.0), "provider giant"),
        "messages_per_connection": (7, "default"),
        "recipients_per_message": (3, "destination own.test"),
        "tls": ("opportunistic", "destination own.test"),
    }
    assert isinstance(route, Route)
    assert (route.provider, route.matched, route.tls_required) == ("giant", "match giant.test", False)


@pytest.mark.parametrize(
    ("own", "path"),
    [
        (Destination(connections=1), ""),
        (Destination(rate_start=Rate(1, 1.0)), ""),
        (Destination(port=26), "giant"),
    ],
)
async def test_a_domain_with_limits_of_its_own_does_not_share_the_providers(
    own: Destination, path: str
) -> None:
    async with NameServer(GIANTS) as server:
        router = routing(server, replace(SETTINGS, destinations={"own.test": own}), providers=(GIANT,))
        route = await router.route("own.test")
    assert isinstance(route, Route)
    assert (route.site, route.provider, route.above) == ("own.test@mx1.giant.test", "giant", path)


async def test_all_domains_of_a_provider_share_one_set_of_terms() -> None:
    zone = {(f"d{n}.test", "MX"): [f"10 mx{n}.giant.test."] for n in range(3)}
    async with NameServer(zone) as server:
        router = routing(server, providers=(GIANT,))
        routes = [await router.route(f"d{n}.test") for n in range(3)]
    assert len({id(route.said) for route in routes if isinstance(route, Route)}) == 1
