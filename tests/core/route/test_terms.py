"""Layers of terms: who wins, value by value, and what follows for starts and ceilings."""

from __future__ import annotations

import math

import pytest

from mta.core.limits.level import Bounds
from mta.core.limits.throttle import Rate, SiteLimits
from mta.core.route.terms import Layer, Limit, Terms, overlay, resolve

BASE = Layer(
    "default",
    Terms(
        connections=20,
        connections_start=2,
        messages_per_connection=100,
        recipients_per_message=50,
        tls="opportunistic",
    ),
)


def origin(name: str, *layers: Layer) -> Limit:
    return next(limit for limit in resolve((BASE, *layers)).said if limit.name == name)


def test_one_layer_alone_is_what_holds() -> None:
    found = resolve((BASE,))
    assert found.limits == SiteLimits(20, 100, 50, None)
    assert found.bounds.connections == Bounds(1, 2, 20)
    assert found.bounds.rate == Bounds(1 / 60, math.inf, math.inf)
    assert not found.tls_required


def test_a_later_layer_wins_for_what_it_says_and_for_nothing_else() -> None:
    provider = Layer("provider p", Terms(connections=5, tls="required"), {"connections": "documented"})
    domain = Layer("destination d", Terms(recipients_per_message=1))
    assert origin("connections", provider, domain) == ("connections", 5, "provider p", "documented")
    assert origin("recipients_per_message", provider, domain) == (
        "recipients_per_message",
        1,
        "destination d",
        "",
    )
    assert origin("messages_per_connection", provider, domain).origin == "default"
    assert resolve((BASE, provider, domain)).tls_required


def test_a_start_is_never_above_the_ceiling_of_a_later_layer() -> None:
    tight = Layer("destination d", Terms(connections=1, rate=Rate(6, 60.0)))
    loose = Layer("provider p", Terms(rate_start=Rate(60, 60.0)))
    assert origin("connections_start", tight) == ("connections_start", 1, "destination d", "")
    assert origin("rate_start", loose, tight) == ("rate_start", Rate(6, 60.0), "destination d", "")
    assert resolve((BASE, loose, tight)).bounds.rate == Bounds(1 / 60, 0.1, 0.1)


def test_a_ceiling_below_one_a_minute_is_its_own_floor() -> None:
    slow = Layer("destination d", Terms(rate=Rate(10, 3600.0)))
    assert resolve((BASE, slow)).bounds.rate == Bounds(10 / 3600, 10 / 3600, 10 / 3600)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"connections": 2, "connections_start": 3}, "connections_start is above connections"),
        ({"rate": Rate(1, 1.0), "rate_start": Rate(61, 60.0)}, "rate_start is above rate"),
    ],
)
def test_a_start_above_the_ceiling_of_its_own_layer_is_refused(values: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Terms(**values)  # type: ignore[arg-type]


def test_an_overlay_keeps_what_it_does_not_say_and_holds_starts_down() -> None:
    base = Terms(connections=20, connections_start=5, tls="required")
    assert overlay(base, Terms(connections=3)) == Terms(connections=3, connections_start=3, tls="required")
    with pytest.raises(ValueError, match="connections_start is above connections"):
        overlay(base, Terms(connections_start=21))
