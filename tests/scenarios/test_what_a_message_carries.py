"""What an application asks for in the header block: obeyed, kept, told, and seen by nobody else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mta.config.settings import Duration, Priority, Sandbox, Stream
from mta.core.event import rfc3339
from mta.core.queueid import parse
from tests.fakes.client import Client, greeted
from tests.fakes.clock import HandClock
from tests.fakes.house import NETWORK, House, routed, running, settings
from tests.fakes.peer import HELLO, TAKES, ScriptedPeer
from tests.fakes.relay import wait_of

BOTH = replace(NETWORK, streams=("transactional", "bulk"), delay=3600.0, notify=False)
TAKEN = "250 2.0.0 Ok: queued as "
SIGNED = "DKIM-Signature: v=1; h=from:x-mta-tag:x-mta-tag; b=aGk="


def content(*fields: str) -> bytes:
    return "\r\n".join(["From: a@src.test", "Subject: x", *fields, "", "Hello.", ""]).encode()


@asynccontextmanager
async def bound(
    directory: Path, *scripts: str, credential: Any = BOTH, **terms: Any
) -> AsyncIterator[tuple[House, Client, HandClock, ScriptedPeer]]:
    """To a peer with these scripts."""
    async with ScriptedPeer(*scripts) as peer:
        clock = HandClock()
        wanted = settings(directory, routes=routed(peer.port), **terms)
        async with running(wanted, clock, (credential,)) as house, await greeted(house.network) as client:
            yield house, client, clock, peer


@asynccontextmanager
async def sandboxed(directory: Path, **terms: Any) -> AsyncIterator[tuple[House, Client, HandClock]]:
    """To the sandbox."""
    clock, wanted = HandClock(), settings(directory, sandbox=Sandbox(directory / "sandbox"), **terms)
    async with running(wanted, clock, (BOTH,)) as house, await greeted(house.network) as client:
        yield house, client, clock


async def test_what_is_for_us_does_not_go_on_also_where_it_is_signed(tmp_path: Path) -> None:
    fields = ["x-mta-TAG: spring,", "\twelcome", 'X-MTA-Metadata: {"order": 17}', "X-MTA-Score: 0", SIGNED]
    async with bound(tmp_path, HELLO + TAKES) as (house, client, _clock, peer):
        assert (await client.deliver(content(*fields, "X-MTA-Other: y"))).startswith(TAKEN)
        delivery = await house.event(type="delivery")
        received = peer.calls[0].messages[0].decode()
        assert [line for line in received.splitlines() if "mta-" in line.lower()] == [
            SIGNED,
            "X-MTA-Other: y",
        ]
        assert delivery["tags"] == ["spring", "welcome"]
        assert "metadata" not in delivery


async def test_events_have_the_tags_and_one_has_the_metadata(tmp_path: Path) -> None:
    async with sandboxed(tmp_path) as (house, client, _clock):
        fields = ["X-MTA-Tag: spring", 'X-MTA-Metadata: {"order":  17}']
        to = ("ok@dst.test", "defer@dst.test", "bounce@dst.test")
        assert (await client.deliver(content(*fields), *to)).startswith(TAKEN)
        for kind in ("delivery", "deferral", "bounce"):
            await house.event(type=kind)
        mail = [each for each in house.events if "queue_id" in each]
        assert len(mail) == 6
        assert all(each["tags"] == ["spring"] for each in mail)
        assert [each["metadata"] for each in mail if "metadata" in each] == [{"order": 17}]
        assert mail[0]["metadata"]


async def test_what_is_carried_outlives_a_restart_and_is_listed(tmp_path: Path) -> None:
    async with sandboxed(tmp_path, instance=9) as (house, client, _):
        fields = ("X-MTA-Tag: a, b", "X-MTA-Score: 70", "X-MTA-Stream: bulk")
        said = await client.deliver(content(*fields), "defer@dst.test")
        await house.event(type="deferral")
    async with sandboxed(tmp_path, instance=9) as (house, _, clock):
        (listed,) = await house.daemon._queue({})
        assert (listed["tags"], listed["score"], listed["stream"]) == (("a", "b"), 70, "bulk")
        assert said == TAKEN + listed["queue_id"]
        assert parse(listed["queue_id"]) >> 9 & 15 == 9
        await clock.advance(600.0)
        assert (await house.event(type="deferral", attempt=2))["tags"] == ["a", "b"]


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("X-MTA-Score: 101", "550 5.6.0 X-MTA-Score: '101' is no score; write a whole number from 0 to 100"),
        (
            "X-MTA-Stream: other",
            "550 5.7.1 X-MTA-Stream: you may not use 'other'; write one of transactional, bulk",
        ),
        (
            "X-MTA-Send-At: 2999-12-24T18:00:00Z",
            "550 5.7.1 X-MTA-Send-At: you may delay a message by 3600 seconds at most",
        ),
    ],
)
async def test_what_cannot_be_obeyed_is_refused_and_told(tmp_path: Path, field: str, said: str) -> None:
    async with bound(tmp_path) as (house, client, _clock, _peer):
        assert await client.deliver(content(field)) == said
        assert (await house.event(type="rejection"))["reply"]["text"] == said[10:]
        assert house.of(type="reception") == []


async def test_a_stream_that_the_credential_has_and_the_settings_have_not(tmp_path: Path) -> None:
    gone = replace(BOTH, streams=("transactional", "gone"))
    async with bound(tmp_path, HELLO + TAKES, credential=gone) as (house, client, _clock, _peer):
        expected = "451 4.3.5 The stream gone of your credential is not configured"
        assert await client.deliver(content("X-MTA-Stream: gone")) == expected
        assert (await client.deliver(content())).startswith(TAKEN)
        assert (await house.event(type="delivery"))["stream"] == "transactional"


async def test_the_message_has_the_priority_and_the_lifetime_of_the_stream_that_it_names(
    tmp_path: Path,
) -> None:
    streams = {"transactional": Stream(), "bulk": Stream(Duration(600.0), priority=Priority(-4))}
    async with sandboxed(tmp_path, streams=streams) as (house, client, clock):
        assert await client.ask("MAIL FROM:<a@src.test> MT-PRIORITY=9") == (
            "250 2.3.6 Ok, at priority 4: you may not ask for 9"
        )
        await client.ask("RSET")
        named, to = content("X-MTA-Stream: bulk"), "defer@dst.test"
        assert (await client.deliver(named, to, mail=" MT-PRIORITY=2")).startswith(TAKEN)
        reception = await house.event(type="reception")
        told = "at priority -4: the stream bulk goes no higher"
        assert (reception["stream"], reception["reason"]) == ("bulk", told)
        assert (await client.deliver(content(), to, mail=" MT-PRIORITY=2")).startswith(TAKEN)
        await house.event(2, type="deferral")
        first, second = [message for message, _ in await house.daemon.spool.reader.queue(9)]
        assert (first.priority, second.priority) == (-4, 2)
        assert first.expires == pytest.approx(clock.now() + 600.0)


async def test_a_message_that_goes_at_its_time(tmp_path: Path) -> None:
    async with bound(tmp_path, HELLO + TAKES * 2) as (house, client, clock, _peer):
        at = rfc3339(clock.now() + 1800.0)
        for mail in ("", f" HOLDUNTIL={at}"):
            said = await client.deliver(content(f"X-MTA-Send-At: {at}"), mail=mail)
            assert said.startswith(TAKEN)
        reception = await house.event(2, type="reception")
        assert wait_of(reception) == pytest.approx(1800.0, abs=0.01)
        expected = "550 5.6.0 X-MTA-Send-At: HOLDFOR or HOLDUNTIL named another time; write one of them"
        assert await client.deliver(content(f"X-MTA-Send-At: {at}"), mail=" HOLDFOR=60") == expected
        await clock.advance(1799.0)
        assert house.of(type="delivery") == []
        await clock.advance(2.0)
        await house.event(2, type="delivery")


async def test_a_message_that_is_over_at_its_time(tmp_path: Path) -> None:
    async with sandboxed(tmp_path) as (house, client, clock):
        soon, late = (rfc3339(clock.now() + seconds) for seconds in (200.0, 86400.0 * 30))
        assert (await client.deliver(content(f"X-MTA-Expires: {soon}"), "defer@dst.test")).startswith(TAKEN)
        await house.event(type="deferral")
        await clock.advance(240.0)
        await house.event(type="expiration")
        assert (await client.deliver(content(f"X-MTA-Expires: {soon}"))).startswith(
            "550 5.6.0 X-MTA-Expires: it has passed; write a later time"
        )
        assert (await client.deliver(content(f"X-MTA-Expires: {late}"), "ok@dst.test")).startswith(TAKEN)
        until = rfc3339(clock.now() + 4 * 86400.0)
        reception = await house.event(type="reception", recipient="ok@dst.test")
        assert reception["reason"] == f"expires at {until}: the stream transactional tries no longer"


async def test_in_the_sandbox_nothing_is_asked_of_tls(tmp_path: Path) -> None:
    async with sandboxed(tmp_path) as (house, client, _clock):
        assert (await client.deliver(content("X-MTA-Require-TLS: yes"), "ok@dst.test")).startswith(TAKEN)
        await house.event(type="delivery")


async def test_metadata_does_not_stay_in_memory(tmp_path: Path) -> None:
    async with bound(tmp_path, "hold\n" + HELLO + TAKES) as (house, client, _clock, peer):
        said = 'X-MTA-Metadata: {"a": "%s"}' % ("x" * 4000)
        assert (await client.deliver(content(said))).startswith(TAKEN)
        await peer.at(1, "hold")
        held = [batch.message for batches in house.daemon.pool.batches for batch in batches]
        assert [message.metadata for message in held] == [""]
        peer.go()
        await house.event(type="delivery")
        assert json.loads(json.dumps(house.of(type="reception")[0]))["metadata"] == {"a": "x" * 4000}
