"""The admin listener and the metrics behind it."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from itertools import count

import aiohttp
import pytest

from mta.api.admin import CONNECTIONS, SILENCE, SWEEP, Admin
from mta.config.settings import ANY_LOOPBACK
from mta.core.model import Kind
from mta.metrics import Metrics
from tests.fakes.clock import HandClock


class Daemon:
    """What the listener reports on."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.clock = HandClock()
        self.reasons: list[str] | Exception = []
        self.admin = Admin(ANY_LOOPBACK, self.metrics, self._reasons, self.clock, "mta.test")

    def _reasons(self) -> list[str]:
        if isinstance(self.reasons, Exception):
            raise self.reasons
        return self.reasons

    async def get(self, path: str, host: str = "") -> tuple[int, str]:
        headers = {"Host": host} if host else {}
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{self.admin.endpoint}{path}", headers=headers) as it,
        ):
            return it.status, await it.text()


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    daemon = Daemon()
    await daemon.admin.start()
    yield daemon
    await daemon.admin.stop()


async def test_alive_and_ready(daemon: Daemon) -> None:
    assert daemon.admin.endpoint.port != 0
    assert await daemon.get("/healthz") == (200, "ok\n")
    assert await daemon.get("/readyz") == (200, "ok\n")


async def test_a_human_finds_what_there_is(daemon: Daemon) -> None:
    status, page = await daemon.get("/")
    assert (status, page.count("mta at mta.test"), page.count("It is ready.")) == (200, 2, 1)
    links = re.findall(r'href="([^"]*)"', page)
    assert links == ["/metrics", "/healthz", "/readyz"]
    assert [(await daemon.get(link))[0] for link in links] == [200, 200, 200]


async def test_what_a_page_repeats_is_escaped(daemon: Daemon) -> None:
    daemon.reasons = ["/var/<script>alert('spool')</script> & more", "second"]
    page = (await daemon.get("/"))[1]
    assert "<script" not in page
    assert "/var/&lt;script&gt;alert(&#x27;spool&#x27;)&lt;/script&gt; &amp; more; second" in page


async def test_each_reason_for_not_being_ready_has_its_line(daemon: Daemon) -> None:
    daemon.reasons = ["spool: disk full", "dns: no answer"]
    assert await daemon.get("/readyz") == (503, "spool: disk full\ndns: no answer\n")
    assert (await daemon.get("/healthz"))[0] == 200


async def test_a_bug_in_a_check_is_counted_and_keeps_its_text(daemon: Daemon) -> None:
    daemon.reasons = RuntimeError("password=hunter2")
    status, text = await daemon.get("/readyz")
    assert status == 500
    assert "hunter2" not in text
    assert 'mta_bugs_total{module="api"} 1.0' in (await daemon.get("/metrics"))[1]


async def test_an_unknown_path_is_no_bug(daemon: Daemon) -> None:
    assert (await daemon.get("/wp-login.php"))[0] == 404
    assert 'mta_bugs_total{module="api"} 0.0' in (await daemon.get("/metrics"))[1]


async def test_every_series_is_there_before_anything_happened(daemon: Daemon) -> None:
    _, text = await daemon.get("/metrics")
    for kind in Kind:
        assert f'mta_outcomes_total{{kind="{kind.value}"}} 0.0' in text
    for series in (
        'mta_receptions_total{listener="submissions"} 0.0',
        'mta_rejections_total{code="4yz"} 0.0',
        'mta_authentications_total{result="failure"} 0.0',
        'mta_queue_recipients{state="fresh"} 0.0',
        "mta_commit_batch_count 0.0",
        "process_resident_memory_bytes ",
    ):
        assert series in text
    assert "_created" not in text


async def test_counts_and_live_gauges_are_shown(daemon: Daemon) -> None:
    lanes = ["a", "b"]
    daemon.metrics.lanes.set_function(lambda: len(lanes))
    daemon.metrics.delivered.inc(7)
    daemon.metrics.receptions["network"].inc()
    daemon.metrics.commit_batch.observe(3)
    lanes.append("c")
    _, text = await daemon.get("/metrics")
    assert "mta_lanes 3.0" in text
    assert 'mta_outcomes_total{kind="delivered"} 7.0' in text
    assert 'mta_receptions_total{listener="network"} 1.0' in text
    assert 'mta_commit_batch_bucket{le="4.0"} 1.0' in text


async def test_two_daemons_in_one_process_do_not_share_metrics() -> None:
    one, other = Metrics(), Metrics()
    one.bounced.inc()
    assert other.registry.get_sample_value("mta_outcomes_total", {"kind": "bounced"}) == 0.0


async def test_a_taken_port_fails_the_start_and_leaves_nothing_open(daemon: Daemon) -> None:
    second = Admin(daemon.admin.endpoint, Metrics(), list, daemon.clock, "mta.test")
    with pytest.raises(OSError):
        await second.start()
    assert (await daemon.get("/healthz"))[0] == 200


async def test_after_stop_nobody_answers(daemon: Daemon) -> None:
    await daemon.admin.stop()
    with pytest.raises(aiohttp.ClientConnectorError):
        await daemon.get("/healthz")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8025", "127.0.0.1", "[::1]:8025", "mta.test"])
async def test_names_of_our_own_are_answered(daemon: Daemon, host: str) -> None:
    assert await daemon.get("/healthz", host) == (200, "ok\n")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8025", "127.0.0.1.evil.example", "a@b", "x y"]
)
async def test_a_page_in_a_browser_that_leads_a_name_of_its_own_here_reads_nothing(
    daemon: Daemon, host: str
) -> None:
    status, said = await daemon.get("/metrics", host)
    assert status == 421
    assert "mta_" not in said


async def half_open(daemon: Daemon) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(*daemon.admin.endpoint)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: local")
    await writer.drain()
    return reader, writer


async def test_requests_that_never_end_are_few_and_monitoring_is_answered(daemon: Daemon) -> None:
    opened = [await half_open(daemon) for _ in range(CONNECTIONS * 2)]
    async with asyncio.timeout(10):
        assert await daemon.get("/readyz") == (200, "ok\n")
        for reader, _ in opened[:CONNECTIONS]:
            with suppress(ConnectionResetError):
                await reader.read()  # they were cut
    for _, writer in opened:
        writer.close()


async def test_many_that_connect_at_once_are_few_all_the_same(daemon: Daemon) -> None:
    """The loop takes them in one round: each is counted before the first of them is open."""
    real, steps = daemon.clock.monotonic, count()
    daemon.clock.monotonic = lambda: real() + next(steps) * 1e-6  # type: ignore[method-assign]
    with ExitStack() as places:
        for _ in range(CONNECTIONS + 30):
            places.enter_context(socket.create_connection(tuple(daemon.admin.endpoint)))
        assert await daemon.get("/readyz") == (200, "ok\n")
        server = daemon.admin._runner and daemon.admin._runner.server
        assert server is not None
        async with asyncio.timeout(10):
            while len(server.connections) > CONNECTIONS:
                await daemon.get("/readyz")


async def test_a_request_that_never_ends_is_cut_after_its_time(daemon: Daemon) -> None:
    reader, writer = await half_open(daemon)
    await daemon.get("/healthz")
    await daemon.clock.advance(SILENCE + SWEEP)
    async with asyncio.timeout(10):
        with suppress(ConnectionResetError):
            await reader.read()
    writer.close()
