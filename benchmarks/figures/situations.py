"""W8 among strangers: transactional mail to a healthy site, while another tenant's mail is in a bad way.

Between: `latency` prints the rows and holds its bound; README.md tells the situations.
Contract: milliseconds, as in `latency`. The servers are in a network of their own and the daemon finds them
    by DNS, with shipped settings but for the starts of `healthy` and `bulk` and the rate of `hosted`.
    `own_p99` is what is left where the peer's rate makes each message wait for its turn. Each situation is
    bounded, and ends what it started.
Raises: Broken when a situation could not be made, or as another user than root.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import uvloop

from benchmarks import cpu
from benchmarks.figures import relay
from benchmarks.load import flow
from benchmarks.load.backlog import Backlog, fill
from benchmarks.load.urgent import Arrivals, Peer, Sender, percentile
from benchmarks.namespace import Network, network
from benchmarks.process import Broken, Process
from tests.fakes.dns import Misfortune, NameServer, Question

ROOT = Path(__file__).resolve().parents[2]
WARM = 3.0  # seconds before the first that counts
SECONDS = 10.0
START = 60.0  # seconds
FLOOD = 60  # messages of `EACH` recipients: more than the daemon has in memory at once
EACH = 1000
FLOODED = 60.0  # seconds, at most
HOSTED = 20.0  # recipients a second, of the provider with tenants
SETTINGS = (
    flow.SETTINGS
    + """\
dns:
  servers: ["{dns}"]
providers:
  healthy:
    {{match: [healthy.test], examples: [mx.healthy.test], connections_start: 20, rate_start: 60000/min}}
  bulk: {{match: [bulk.test], examples: [mx.bulk.test], connections_start: 20, rate_start: 600000/min}}
  hosted:
    {{match: [hosted.test], examples: [mx0.hosted.test],
      rate: 1200/min, rate_start: 1200/min, connections_start: 20}}
"""
)
COLUMNS = {
    "situation": "",
    "waiting": "",  # recipients of the other tenant, at the start
    "p50_ms": ".1f",
    "p99_ms": ".1f",
    "max_ms": ".1f",
    "own_p99": ".1f",  # without one turn at the peer's rate
    "sent": "",
    "late": "",
    "refused": "",  # or not answered
    "other": ".0%",
}
Zone = dict[Question, list[str] | Misfortune]


class Situation(NamedTuple):
    """Whose mail waits where."""

    name: str
    waiting: Backlog
    exchange: Callable[[int], str] | None  # of the domain `waiting{n}.test`; None: its DNS is silent
    recipient: Callable[[int], str] = lambda n: "b@t0.healthy.test"
    every: float = 0.02  # seconds between two transactional messages
    turn: float = 0.0  # seconds between two messages that the peer's rate lets through
    flood: bool = False


NOTHING = Backlog(0, 1000)
SITUATIONS = (
    Situation("agenda", Backlog(100_000, 1000, due=0.0), lambda n: "mx.bulk.test"),
    Situation(
        "look-ups", Backlog(10_000, 10_000, due=0.0), None, recipient=lambda n: f"b@t{n}.healthy.test"
    ),
    Situation("leases", Backlog(20_000, 1000, due=0.0), lambda n: f"mx{n}.mute.test"),
    Situation(
        "lanes", Backlog(10_000, 100, due=0.0), lambda n: f"mx{n}.hosted.test",
        recipient=lambda n: f"b@waiting{n % 100}.test", every=0.1, turn=1 / HOSTED,
    ),
    Situation("fresh", NOTHING, lambda n: f"mx{n}.mute.test", flood=True),
)  # fmt: skip


def zone(place: Network, situation: Situation) -> Zone:
    """Healthy ones and hosted ones have the first address, mute ones the second, bulk the third."""
    healthy, mute, bulk = place.addresses
    found: Zone = {("mx.healthy.test", "A"): [healthy], ("mx.bulk.test", "A"): [bulk]}
    for n in range(round((WARM + SECONDS) / situation.every) + 1):
        found[f"t{n}.healthy.test", "MX"] = ["10 mx.healthy.test."]
    for n in range(situation.waiting.domains):
        name, exchange = f"waiting{n}.test", situation.exchange
        found[name, "MX"] = Misfortune.SILENCE if exchange is None else [f"10 {exchange(n)}."]
        if exchange is not None:
            found.setdefault((exchange(n), "A"), [mute if "mute" in exchange(n) else healthy])
    return found


@asynccontextmanager
async def bulk_sink(place: Network, address: str) -> AsyncIterator[int]:
    """Who takes the backlog in, in a process of its own (its id): a stamp is not to wait for it."""
    argv = place.argv([sys.executable, "-m", "benchmarks.peers.sink", "25", "--address", address])
    process = await asyncio.create_subprocess_exec(*argv, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _envelopes() -> Iterator[bytes]:
    """A flood, a message at a time."""
    for n in range(FLOOD):
        lines = ["MAIL FROM:<f@src0.test>", *(f"RCPT TO:<u{n}@waiting{k}.test>" for k in range(EACH)), "DATA"]
        yield "".join(f"{line}\r\n" for line in lines).encode()


async def flooded(port: int) -> int:
    """Submit a flood over one connection; recipients that were accepted."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(flow.CLIENTS["bulk"], 0))

    async def reply() -> bytes:
        while (line := await reader.readline())[3:4] == b"-":
            pass
        return line

    taken = 0
    try:
        async with asyncio.timeout(FLOODED):
            await reply()
            writer.write(b"EHLO flood.test\r\n")
            await reply()
            for envelope in _envelopes():
                writer.write(envelope)
                replies = [await reply() for _ in range(EACH + 2)]
                if not replies[-1].startswith(b"354"):
                    raise Broken(f"the flood was refused: {replies[-1]!r}")
                writer.write(flow.CONTENT)
                if not (said := await reply()).startswith(b"250"):
                    raise Broken(f"the flood was refused: {said!r}")
                taken += sum(each.startswith(b"250") for each in replies[1:-1])
    except TimeoutError:
        relay.tell(f"the flood was not over after {FLOODED:.0f} s")
    finally:
        writer.close()
    return taken


async def _play(home: Path, place: Network, situation: Situation) -> tuple[Sender, int, float]:
    """The sender after its work, what waited, and the share of the machine that others used."""
    listen, arrivals = relay.free_ports(1)[0], Arrivals()
    healthy, mute, bulk = place.addresses
    loop = asyncio.get_running_loop()
    flow.credentials(home, "urgent")
    async with AsyncExitStack() as stack:
        stack.enter_context(place.listening(mute))  # nobody accepts there
        door = stack.enter_context(place.listening(healthy))
        server = await loop.create_server(lambda: Peer(arrivals), sock=door)
        stack.callback(server.close)
        sink = await stack.enter_async_context(bulk_sink(place, bulk))
        names = await stack.enter_async_context(NameServer(zone(place, situation)))
        (home / "mta.yaml").write_text(SETTINGS.format(home=home, listen=listen, dns=names.endpoint))
        argv = [sys.executable, "-m", "mta", "--config", str(home / "mta.yaml"), "serve"]
        daemon = Process(argv, listen, home / "mta.log", START)
        await asyncio.to_thread(daemon.__enter__)
        stack.push_async_callback(asyncio.to_thread, daemon.__exit__)
        waiting = await flooded(listen) if situation.flood else situation.waiting.messages
        sender = Sender(listen, arrivals, situation.every, situation.recipient)
        known = [daemon.pid, sink]
        busy, began = _others(known), time.monotonic()
        await sender.run(WARM + SECONDS)
        other = (_others(known) - busy) / (time.monotonic() - began) / (os.cpu_count() or 1)
    return sender, waiting, max(other, 0.0)


def _others(known: list[int]) -> float:
    """Processor seconds of the machine that are not ours."""
    return cpu.machine_busy() - time.process_time() - sum(map(cpu.spent, known))


def row(directory: Path, situation: Situation) -> relay.Row:
    """One situation."""
    relay.tell(f"W8, {situation.name}")
    with relay.fresh(directory) as home, network(3) as place:
        fill(home, situation.waiting)
        os.sync()
        with flow.explained(home / "mta.log"):
            sender, waiting, other = uvloop.run(_play(home, place, situation))
    times, late = sender.times(WARM)
    if not times:
        raise Broken(f"{situation.name}: no transactional message was accepted: {dict(sender.refused)}")
    p99 = percentile(times, 0.99)
    return {
        "situation": situation.name,
        "waiting": waiting,
        "p50_ms": percentile(times, 0.50),
        "p99_ms": p99,
        "max_ms": times[-1] * 1e3,
        "own_p99": max(p99 - situation.turn * 1e3, 0.0),
        "sent": len(times),
        "late": late,
        "refused": sender.sent - len(sender.accepted),
        "other": other,
    }
