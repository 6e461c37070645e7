"""Questions of mail whose domain has no known route: each is asked, whatever befalls the others."""

from __future__ import annotations

import asyncio
from pathlib import Path

from mta.config.policy import Current, build
from mta.config.settings import Settings
from mta.core.model import Batch, Line, Outcome
from mta.core.route.routing import Route
from mta.delivery.router import Router
from mta.dns.resolver import Resolver
from mta.metrics import Metrics
from mta.outbound.backlog import Backlog
from mta.outbound.lookups import AT_ONCE, Lookups
from mta.spool.queue import Spool
from tests.fakes.clock import HandClock


async def test_a_bug_over_what_was_asked_leaves_nobody_without_his_question(tmp_path: Path) -> None:
    async def publish(lines: bytes) -> None:
        pass

    clock, metrics = HandClock(), Metrics()
    current = Current(build(Settings("out.sender.test", listeners=())))
    router = Router(current, Resolver(current.policy.settings.dns, clock), clock)
    spool = Spool(tmp_path, "live", 1000, publish, clock, metrics)
    lookups = Lookups(router, Backlog(spool, clock), clock, metrics)
    told = 0

    def routed(route: Route | Outcome | None, batches: list[Batch]) -> None:
        nonlocal told
        told += 1
        raise RuntimeError("a bug of ours")

    lookups.on_routed = routed
    async with asyncio.TaskGroup() as tasks:
        lookups.start(tasks)
        for number in range(AT_ONCE):
            lookups.stand_aside(Line(f"[192.0.2.{number}]", 0, "acme"), clock.now())
    assert told == AT_ONCE
