"""kill -9 in the middle of everything: what was answered 250 is delivered or still in the spool.

Each run crashes twice, the second time with what the first crash left. `make crash RUNS=n` makes n runs.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import os
import random
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mta.core.event import Event, Type
from mta.metrics import Metrics
from mta.ops.control import call
from mta.spool.queue import MAX_UNSETTLED, Spool
from tests.fakes.clock import HandClock
from tests.fakes.home import PATIENCE, Home, Served

RUNS = int(os.environ.get("CRASH_RUNS", "1"))
KILLS = 2
MESSAGES = 1000
CLIENTS = 8
FIRST_RETRY = 300.0  # seconds; the sandbox has the default streams
JITTER = 30.0  # seconds

ENVELOPE = b"MAIL FROM:<app@example.test>\r\nRCPT TO:<ok@example.test>\r\nDATA\r\n"
CONTENT = b"From: app@example.test\r\nSubject: crash\r\n\r\n" + b"x" * 1500 + b"\r\n.\r\n"


class Load:
    """Clients that send until there is nothing left to send, or nobody to send it to."""

    def __init__(self, served: Served, kill_at: int) -> None:
        self._served = served
        self._kill_at = kill_at
        self._left = MESSAGES
        self.acknowledged: list[str] = []

    async def run(self) -> None:
        async with asyncio.timeout(PATIENCE):
            ended = await asyncio.gather(*(self._client() for _ in range(CLIENTS)), return_exceptions=True)
        for error in ended:
            assert error is None or isinstance(error, OSError | asyncio.IncompleteReadError), error

    async def _client(self) -> None:
        served = self._served
        door = served.facts["submissions"]
        reader, writer = await asyncio.open_connection(door["host"], door["port"], ssl=served.context)
        try:
            await _reply(reader, b"220")
            writer.write(b"EHLO client.test\r\n")
            await _reply(reader, b"250")
            login = base64.b64encode(f"\0{served.facts['user']}\0{served.password}".encode())
            writer.write(b"AUTH PLAIN " + login + b"\r\n")
            await _reply(reader, b"235")
            while self._left:
                await self._send(reader, writer)
        finally:
            writer.transport.abort()

    async def _send(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._left -= 1
        writer.write(ENVELOPE)
        for code in (b"250", b"250", b"354"):
            await _reply(reader, code)
        writer.write(CONTENT)
        reply = await _reply(reader, b"250")
        found = re.search(rb"queued as (\w+)", reply)
        assert found is not None, reply
        self.acknowledged.append(found[1].decode())
        if len(self.acknowledged) == self._kill_at:
            self._served.popen.kill()


async def _reply(reader: asyncio.StreamReader, code: bytes) -> bytes:
    while True:
        line = await reader.readuntil(b"\n")
        assert line.startswith(code), line
        if line[3:4] == b" ":
            return line


@pytest.mark.timeout(120)
@pytest.mark.parametrize("run", range(RUNS))
def test_what_was_acknowledged_before_a_kill_is_delivered_or_still_here(tmp_path: Path, run: int) -> None:
    home = Home(tmp_path)
    home.init()
    acknowledged: list[str] = []
    for _ in range(KILLS):
        kill_at = random.randint(1, MESSAGES - CLIENTS)
        with home.serving() as served:
            waiting(tmp_path)
            load = Load(served, kill_at)
            asyncio.run(load.run())
            served.popen.wait(PATIENCE)
            acknowledged += load.acknowledged
            print(f"killed at {kill_at} of {MESSAGES}, {len(load.acknowledged)} acknowledged")
    with home.serving() as served:
        left = waiting(tmp_path)
        assert served.stop() == 0
    assert_nothing_is_lost(tmp_path, set(left), set(acknowledged))
    assert_events_are_whole(tmp_path)


def waiting(directory: Path) -> dict[str, dict[str, Any]]:
    """What the restarted daemon has in its spool, each recipient with its due time."""
    listed = call(directory / "var/spool/control", "queue", {"limit": 10_000})
    now = datetime.now(UTC)
    for each in listed:
        assert each["state"] == "deferred", each
        assert each["attempts"] == 1, each
        # A crash loop must not hammer a peer: the first retry is counted from the reception.
        wait = (datetime.fromisoformat(each["due"]) - now).total_seconds()
        assert FIRST_RETRY - KILLS * PATIENCE < wait <= FIRST_RETRY + JITTER, each
    found = {each["queue_id"]: each for each in listed}
    assert len(found) == len(listed)
    return found


def assert_nothing_is_lost(directory: Path, left: set[str], acknowledged: set[str]) -> None:
    lines = (directory / "var/spool/events.jsonl").read_bytes().splitlines()
    delivered = {each["queue_id"] for each in map(json.loads, lines) if each["type"] == "delivery"}
    assert not acknowledged - delivered - left
    assert not delivered & left
    kept = len(list((directory / "var/sandbox").glob("*.eml")))
    assert 0 <= kept - len(delivered) <= KILLS * MAX_UNSETTLED  # what will be delivered twice


def assert_events_are_whole(directory: Path) -> None:
    lines = (directory / "var/spool/events.jsonl").read_bytes().splitlines()
    told = {line: json.loads(line) for line in lines}  # repeats are equal to the octet
    seqs = Counter(each["seq"] for each in told.values())
    assert max(seqs.values()) == 1, seqs.most_common(3)
    types = Counter((each["queue_id"], each["type"]) for each in told.values())
    assert max(types.values()) == 1, types.most_common(3)


async def test_events_that_did_not_reach_the_log_are_written_by_the_next_start(tmp_path: Path) -> None:
    told: asyncio.Queue[bytes] = asyncio.Queue()

    async def disk_full(lines: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for publish in (disk_full, told.put):
        spool = Spool(tmp_path, "live", 1000, publish, HandClock(), Metrics())
        await spool.open(FIRST_RETRY)
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(spool.run())
            if publish is disk_full:
                spool.report([Event(type=Type.REJECTION, reason="kept")])
            else:
                assert json.loads(await told.get()) == {"seq": 1, "type": "rejection", "reason": "kept"}
            spool.stop()
            await running
        await spool.close()
