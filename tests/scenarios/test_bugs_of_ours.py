"""A bug of ours somewhere on the way out: it costs an attempt, and no mail is forgotten for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mta.config.settings import Duration, SpoolSettings, Stream
from mta.core.limits.sparing import MOST, PERIOD
from mta.outbound import strays
from tests.fakes.clock import HandClock
from tests.fakes.house import NETWORK, House, routed, running, settings
from tests.fakes.relay import MUTE

B = "b@dst.test"
DOTS = b"From: a@src.test\r\n\r\n.dot\r\n"
TRIES = Stream(retry_first=Duration(300.0), retry_max=Duration(300.0))


class Peer:
    """Takes everything, or says what it is told to at RCPT; `go` lets a final dot be answered."""

    def __init__(self) -> None:
        self.rcpt = b"250 ok\r\n"
        self.taken = 0
        self.go = asyncio.Event()
        self.go.set()
        self.held = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        content = False
        try:
            writer.write(b"220 mx\r\n")
            while line := await reader.readline():
                if content and line != b".\r\n":
                    continue
                verb, content = line[:4].upper(), False
                if verb == b"EHLO":
                    writer.write(b"250-mx\r\n250 PIPELINING\r\n")
                elif verb == b"RCPT":
                    writer.write(self.rcpt)
                elif verb == b"DATA":
                    content = self.rcpt.startswith(b"2")
                    writer.write(b"354 go on\r\n" if content else b"554 nobody\r\n")
                elif line == b".\r\n":
                    self.held.set()
                    await self.go.wait()
                    self.taken += 1
                    writer.write(b"250 taken\r\n")
                else:
                    writer.write(b"250 ok\r\n")
        except OSError:
            pass
        finally:
            writer.close()

    def hang_up(self) -> None:
        for task in self._tasks:
            task.cancel()


class Rig:
    """A house and its peer."""

    def __init__(self, house: House, peer: Peer, clock: HandClock) -> None:
        self.house, self.peer, self.clock = house, peer, clock

    @property
    def bugs(self) -> float:
        return sum(counter._value.get() for counter in self.house.daemon.metrics.bugs.values())

    async def until(self, condition: Callable[[], object], most: float) -> None:
        """Let the time pass, in small steps, until it is so."""
        passed = 0.0
        async with asyncio.timeout(30):
            while not condition():
                assert passed < most, (self.house.events, self.bugs)
                await self.clock.advance(5.0)
                passed += 5.0
                await self.house.daemon.spool.lease([])
                await self.house.daemon.spool.reader.lines()

    def is_empty(self) -> bool:
        """Is nothing left, anywhere?"""
        daemon = self.house.daemon
        return not (
            daemon.spool.tally.recipients
            or daemon.spool.memory_used
            or len(daemon.scheduler._leases)
            or daemon.pool.contents.octets
            or any(lane.connections != len(lane.idle) for lane in daemon.pool._lanes)
            or (any(daemon.scheduler._held()) and any(batches for batches in daemon.scheduler._held()))
        )


@asynccontextmanager
async def rigged(
    directory: Path, *, stream: Stream = TRIES, notify: bool = False, memory: int = 1_000_000
) -> AsyncIterator[Rig]:
    peer, clock = Peer(), HandClock()
    server = await asyncio.start_server(peer.answer, "127.0.0.1", 0, limit=1 << 22)
    terms = settings(
        directory,
        routes=routed(server.sockets[0].getsockname()[1]),
        streams={"transactional": stream},
        spool=SpoolSettings(directory / "spool", memory=memory),  # type: ignore[arg-type]
    )
    async with running(terms, clock, (NETWORK if notify else MUTE,)) as house:
        try:
            yield Rig(house, peer, clock)
        finally:
            peer.go.set()
            peer.hang_up()
            server.close()


def once(monkeypatch: pytest.MonkeyPatch, name: str, times: int = 1) -> Callable[[], int]:
    """What has this name raises the next so many times that it is called; how often it did."""
    owner, _, attribute = name.rpartition(".")
    target = pytest.importorskip(owner) if owner.rpartition(".")[2].islower() else None
    if target is None:
        module, _, cls = owner.rpartition(".")
        target = getattr(pytest.importorskip(module), cls)
    real = getattr(target, attribute)
    met = 0

    def bug(*args: Any, **terms: Any) -> Any:
        nonlocal met
        if met < times:
            met += 1
            raise RuntimeError("a bug of ours")
        return real(*args, **terms)

    monkeypatch.setattr(target, attribute, bug)
    return lambda: met


ANYWHERE = [
    "mta.outbound.outcome.Settler._event",
    "mta.outbound.outcome.created",
    "mta.delivery.transactions.Transactions._head",
    "mta.delivery.lane.Lane.granted",
    "mta.delivery.lane.Lane._wants_connection",
    "mta.delivery.transactions.Transactions.start",
    "mta.delivery.transactions.Transactions.take",
    "mta.delivery.transactions.Transactions.idle_again",
    "mta.delivery.lane.Lane.opened",
    "mta.delivery.transactions.Transaction",
    "mta.delivery.transactions.outcomes",
    "mta.delivery.transactions.surplus",
    "mta.delivery.transactions.unsendable",
    "mta.delivery.traffic.Traffic.ended",
    "mta.delivery.traffic.Traffic.take",
    "mta.delivery.traffic.Traffic.dial",
    "mta.delivery.traffic.Traffic.opened",
    "mta.delivery.connect.Connector.connect",
    "mta.delivery.router.Router.cached",
    "mta.delivery.pool.Pool.offer",
    "mta.delivery.pool.Pool.choose",
    "mta.delivery.pool.Pool.open",
    "mta.outbound.leases.Leases.give_back",
    "mta.outbound.gate.Gate.hours",
    "mta.core.answers.dialogue.envelope_lines",
    "mta.core.answers.dialogue.Dialogue.begin",
    "mta.core.answers.dialogue.Dialogue.feed",
    "mta.core.answers.dialogue.Dialogue._feed",
    "mta.core.answers.dialogue.Dialogue._finish",
    "mta.core.answers.dialogue.Dialogue._say",
    "mta.smtp.client.Connection.received",
    "mta.smtp.client.Connection._write",
]
READING = [
    "mta.delivery.contents.Contents.has_room",
    "mta.delivery.contents.Contents.read",
    "mta.delivery.transactions.Transactions.begin",
    "mta.delivery.contents.stuff",
    "mta.delivery.contents.header_block",
    "mta.spool.reader.Reader.content",
]
RETRYING = [
    "mta.outbound.outcome.Settler.next_due",
    "mta.outbound.gate.Gate.room",
    "mta.outbound.gate.Gate.source",
    "mta.outbound.retries.Retries._wanted",
    "mta.outbound.retries.Retries._lot",
    "mta.outbound.leases.Leases.room",
    "mta.outbound.leases.Leases.take",
    "mta.outbound.leases.Leases.free",
    "mta.core.queue.agenda.Agenda.take",
    "mta.spool.reader.Reader.due",
    "mta.core.queue.drift.Drift.look",
]


@pytest.mark.parametrize("name", ANYWHERE)
async def test_fresh_mail_meets_a_bug_and_is_sent_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async with rigged(tmp_path) as rig:
        met = once(monkeypatch, name)
        assert (await rig.house.send(B)).startswith("250 ")
        await rig.until(rig.is_empty, 900.0)
        assert met()
        assert rig.bugs
        assert 1 <= rig.peer.taken <= 2  # twice where our bug cut the answer off


@pytest.mark.parametrize("name", READING)
async def test_mail_whose_content_is_read_meets_a_bug_and_is_sent_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async with rigged(tmp_path, memory=1) as rig:
        met = once(monkeypatch, name)
        assert (await rig.house.send(B, content=DOTS)).startswith("250 ")
        await rig.until(rig.is_empty, 900.0)
        assert met()
        assert rig.bugs
        assert rig.peer.taken == 1


@pytest.mark.parametrize("name", ANYWHERE + READING + RETRYING)
async def test_a_retry_meets_a_bug_and_is_sent_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async with rigged(tmp_path) as rig:
        rig.peer.rcpt = b"451 4.3.0 later\r\n"
        assert (await rig.house.send(B)).startswith("250 ")
        await rig.house.event(type="deferral")
        rig.peer.rcpt = b"250 ok\r\n"
        met = once(monkeypatch, name)
        await rig.until(rig.is_empty, 1800.0)
        assert met()
        assert rig.bugs
        assert 1 <= rig.peer.taken <= 2


@pytest.mark.parametrize(
    "name", ["mta.outbound.outcome.Settler._event", "mta.outbound.outcome.Settler._notify",
             "mta.outbound.outcome.about", "mta.core.mail.dsn.failure_notice",
             "mta.delivery.transactions.outcomes", "mta.delivery.pool.Pool.offer",
             "mta.outbound.leases.Leases.take"]
)  # fmt: skip
async def test_mail_that_always_meets_a_bug_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    stream = Stream(retry_first=Duration(300.0), retry_max=Duration(300.0), expire=Duration(1500.0))
    async with rigged(tmp_path, stream=stream, notify=True) as rig:
        rig.peer.rcpt = b"451 4.3.0 later\r\n"
        assert (await rig.house.send(B)).startswith("250 ")
        await rig.house.event(type="deferral")
        once(monkeypatch, name, 10_000)
        spool = rig.house.daemon.spool
        rows = "SELECT count(*) FROM message WHERE sender != ''"
        (left,) = (await spool.reader._rows(rows))[0]
        assert left == 1
        passed = 0.0
        while left:
            assert passed < 3600.0
            await rig.clock.advance(5.0)
            passed += 5.0
            await spool.lease([])
            (left,) = (await spool.reader._rows(rows))[0]
        assert rig.bugs


@pytest.mark.parametrize(
    "name", ["mta.delivery.lane.Lane.opened", "mta.delivery.transactions.Transactions.idle_again",
             "mta.delivery.transactions.Transactions.is_used_up",
             "mta.delivery.transactions.Transactions.start",
             "mta.delivery.traffic.Traffic.opened"]
)  # fmt: skip
async def test_a_bug_that_every_connection_meets_has_no_peer_dialled_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async with rigged(tmp_path) as rig:
        once(monkeypatch, name, 10_000)
        await rig.house.send(B)
        await rig.until(lambda: rig.house.of(type="deferral"), 60.0)
        await rig.clock.advance(60.0)
        assert len(rig.peer._tasks) <= 2
        monkeypatch.undo()
        await rig.until(rig.is_empty, 1800.0)
        assert rig.peer.taken == 1


@pytest.mark.parametrize(
    "name", ["mta.delivery.reach.Reach.lost", "mta.delivery.transactions.Transactions.lost"]
)
async def test_a_bug_over_a_connection_that_was_lost_keeps_no_mail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async with rigged(tmp_path) as rig:
        rig.peer.go.clear()
        await rig.house.send(B)
        await rig.peer.held.wait()
        met = once(monkeypatch, name)
        rig.peer.hang_up()
        rig.peer.go.set()
        await rig.house.event(type="deferral")
        assert met()
        await rig.until(rig.is_empty, 900.0)


async def test_what_was_answered_is_not_sent_again_for_a_bug_over_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rigged(tmp_path, memory=1) as rig:
        met = once(monkeypatch, "mta.delivery.contents.Contents.give_back")
        await rig.house.send(B)
        await rig.until(lambda: not rig.house.daemon.spool.tally.recipients, 900.0)
        assert met()
        assert rig.peer.taken == 1


async def test_what_was_answered_is_not_sent_again_for_a_bug_over_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rigged(tmp_path) as rig:
        rig.peer.go.clear()
        await rig.house.send(B)
        await rig.peer.held.wait()
        await rig.house.send(B)
        met = once(monkeypatch, "mta.smtp.client.Connection._write")
        rig.peer.go.set()
        await rig.until(rig.is_empty, 900.0)
        assert met()
        assert rig.peer.taken == 2


@pytest.mark.parametrize(
    "name", ["mta.delivery.lane.Lane.take_all", "mta.outbound.outcome.Settler.each",
             "mta.outbound.outcome.Settler.postpone"]
)  # fmt: skip
async def test_a_bug_in_the_drain_keeps_nobody_from_going_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async with rigged(tmp_path) as rig:
        rig.peer.go.clear()
        for _ in range(4):
            await rig.house.send(B)
        await rig.peer.held.wait()
        met = once(monkeypatch, name)
        rig.peer.go.set()
    assert met()


async def test_a_bug_over_mail_that_should_live_on_gives_none_of_it_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rigged(tmp_path) as rig:
        rig.peer.go.clear()
        for _ in range(4):
            await rig.house.send(B)
        await rig.peer.held.wait()
        met = once(monkeypatch, "mta.outbound.scheduler.Scheduler._held")
        rig.clock._now += 30 * 86400.0
        watch = rig.house.daemon.scheduler._watch
        assert not await watch.look()
        assert met()
        assert await watch.look()
        rig.peer.go.set()
        await rig.house.event(4, type="delivery")
        await rig.until(rig.is_empty, 900.0)


async def test_a_bug_over_one_of_those_that_wait_for_a_route_is_not_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rigged(tmp_path) as rig:
        scheduler = rig.house.daemon.scheduler
        go = asyncio.Event()
        known, route = scheduler._router.cached, scheduler._router.route

        async def slow(domain: str) -> Any:
            await go.wait()
            return await route(domain)

        with monkeypatch.context() as context:
            context.setattr(scheduler._router, "cached", lambda domain: None)
            context.setattr(scheduler._router, "route", slow)
            for _ in range(3):
                await rig.house.send(B)
            assert scheduler._lookups.unrouted == 3
            context.setattr(scheduler._router, "cached", known)
            met = once(monkeypatch, "mta.outbound.scheduler.Scheduler._dispatch")
            go.set()
            await rig.house.event(2, type="delivery")
        assert met()
        assert scheduler._lookups.unrouted == 0
        await rig.until(rig.is_empty, 900.0)


async def test_mail_whose_due_time_nobody_heard_of_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rigged(tmp_path) as rig:
        rig.peer.rcpt = b"451 4.3.0 later\r\n"
        met = once(monkeypatch, "mta.core.queue.agenda.Agenda.note")
        await rig.house.send(B)
        await rig.house.event(type="deferral")
        assert met()
        rig.peer.rcpt = b"250 ok\r\n"
        await rig.until(rig.is_empty, 900.0)
        assert rig.peer.taken == 1


async def test_a_bug_over_one_outcome_of_a_message_is_that_recipients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rigged(tmp_path) as rig:
        once(monkeypatch, "mta.outbound.outcome.Settler._event")
        assert (await rig.house.send("a@dst.test", B, "c@dst.test")).startswith("250 ")
        await rig.house.event(3, type="delivery")
        await rig.until(rig.is_empty, 60.0)
        assert rig.peer.taken == 1
        assert rig.bugs == 1


@pytest.mark.parametrize("is_retry", [False, True])
async def test_mail_that_nobody_has_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_retry: bool
) -> None:
    async with rigged(tmp_path) as rig:
        if is_retry:
            rig.peer.rcpt = b"451 4.3.0 later\r\n"
            await rig.house.send(B)
            await rig.house.event(type="deferral")
            rig.peer.rcpt = b"250 ok\r\n"
        lost: list[object] = []
        with monkeypatch.context() as context:
            context.setattr("mta.delivery.lane.Lane.push", lambda lane, batch: lost.append(batch))
            said = "" if is_retry else await rig.house.send(B)
            await rig.until(lambda: lost, 600.0)
        lost.clear()
        await rig.until(lambda: rig.peer.taken, 3 * strays.INTERVAL)
        await rig.until(lambda: not rig.house.daemon.spool.tally.recipients, 60.0)
        assert rig.bugs == 1
        assert f"{said.rpartition(' ')[2]} <{B}> was in its attempt, and nobody had it" in caplog.text


async def test_mail_that_is_long_under_way_or_waits_is_nobodys_stray(tmp_path: Path) -> None:
    async with rigged(tmp_path) as rig:
        rig.peer.go.clear()
        for n in range(5):
            await rig.house.send(f"b{n}@dst.test")
        await rig.peer.held.wait()
        looked = rig.house.daemon.scheduler._strays
        for _ in range(4):
            await rig.clock.advance(1.0)
            await looked.look()
        assert not rig.bugs
        assert not looked._suspects
        rig.peer.go.set()
        await rig.house.event(5, type="delivery")
        assert rig.peer.taken == 5


async def test_a_bug_in_one_lane_keeps_no_other_from_its_sweep(tmp_path: Path) -> None:
    async with rigged(tmp_path) as rig:
        kicked = 0

        class Bad:
            is_leaving = False

            def kick(self, stalled: bool = False) -> None:
                nonlocal kicked
                kicked += 1
                raise RuntimeError("a bug in one lane")

        lanes = rig.house.daemon.pool._lanes
        bad: Any = Bad()
        lanes.stalls(bad)
        rig.peer.go.clear()
        await rig.house.send(B)
        await rig.peer.held.wait()
        await rig.until(lambda: rig.house.of(type="ambiguous"), 900.0)  # the deadline of the dot was kept
        assert kicked >= 600
        lanes._lookout.discard(bad)


async def test_what_was_learned_is_saved_although_one_path_has_a_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rigged(tmp_path) as rig:
        await rig.house.send(B)
        await rig.house.event(type="delivery")
        rig.peer.go.clear()
        await rig.house.send(B)
        await rig.peer.held.wait()
        met = once(monkeypatch, "mta.delivery.traffic.Traffic.saved", 3)
        await rig.clock.advance(200.0)
        assert met() == 3
        assert rig.bugs == 3


async def test_an_expiry_whose_first_look_has_a_bug_looks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Stream(retry_first=Duration(3000.0), retry_max=Duration(3000.0), expire=Duration(600.0))
    async with rigged(tmp_path, stream=stream) as rig:
        rig.peer.rcpt = b"451 4.3.0 later\r\n"
        await rig.house.send(B)
        await rig.house.event(type="deferral")
        met = once(monkeypatch, "mta.spool.reader.Reader.expired", 3)
        await rig.until(lambda: rig.house.of(type="expiration"), 900.0)
        assert met() == 3


async def test_errors_that_end_nowhere_else_are_told_again_when_their_minute_is_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, loop = HandClock(), asyncio.get_running_loop()
    async with running(settings(tmp_path), clock) as house:
        for n in range(MOST + 5):
            loop.call_exception_handler({"message": f"callback <{n}>", "exception": ValueError(n)})
        assert caplog.text.count("callback <") == MOST
        await clock.advance(PERIOD + 1)
        assert "ValueError: 5 more in the last minute" in caplog.text
        loop.call_exception_handler({"message": "callback <again>", "exception": ValueError()})
        assert caplog.text.count("callback <") == MOST + 1
        assert len(house.daemon._stray._told) == 1
