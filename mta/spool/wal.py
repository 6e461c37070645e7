"""The spool's write-ahead log: does it come back to its size?

Between: `spool.queue` asks after each commit; operators read why it does not.
Contract: `stuck` is in words, and None while all is well. It is looked at no more than once a minute.
Raises: nothing.
Why: SQLite keeps silent when a checkpoint of its own fails, and the WAL then grows until the disk is full.
    So where it is much larger than it should be, we make a checkpoint that tells.
"""

from __future__ import annotations

import logging
import sqlite3

import aiosqlite

from mta import disk
from mta.clock import Clock
from mta.spool import database

WAL_LIMIT = 256 * 1024 * 1024  # octets; eight times the size at which SQLite moves it to the database
LOOK_INTERVAL = 60.0  # seconds between two looks at one that is too large

log = logging.getLogger(__name__)


class Wal:
    """What is known of its size."""

    def __init__(self, place: disk.Place, clock: Clock) -> None:
        self._place = place
        self._clock = clock
        self._look_again = 0.0  # monotonic
        self.stuck: str | None = None  # why it only grows

    @property
    def is_suspect(self) -> bool:
        """Is a look worth while?"""
        return self._place.wal_size > WAL_LIMIT or self.stuck is not None

    async def look(self, writer: aiosqlite.Connection) -> None:
        """Say so where it only grows."""
        if self._clock.monotonic() < self._look_again:
            return
        self._look_again = self._clock.monotonic() + LOOK_INTERVAL
        stuck = None
        try:
            if self._place.wal_size > WAL_LIMIT:
                await writer._execute(database.checkpoint, writer._conn)  # type: ignore[no-untyped-call]
        except sqlite3.Error as error:
            stuck = disk.words(error)
            log.error("the WAL of the spool only grows: %s", stuck)
        self.stuck = stuck
