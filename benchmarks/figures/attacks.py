"""Hostile clients and peers against a daemon, one after the other: what each costs it, and the innocent.

Between: `make bench-attacks`; README.md says how to read the table. The attacks are in `hostile`.
Contract: each attack has a daemon of its own, in an empty directory, for so many seconds. `--tree` names the
    source of the daemon, for a table of before and after: of it only the command line, the settings, the
    ports and the files are used. MB are 10^6 octets, times of innocents milliseconds.
Raises: exit status 1 when a daemon died or had to be killed, 2 when a run could not be made.
Why: the peak of the memory is the kernel's own mark, which is set back before the attack.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path

import uvloop

from benchmarks import cpu
from benchmarks.figures import relay
from benchmarks.load import innocents
from benchmarks.load.hostile import ATTACKS, Attack, Scene
from benchmarks.load.innocents import Ports
from benchmarks.load.workload import Sink
from benchmarks.process import Broken, Process

ROOT = Path(__file__).resolve().parents[2]
FILES = 8192  # descriptors that we and what we start may open
WHOLE = 60.0  # seconds that an attack with an end of its own may take
BREATH = 1.0  # seconds from the start to the attack
LOOK = 0.2  # seconds from one look at the daemon to the next
LOGINS = {"innocent": "--key", "attacker": "--key", "owner": ""} | {f"victim{n}": "" for n in range(10)}
SETTINGS = """\
hostname: attacked.test
listeners:
  - bind: 127.0.0.1:{starttls}
    tls: starttls
  - bind: 127.0.0.1:{implicit}
    tls: implicit
tls:
  certificate: tls/certificate.pem
  key: tls/key.pem
spool:
  path: spool
admin:
  bind: 127.0.0.1:{admin}
routes:
  "*": 127.0.0.1:{sink}
"""
# One table row or JSON object.
COLUMNS = {
    "attack": "", "s": ".0f", "cpu_s": ".1f", "rss_before": ".0f", "rss_peak": ".0f", "rss_after": ".0f",
    "log_kB_s": ".1f", "err_kB_s": ".1f", "files": "",
    **{f"{kind}_{figure}": ".0f" for kind in ("kept", "new") for figure in ("p50", "p99", "max", "failed")},
    "ready_max": ".0f", "ready_failed": ".0f", "load": ".1f", "other": ".0%", "end": "",
}  # fmt: skip


class Tree:
    """The source of the daemon."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def argv(self, home: Path, *arguments: str) -> list[str]:
        """A command of it; -P keeps our own directory out of the way."""
        python = ["env", f"PYTHONPATH={self._path}", sys.executable, "-P", "-m", "mta"]
        return [*python, "--config", str(home / "mta.yaml"), *arguments]

    def mta(self, home: Path, *arguments: str) -> str:
        argv = self.argv(home, *arguments)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
        if done.returncode:
            raise Broken(f"mta {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def prepare(self, home: Path) -> dict[str, str]:
        """A certificate and the logins, once for all attacks: their secrets."""
        self.mta(home, "sandbox", str(home))
        (home / "mta.yaml").write_text(settings(Attack("", ATTACKS["nothing"].play), Ports(*range(1, 6))))
        secrets = {}
        for login, kind in LOGINS.items():
            tenant = "attacker" if login == "attacker" else "default"
            arguments = ["credential", "add", login, "--tenant", tenant, "--json", *kind.split()]
            secrets[login] = json.loads(self.mta(home, *arguments))["secret"]
        return secrets


def settings(attack: Attack, ports: Ports) -> str:
    text = f"{SETTINGS}{attack.routes}limits:\n  drain: 1s\n{attack.limits}{attack.settings}"
    return text.format(**ports._asdict())


class Eye:
    """Looks at the daemon from outside; what it saw last counts where it has died."""

    def __init__(self, pid: int, home: Path) -> None:
        self._pid = pid
        self._home = home
        self.cpu = self.resident = self.peak = 0.0
        self.files = 0
        self.look()

    def look(self) -> None:
        with suppress(OSError):
            self.files = max(self.files, len(list(Path(f"/proc/{self._pid}/fd").iterdir())))
        if cpu.runs(self._pid):
            self.cpu = max(self.cpu, cpu.spent(self._pid))
            with suppress(KeyError, ValueError):  # it ends at this moment
                now, peak = cpu.resident_memory(self._pid)
                self.resident, self.peak = now / 1e6, peak / 1e6

    def forget_peak(self) -> None:
        """proc(5): 5 sets the mark back to what is resident now."""
        Path(f"/proc/{self._pid}/clear_refs").write_text("5")

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            self.look()

    def written(self) -> tuple[float, float]:
        """kB of the event log, and of standard error."""
        log = self._home / "mta.log"
        events = sum(path.stat().st_size for path in (self._home / "spool").glob("events*"))
        return events / 1e3, log.stat().st_size / 1e3 if log.is_file() else 0.0


@contextmanager
def _unread(path: Path) -> Iterator[None]:
    """A pipe whose end nobody reads, as small as pipes get."""
    os.mkfifo(path)
    held = os.open(path, os.O_RDWR)
    fcntl.fcntl(held, fcntl.F_SETPIPE_SZ, 4096)
    try:
        yield
    finally:
        os.close(held)


async def _play(attack: Attack, scene: Scene, eye: Eye, seconds: float) -> None:
    """The attack, for its time; whatever it meets is written down."""
    watching = asyncio.create_task(eye.watch())
    end = time.monotonic() + seconds
    try:
        async with asyncio.timeout(WHOLE if attack.whole else seconds):
            await attack.play(scene)
        await asyncio.sleep(end - time.monotonic())
    except TimeoutError:
        pass
    except Exception as error:
        for each in error.exceptions if isinstance(error, ExceptionGroup) else [error]:
            scene.seen[f"gave up: {each!r:.80}"] += 1
        await asyncio.sleep(max(end - time.monotonic(), 0.0))
    finally:
        watching.cancel()


def measure(name: str, seconds: float, tree: Tree, secrets: dict[str, str], home: Path) -> relay.Row:
    """One row; the home has all but its settings."""
    attack = ATTACKS[name]
    ports = Ports(*relay.free_ports(5))
    (home / "mta.yaml").write_text(settings(attack, ports))
    scene = Scene(ports, secrets, Counter())
    row: relay.Row = {**dict.fromkeys(COLUMNS), "attack": name, "what": attack.what}
    try:
        with ExitStack() as stack:
            sink = stack.enter_context(Sink(ports.sink, home / "sink.log", counting=True))
            if attack.deaf:
                stack.enter_context(_unread(home / "mta.log"))
            daemon = Process(tree.argv(home, "serve"), ports.starttls, home / "mta.log")
            stack.enter_context(daemon)
            row |= _measured(attack, scene, [daemon.pid, sink.pid], home, seconds)
            row["end"] = "ok" if daemon.alive() else "DIED"
    except Broken:
        if row["end"] is None:
            raise
        row["end"] = "KILLED"  # it did not end by itself
    if row["end"] == "DIED" and not attack.deaf:
        row["words"] = (home / "mta.log").read_text(errors="replace")[-1000:]
    row["met"] = ", ".join(f"{what} {number}" for what, number in scene.seen.items())
    return row


def _strangers(pids: list[int]) -> float:
    """Processor seconds of the machine that neither these nor we have spent."""
    return cpu.machine_busy() - time.process_time() - sum(map(cpu.spent, pids))


def _measured(attack: Attack, scene: Scene, pids: list[int], home: Path, seconds: float) -> relay.Row:
    """The attack, with the innocents beside it; the first process is the daemon."""
    ours, theirs = get_context("fork").Pipe()
    arguments = (theirs, scene.ports, scene.secrets["innocent"])
    beside = get_context("fork").Process(target=innocents.play, args=arguments, daemon=True)
    beside.start()
    pids.append(beside.pid or 0)
    try:
        time.sleep(BREATH)
        eye = Eye(pids[0], home)
        eye.forget_peak()
        began, before, spent, written = time.monotonic(), eye.resident, eye.cpu, eye.written()
        others = _strangers(pids)
        uvloop.run(_play(attack, scene, eye, seconds))
        eye.look()
        took, wrote = time.monotonic() - began, eye.written()
        used = eye.cpu - spent
        other = (_strangers(pids) - others) / took / (os.cpu_count() or 1)
        ours.send(None)
        felt = ours.recv() if ours.poll(4 * innocents.PATIENCE) else {}
    except (EOFError, BrokenPipeError):
        felt = {}
    finally:
        beside.kill()
        beside.join()
    time.sleep(attack.settling)
    peak = eye.peak
    eye.look()
    log, error = ((after - first) / took for first, after in zip(written, wrote, strict=True))
    return felt | {
        "s": took, "cpu_s": used, "rss_before": before, "rss_peak": peak, "rss_after": eye.resident,
        "log_kB_s": log, "err_kB_s": error, "files": eye.files,
        "load": os.getloadavg()[0], "other": max(other, 0.0),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.figures.attacks", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of each attack (%(default)s)")
    parser.add_argument("--only", help=f"some of {','.join(ATTACKS)}")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the daemon's source (this one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="one object a line besides")
    parser.add_argument("--directory", type=Path, default="/var/tmp", help="on a real disk (%(default)s)")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else list(ATTACKS)
    if unknown := {*names} - {*ATTACKS}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(ATTACKS)}")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, most), most))

    def benchmark(directory: Path) -> int:
        tree = Tree(args.tree.resolve())
        (template := directory / "template").mkdir()
        secrets = tree.prepare(template)
        rows: list[relay.Row] = []
        for name in names:
            relay.tell(f"{name}: {ATTACKS[name].what}")
            with relay.fresh(directory) as home:
                shutil.copytree(template, home, dirs_exist_ok=True)
                rows.append(row := measure(name, args.seconds, tree, secrets, home))
            relay.tell(f"    {row['end']}: {row['met']}{row.get('words', '')}")
            if args.json:
                args.json.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        relay.report(rows, COLUMNS, False)
        return 0 if all(row["end"] == "ok" for row in rows) else 1

    return relay.in_directory(args.directory, benchmark)


if __name__ == "__main__":
    sys.exit(main())
