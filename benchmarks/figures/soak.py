"""A steady load for a long time: does anything grow?

Between: `make soak MINUTES=60`; README.md says how to read the curve.
Contract: messages a second through a real daemon to a peer in this process: a twentieth is deferred once, a
    twenty-fifth bounces (the sender is told), a hundredth is large enough to be a file. Every half
    minute a reader keeps its snapshot for five seconds, as a backup does. MB are 10^6 octets.
Raises: exit status 1 when something grows, or mail is lost; 2 when the run could not be made.
Why: the verdict is the slope of a straight line through the second half: by then the files have their size
    and the allocator its arenas.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import linear_regression, mean
from typing import NamedTuple

from benchmarks import cpu
from benchmarks.figures import relay
from benchmarks.process import Process, until
from mta.core.credential import Credential
from mta.spool import database
from mta.spool.bodies import THRESHOLD
from mta.store.credentials import CredentialStore

SESSIONS = 10
ROWS = 40  # of the curve
WAVE = 30.0  # seconds from one long reader to the next
HELD = 5.0  # seconds that it keeps its snapshot
LARGE = THRESHOLD + 100_000  # octets
SMALL = 2048
SETTLING = 60.0  # seconds until the last retries are through
SETTINGS = """\
hostname: soak.test
spool:
  path: {home}
admin:
  bind: 127.0.0.1:{admin}
listeners:
  - bind: 127.0.0.1:{listen}
    tls: none
    auth: network
streams:
  bulk:
    retry_first: 15s
    retry_max: 30s
limits:
  drain: 5s
routes:
  "*": 127.0.0.1:{peer}
"""


class Row(NamedTuple):
    """The state at one time."""

    seconds: float
    sent: int
    queued: int  # recipients
    database: float  # MB
    free: float  # MB of it that are not used
    wal: float  # MB
    bodies: float  # MB
    events: float  # MB
    rss: float  # MB
    commit: float  # ms, mean since the last row


# What must not grow, and by how much it may all the same in the second half: allocators and files step.
WATCHED = {"database": 10.0, "wal": 20.0, "bodies": 20.0, "rss": 10.0, "commit": 5.0}
TOLERANCE = 0.15  # of the mean of the second half


class Peer:
    """The receiving server: `ok` is taken, `late` at its second attempt, `gone` is refused."""

    def __init__(self) -> None:
        self._late: set[bytes] = set()
        self.taken = 0
        self.refused = 0

    async def listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2 * LARGE)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted = 0
        try:
            writer.write(b"220 peer.test ESMTP\r\n")
            while line := await reader.readline():
                verb = line[:4].upper()
                if verb == b"EHLO":
                    writer.write(b"250-peer.test\r\n250-8BITMIME\r\n250 PIPELINING\r\n")
                elif verb == b"RCPT":
                    reply = self._answer(line)
                    accepted += reply.startswith(b"250")
                    writer.write(reply)
                elif verb == b"DATA":
                    writer.write(b"354 go on\r\n" if accepted else b"554 5.5.1 no recipients\r\n")
                    if accepted:
                        await reader.readuntil(b"\r\n.\r\n")
                        self.taken += accepted
                        writer.write(b"250 2.0.0 Ok\r\n")
                    accepted = 0
                else:
                    writer.write(b"250 2.0.0 Ok\r\n")
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _answer(self, line: bytes) -> bytes:
        if b"<gone" in line:
            self.refused += 1
            return b"550 5.1.1 no such user\r\n"
        if b"<late" in line:
            self._late ^= {line}
            if line in self._late:
                return b"451 4.3.0 a passing trouble\r\n"  # a class that waits as the stream says
        return b"250 2.1.5 Ok\r\n"


class Load:
    """Clients at a steady rate."""

    def __init__(self, port: int, rate: float, end: float) -> None:
        self._port = port
        self._pause = SESSIONS / rate
        self._end = end
        self.sent = 0
        self._contents = {size: _content(size) for size in (SMALL, LARGE)}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(SESSIONS):
                tasks.create_task(self._session())

    async def _session(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        await _reply(reader)
        writer.write(b"EHLO source.test\r\n")
        await _reply(reader)
        due = time.monotonic() + random.random() * self._pause
        while due < self._end:
            await asyncio.sleep(due - time.monotonic())
            await self._send(reader, writer)
            due = max(due + self._pause, time.monotonic() - 1.0)
        writer.close()

    async def _send(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dice = random.random()
        who = f"late{self.sent}" if dice < 0.05 else "gone" if dice < 0.09 else "ok"
        content = self._contents[LARGE if dice > 0.99 else SMALL]
        domain = f"d{random.randrange(1000)}.test"
        writer.write(f"MAIL FROM:<a@src.test>\r\nRCPT TO:<{who}@{domain}>\r\nDATA\r\n".encode())
        for _ in range(3):
            await _reply(reader)
        writer.write(content)
        await _reply(reader)
        self.sent += 1


def _content(size: int) -> bytes:
    return b"From: <a@src.test>\r\nSubject: soak\r\n\r\n" + size // 80 * (b"x" * 78 + b"\r\n") + b".\r\n"


async def _reply(reader: asyncio.StreamReader) -> None:
    while True:
        line = await reader.readline()
        if line[:1] not in (b"2", b"3"):
            raise ConnectionError(f"the daemon said {line!r}")
        if line[3:4] == b" ":
            return


class Eye:
    """Looks at the daemon from outside."""

    def __init__(self, home: Path, pid: int, admin: int) -> None:
        self._home = home
        self._pid = pid
        self._metrics = f"http://127.0.0.1:{admin}/metrics"
        self._commits = (0.0, 0.0)  # number, seconds

    def look(self, seconds: float, sent: int) -> Row:
        with urllib.request.urlopen(self._metrics, timeout=30) as answer:
            text = answer.read().decode()
        number, spent = (_metric(text, f"mta_commit_seconds_{what}") for what in ("count", "sum"))
        before, self._commits = self._commits, (number, spent)
        resident, _ = cpu.resident_memory(self._pid)
        with closing(database.connect_reader(self._home)) as connection:
            (free,) = connection.execute("PRAGMA freelist_count").fetchone()
            (page,) = connection.execute("PRAGMA page_size").fetchone()
        return Row(
            seconds, sent, int(_metric(text, "mta_queue_recipients")), _size(self._home / database.FILE),
            free * page / 1e6, _size(self._home / f"{database.FILE}-wal"),
            sum(map(_size, (self._home / "bodies").iterdir())), sum(map(_size, self._home.glob("events*"))),
            resident / 1e6, (spent - before[1]) / max(number - before[0], 1) * 1e3,
        )  # fmt: skip


def _metric(text: str, name: str) -> float:
    """Over all its labels."""
    return sum(float(value) for value in re.findall(rf"(?m)^{name}(?:{{.*}})? (\S+)$", text))


def _size(path: Path) -> float:
    try:
        return path.stat().st_size / 1e6
    except FileNotFoundError:
        return 0.0


@contextmanager
def _snapshot(home: Path) -> Iterator[None]:
    """A reader that keeps what it has begun with."""
    with closing(database.connect_reader(home)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM meta").fetchone()
        yield


async def _hold_snapshots(home: Path, end: float) -> None:
    while time.monotonic() + WAVE < end:
        await asyncio.sleep(WAVE - HELD)
        with _snapshot(home):
            await asyncio.sleep(HELD)


def verdict(rows: list[Row]) -> list[str]:
    """What grows: in words, for each; nothing where all is flat."""
    half = rows[len(rows) // 2 :]
    times = [row.seconds for row in half]
    found = []
    for name, step in WATCHED.items():
        values = [float(getattr(row, name)) for row in half]
        slope, _ = linear_regression(times, values)
        growth = slope * (times[-1] - times[0])
        grows = growth > max(step, TOLERANCE * mean(values))
        told = f"{name}: mean {mean(values):.1f}, most {max(values):.1f}, {growth:+.1f} over the second half"
        print(f"{'GROWS' if grows else 'flat '}  {told}", flush=True)
        if grows:
            found.append(name)
    return found


def show(row: Row) -> None:
    print(
        " ".join(f"{value:>9.1f}" if isinstance(value, float) else f"{value:>9}" for value in row), flush=True
    )


async def soak(home: Path, seconds: float, rate: float) -> bool:
    """True if nothing grows and nothing is missing."""
    peer = Peer()
    listen, admin = relay.free_ports(2)
    with CredentialStore(home / "credentials.db") as store:
        store.add(Credential("relay", "relay", "bulk", networks=("127.0.0.0/8",), kind="network"))
    async with await peer.listen() as server:
        port = server.sockets[0].getsockname()[1]
        (home / "mta.yaml").write_text(SETTINGS.format(home=home, listen=listen, admin=admin, peer=port))
        argv = [sys.executable, "-m", "mta", "--config", str(home / "mta.yaml"), "serve"]
        daemon = Process(argv, listen, home / "mta.log")
        await asyncio.to_thread(daemon.__enter__)
        try:
            return await _watched(Eye(home, daemon.pid, admin), home, listen, peer, seconds, rate)
        finally:
            await asyncio.to_thread(daemon.__exit__)  # it says QUIT to our peer


async def _watched(eye: Eye, home: Path, listen: int, peer: Peer, seconds: float, rate: float) -> bool:
    print(" ".join(f"{name:>9}" for name in Row._fields), flush=True)
    began = time.monotonic()
    load = Load(listen, rate, began + seconds)
    rows: list[Row] = []

    async def watch() -> None:
        for n in range(1, ROWS + 1):
            await asyncio.sleep(began + seconds * n / ROWS - time.monotonic())
            rows.append(await asyncio.to_thread(eye.look, time.monotonic() - began, load.sent))
            show(rows[-1])

    async with asyncio.TaskGroup() as tasks:
        for work in (load.run(), watch(), _hold_snapshots(home, began + seconds)):
            tasks.create_task(work)
    growing = verdict(rows)
    # Each message is taken, or refused and its sender's notice taken.
    whole = await asyncio.to_thread(until, lambda: peer.taken >= load.sent, SETTLING)
    print(f"sent {load.sent}, taken {peer.taken}, of them {peer.refused} notices", flush=True)
    if not whole or peer.taken != load.sent:
        print("WRONG: mail is missing, or was delivered twice", flush=True)
    return not growing and peer.taken == load.sent


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.figures.soak", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=100.0, help="messages a second (%(default)s)")
    parser.add_argument("--directory", type=Path, default="/var/tmp", help="on a real disk (%(default)s)")
    args = parser.parse_args()

    def benchmark(home: Path) -> int:
        return 0 if asyncio.run(soak(home, args.minutes * 60, args.rate)) else 1

    return relay.in_directory(args.directory, benchmark)


if __name__ == "__main__":
    sys.exit(main())
