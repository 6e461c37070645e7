"""The store of credentials: who may submit, and what proves it.

Between: `mta credential` writes it, authentication in the running daemon reads it; each process has its own
    connection, and a change by one is seen by the other at its next question.
Contract: `look` asks whether anything has changed, and `find` answers as it was at the last look or later, by
    one row. `current` and `bound` read all of theirs: commands may, and threads. A verifier is
    what is kept of a secret: argon2id for a password, SHA-256 for a key (160 random bits need no slow
    hash), nothing for a network. The file is 0600 and belongs to the owner of its directory.
Raises: CredentialError, whose text is for the operator.
Standards: RFC 9106 (argon2id).
Why: sqlite3 is used in place: a look costs 4 us, a row 20, and what was found is kept until a change. All of
    20,000 rows took 1.2 s, in which no mail moved.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import secrets
import sqlite3
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from mta import disk
from mta.core.credential import AuthKind, Credential
from mta.core.limits.throttle import Rate
from mta.core.networks import Network, parse_networks
from mta.store.shared import SharedFile, schema, upgrade

_SCHEMA = Path(__file__).with_name("schema")
_SCRIPTS = (
    "credentials-0001.sql",
    "credentials-0002.sql",
    "credentials-0003.sql",
    "credentials-0004.sql",
)  # PRAGMA user_version counts them
_COLUMNS = (
    "login, kind, verifier, tenant, streams, senders, networks, "
    "message_size, recipients, rate_amount, rate_period, notify, priority, delay"
)
_LIST = f"SELECT {_COLUMNS} FROM credential ORDER BY login"
_FIND = f"SELECT {_COLUMNS} FROM credential WHERE login = ?"
_BOUND = "SELECT login, networks FROM credential WHERE kind = 'network' ORDER BY login LIMIT ?"
_ADD = (
    f"INSERT INTO credential ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT DO NOTHING RETURNING login"
)
_REMOVE = "DELETE FROM credential WHERE login = ? RETURNING login"
_REPLACE = "UPDATE credential SET verifier = ? WHERE login = ? AND kind = ? RETURNING login"
_VERIFIERS = {
    "password": re.compile(r"\$argon2id\$v=\d+\$m=\d+,t=\d+,p=\d+\$[\w+/]+\$[\w+/]+"),
    "key": re.compile(r"[0-9a-f]{64}"),
    "network": re.compile(""),
}

ARGON2ID = PasswordHasher()  # RFC 9106 4, the second recommended choice: 64 MiB, about 0.1 s
KEY_PREFIX = "mta_"  # a key in a log or a repository can be searched for
SHORTEST_PASSWORD = 8  # characters, NIST SP 800-63B 5.1.1.1
KEPT = 4096  # credentials that were found, until something changes
_UNREADABLE = (ValueError, TypeError, LookupError)  # what a row raises that is not as it was written

log = logging.getLogger(__name__)


class CredentialError(Exception):
    """The store refuses, or cannot be read."""


class StoredCredential(NamedTuple):
    """A credential and what proves it."""

    credential: Credential
    verifier: str


def generate(kind: AuthKind) -> str:
    """A new secret: 192 random bits for a key, 128 for a password."""
    return KEY_PREFIX + secrets.token_hex(24) if kind == "key" else secrets.token_hex(16)


def proves_key(secret: bytes, verifier: str) -> bool:
    """Is this the key? Microseconds."""
    return hmac.compare_digest(hashlib.sha256(secret).hexdigest(), verifier)


def proves_password(secret: bytes, verifier: str) -> bool:
    """Is this the password? About 0.1 s with the GIL released: call it in a thread."""
    try:
        return ARGON2ID.verify(verifier, secret)  # the cost is the verifier's own
    except VerifyMismatchError:
        return False


class CredentialStore:
    """The file `credentials.db`."""

    def __init__(self, path: Path, hasher: PasswordHasher = ARGON2ID) -> None:
        self._path = path
        self._hasher = hasher
        self._file = SharedFile(path, _prepare, CredentialError)
        self._run = self._file.run
        self._found: dict[str, StoredCredential] = {}

    def open(self) -> None:
        """Open the file; create it where there is none."""
        self._file.open()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> CredentialStore:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def look(self) -> int:
        """Another number than before if anything was changed, by whomever."""
        if self._file.look():
            self._found.clear()
        return self._file.revision

    def find(self, login: str) -> StoredCredential | None:
        """One of them, as it was at the last look or later."""
        stored = self._found.get(login)
        if stored is None and (rows := self._run(_FIND, (login,))):
            if len(self._found) >= KEPT:
                self._found.clear()
            stored = self._found[login] = self._parse(rows[0])
        return stored

    def get(self, login: str) -> Credential | None:
        """What it allows, as it is now."""
        self.look()
        stored = self.find(login)
        return stored.credential if stored else None

    def current(self) -> Mapping[str, StoredCredential]:
        """All of them by login, as they are now."""
        return {row[0]: self._parse(row) for row in self._run(_LIST)}

    def bound(self, most: int = -1) -> list[tuple[Network, str]]:
        """The networks that are credentials, and whose; any thread may ask. Of so many logins at most."""
        found: list[tuple[Network, str]] = []
        try:
            with closing(disk.read_only(self._path)) as connection:
                connection.text_factory = _readable
                rows = connection.execute(_BOUND, (most,)).fetchall()
        except sqlite3.Error as error:
            raise CredentialError(f"{self._path}: {disk.words(error)}") from error
        for login, networks in rows:
            try:
                found += [(network, login) for network in parse_networks(json.loads(networks))]
            except (ValueError, TypeError) as error:
                log.error("%s: the networks of %r cannot be read: %s", self._path, login, error)
        return found

    def add(self, credential: Credential, secret: str = "") -> None:
        """Keep a new credential; a network kind has no secret."""
        row = _row(credential, self._protect(credential.kind, secret))
        with self._transaction():
            self._refuse_bound_twice(credential)
            if not self._run(_ADD, row):
                raise CredentialError(f"{credential.login!r} exists already: remove it first")

    def remove(self, login: str) -> None:
        with self._transaction():
            if not self._run(_REMOVE, (login,)):
                raise CredentialError(f"there is no credential {login!r}")

    def replace_secret(self, login: str, secret: str) -> None:
        """Another secret of the same kind; the old one stops working at once."""
        credential = self.get(login)
        if credential is None:
            raise CredentialError(f"there is no credential {login!r}")
        if credential.kind == "network":
            raise CredentialError(f"{login!r} has no secret: its networks are what it is known by")
        verifier = self._protect(credential.kind, secret)
        with self._transaction():
            if not self._run(_REPLACE, (verifier, login, credential.kind)):
                raise CredentialError(f"{login!r} was changed by someone else meanwhile")

    def impossible(self) -> str:
        """A verifier that takes as long as any other, and whose password nobody knows."""
        hasher = self._hasher
        salt, digest = (b64encode(bytes(n)).decode().rstrip("=") for n in (hasher.salt_len, hasher.hash_len))
        cost = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
        return f"$argon2id$v=19${cost}${salt}${digest}"

    def _protect(self, kind: AuthKind, secret: str) -> str:
        if kind == "network":
            return ""
        if kind == "key":
            return hashlib.sha256(secret.encode()).hexdigest()
        if len(secret) < SHORTEST_PASSWORD:
            raise CredentialError(f"the password is too short: {SHORTEST_PASSWORD} characters are the least")
        return self._hasher.hash(secret)

    def _refuse_bound_twice(self, new: Credential) -> None:
        if new.kind != "network":
            return
        for network, owner in self.bound():
            if str(network) in new.networks and owner != new.login:
                raise CredentialError(f"{network} is bound to {owner!r} already")

    def _parse(self, row: tuple[Any, ...]) -> StoredCredential:
        try:
            return _stored(row)
        except _UNREADABLE as error:
            raise CredentialError(f"{self._path}: {row[0]!r} cannot be read: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            with self._file.transaction():
                yield
        finally:
            self._found.clear()


def _prepare(connection: sqlite3.Connection) -> None:
    if schema(connection) > len(_SCRIPTS):
        raise sqlite3.NotSupportedError("was written by a newer version of this program")
    upgrade(connection, [_SCHEMA / script for script in _SCRIPTS])


def unfit(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Credentials that nobody could use, and why, through a connection that can only read."""
    version = schema(connection)
    if version != len(_SCRIPTS):
        raise CredentialError(f"credentials.db has schema {version}, this version's is {len(_SCRIPTS)}")
    for row in connection.execute(_LIST):
        try:
            credential, verifier = _stored(row)
        except _UNREADABLE as error:
            yield str(row[0]), f"cannot be read: {error}"
            continue
        if not _VERIFIERS[credential.kind].fullmatch(verifier):
            yield credential.login, f"what is kept of its secret proves no {credential.kind}"


def _readable(octets: bytes) -> str:
    """One damaged row must not hide the others."""
    return octets.decode("utf-8", "replace")


def _row(credential: Credential, verifier: str) -> tuple[object, ...]:
    amount, period = credential.rate or (None, None)
    return (
        credential.login,
        credential.kind,
        verifier,
        credential.tenant,
        json.dumps(credential.streams),
        json.dumps(credential.senders),
        json.dumps(credential.networks),
        credential.message_size,
        credential.recipients,
        amount,
        period,
        credential.notify,
        credential.priority,
        credential.delay,
    )


def _stored(row: tuple[Any, ...]) -> StoredCredential:
    login, kind, verifier, tenant, named, senders, networks, *limits, priority, delay = row
    size, recipients, amount, period, notify = limits
    streams = tuple(json.loads(named))
    credential = Credential(
        login=login,
        tenant=tenant,
        stream=streams[0],
        streams=streams,
        senders=tuple(json.loads(senders)),
        message_size=size,
        recipients=recipients,
        rate=Rate(amount, period) if amount else None,
        networks=tuple(json.loads(networks)),
        notify=bool(notify),
        kind=kind,
        priority=priority,
        delay=delay,
    )
    return StoredCredential(credential, verifier)
