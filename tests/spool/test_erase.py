"""A person asks to be forgotten: nothing of the queue and of the event log names him then."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mta.core.event import Event, ReplyField, Type, encode_lines
from mta.core.queueid import text
from mta.spool import database, erase
from mta.spool.bodies import THRESHOLD
from tests.fakes.house import running
from tests.fakes.still import CONTENT, LARGE, Still, message

ANN = "ann@dst.test"


@pytest.fixture
def house(tmp_path: Path) -> Still:
    return Still(tmp_path)


def line(seq: int, **fields: Any) -> bytes:
    return encode_lines([Event(seq, "2026-11-20T12:00:00.000Z", Type.BOUNCE, **fields)])


def octets(directory: Path) -> bytes:
    """Everything that the spool's files hold, free pages and all."""
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


def test_recipients_leave_and_messages_that_have_no_other_with_them(house: Still) -> None:
    secret = CONTENT + b"for ann only\r\n" * 10
    house.fill(
        message(0, ANN, content=secret),
        message(1, "bob@dst.test", ANN, "Ann@DST.test"),
        message(2, "joann@dst.test"),
        message(3, ANN, content=LARGE),
    )
    done = house.answer("erase", "Ann@dst.test")
    assert (done["recipients"], done["messages"], done["sent"]) == (4, 2, 0)
    assert [(row[0], row[2]) for row in house.rows()] == [
        (message(1).id, "bob@dst.test"),
        (message(2).id, "joann@dst.test"),
    ]
    assert [row[0] for row in house.messages] == [message(1).id, message(2).id]
    left = octets(house.spool)
    assert b"for ann only" not in left
    assert b"x" * THRESHOLD not in left
    assert left.replace(b"joann@", b"").lower().count(b"ann@dst.test") == 0


def test_each_recipient_is_told_as_cancelled_without_his_name(house: Still) -> None:
    house.fill(message(0, "bob@dst.test", ANN), message(1, ANN))
    house.answer("erase", ANN)
    told = [(each["type"], each["queue_id"], each["recipient"], each["reason"]) for each in house.events]
    assert sorted(told) == [
        ("cancel", text(message(k).id), "erased", "erased at the request of the person") for k in (0, 1)
    ]
    assert len({each["seq"] for each in house.events}) == 2


def test_all_segments_of_the_log_forget_and_one_that_never_knew_is_not_touched(house: Still) -> None:
    house.fill()
    knew = house.spool / "events-2026-11-20.jsonl"
    never = house.spool / "events-2026-11-19.jsonl"
    today = house.spool / "events.jsonl"
    reply = ReplyField(550, "5.1.1", f"<{ANN}>: no such user", "RCPT")
    knew.write_bytes(
        line(1, recipient=ANN, reply=reply)
        + line(2, recipient="joann@dst.test")
        + line(3, sender="bounces+ann=dst.test@shop.test")
    )
    never.write_bytes(line(0, recipient="joann@dst.test") + b"not ours\n")
    today.write_bytes(line(4, recipient="Ann@DST.test"))
    before, inode = never.read_bytes(), never.stat().st_ino
    done = house.answer("erase", "Ann@dst.test")
    assert (done["event_lines"], done["event_segments"]) == (3, 2)
    erased = ReplyField(550, "5.1.1", "<erased>: no such user", "RCPT")
    assert knew.read_bytes() == (
        line(1, recipient="erased", reply=erased)
        + line(2, recipient="joann@dst.test")
        + line(3, sender="bounces+erased@shop.test")
    )
    assert today.read_bytes() == line(4, recipient="erased")
    assert (never.read_bytes(), never.stat().st_ino) == (before, inode)
    assert not list(house.spool.glob(".*"))
    again = house.answer("erase", "Ann@dst.test")
    assert (again["recipients"], again["event_lines"], again["event_segments"]) == (0, 0, 0)


def test_what_a_command_that_was_killed_left_of_the_log_goes(house: Still) -> None:
    house.fill(message(0, "ann@dst.test"))
    (house.spool / "events.jsonl").write_bytes(line(1, recipient="bob@dst.test"))
    left = house.spool / ".events.jsonl.partial"
    left.write_bytes(line(1, recipient="carl@dst.test"))
    house.answer("erase", "eve@dst.test")
    assert not left.exists()


def test_mail_that_the_person_sent_stays_and_is_told_with_its_end(house: Still) -> None:
    house.fill(message(0, "bob@dst.test", sender="Ann@dst.TEST"))
    done = house.mta("erase", "Ann@dst.test")
    assert "1 messages from Ann@dst.test wait in the queue, until 2027-01-19T23:06:40.000Z" in done.output
    assert "mta spool export DIRECTORY --sender Ann@dst.test --remove" in done.output
    assert len(house.rows()) == 1


def test_it_says_what_it_cannot_reach(house: Still) -> None:
    house.fill()
    said = house.mta("erase", ANN).output
    for what in (
        "backups",
        "contents, tags and metadata of messages to other recipients",
        "the servers",
        "that the sandbox keeps",
    ):
        assert what in said


def test_many_recipients_leave_in_bounded_commits(house: Still, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erase, "PAGE", 3)
    house.fill(*(message(k, ANN) for k in range(10)))
    done = house.answer("erase", ANN)
    assert (done["recipients"], done["messages"]) == (10, 10)


async def test_the_daemon_delivers_to_the_others_afterwards(tmp_path: Path) -> None:
    house = Still(tmp_path)
    async with running(house.terms) as served:
        await served.send("defer@dst.test", "ok@dst.test", ANN)
        await served.event(type="deferral")
        await served.event(2, type="delivery")
    await asyncio.to_thread(house.answer, "erase", "defer@dst.test")
    async with running(house.terms) as served:
        assert (await served.send("ok@dst.test")).startswith("250")
        await served.event(type="delivery")
    assert house.rows() == []
    told = {each["recipient"] for each in house.events if "recipient" in each}
    assert told == {"ok@dst.test", "erased", ANN}


async def test_a_running_daemon_is_in_the_way(tmp_path: Path) -> None:
    house = Still(tmp_path)
    async with running(house.terms):
        done = await asyncio.to_thread(house.mta, "erase", ANN)
    assert done.output == f"Error: {house.spool} is in use by another process; stop that one first\n"


def test_a_log_that_cannot_be_written_is_told_and_the_command_is_repeated(
    house: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.fill(message(0, ANN))

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("mta.events.log.os.fdatasync", full)
        done = house.mta("erase", ANN)
    assert done.exit_code == 1
    assert "the queue is done, the event log is not; see to the log and repeat the command" in done.output
    assert house.answer("erase", ANN)["recipients"] == 0
    assert [each["recipient"] for each in house.events] == ["erased"]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (
            "mta.events.segments.os.fchmod",
            "the queue is done, the event log is not: [Errno 28] No space left",
        ),
        ("mta.spool.erase.connect", "can still be read from free pages of the database: disk is full"),
    ],
)
def test_what_a_full_disk_leaves_undone_is_told_and_done_by_the_next_try(
    house: Still, monkeypatch: pytest.MonkeyPatch, broken: str, said: str
) -> None:
    house.fill(message(0, ANN))
    (house.spool / "events-2026-11-20.jsonl").write_bytes(line(1, recipient=ANN))

    def full(*arguments: object) -> None:
        if "connect" in broken:
            raise sqlite3.OperationalError("disk is full")
        raise OSError(28, "No space left")

    with monkeypatch.context() as context:
        context.setattr(broken, full)
        done = house.mta("erase", ANN)
    assert done.exit_code == 1
    assert said in done.output
    assert "repeat the command" in done.output
    assert house.mta("erase", ANN).exit_code == 0
    assert ANN.encode() not in octets(house.spool)


def test_lines_that_an_earlier_crash_left_in_the_spool_forget_too(house: Still) -> None:
    """They are drained first, and their segment is rewritten."""
    house.fill(message(0, "bob@dst.test"))
    with closing(database.connect(house.spool)) as connection:
        connection.execute("INSERT INTO outbox VALUES (5, ?, '[]')", (line(5, recipient=ANN),))
    assert house.answer("erase", ANN)["event_lines"] == 1
    assert (house.spool / "events.jsonl").read_bytes() == line(5, recipient="erased")
    assert ANN.encode() not in octets(house.spool)


@pytest.mark.parametrize("address", ["ann", "<ann@dst.test>"])
def test_what_is_no_address_is_a_wrong_command_line(house: Still, address: str) -> None:
    house.fill()
    assert house.mta("erase", address).exit_code == 2


def test_json_is_one_document(house: Still) -> None:
    house.fill(message(0, "bob@dst.test", sender=ANN))
    assert set(json.loads(house.mta("erase", ANN, "--json").stdout)) == {
        "recipients", "messages", "event_lines", "event_segments", "sent", "sent_until", "not_reached",
    }  # fmt: skip


def test_what_a_peer_said_of_others_forgets_the_person_too(house: Still) -> None:
    house.fill(message(0, "bob@dst.test"), message(1, "eve@dst.test"))
    said = '[1800000000,"deferred",450,"","<%s> is away, ask eve","mailbox","RCPT","mx.test","","code-450"]'
    with closing(sqlite3.connect(house.spool / database.FILE)) as connection:
        for number, name in enumerate((ANN, "joann@dst.test")):
            values = said % name, message(number).id
            connection.execute("UPDATE recipient SET last = ? WHERE message = ?", values)
        connection.commit()
    house.answer("erase", "Ann@dst.test")
    with closing(sqlite3.connect(house.spool / database.FILE)) as connection:
        kept = connection.execute("SELECT last FROM recipient ORDER BY message").fetchall()
    assert kept == [(said % "erased",), (said % "joann@dst.test",)]
    assert octets(house.spool).replace(b"joann@", b"").count(b"ann@dst.test") == 0
