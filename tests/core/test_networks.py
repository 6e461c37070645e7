"""Whose network a client is in."""

from __future__ import annotations

import random
from ipaddress import ip_address, ip_network

import pytest

from mta.core.networks import Networks, parse_networks


def owners(*pairs: tuple[str, str]) -> Networks:
    return Networks((network, login) for text, login in pairs for network in parse_networks([text]))


@pytest.mark.parametrize(
    ("client", "found"),
    [
        ("10.1.2.3", ["host", "rack"]),
        ("::ffff:10.1.2.3", ["host", "rack"]),
        ("10.9.9.9", ["rack"]),
        ("2001:db8::7", ["six"]),
        ("2001:db9::7", []),
        ("11.0.0.1", []),
        ("::a01:203", []),  # the octets of 10.1.2.3, and another family
    ],
)
def test_the_most_specific_comes_first(client: str, found: list[str]) -> None:
    networks = owners(("10.0.0.0/8", "rack"), ("2001:db8::/32", "six"), ("10.1.2.3", "host"))
    assert [login for _, login in networks.find(client)] == found


def test_of_two_alike_the_first_counts() -> None:
    assert list(owners(("10.0.0.0/8", "a"), ("10.0.0.0/8", "b")).find("10.0.0.1")) == [("10.0.0.0/8", "a")]


def test_no_networks_and_no_address() -> None:
    assert list(Networks().find("10.0.0.1")) == []
    with pytest.raises(ValueError, match="does not appear to be"):
        list(Networks().find(""))


def test_agrees_with_a_search_through_all_of_them() -> None:
    dice = random.Random(7)
    networks = {ip_network((dice.getrandbits(32), dice.randint(8, 32)), strict=False) for _ in range(500)}
    found = Networks((network, str(network)) for network in networks)
    for _ in range(500):
        client = ip_address(dice.getrandbits(32))
        wanted = sorted((n for n in networks if client in n), key=lambda n: -n.prefixlen)
        assert [login for _, login in found.find(str(client))] == [str(n) for n in wanted]
