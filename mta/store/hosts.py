"""What is remembered of receiving hosts, in `store.db`.

Between: `delivery.hosts` loads all at its start, and saves what has changed.
Contract: a memory that cannot be read is left out: its host is asked as any other.
Raises: StoreError.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

from mta.core.route.hosts import HostMemory, Peer, TlsState
from mta.store.database import SCRIPTS, Database, StoreError
from mta.store.shared import schema

_COLUMNS = "name, port, address, failures, since, tried, probe, why, tls, tls_since, tls_why, lost"
_LIST = f"SELECT {_COLUMNS} FROM host ORDER BY max(tried, tls_since, lost) DESC LIMIT ?"
_PUT = f"INSERT OR REPLACE INTO host ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_REMOVE = "DELETE FROM host WHERE (name, port, address) = (?, ?, ?)"


class HostStore:
    """The table `host`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, most: int) -> dict[Peer, HostMemory]:
        """The newest memories, the oldest of them first."""

        def read(connection: sqlite3.Connection) -> dict[Peer, HostMemory]:
            rows = connection.execute(_LIST, (most,)).fetchall()
            return dict(filter(None, map(_parsed, reversed(rows))))

        return await self._database.run(read)

    async def save(self, changed: Mapping[Peer, HostMemory | None]) -> None:
        """Keep these; None is forgotten."""

        def write(connection: sqlite3.Connection) -> None:
            known = ((peer, memory) for peer, memory in changed.items() if memory is not None)
            connection.executemany(_PUT, (_row(peer, memory) for peer, memory in known))
            connection.executemany(_REMOVE, (peer for peer, memory in changed.items() if memory is None))

        await self._database.run(write)


def unfit(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Memories that are passed over, and why, through a connection that can only read."""
    version = schema(connection)
    if version == 0:
        return  # begun, and no more
    if version != len(SCRIPTS):
        raise StoreError(f"store.db has schema {version}, this version's is {len(SCRIPTS)}")
    for row in connection.execute(_LIST, (-1,)):
        try:
            _memory(row)
        except (ValueError, TypeError) as error:
            yield f"{row[0]}:{row[1]} [{row[2]}]", f"cannot be read: {error}"


def _row(peer: Peer, memory: HostMemory) -> tuple[object, ...]:
    return *peer, *(value.value if isinstance(value, TlsState) else value for value in memory)


def _parsed(row: tuple[Any, ...]) -> tuple[Peer, HostMemory] | None:
    try:
        return _memory(row)
    except (ValueError, TypeError):
        return None


def _memory(row: tuple[Any, ...]) -> tuple[Peer, HostMemory]:
    name, port, address, failures, since, tried, probe, why, tls, *rest = row
    if failures < 0:
        raise ValueError(f"{failures} failures")
    memory = HostMemory(failures, since, tried, probe, why, TlsState(tls), *rest)
    return Peer(name, port, address), memory
