"""A file of the store that commands and the daemon have open at the same time.

Between: `credentials` and `domains` bring their statements; each process has a connection of its own.
Contract: `look` says whether anything was changed, by whomever, at the price of 4 us. `transaction` holds the
    file's lock; what is in it is on disk when it ends. The file is 0600 and belongs to the owner of its
    directory, whoever makes it. Who opens it does so alone: of two at once each would make the tables of a
    new one, and one would fail.
Raises: the error that it was given, whose text is for the operator.
Why: sqlite3 is used in place, in the loop: nothing here reads more than some rows; who writes is a command.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mta import disk

PRAGMAS = (
    "PRAGMA busy_timeout = 5000",  # milliseconds; first, for the next one takes a lock
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
)
# Differs from its last answer when another connection has committed; blind to our own commits.
_CHANGE = "PRAGMA data_version"
_GET_SCHEMA_VERSION = "PRAGMA user_version"
_BEGIN, _COMMIT, _ROLLBACK = "BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"


class SharedFile:
    """One connection to it."""

    def __init__(
        self, path: Path, prepare: Callable[[sqlite3.Connection], None], error: Callable[[str], Exception]
    ) -> None:
        self.path = path
        self._prepare = prepare
        self._error = error
        self._connection: sqlite3.Connection | None = None
        self._change: int | None = None  # data_version at the last look
        self.revision = 0

    def open(self) -> None:
        """Open the file, once more where it is open; create it where there is none."""
        self.close()
        try:
            _create(self.path)
            with disk.alone(self.path.parent):
                self._connection = sqlite3.connect(self.path, isolation_level=None)
                for pragma in PRAGMAS:
                    self._connection.execute(pragma)
                self._prepare(self._connection)
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise self._error(f"{self.path}: {disk.words(error)}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._change = None

    def look(self) -> bool:
        """Was anything changed since the last look?"""
        change = self.run(_CHANGE)[0][0]
        if change == self._change:
            return False
        self._change = change
        self.revision += 1
        return True

    def run(self, statement: str, values: tuple[object, ...] = ()) -> list[Any]:
        """All rows of one statement."""
        try:
            return self.connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._error(f"{self.path}: {error}") from error

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    @property
    def connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise self._error(f"{self.path}: is not open")
        return self._connection

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it, or nothing."""
        self.run(_BEGIN)
        try:
            yield
            self.run(_COMMIT)
        except BaseException:
            self.run(_ROLLBACK)
            raise
        finally:
            self._change = None


def upgrade(connection: sqlite3.Connection, scripts: Sequence[Path]) -> None:
    """Run those that the file has not had: `schema` counts them."""
    for script in scripts[schema(connection) :]:
        connection.executescript(script.read_text())


def schema(connection: sqlite3.Connection) -> int:
    """The schema of the file; 0 where it is new."""
    (version,) = connection.execute(_GET_SCHEMA_VERSION).fetchone()
    return int(version)


def _create(path: Path) -> None:
    """Make the file ours alone before SQLite sees it; its WAL gets the same mode."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    disk.create(path)
    path.chmod(0o600)
    disk.give_to_owner(path)
