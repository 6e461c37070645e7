"""What each From domain sends to each provider, in `store.db`.

Between: `guard.proximity` loads all at its start, and saves what has changed.
Contract: at most as many as are asked for, those that were counted last; the schema lets nothing in that
    cannot be read.
Raises: StoreError.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from mta.core.limits.day import Day
from mta.store.database import Database

Pair = tuple[str, str]  # From domain, provider

_LIST = "SELECT domain, provider, hour, counts, told FROM volume ORDER BY hour DESC LIMIT ?"
_PUT = "INSERT OR REPLACE INTO volume (domain, provider, hour, counts, told) VALUES (?, ?, ?, ?, ?)"
_REMOVE = "DELETE FROM volume WHERE (domain, provider) = (?, ?)"


class VolumeStore:
    """The table `volume`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, most: int) -> dict[Pair, Day]:
        """The newest ones."""

        def read(connection: sqlite3.Connection) -> dict[Pair, Day]:
            rows = connection.execute(_LIST, (most,)).fetchall()
            return {(domain, provider): Day(*rest) for domain, provider, *rest in rows}

        return await self._database.run(read)

    async def save(self, changed: Mapping[Pair, Day | None]) -> None:
        """Keep these; None is forgotten."""
        rows = [(*pair, day.hour, day.counts, day.told) for pair, day in changed.items() if day is not None]
        gone = [pair for pair, day in changed.items() if day is None]

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany(_PUT, rows)
            connection.executemany(_REMOVE, gone)

        await self._database.run(write)
