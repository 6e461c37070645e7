"""How well an adaptive path finds what a site takes: many hostile sites, hours each, in virtual time.

Between: `make bench-throttle`; the sites and the sender are those of `tests/fakes`.
Contract: one line for each site: its limit (recipients a second, or connections), what was found, the mean
    delivered and the refused share in the second half, the mean delivered in the first ten minutes, minutes
    until ten minutes brought 85 %, all refusals. `default` sites meet a path as it is shipped.
    One PNG each: the rate that was learned, what was delivered and the hidden limit; refusals below.
Raises: exit status 1 where a second half, or the first ten minutes of a `default` site, bring less than 85 %,
    or more than 2 % of a second half is refused.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Branch as File
from typing import NamedTuple

import matplotlib
from matplotlib import pyplot

from mta.core.limits.adaptive import Branch
from mta.core.limits.level import Bounds
from tests.fakes.sender import Minute, Sender
from tests.fakes.sites import Bucket, Fixed, Limit, Site, Sliding, Temper

HOUR = 3600.0
WEATHER = {"defers": 0.07, "says_421": 0.01, "hangs_up": 0.01}
NOISE = {"defers": 0.03, "latency": 0.06}
SHIPPED, SHIPPED_WINDOW = 5.0, Bounds(1.0, 2.0, 20.0)
ENOUGH, FEW = 0.85, 0.02


class Case(NamedTuple):
    """One site, and how we begin there."""

    name: str
    site: Site
    hours: float
    start: float = 1 / 20  # of the limit
    factor: float = 1.0  # the limit changes by, in the middle
    weather: float = 0.0  # share of mail that is not delivered by nature
    window: Bounds = Bounds(1.0, 1.0, 100.0)

    @property
    def is_default(self) -> bool:
        return self.window is SHIPPED_WINDOW


KINDS: dict[str, Callable[[float], Limit]] = {
    "bucket-1s": lambda rate: Bucket(rate, 1.0),
    "bucket-60s": lambda rate: Bucket(rate, 60.0),
    "minute": lambda rate: Fixed(rate, 60.0),
    "sliding": lambda rate: Sliding(rate, 60.0),
}


def cases() -> Iterator[Case]:
    yield from default_cases()
    for kind, limit in KINDS.items():
        for rate in (0.2, 1.0, 10.0, 100.0, 500.0):
            for start in (1 / 20, 20.0):
                yield Case(f"{kind}-{rate:g}-from-{start:g}", Site(limit(rate)), 3.0, start)
        for factor in (0.5, 2.0):
            yield Case(f"{kind}-10-times-{factor:g}", Site(limit(10.0)), 3.0, factor=factor)
        for by_rule in (True, False):
            name = f"{kind}-10-weather-{'rule' if by_rule else 'guess'}"
            yield Case(name, Site(limit(10.0), by_rule=by_rule, **WEATHER), 3.0, weather=0.09)
    for rate in (0.2, 1.0, 10.0):
        yield Case(f"hour-{rate:g}", Site(Fixed(rate, HOUR)), 12.0)
    for rate in (1.0, 10.0):
        for start in (1 / 20, 4.0, 20.0):
            five, three = Temper(5, 300.0, 600.0), Temper(3, 60.0, 600.0)
            yield Case(f"punish5-{rate:g}-from-{start:g}", Site(Bucket(rate, 5.0), temper=five), 6.0, start)
            yield Case(f"punish3-{rate:g}-from-{start:g}", Site(Fixed(rate, 60.0), temper=three), 8.0, start)
    for latency, rate in ((10.0, 2.0), (30.0, 1.0)):
        yield Case(f"tarpit-{latency:g}s-{rate:g}", Site(Bucket(rate, 10.0), latency=latency), 2.0)
    for most in (1, 5, 20, 50):
        yield Case(f"connections-{most}", Site(Bucket(most * 0.9, 10.0), connections=most, latency=1.0), 2.0)
    both = Site(Fixed(50.0, 60.0), connections=25, latency=0.35, per_connection=20)
    yield Case("minute-50-connections-25-messages-20", both, 2.0)


def default_cases() -> Iterator[Case]:
    """Nobody has been asked before, and nothing is configured."""
    for kind, limit in KINDS.items():
        for rate in (1.0, 8.0, 20.0, 30.0):
            site = Site(limit(rate), latency=0.06)
            yield Case(f"default-{kind}-{rate:g}", site, 1.0, SHIPPED / rate, window=SHIPPED_WINDOW)
    for name, share in (("says", {"says_421": 0.02}), ("hangs-up", {"hangs_up": 0.02})):
        site = Site(Bucket(20.0, 1.0), **NOISE, **share)
        yield Case(f"default-noise-{name}", site, 1.0, SHIPPED / 20.0, weather=0.05, window=SHIPPED_WINDOW)


def meet(case: Case) -> Sender:
    limit = case.site.limit
    assert limit is not None
    path = Branch(Bounds(1 / 60, limit.rate * case.start, math.inf), case.window)
    single = case.site.connections or case.is_default
    sender = Sender(path, case.site, batch=1 if single else max(1, int(limit.rate / 20)))
    sender.run(case.hours * HOUR / 2)
    limit.rate *= case.factor
    sender.run(case.hours * HOUR)
    return sender


def draw(case: Case, sender: Sender, file: File) -> None:
    """Above: rates; below: refusals, mail and dials."""
    rows = sender.minutes
    times = [row.time / 60 for row in rows[1:]]
    each: list[tuple[Minute, Minute]] = list(pairwise(rows))
    figure, (rates, refusals) = pyplot.subplots(
        2, 1, sharex=True, figsize=(10, 6), height_ratios=(3, 1), layout="constrained"
    )
    rates.plot(times, [two.limit for _, two in each], "k--", label="hidden limit")
    rates.plot(times, [(two.delivered - one.delivered) / 60 for one, two in each], label="delivered")
    rates.plot(times, [two.rate for _, two in each], label="learned rate")
    rates.set(yscale="log", ylabel="recipients / s", title=case.name)
    rates.legend()
    refusals.bar(times, [two.refused - one.refused for one, two in each], label="mail", width=1.0)
    refusals.bar(
        times, [two.dials_refused - one.dials_refused for one, two in each], label="dials", width=1.0
    )
    refusals.set(ylabel="refused / min", xlabel="minutes")
    refusals.legend()
    figure.savefig(file, dpi=80)
    pyplot.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--directory", type=File, default=File("/var/tmp/mta-throttle"), help="for the plots")
    parser.add_argument("--only", default="", help="sites whose name has this in it")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    matplotlib.use("Agg")
    print(
        "| site | limit | found | delivered % | refused % | first ten min % | after min | refused | dials "
        "| blocks | took s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    missed = 0
    for case in cases():
        if options.only not in case.name:
            continue
        began = time.perf_counter()
        sender = meet(case)
        took = time.perf_counter() - began
        end = case.hours * HOUR
        half = end * (0.75 if case.factor != 1.0 else 0.5)
        share, refused = sender.throughput(half, end), sender.refusals(half, end)
        enough, first = ENOUGH * (1 - case.weather), sender.throughput(0.0, 600.0)
        after = sender.found_at(end / 2 if case.factor != 1.0 else 0.0, enough) / 60
        bad = share < enough or refused > FEW or (case.is_default and first < enough)
        missed += bad
        assert case.site.limit is not None
        print(
            f"| {case.name} | {case.site.limit.rate:g} | {sender.path.rate:.3g} | {100 * share:.0f} "
            f"| {100 * refused:.2f} | {100 * first:.0f} | {after:.0f} | {sender.refused} "
            f"| {sender.dials_refused} | {case.site.blocks} | {took:.1f} |{' MISSED' if bad else ''}",
            flush=True,
        )
        draw(case, sender, options.directory / f"{case.name}.png")
    print(f"plots: {options.directory}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
