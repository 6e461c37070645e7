"""A peer that answers octets by chance, at any step: each is an outcome, and the daemon goes on."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from mta.config.settings import Endpoint, StaticRoute
from tests.fakes.clock import HandClock
from tests.fakes.house import running, settings
from tests.fakes.relay import MUTE

ROUNDS = 24
LONGEST = 3000.0  # seconds that a step may take
STEPS = {  # the command that is answered by chance, and what is said before
    "greeting": b"",
    "EHLO": b"EHLO",
    "HELO": b"HELO",
    "STARTTLS": b"STARTTLS",
    "AUTH": b"AUTH",
    "MAIL": b"MAIL",
    "RCPT": b"RCPT",
    "DATA": b"DATA",
    "dot": b".",
    "QUIT": b"QUIT",
}
OFFERS = b"250-mx\r\n250-STARTTLS\r\n250-PIPELINING\r\n250 AUTH CRAM-MD5 PLAIN LOGIN XOAUTH2\r\n"
PLAINLY = b"250-mx\r\n250-SIZE x\r\n250 AUTH CRAM-MD5 PLAIN LOGIN XOAUTH2\r\n"
SAYS = {b"AUTH": b"235 ok\r\n", b"DATA": b"354 go on\r\n", b"STARTTLS": b"454 not now\r\n"}


def chance(dice: random.Random, step: str) -> bytes:
    """What a mad peer, or none of SMTP, says."""
    noise = bytes(dice.choices(range(256), k=dice.choice((0, 1, 7, 80, 3000, 40_000))))
    code = dice.choice((b"220", b"250", b"334", b"354", b"421", b"450", b"454", b"550", b"-5", b"9_9", b""))
    mark = dice.choice((b" ", b"-", b"", b"\xfc", b"\0"))
    end = dice.choice((b"\r\n", b"\n", b"\r", b""))
    return (code + mark + noise + end) * dice.choice((1, 1, 2))


class Mad:
    """One step of each connection is answered by chance."""

    def __init__(self, step: str) -> None:
        self.step = STEPS[step]
        self.name = step
        self.dice = random.Random(step)
        self.tasks: set[asyncio.Task[None]] = set()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            await self._play(reader, writer)
        except (OSError, ValueError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stays = self.dice.random() < 0.3
        writer.write(chance(self.dice, self.name) if self.step == b"" else b"220 mx\r\n")
        if self.step == b"" and not stays:
            return
        content = False
        while line := await reader.readline():
            verb = line.split()[0].upper() if line.split() else b""
            if content and line != b".\r\n":
                continue
            content = verb == b"DATA"
            if verb == self.step:
                content = False
                writer.write(chance(self.dice, self.name))
                if not stays:
                    return
            elif verb in (b"EHLO", b"HELO"):
                refused = verb == b"EHLO" and self.step == b"HELO"
                offers = OFFERS if self.step == b"STARTTLS" else PLAINLY
                writer.write(b"500 what?\r\n" if refused else offers)
            else:
                writer.write(SAYS.get(verb, b"250 ok\r\n"))


@pytest.mark.parametrize("step", STEPS)
async def test_octets_by_chance_cost_a_connection_and_nothing_else(tmp_path: Path, step: str) -> None:
    (tmp_path / "password").write_text("secret word\n")
    terms = {"user": "user@src.test", "password_file": tmp_path / "password"} if step == "AUTH" else {}
    mad, clock = Mad(step), HandClock()
    server = await asyncio.start_server(mad.answer, "0.0.0.0", 0)
    port = server.sockets[0].getsockname()[1]
    routes = {f"d{n}.test": StaticRoute(Endpoint(f"127.0.7.{n + 1}", port), **terms) for n in range(ROUNDS)}
    async with running(settings(tmp_path, routes=routes), clock, (MUTE,)) as house:
        said = await house.send(*(f"b@d{n}.test" for n in range(ROUNDS)))
        assert said.startswith("250 ")
        passed = 0.0
        async with asyncio.timeout(30):
            while len({each["recipient"] for each in house.events if each["type"] != "reception"
                       and "recipient" in each}) < ROUNDS:  # fmt: skip
                assert passed < LONGEST, house.events
                await clock.advance(5.0)
                passed += 5.0
                await house.daemon.spool.lease([])
        assert not house.daemon.spool.failing
        bugs = {room: counter._value.get() for room, counter in house.daemon.metrics.bugs.items()}
        assert not any(bugs.values()), bugs
        for event in house.events:
            text = event.get("reply", {}).get("text", "")
            assert len(text) <= 2048
            assert text.replace("\n", " ").isprintable()
        server.close()
        for task in mad.tasks:
            task.cancel()
