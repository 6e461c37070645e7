"""Pages of the database that nobody uses: they are room for mail, and at leisure they go back to the disk.

Between: `spool.queue` asks each second, in the writer's thread; `intake.capacity` counts them as room.
Contract: pages are counted in octets. `give_back` takes some 10 ms; `KEPT` octets stay for the mail to come.
Raises: sqlite3.Error.
Standards: SQLite's auto_vacuum=INCREMENTAL. A file from before that is converted by a start, as soon as
    what it holds is little enough to be written anew.
Why: SQLite never makes its file smaller by itself. After a backlog that once filled the disk the door would
    stay shut, beside a file that is nearly all free.
"""

from __future__ import annotations

import logging
import sqlite3

from mta.core.capacity import MIB

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
    return octets(connection)
