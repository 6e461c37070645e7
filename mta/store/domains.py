"""The sending domains, in `store.db`.

Between: `mta domain` changes them in place, rotation by the daemon's own writer; `signing` asks for one as
    mail comes in.
Contract: `DomainStore` is one connection. `look` asks whether anything has changed, and `find` answers as it
    was at the last look or later, from memory or by some rows. The functions below work on any connection,
    inside its transaction. What is kept and cannot be read is an error, never no domain; who asks for all
    gets the others. Before `open` has succeeded each answer is an error, too.
Raises: StoreError, whose text is for the operator; KeyMoveError where a key cannot do that in its state.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mta.core.domain import DomainKey, KeyState, SendingDomain, changed
from mta.core.limits.budget import SIGNERS
from mta.store.database import FILE, StoreError, migrate
from mta.store.shared import SharedFile

_COLUMNS = "name, subdomains, streams, return_path, unsigned"
_KEY_COLUMNS = "selector, algorithm, public, state, since, created"
_FIND = f"SELECT {_COLUMNS} FROM domain WHERE name = ?"
_KEYS = f"SELECT {_KEY_COLUMNS} FROM dkim_key WHERE domain = ? ORDER BY created, selector"
_MOVING = (
    "SELECT DISTINCT CAST(domain AS BLOB) FROM dkim_key "
    "WHERE state = 'pending' OR (state = 'active' AND since < ?) OR (state = 'retiring' AND since < ?) "
    "ORDER BY domain"
)
_NAMES = "SELECT CAST(name AS BLOB) FROM domain ORDER BY name"
_ANY = "SELECT EXISTS (SELECT 1 FROM domain)"
_ADD = f"INSERT INTO domain ({_COLUMNS}) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING name"
_PUT_KEY = (
    f"INSERT INTO dkim_key (domain, {_KEY_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
    "algorithm = excluded.algorithm, public = excluded.public, state = excluded.state, "
    "since = excluded.since, created = excluded.created"
)
_UNTOLD = (
    "SELECT CAST(domain AS BLOB), selector FROM dkim_key WHERE told != state "
    "ORDER BY domain, selector LIMIT 1000"
)
_TOLD = "UPDATE dkim_key SET told = state WHERE (domain, selector) = (?, ?)"
_REMOVE = "DELETE FROM domain WHERE name = ?"
_REMOVE_KEYS = "DELETE FROM dkim_key WHERE domain = ?"
_REMOVE_KEY = "DELETE FROM dkim_key WHERE (domain, selector) = (?, ?)"

log = logging.getLogger(__name__)

Change = Callable[[SendingDomain], Iterable[DomainKey]]


class UnreadDomain(NamedTuple):
    """One that is kept and cannot be read."""

    name: str
    why: str


class DomainStore:
    """The tables `domain` and `dkim_key`, in place."""

    def __init__(self, directory: Path) -> None:
        self._file = SharedFile(directory / FILE, migrate, StoreError)
        self._found: dict[str, SendingDomain | None] = {}
        self.is_empty = False  # nobody was added, and that is known

    def open(self) -> None:
        """Open the file; create it where there is none. Call it again where it failed."""
        self._file.open()
        try:
            self.look()
        except StoreError:
            self.close()
            raise

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
        return frozenset(_shown(name) for (name,) in self._file.run(_NAMES))

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
        """Each that can be read, as they are now, by name."""
        return [found for found in self._read_all() if isinstance(found, SendingDomain)]

    def unread(self) -> list[UnreadDomain]:
        """Each that cannot be read."""
        return [found for found in self._read_all() if isinstance(found, UnreadDomain)]

    def _read_all(self) -> list[SendingDomain | UnreadDomain]:
        with self._readable():
            return list(read_all(self._file.connection))

    def put(self, domain: SendingDomain) -> None:
        """Keep a new one, with its keys."""
        with self._changing():
            write(self._file.connection, domain)

    def remove(self, name: str) -> bool:
        """Forget it and its keys, even where it cannot be read; was there one?"""
        with self._changing():
            return remove(self._file.connection, name)

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
    try:
        row = connection.execute(_FIND, (name,)).fetchone()
        return None if row is None else _domain(row, connection.execute(_KEYS, (name,)).fetchall())
    except (ValueError, TypeError, sqlite3.OperationalError) as error:
        if hasattr(error, "sqlite_errorcode"):
            raise  # it is not that a text is no UTF-8: that is Python's own
        raise StoreError(f"{FILE}: the domain {name!r} cannot be read: {error}") from error


def read_all(connection: sqlite3.Connection) -> Iterator[SendingDomain | UnreadDomain]:
    """Each of them, by name."""
    return _each(connection, connection.execute(_NAMES).fetchall())


def moving(connection: sqlite3.Connection, older: tuple[float, float]) -> list[SendingDomain]:
    """Those with a pending key, or one that has been active, or retiring, since before these times."""
    found: list[SendingDomain] = []
    for each in _each(connection, connection.execute(_MOVING, older).fetchall()):
        if isinstance(each, UnreadDomain):
            log.error("the keys of a domain stay as they are: %s", each.why)
        else:
            found.append(each)
    return found


def _each(
    connection: sqlite3.Connection, names: list[tuple[bytes]]
) -> Iterator[SendingDomain | UnreadDomain]:
    """One that is damaged takes no other with it."""
    for (octets,) in names:
        try:
            found = read(connection, octets.decode())
        except (StoreError, UnicodeDecodeError) as error:
            yield UnreadDomain(_shown(octets), str(error))
            continue
        if found is not None:
            yield found


def untold(connection: sqlite3.Connection) -> list[tuple[SendingDomain, DomainKey]]:
    """Keys whose state no event has told of; from now on one has."""
    found = []
    for octets, selector in connection.execute(_UNTOLD).fetchall():
        name = _shown(octets)
        connection.execute(_TOLD, (name, selector))
        try:
            domain = read(connection, name)
        except StoreError:
            continue
        if domain is not None:
            found.append((domain, domain.key(selector)))
    return found


def write(connection: sqlite3.Connection, domain: SendingDomain) -> None:
    """Keep a new one, with its keys."""
    streams = json.dumps(domain.streams)
    row = (domain.name, int(domain.subdomains), streams, domain.return_path, domain.unsigned)
    if not connection.execute(_ADD, row).fetchall():
        raise StoreError(f"{domain.name} is there already: mta domain show {domain.name}")
    connection.execute(_REMOVE_KEYS, (domain.name,))  # of a row that was lost
    _put_keys(connection, domain)


def remove(connection: sqlite3.Connection, name: str) -> bool:
    """Forget it and its keys, even where it cannot be read; was there one?"""
    connection.execute(_REMOVE_KEYS, (name,))
    return connection.execute(_REMOVE, (name,)).rowcount > 0


def change_keys(connection: sqlite3.Connection, name: str, change: Change) -> SendingDomain:
    """Let some keys of a domain become others, as it is now; the domain as it is then."""
    domain = read(connection, name)
    if domain is None:
        raise StoreError(f"there is no domain {name!r}: mta domain add {name}")
    after = changed(domain, change(domain))
    for selector in {key.selector for key in domain.keys}.difference(key.selector for key in after.keys):
        connection.execute(_REMOVE_KEY, (name, selector))
    _put_keys(connection, after)
    return after


def _put_keys(connection: sqlite3.Connection, domain: SendingDomain) -> None:
    for key in domain.keys:
        row = (domain.name, key.selector, key.algorithm, key.public, key.state.value, key.since, key.created)
        connection.execute(_PUT_KEY, row)


def _shown(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")


def _domain(row: tuple[Any, ...], keys: list[tuple[Any, ...]]) -> SendingDomain:
    name, subdomains, streams, return_path, unsigned = row
    return SendingDomain(
        name, bool(subdomains), tuple(json.loads(streams)), return_path, unsigned, tuple(map(_key, keys))
    )


def _key(row: tuple[Any, ...]) -> DomainKey:
    selector, algorithm, public, state, since, created = row
    return DomainKey(selector, algorithm, public, KeyState(state), since, created)
