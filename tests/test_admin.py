"""The admin listener and the metrics behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from mta.config.settings import ANY_LOOPBACK
from mta.core.model import Kind
from mta.metrics import Metrics
from mta.ops.admin import Admin


class Daemon:
    """What the listener reports on."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.reasons: list[str] | Exception = []
        self.admin = Admin(ANY_LOOPBACK, self.metrics, self._reasons)

    def _reasons(self) -> list[str]:
        if isinstance(self.reasons, Exception):
            raise self.reasons
        return self.reasons

    async def get(self, path: str) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{self.admin.endpoint}{path}") as it,
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


async def test_each_reason_for_not_being_ready_has_its_line(daemon: Daemon) -> None:
    daemon.reasons = ["spool: disk full", "dns: no answer"]
    assert await daemon.get("/readyz") == (503, "spool: disk full\ndns: no answer\n")
    assert (await daemon.get("/healthz"))[0] == 200


async def test_a_bug_in_a_check_is_counted_and_keeps_its_text(daemon: Daemon) -> None:
    daemon.reasons = RuntimeError("password=hunter2")
    status, text = await daemon.get("/readyz")
    assert status == 500
    assert "hunter2" not in text
    assert 'mta_bugs_total{module="ops"} 1.0' in (await daemon.get("/metrics"))[1]


async def test_an_unknown_path_is_no_bug(daemon: Daemon) -> None:
    assert (await daemon.get("/wp-login.php"))[0] == 404
    assert 'mta_bugs_total{module="ops"} 0.0' in (await daemon.get("/metrics"))[1]


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
    second = Admin(daemon.admin.endpoint, Metrics(), list)
    with pytest.raises(OSError):
        await second.start()
    assert (await daemon.get("/healthz"))[0] == 200


async def test_after_stop_nobody_answers(daemon: Daemon) -> None:
    await daemon.admin.stop()
    with pytest.raises(aiohttp.ClientConnectorError):
        await daemon.get("/healthz")
