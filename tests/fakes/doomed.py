"""The daemon in a process that kills itself at a chosen point of its work.

Between: `tests.fakes.home.Nursery` writes orders, one JSON object a line, to standard input; the ordinary
    command line does the work. Nothing in mta/ knows of it: functions are wrapped here, before it starts.
Contract: one daemon at a time. `born PID` and `ended STATUS` (negative: the signal) stand on standard output
    around what the daemon says; where the end came as ordered, its standard error has a line `doomed: POINT`.
    The n-th call that counts is the last one. `any-moment` is a timer of the kernel (SIGALRM, n milliseconds
    after the start), `inside-commit` and `inside-checkpoint` a limit of a file's size, n octets above what it
    is (SIGXFSZ): no Python runs between the two halves of a write. All others are SIGKILL.
Why: importing the program takes half a second of CPU, a fork of it some milliseconds.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import re
import resource
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

import mta.daemon  # noqa: F401 - once, and not in every fork
from mta.cli.main import main
from mta.clock import SystemClock
from mta.core.model import Kind
from mta.delivery.connect import Connector
from mta.events import log
from mta.outbound.outcome import Settler
from mta.outbound.scheduler import Scheduler
from mta.sandbox.mx import SandboxMX
from mta.signing import secret
from mta.spool import bodies, database, queue, statements
from mta.spool.bodies import Bodies
from mta.spool.queue import Spool
from mta.store import database as store

Counts = Callable[..., bool]
CHECKPOINT_AT = 5  # commits


class Fate:
    """When the end comes."""

    def __init__(self, name: str, nth: int) -> None:
        self.name = name
        self.nth = nth
        self._left = nth

    def meets(self) -> bool:
        """Is this call the one?"""
        self._left -= 1
        return self._left == 0

    def note(self) -> None:
        os.write(2, f"doomed: {self.name}\n".encode())

    def end(self) -> NoReturn:
        self.note()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("nobody gets here")


Point = Callable[[Fate], None]


class Instead:
    """A module with some of its names replaced."""

    def __init__(self, module: ModuleType, **names: object) -> None:
        self._module = module
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def always(*_: object, **__: object) -> bool:
    return True


def before(owner: Any, name: str, counts: Counts = always) -> Point:
    def arm(fate: Fate) -> None:
        real = getattr(owner, name)

        def doomed(*arguments: Any, **named: Any) -> Any:
            if counts(*arguments, **named) and fate.meets():
                fate.end()
            return real(*arguments, **named)

        setattr(owner, name, doomed)

    return arm


def after(owner: Any, name: str, counts: Counts = always) -> Point:
    def arm(fate: Fate) -> None:
        real = getattr(owner, name)

        def doomed(*arguments: Any, **named: Any) -> Any:
            result = real(*arguments, **named)
            if counts(*arguments, **named) and fate.meets():
                fate.end()
            return result

        setattr(owner, name, doomed)

    return arm


def half_a_write(module: Any, counts: Callable[[memoryview], bool] = always) -> Point:
    """The first half of the octets, and no more."""

    def arm(fate: Fate) -> None:
        def write(descriptor: int, octets: memoryview) -> int:
            if counts(octets) and fate.meets():
                os.write(descriptor, octets[: len(octets) // 2])
                fate.end()
            return os.write(descriptor, octets)

        module.os = Instead(os, write=write)

    return arm


def _connections(factory: type[sqlite3.Connection]) -> None:
    """The writer's connection is one of these from now on; the reader's is as it was."""

    def connect(path: Path, **named: Any) -> sqlite3.Connection:
        made: sqlite3.Connection = sqlite3.connect(
            path, **named if named.get("uri") else named | {"factory": factory}
        )
        return made

    vars(database)["sqlite3"] = Instead(sqlite3, connect=connect)


def statement(wanted: Counts, *, done: bool) -> Point:
    """Around one statement of the writer: done, or about to be done."""

    def arm(fate: Fate) -> None:
        class Doomed(sqlite3.Connection):
            def execute(self, text: str, *values: Any) -> sqlite3.Cursor:
                is_last = wanted(text, *values) and fate.meets()
                if is_last and not done:
                    fate.end()
                cursor = super().execute(text, *values)
                if is_last:
                    fate.end()
                return cursor

        _connections(Doomed)

    return arm


def _end_at_file_size() -> None:
    """Python ignores the signal: then the write would only fail."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit(connection: sqlite3.Connection, suffix: str, octets: int) -> None:
    """This process ends at a write that makes a file so much longer than the database, or its WAL, is now."""
    (_, _, path) = sqlite3.Connection.execute(connection, "PRAGMA database_list").fetchone()
    size = Path(path + suffix).stat().st_size + octets
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def inside_commit(fate: Fate) -> None:
    """In the middle of writing the WAL: the first commit that owns a message gets `nth` octets far."""
    _end_at_file_size()

    class Doomed(sqlite3.Connection):
        owns = False

        def execute(self, text: str, *values: Any) -> sqlite3.Cursor:
            self.owns = self.owns or text.startswith(statements.INSERT_MESSAGES)
            is_last = text == "COMMIT" and self.owns
            if is_last:
                fate.note()
                _limit(self, "-wal", fate.nth)
            cursor = super().execute(text, *values)
            if is_last:
                fate.end()  # it was shorter than that
            return cursor

    _connections(Doomed)


def inside_checkpoint(fate: Fate) -> None:
    """In the middle of copying the WAL into the database file, which gets `nth` octets longer."""
    _end_at_file_size()

    class Doomed(sqlite3.Connection):
        commits = 0

        def execute(self, text: str, *values: Any) -> sqlite3.Cursor:
            cursor = super().execute(text, *values)
            self.commits += text == "COMMIT"
            if text == "COMMIT" and self.commits == CHECKPOINT_AT:
                fate.note()
                _limit(self, "", fate.nth)
                super().execute("PRAGMA wal_checkpoint(FULL)")
                fate.end()
            return cursor

    _connections(Doomed)


def inside_migration(fate: Fate) -> None:
    """While SQLite works on the script of a schema: after so many of its instructions."""

    class Doomed(sqlite3.Connection):
        def executescript(self, script: str) -> sqlite3.Cursor:
            self.set_progress_handler(fate.end, fate.nth)
            return super().executescript(script)

    _connections(Doomed)


def any_moment(fate: Fate) -> None:
    signal.setitimer(signal.ITIMER_REAL, fate.nth / 1000)


def _owns(connection: object, store: object, batch: Any, seq: int) -> bool:
    return bool(batch.puts)


def _drains(connection: object, store: object, batch: Any, seq: int) -> bool:
    return batch.drained is not None and bool(batch.drained.finished)


def _leases(connection: object, store: object, batch: Any, seq: int) -> bool:
    return bool(batch.updates) and not batch.outcomes


def _notifies(connection: object, store: object, batch: Any, seq: int) -> bool:
    return any(not put.message.sender for put in batch.puts)


def _delivered(settler: object, batch: object, outcomes: Any, trace: object) -> bool:
    return any(outcome.kind is Kind.DELIVERED for outcome in outcomes)


def _is_retry(scheduler: object, route: object, batch: Any) -> bool:
    return bool(batch.recipients[0].attempts > 1)


def _inserts_recipients(text: str, *values: Any) -> bool:
    return text.startswith(statements.INSERT_RECIPIENTS)


def _recovers(text: str, *values: Any) -> bool:
    return text == statements.RECOVER


def _removes_bodies(text: str, *values: Any) -> bool:
    return text == statements.DELETE_BODIES and values != (("[]",),)


def _tells_an_end(lines: memoryview) -> bool:
    """Is it told of a message that it has left?"""
    return re.search(rb'"type":"(delivery|bounce)"', lines) is not None


def _appends_an_end(event_log: object, lines: bytes, now: float) -> bool:
    return _tells_an_end(memoryview(lines))


def _is_open(event_log: Any) -> bool:
    return bool(event_log._descriptor >= 0)


class Place(NamedTuple):
    """Where a daemon can end."""

    row: int  # of the table in mta/spool/crash.py; 0: any
    arm: Point


POINTS: Mapping[str, Place] = {
    "first-statements": Place(1, statement(always, done=False)),
    "inside-migration": Place(2, inside_migration),
    "before-sweep": Place(3, before(Bodies, "sweep")),
    "after-sweep": Place(3, after(Bodies, "sweep")),
    "before-recovery": Place(3, statement(_recovers, done=False)),
    "after-recovery": Place(4, statement(_recovers, done=True)),
    "before-commit": Place(5, before(queue, "commit", _owns)),
    "half-a-file": Place(6, half_a_write(bodies)),
    "file-without-row": Place(6, after(Bodies, "write")),
    "inside-transaction": Place(7, statement(_inserts_recipients, done=True)),
    "inside-commit": Place(7, inside_commit),
    "inside-checkpoint": Place(8, inside_checkpoint),
    "before-250": Place(9, after(queue, "commit", _owns)),
    "before-dialling": Place(10, before(Connector, "connect")),
    "peer-has-it": Place(11, before(SandboxMX, "answer")),
    "before-lease": Place(12, before(queue, "commit", _leases)),
    "after-lease": Place(13, before(Scheduler, "_dispatch", _is_retry)),
    "before-settle": Place(14, before(Settler, "settle", _delivered)),
    "settle-noted": Place(15, after(Spool, "settle")),
    "notice-committed": Place(16, after(queue, "commit", _notifies)),
    "before-append": Place(17, before(log.EventLog, "_append", _appends_an_end)),
    "half-an-append": Place(18, half_a_write(log, _tells_an_end)),
    "after-append": Place(19, after(log.EventLog, "_append", _appends_an_end)),
    "inside-drain": Place(19, statement(_removes_bodies, done=True)),
    "while-rotating": Place(20, before(log.EventLog, "_open_file", _is_open)),
    "after-drain": Place(21, after(queue, "commit", _drains)),
    "before-removal": Place(21, before(Bodies, "remove", lambda store, messages: bool(messages))),
    "while-stopping": Place(22, before(Spool, "stop")),
    "store-begun": Place(23, before(store, "migrate")),
    "secret-drafted": Place(24, after(secret, "_write")),
    "any-statement": Place(0, statement(always, done=True)),
    "any-moment": Place(0, any_moment),
}


def live(order: Mapping[str, Any]) -> NoReturn:
    """The life of one daemon, in a process of its own."""
    os.chdir(order["directory"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open("stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
    faulthandler.enable()
    print(f"born {os.getpid()}", flush=True)
    if order.get("checkpoint"):  # pages: checkpoints happen all the time
        statements.PRAGMAS += (f"PRAGMA wal_autocheckpoint = {order['checkpoint']}",)  # type: ignore[assignment]
    if order.get("schema"):  # the folder of another version's schema
        vars(database)["resources"] = Instead(resources, files=lambda package: Path(order["schema"]))
    if order.get("later"):  # seconds: as if the machine had been off for so long
        SystemClock.now = staticmethod(lambda: time.time() + order["later"])
    if order.get("point"):
        POINTS[order["point"]].arm(Fate(order["point"], order["nth"]))
    status = 1
    try:
        main(["--config", "var/mta.yaml", "serve", "--quickstart", "var/quickstart.json"], "mta")
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def nurse() -> None:
    """One daemon after another, until there are no more orders."""
    gc.freeze()
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            live(json.loads(line))
        _, status = os.waitpid(pid, 0)
        print(f"\nended {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    nurse()
