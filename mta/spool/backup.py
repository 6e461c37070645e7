"""A copy of the spool, made while the daemon works.

Between: `mta spool backup` in a process of its own; the queue before it changes its schema.
Contract: the copy is the spool as it was at one moment: every message that was owned then, but for those
    whose content was delivered before it could be taken. It is on disk when `backup` returns; until then it
    is called `DIRECTORY.partial`. Large contents are hard links where the file system has them. A copy may
    lie where others can read it: private keys are in it only when somebody asks for them.
Raises: SpoolError, whose text says why and what to do; nothing is left behind then.
Why: contents that are files come and go while we look. So: link what there is, take the snapshot, link
    what its rows name besides. The daemon waits for none of this.
    What our tokens are made with (`*.secret`) belongs to it: they come back for weeks.
    A spool that is restored would give its next events numbers that the event log has already, and who
    drops repeats would drop them. The copy's own numbers go on far away, by one row in its outbox.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from mta import disk
from mta.config.settings import KEYS
from mta.core.queueid import text
from mta.spool import database
from mta.spool import statements as sql
from mta.spool.bodies import contents
from mta.spool.database import FILE, SpoolError

FAR = 10**12  # event numbers; more than a spool writes between a backup and the end of its service
CHUNK = 1000  # messages looked at in one go
FORMER = (
    "before-schema-"  # the one backup that lies in its spool: it is for the way back, not for a lost disk
)
BEGUN_ANEW = "store.db"  # where it is damaged; `store.database` says so
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}

_VACUUM = "VACUUM INTO ?"
_PRAGMAS = (  # of a copy that is thrown away when we fail
    "PRAGMA journal_mode = MEMORY",
    "PRAGMA synchronous = OFF",
)
_GO_ON_AT = (
    "INSERT INTO outbox (seq, lines, finished) SELECT ? + max(ifnull((SELECT max(seq) FROM outbox), 0), "
    "ifnull((SELECT value FROM meta WHERE name = 'next_seq'), 0)), x'', '[]'"
)


class Backup(NamedTuple):
    """What a copy holds, and what it does not."""

    messages: int
    recipients: int
    files: int  # contents in files
    copied: int  # those of them that could not be linked
    left: int  # messages that were delivered while the copy was made
    missing: int  # messages whose content the spool itself has lost


def backup(directory: Path, target: Path, *besides: Path, with_keys: bool = False) -> Backup:
    """Copy the spool of `directory`, and some small files, to `target`, which must not exist.

    Private keys of domains only when asked.
    """
    target = target.absolute()
    if os.path.lexists(target):
        raise SpoolError(f"{target} is there already: name a directory that is not")
    if not (directory / FILE).is_file():
        raise SpoolError(f"there is no spool to copy: {directory / FILE} does not exist")
    if target.parent == directory.absolute() and not target.name.startswith(FORMER):
        raise SpoolError(f"{target} is in the spool itself, and would be lost with it: name another place")
    partial = _partial(target)
    try:
        partial.mkdir(mode=0o700)
    except FileExistsError:
        raise SpoolError(
            f"{partial} is there: another backup is at work, or was interrupted; in that case remove it"
        ) from None
    except FileNotFoundError:
        raise SpoolError(f"no backup was made: {target.parent} does not exist; make it first") from None
    except OSError as error:
        raise SpoolError(f"no backup was made: {disk.words(error)}") from error
    try:
        if with_keys and (directory / KEYS).is_dir():
            whole = shutil.ignore_patterns(f"*{disk.PARTIAL}")
            shutil.copytree(directory / KEYS, partial / KEYS, ignore=whole)
        held = Copy(directory, partial, besides).make()
        partial.rename(target)
        _sync(target.parent)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError | sqlite3.Error):
            raise SpoolError(f"no backup was made: {disk.words(error)}") from error
        raise
    return held


def keep_former(directory: Path, connection: sqlite3.Connection) -> Path | None:
    """Before a schema changes: leave the spool as it is, for the way back. Call it with the spool's lock."""
    known, version = len(database.scripts()), database.schema(connection)
    if not 0 < version < known:
        return None
    target = directory / f"{FORMER}{known}"
    for outdated in (target, _partial(target)):  # of a start that came no further; we have not changed since
        if outdated.exists():
            shutil.rmtree(outdated)
    try:
        backup(directory, target)
    except SpoolError as error:
        raise SpoolError(f"schema {version} cannot become {known} before it is backed up: {error}") from error
    return target


def _partial(target: Path) -> Path:
    return target.with_name(target.name + disk.PARTIAL)


class Copy:
    """The steps, in their order."""

    def __init__(self, directory: Path, partial: Path, besides: Iterable[Path] = ()) -> None:
        self._directory = directory
        self._partial = partial
        self._small = {path.name: path for path in (*directory.glob("*.secret"), *besides)}
        self._from = directory / "bodies"
        self._to = partial / "bodies"
        self._copied: set[int] = set()
        self._left = self._missing = 0

    def make(self) -> Backup:
        self.gather()
        self.snapshot()
        return self.complete()

    def gather(self) -> None:
        """Take the files that there are, before they go."""
        self._to.mkdir(mode=0o700)
        for chunk in _chunks(contents(self._from)):
            for message in chunk:
                self._take(message)

    def snapshot(self) -> None:
        """The moment of this copy."""
        self._vacuum(self._directory / FILE)
        for path in sorted(self._directory.glob("*.db")):
            if path.name != FILE:
                self._vacuum_if_sound(path)
        for name, path in self._small.items():
            with suppress(FileNotFoundError):  # it is made at the first start
                octets = path.read_bytes()
                with os.fdopen(_private(self._partial / name), "wb") as file:
                    file.write(octets)

    def complete(self) -> Backup:
        """Bring files and rows together, and all of it to the disk."""
        with closing(sqlite3.connect(self._partial / FILE, isolation_level=None)) as connection:
            for pragma in _PRAGMAS:
                connection.execute(pragma)
            self._reconcile(connection)
            self._drop_strangers(connection)
            connection.execute(_GO_ON_AT, (FAR,))
            messages, recipients, files = connection.execute(sql.TOTALS).fetchone()
        self._settle()
        return Backup(messages, recipients, files, len(self._copied), self._left, self._missing)

    def _vacuum(self, path: Path) -> None:
        made = self._partial / path.name
        os.close(_private(made))
        with closing(disk.read_only(path)) as connection:
            connection.execute(_VACUUM, (str(made),))

    def _vacuum_if_sound(self, path: Path) -> None:
        """What the daemon would begin anew holds up no backup, nor the upgrade that makes one."""
        try:
            self._vacuum(path)
        except sqlite3.Error as error:
            if path.name != BEGUN_ANEW or not disk.is_damage(error):
                raise
            (self._partial / path.name).unlink()

    def _take(self, message: int) -> bool:
        """Link or copy a content, if it is still there."""
        name = text(message)
        try:
            os.link(self._from / name, self._to / name)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            return self._copy(message)
        return True

    def _copy(self, message: int) -> bool:
        name = text(message)
        try:
            source = (self._from / name).open("rb")
        except FileNotFoundError:
            return False
        with source, os.fdopen(_private(self._to / name), "wb") as file:
            shutil.copyfileobj(source, file)
            file.flush()
            os.fsync(file.fileno())
        self._copied.add(message)
        return True

    def _reconcile(self, connection: sqlite3.Connection) -> None:
        """Take what the snapshot names and the first round did not find, or found half written."""
        last, rows = 0, [(0, 0)]
        with closing(database.connect_reader(self._directory)) as live:
            while rows:
                rows = connection.execute(sql.LARGE, (last, CHUNK)).fetchall()
                gone = [message for message, size in rows if not self._is_whole(message, size)]
                # Asked after we looked: the daemon removes a file later than its row.
                lost = set(_files_of(live, gone))
                self._missing += len(lost)
                self._leave(connection, [message for message in gone if message not in lost])
                last = rows[-1][0] if rows else last

    def _is_whole(self, message: int, size: int | None) -> bool:
        """Is it in the copy, or can it still be? What is copied while it is written comes out short."""
        path = self._to / text(message)
        try:
            found = path.stat().st_size
            if size is None or found == size:
                return True
            path.unlink()
        except FileNotFoundError:
            pass
        self._copied.discard(message)
        return self._take(message)

    def _leave(self, connection: sqlite3.Connection, gone: list[int]) -> None:
        ids = (json.dumps(gone),)
        connection.execute(sql.DELETE_WHOLE, ids)
        self._left += connection.execute(sql.DELETE_MESSAGES, ids).rowcount
        connection.execute(sql.DELETE_BODIES, ids)

    def _drop_strangers(self, connection: sqlite3.Connection) -> None:
        """Files that the snapshot does not name: delivered before it, or received after it."""
        for chunk in _chunks(contents(self._to)):
            for message in set(chunk).difference(_files_of(connection, chunk)):
                (self._to / text(message)).unlink()
                self._copied.discard(message)

    def _settle(self) -> None:
        """The daemon's user owns it all, and the disk has it."""
        owner = self._directory.stat()
        made = [*self._partial.iterdir(), *(self._partial / KEYS).rglob("*"), self._partial]
        copies = [self._to / text(message) for message in self._copied]
        for path in made + copies:
            if os.geteuid() == 0:
                os.chown(path, owner.st_uid, owner.st_gid)
            _sync(path)


def _chunks(messages: Iterator[int]) -> Iterator[list[int]]:
    while chunk := list(islice(messages, CHUNK)):
        yield chunk


def _files_of(connection: sqlite3.Connection, messages: list[int]) -> list[int]:
    """Those of these messages whose content is a file."""
    (found,) = connection.execute(sql.FILES, (json.dumps(messages),)).fetchone()
    return json.loads(found)  # type: ignore[no-any-return]


def _private(path: Path) -> int:
    """A new file, for its owner alone."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
