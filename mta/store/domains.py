"""The sending domains, in `store.db`.

Between: `mta domain` changes them in place, rotation by the daemon's own writer; `signing` asks for one as
    mail comes in.
Contract: `DomainStore` is one connection. `look` asks whether anything has changed, and `find` answers as it
    was at the last look or later, from memory or by some rows. The functions below work on any connection,
    inside its transaction. What is kept and cannot be read is an error, never no domain.
Raises: StoreError, whose text is for the operator; KeyMoveError where a key cannot do that in its state.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mta.core.domain import DomainKey, KeyState, SendingDomain
from mta.core.limits.budget import SIGNERS
from mta.store.database import FILE, SCRIPTS, StoreError, migrate, schema
from mta.store.shared import SharedFile

_COLUMNS = "name, subdomains, streams, return_path, unsigned"
_KEY_COLUMNS = "selector, algorithm, public, state, since, created"
_FIND = f"SELECT {_COLUMNS} FROM domain WHERE name = ?"
_KEYS = f"SELECT {_KEY_COLUMNS} FROM dkim_key WHERE domain = ? ORDER BY created, selector"
_MOVING = (
    "SELECT DISTINCT domain FROM dkim_key WHERE state = 'pending' OR (state = 'active' AND since < ?) "
    "OR (state = 'retiring' AND since < ?) ORDER BY domain"
)
_NAMES = "SELECT name FROM domain ORDER BY name"
_ANY = "SELECT EXISTS (SELECT 1 FROM domain)"
_PUT = f"INSERT OR REPLACE INTO domain ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)"
_PUT_KEY = (
    f"INSERT INTO dkim_key (domain, {_KEY_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
    "algorithm = excluded.algorithm, public = excluded.public, state = excluded.state, "
    "since = excluded.since, created = excluded.created"
)
_UNTOLD = "SELECT domain, selector FROM dkim_key WHERE told != state ORDER BY domain, selector LIMIT 1000"
_TOLD = "UPDATE dkim_key SET told = state WHERE (domain, selector) = (?, ?)"
_REMOVE = ("DELETE FROM domain WHERE name = ?", "DELETE FROM dkim_key WHERE domain = ?")

Change = Callable[[SendingDomain], Iterable[DomainKey]]


class DomainStore:
    """The tables `domain` and `dkim_key`, in place."""

    def __init__(self, directory: Path) -> None:
        self._file = SharedFile(directory / FILE, migrate, StoreError)
        self._found: dict[str, SendingDomain | None] = {}
        self.is_empty = True  # nobody was added

    def open(self) -> None:
        """Open the file; create it where there is none."""
        self._file.open()
        self.look()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> DomainStore:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        return self._file.is_open

    def names(self) -> frozenset[str]:
        """Of all of them, as they are now."""
        return frozenset(name for (name,) in self._file.run(_NAMES))

    def look(self) -> int:
        """Another number than before if anything was changed in the file, by whomever."""
        if self._file.look():
            self._found.clear()
            self.is_empty = not self._file.run(_ANY)[0][0]
        return self._file.revision

    def find(self, name: str) -> SendingDomain | None:
        """Whose a From domain is: itself, or the nearest one above it that is for those below."""
        if self.is_empty:
            return None
        if name not in self._found:
            if len(self._found) >= SIGNERS:
                self._found.clear()
            self._found[name] = self._look_up(name)
        return self._found[name]

    def _look_up(self, name: str) -> SendingDomain | None:
        found = self.get(name)
        while found is None and "." in name:
            name = name.partition(".")[2]
            above = self.get(name)
            if above is not None and above.subdomains:
                found = above
        return found

    def get(self, name: str) -> SendingDomain | None:
        """The one of just this name, as it is now."""
        with self._readable():
            return read(self._file.connection, name)

    def all(self) -> list[SendingDomain]:
        """Each of them, as they are now, by name."""
        with self._readable():
            return list(read_all(self._file.connection))

    def put(self, domain: SendingDomain) -> None:
        """Keep it, with its keys; one of the same name goes."""
        with self._changing():
            remove(self._file.connection, domain.name)
            write(self._file.connection, domain)

    def remove(self, name: str) -> None:
        """Forget it, and its keys."""
        with self._changing():
            remove(self._file.connection, name)

    def change_keys(self, name: str, change: Change) -> SendingDomain:
        """What some keys become; the domain as it is then."""
        with self._changing():
            return change_keys(self._file.connection, name, change)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        try:
            with self._readable(), self._file.transaction():
                yield
        finally:
            self._found.clear()

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"{self._file.path}: {error}") from error


def read(connection: sqlite3.Connection, name: str) -> SendingDomain | None:
    """A domain with its keys."""
    row = connection.execute(_FIND, (name,)).fetchone()
    if row is None:
        return None
    try:
        return _domain(row, connection.execute(_KEYS, (name,)).fetchall())
    except (ValueError, TypeError) as error:
        raise StoreError(f"{FILE}: the domain {name!r} cannot be read: {error}") from error


def read_all(connection: sqlite3.Connection) -> Iterator[SendingDomain]:
    """Each of them, by name."""
    for (name,) in connection.execute(_NAMES).fetchall():
        if (found := read(connection, name)) is not None:
            yield found


def moving(connection: sqlite3.Connection, older: tuple[float, float]) -> list[SendingDomain]:
    """Those with a pending key, or one that has been active, or retiring, since before these times."""
    names = connection.execute(_MOVING, older).fetchall()
    return [found for (name,) in names if (found := read(connection, name)) is not None]


def untold(connection: sqlite3.Connection) -> list[tuple[SendingDomain, DomainKey]]:
    """Keys whose state no event has told of; from now on one has."""
    found = []
    for name, selector in connection.execute(_UNTOLD).fetchall():
        connection.execute(_TOLD, (name, selector))
        try:
            domain = read(connection, name)
        except StoreError:
            continue
        if domain is not None:
            found.append((domain, domain.key(selector)))
    return found


def write(connection: sqlite3.Connection, domain: SendingDomain) -> None:
    """Keep it, with its keys."""
    streams = json.dumps(domain.streams)
    row = (domain.name, int(domain.subdomains), streams, domain.return_path, domain.unsigned)
    connection.execute(_PUT, row)
    write_keys(connection, domain.name, domain.keys)


def remove(connection: sqlite3.Connection, name: str) -> None:
    """Forget it, and its keys."""
    for statement in _REMOVE:
        connection.execute(statement, (name,))


def write_keys(connection: sqlite3.Connection, name: str, keys: Iterable[DomainKey]) -> None:
    """Keep these keys of a domain."""
    for key in keys:
        row = (name, key.selector, key.algorithm, key.public, key.state.value, key.since, key.created)
        connection.execute(_PUT_KEY, row)


def change_keys(connection: sqlite3.Connection, name: str, change: Change) -> SendingDomain:
    """Let some keys of a domain become others, as it is now; the domain as it is then."""
    domain = read(connection, name)
    if domain is None:
        raise StoreError(f"there is no domain {name!r}: mta domain add {name}")
    write_keys(connection, name, change(domain))
    changed = read(connection, name)
    assert changed is not None
    return changed


def unfit(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Domains that cannot be read, and why, through a connection that can only read."""
    if schema(connection) != len(SCRIPTS):
        return  # `hosts.unfit` has told
    for (name,) in connection.execute(_NAMES).fetchall():
        try:
            read(connection, name)
        except StoreError as error:
            yield name, str(error)


def sound(connection: sqlite3.Connection) -> Iterator[SendingDomain]:
    """Those that can be read."""
    if schema(connection) != len(SCRIPTS):
        return
    for (name,) in connection.execute(_NAMES).fetchall():
        try:
            found = read(connection, name)
        except StoreError:
            continue
        if found is not None:
            yield found


def _domain(row: tuple[Any, ...], keys: list[tuple[Any, ...]]) -> SendingDomain:
    name, subdomains, streams, return_path, unsigned = row
    return SendingDomain(
        name, bool(subdomains), tuple(json.loads(streams)), return_path, unsigned, tuple(map(_key, keys))
    )


def _key(row: tuple[Any, ...]) -> DomainKey:
    selector, algorithm, public, state, since, created = row
    return DomainKey(selector, algorithm, public, KeyState(state), since, created)
