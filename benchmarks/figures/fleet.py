"""Servers with limits that nobody told us: how much of them is used, how often are they broken?

Between: `make bench-fleet`; README.md explains the table. The servers are `receiver.py`, in a network of
    their own; the daemon has shipped defaults and finds them by DNS.
Contract: more mail than a limited server takes is offered to it all the time, one message in eight of it
    transactional. Figures are the servers' own, of the whole run and of each half.
Raises: exit status 1 when a bound is missed, 2 when a run could not be made.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks import cpu
from benchmarks.figures import relay
from benchmarks.figures.full import Verdict
from benchmarks.load import flow
from benchmarks.load.flow import Flow, Mail
from benchmarks.namespace import Network, network
from benchmarks.peers.limits import FLEET, Terms, some
from benchmarks.process import PATIENCE, Broken, Process
from tests.fakes.dns import NameServer

ROOT = Path(__file__).resolve().parents[2]
TICK = 0.05  # seconds
SESSIONS = {"bulk": 12, "transactional": 4}
URGENT = 8  # one message of so many is transactional
NEW = 10  # one recipient of so many is new
USED = 0.85  # of what the limits allow, first minute included, at least
REFUSED = 0.02  # of the attempts, at most
LISTENING = 0.90  # of what is sent to a provider's tenants beside a deaf one, at least
SETTINGS = (
    flow.SETTINGS
    + """\
dns:
  servers: ["{dns}"]
providers: {providers}
"""
)
COLUMNS = {
    "server": "",
    "limit": "",
    "allowed": ".0f",  # messages
    "delivered": ".0f",
    "share": ".0%",  # of what was allowed
    "share_1": ".0%",  # the same, first half
    "share_2": ".0%",
    "refused_1": ".2%",  # of the attempts
    "refused_2": ".2%",
    "dials": "",  # connections that were let in
    "most": "",  # of them at once
    "urgent": ".0%",  # of the transactional mail of the second half
    "age_p50": ".2f",  # seconds, of that which came
}
Books = list[dict[str, Any]]


def zone(place: Network, fleet: Sequence[Terms]) -> dict[tuple[str, str], list[str]]:
    """Each server is the MX of its domains; hosts have a name each, and one preference."""
    found: dict[tuple[str, str], list[str]] = {}
    addresses = iter(place.addresses)
    for terms in fleet:
        hosts = [next(addresses) for _ in range(terms.hosts)]
        for domain in terms.domains:
            names = [
                terms.exchange(domain) if n == 0 else f"mx{n}.{terms.name}.test" for n in range(terms.hosts)
            ]
            found[domain, "MX"] = [f"10 {name}." for name in names]
            found |= {(name, "A"): [address] for name, address in zip(names, hosts, strict=True)}
    return found


def providers(fleet: Sequence[Terms]) -> str:
    """As the settings have it: who hosts many domains is known by the names of their MX."""
    return json.dumps(
        {
            terms.name: {"match": [f"{terms.name}.test"], "examples": [terms.exchange(terms.domains[0])]}
            for terms in fleet
            if terms.tenants
        }
    )


class Load:
    """Mail for every server, each at its own rate."""

    def __init__(self, flows: dict[str, Flow], fleet: Sequence[Terms]) -> None:
        self._flows = flows
        self._sent = dict.fromkeys(fleet, 0)

    async def run(self, seconds: float) -> None:
        began = time.monotonic()
        while (elapsed := time.monotonic() - began) < seconds:
            for terms in self._sent:
                while self._sent[terms] < elapsed * terms.offered:
                    self._send(terms, self._sent[terms])
                    self._sent[terms] += 1
            for each in self._flows.values():
                each.check()
            await asyncio.sleep(TICK)

    def _send(self, terms: Terms, n: int) -> None:
        domain = terms.domains[n % len(terms.domains)]
        local = f"new{n}" if n % NEW == 0 else f"user{n % 200}"
        stream = "transactional" if n % URGENT == 0 else "bulk"
        self._flows[stream].add(Mail(f"{stream[0]}.{time.monotonic():.3f}@src0.test", f"{local}@{domain}"))


@asynccontextmanager
async def receivers(
    place: Network, fleet: Sequence[Terms], seconds: float
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The servers' process, ready to begin."""
    names = ",".join(terms.name for terms in fleet)
    argv = [sys.executable, "-m", "benchmarks.peers.receiver", str(seconds), names, *place.addresses]
    process = await asyncio.create_subprocess_exec(
        *place.argv(argv),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        limit=1 << 20,
    )
    try:
        if await _line(process) != b"ready\n":
            raise Broken("the receiving servers did not start")
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _line(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    return await asyncio.wait_for(process.stdout.readline(), PATIENCE)


async def run(
    home: Path, place: Network, fleet: Sequence[Terms], seconds: float
) -> tuple[Books, dict[str, float]]:
    """The servers' books, and what the daemon cost."""
    listen = relay.free_ports(1)[0]
    async with AsyncExitStack() as stack:
        names = await stack.enter_async_context(NameServer(zone(place, fleet)))
        (home / "mta.yaml").write_text(
            SETTINGS.format(home=home, listen=listen, dns=names.endpoint, providers=providers(fleet))
        )
        flow.credentials(home)
        argv = [sys.executable, "-m", "mta", "--config", str(home / "mta.yaml"), "serve"]
        servers = await stack.enter_async_context(receivers(place, fleet, seconds))
        daemon = Process(argv, listen, home / "mta.log")
        await asyncio.to_thread(daemon.__enter__)
        stack.push_async_callback(asyncio.to_thread, daemon.__exit__)
        flows = {
            stream: await stack.enter_async_context(Flow(listen, stream, sessions))
            for stream, sessions in SESSIONS.items()
        }
        assert servers.stdin is not None
        servers.stdin.write(b"\n")
        if await _line(servers) != b"began\n":
            raise Broken("the receiving servers cannot listen")
        spent, began = cpu.spent(daemon.pid), time.monotonic()
        await Load(flows, fleet).run(seconds)
        cost = {
            "cpu": (cpu.spent(daemon.pid) - spent) / (time.monotonic() - began),
            "pss_mb": cpu.proportional_memory(daemon.pid) / 1e6,
        }
        books = [json.loads(await _line(servers)) for _ in fleet]
        _tell_flows(flows)
    return books, cost


def _tell_flows(flows: dict[str, Flow]) -> None:
    for stream, each in flows.items():
        relay.tell(f"{stream}: {each.accepted} messages were accepted")
        if each.turned_away:
            relay.tell(f"{stream}: {each.turned_away} were not even sent, the daemon was too slow")
        for reply, times in each.refused.items():
            relay.tell(f"{stream}: {times} were refused: {reply}")


def row(terms: Terms, books: dict[str, Any], half: float) -> relay.Row:
    """One server's line in the table."""
    shares = [part / whole for part, whole in zip(books["delivered"], books["allowed"], strict=True)]
    broken = [no / max(tries, 1) for no, tries in zip(books["refused"], books["attempts"], strict=True)]
    return {
        "server": terms.name,
        "limit": terms.says,
        "allowed": sum(books["allowed"]),
        "delivered": sum(books["delivered"]),
        "share": sum(books["delivered"]) / sum(books["allowed"]),
        "share_1": shares[0],
        "share_2": shares[1],
        "refused_1": broken[0],
        "refused_2": broken[1],
        "dials": sum(books["connections"]),
        "most": books["peak"],
        "urgent": books["urgent"][1] / (terms.offered / URGENT * half),
        "age_p50": books["age_p50"],
    }


def verdicts(fleet: Sequence[Terms], books: Books) -> Iterator[Verdict]:
    """What the whole run says to the bounds."""

    def total(what: str) -> float:
        return float(sum(sum(each[what]) for each in books))

    # A server that gets all of its mail makes up for no other.
    came = sum(min(sum(each["delivered"]), sum(each["allowed"])) for each in books)
    used = came / total("allowed")
    yield Verdict("used of what the limits allow, at least", used, USED, used >= USED)
    broken = total("refused") / max(total("attempts"), 1.0)
    yield Verdict("refused of the attempts, at most", broken, REFUSED, broken <= REFUSED)
    for terms, each in zip(fleet, books, strict=True):
        if terms.deaf:
            share = sum(each["delivered"]) / sum(each["allowed"])
            name = f"{terms.name}, came to those that listen, at least"
            yield Verdict(name, share, LISTENING, share >= LISTENING)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.figures.fleet", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=12.0, help="even: windows are minutes (%(default)s)")
    parser.add_argument("--only", default="", help=f"some of {','.join(terms.name for terms in FLEET)}")
    parser.add_argument("--directory", type=Path, default="/var/tmp", help="on a real disk (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one object a server; the table goes to stderr")
    args = parser.parse_args()
    seconds = args.minutes * 60.0
    names = args.only.split(",") if args.only else [terms.name for terms in FLEET]
    if unknown := {*names} - {terms.name for terms in FLEET}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    fleet = some(names)

    def benchmark(home: Path) -> int:
        with network(sum(terms.hosts for terms in fleet)) as place, flow.explained(home / "mta.log"):
            books, cost = asyncio.run(run(home, place, fleet, seconds))
        rows = [row(terms, each, seconds / 2) for terms, each in zip(fleet, books, strict=True)]
        out = sys.stderr if args.json else sys.stdout
        found = list(verdicts(fleet, books))
        print(relay.table(rows, COLUMNS), "", *found, sep="\n", file=out)
        print(f"the daemon used {cost['cpu']:.0%} of a processor and {cost['pss_mb']:.0f} MB", file=out)
        if args.json:
            print("\n".join(json.dumps(each) for each in [*books, cost]))
        return 0 if all(verdict.passed for verdict in found) else 1

    return relay.in_directory(args.directory, benchmark)


if __name__ == "__main__":
    sys.exit(main())
