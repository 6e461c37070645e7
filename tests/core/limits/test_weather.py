"""Some mail is refused as too fast whatever its speed: one organisation's rule, one bad host, a mood."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from mta.core.limits.adaptive import Branch
from mta.core.limits.level import Bounds
from tests.fakes.sender import Sender
from tests.fakes.sites import Bucket, Fixed, Limit, Site, Sliding

MINUTE = 60.0  # seconds
HOUR = 3600.0
PATHS = {  # as they are shipped
    "office365": lambda: Branch(Bounds(1 / 60, 80 / 60, math.inf), Bounds(1.0, 5.0, 50.0)),
    "unlimited": lambda: Branch(Bounds(1 / 60, math.inf, math.inf), Bounds(1.0, 20.0, 20.0)),
}


@pytest.mark.parametrize("weather", [0.001, 0.01, 0.1])
@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize(
    ("demand", "batch", "start_up"),
    [(600.0, 1, 10 * MINUTE), (5000.0, 5, 20 * MINUTE)],
    ids=["600/min", "5000/min"],
)
def test_refusals_that_have_nothing_to_do_with_speed_do_not_slow_it_down(
    kind: str, demand: float, batch: int, start_up: float, weather: float
) -> None:
    met = Sender(PATHS[kind](), Site(weather=weather, latency=0.3), batch=batch, offered=demand / MINUTE)
    met.run(start_up)
    before = met.delivered
    met.run(start_up + 10 * MINUTE)
    assert met.delivered - before >= 0.9 * 10 * demand


LIMITS: dict[str, Callable[[float], Limit]] = {
    "a bucket of ten seconds": lambda rate: Bucket(rate, 10.0),
    "a fixed minute": lambda rate: Fixed(rate, MINUTE),
    "a sliding minute": lambda rate: Sliding(rate, MINUTE),
}


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_is_found_in_bad_weather_too(kind: str, limit: str) -> None:
    met = Sender(PATHS[kind](), Site(LIMITS[limit](300 / MINUTE), weather=0.01, latency=0.3))
    met.run(HOUR)
    assert met.throughput(HOUR / 2, HOUR) >= 0.8
    assert met.refusals(HOUR / 2, HOUR) <= 0.02


@pytest.mark.parametrize("weather", [0.01, 0.1])
def test_the_share_that_is_refused_at_any_speed_is_told_once(weather: float) -> None:
    met = Sender(PATHS["unlimited"](), Site(weather=weather, latency=0.3), offered=10.0)
    met.run(HOUR)
    told = [change.reason for _, change in met.changes if "at any speed" in change.reason]
    assert len(told) == 1
    assert told[0].endswith("are refused at any speed: it is not about ours")


def test_what_is_refused_about_once_in_a_thousand_leaves_no_mark() -> None:
    met = Sender(PATHS["office365"](), Site(weather=0.001, latency=0.3), offered=5.0)
    met.run(2 * HOUR)
    assert met.delivered >= 0.97 * 2 * HOUR * 5.0
