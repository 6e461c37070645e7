"""A path learns from its answers, remembers over a restart, and says why it is as it is."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mta.api.control import call
from tests.fakes.clock import HandClock
from tests.fakes.house import House, routed, running, settings
from tests.fakes.peer import HELLO, TAKES, ScriptedPeer, answers, goodbye
from tests.fakes.relay import MUTE, relaying

SLOWER = "450 4.7.1 Rate limit exceeded, slow down"


async def state_of(house: House) -> dict[str, Any] | None:
    socket = house.daemon.settings.control_socket
    answer = await asyncio.to_thread(call, socket, "explain", {"destination": "dst.test"})
    found: dict[str, Any] | None = answer["sources"][0]["state"]
    return found


async def test_of_a_place_where_nothing_was_sent_nothing_is_known(tmp_path: Path) -> None:
    terms = settings(tmp_path, routes=routed(1))
    async with running(terms, HandClock(), (MUTE,)) as house:
        assert await state_of(house) is None


async def test_a_static_route_begins_without_limits(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + TAKES) as relay:
        await relay.house.send("b@dst.test")
        await relay.house.event(type="delivery")
        assert await state_of(relay.house) == {
            "connections": 1, "window": 20, "rate": None, "messages_per_connection": None,
            "shut_for": 0.0, "reason": "as it began", "dead_for": 0.0, "barred_for": 0.0,
        }  # fmt: skip


async def test_a_rate_refusal_is_told_with_its_reason_and_survives_a_restart(tmp_path: Path) -> None:
    async with ScriptedPeer(HELLO + answers("RCPT", SLOWER)) as peer:
        clock = HandClock()
        terms = settings(tmp_path, routes=routed(peer.port))
        async with running(terms, clock, (MUTE,)) as house:
            await house.send("b@dst.test")
            change = await house.event(type="limit")
            assert change["limit"]["what"] == "rate"
            assert "old" not in change["limit"] or change["limit"]["old"] is None
            assert change["limit"]["new"] > 0
            assert change["reason"] == "refused: rate"
            assert change["due"] > change["time"]
            before = await state_of(house)
            assert before is not None
            assert before["reason"] == "refused: rate"
            assert before["shut_for"] > 0
        async with running(terms, clock, (MUTE,)) as house:
            after = await state_of(house)
            assert after is not None
            assert after["rate"] == before["rate"]
            assert after["shut_for"] == 0.0


async def test_a_full_mailbox_changes_nothing(tmp_path: Path) -> None:
    script = HELLO + answers("RCPT", "452 4.2.2 Mailbox full")
    async with relaying(tmp_path, script) as relay:
        await relay.house.send("b@dst.test")
        await relay.house.event(type="deferral")
        state = await state_of(relay.house)
        assert state is not None
        assert (state["rate"], state["window"], state["reason"]) == (None, 20, "as it began")
        assert relay.house.of(type="limit") == []


async def test_while_a_path_is_shut_mail_waits_on_disk_and_loses_no_attempt(tmp_path: Path) -> None:
    script = HELLO + answers("RCPT", "450 4.7.1 Rate limit exceeded, try again in 10 minutes")
    async with relaying(tmp_path, script) as relay:
        await relay.house.send("first@dst.test")
        shut = await relay.house.event(type="limit")
        await relay.house.send("second@dst.test")
        spool = relay.house.daemon.spool
        await spool.lease([])  # what was noted is on disk
        waiting = {
            each.recipients[0].address: (each.recipients[0].attempts, due)
            for each, due in await spool.reader.queue(9)
        }
        opens = datetime.fromisoformat(shut["due"]).timestamp()
        assert waiting["second@dst.test"] == (0, pytest.approx(opens, abs=0.01))
        assert waiting["first@dst.test"][0] == 1
        await relay.clock.advance(590.0)
        assert len(relay.peer.calls) == 1
        assert relay.house.of(type="deferral", recipient="second@dst.test") == []


DOMAIN = "421 4.7.28 Gmail has detected an unusual rate of mail from your DKIM domain [example.com 36]"


async def test_an_answer_about_one_tenant_holds_that_one_and_nobody_else(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + goodbye("RCPT", DOMAIN), mx="aspmx.l.google.com") as relay:
        await relay.house.send("b@dst.test")
        await relay.told(2)
        traffic = relay.house.daemon.pool._branches.in_use["google"]
        assert traffic.shut(0.0, "acme") is not None
        assert traffic.shut(0.0, "other") is None
        await relay.clock.advance(40.0)  # connections end, lanes are forgotten; this is not
        await relay.house.send("c@dst.test")
        await relay.clock.advance(1750.0)
        assert len(relay.peer.calls) == 1
        assert relay.house.of(type="delivery") == []
        await relay.told(3)  # the reception of the second, and nothing more
        (limit,) = relay.house.of(type="limit")
        assert limit["limit"]["old"] == limit["limit"]["new"]
        assert limit["reason"].startswith("suspended: ")
        assert limit["reason"].endswith(": tenant acme")
