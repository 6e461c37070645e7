"""Somebody sets the machine's clock: queue ids go on, no mail waits for a day, none is given up for it."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from mta.config.settings import Stream
from mta.core.limits.throttle import DeadSite
from mta.core.queue.drift import TOLERANCE, Drift
from mta.core.queue.lifecycle import State
from mta.core.queueid import created
from mta.metrics import Metrics
from mta.spool import database
from mta.spool.commit import Group, Result, Update
from mta.spool.queue import Spool
from tests.fakes.clock import HandClock
from tests.fakes.house import NETWORK, routed, running, settings
from tests.fakes.peer import HELLO, TAKES, ScriptedPeer, envelope
from tests.fakes.relay import Relay, relaying
from tests.spool.test_spool import message

DAY, WEEK = 86400.0, 604800.0
LONGEST = 6 * 3600 * 1.1  # the longest wait of a retry class, and its jitter
LATER = HELLO + envelope("250 ok", "451 4.3.0 later", "554 no recipients")
TRIES = Stream(retry_first=300.0, retry_max=600.0)
MUTE = (replace(NETWORK, notify=False),)


def set_by(clock: HandClock, seconds: float) -> None:
    """What `date -s` does: the monotonic clock goes on as ever."""
    clock._now += seconds


@pytest.mark.parametrize(
    ("seconds", "seen"),
    [
        (-DAY, -DAY),
        (WEEK, WEEK),
        (TOLERANCE, TOLERANCE),
        (TOLERANCE - 1, 0.0),
        (1 - TOLERANCE, 0.0),
        (0.0, 0.0),
    ],
)
def test_only_a_clock_that_was_set_is_noticed_and_only_once(seconds: float, seen: float) -> None:
    drift = Drift(1_000_000.0)
    assert drift.look(1_000_110.0 + seconds, 110.0) == seen
    assert drift.look(1_000_120.0 + seconds, 120.0) == 0.0


def test_a_dead_site_is_not_dead_for_a_day_because_the_clock_went_back() -> None:
    site = DeadSite()
    site.failed(1000.0 + DAY)
    assert site.ask(1001.0 + DAY).__class__.__name__ == "Wait"
    assert site.ask(1001.0).__class__.__name__ == "Go"


async def test_a_clock_set_back_a_day_holds_no_retry_for_a_day(tmp_path: Path) -> None:
    async with relaying(tmp_path, LATER, HELLO + TAKES, stream=TRIES) as relay:
        assert (await relay.house.send("b@dst.test")).startswith("250 ")
        await relay.house.event(type="deferral")
        set_by(relay.clock, -DAY)
        await _dials(relay, 2, LONGEST + 60)
        await relay.house.event(type="delivery")
    assert relay.types() == ["reception", "deferral", "delivery"]


async def test_a_clock_set_ahead_a_week_gives_nothing_up(tmp_path: Path) -> None:
    stream = replace(TRIES, expire=5 * DAY)
    async with relaying(tmp_path, LATER, LATER, HELLO + TAKES, stream=stream) as relay:
        assert (await relay.house.send("b@dst.test")).startswith("250 ")
        await relay.house.event(type="deferral")
        set_by(relay.clock, WEEK)
        await _dials(relay, 2, 400.0)
        await relay.house.event(2, type="deferral")  # tried, not given up
        await _dials(relay, 3, 700.0)
        await relay.house.event(type="delivery")
    assert relay.types() == ["reception", "deferral", "deferral", "delivery"]


async def test_queue_ids_grow_wherever_the_clock_goes(tmp_path: Path) -> None:
    clock = HandClock()
    said: list[str] = []
    async with ScriptedPeer(shut=True) as peer:
        terms = settings(tmp_path, routes=routed(peer.port))
        for jump in (0.0, -DAY, WEEK, -2 * WEEK):
            set_by(clock, jump)  # over a restart
            async with running(terms, clock, MUTE) as house:
                said += [await house.send("b@dst.test"), await house.send("b@dst.test")]
                set_by(clock, -DAY)  # while it runs
                said.append(await house.send("b@dst.test"))
    ids = [each.rpartition(" ")[2] for each in said]
    assert ids == sorted(set(ids))


async def test_a_start_with_the_clock_set_back_caps_what_waits(tmp_path: Path) -> None:
    clock = HandClock()
    async with ScriptedPeer(LATER) as peer:
        terms = settings(tmp_path, routes=routed(peer.port), streams={"transactional": TRIES})
        async with running(terms, clock, MUTE) as house:
            assert (await house.send("b@dst.test")).startswith("250 ")
            await house.event(type="deferral")
        set_by(clock, -DAY)
        async with running(terms, clock, MUTE) as house:
            (listed,) = await house.daemon._queue({})
    assert datetime.fromisoformat(listed["due"]).timestamp() <= clock.now() + LONGEST


async def test_mail_that_its_sender_holds_back_is_not_released_by_a_clock_set_back(tmp_path: Path) -> None:
    clock = HandClock()

    async def publish(lines: bytes) -> None: ...

    spool = Spool(tmp_path, "live", 1000, publish, clock, Metrics())
    await spool.open(300.0)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(spool.run())
        born = clock.now()
        made = [message(spool, f"{n}@dst.test") for n in range(3)]
        for each in made:
            spool.put(each, [], lambda error: None)
        await spool.lease([])
        dues = [born + 3 * DAY, born + 90.0, born + 3600.0]  # held for days; at a gate; a retry
        spool.settle(made[0], [], [Update(State.DEFERRED, 0, dues[0], made[0].id, 0)], [])
        spool.settle(made[1], [], [Update(State.DEFERRED, 0, dues[1], made[1].id, 0)], [])
        spool.settle(made[2], [], [Update(State.DEFERRED, 2, dues[2], made[2].id, 0)], [])
        await spool.bring_forward(born - DAY, 7200.0)
        await spool.prolong(born + 1.0, WEEK)
        spool.stop()
    await spool.close()
    connection = sqlite3.connect(tmp_path / database.FILE)
    found = [due for (due,) in connection.execute("SELECT due FROM recipient ORDER BY message")]
    expires = {expires for (expires,) in connection.execute("SELECT expires FROM message")}
    connection.close()
    assert found[0] == dues[0]
    assert found[1] == pytest.approx(born - DAY + dues[1] - created(made[1].id))
    assert born - DAY <= found[2] <= born - DAY + 7200.0
    assert expires == {made[0].expires + WEEK}


async def _dials(relay: Relay, calls: int, most: float) -> None:
    """Let the time pass until the peer has got so many connections; not longer than `most` seconds."""
    passed = 0.0
    async with asyncio.timeout(20):
        while len(relay.peer.calls) < calls:
            assert passed < most, relay.house.events
            await relay.clock.advance(5.0)
            passed += 5.0
            await relay.house.daemon.spool.lease([])  # what had to be committed or read has been
            await relay.house.daemon.spool.reader.lines()


class Slow:
    """Commits that change times wait, each for `go`, or fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, spool: Spool) -> None:
        self.written = 0
        self.under_way = asyncio.Event()
        self.go = asyncio.Event()
        self.errors: list[Exception] = []
        real = spool._in_thread

        async def write(batch: Group) -> Result:
            if batch.times:
                self.written += 1
                if self.errors:
                    raise self.errors.pop()
                self.under_way.set()
                await self.go.wait()
            return await real(batch)

        monkeypatch.setattr(spool, "_in_thread", write)


async def test_a_deferral_that_is_noted_while_the_clock_is_set_back_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = HELLO + "<- MAIL FROM:<*\n<- RCPT TO:<*\n<- DATA\nhold\n-> 250 ok\n-> 451 4.3.0 later\n-> 554 no\n"
    async with relaying(tmp_path, held, HELLO + TAKES, stream=TRIES) as relay:
        daemon = relay.house.daemon
        await relay.house.send("b@dst.test")
        await relay.peer.at(1, "hold")
        slow = Slow(monkeypatch, daemon.spool)
        set_by(relay.clock, -7200.0)
        looking = asyncio.create_task(daemon.scheduler._watch.look())
        await slow.under_way.wait()
        relay.peer.go()  # the peer answers while the new times are being written
        async with asyncio.timeout(10):
            while not daemon.spool._group.updates:
                await daemon.spool.reader.learned()
        slow.go.set()
        assert await looking
        await _dials(relay, 2, 1000.0)
        await relay.house.event(type="delivery")


@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk I/O error"), RuntimeError("a bug of ours")])
async def test_a_set_back_that_cannot_be_written_or_read_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async with relaying(tmp_path, LATER, HELLO + TAKES, stream=TRIES) as relay:
        daemon = relay.house.daemon
        await relay.house.send("b@dst.test")
        await relay.house.event(type="deferral")
        real, failures = daemon.spool.reader.lines, [error, error]

        async def lines() -> object:
            if failures:
                raise failures.pop()
            return await real()

        slow = Slow(monkeypatch, daemon.spool)
        slow.go.set()
        slow.errors = [sqlite3.OperationalError("disk I/O error")]
        monkeypatch.setattr(daemon.spool.reader, "lines", lines)
        set_by(relay.clock, -DAY)
        async with asyncio.timeout(20):
            while failures or slow.errors:
                await relay.clock.advance(5.0)
                await daemon.spool.reader.learned()
        await _dials(relay, 2, 2 * LONGEST)
        await relay.house.event(type="delivery")


async def test_new_mail_gets_between_the_slices_of_a_set_clock_and_each_lives_on_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mta.spool.notes.SLICE", 3)
    clock = HandClock()

    async def publish(lines: bytes) -> None: ...

    spool = Spool(tmp_path, "live", 1000, publish, clock, Metrics())
    await spool.open(300.0)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(spool.run())
        made = [message(spool, f"{n}@dst.test") for n in range(20)]
        for each in made:
            spool.put(each, [], lambda error: None)
            spool.settle(each, [], [Update(State.DEFERRED, 1, clock.now() + DAY, each.id, 0)], [])
        slow = Slow(monkeypatch, spool)
        slow.errors = [sqlite3.OperationalError("disk I/O error")]
        moving = tasks.create_task(spool.prolong(clock.now() + 1.0, WEEK))
        async with asyncio.timeout(10):
            while not slow.under_way.is_set():
                await clock.advance(1.0)  # the disk that refuses is asked again
        new = message(spool, "new@dst.test")
        owned = asyncio.Event()
        spool.put(new, [], lambda error: owned.set())
        first = slow.written
        slow.go.set()
        async with asyncio.timeout(10):
            await owned.wait()
            between = slow.written
            await moving
        assert first <= between < slow.written
        slow.written = 0
        await spool.bring_forward(clock.now() - WEEK, 7200.0)
        assert slow.written >= 20 / 3
        spool.stop()
    await spool.close()
    connection = sqlite3.connect(tmp_path / database.FILE)
    expires = dict(connection.execute("SELECT id, expires FROM message"))
    (latest,) = connection.execute("SELECT max(due) FROM recipient WHERE due IS NOT NULL").fetchone()
    connection.close()
    assert {expires[each.id] - each.expires for each in made} == {WEEK}
    assert latest <= clock.now() - WEEK + 7200.0


async def test_nothing_is_given_up_before_the_new_time_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = replace(TRIES, expire=5 * DAY)
    async with relaying(tmp_path, LATER, LATER, stream=stream) as relay:
        daemon = relay.house.daemon
        await relay.house.send("b@dst.test")
        await relay.house.event(type="deferral")
        slow = Slow(monkeypatch, daemon.spool)
        set_by(relay.clock, WEEK)
        async with asyncio.timeout(10):
            while not slow.under_way.is_set():
                await relay.clock.advance(5.0)
                await daemon.spool.reader.lines()
        for _ in range(20):
            await relay.clock.advance(5.0)
            await daemon.spool.reader.lines()
        assert relay.types() == ["reception", "deferral"]
        slow.go.set()
        await _dials(relay, 2, 700.0)
        await relay.house.event(2, type="deferral")
        assert relay.types() == ["reception", "deferral", "deferral"]


async def test_mail_in_memory_lives_on_when_the_clock_goes_ahead(tmp_path: Path) -> None:
    held = HELLO + "<- MAIL FROM:<*\n<- RCPT TO:<*\n<- DATA\nhold\n-> 250 ok\n-> 451 4.3.0 later\n-> 554 no\n"
    stream = replace(TRIES, expire=5 * DAY)
    async with relaying(tmp_path, held, HELLO + TAKES, stream=stream) as relay:
        await relay.house.send("b@dst.test")
        await relay.peer.at(1, "hold")
        set_by(relay.clock, WEEK)
        relay.peer.go()
        told = await relay.house.event(type="deferral")
        assert "due" in told
        await _dials(relay, 2, 700.0)
        await relay.house.event(type="delivery")
        assert relay.types() == ["reception", "deferral", "delivery"]
