"""`mta spool verify`: what it finds in a damaged spool, and what it does not take for damage."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mta.cli.main import main
from mta.config.settings import Sandbox
from mta.core.credential import Credential
from mta.core.domain import SendingDomain
from mta.core.event import Event, Type
from mta.core.model import Message, Recipient
from mta.core.queue.lifecycle import State
from mta.core.queueid import text
from mta.metrics import Metrics
from mta.signing.keys import KeyFolder, generate
from mta.signing.rotation import make
from mta.spool import database
from mta.spool.bodies import THRESHOLD
from mta.spool.commit import Update
from mta.spool.database import SpoolError
from mta.spool.invariants import Violation
from mta.spool.queue import Spool
from mta.spool.verify import BEGUN_ANEW, LISTED, UNKNOWN, Verification, verify
from mta.store.credentials import CredentialStore
from mta.store.domains import DomainStore
from tests.fakes.clock import HandClock
from tests.fakes.house import running, settings
from tests.fakes.stored import DATA, load_spool, remember

SETTINGS = """\
hostname: mta.test
listeners:
  - {bind: "127.0.0.1:0", tls: none, auth: network}
spool: {path: spool}
"""


def never() -> None:
    raise AssertionError("nothing was under way")


def look(directory: Path, pause: Callable[[], None] = never) -> Verification:
    return verify(directory, pause, event_log=directory / "events.jsonl")


def ask(directory: Path, *arguments: str) -> Result:
    (directory / "mta.yaml").write_text(SETTINGS)
    return CliRunner().invoke(main, ["--config", str(directory / "mta.yaml"), "spool", "verify", *arguments])


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


async def own(spool: Spool, *addresses: str, content: bytes = b"body\n") -> Message:
    recipients = [Recipient(n, each, each.partition("@")[2]) for n, each in enumerate(addresses)]
    made = Message(
        spool.mint(), "a@src.test", "acme", "bulk", "app", 1.9e9, len(content), "<1@x>", 0, recipients,
        content, True,
    )  # fmt: skip
    told: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    spool.put(made, [Event(type=Type.RECEPTION, recipient=each) for each in addresses], told.set_result)
    assert await told is None
    return made


@pytest.fixture
async def kept(tmp_path: Path) -> tuple[Path, Message, Message]:
    """A spool at rest, with a small message and a large one."""
    async with opened(tmp_path) as spool:
        small = await own(spool, "b@dst.test", "c@dst.test")
        large = await own(spool, "d@dst.test", content=b"x" * THRESHOLD)
        for made in (small, large):
            due = [Update(State.DEFERRED, 1, 1.8e9, made.id, each.n) for each in made.recipients]
            spool.settle(made, [], due, [])
    with CredentialStore(tmp_path / "credentials.db") as store:
        store.add(Credential("app", "acme", "bulk", kind="key"), "mta_" + "0" * 48)
    return tmp_path, small, large


def change(directory: Path, statement: str, file: str = database.FILE) -> None:
    """What nobody should do."""
    with closing(sqlite3.connect(directory / file)) as connection, connection:
        connection.execute(statement)


async def test_a_spool_that_is_sound_has_no_findings(kept: tuple[Path, Message, Message]) -> None:
    verdict = look(kept[0])
    assert verdict == Verification(messages=2, recipients=3, files=1)


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("DELETE FROM message WHERE id = {small}", "recipient 0 has no message"),
        (
            "DELETE FROM recipient WHERE message = {small}",
            "the message has no recipient left and is still here",
        ),
        ("DELETE FROM body WHERE message = {small}", "the message has no content"),
        ("INSERT INTO body VALUES (7, x'00')", "a content without its message"),
        (
            "UPDATE body SET content = x'00' WHERE message = {small}",
            "the content has 1 octets, and 5 were received",
        ),
        ("UPDATE recipient SET tenant = 'x' WHERE n = 1", "recipient 1 is of tenant x, its message of acme"),
        ("UPDATE recipient SET state = 2 WHERE n = 1", "recipient 1 is in state 2, which is never stored"),
        ("UPDATE recipient SET attempts = -1 WHERE n = 1", "recipient 1 is DEFERRED after -1 attempts"),
        ("UPDATE recipient SET due = NULL WHERE n = 1", "recipient 1 is DEFERRED and due None"),
        ("UPDATE recipient SET due = 'soon' WHERE n = 1", "recipient 1 is due soon, which is no time"),
        ("UPDATE recipient SET state = 0, attempts = 0 WHERE n = 1", "recipient 1 is FRESH after 0 attempts"),
        (
            "UPDATE recipient SET domain = 'Dst.test' WHERE n = 1",
            "recipient 1 <c@dst.test> waits at 'Dst.test', and belongs to 'dst.test'",
        ),
        (
            "INSERT INTO outbox VALUES (99, x'', '[{small}]')",
            "the outbox has it as done with, and the queue still holds it",
        ),
        ("INSERT INTO outbox VALUES (1, x'', '[]')", "its events have numbers from 1, 4 is the next"),
        (
            "INSERT INTO outbox VALUES (99, x'', 'ids')",
            "cannot be read: JSON is malformed: invalid character (byte 0)",
        ),
        (
            "INSERT INTO outbox VALUES (99, CAST('{{\"seq\":98}}\n' AS BLOB), '[]')",
            "its lines are not whole, or not numbered one after another",
        ),
        (
            "INSERT INTO outbox VALUES (99, CAST('{{\"seq\":99}}' AS BLOB), '[]')",
            "its lines are not whole, or not numbered one after another",
        ),
        (
            "UPDATE meta SET value = 'x' WHERE name = 'last_id'",
            "last_id is 'x', which is no number to go on from",
        ),
        ("UPDATE meta SET value = 'test' WHERE name = 'mode'", "the mode is 'test'"),
        (
            "UPDATE message SET tags = 'x'",
            "has tags that cannot be read: JSON is malformed: invalid character (byte 0)",
        ),
        ("UPDATE message SET tags = '[\"\"]'", "has tags that cannot be read: a tag is empty"),
        ("UPDATE message SET metadata = '[]'", "has metadata that cannot be read: it is no JSON object"),
        ("UPDATE message SET score = 101", "has the score 101"),
        ("UPDATE message SET body_hash = x'00'", "has a hash of its body that is none"),
    ],
)
async def test_each_thing_that_must_not_be_is_found(
    kept: tuple[Path, Message, Message], statement: str, what: str
) -> None:
    directory, small, _ = kept
    change(directory, statement.format(small=small.id))
    found = [finding.what for finding in look(directory).findings]
    assert what in found, found


async def test_a_file_that_somebody_removed_or_cut_is_named_with_its_message(
    kept: tuple[Path, Message, Message],
) -> None:
    directory, _, large = kept
    file = directory / "bodies" / text(large.id)
    file.write_bytes(b"x")
    (cut,) = look(directory).findings
    assert cut[:2] == (text(large.id), f"its file in bodies/ has 1 octets, and {THRESHOLD} were received")
    file.unlink()
    (gone,) = look(directory).findings
    assert gone[:2] == (text(large.id), "its file in bodies/ is missing")


async def test_a_file_whose_commit_is_under_way_is_no_orphan(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        made = spool.mint()
        file = tmp_path / "bodies" / text(made)
        file.write_bytes(b"12345")  # the writer's first step

        def commit() -> None:
            change(
                tmp_path,
                f"INSERT INTO message VALUES ({made}, '', '', '', '', 0, 5, '', 0, 0, {'NULL, ' * 4}NULL)",
            )
            change(tmp_path, f"INSERT INTO body VALUES ({made}, NULL)")
            values = f"{made}, 0, 'b@x.test', 'x.test', '', 0, 1, NULL, 0, NULL"
            change(tmp_path, f"INSERT INTO recipient VALUES ({values})")

        assert look(tmp_path, commit).findings == []


async def test_a_file_that_is_being_removed_is_no_orphan(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        file = tmp_path / "bodies" / text(spool.mint())
        file.write_bytes(b"x")  # the drain has removed its row
        assert look(tmp_path, file.unlink).findings == []


async def test_a_file_that_stays_without_a_row_is_an_orphan_and_an_operators_file_is_not(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as spool:
        orphan = text(spool.mint())
        for name in (orphan, "README"):
            (tmp_path / "bodies" / name).write_bytes(b"x")
        (found,) = look(tmp_path, lambda: None).findings
    assert found == (f"bodies/{orphan}", "a content without its message", "the next start of mta removes it")


async def test_pages_that_a_disk_has_mixed_up_are_told_in_words(kept: tuple[Path, Message, Message]) -> None:
    directory, _, _ = kept
    file = directory / database.FILE
    octets = bytearray(file.read_bytes())
    octets[8192 : 3 * 8192] = b"\xa5" * (2 * 8192)
    file.write_bytes(octets)
    verdict = look(directory)
    assert {finding.where for finding in verdict.findings} == {"queue.db"}
    assert all("stop mta" in finding.remedy for finding in verdict.findings)


async def test_a_file_that_is_no_database_is_a_finding_and_told_once(
    kept: tuple[Path, Message, Message],
) -> None:
    directory, _, _ = kept
    (directory / database.FILE).write_bytes(b"what was here?" * 1000)
    (found,) = look(directory).findings
    assert found[:2] == ("queue.db", "file is not a database")


async def test_a_secret_that_is_lost_replaced_or_open_to_others_is_found(tmp_path: Path) -> None:
    terms = settings(tmp_path)
    async with running(terms):
        pass
    directory, file = terms.spool.path, terms.secret
    assert look(directory).findings == []
    file.chmod(0o644)
    (found,) = look(directory).findings
    assert "is open to others than its owner (mode 0644)" in found.what
    file.chmod(0o600)
    kept = file.read_text()
    file.write_text("0" * 64)
    (found,) = look(directory).findings
    assert found == Violation("identity.secret", "the secret of the last start is not in it", UNKNOWN)
    file.unlink()
    (found,) = look(directory).findings
    assert found == Violation("identity.secret", "it is missing", UNKNOWN)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(kept)
    elsewhere.chmod(0o600)
    assert verify(directory, never, secret_file=elsewhere).findings == []


async def test_a_credential_that_nobody_can_use_is_named(kept: tuple[Path, Message, Message]) -> None:
    directory, _, _ = kept
    change(directory, "UPDATE credential SET verifier = 'x'", "credentials.db")
    (found,) = look(directory).findings
    assert found[:2] == ("credentials.db", "app: what is kept of its secret proves no key")
    change(directory, "UPDATE credential SET senders = '[]'", "credentials.db")
    (found,) = look(directory).findings
    assert "app: cannot be read: a credential needs a sender" in found.what


async def test_what_is_remembered_of_hosts_and_cannot_be_read_is_found_and_does_no_harm(
    kept: tuple[Path, Message, Message],
) -> None:
    directory, _, _ = kept
    await remember(directory / "store.db")
    change(directory, "DELETE FROM domain", "store.db")  # its secrets are not remembered
    assert look(directory).findings == []
    change(directory, "UPDATE host SET failures = -1 WHERE address = '192.0.2.1'", "store.db")
    (found,) = look(directory).findings
    assert found[:2] == ("store.db", "mx1.test:25 [192.0.2.1]: cannot be read: -1 failures")
    (directory / "store.db").write_bytes(b"no database" * 1000)
    (found,) = look(directory).findings
    assert found == Violation("store.db", "file is not a database", BEGUN_ANEW)


async def test_an_event_log_that_is_ahead_of_the_spool_is_found(kept: tuple[Path, Message, Message]) -> None:
    directory, _, _ = kept
    (directory / "events.jsonl").write_text('{"seq":3}\n{"seq":4}\n{"seq":')
    (found,) = look(directory).findings
    assert found[:2] == ("event log", "the event log has come to number 4, the spool goes on at 4")
    (directory / "events.jsonl").write_text('{"seq":2}\n{"seq":3}\n')
    assert look(directory).findings == []


async def test_lines_that_are_in_the_log_and_still_in_the_outbox_are_no_finding(tmp_path: Path) -> None:
    """Between the event log and the drain's commit: the third row of the crash table."""
    async with opened(tmp_path) as spool:
        await own(spool, "b@dst.test")
    lines = '{"seq":50}\n{"seq":51}\n'
    change(tmp_path, f"INSERT INTO outbox VALUES (50, CAST('{lines}' AS BLOB), '[]')")
    (tmp_path / "events.jsonl").write_text(lines)
    assert look(tmp_path).findings == []


async def test_a_flood_of_one_kind_is_counted_and_not_listed(kept: tuple[Path, Message, Message]) -> None:
    directory, _, _ = kept
    many = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {LISTED + 5}) "
    change(directory, f"INSERT INTO body {many} SELECT i, x'00' FROM n")
    verdict = look(directory)
    assert (len(verdict.findings), verdict.unlisted) == (LISTED, 5)


@pytest.mark.parametrize(
    ("version", "said"),
    [(0, "queue.db is empty: put the one with the mail"), (1, "schema 1, this"), (99, "schema 99, this")],
)
async def test_another_schema_is_not_judged(
    kept: tuple[Path, Message, Message], version: int, said: str
) -> None:
    directory, _, _ = kept
    change(directory, f"PRAGMA user_version = {version}")
    with pytest.raises(SpoolError, match=said):
        look(directory)


async def test_a_daemon_at_work_gives_no_findings(tmp_path: Path) -> None:
    clock = HandClock(1_800_000_000.0)
    large = b"From: a@src.test\r\n\r\n" + b"x" * THRESHOLD + b"\r\n"
    async with running(settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox")), clock) as house:
        for n in range(3):
            await house.send(f"defer@x{n}.test", "ok@y.test", content=large if n else b"")
        await house.event(3, type="deferral")
        sending = asyncio.create_task(house.send(*(f"ok@x{n}.test" for n in range(20))))
        result = await asyncio.to_thread(ask, tmp_path)
        data = await asyncio.to_thread(ask, tmp_path, "--json", "--quick")
        await sending
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith(" contents in files: all is well\n")
    found = json.loads(data.stdout)
    assert (found["findings"], found["unlisted"], found["files"]) == ([], 0, 2)


async def test_the_command_tells_what_and_where_and_what_to_do(kept: tuple[Path, Message, Message]) -> None:
    directory, small, _ = kept
    change(directory, f"DELETE FROM body WHERE message = {small.id}")
    shutil.move(directory, directory.parent / "spool")
    home = directory.parent
    result = ask(home)
    assert (result.exit_code, result.stdout) == (
        1,
        f"{text(small.id)}: the message has no content; "
        "it cannot be delivered as it is; have its sender send it again\n"
        "2 messages, 3 recipients, 1 contents in files: 1 findings\n",
    )
    data = json.loads(ask(home, "--json").stdout)
    assert data["findings"] == [
        {
            "where": text(small.id),
            "what": "the message has no content",
            "remedy": "it cannot be delivered as it is; have its sender send it again",
        }
    ]


def test_where_there_is_no_spool_nothing_is_well_and_nothing_is_found(tmp_path: Path) -> None:
    result = ask(tmp_path)
    path = tmp_path / "spool" / database.FILE
    assert (result.exit_code, result.stderr) == (2, f"Error: there is no spool: {path} does not exist\n")


def test_a_last_outcome_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    load_spool(DATA / "spool-0005.sql", tmp_path / "stored")
    change(tmp_path / "stored", "UPDATE recipient SET last = '[1]' WHERE last IS NOT NULL AND n = 1")
    (found,) = look(tmp_path / "stored", lambda: None).findings
    assert found.what == "recipient 1 has a last outcome that cannot be read"


async def test_a_domain_without_its_secret_and_a_secret_without_its_domain_are_found(
    kept: tuple[Path, Message, Message],
) -> None:
    directory, _, _ = kept
    folder = KeyFolder(directory)
    with DomainStore(directory) as store:
        store.put(make(folder, SendingDomain("src.test"), "ed25519-sha256", 0.0, "s1"))
    assert look(directory).findings == []
    (directory / "keys/src.test/s1.pem").unlink()
    folder.keep("lost.test", "s1", generate("ed25519-sha256"))
    gone, lost = look(directory).findings
    assert gone.where == lost.where == "keys"
    assert "src.test: " in gone.what
    assert "No such file" in gone.what
    assert lost.what == "lost.test has keys and is in no store"
    change(directory, "UPDATE domain SET streams = '?'", "store.db")
    folder.keep("src.test", "s1", generate("ed25519-sha256"))
    unread, lost = look(directory).findings  # whose keys are not those of a lost domain
    assert unread.what.startswith("src.test: store.db: the domain 'src.test' cannot be read")
    assert lost.what == "lost.test has keys and is in no store"


async def test_a_folder_of_keys_that_cannot_be_listed_is_a_finding_among_the_others(
    kept: tuple[Path, Message, Message],
) -> None:
    directory, _, _ = kept
    with DomainStore(directory) as store:
        store.put(SendingDomain("bad.test"))
    change(directory, "UPDATE domain SET streams = '?'", "store.db")
    (directory / "keys").write_text("")
    unread, listing = look(directory).findings
    assert unread.what.startswith("bad.test: ")
    assert listing.where == "keys"
    assert "Not a directory" in listing.what
