"""How well an adaptive path finds what a site takes: many hostile sites, hours each, in virtual time.

Between: `make bench-throttle`; the sites are those of `benchmarks/peers/hidden.py`, the sender that of
    `tests/fakes`.
Contract: one line for each site: what is allowed (recipients a second), what was found, the mean delivered
    and the refused share in the second half, the mean delivered in the first ten minutes, minutes until ten
    minutes brought 85 %, seconds until `MANY` messages were out, all refusals. What weather refuses is not
    counted. Shares are of what is allowed. One PNG each: the rate that was learned, what was delivered and
    the hidden limit; refusals below. Last, one line over all.
Raises: exit status 1 where less than 90 % of what is allowed comes, in the mean of all second halves, or less
    than 80 % in one, or more than 1 % is refused in their mean.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib import pyplot

from benchmarks.peers.hidden import HOUR, MANY, Case, cases
from mta.core.limits.adaptive import Branch
from tests.fakes.sender import Minute, Sender

FOUND = 0.85  # of what is allowed: so much in ten minutes is found
USED = 0.90  # of what is allowed, over all kinds, at least
LEAST = 0.80  # of each kind
REFUSED = 0.01  # of the attempts, over all kinds, at most
COLUMNS = (
    "site", "allowed", "found", "delivered %", "refused %", "first ten min %", "after min", f"{MANY} after s",
    "refused", "dials", "blocks", "took s",
)  # fmt: skip


class Met(NamedTuple):
    """What came of one case; shares of its second half."""

    name: str
    share: float  # of what is allowed, and delivered by nature
    refused: float
    many: float | None  # seconds
    line: str

    @property
    def is_missed(self) -> bool:
        return self.share < LEAST

    @property
    def is_told(self) -> bool:
        return self.is_missed or self.refused > REFUSED


def meet(case: Case) -> tuple[Sender, float | None]:
    """A day of it, and how many seconds the first messages took, where that is asked."""
    limit, took = case.site.limit, None
    sender = Sender(Branch(*case.bounds), case.site, batch=case.load.batch, offered=case.load.offered)
    if case.many:
        while sender.delivered < case.many and sender.now < case.hours * HOUR / 2:
            sender.run(sender.now + 1.0)
        took = sender.now if sender.delivered >= case.many else math.inf
    sender.run(case.hours * HOUR / 2)
    if limit is not None:
        limit.rate *= case.factor
    sender.run(case.hours * HOUR)
    return sender, took


def measure(case: Case, directory: Path) -> Met:
    began = time.perf_counter()
    sender, many = meet(case)
    took = time.perf_counter() - began
    end = case.hours * HOUR
    half = end * (0.75 if case.factor != 1.0 else 0.5)
    delivered, refused = sender.throughput(half, end), sender.refusals(half, end)
    after = sender.found_at(end / 2 if case.factor != 1.0 else 0.0, FOUND * (1 - case.weather)) / 60
    cells = (
        case.name, f"{case.allowed:.3g}", f"{sender.path.rate:.3g}", f"{100 * delivered:.0f}",
        f"{100 * refused:.2f}", f"{100 * sender.throughput(0.0, 600.0):.0f}", f"{after:.0f}",
        "-" if many is None else f"{many:.0f}", f"{sender.refused}", f"{sender.dials_refused}",
        f"{case.site.blocks}", f"{took:.1f}",
    )  # fmt: skip
    draw(case, sender, directory / f"{case.name}.png")
    return Met(case.name, delivered / (1 - case.weather), refused, many, f"| {' | '.join(cells)} |")


def draw(case: Case, sender: Sender, file: Path) -> None:
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
    rates.legend(loc="lower right")  # to look for the best place takes long
    refusals.bar(times, [two.refused - one.refused for one, two in each], label="mail", width=1.0)
    refusals.bar(
        times, [two.dials_refused - one.dials_refused for one, two in each], label="dials", width=1.0
    )
    refusals.set(ylabel="refused / min", xlabel="minutes")
    refusals.legend(loc="upper right")
    figure.savefig(file, dpi=80)
    pyplot.close(figure)


def verdict(met: Sequence[Met]) -> bool:
    """Over all kinds, in one line, after one for each that is worse than all may be together."""
    for each in met:
        if each.is_told:
            print(f"{each.name}: {each.share:.1%} of what is allowed, {each.refused:.2%} refused")
    share = sum(min(each.share, 1.0) for each in met) / len(met)
    refused = sum(each.refused for each in met) / len(met)
    least, most = min(met, key=lambda each: each.share), max(met, key=lambda each: each.refused)
    print(
        f"share of what is allowed over all {len(met)} kinds: {share:.1%}, "
        f"least {least.share:.1%} ({least.name}); refused beside the weather: {refused:.2%}, "
        f"most {most.refused:.2%} ({most.name})"
    )
    return share >= USED and least.share >= LEAST and refused <= REFUSED


def _play(job: tuple[Case, Path]) -> Met:
    return measure(*job)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp/mta-throttle"), help="for the plots")
    parser.add_argument("--only", default="", help="sites whose name has this in it")
    parser.add_argument("--jobs", type=int, default=1, help="processes (%(default)s)")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    matplotlib.use("Agg")
    jobs = [(case, options.directory) for case in cases() if options.only in case.name]
    if not jobs:
        parser.error(f"no site has {options.only} in its name")
    print(f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|", sep="\n")
    met = []
    with multiprocessing.Pool(options.jobs) as pool:
        for each in pool.imap(_play, jobs):
            met.append(each)
            print(each.line + (" MISSED" if each.is_missed else ""), flush=True)
    print(f"plots: {options.directory}")
    return 0 if verdict(met) else 1


if __name__ == "__main__":
    sys.exit(main())
