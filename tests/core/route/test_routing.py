"""Which hosts a domain's mail goes to, and what is said when there is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.core.limits.throttle import SiteLimits
from mta.core.model import Kind, Outcome, Reply, Scope, Subject
from mta.core.route.routing import (
    MAX_HOSTS,
    MAX_SITE,
    AddressAnswer,
    Host,
    Mx,
    MxAnswer,
    Plan,
    Route,
    Status,
    allowed,
    dial,
    former_site,
    literal,
    plan,
)
from mta.core.route.terms import UNLIMITED, BranchBounds

US = frozenset({"out.sender.test"})
MX1 = Host("mx1.test", 25, 10)


def found(*records: tuple[int, str]) -> MxAnswer:
    return MxAnswer(Status.FOUND, tuple(Mx(*record) for record in records), 300.0)


def code(answer: object) -> tuple[Kind, int, str]:
    assert isinstance(answer, Outcome)
    assert "\n" not in answer.reply.text
    return answer.kind, answer.reply.code, answer.reply.enhanced


def route(*hosts: Host) -> Route:
    return Route("site", hosts, SiteLimits(20, 100, 50, None), BranchBounds(UNLIMITED, UNLIMITED))


def names(answer: Plan | Outcome) -> list[str]:
    assert isinstance(answer, Plan)
    return [host.name for host in answer.hosts]


@pytest.mark.parametrize(
    ("mx", "hosts"),
    [
        pytest.param(found((10, "mx1.test")), ["mx1.test"], id="one"),
        pytest.param(found((20, "b.test"), (10, "a.test")), ["a.test", "b.test"], id="by preference"),
        pytest.param(MxAnswer(Status.NODATA), ["example.test"], id="implicit MX"),
        pytest.param(found((0, "."), (10, "a.test")), ["a.test"], id="null MX beside a real one"),
        pytest.param(found((5, "192.0.2.1"), (10, "a.test")), ["a.test"], id="a number beside a name"),
        pytest.param(found((10, "a.test"), (20, "a.test")), ["a.test"], id="the same host twice"),
        pytest.param(
            found((10, "a.test"), (20, "out.sender.test"), (20, "b.test"), (30, "c.test")),
            ["a.test"],
            id="we are a backup MX",
        ),
    ],
)
def test_hosts_of_a_domain(mx: MxAnswer, hosts: list[str]) -> None:
    assert names(plan("example.test", mx, US, 25)) == hosts


@pytest.mark.parametrize(
    ("mx", "expected"),
    [
        pytest.param(found((0, ".")), (Kind.BOUNCED, 556, "5.1.10"), id="null MX"),
        pytest.param(MxAnswer(Status.NXDOMAIN), (Kind.BOUNCED, 550, "5.1.2"), id="no such domain"),
        pytest.param(MxAnswer(Status.TROUBLE), (Kind.DEFERRED, 451, "4.4.3"), id="no answer"),
        pytest.param(found((5, "192.0.2.1"), (6, "[192.0.2.2]")), (Kind.BOUNCED, 550, "5.4.4"), id="numbers"),
        pytest.param(
            found((10, "out.sender.test"), (20, "b.test")), (Kind.BOUNCED, 554, "5.4.6"), id="we are best"
        ),
    ],
)
def test_a_domain_without_a_usable_host_is_an_outcome(mx: MxAnswer, expected: tuple[Kind, int, str]) -> None:
    assert code(plan("example.test", mx, US, 25)) == expected


def test_our_own_name_without_mx_would_loop() -> None:
    assert code(plan("out.sender.test", MxAnswer(Status.NODATA), US, 25))[2] == "5.4.6"


def test_an_outcome_names_the_domain_and_what_dns_said() -> None:
    answer = plan("example.test", MxAnswer(Status.TROUBLE, text="ns1 answered SERVFAIL"), US, 25)
    text = "the MX records of example.test cannot be looked up (ns1 answered SERVFAIL); we will ask again"
    assert answer == Outcome(Kind.DEFERRED, Subject.DNS, Scope.RECIPIENT, Reply(451, "4.4.3", text))


def test_domains_with_the_same_mx_hosts_in_the_same_order_are_one_site() -> None:
    one = plan("one.test", found((10, "a.test"), (20, "b.test")), US, 25)
    two = plan("two.test", found((7, "b.test"), (5, "a.test")), US, 25)
    assert isinstance(one, Plan)
    assert isinstance(two, Plan)
    assert one.site == two.site == "a.test;b.test"


@pytest.mark.parametrize("site", ["a.test,b.test", "a.test;b.test", "b.test;a.test"])
def test_what_was_learned_of_hosts_in_any_order_is_found_under_one_name(site: str) -> None:
    assert former_site(site) == "a.test,b.test"


def test_domains_with_the_same_mx_hosts_in_another_order_are_two_sites() -> None:
    one = plan("one.test", found((10, "b.test"), (20, "a.test")), US, 25)
    two = plan("two.test", found((20, "b.test"), (10, "a.test")), US, 25)
    assert isinstance(one, Plan)
    assert isinstance(two, Plan)
    assert one.site != two.site


def test_a_long_mx_set_has_a_bounded_name_of_its_own() -> None:
    hosts = [(10, f"{'x' * 50}{n}.example.test") for n in range(9)]
    one, two = plan("a.test", found(*hosts), US, 25), plan("a.test", found(*hosts[:8]), US, 25)
    assert isinstance(one, Plan)
    assert isinstance(two, Plan)
    assert len(one.site) == len(two.site) == MAX_SITE
    assert one.site != two.site


def test_the_nearest_hosts_of_a_thousand_are_kept() -> None:
    answer = plan("example.test", found(*((n, f"mx{n}.test") for n in reversed(range(1000)))), US, 25)
    assert names(answer) == [f"mx{n}.test" for n in range(MAX_HOSTS)]


@given(st.lists(st.tuples(st.integers(0, 65535), st.sampled_from([".", "a.test", "192.0.2.1", *US]))))
def test_any_answer_gives_hosts_or_a_reason(records: list[tuple[int, str]]) -> None:
    answer = plan("example.test", found(*records), US, 25)
    assert isinstance(answer, Outcome) or answer.hosts


def test_hosts_of_one_preference_share_the_mail_and_are_alike() -> None:
    shared = route(Host("a", 25, 10), Host("b", 25, 10), Host("c", 25, 20))
    alone = route(Host("a", 25, 10), Host("b", 25, 20), Host("c", 25, 20))
    assert shared.is_spread
    assert not alone.is_spread
    assert shared.alike("a") == ["b"]
    assert alone.alike("a") == []
    assert alone.alike("b") == ["c"]
    assert alone.alike("elsewhere") == []


@pytest.mark.parametrize(
    ("domain", "host"), [("[192.0.2.1]", "192.0.2.1"), ("[IPv6:2001:db8::1]", "2001:db8::1")]
)
def test_an_address_literal_is_its_own_site(domain: str, host: str) -> None:
    assert literal(domain, 25) == Plan(domain, (Host(host, 25),))


def test_a_broken_address_literal_bounces() -> None:
    assert code(literal("[example]", 25)) == (Kind.BOUNCED, 550, "5.1.2")


@pytest.mark.parametrize(
    ("address", "answer"),
    [
        ("192.0.2.1", True),
        ("10.0.0.1", True),  # a private network is somebody's network
        ("2001:db8::1", True),
        ("127.0.0.2", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:198.51.100.7", False),
        ("0.0.0.0", False),
        ("::", False),
        ("224.0.0.1", False),
        ("ff02::1", False),
        ("169.254.1.1", False),
        ("fe80::1", False),
        ("198.51.100.7", False),
        ("mx1.test", False),
    ],
)
def test_strangers_cannot_point_us_at_ourselves(address: str, answer: bool) -> None:
    assert allowed(address, frozenset({"198.51.100.7"}), static=False) is answer
    assert allowed(address, frozenset({"198.51.100.7"}), static=True)


@pytest.mark.parametrize(
    ("addresses", "dialled"),
    [
        (("::2", "::3", "::4", "192.0.2.1"), ["::2", "192.0.2.1", "::3", "::4"]),
        (("192.0.2.1", "192.0.2.2", "::2"), ["192.0.2.1", "::2", "192.0.2.2"]),
        (("127.0.0.1", "192.0.2.1"), ["192.0.2.1"]),
    ],
)
def test_addresses_of_both_families_take_turns(addresses: tuple[str, ...], dialled: list[str]) -> None:
    assert dial(MX1, AddressAnswer(Status.FOUND, addresses), frozenset(), static=False) == dialled


@pytest.mark.parametrize(
    ("answer", "static", "expected"),
    [
        (AddressAnswer(Status.TROUBLE), False, (Kind.DEFERRED, 451, "4.4.3")),
        (AddressAnswer(Status.NXDOMAIN), False, (Kind.BOUNCED, 550, "5.4.4")),
        (AddressAnswer(Status.NODATA), False, (Kind.BOUNCED, 550, "5.4.4")),
        (AddressAnswer(Status.NXDOMAIN), True, (Kind.DEFERRED, 451, "4.4.4")),
        (AddressAnswer(Status.FOUND, ("127.0.0.1", "::1")), False, (Kind.BOUNCED, 554, "5.4.6")),
    ],
)
def test_a_host_without_a_usable_address_is_an_outcome(
    answer: AddressAnswer, static: bool, expected: tuple[Kind, int, str]
) -> None:
    outcome = dial(MX1, answer, frozenset(), static)
    assert code(outcome) == expected
    assert isinstance(outcome, Outcome)
    assert (outcome.host, outcome.scope) == ("mx1.test", Scope.HOST)
