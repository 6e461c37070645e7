"""The file `store.db`: what the daemon keeps beside its mail, written by one thread.

Between: the small stores of this room bring their statements; the daemon opens and closes it.
Contract: `run` calls its argument in the thread with the connection, inside one transaction, which is on disk
    when it returns. A file that is damaged, when it is opened or later, is set aside as `store.db.damaged`,
    and a new one begun: `on_new` is called in the loop with the words for it. Where the file cannot be opened
    `run` raises, and the next one tries again. The file is 0600.
Raises: StoreError, whose text is for the operator; from `open` only where a newer version wrote the file.
Why: what is in it makes mail go better, and mail must go without it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from mta import disk
from mta.store.shared import PRAGMAS, schema, upgrade

FILE = "store.db"
DAMAGED = ".damaged"
_SCHEMA = Path(__file__).with_name("schema")
SCRIPTS = ("store-0001.sql", "store-0002.sql")  # PRAGMA user_version counts them
_LOOK = "PRAGMA quick_check(1)"
_BEGIN, _COMMIT, _ROLLBACK = "BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]


class StoreError(Exception):
    """The file cannot be used; the text says why and what to do."""


class NewerError(StoreError):
    """A newer version of this program has written the file."""


class Database:
    """One file, one connection, one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._thread: ThreadPoolExecutor | None = None
        self.on_new: Callable[[str], None] = lambda words: None

    async def open(self) -> None:
        """Open the file, or make it. What is against it, but for a newer version, `run` tells."""
        self._thread = ThreadPoolExecutor(1, "store")
        self._loop = asyncio.get_running_loop()
        try:
            await self._in_thread(self._open)
        except NewerError:
            await self.close()
            raise
        except StoreError:
            pass

    async def close(self) -> None:
        """Wait for what is under way."""
        if self._thread is not None:
            await self._in_thread(self._close)
            self._thread.shutdown()
            self._thread = None

    async def run(self, work: Work[Result]) -> Result:
        """One short transaction."""
        return await self._in_thread(lambda: self._run(work))

    # In the thread

    async def _in_thread(self, call: Callable[[], Result]) -> Result:
        return await self._loop.run_in_executor(self._thread, call)

    def _run(self, work: Work[Result]) -> Result:
        if self._connection is None:
            self._open()
        connection = self._connection
        assert connection is not None
        try:
            connection.execute(_BEGIN)
            result = work(connection)
            connection.execute(_COMMIT)
        except sqlite3.Error as error:
            if disk.is_damage(error):
                self._begin_anew(error)
            elif connection.in_transaction:
                connection.execute(_ROLLBACK)
            raise self._error(error) from error
        except BaseException:
            connection.execute(_ROLLBACK)
            raise
        return result

    def _open(self) -> None:
        try:
            self._connect()
        except sqlite3.Error as error:
            if not disk.is_damage(error):
                raise self._error(error) from error
            self._begin_anew(error)
        except OSError as error:
            raise self._error(error) from error

    def _connect(self) -> None:
        disk.create(self._path)  # its WAL gets the same mode
        with disk.alone(self._path.parent):
            disk.rewrite(self._path.with_name(f"{FILE}-wal"))
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            try:
                for pragma in PRAGMAS:
                    connection.execute(pragma)
                ((said,),) = connection.execute(_LOOK)
                if said != "ok":
                    raise _damage(said)
                migrate(connection)
            except BaseException:
                connection.close()
                raise
        self._connection = connection

    def _begin_anew(self, error: Exception) -> None:
        """Set the file aside; only its last damage is kept."""
        self._close()
        aside = self._path.with_name(f"{FILE}{DAMAGED}")
        try:
            for suffix in ("", "-wal", "-shm"):
                path = self._path.with_name(f"{FILE}{suffix}")
                if path.exists():
                    path.replace(f"{aside}{suffix}")
            self._connect()
        except (OSError, sqlite3.Error) as another:
            raise self._error(another) from another
        words = f"{self._path} is damaged ({error}): it is kept as {aside.name}, and a new one is begun"
        self._loop.call_soon_threadsafe(self.on_new, words)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _error(self, error: Exception) -> StoreError:
        return StoreError(f"{self._path}: {disk.words(error)}")


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to this version's schema."""
    version, known = schema(connection), len(SCRIPTS)
    if version > known:
        raise NewerError(
            f"{FILE} has schema {version}, this version knows {known}: start the newer version again"
        )
    upgrade(connection, [_SCHEMA / script for script in SCRIPTS])


def _damage(said: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(" ".join(said.split()))
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error
