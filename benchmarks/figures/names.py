"""What a domain that nobody asked for yet costs: its MX records, and the addresses of its host.

Between: `make bench-names`. The name server is `peers.zone`, in a process of its own.
Contract: milliseconds of this process's CPU a domain, on uvloop, `AT_ONCE` domains under way; medians of
    `ROUNDS`, in which the library's stub resolver and ours take turns. Every answer is looked at.
Raises: exit status 1 when ours is not `FLOOR` times as cheap, 2 when a run could not be made.
Why: a campaign begins with questions for all its domains, on the loop that sends everybody's mail.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import dns.asyncresolver
import dns.resolver
import uvloop
from dns.nameserver import Do53Nameserver
from dns.rdatatype import RdataType

from benchmarks.figures.relay import Row, table, tell
from benchmarks.process import Broken
from mta.clock import SystemClock
from mta.config.settings import Dns, Endpoint
from mta.dns.resolver import Resolver

ROOT = Path(__file__).resolve().parents[2]
DOMAINS = 20_000  # in all rounds
ROUNDS = 9
AT_ONCE = 64
FLOOR = 8.0
SIX, FOUR = "2001:db8::1", "192.0.2.1"
COLUMNS = {"resolver": "", "ms": ".3f", "min": ".3f", "max": ".3f", "ratio": ".1f"}

Ask = Callable[[str], Awaitable[None]]


def library(port: int) -> Ask:
    """dnspython's stub resolver, with its cache."""
    stub = dns.asyncresolver.Resolver(configure=False)
    stub.nameservers = [Do53Nameserver("127.0.0.1", port)]
    stub.cache = dns.resolver.LRUCache(50_000)
    stub.use_edns(0, 0, 1232)

    async def ask(domain: str) -> None:
        mx = await stub.resolve(domain + ".", RdataType.MX)
        host = next(iter(mx)).exchange
        six, four = await asyncio.gather(stub.resolve(host, RdataType.AAAA), stub.resolve(host, RdataType.A))
        _check((next(iter(six)).address, next(iter(four)).address))

    return ask


def ours(port: int) -> Ask:
    """The resolver of the daemon."""
    resolver = Resolver(Dns((Endpoint("127.0.0.1", port),)), SystemClock())

    async def ask(domain: str) -> None:
        mx = await resolver.mx(domain)
        _check((await resolver.addresses(mx.records[0].exchange)).records if mx.records else ())

    return ask


def _check(addresses: tuple[str, ...]) -> None:
    if addresses != (SIX, FOUR):
        raise Broken(f"{addresses} is no answer: is the machine so busy that packets are lost?")


async def cost(ask: Ask, domains: Iterator[str], count: int) -> float:
    """Milliseconds a domain."""

    async def some() -> None:
        for domain in domains:
            await ask(domain)

    before = time.process_time()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(some())
    return (time.process_time() - before) / count * 1e3


@contextmanager
def zone() -> Iterator[int]:
    """Its port."""
    argv = [sys.executable, "-m", "benchmarks.peers.zone"]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, cwd=ROOT, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        yield int(server.stdout.readline())
        server.stdin.close()


async def measure(port: int, count: int) -> dict[str, list[float]]:
    """Milliseconds a domain of each round; every round has domains of its own."""
    ways = {"dnspython": library(port), "ours": ours(port)}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS):
        for name, ask in ways.items():
            domains = (f"d{number}-{n}.example" for n in range(count))
            found[name].append(await cost(ask, domains, count))
    return found


def rows(found: dict[str, list[float]]) -> list[Row]:
    """The medians; the ratio is that of the medians."""
    rival = median(found["dnspython"])
    return [
        {
            "resolver": name,
            "ms": median(times),
            "min": min(times),
            "max": max(times),
            "ratio": rival / median(times),
        }
        for name, times in found.items()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.figures.names", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--domains", type=int, default=DOMAINS, help="in all rounds (%(default)s)")
    args = parser.parse_args()
    try:
        with zone() as port:
            found = uvloop.run(measure(port, max(args.domains // ROUNDS, AT_ONCE)))
    except ExceptionGroup as errors:  # of the tasks that ask
        tell(str(errors.exceptions[0]))
        return 2
    told = rows(found)
    print(table(told, COLUMNS))
    ratio = median(found["dnspython"]) / median(found["ours"])
    if ratio < FLOOR:
        tell(f"FAIL: {ratio:.1f} times as cheap, at least {FLOOR:.0f} times is the floor")
    return int(ratio < FLOOR)


if __name__ == "__main__":
    sys.exit(main())
