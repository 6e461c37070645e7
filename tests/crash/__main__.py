"""Crash the daemon again and again, and keep the books: `make crash RUNS=1000`.

Between: a developer, or `tests/spool/test_crash.py` for a few runs. Each run has a spool of its own and a
    daemon that is killed `LIVES` times: at points of its work (tests/fakes/doomed.py), at random moments,
    or by us in the middle of the load (also where its point is not reached in time). The last daemon
    brings everything to its end and is stopped.
Contract: exit status 1 where a recipient was lost or the books have a contradiction; the run's directory is
    kept then, and `--seed` repeats its choices (not its timing).
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from mta.spool.notes import MAX_UNSETTLED
from tests.crash.books import Books, follow_to_the_end, reconcile, stderr_bugs
from tests.crash.mail import Mail
from tests.fakes.doomed import POINTS
from tests.fakes.home import Home, Nursery

LIVES = 2  # that end too early, in each run
LETTERS = 25  # in each life
FIRST, MAXIMUM = "200ms", "400ms"  # between attempts
OFF = 120  # seconds between the clocks of two lives: every due time is over in the next one
PATIENCE = 2.0  # seconds for a point to be reached when all is sent
BY_US = "kill -9 by us"
NOT_REACHED = "not reached"

# How many calls a point may wait for; 1 where the first one is as good as any.
SPAN = {
    "first-statements": 25,
    "inside-migration": 25,  # instructions of SQLite in one statement
    "before-commit": 6,
    "half-a-file": 2,
    "file-without-row": 2,
    "inside-transaction": 6,
    "inside-commit": 60_000,  # octets
    "inside-checkpoint": 100_000,  # octets
    "before-250": 8,
    "before-dialling": 6,
    "peer-has-it": 40,
    "before-lease": 4,
    "after-lease": 8,
    "before-settle": 30,
    "settle-noted": 40,
    "notice-committed": 2,
    "before-append": 2,
    "half-an-append": 2,
    "after-append": 2,
    "inside-drain": 2,
    "after-drain": 2,
    "any-statement": 250,
    "any-moment": 700,  # milliseconds
}
RARE = {"while-rotating"}  # a day has only one midnight
ORDERS = (*(name for name in POINTS if name not in RARE), *["any-statement", "any-moment", BY_US] * 3)


@dataclass(slots=True)
class Tally:
    """Runs, added up."""

    counts: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)
    most_twice: int = 0

    def add(self, other: Tally) -> None:
        self.counts.update(other.counts)
        self.kills.update(other.kills)
        self.complaints += other.complaints
        self.most_twice = max(self.most_twice, other.most_twice)


def run(nursery: Nursery, template: Home, directory: Path, seed: int) -> Tally:
    """One spool, through all its lives."""
    dice = random.Random(seed)
    home = template.copy(directory)
    mail = Mail()
    tally = Tally()
    for life in range(LIVES):
        mail.write(LETTERS, dice)
        tally.kills[_life(nursery, home, mail, dice, later=life * OFF)] += 1
    _enter(tally, bring_to_the_end(nursery, home, mail, later=LIVES * OFF))
    return tally


def bring_to_the_end(nursery: Nursery, home: Home, mail: Mail, **order: Any) -> Books:
    """A last daemon, without a doom: it takes what is still to be sent, and delivers what can be."""
    with home.living(nursery, **order) as served:
        assert served.is_ready, served.banner
        mail.send(served)
        follow_to_the_end(served, mail)
        status = served.stop()
    books = reconcile(home.directory, mail)
    if status != 0 or mail.waiting:
        books.wrong.append(f"the last daemon ended with {status}, {len(mail.waiting)} letters not taken")
    books.wrong += [f"the daemon logged: {line}" for line in stderr_bugs(home.directory)]
    return books


def _life(nursery: Nursery, home: Home, mail: Mail, dice: random.Random, later: int) -> str:
    """One daemon until its end; where that was."""
    point = dice.choice(ORDERS)
    nth = dice.randint(1, SPAN.get(point, 1))
    kill_at = len(mail.acknowledged) + dice.randint(1, LETTERS) if point == BY_US else -1
    order: dict[str, Any] = {"checkpoint": dice.choice((None, 8)), "later": later}
    with home.living(nursery, "" if point == BY_US else point, nth, **order) as served:
        if served.is_ready:
            mail.send(served, lambda count: served.kill() if count == kill_at else None)
            if point == "while-stopping":
                served.popen.send_signal(signal.SIGTERM)
        status = served.popen.wait(0.01 if point == BY_US else PATIENCE)
    if point == BY_US:
        return BY_US
    reached = home.doom() == point or status == -signal.SIGALRM
    return point if reached else f"{NOT_REACHED}: {point}"


def _enter(tally: Tally, books: Books) -> None:
    tally.counts.update(
        {
            "runs": 1,
            "acknowledged": len(books.acknowledged),
            "delivered": sum(1 for key in books.acknowledged if books.copies[key]),
            "bounced, with a notice": sum(1 for key in books.acknowledged if books.notices[key]),
            "in the spool": len(books.acknowledged & books.waiting),
            "delivered twice": books.twice,
            "sent again by the client": books.again,
            "lost": len(books.lost),
        }
    )
    tally.most_twice = books.twice
    tally.complaints += [f"lost: {each}" for each in books.lost] + books.wrong
    if books.twice > LIVES * MAX_UNSETTLED:
        tally.complaints.append(f"{books.twice} were delivered twice: more than {LIVES} windows hold")


def work(directory: Path, seeds: list[int]) -> Tally:
    """Some of the runs, one after another, in a process of its own."""
    whole = Tally()
    template = Home(directory / "template")
    with Nursery() as nursery:
        for seed in seeds:
            place = directory / str(seed)
            place.mkdir()
            try:
                found = run(nursery, template, place, seed)
            except Exception as error:  # the other runs are worth knowing too
                found = Tally(complaints=[f"{type(error).__name__}: {error}"])
            found.complaints = [f"seed {seed}: {each}" for each in found.complaints]
            for complaint in found.complaints:
                print(complaint, flush=True)
            if not found.complaints:
                shutil.rmtree(place)
            whole.add(found)
    return whole


def show(tally: Tally, seconds: float) -> None:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    runs = max(tally.counts["runs"], 1)
    print("\nended at" + " " * 24 + "kills  not reached")
    for name in (*POINTS, BY_US):
        print(f"{name:<28}{tally.kills[name]:>9}{tally.kills[f'{NOT_REACHED}: {name}']:>13}")
    print("\nrecipients" + " " * 22 + "count")
    for name in tally.counts:
        print(f"{name:<28}{tally.counts[name]:>9}")
    print(f"{'most delivered twice':<28}{tally.most_twice:>9} in one run of {LIVES} crashes")
    cpu = used.ru_utime + used.ru_stime
    print(
        f"\n{seconds:.0f} s, {cpu / runs:.2f} s of CPU a run; {len(tally.complaints)} complaints", flush=True
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="make crash", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None, help="of the first run")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    terms = parser.parse_args()
    first = random.randrange(10**6) if terms.seed is None else terms.seed
    seeds = list(range(first, first + terms.runs))
    directory = Path(mkdtemp(prefix="mta-crash-"))
    (directory / "template").mkdir()
    Home(directory / "template").prepare(FIRST, MAXIMUM)
    started = time.monotonic()
    whole = Tally()
    processes = max(min(terms.processes, terms.runs), 1)
    with ProcessPoolExecutor(processes) as executor:
        for part in executor.map(
            work, [directory] * processes, (seeds[n::processes] for n in range(processes))
        ):
            whole.add(part)
    show(whole, time.monotonic() - started)
    if whole.complaints:
        print(f"what these runs left is in {directory}", file=sys.stderr)
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
