"""Providers by their MX hosts: those that come with us, and the rules of matching."""

from __future__ import annotations

import pytest

from mta.config.providers import load
from mta.core.route.provider import Provider, Providers, complaints
from mta.core.route.routing import Host
from mta.core.route.terms import Terms

SHIPPED = load({})
EXAMPLES = [(name, host) for name, profile in SHIPPED.by_name.items() for host in profile.examples]


def hosts(*names: str) -> list[Host]:
    """Each one preference further than the one before."""
    return [Host(name, 25, 10 * at) for at, name in enumerate(names)]


@pytest.mark.parametrize(("name", "host"), EXAMPLES)
def test_every_shipped_example_comes_to_its_provider_and_to_no_other(name: str, host: str) -> None:
    found = SHIPPED.match(hosts(host), "customer.test")
    assert found is not None
    assert found.provider.name == name
    others = [profile for profile in SHIPPED.by_name.values() if profile.name != name]
    assert Providers(others).match(hosts(host), "customer.test") is None


def test_the_shipped_profiles_are_many_and_sound() -> None:
    assert len(SHIPPED.by_name) >= 90
    assert list(complaints(list(SHIPPED.by_name.values()))) == []


@pytest.mark.parametrize(
    ("domain", "mx", "name"),
    [
        ("gmail.com", "gmail-smtp-in.l.google.com", "google"),
        ("hotmail.com", "hotmail-com.olc.protection.outlook.com", "microsoft"),
        ("contoso.com", "contoso-com.mail.protection.outlook.com", "office365"),
        ("contoso.com", "contoso-com.a-v1.mx.microsoft", "office365"),
        ("aol.com", "mx-aol.mail.gm0.yahoodns.net", "yahoo"),
        ("yahoo.co.jp", "mx1.mail.yahoo.co.jp", "yahoo-japan"),
        ("shop.test", "mx.shop.test", None),
        ("shop.test", "notgoogle.com", None),
        ("shop.test", "google.com.shop.test", None),
        ("shop.test", "ec2-192-0-2-1.us-east-1.amazonaws.com", None),
    ],
)
def test_well_known_mx_hosts_and_some_that_only_look_so(domain: str, mx: str, name: str | None) -> None:
    found = SHIPPED.match(hosts(mx), domain)
    assert (found and found.provider.name) == name


ONE = Provider("one", Terms(), match=("one.test", "mx.first.test"), domains=("odd.test",))
TWO = Provider("two", Terms(), match=("two.test",))


@pytest.mark.parametrize(
    ("mx", "rule"),
    [
        ([("a.one.test", 10)], "match one.test"),
        ([("one.test", 10)], "match one.test"),
        ([("mx.first.test", 10)], "match mx.first.test"),
        ([("first.test", 10)], None),
        ([("none.test", 10)], None),
        ([("a.one.test", 10), ("b.one.test", 10)], "match one.test"),
        ([("a.one.test", 10), ("backup.test", 20)], "match one.test"),
        ([("backup.test", 20), ("a.one.test", 10)], "match one.test"),
        ([("a.one.test", 10), ("a.two.test", 10)], None),
        ([("a.one.test", 10), ("stranger.test", 10)], None),
        ([("stranger.test", 10), ("a.one.test", 20)], None),
        ([], None),
    ],
)
def test_all_hosts_of_the_best_preference_must_match(mx: list[tuple[str, int]], rule: str | None) -> None:
    found = Providers([ONE, TWO]).match([Host(name, 25, preference) for name, preference in mx], "x.test")
    assert (found and found.rule) == rule


def test_a_recipient_domain_that_is_named_comes_before_its_mx() -> None:
    found = Providers([ONE, TWO]).match(hosts("a.two.test"), "odd.test")
    assert found == (ONE, "domains odd.test")


def profile(name: str, *match: str, example: str = "", domains: tuple[str, ...] = ()) -> Provider:
    return Provider(name, Terms(), match, domains, (example,) if example else ())


@pytest.mark.parametrize(
    ("profiles", "told"),
    [
        ([profile("a", "a.test", example="mx.a.test")], []),
        ([profile("a", domains=("a.test",))], []),
        ([profile("a")], [("a", "can never match: give match, or domains")]),
        (
            [profile("A b", domains=("a.test",))],
            [("A b", "is no name: lower case, digits and single hyphens")],
        ),
        (
            [profile("a", "a.test", example="mx.b.test")],
            [
                ("a", "match a.test fits none of its examples: add a real MX host name"),
                ("a", "its example mx.b.test does not match it"),
            ],
        ),
        (
            [profile("a", "x.test", example="mx.x.test"), profile("b", "x.test", example="mx.x.test")],
            [
                ("b", "its example mx.x.test is taken by provider a"),
                ("b", "match x.test stands in provider a already"),
            ],
        ),
        (
            [profile("a", "m.x.test", example="m.x.test"), profile("b", "x.test", example="n.x.test")],
            [("b", "match x.test overlaps m.x.test of provider a")],
        ),
        (
            [profile("a", "x.test", example="m.x.test"), profile("b", "m.x.test", example="m.x.test")],
            [
                ("b", "match m.x.test takes the example m.x.test of provider a"),
                ("b", "match m.x.test overlaps x.test of provider a"),
            ],
        ),
        (
            [profile("a", "x.test", "m.x.test", example="m.x.test")],
            [("a", "match m.x.test overlaps x.test of provider a")],
        ),
        (
            [profile("a", domains=("d.test",)), profile("b", domains=("d.test",))],
            [("b", "the domain d.test is taken by provider a")],
        ),
    ],
)
def test_the_linter_tells_what_can_never_apply(profiles: list[Provider], told: list[tuple[str, str]]) -> None:
    assert list(complaints(profiles)) == told
