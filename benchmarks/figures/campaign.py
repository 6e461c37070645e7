"""A campaign to thousands of domains of which some are dead, mute, broken or slow, beside Postfix.

Between: whoever runs `make bench-campaign`; the sites and their names are `peers.multitude`, in a network of
    their own.
Contract: each MTA in turn takes the same messages as fast as it accepts them, four to a domain. A run ends
    when all that can be delivered has been, or its time is over. Figures: seconds until 99 % of the mail to
    domains that are well was there, and all that has a door; deliveries by kind of domain; processor seconds,
    most connections (being dialled, too), most memory, of the whole tree of processes.
Raises: exit status 1 where ours delivers less than Postfix, 2 when a run could not be made.
Standards: RFC 2544 C.2.2 (198.18.0.0/15 is for benchmarks).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks import cpu
from benchmarks.figures import relay
from benchmarks.load import flow
from benchmarks.load.flow import Flow, Mail
from benchmarks.namespace import Network, network
from benchmarks.peers import multitude, postfix
from benchmarks.process import PATIENCE, Broken, Process

ROOT = Path(__file__).resolve().parents[2]
NAMES = "127.0.0.53"
SESSIONS = 20
LOOK = 0.5  # seconds
SETTINGS = (
    flow.SETTINGS
    + """\
dns:
  servers: ["{names}:53"]
"""
)
COLUMNS = {
    "mta": "", "well_s": ".0f", "all_s": ".0f", "well": ".1%", "tls": ".1%", "slow": ".1%", "accept_s": ".1f",
    "cpu_s": ".1f", "connections": ".0f", "pss_mb": ".0f", "other": ".0%",
}  # fmt: skip


class Seen(NamedTuple):
    """One look at a run."""

    seconds: float
    taken: Counter[str]  # deliveries by kind
    connections: int
    memory: int  # octets


def ours(listen: int, home: Path) -> list[str]:
    (home / "mta.yaml").write_text(SETTINGS.format(home=home, listen=listen, names=NAMES))
    flow.credentials(home)
    return [sys.executable, "-m", "mta", "--config", str(home / "mta.yaml"), "serve"]


def theirs(listen: int, home: Path) -> list[str]:
    """Postfix reads its name servers from a file in /etc, which is another one for it alone."""
    (home / "resolv.conf").write_text(f"nameserver {NAMES}\n")
    bound = f'mount --bind {home}/resolv.conf /etc/resolv.conf && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", bound, "sh", *postfix.by_names(listen, home)]


MTAS: dict[str, Callable[[int, Path], list[str]]] = {"ours": ours, "postfix": theirs}


@contextmanager
def multitude_of_sites(place: Network) -> Iterator[None]:
    """Every address of the network is answered for, but for the dead ones', where silence is."""
    gateway, door = f"{place.addresses[0].rsplit('.', 1)[0]}.1", place.addresses[0]
    inside = ["ip", "-n", place.name]
    dead = "198.19.128.0/17"
    _do("ip", "route", "add", multitude.NETWORK, "via", door)
    try:
        _do(*inside, "link", "set", "lo", "up")
        _do(*inside, "route", "add", "local", multitude.NETWORK, "dev", "lo")
        _do(*inside, "route", "add", "blackhole", dead)
        _do(*inside, "route", "del", "local", multitude.NETWORK, "dev", "lo")
        _do(*inside, "route", "add", "local", "198.19.0.0/17", "dev", "lo")
        _do(*inside, "route", "replace", "default", "via", gateway)
        yield
    finally:
        subprocess.run(["ip", "route", "del", multitude.NETWORK], capture_output=True, timeout=PATIENCE)


def _do(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode:
        raise Broken(f"{' '.join(argv)}: {done.stderr.strip()}")


@asynccontextmanager
async def peer(*argv: str, place: Network | None = None) -> AsyncIterator[asyncio.StreamReader]:
    """One half of the multitude; what it prints."""
    command = [sys.executable, "-m", "benchmarks.peers.multitude", *argv]
    process = await asyncio.create_subprocess_exec(
        *(place.argv(command) if place else command),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if not await asyncio.wait_for(process.stdout.readline(), PATIENCE):
            raise Broken("the sites, or their name server, did not start")
        yield process.stdout
    finally:
        process.stdin.close()
        await process.wait()


async def run(mta: str, home: Path, place: Network, messages: int, domains: int, seconds: float) -> relay.Row:
    """One MTA's campaign."""
    listen = relay.free_ports(1)[0]
    wanted = Counter(multitude.kind(n % domains) for n in range(messages))
    async with peer(NAMES), peer(place=place) as told:
        daemon = Process(MTAS[mta](listen, home), listen, home / "mta.log")
        await asyncio.to_thread(daemon.__enter__)
        try:
            spent, tools, busy = cpu.spent(daemon.pid), cpu.own_and_ended(), cpu.machine_busy()
            began = time.monotonic()
            async with Flow(listen, "bulk", SESSIONS) as sources:
                feeding = asyncio.create_task(_feed(sources, messages, domains))
                seen = [one async for one in _looks(told, daemon.pid, wanted, seconds)]
                accepted = await feeding - began
            took = time.monotonic() - began
            cost = cpu.spent(daemon.pid) - spent
            others = cpu.machine_busy() - busy - cost - (cpu.own_and_ended() - tools)
        finally:
            await asyncio.to_thread(daemon.__exit__)
    last = seen[-1].taken
    doors = ("well", "tls", "slow")
    every = sum(wanted[each] for each in doors)
    return {
        "mta": mta,
        "well_s": _when(seen, lambda taken: taken["well"] >= 0.99 * wanted["well"]),
        "all_s": _when(seen, lambda taken: sum(taken[each] for each in doors) >= every),
        **{each: last[each] / wanted[each] for each in doors},
        "accept_s": accepted,
        "cpu_s": cost,
        "connections": max(one.connections for one in seen),
        "pss_mb": max(one.memory for one in seen) / 1e6,
        "other": max(others, 0.0) / (2 * took),
    }


async def _feed(sources: Flow, messages: int, domains: int) -> float:
    """All of them, as fast as they are taken; when the last was."""
    sent = 0
    while sources.accepted < messages:
        while sent < messages and sent - sources.accepted < 2 * SESSIONS:
            sources.add(Mail(f"news.{sent}@src0.test", f"user{sent // domains}@d{sent % domains}.test"))
            sent += 1
        sources.check()
        if sources.refused:
            raise Broken(f"refused: {dict(sources.refused)}")
        await asyncio.sleep(0.002)
    return time.monotonic()


async def _looks(
    told: asyncio.StreamReader, pid: int, wanted: Counter[str], seconds: float
) -> AsyncIterator[Seen]:
    """What the sites have, and what it costs, until all is there or the time is over."""
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        taken: Counter[str] = Counter(json.loads(await told.readline()))
        connections, memory = await asyncio.to_thread(_held, pid)
        yield Seen(passed, taken, connections, memory)
        if sum(taken.values()) >= sum(wanted[each] for each in ("well", "tls", "slow")):
            return


def _held(pid: int) -> tuple[int, int]:
    """Connections to port 25 that are dialled or open; memory."""
    argv = ["ss", "-Htn", "state", "syn-sent", "state", "established", "dport", "=", ":25"]
    lines = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE).stdout
    return lines.count("\n"), cpu.proportional_memory(pid)


def _when(seen: list[Seen], is_there: Callable[[Counter[str]], bool]) -> float | None:
    return next((one.seconds for one in seen if is_there(one.taken)), None)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.figures.campaign", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--mta", default=",".join(MTAS), help="some of %(default)s")
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--domains", type=int, default=5_000, help="at most 30,000 (%(default)s)")
    parser.add_argument("--seconds", type=float, default=300.0, help="for each, at most (%(default)s)")
    parser.add_argument("--directory", type=Path, default="/var/tmp", help="on a real disk (%(default)s)")
    args = parser.parse_args()

    def benchmark(home: Path) -> int:
        rows = []
        with network(1) as place, multitude_of_sites(place):
            for mta in args.mta.split(","):
                with relay.fresh(home) as own, flow.explained(own / "mta.log"):
                    rows.append(asyncio.run(run(mta, own, place, args.messages, args.domains, args.seconds)))
        print(relay.table(rows, COLUMNS))
        came = {
            str(row["mta"]): sum(float(row[each] or 0) for each in ("well", "tls", "slow")) for row in rows
        }
        return 0 if came.get("ours", 0.0) >= came.get("postfix", 0.0) else 1

    return relay.in_directory(args.directory, benchmark)


if __name__ == "__main__":
    sys.exit(main())
