"""`mta spool backup`: a copy that is whole, whatever the daemon does meanwhile."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from click.testing import CliRunner, Result

from mta.cli.main import main
from mta.config.settings import Endpoint, IdentitySettings, Sandbox, Settings, SpoolSettings, StaticRoute
from mta.core.domain import SendingDomain
from mta.core.event import Event, Type
from mta.core.model import Message, Recipient
from mta.core.queueid import text
from mta.metrics import Metrics
from mta.signing.keys import KeyFolder
from mta.signing.rotation import make
from mta.spool import database
from mta.spool.backup import FAR, Backup, Copy, backup, keep_former
from mta.spool.bodies import THRESHOLD
from mta.spool.database import SpoolError
from mta.spool.queue import Spool
from mta.spool.verify import verify
from mta.store.domains import DomainStore
from tests.fakes.clock import HandClock
from tests.fakes.house import House, running, settings
from tests.fakes.peer import ScriptedPeer
from tests.fakes.stored import remember

SETTINGS = """\
hostname: mta.test
listeners:
  - {bind: "127.0.0.1:0", tls: none, auth: network}
spool: {path: spool}
"""
COPIES = ("first", "second", "third")
CLIENTS = 4
MOST = 400  # messages of one client
LARGE = b"From: a@src.test\r\n\r\n" + b"x" * THRESHOLD + b"\r\n"


def ask(directory: Path, *arguments: str) -> Result:
    (directory / "mta.yaml").write_text(SETTINGS)
    return CliRunner().invoke(main, ["--config", str(directory / "mta.yaml"), "spool", *arguments])


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[Spool]:
    """A spool whose writer runs; its event log keeps nothing."""

    async def publish(lines: bytes) -> None:
        pass

    spool = Spool(directory, "live", 1_000_000, publish, HandClock(), Metrics())
    await spool.open(300.0)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(spool.run())
            try:
                yield spool
            finally:
                spool.stop()
    finally:
        await spool.close()


async def own(spool: Spool, content: bytes = b"body\n") -> Message:
    recipients = [Recipient(0, "b@dst.test", "dst.test")]
    made = Message(
        spool.mint(), "a@src.test", "acme", "bulk", "app", 1.9e9, len(content), "<1@x>", 0, recipients,
        content, True,
    )  # fmt: skip
    told: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    spool.put(made, [Event(type=Type.RECEPTION)], told.set_result)
    assert await told is None
    return made


async def deliver(spool: Spool, message: Message) -> None:
    """Until its content is gone."""
    spool.settle(message, message.recipients, [], [Event(type=Type.DELIVERY)])
    async with asyncio.timeout(10):
        while await spool.reader._rows("SELECT 1 FROM body WHERE message = ?", message.id):
            await spool.lease([])
        while (spool._bodies._path(message.id)).exists():
            await spool.lease([])


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def value(directory: Path, statement: str) -> str:
    with closing(sqlite3.connect(directory / database.FILE)) as connection:
        return str(connection.execute(statement).fetchone()[0])


def ids(directory: Path) -> set[str]:
    with closing(sqlite3.connect(directory / database.FILE)) as connection:
        return {text(id) for (id,) in connection.execute("SELECT id FROM message")}


async def load(house: House, client: int, stopped: asyncio.Event, acknowledged: list[str]) -> None:
    """Mail that is delivered at once, and mail that waits; some of it large."""
    for n in range(MOST):
        if stopped.is_set():
            return
        domain = "waits.test" if n % 2 else "goes.test"
        reply = await house.send(f"{client}.{n}@{domain}", content=b"" if n % 3 else LARGE)
        assert reply.startswith("250 "), reply
        acknowledged.append(reply.rpartition(" ")[2])


@asynccontextmanager
async def receiver(directory: Path) -> AsyncIterator[StaticRoute]:
    """A server that takes everything."""
    async with running(settings(directory, sandbox=Sandbox(directory / "sandbox"))) as house:
        yield StaticRoute(Endpoint("127.0.0.1", house.network))


@pytest.mark.timeout(120)
async def test_a_backup_under_load_has_all_that_was_acknowledged_and_a_daemon_delivers_it(
    tmp_path: Path,
) -> None:
    acknowledged: list[str] = []
    stopped = asyncio.Event()
    async with receiver(tmp_path / "receiver") as route, ScriptedPeer(shut=True) as nobody:
        routes = {"goes.test": route, "waits.test": StaticRoute(Endpoint("127.0.0.1", nobody.port))}
        async with (
            running(settings(tmp_path, routes=routes), HandClock()) as house,
            asyncio.TaskGroup() as tasks,
        ):
            for client in range(CLIENTS):
                tasks.create_task(load(house, client, stopped, acknowledged))
            await house.event(30, type="reception")
            before = set(acknowledged)
            told = [await asyncio.to_thread(ask, tmp_path, "backup", str(tmp_path / name)) for name in COPIES]
            stopped.set()
            await house.event(type="delivery")
            delivered = {each["queue_id"] for each in house.of(type="delivery")}
        assert [result.exit_code for result in told] == [0] * len(COPIES), told[0].output
        for name in COPIES:
            verdict = verify(tmp_path / name, lambda: None)
            assert verdict.findings == []
            assert verdict.files
            assert before - delivered <= ids(tmp_path / name) <= set(acknowledged)
        home = tmp_path / "again"
        (tmp_path / COPIES[0]).rename(tmp_path / "spool-of-again")
        await restored(settings(home, spool=SpoolSettings(tmp_path / "spool-of-again"), routes={"*": route}))


async def restored(terms: Settings) -> None:
    """A daemon delivers all that the copy holds."""
    kept = ids(terms.spool.path)
    clock = HandClock(1_800_020_000.0)
    waiting = value(terms.spool.path, "SELECT count(*) FROM recipient WHERE due IS NOT NULL")
    lines = "SELECT ifnull(CAST(group_concat(lines, '') AS TEXT), '') FROM outbox"
    former = value(terms.spool.path, lines).count('"delivery"')  # that the log did not have yet
    async with running(terms, clock) as house:
        await house.event(former + int(waiting), type="delivery")
        await clock.advance(31.0)  # what was under way is due after its jitter
        await house.event(former + len(kept), type="delivery")
        told = house.of(type="delivery")
    assert {each["queue_id"] for each in told if each["seq"] > FAR} == kept
    assert verify(terms.spool.path, lambda: None).messages == 0


async def test_contents_that_come_and_go_while_the_copy_is_made(tmp_path: Path) -> None:
    partial = tmp_path / "copy.partial"
    partial.mkdir()
    async with opened(tmp_path / "spool") as spool:
        early, linked = await own(spool, LARGE), await own(spool, LARGE)
        await deliver(spool, early)
        copy = Copy(tmp_path / "spool", partial)
        copy.gather()
        between, gone, done = [await own(spool, LARGE) for _ in range(3)]
        small = await own(spool)
        await deliver(spool, done)
        copy.snapshot()
        after = await own(spool, LARGE)
        await deliver(spool, linked)
        await deliver(spool, gone)
        made = copy.complete()
    assert made == Backup(messages=3, recipients=3, files=2, copied=0, left=1, missing=0)
    assert ids(partial) == {text(each.id) for each in (linked, between, small)}
    assert {path.name for path in (partial / "bodies").iterdir()} == {text(linked.id), text(between.id)}
    assert not {text(early.id), text(after.id)} & ids(partial)
    assert verify(partial, lambda: None).findings == []


async def test_a_content_that_another_disk_got_half_is_copied_again(tmp_path: Path) -> None:
    """It was being written when the first round came by; its commit came before the snapshot."""
    partial = tmp_path / "copy.partial"
    partial.mkdir()
    async with opened(tmp_path / "spool") as spool:
        copy = Copy(tmp_path / "spool", partial)
        copy.gather()
        made = await own(spool, LARGE)
        (partial / "bodies" / text(made.id)).write_bytes(LARGE[:1000])
        copy.snapshot()
        copy.complete()
    assert (partial / "bodies" / text(made.id)).read_bytes() == LARGE


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system at /dev/shm")
    with TemporaryDirectory(dir=memory) as name:
        yield Path(name)


async def test_another_file_system_gets_copies(tmp_path: Path, elsewhere: Path) -> None:
    async with opened(tmp_path / "spool") as spool:
        made = await own(spool, LARGE)
        found = await asyncio.to_thread(backup, tmp_path / "spool", elsewhere / "copy")
    assert (found.files, found.copied) == (1, 1)
    assert (elsewhere / "copy" / "bodies" / text(made.id)).read_bytes() == LARGE
    assert verify(elsewhere / "copy", lambda: None).findings == []


async def test_a_copy_is_for_its_owner_alone_and_shares_large_contents(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool") as spool:
        made = await own(spool, LARGE)
        (tmp_path / "spool" / "other.db").touch()
        await asyncio.to_thread(backup, tmp_path / "spool", tmp_path / "copy")
        original = (tmp_path / "spool" / "bodies" / text(made.id)).stat()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "copy").rglob("*")}
    assert modes == {"queue.db": 0o600, "other.db": 0o600, "bodies": 0o700, text(made.id): 0o600}
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o700
    assert (tmp_path / "copy" / "bodies" / text(made.id)).stat().st_ino == original.st_ino


async def test_the_numbers_of_events_go_on_far_away(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool") as spool:
        await own(spool)
        await asyncio.to_thread(backup, tmp_path / "spool", tmp_path / "copy")
    for _ in range(2):  # the second start has it from the counter
        async with opened(tmp_path / "copy") as spool:
            await own(spool)
            assert FAR < spool._next_seq < FAR + 100


async def test_a_content_that_the_spool_has_lost_is_told(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool") as spool:
        made = await own(spool, LARGE)
        await own(spool)
        (tmp_path / "spool" / "bodies" / text(made.id)).unlink()
        result = await asyncio.to_thread(ask, tmp_path, "backup", str(tmp_path / "copy"), "--json")
    assert json.loads(result.stdout) == {
        "directory": f"{tmp_path}/copy", "messages": 2, "recipients": 2, "files": 1, "copied": 0, "left": 0,
        "missing": 1,
    }  # fmt: skip
    assert result.stderr == "the spool has lost 1 contents: mta spool verify names them\n"


async def test_what_is_there_already_is_never_touched(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool"):
        pass
    (tmp_path / "copy").mkdir()
    result = ask(tmp_path, "backup", str(tmp_path / "copy"))
    assert (result.exit_code, result.stderr) == (
        1,
        f"Error: {tmp_path}/copy is there already: name a directory that is not\n",
    )
    (tmp_path / "other.partial").mkdir()
    with pytest.raises(SpoolError, match="another backup is at work, or was interrupted"):
        backup(tmp_path / "spool", tmp_path / "other")
    assert (tmp_path / "other.partial").exists()


async def test_a_backup_that_fails_leaves_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool"):
        pass
    (tmp_path / "spool" / "credentials.db").write_bytes(b"no database" * 1000)
    with pytest.raises(SpoolError, match="no backup was made: file is not a database"):
        backup(tmp_path / "spool", tmp_path / "copy")
    with pytest.raises(SpoolError, match=r"no backup was made: .*nowhere does not exist; make it first"):
        backup(tmp_path / "spool", tmp_path / "nowhere" / "copy")
    assert names(tmp_path) == ["spool"]


async def test_what_the_daemon_would_begin_anew_holds_up_no_backup(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool"):
        pass
    await remember(tmp_path / "spool" / "store.db")
    backup(tmp_path / "spool", tmp_path / "copy")
    assert verify(tmp_path / "copy", lambda: None).findings == []
    assert "store.db" in names(tmp_path / "copy")
    (tmp_path / "spool" / "store.db").write_bytes(b"no database" * 1000)
    backup(tmp_path / "spool", tmp_path / "another")
    assert "store.db" not in names(tmp_path / "another")


async def test_the_secret_is_in_the_copy_wherever_it_stands(tmp_path: Path) -> None:
    """Mail that comes back for what was sent before is known after the copy is put in place."""
    at_home = settings(tmp_path / "one")
    for terms in (
        at_home,
        replace(settings(tmp_path / "two"), identity=IdentitySettings(secret=tmp_path / "apart")),
    ):
        async with running(terms):
            pass
        backup(terms.spool.path, tmp_path / "copy", terms.secret)
        copied = tmp_path / "copy" / terms.secret.name
        assert copied.read_bytes() == terms.secret.read_bytes()
        assert stat.S_IMODE(copied.stat().st_mode) == 0o600
        assert verify(tmp_path / "copy", lambda: None, secret_file=copied).findings == []
        (tmp_path / "copy").rename(tmp_path / "kept")
        shutil.rmtree(terms.spool.path)
        (tmp_path / "kept").rename(terms.spool.path)
        async with running(terms) as house:
            pass
        assert house.of(type="state") == []


async def test_what_an_upgrade_leaves_has_the_secret_too(tmp_path: Path) -> None:
    async with running(settings(tmp_path)):
        pass
    spool = tmp_path / "spool"
    with closing(sqlite3.connect(spool / database.FILE)) as connection:
        connection.execute("PRAGMA user_version = 1")
        former = keep_former(spool, connection)
    assert former is not None
    assert (former / "identity.secret").read_bytes() == (spool / "identity.secret").read_bytes()


async def test_a_backup_inside_the_spool_would_be_lost_with_it(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool"):
        pass
    with pytest.raises(SpoolError, match="is in the spool itself, and would be lost with it"):
        backup(tmp_path / "spool", tmp_path / "spool" / "copy")
    assert not (tmp_path / "spool" / "copy").exists()


def test_where_there_is_no_spool_there_is_no_backup(tmp_path: Path) -> None:
    result = ask(tmp_path, "backup", str(tmp_path / "copy"))
    path = tmp_path / "spool" / database.FILE
    assert (result.exit_code, result.stderr) == (
        1,
        f"Error: there is no spool to copy: {path} does not exist\n",
    )


async def test_private_keys_are_in_a_copy_only_when_somebody_asks(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool"):
        pass
    folder = KeyFolder(tmp_path / "spool")
    with DomainStore(tmp_path / "spool") as store:
        store.put(make(folder, SendingDomain("src.test"), "ed25519-sha256", 0.0, "s1"))
    (tmp_path / "spool/keys/src.test/s2.x.partial").touch()  # another is just written
    for name, asked in (("plain", ()), ("keys", ("--keys",))):
        result = ask(tmp_path, "backup", str(tmp_path / name), *asked)
        assert result.exit_code == 0, result.output
        assert verify(tmp_path / name, lambda: None).findings == []
    assert not (tmp_path / "plain/keys").exists()
    assert [file.name for file in (tmp_path / "keys/keys/src.test").iterdir()] == ["s1.pem"]
    assert KeyFolder(tmp_path / "keys").load("src.test", "s1").public == folder.load("src.test", "s1").public
