"""A spool as an older version left it: dumps in `tests/data`, one for each schema.

Between: a schema's own version writes its dumps (`python -m tests.fakes.stored`), later ones load them.
Contract: a stored spool is one of sandbox mode that a crash has left, with mail in every state and an outbox
    that the event log does not have. What it holds is read from its rows, so that no test needs to know it.
    A large content is not in the dump: its file is made from its size.
"""

from __future__ import annotations

import asyncio
import errno
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mta.core.credential import Credential
from mta.core.domain import ALGORITHMS, DomainKey, KeyState, SendingDomain
from mta.core.event import Event, Type
from mta.core.limits.day import Day
from mta.core.limits.throttle import Rate
from mta.core.model import Kind, Message, Outcome, Recipient, Reply, Scope, Subject
from mta.core.queue.last import written
from mta.core.queue.lifecycle import State
from mta.core.queueid import text
from mta.core.route.hosts import NOTHING, HostMemory, Peer, Rung
from mta.metrics import Metrics
from mta.spool import database
from mta.spool.bodies import THRESHOLD
from mta.spool.commit import Update
from mta.spool.queue import Spool
from mta.store import domains
from mta.store.credentials import CredentialStore
from mta.store.database import Database
from mta.store.hosts import HostStore
from mta.store.volumes import VolumeStore
from tests.fakes.clock import HandClock

DATA = Path(__file__).parents[1] / "data"
THEN = 1_800_000_000.0  # seconds since the epoch
LAST = written(
    Outcome(
        Kind.DEFERRED,
        Subject.MAILBOX,
        Scope.RECIPIENT,
        Reply(452, "4.2.2", "Mailbox full"),
        "mx.test",
        "RCPT",
    ),
    "TLSv1.3",
    THEN,
)
CARRIED = {
    "tags": ("spring", "Übung"), "score": 70, "metadata": '{"order":17}', "body_hash": bytes(range(32)),
    "return_path": "bounces.src.test",
}  # fmt: skip
HEAD = b"From: a@src.test\r\nSubject: stored\r\n\r\n"
SMALL = HEAD + b"from another time\r\n"


def large(size: int) -> bytes:
    return HEAD + b"x" * (size - len(HEAD) - 2) + b"\r\n"


def load(dump: Path, file: Path) -> None:
    """Put a dump where its database was."""
    file.parent.mkdir(mode=0o700, exist_ok=True)
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(dump.read_text())


def load_spool(dump: Path, directory: Path) -> None:
    """A queue with the files that its rows name."""
    load(dump, directory / database.FILE)
    (directory / "bodies").mkdir(mode=0o700)
    files = "SELECT id, size FROM message JOIN body ON message = id WHERE content IS NULL"
    with closing(sqlite3.connect(directory / database.FILE)) as connection:
        for message, size in connection.execute(files):
            (directory / "bodies" / text(message)).write_bytes(large(size))


def dump(file: Path) -> str:
    with closing(sqlite3.connect(file)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        return "\n".join([*connection.iterdump(), f"PRAGMA user_version = {version};\n"])


async def store(directory: Path) -> None:
    """One message for each state that mail can be in, by this version's own hands."""

    async def refuse(lines: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    spool = Spool(directory, "sandbox", 1_000_000, refuse, HandClock(THEN), Metrics())
    await spool.open(300.0)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(spool.run())
            await _fill(spool)
            spool.stop()
    finally:
        await spool.close()


async def _fill(spool: Spool) -> None:
    await _own(spool, "ok@fresh.test", "ok@fresh.test")
    partly = await _own(spool, "ok@delivered.test", "ok@deferred.test")
    spool.settle(partly, partly.recipients[:1], [], [Event(type=Type.DELIVERY)])
    _defer(spool, partly, attempts=3)
    _defer(spool, await _own(spool, "ok@postponed.test"), attempts=0)
    _defer(spool, await _own(spool, "ok@large.test", content=large(THRESHOLD)))
    _defer(spool, await _own(spool, "ok@notice.test", sender=""))
    _defer(spool, await _own(spool, "ok@Bücher.test", domain="xn--bcher-kva.test"))
    _defer(spool, await _own(spool, "ok@[192.0.2.1]"))
    _defer(spool, await _own(spool, "ok@carried.test", carries=CARRIED))
    finished = await _own(spool, "ok@finished.test")
    spool.settle(finished, finished.recipients, [], [Event(type=Type.DELIVERY)])
    await spool.lease([])


def _defer(spool: Spool, message: Message, attempts: int = 1) -> None:
    n, due = message.recipients[-1].n, THEN + 60.0 * attempts
    update = Update(State.DEFERRED, attempts, due, message.id, n, LAST if attempts else None)
    spool.settle(message, [], [update], [Event(type=Type.DEFERRAL)])


async def _own(
    spool: Spool, *addresses: str, content: bytes = SMALL, sender: str = "a@src.test", domain: str = "",
    carries: Mapping[str, Any] = MappingProxyType({}),
) -> Message:  # fmt: skip
    recipients = [
        Recipient(n, address, domain or address.partition("@")[2]) for n, address in enumerate(addresses)
    ]
    made = Message(
        spool.mint(), sender, "acme", "transactional", "app", THEN + 345_600.0, len(content), "<1@src.test>",
        0 if all(map(str.isascii, addresses)) else 2, recipients, content, True, **carries,
    )  # fmt: skip
    told: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    spool.put(made, [Event(type=Type.RECEPTION, recipient=each) for each in addresses], told.set_result)
    if error := await told:
        raise error
    return made


def credentials() -> Iterator[tuple[Credential, str]]:
    """One of each kind, with everything that narrows it."""
    rate = Rate(100, 60.0)
    yield Credential("password", "acme", "bulk", ("src.test",), 1000, 10, rate, notify=False), "correct horse"
    yield Credential("key", "acme", "bulk", kind="key"), "mta_" + "0" * 48
    yield Credential("network", "acme", "bulk", networks=("10.0.0.0/8",), kind="network"), ""


def memories() -> dict[Peer, HostMemory]:
    """One of each kind."""
    dead = NOTHING.failed(THEN, "Connection refused").failed(THEN + 60.0, "Connection refused")
    return {
        Peer("mx1.test", 25, "192.0.2.1"): dead,
        Peer("mx1.test", 25): NOTHING.rested(THEN, THEN + 60.0, "none of its addresses is any good"),
        Peer("mx2.test", 25, "2001:db8::1"): NOTHING.slow(THEN),
        Peer("mx3.test", 25, "192.0.2.3"): NOTHING.secured(THEN, Rung.SMALL),
        Peer("mx4.test", 2525, "192.0.2.4"): NOTHING.unsecured(THEN, "the TLS handshake failed", False),
        Peer("mx5.test", 25, "192.0.2.5"): NOTHING.unsecured(THEN, "alert", True),
        Peer("mx6.test", 25, "192.0.2.6"): NOTHING.loses_commands(THEN),
    }


def sending_domain() -> SendingDomain:
    """With everything that a domain can have, and a key in each state."""
    states = zip(KeyState, ("r1", "r2", "e1", "e2"), (*ALGORITHMS, *ALGORITHMS), strict=True)
    keys = tuple(DomainKey(name, kind, "cHVibGlj", state, THEN + 60.0, THEN) for state, name, kind in states)
    return SendingDomain("news.src.test", True, ("bulk",), "bounces.src.test", "send", keys)


async def remember(file: Path) -> None:
    """What is remembered of hosts and domains, by this version's own hands."""
    database = Database(file)
    await database.open()
    await HostStore(database).save(memories())
    await database.run(lambda connection: domains.write(connection, sending_domain()))
    await VolumeStore(database).save({("src.test", "google"): Day(500_000, bytes(range(96)), THEN)})
    await database.close()


def main() -> None:
    """Write the dumps of this version's schemas, where there are none."""
    DATA.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mta-stored-") as name:
        directory = Path(name)
        asyncio.run(store(directory))
        with CredentialStore(directory / "credentials.db") as kept:
            for credential, secret in credentials():
                kept.add(credential, secret)
        asyncio.run(remember(directory / "store.db"))
        files = (("spool", database.FILE), ("credentials", "credentials.db"), ("store", "store.db"))
        for kind, file in files:
            said = dump(directory / file)
            number = int(said.rsplit(" ", 1)[1].strip(";\n"))
            path = DATA / f"{kind}-{number:04}.sql"
            if not path.exists():
                path.write_text(said)
                print(f"made {path}")


if __name__ == "__main__":
    main()
