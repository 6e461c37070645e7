"""A spool of every schema there was is served by this version, which leaves a way back."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mta.config.settings import Sandbox
from mta.core.limits.adaptive import Learned, Saved
from mta.core.queueid import parse, text
from mta.spool import database
from mta.spool.database import SpoolError
from mta.spool.verify import verify
from mta.store.credentials import CredentialStore, proves_key, proves_password
from mta.store.database import Database
from mta.store.hosts import HostStore
from tests.fakes.clock import HandClock
from tests.fakes.home import ROOT, Home
from tests.fakes.house import running, settings
from tests.fakes.stored import (
    CARRIED,
    DATA,
    SMALL,
    THEN,
    credentials,
    dump,
    large,
    load,
    load_spool,
    memories,
    store,
)

SPOOLS = sorted(DATA.glob("spool-*.sql"))
CREDENTIALS = sorted(DATA.glob("credentials-*.sql"))
STORES = sorted(DATA.glob("store-*.sql"))


def rows(directory: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(directory / database.FILE)) as connection:
        return connection.execute(statement).fetchall()


@pytest.mark.parametrize("kind", ["spool", "credentials", "store"])
def test_every_schema_has_its_stored_file(kind: str) -> None:
    """A new one is missing? `python -m tests.fakes.stored` writes it."""
    of_kind = "spool/schema/" if kind == "spool" else f"store/schema/{kind}-"
    schemas = ROOT.glob(f"mta/{of_kind}[0-9]*.sql")
    wanted = [f"{kind}-{path.stem[-4:]}.sql" for path in sorted(schemas)]
    assert [path.name for path in sorted(DATA.glob(f"{kind}-*.sql"))] == wanted


@pytest.mark.parametrize("stored", SPOOLS, ids=lambda path: path.stem)
async def test_mail_in_every_state_is_delivered_by_this_version(tmp_path: Path, stored: Path) -> None:
    terms = settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox"))
    load_spool(stored, terms.spool.path)
    waiting = rows(terms.spool.path, "SELECT message, address FROM recipient")
    outbox = rows(terms.spool.path, "SELECT lines FROM outbox")
    sizes = {text(id): size for id, size in rows(terms.spool.path, "SELECT id, size FROM message")}  # type: ignore[arg-type]
    ((deferred,),) = rows(terms.spool.path, "SELECT count(*) FROM recipient WHERE due IS NOT NULL")
    clock = HandClock(THEN + 1000.0)
    async with running(terms, clock) as house:
        await house.event(int(str(deferred)), type="delivery", credential="app")
        await clock.advance(31.0)  # what was under way is due after its jitter
        await house.event(len(waiting), type="delivery", credential="app")
        told = house.of(type="delivery", credential="app")
        first = house.events[: sum(bytes(lines).count(b"\n") for (lines,) in outbox)]
    assert sorted((parse(each["queue_id"]), each["recipient"]) for each in told) == sorted(waiting)
    assert [each["seq"] for each in first] == list(range(1, len(first) + 1))  # what the log did not have
    contents = [SMALL if sizes[each["queue_id"]] == len(SMALL) else large(196608) for each in told]
    kept = [path.read_bytes() for path in (tmp_path / "sandbox").glob("*.eml")]
    assert {content: sum(one.endswith(content) for one in kept) for content in contents} == {
        SMALL: len(waiting) - 1,  # one for each recipient
        large(196608): 1,
    }
    assert rows(terms.spool.path, "SELECT count(*) FROM body") == [(0,)]
    assert verify(terms.spool.path, lambda: None).findings == []


@pytest.mark.parametrize("stored", CREDENTIALS, ids=lambda path: path.stem)
def test_credentials_of_every_schema_still_prove_who_they_are(tmp_path: Path, stored: Path) -> None:
    load(stored, tmp_path / "credentials.db")
    with CredentialStore(tmp_path / "credentials.db") as store:
        found = store.current()
        assert {login: one.credential for login, one in found.items()} == {
            credential.login: credential for credential, _ in credentials()
        }
        secrets = {credential.login: secret.encode() for credential, secret in credentials()}
        assert proves_key(secrets["key"], found["key"].verifier)
        assert proves_password(secrets["password"], found["password"].verifier)


async def test_what_was_learned_is_known_after_the_upgrade(tmp_path: Path) -> None:
    """It was a list, with Python's word for infinity; what is none keeps nobody from a start."""
    terms = settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox"))
    load_spool(DATA / "spool-0003.sql", terms.spool.path)
    kept = Saved(Learned(5.1, math.inf, 2.0, 3.0, None), THEN, THEN + 60.5, "a rule's", True)
    counted = Saved(Learned(0.5, 0.7, 2.0, math.inf, 20), THEN + 1.0)
    with closing(sqlite3.connect(terms.spool.path / database.FILE)) as connection, connection:
        for name, said in {
            "mx.test": json.dumps(kept), "other.test": json.dumps(counted), "odd.test": "{}", "no.test": "[",
        }.items():  # fmt: skip
            connection.execute("INSERT INTO path VALUES (?, ?, ?)", (name, said, THEN))
    async with running(terms, HandClock(THEN + 1000.0)) as house:
        learned = await house.daemon.spool.reader.learned()
        assert learned == {"mx.test": kept, "other.test": counted}


async def test_what_messages_carry_is_kept_by_the_next_version(tmp_path: Path) -> None:
    terms = settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox"))
    load_spool(DATA / "spool-0005.sql", terms.spool.path)
    async with running(terms, HandClock(THEN)) as house:
        found = [message for message, _ in await house.daemon.spool.reader.queue(99) if message.tags]
        assert [(each.tags, each.score, each.body_hash) for each in found] == [
            (CARRIED["tags"], CARRIED["score"], CARRIED["body_hash"])
        ]
    assert rows(terms.spool.path, "SELECT metadata FROM message WHERE metadata IS NOT NULL") == [
        (CARRIED["metadata"],)
    ]


@pytest.mark.parametrize("stored", STORES, ids=lambda path: path.stem)
async def test_hosts_of_every_schema_are_still_known(tmp_path: Path, stored: Path) -> None:
    load(stored, tmp_path / "store.db")
    database = Database(tmp_path / "store.db")
    await database.open()
    assert await HostStore(database).load(100) == memories()
    await database.close()


def test_a_credential_may_still_delay_its_mail_after_the_upgrade(tmp_path: Path) -> None:
    load(DATA / "credentials-0002.sql", tmp_path / "credentials.db")
    with closing(sqlite3.connect(tmp_path / "credentials.db")) as connection, connection:
        connection.execute("UPDATE credential SET hold = 3600.0 WHERE login = 'key'")
    with CredentialStore(tmp_path / "credentials.db") as store:
        assert [one.credential.delay for one in store.current().values()] == [3600.0, None, None]


async def test_what_this_version_stores_can_be_stored_for_the_next(tmp_path: Path) -> None:
    await store(tmp_path / "from")
    (tmp_path / "dump.sql").write_text(dump(tmp_path / "from" / database.FILE))
    await asyncio.to_thread(load_spool, tmp_path / "dump.sql", tmp_path / "to")
    assert verify(tmp_path / "to", lambda: None) == verify(tmp_path / "from", lambda: None)
    assert verify(tmp_path / "to", lambda: None).findings == []


@pytest.mark.timeout(120)
def test_an_upgrade_keeps_the_former_spool_and_the_former_version_goes_on_with_it(tmp_path: Path) -> None:
    now = Home(tmp_path)
    now.sandbox()
    with now.serving() as served:
        with served.client() as client:
            client.sendmail("app@example.test", "defer@x.test", SMALL)
            client.sendmail("app@example.test", "defer@y.test", large(250_000))
        served.events(2, type="deferral")
        served.kill()  # and the upgrade meets what a crash has left
    number = len(database.scripts()) + 1
    later = Home(tmp_path, source=later_version(tmp_path / "later", number))
    spool = tmp_path / "var" / "spool"
    for outdated in ("", ".partial"):  # of a start that came no further
        (spool / f"before-schema-{number}{outdated}").mkdir()
    for start in range(2):
        with later.serving() as served:
            assert served.stop() == 0
        assert waiting(later) == 2
        told = f"it is kept in {spool}/before-schema-{number}\n" in (tmp_path / "stderr").read_text()
        assert told is (start == 0)

    refused = now.mta("--config", "var/mta.yaml", "serve")
    assert (refused.returncode, refused.stderr) == (
        1,
        f"mta: the spool has schema {number}, this version knows {number - 1}: "
        "start the newer version again\n",
    )
    spool.rename(tmp_path / "newer")
    (tmp_path / "newer" / f"before-schema-{number}").rename(spool)
    assert waiting(now) == 2
    with now.serving() as served:
        assert served.stop() == 0


def later_version(directory: Path, number: int) -> Path:
    """This version, with one schema more."""
    shutil.copytree(ROOT / "mta", directory / "mta", ignore=shutil.ignore_patterns("__pycache__"))
    script = directory / "mta" / "spool" / "schema" / f"{number:04}.sql"
    script.write_text("ALTER TABLE message ADD COLUMN later INTEGER;\n")
    return directory


def waiting(home: Home) -> int:
    """How many messages a sound spool holds."""
    looked = home.mta("--config", "var/mta.yaml", "spool", "verify", "--json")
    found = json.loads(looked.stdout)
    assert (looked.returncode, found["findings"]) == (0, []), looked.stderr
    return int(found["messages"])


def test_a_newer_spool_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    load_spool(SPOOLS[-1], tmp_path)
    with closing(database.connect(tmp_path)) as connection:
        connection.execute("PRAGMA user_version = 999")
        with pytest.raises(SpoolError, match="start the newer version again"):
            database.migrate(connection)
    assert not list(tmp_path.glob("before-schema-*"))
