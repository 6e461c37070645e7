"""Is the spool sound? Every file and every row looked at.

Between: `mta spool verify`, in a process of its own: beside the daemon, without one, or on a backup.
Contract: nothing is written. `pause` is called when a look must be repeated because something may have been
    under way; it returns some seconds later. Memory does not grow with the spool: of each kind the first
    `LISTED` findings are told, the others counted.
Raises: SpoolError where one cannot look (no spool, no access, another schema).
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import msgspec

from mta import disk
from mta.config.settings import KEYS, SECRET
from mta.core.domain import KeyState
from mta.core.queueid import text
from mta.signing import secret
from mta.signing.keys import KeyFileError, KeyFolder
from mta.signing.secret import SecretError
from mta.spool import database, invariants
from mta.spool import statements as sql
from mta.spool.bodies import contents
from mta.spool.database import FILE, SpoolError
from mta.spool.invariants import Violation
from mta.store import credentials, domains, hosts
from mta.store.credentials import CredentialError
from mta.store.database import FILE as STORE
from mta.store.database import SCRIPTS, StoreError
from mta.store.domains import UnreadDomain
from mta.store.shared import schema

LISTED = 20  # findings of a kind
CHUNK = 1000  # messages looked at in one go
MOST_ORPHANS = 10_000  # looked at twice
TAIL = 1024 * 1024  # octets; no event is longer
DAMAGED = "stop mta and repair it, as docs/disk.md says"
BEGUN_ANEW = (
    "the next start of mta sets it aside and begins another: what was known of hosts is learned again"
)
MISSING = "it cannot be delivered; have its sender send it again, and look for who removes files here"
SWEPT = "the next start of mta removes it"
UNKNOWN = (
    "what comes back for mail that was sent with it is not known as ours: put it, from a backup, in a line "
    "behind the others"
)
REPEATED = "numbers are given twice: while mta is stopped, move this log away and let it begin another"

# Of these codes the file itself is the cause; the others (such as a disk without room) say that we could not
# look. An I/O error is told by its extended code.
_DAMAGE = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_UNREADABLE = {
    sqlite3.SQLITE_IOERR_READ,
    sqlite3.SQLITE_IOERR_SHORT_READ,
    sqlite3.SQLITE_IOERR_CORRUPTFS,
    sqlite3.SQLITE_IOERR_DATA,
}


@dataclass
class Verification:
    """What was looked at, and what was found."""

    messages: int = 0
    recipients: int = 0
    files: int = 0  # contents in files
    findings: list[Violation] = field(default_factory=list)
    unlisted: int = 0

    def add(self, found: Iterable[Violation]) -> None:
        """One kind of findings."""
        for number, finding in enumerate(found):
            if number < LISTED:
                self.findings.append(finding)
            else:
                self.unlisted += 1

    @contextmanager
    def reading(self, path: Path) -> Iterator[None]:
        """A file that cannot be read is a finding, too."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0)
            if code & 0xFF not in _DAMAGE and code not in _UNREADABLE:
                raise
            damage = Violation(path.name, str(error), _remedy(path))
            if damage not in self.findings:
                self.findings.append(damage)


def verify(
    directory: Path,
    pause: Callable[[], None],
    quick: bool = False,
    event_log: Path | None = None,
    secret_file: Path | None = None,
) -> Verification:
    """Look at the spool of `directory`, at its secret, and at the log that its events go to."""
    if not (directory / FILE).is_file():
        raise SpoolError(f"there is no spool: {directory / FILE} does not exist")
    verdict = Verification()
    pragma = "PRAGMA quick_check" if quick else "PRAGMA integrity_check"
    try:
        for path in sorted(directory.glob("*.db")):
            with closing(disk.read_only(path)) as connection:
                connection.text_factory = _readable
                with verdict.reading(path):
                    verdict.add(_whole(connection, path, pragma))
                if path.name == FILE:
                    _queue(connection, path, pause, event_log, verdict)
                    with verdict.reading(path):
                        verdict.add(_secret(connection, secret_file or directory / SECRET))
                elif path.name == "credentials.db":
                    with verdict.reading(path):
                        verdict.add(_credentials(connection))
                elif path.name == STORE:
                    with verdict.reading(path):
                        verdict.add(_hosts(connection))
                        verdict.add(_domains(connection, directory, is_backup=event_log is None))
    except (OSError, sqlite3.Error, CredentialError, StoreError) as error:
        raise SpoolError(f"{directory} cannot be looked at: {disk.words(error)}") from error
    return verdict


def _queue(
    connection: sqlite3.Connection,
    path: Path,
    pause: Callable[[], None],
    event_log: Path | None,
    verdict: Verification,
) -> None:
    bodies = path.parent / "bodies"
    # The log first: every line in it has been in the queue before.
    logged = 0 if event_log is None else _last_seq(event_log)
    with verdict.reading(path):
        database.refuse_other_schema(connection)
        verdict.messages, verdict.recipients, verdict.files = connection.execute(sql.TOTALS).fetchone()
    for found in (
        invariants.related(connection),
        invariants.recipients(connection),
        invariants.carrying(connection),
        invariants.outbox(connection),
        _log_ahead(connection, logged),
        _files(connection, bodies),
        _orphans(connection, bodies, pause),
    ):
        with verdict.reading(path):
            verdict.add(found)


def _whole(connection: sqlite3.Connection, path: Path, pragma: str) -> Iterator[Violation]:
    """SQLite's own look at its pages and indexes."""
    for (said,) in connection.execute(pragma):
        if said != "ok":
            yield Violation(path.name, " ".join(said.split()), _remedy(path))


def _remedy(path: Path) -> str:
    return BEGUN_ANEW if path.name == STORE else DAMAGED


def _credentials(connection: sqlite3.Connection) -> Iterator[Violation]:
    for login, what in credentials.unfit(connection):
        yield Violation(
            "credentials.db", f"{login}: {what}", f"mta credential remove {login}, and add it anew"
        )


def _domains(connection: sqlite3.Connection, directory: Path, is_backup: bool) -> Iterator[Violation]:
    """Domains, and the secrets of their keys, which a backup need not have."""
    if schema(connection) != len(SCRIPTS):
        return  # `_hosts` has told
    folder, known = KeyFolder(directory), set()
    has_keys = not is_backup or (directory / KEYS).is_dir()
    for domain in domains.read_all(connection):
        known.add(domain.name)
        if isinstance(domain, UnreadDomain):
            remedy = f"mta domain remove {domain.name}, and add it anew"
            yield Violation(STORE, f"{domain.name}: {domain.why}", remedy)
            continue
        for key in domain.keys if has_keys else ():
            what = "" if key.state is KeyState.RETIRED else folder.complaint(domain.name, key)
            if what:
                remedy = f"restore it, or mta domain rotate {domain.name}"
                yield Violation(KEYS, f"{domain.name}: {what}", remedy)
    try:
        lost = [name for name in folder.domains if name not in known]
    except KeyFileError as error:
        yield Violation(KEYS, str(error), "let the user that mta runs as read it, or restore it")
        return
    for name in lost:
        yield Violation(KEYS, f"{name} has keys and is in no store", f"mta domain add {name}, or remove")


def _hosts(connection: sqlite3.Connection) -> Iterator[Violation]:
    for host, what in hosts.unfit(connection):
        yield Violation(STORE, f"{host}: {what}", "the daemon does without it: nothing is to be done")


def _secret(connection: sqlite3.Connection, path: Path) -> Iterator[Violation]:
    """It can be used, and has what the last start signed with."""
    stamped = connection.execute(sql.GET_META, ("secret",)).fetchone()
    try:
        known = [secret.fingerprint(each) for each in secret.read(path)]
    except FileNotFoundError:
        known = []  # before the first start there is none
    except SecretError as error:
        yield Violation(path.name, str(error), "mta does not start like that")
        return
    if stamped is not None and stamped[0] not in known:
        what = "the secret of the last start is not in it" if known else "it is missing"
        yield Violation(path.name, what, UNKNOWN)


def _files(connection: sqlite3.Connection, bodies: Path) -> Iterator[Violation]:
    """Every content that is a file is there, and whole."""
    last, rows = 0, [(0, 0)]
    while rows:
        rows = connection.execute(sql.LARGE, (last, CHUNK)).fetchall()
        found = [(message, what) for message, size in rows if (what := _wrong_file(bodies, message, size))]
        # Asked after we looked: the daemon removes a file later than its row.
        still = set(_in_files(connection, [message for message, _ in found]))
        for message, what in found:
            if message in still:
                yield Violation(invariants.shown(message), what, MISSING)
        last = rows[-1][0] if rows else last


def _wrong_file(bodies: Path, message: int, size: int | None) -> str:
    try:
        found = (bodies / text(message)).stat().st_size
    except FileNotFoundError:
        return "its file in bodies/ is missing"
    if size is not None and found != size:
        return f"its file in bodies/ has {found} octets, and {size} were received"
    return ""


def _orphans(connection: sqlite3.Connection, bodies: Path, pause: Callable[[], None]) -> Iterator[Violation]:
    """Every file has its row, but for the moment before its commit and the one after its removal."""
    found = list(islice(_strangers(connection, contents(bodies)), MOST_ORPHANS))
    if not found:
        return
    pause()
    for message in _strangers(connection, iter(found)):
        if (bodies / text(message)).exists():
            yield Violation(f"bodies/{text(message)}", "a content without its message", SWEPT)


def _strangers(connection: sqlite3.Connection, messages: Iterator[int]) -> Iterator[int]:
    while chunk := list(islice(messages, CHUNK)):
        yield from sorted(set(chunk).difference(_in_files(connection, chunk)))


def _in_files(connection: sqlite3.Connection, messages: list[int]) -> list[int]:
    """Those of these messages whose content is a file."""
    (found,) = connection.execute(sql.FILES, (json.dumps(messages),)).fetchone()
    return json.loads(found)  # type: ignore[no-any-return]


def _log_ahead(connection: sqlite3.Connection, logged: int) -> Iterator[Violation]:
    """A spool that was put back by hand gives numbers that the log has already."""
    ((following,),) = connection.execute(sql.GET_META, ("next_seq",)).fetchall() or ((1,),)
    for seq, lines in connection.execute(sql.LAST_OUTBOX):
        following = max(following, seq + lines.count(b"\n"))
    if logged >= following:
        what = f"the event log has come to number {logged}, the spool goes on at {following}"
        yield Violation("event log", what, REPEATED)


def _last_seq(path: Path) -> int:
    """The number of the last whole line; 0 where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - TAIL, 0))
            lines = file.read().rpartition(b"\n")[0].splitlines()
        return int(msgspec.json.decode(lines[-1])["seq"]) if lines else 0
    except (FileNotFoundError, msgspec.DecodeError, KeyError, TypeError, ValueError):
        return 0


def _readable(octets: bytes) -> str:
    """Damaged text is shown, not refused."""
    return octets.decode("utf-8", "replace")
