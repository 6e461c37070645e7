"""Mail leaves a spool, and arrives in another one as it was."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mta.core.model import Option
from mta.core.queue.lifecycle import State
from mta.core.queueid import text
from mta.spool import database, export, import_
from mta.spool.parcel import RecipientRecord, Record
from tests.fakes.clock import HandClock
from tests.fakes.house import running
from tests.fakes.still import CONTENT, DUE, LARGE, Still, message


@pytest.fixture
def house(tmp_path: Path) -> Still:
    return Still(tmp_path / "one")


@pytest.fixture
def other(tmp_path: Path) -> Still:
    return Still(tmp_path / "two")


async def test_what_is_exported_and_imported_is_delivered_octet_for_octet(tmp_path: Path) -> None:
    house, other = Still(tmp_path / "one"), Still(tmp_path / "two")
    await house.own([message(0, "ok@dst.test", "ok@x.test"), message(1, "ok@dst.test", content=LARGE)])
    await asyncio.to_thread(house.answer, "export", tmp_path / "out", "--all", "--remove")
    await asyncio.to_thread(other.answer, "import", tmp_path / "out")
    async with running(other.terms, HandClock(DUE + 1000)) as served:
        await served.event(3, type="delivery")
        attempts = {each["recipient"]: each["attempt"] for each in served.of(type="delivery")}
    assert attempts == {"ok@dst.test": 3, "ok@x.test": 2}
    kept = sorted((path.read_bytes() for path in (tmp_path / "two/sandbox").glob("*.eml")), key=len)
    assert [each.endswith(sent) for each, sent in zip(kept, (CONTENT, CONTENT, LARGE), strict=True)] == [
        True
    ] * 3


def test_what_a_message_carries_arrives_and_a_plain_record_is_as_older_versions_read_it(
    house: Still, other: Still, tmp_path: Path
) -> None:
    full, plain = message(0, "b@dst.test"), message(1, "b@dst.test")
    full.tags, full.score, full.metadata = ("a", "\u00dc"), 0, '{"k":{"n":1.5}}'
    full.body_hash, full.return_path = bytes(range(32)), "bounces.src.test"
    full.options |= Option.REQUIRE_TLS
    house.fill(full, plain)
    before = house.messages
    kept = ('["a","\u00dc"]', 0, bytes(range(32)), "bounces.src.test", '{"k":{"n":1.5}}')
    assert before[0][-5:] == kept
    house.answer("export", tmp_path / "out", "--all")
    records = [json.loads(path.read_bytes()) for path in sorted((tmp_path / "out").glob("*.json"))]
    assert records[0]["metadata"] == {"k": {"n": 1.5}}
    assert "require_tls" in records[0]["options"]
    assert records[0].keys() - records[1].keys() == {"tags", "score", "metadata", "body_hash", "return_path"}
    other.answer("import", tmp_path / "out")
    assert other.messages == before
    assert [event.get("tags") for event in other.events] == [["a", "\u00dc"], None]


def test_state_attempts_due_and_expiry_arrive_as_they_were(
    house: Still, other: Still, tmp_path: Path
) -> None:
    house.fill(message(0, "b@dst.test", "c@dst.test"), message(1, "d@dst.test", sender="", content=LARGE))
    before, rows = house.messages, house.rows()
    house.answer("export", tmp_path / "out", "--all")
    assert (house.messages, house.rows()) == (before, rows)  # a copy
    done = other.answer("import", tmp_path / "out")
    assert done == {"imported": 2, "recipients": 3, "here_already": 0, "renamed": {}}
    assert other.messages == before
    assert other.rows() == rows  # the fresh one too: it is recovered by the next start
    assert [(row[3], *row[5:8]) for row in rows][:2] == [
        ("dst.test", State.DEFERRED, 2, DUE),
        ("dst.test", State.FRESH, 1, None),
    ]
    assert (other.spool / "bodies" / text(before[1][0])).read_bytes() == LARGE
    told = [(each["type"], each["recipient"], each["reason"]) for each in other.events]
    assert told == [("reception", f"{user}@dst.test", "imported") for user in "bcd"]


def test_the_record_says_what_the_spool_knows(house: Still, tmp_path: Path) -> None:
    house.fill(message(0, "b@dst.test"))
    assert house.answer("export", tmp_path / "out", "--all")["messages"] == 1
    (record, content) = sorted((tmp_path / "out").iterdir(), reverse=True, key=lambda path: path.suffix)
    assert {path.stat().st_mode & 0o777 for path in (record, content)} == {0o600}
    name = text(message(0).id)
    assert (content.name, record.name) == (f"{name}.eml", f"{name}.json")
    assert content.read_bytes() == CONTENT
    assert json.loads(record.read_bytes()) == {
        "format": 1, "mode": "sandbox", "queue_id": name, "created": "2027-01-15T08:00:00Z",
        "expires": "2027-01-19T23:06:40Z", "sender": "a@src.test", "tenant": "acme", "stream": "bulk",
        "credential": "app", "message_id": "<0@x>", "options": ["eightbit", "notify"], "priority": 0,
        "size": len(CONTENT), "sha256": sha256(CONTENT).hexdigest(),
        "recipients": [{
            "n": 0, "address": "b@dst.test", "domain": "dst.test", "state": "deferred", "attempts": 2,
            "due": "2027-01-15T08:01:40.250000Z",
        }],
    }  # fmt: skip


def test_no_column_of_the_spool_stays_behind(house: Still, tmp_path: Path) -> None:
    """A new one needs its place in `spool.parcel`, on both ways."""
    house.fill()
    columns = {name for table in ("message", "recipient") for _, name, *_ in house.columns(table)}
    fields = {each.name for kind in (Record, RecipientRecord) for each in msgspec.structs.fields(kind)}
    assert columns - fields == {"id", "message"}  # the queue id
    assert fields - columns == {"format", "mode", "queue_id", "created", "sha256", "recipients"}


def test_an_option_that_cannot_be_written_stops_the_export(house: Still, tmp_path: Path) -> None:
    strange = message(0, "b@dst.test")
    strange.options = 1 << 20
    house.fill(strange)
    done = house.mta("export", tmp_path / "out", "--all", "--remove")
    assert "has options that cannot be written: 0x100000" in done.output
    assert len(house.rows()) == 1


@pytest.mark.parametrize(
    ("selection", "selected"),
    [
        (["--all"], [0, 1, 2]),
        (["--domain", "X.test"], [1]),
        (["--domain", "x.test", "--domain", "y.test"], [1, 2]),
        (["--tenant", "other"], [2]),
        (["--sender", "A@src.test"], [0, 1]),
        (["--sender", "<>"], [2]),
        (["--queue-id", text(message(1).id), "--queue-id", text(message(0).id)], [0, 1]),
        (["--tenant", "nobody"], []),
    ],
)
def test_a_message_goes_as_a_whole_where_one_recipient_selects_it(
    house: Still, tmp_path: Path, selection: list[str], selected: list[int]
) -> None:
    whole = house.fill(
        message(0, "b@dst.test"),
        message(1, "b@dst.test", "c@x.test"),
        message(2, "b@y.test", sender="", tenant="other"),
    )
    done = house.answer("export", tmp_path / "out", *selection, "--remove")
    assert done["messages"] == len(selected)
    assert done["recipients"] == sum(len(whole[k].recipients) for k in selected)
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {text(whole[k].id) for k in selected}
    assert {row[0] for row in house.rows()} == {each.id for k, each in enumerate(whole) if k not in selected}


def test_what_is_removed_is_told_in_the_event_log_and_leaves_nothing(house: Still, tmp_path: Path) -> None:
    house.fill(message(0, "b@dst.test", "c@dst.test"), message(1, "d@dst.test", content=LARGE))
    house.answer("export", tmp_path / "out", "--all", "--remove")
    for table in ("message", "recipient", "body", "outbox"):
        assert house.rows(f"SELECT count(*) FROM {table}") == [(0,)]
    assert list((house.spool / "bodies").iterdir()) == []
    told = [(each["type"], each["recipient"], each["reason"]) for each in house.events]
    assert told == [("cancel", f"{user}@dst.test", f"exported to {tmp_path / 'out'}") for user in "bcd"]
    assert house.answer("import", tmp_path / "out")["imported"] == 2  # and it can come back, under its ids
    assert [row[0] for row in house.messages] == [message(0).id, message(1).id]


def test_more_than_a_page_and_more_than_memory_may_hold(
    house: Still, other: Still, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PAGE", 4)
    monkeypatch.setattr(export, "PAGE_OCTETS", 2 * len(CONTENT))
    monkeypatch.setattr(import_, "BATCH", 3)
    monkeypatch.setattr(import_, "BATCH_OCTETS", 2 * len(CONTENT))
    house.fill(*(message(k, "b@dst.test") for k in range(10)))
    before = house.rows()
    assert house.answer("export", tmp_path / "out", "--all", "--remove")["messages"] == 10
    assert other.answer("import", tmp_path / "out")["imported"] == 10
    assert other.rows() == before


def test_an_export_that_was_cut_off_is_repeated(house: Still, tmp_path: Path) -> None:
    """The files are there, and the messages still are: it stopped before the commit."""
    (made,) = house.fill(message(0, "b@dst.test"))
    house.answer("export", tmp_path / "out", "--all")
    (tmp_path / "out" / f"{text(made.id)}.json").unlink()  # or even before the second name
    (tmp_path / "out" / f".{text(made.id)}.json.partial").write_bytes(b'{"form')
    assert house.answer("export", tmp_path / "out", "--all", "--remove")["messages"] == 1
    assert house.answer("import", tmp_path / "out")["imported"] == 1


def test_an_export_never_overwrites_another_message(house: Still, other: Still, tmp_path: Path) -> None:
    """Two spools may have given the same queue id."""
    house.fill(message(0, "b@dst.test"))
    other.fill(message(0, "b@dst.test", sender="z@src.test"))
    house.answer("export", tmp_path / "out", "--all")
    done = other.mta("export", tmp_path / "out", "--all", "--remove")
    record = tmp_path / "out" / f"{text(message(0).id)}.json"
    assert done.output == f"Error: {record} is another message's record: export to another directory\n"
    assert (done.exit_code, len(other.rows())) == (1, 1)
    record.unlink()
    record.with_suffix(".eml").write_bytes(b"other")
    done = other.mta("export", tmp_path / "out", "--all")
    assert done.output.endswith(".eml is another message's content: export to another directory\n")


async def test_beside_a_daemon_copies_are_made_and_nothing_is_taken_away(tmp_path: Path) -> None:
    house = Still(tmp_path / "one")
    async with running(house.terms) as served:
        said = await served.send("defer@dst.test", content=LARGE)
        await served.send("defer@x.test")
        await served.event(2, type="deferral")
        done = await asyncio.to_thread(house.answer, "export", tmp_path / "out", "--domain", "dst.test")
        assert (done["messages"], done["removed"]) == (1, False)
        name = said.rpartition(" ")[2]
        assert (tmp_path / "out" / f"{name}.eml").read_bytes().endswith(LARGE)
        for command in (("export", tmp_path / "o2", "--all", "--remove"), ("import", tmp_path / "out")):
            refused = await asyncio.to_thread(house.mta, *command)
            busy = f"Error: {house.spool} is in use by another process; stop that one first\n"
            assert (refused.exit_code, refused.output) == (1, busy)
    assert not (tmp_path / "o2").exists()
    assert len(house.rows()) == 2


def test_what_was_delivered_while_it_was_read_is_left_out(
    house: Still, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.fill(message(0, "b@dst.test", content=LARGE), message(1, "b@dst.test"))

    def deliver(*arguments: Any) -> bytes:
        """The settle, and the drain that removes the file."""
        with closing(database.connect(house.spool)) as writer:
            writer.executescript("DELETE FROM message; DELETE FROM recipient; DELETE FROM body;")
        raise FileNotFoundError

    monkeypatch.setattr(export.Bodies, "read", deliver)
    assert house.answer("export", tmp_path / "out", "--all")["messages"] == 0


def test_a_queue_id_that_is_not_there_is_named_and_nothing_is_exported(house: Still, tmp_path: Path) -> None:
    (made,) = house.fill(message(0, "b@dst.test"))
    missing = text(made.id + 1)
    done = house.mta("export", tmp_path / "out", "--queue-id", text(made.id), "--queue-id", missing)
    assert done.output == f"Error: not in the queue (delivered, or never here): {missing}\n"
    assert (done.exit_code, (tmp_path / "out").exists()) == (1, False)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "say once which messages"),
        (["--all", "--tenant", "x"], "say once which messages"),
        (["--queue-id", "0"], "a queue id has 11 letters"),
        (["--domain", "a b"], "The domain is not valid"),
    ],
)
def test_a_selection_that_is_none_is_a_wrong_command_line(
    house: Still, options: list[str], said: str
) -> None:
    done = house.mta("export", "out", *options)
    assert done.exit_code == 2
    assert said in done.output


def test_a_spool_that_is_not_there_is_not_made(house: Still, tmp_path: Path) -> None:
    done = house.mta("export", tmp_path / "out", "--all", "--remove")
    assert done.output == f"Error: there is no spool: {house.spool / 'queue.db'} does not exist\n"
    assert not house.spool.exists()


def test_only_the_owner_of_a_spool_may_touch_it(house: Still, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a directory away")
    house.fill(message(0, "b@dst.test"))
    os.chown(house.spool, 65534, -1)
    for command in (("export", tmp_path / "out", "--all"), ("import", tmp_path), ("erase", "b@dst.test")):
        done = house.mta(*command)
        assert done.exit_code == 1
        assert "run this as that user: runuser -u nobody -- mta" in done.output
