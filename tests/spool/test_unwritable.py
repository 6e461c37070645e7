"""What no disk would take: it costs the message that it is about, and nobody else."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from mta.core.event import Event, Type
from mta.core.model import Line, Message
from mta.core.queue.lifecycle import State
from mta.core.queueid import text
from mta.spool import slack
from mta.spool.commit import Put, Unwritable, Update
from mta.spool.leftovers import AGAIN
from mta.spool.outbox import RETRY_AFTER_FAILURE
from mta.spool.queue import ASIDE, UNWRITABLE_WAIT, Spool
from tests.fakes.clock import HandClock
from tests.spool.test_spool import LINE, Lines, message, opened, put, rows

NEVER = 2**70  # no integer of SQLite's


def told(spool: Spool, made: Message) -> asyncio.Future[Exception | None]:
    answer: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    spool.put(made, [Event(type=Type.RECEPTION, queue_id=text(made.id))], answer.set_result)
    return answer


@pytest.mark.parametrize("field", ["sender", "message_id", "tenant", "credential"])
async def test_a_message_that_cannot_be_written_keeps_none_of_its_neighbours_out(
    tmp_path: Path, field: str
) -> None:
    async with opened(tmp_path) as spool:
        made = [message(spool, f"{n}@dst.test") for n in range(20)]
        for poisoned in (made[7], made[19]):
            setattr(poisoned, field, "octets \udcff that are no text")
        answers = await asyncio.gather(*(told(spool, each) for each in made))
        assert [n for n, answer in enumerate(answers) if isinstance(answer, Unwritable)] == [7, 19]
        assert [answer for answer in answers if answer is None] == [None] * 18
        assert rows(tmp_path, "SELECT count(*) FROM message") == [(18,)]
        assert spool.tally.recipients == 18
        assert spool.failing is None
        assert spool._metrics.bugs["spool"]._value.get() == 2
        await put(spool, "later@dst.test")


async def test_octets_of_a_peer_that_are_no_text_are_told_as_far_as_they_can_be(tmp_path: Path) -> None:
    lines = Lines()
    async with opened(tmp_path, lines=lines) as spool:
        made = await put(spool, "b@dst.test")
        bounce = Event(type=Type.BOUNCE, queue_id=text(made.id), reason="nicht verf\udcfcgbar")
        spool.settle(made, made.recipients, [], [bounce])
        await spool.lease([])
        assert rows(tmp_path, "SELECT count(*) FROM message") == [(0,)]
    assert lines.seen == [1, 2]


async def test_an_outcome_that_cannot_be_written_puts_its_mail_off(tmp_path: Path) -> None:
    clock, noted = HandClock(), list[tuple[Line, float]]()
    async with opened(tmp_path, clock=clock) as spool:
        spool.on_due = lambda line, due: noted.append((line, due))
        poisoned, sound = await put(spool, "b@dst.test", "c@dst.test"), await put(spool, "d@dst.test")
        spool.settle(poisoned, [], [Update(State.DEFERRED, NEVER, 1.0, poisoned.id, 0)], [])
        spool.settle(sound, sound.recipients, [], [])
        await spool.lease([])
        later = clock.now() + UNWRITABLE_WAIT
        found = rows(tmp_path, "SELECT message, n, state, due FROM recipient")
        assert found == [(poisoned.id, 0, 1, later), (poisoned.id, 1, 0, None)]
        assert noted == [(LINE, later)]
        assert spool.tally.fresh == 1
        assert spool.has_room


async def test_who_waits_for_a_batch_with_something_unwritable_is_answered(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        made = await put(spool, "b@dst.test")
        async with asyncio.timeout(10):
            await spool.lease(
                [Update(State.DEFERRED, 1, 5.0, NEVER, 0), Update(State.DEFERRED, 2, 9.0, made.id, 0)]
            )
        assert rows(tmp_path, "SELECT attempts, due FROM recipient") == [(2, 9.0)]


async def test_a_disk_that_fills_while_a_batch_is_taken_apart_keeps_what_was_settled(tmp_path: Path) -> None:
    clock = HandClock()
    async with opened(tmp_path, clock=clock) as spool:
        poisoned, sound = await put(spool, "b@dst.test"), await put(spool, "c@dst.test")
        await spool.lease([])
        real, calls = spool._run_in_thread, 0

        async def fills(work: object) -> object:
            nonlocal calls
            calls += 1
            if calls == 2:
                full = sqlite3.OperationalError("database or disk is full")
                full.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise full
            return await real(work)  # type: ignore[arg-type]

        spool._run_in_thread = fills  # type: ignore[method-assign,assignment]
        spool.settle(poisoned, [], [Update(State.DEFERRED, NEVER, 1.0, poisoned.id, 0)], [])
        spool.settle(sound, sound.recipients, [], [])
        while spool.failing is None:  # noqa: ASYNC110 - the spool tells nobody else
            await asyncio.sleep(0)
        await clock.advance(1.0)
        await spool.lease([])
        assert rows(tmp_path, "SELECT message FROM recipient") == [(poisoned.id,)]
        assert spool.tally.recipients == 1


async def test_an_event_log_that_fails_in_a_way_that_nobody_thought_of_is_tried_again(tmp_path: Path) -> None:
    clock, lines = HandClock(), Lines()
    lines.broken = ValueError("a bug")  # type: ignore[assignment]
    async with opened(tmp_path, clock=clock, lines=lines) as spool:
        await put(spool, "b@dst.test")
        while not spool.complaints:  # noqa: ASYNC110 - the spool tells nobody else
            await asyncio.sleep(0)
        assert any("a bug" in each for each in spool.complaints)
        lines.broken = None
        await clock.advance(1.0)
        async with asyncio.timeout(10):
            await lines.came.wait()
    assert lines.seen == [1]


async def test_contents_that_cannot_be_removed_stop_nobody_and_go_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HandClock()
    real, asked = Path.unlink, asyncio.Event()
    loop = asyncio.get_running_loop()
    is_read_only = True

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.parent.name == "bodies" and is_read_only:
            loop.call_soon_threadsafe(asked.set)
            raise OSError(30, "Read-only file system", str(path))
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    async with opened(tmp_path, clock=clock) as spool:
        await spool.lease([])
        large = message(spool, "b@dst.test")
        large.content = b"x" * ASIDE
        assert await told(spool, large) is None
        spool.settle(large, large.recipients, [], [Event(type=Type.DELIVERY)])
        async with asyncio.timeout(10):
            await asked.wait()
            await clock.asked_for(AGAIN)
        await put(spool, "c@dst.test")
        assert [path.name for path in (tmp_path / "bodies").iterdir()] == [text(large.id)]
        is_read_only = False
        await clock.advance(AGAIN)
        while not spool._leftovers.is_empty:  # noqa: ASYNC110 - nobody waits for that
            await asyncio.sleep(0)
        assert not list((tmp_path / "bodies").iterdir())


async def test_a_large_content_on_its_way_to_the_disk_keeps_nobody_waiting(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.lease([])
        real, goes_on = spool._bodies.write, threading.Event()

        def slow(contents: object) -> None:
            goes_on.wait(30)
            real(contents)  # type: ignore[arg-type]

        spool._bodies.write = slow  # type: ignore[method-assign,assignment]
        large = message(spool, "b@dst.test")
        large.content = b"x" * ASIDE
        answer = told(spool, large)
        async with asyncio.timeout(10):
            await put(spool, "c@dst.test")
        assert not answer.done()
        goes_on.set()
        assert await answer is None
        assert large.content is None  # who sends it reads it
        assert rows(tmp_path, "SELECT count(*) FROM message") == [(2,)]


async def test_pages_that_a_backlog_has_left_are_given_back_at_leisure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slack, "KEPT", 1024 * 1024)
    clock = HandClock()
    async with opened(tmp_path, clock=clock) as spool:
        made = []
        for _ in range(80):
            each = message(spool, "b@dst.test")
            each.content = b"x" * 100_000
            made.append(each)
        await asyncio.gather(*(told(spool, each) for each in made))
        for each in made:
            spool.settle(each, each.recipients, [], [])
        await spool.lease([])
        await spool.lease([])
        for _ in range(200):
            await clock.advance(slack.LOOK)
            if spool.slack._looking is not None:
                await spool.slack._looking
            if spool.slack.is_quiet and spool.slack.octets <= slack.KEPT:
                break
        ((count,),) = rows(tmp_path, "PRAGMA page_count")
        assert isinstance(count, int)
        assert count * 8192 < 3 * 1024 * 1024


def test_a_file_from_before_gives_pages_back_as_soon_as_it_holds_little(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "queue.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE body (message INTEGER PRIMARY KEY, content BLOB)")
    connection.executemany("INSERT INTO body VALUES (?, ?)", ((n, b"x" * 100_000) for n in range(100)))
    connection.execute("DELETE FROM body WHERE message > 1")
    before = slack.octets(connection)
    slack.convert(connection)
    assert before > 5_000_000
    assert slack.octets(connection) == 0
    connection.execute("DELETE FROM body")
    left = slack.give_back(connection)
    assert left == 0
    connection.close()


async def owned(spool: Spool) -> Message:
    """A large message that is on disk."""
    large = message(spool, "b@dst.test")
    large.content = b"x" * ASIDE
    assert await told(spool, large) is None
    return large


async def removed(spool: Spool) -> None:
    async with asyncio.timeout(10):
        while not spool._leftovers.is_empty:  # noqa: ASYNC110 - nobody waits for that
            await asyncio.sleep(0)


async def test_however_many_contents_cannot_be_removed_they_are_told_once_and_wait_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = HandClock()
    asked = list[float]()
    real = clock.call_later
    async with opened(tmp_path, clock=clock) as spool:
        await spool.lease([])
        with monkeypatch.context() as patch:
            patch.setattr(spool._bodies, "remove", lambda all_: {n: OSError(5, "no") for n in all_})
            patch.setattr(
                clock, "call_later", lambda delay, work: (asked.append(delay), real(delay, work))[1]
            )
            for _ in range(5):
                large = await owned(spool)
                spool.settle(large, large.recipients, [], [Event(type=Type.DELIVERY)])
                await spool.lease([])
                async with asyncio.timeout(10):
                    while large.id not in spool._leftovers._stuck:
                        await spool.lease([])
            assert asked.count(AGAIN) == 1
            assert caplog.text.count("contents that are of no more use stay on disk") == 1
        await clock.advance(AGAIN)
        await removed(spool)
        assert not list((tmp_path / "bodies").iterdir())


async def test_a_large_message_that_a_shut_door_refuses_leaves_no_file(tmp_path: Path) -> None:
    clock = HandClock()
    async with opened(tmp_path, clock=clock) as spool:
        await spool.lease([])
        spool._outbox.is_full = True
        large = message(spool, "b@dst.test")
        large.content = b"x" * ASIDE
        answer = told(spool, large)
        await clock.asked_for(RETRY_AFTER_FAILURE)
        await clock.advance(RETRY_AFTER_FAILURE)
        async with asyncio.timeout(10):
            assert isinstance(await answer, OSError)
        assert not list((tmp_path / "bodies").iterdir())


async def test_a_large_message_that_no_commit_takes_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as spool:
        await spool.lease([])

        def check() -> None:
            raise OSError(116, "the database was replaced")

        with monkeypatch.context() as patch:
            patch.setattr(spool._place, "check", check)
            large = message(spool, "b@dst.test")
            large.content = b"x" * ASIDE
            async with asyncio.timeout(10):
                assert isinstance(await told(spool, large), OSError)
            await removed(spool)
        assert not list((tmp_path / "bodies").iterdir())


async def test_a_bug_behind_a_commit_takes_nothing_away_that_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(spool: Spool) -> None:
        await spool.lease([])
        poisoned = message(spool, "b@dst.test")
        poisoned.sender = "octets \udcff"
        await asyncio.to_thread(spool._bodies.write, [(large.id, large.content or b"")])
        monkeypatch.delattr(spool.tally, "_tenants")
        spool._put(Put(poisoned, poisoned.content or b"", [], lambda error: None))
        spool._put(Put(large, large.content or b"", [], heard.append, written=True))
        async with asyncio.timeout(10):
            await asyncio.Event().wait()

    heard = list[object]()
    with pytest.raises(ExceptionGroup):  # noqa: PT012
        async with opened(tmp_path) as spool:
            large = message(spool, "c@dst.test")
            large.content = b"x" * ASIDE
            await broken(spool)
    assert not heard
    assert rows(tmp_path, "SELECT id FROM message") == [(large.id,)]
    assert [path.name for path in (tmp_path / "bodies").iterdir()] == [text(large.id)]


async def test_an_outcome_whose_event_alone_cannot_be_written_counts(tmp_path: Path) -> None:
    """Else the peer would get the mail again each hour."""
    async with opened(tmp_path) as spool:
        made = await put(spool, "b@dst.test")
        delivery = Event(type=Type.DELIVERY, queue_id=text(made.id), size=object())  # type: ignore[arg-type]
        spool.settle(made, made.recipients, [], [delivery])
        await spool.lease([])
        assert rows(tmp_path, "SELECT count(*) FROM message") == [(0,)]
        assert spool._metrics.bugs["spool"]._value.get() == 1
        assert (spool.tally.fresh, spool.tally.recipients) == (0, 0)
