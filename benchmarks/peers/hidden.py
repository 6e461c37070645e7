"""The kinds of hidden limits that `throttle` meets in virtual time, and what we begin with there.

Between: `throttle` plays each; `tests/test_docs.py` counts them. The sites are those of `tests/fakes`.
Contract: rates are recipients a second. A case is used once: its site has a memory. Where `offered` is given
    only so much mail comes, and all of it is allowed if the limit lets it; else mail never ends. `default`,
    `office365` and `unlimited` in a name are paths as they are shipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from mta.core.limits.level import Bounds
from mta.core.route.terms import BranchBounds
from tests.fakes.sites import Bucket, Fixed, Hosts, Limit, Site, Sliding, Temper

HOUR = 3600.0
FLOOR = 1 / 60
WEATHER = {"defers": 0.07, "says_421": 0.01, "hangs_up": 0.01}
NOISE = {"defers": 0.03, "latency": 0.06}
WEATHERS = (0.001, 0.01, 0.1)  # of the transactions
SHIPPED = BranchBounds(Bounds(FLOOR, 5.0, math.inf), Bounds(1.0, 2.0, 20.0))
PATHS = {
    "default": SHIPPED,
    "office365": BranchBounds(Bounds(FLOOR, 80 / 60, math.inf), Bounds(1.0, 5.0, 50.0)),
    "unlimited": BranchBounds(Bounds(FLOOR, math.inf, math.inf), Bounds(1.0, 20.0, 20.0)),
}
MANY = 20_000  # messages, of the limits far above the start


class Load(NamedTuple):
    """What is to be sent."""

    batch: int = 1  # recipients in a transaction
    offered: float = math.inf


ONE_BY_ONE = Load()


@dataclass(frozen=True)
class Case:
    """One site, and how we begin there."""

    name: str
    site: Site
    hours: float
    bounds: BranchBounds = SHIPPED
    load: Load = ONE_BY_ONE
    factor: float = 1.0  # the limit changes by, in the middle
    weather: float = 0.0  # share of mail that is not delivered by nature
    many: int = 0  # messages whose time is taken

    @property
    def allowed(self) -> float:
        """Recipients a second."""
        limit = math.inf if self.site.limit is None else self.site.limit.rate
        return min(limit, self.load.offered)


KINDS: dict[str, Callable[[float], Limit]] = {
    "bucket-1s": lambda rate: Bucket(rate, 1.0),
    "bucket-60s": lambda rate: Bucket(rate, 60.0),
    "minute": lambda rate: Fixed(rate, 60.0),
    "sliding": lambda rate: Sliding(rate, 60.0),
}


def cases() -> Iterator[Case]:
    yield from _unasked()
    yield from _weather()
    yield from _slow()
    yield from _far()
    yield from _hosts()
    yield from _from_elsewhere()
    yield from _angry()
    for latency, rate in ((10.0, 2.0), (30.0, 1.0)):
        yield _begun(f"tarpit-{latency:g}s-{rate:g}", Site(Bucket(rate, 10.0), latency=latency), 2.0)
    for most in (1, 5, 20, 50):
        yield _begun(
            f"connections-{most}", Site(Bucket(most * 0.9, 10.0), connections=most, latency=1.0), 2.0
        )
    both = Site(Fixed(50.0, 60.0), connections=25, latency=0.35, per_connection=20)
    yield _begun("minute-50-connections-25-messages-20", both, 2.0)


def _begun(
    name: str, site: Site, hours: float, start: float = 1 / 20, factor: float = 1.0, weather: float = 0.0
) -> Case:
    """We begin with a part, or a multiple, of the limit."""
    assert site.limit is not None
    rate = site.limit.rate
    bounds = BranchBounds(Bounds(FLOOR, rate * start, math.inf), Bounds(1.0, 1.0, 100.0))
    batch = 1 if site.connections else max(1, int(rate / 20))
    return Case(name, site, hours, bounds, Load(batch), factor, weather)


def _unasked() -> Iterator[Case]:
    """Nobody has been asked before, and nothing is configured."""
    for kind, limit in KINDS.items():
        for rate in (1.0, 8.0, 20.0, 30.0):
            yield Case(f"default-{kind}-{rate:g}", Site(limit(rate), latency=0.06), 1.0)
    for name, share in (("says", {"says_421": 0.02}), ("hangs-up", {"hangs_up": 0.02})):
        site = Site(Bucket(20.0, 1.0), **NOISE, **share)
        yield Case(f"default-noise-{name}", site, 1.0, weather=0.05)


def _weather() -> Iterator[Case]:
    """Refused in words of speed, at any speed; alone, and beside a limit."""
    for path, bounds in PATHS.items():
        for share in WEATHERS:
            for load in (Load(1, 10.0), Load(5, 5000 / 60)):
                name = f"weather-{share:.1%}-{path}-{load.offered:.3g}"
                yield Case(name, Site(weather=share, latency=0.3), 1.0, bounds, load)
        for kind, limit in KINDS.items():
            for share in WEATHERS if path != "unlimited" else WEATHERS[1:2]:
                site = Site(limit(5.0), weather=share, latency=0.3)
                yield Case(f"weather-{share:.1%}-{path}-{kind}-5", site, 2.0, bounds)


def _slow() -> Iterator[Case]:
    """Slow before it refuses."""
    for path in ("default", "office365"):
        for kind in ("bucket-1s", "minute"):
            for rate in (5.0, 20.0):
                site = Site(KINDS[kind](rate), latency=0.06, slows=10.0)
                yield Case(f"slow-{path}-{kind}-{rate:g}", site, 1.0, PATHS[path])


def _far() -> Iterator[Case]:
    """Far above the start."""
    for kind in ("bucket-1s", "minute"):
        for rate in (60.0, 110.0, 200.0):
            yield Case(f"far-{kind}-{rate:g}", Site(KINDS[kind](rate), latency=0.06), 0.5, many=MANY)


def _hosts() -> Iterator[Case]:
    """Limits of each host, alone and within one of the site."""
    for number in (2, 4):
        limit = Hosts([Bucket(20.0 / number, 10.0) for _ in range(number)])
        yield Case(f"hosts-{number}-bucket-10s-20", Site(limit, latency=0.06), 1.0)
    within = Hosts([Bucket(10.0, 10.0), Bucket(10.0, 10.0)], Sliding(15.0, 60.0))
    yield Case("hosts-2-bucket-10s-20-sliding-15", Site(within, latency=0.06), 1.0)


def _from_elsewhere() -> Iterator[Case]:
    """From far below, and far above; limits that change, weather of other words."""
    for kind, limit in KINDS.items():
        for rate in (0.2, 1.0, 10.0, 100.0, 500.0):
            for start in (1 / 20, 20.0):
                yield _begun(f"{kind}-{rate:g}-from-{start:g}", Site(limit(rate)), 3.0, start)
        for factor in (0.5, 2.0):
            yield _begun(f"{kind}-10-times-{factor:g}", Site(limit(10.0)), 3.0, factor=factor)
        for by_rule in (True, False):
            name = f"{kind}-10-weather-{'rule' if by_rule else 'guess'}"
            yield _begun(name, Site(limit(10.0), by_rule=by_rule, **WEATHER), 3.0, weather=0.09)
    for rate in (0.2, 1.0, 10.0):
        yield _begun(f"hour-{rate:g}", Site(Fixed(rate, HOUR)), 12.0)


def _angry() -> Iterator[Case]:
    """Shut for whoever does not listen."""
    for rate in (1.0, 10.0):
        for start in (1 / 20, 4.0, 20.0):
            five, three = Temper(5, 300.0, 600.0), Temper(3, 60.0, 600.0)
            yield _begun(f"punish5-{rate:g}-from-{start:g}", Site(Bucket(rate, 5.0), temper=five), 6.0, start)
            yield _begun(
                f"punish3-{rate:g}-from-{start:g}", Site(Fixed(rate, 60.0), temper=three), 8.0, start
            )
