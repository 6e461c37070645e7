"""Pages of the database that nobody uses: they are room for mail, and at leisure they go back to the disk.

Between: `spool.queue` lends its writer's thread, and says when there was a commit; `intake.capacity` counts
    them as room.
Contract: pages are counted in octets. `give_back` takes some 10 ms; `KEPT` octets stay for the mail to come.
Raises: sqlite3.Error; `Slack` nothing.
Standards: SQLite's auto_vacuum=INCREMENTAL. A file from before that is converted by a start, as soon as
    what it holds is little enough to be written anew.
Why: SQLite never makes its file smaller by itself. After a backlog that once filled the disk the door would
    stay shut, beside a file that is nearly all free.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable

from mta import disk
from mta.clock import Clock, Every
from mta.core.limits.room import MIB
from mta.metrics import Metrics
from mta.spool import database

LOOK = 1.0  # seconds between two looks
STEP = 256  # pages
STEPS = 16  # in a row, at one look: not more than a sixth of the writer's time
KEPT = 16 * MIB  # octets of free pages that are not given back
SMALL = 64 * MIB  # octets in use up to which a start writes a file anew: a second or so

log = logging.getLogger(__name__)


def _pages(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """How many there are, how many of them are free, and their size in octets."""
    asked = ("page_count", "freelist_count", "page_size")
    count, free, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in asked)
    return count, free, size


def convert(connection: sqlite3.Connection) -> None:
    """Let the file give pages back from now on."""
    (mode,) = connection.execute("PRAGMA auto_vacuum").fetchone()
    count, free, size = _pages(connection)
    if mode or (count - free) * size > SMALL:
        return
    try:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("VACUUM")
    except sqlite3.Error as error:  # no room for a copy: it goes on as it was
        log.warning("the spool's free pages stay in its file until a later start: %s", error)


def octets(connection: sqlite3.Connection) -> int:
    """How much is free."""
    _, free, size = _pages(connection)
    return free * size


def give_back(connection: sqlite3.Connection) -> int:
    """One step; how much is free then."""
    # Each step of the statement frees a page, and shows no row: `execute` and `fetchall` take one step only.
    connection.executescript(f"PRAGMA incremental_vacuum({STEP})")
    left = octets(connection)
    if left <= KEPT:
        database.checkpoint(connection)  # which makes the file shorter
    return left


class Slack:
    """The free pages of a database that is written to."""

    def __init__(
        self,
        run: Callable[[Callable[[sqlite3.Connection], int]], Awaitable[int]],
        is_busy: Callable[[], bool],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._run = run  # in the writer's thread
        self._is_busy = is_busy  # something waits to be committed
        self._metrics = metrics
        self._looks = Every(clock, LOOK, self._look, self._bug)
        self._looking: asyncio.Task[None] | None = None
        self.is_quiet = False  # nothing was committed since the last look
        self.octets = 0

    def start(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        self._looks.start()

    def stop(self) -> None:
        self._looks.stop()

    def _look(self) -> None:
        """After commits they are counted, and where there are none given back."""
        quiet, self.is_quiet = self.is_quiet, True
        if self._looking is None and (not quiet or self.octets > KEPT):
            self._looking = self._tasks.create_task(self._use_leisure(quiet))

    async def _use_leisure(self, quiet: bool) -> None:
        try:
            self.octets = await self._run(octets)
            for _ in range(STEPS if quiet else 0):
                before = self.octets
                if before <= KEPT or self._is_busy():
                    break
                self.octets = await self._run(give_back)
                if self.octets >= before:
                    break  # a file that was not converted keeps them
        except Exception as error:  # a disk that fails is told by the next commit
            if disk.is_of_the_data(error):
                self._bug(error)
        finally:
            self._looking = None

    def _bug(self, error: Exception) -> None:
        self._metrics.bug("spool", "a bug in the spool's leisure", error)
