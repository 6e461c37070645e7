"""Peers that keep the connection and say nothing, and peers that say nonsense."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.peer import HELLO, TAKES, envelope
from tests.fakes.relay import relaying

ASKED = envelope("250 ok", "250 ok", "354 go on")
COMMANDS = ASKED.partition("->")[0]
NOBODY = "No host answered; it is tried again: 127.0.0.1 [127.0.0.1]: "


@pytest.mark.parametrize("said", ["", "-> 220 mx.test\n<- EHLO *\n"], ids=["greeting", "EHLO"])
async def test_silence_before_the_first_message(tmp_path: Path, said: str) -> None:
    async with relaying(tmp_path, said + "silence") as relay:
        await relay.house.send("b@dst.test")
        await relay.peer.at(1, "silence")
        await relay.clock.advance(299)
        assert relay.house.of(type="deferral") == []
        await relay.clock.advance(5)
        deferral = await relay.house.event(type="deferral")
        assert deferral["reply"]["text"] == NOBODY + "timed out"
        assert (deferral["reply"]["command"], deferral["subject"]) == ("CONNECT", "network")


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        pytest.param("", 302, id="MAIL"),
        pytest.param("-> 250 ok\n", 302, id="RCPT"),
        pytest.param("-> 250 ok\n-> 250 ok\n", 122, id="DATA"),
    ],
)
async def test_silence_before_the_dot_each_time(tmp_path: Path, said: str, seconds: float) -> None:
    script = HELLO + COMMANDS + said + "silence"
    async with relaying(tmp_path, script, script) as relay:
        await relay.house.send("b@dst.test")
        for number in (1, 2):
            await relay.peer.at(number, "silence")
            await relay.clock.advance(seconds)
        deferral = await relay.house.event(type="deferral")
        assert deferral["reply"]["text"] == "The connection was lost; it is tried again"
        assert relay.types() == ["reception", "deferral"]


async def test_silence_before_the_dot_once_and_another_connection_takes_it(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + COMMANDS + "silence", HELLO + TAKES) as relay:
        await relay.house.send("b@dst.test")
        await relay.peer.at(1, "silence")
        await relay.clock.advance(302)
        assert (await relay.house.event(type="delivery"))["attempt"] == 1


async def test_silence_after_the_dot_is_waited_for_longer(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + ASKED + "<- message\nsilence", HELLO + TAKES) as relay:
        await relay.house.send("b@dst.test")
        await relay.peer.at(1, "silence")
        await relay.clock.advance(599)
        assert relay.types() == ["reception"]
        await relay.clock.advance(2)
        ambiguous = await relay.house.event(type="ambiguous")
        assert ambiguous["reply"]["text"].startswith("The connection was lost after the final dot")
        await relay.clock.advance(301)
        assert (await relay.house.event(type="delivery"))["attempt"] == 2


async def test_silence_after_quit_does_not_keep_the_connection(tmp_path: Path) -> None:
    script = HELLO + TAKES + "<- QUIT\nsilence"
    async with relaying(tmp_path, script, HELLO + TAKES, messages_per_connection=1, connections=1) as relay:
        await relay.house.send("b@dst.test")
        await relay.peer.at(1, "silence")
        await relay.house.send("c@dst.test")
        await relay.clock.advance(6)
        await relay.house.event(type="delivery", recipient="c@dst.test")


@pytest.mark.parametrize(
    ("greeting", "text"),
    [
        ("SSH-2.0-OpenSSH_9.2", "no SMTP: Malformed SMTP response line: SSH-2.0-OpenSSH_9.2"),
        ("150 soon", "said 150 soon"),
        ("250 caf\udce9", "said 250 caf\ufffd"),
        ("220-" + "x" * 10_000, "no SMTP: Response too long"),
    ],
    ids=["SSH", "150", "250", "long"],
)
async def test_a_greeting_that_is_none(tmp_path: Path, greeting: str, text: str) -> None:
    async with relaying(tmp_path, f"-> {greeting}\nsilence") as relay:
        await relay.house.send("b@dst.test")
        assert await relay.told(2) == [
            "reception b@dst.test",
            f"deferral 1 b@dst.test network +300: 451 4.4.1 {NOBODY}{text} (CONNECT)",
        ]


@pytest.mark.parametrize(
    "nonsense",
    ["hello?", "250 ok\n-> 250 ok\n-> 250 one too many", "250-a\n-> 251 b"],
    ids=["no reply", "250 to DATA", "two codes"],
)
async def test_nonsense_for_an_answer_each_time(tmp_path: Path, nonsense: str) -> None:
    script = f"{HELLO}{COMMANDS}-> {nonsense}\nsilence"
    async with relaying(tmp_path, script, script) as relay:
        await relay.house.send("b@dst.test")
        assert await relay.told(2) == [
            "reception b@dst.test",
            "deferral 1 b@dst.test connection +300: 451 4.4.2 The connection was lost; it is tried again",
        ]


async def test_nonsense_after_the_dot_may_mean_anything(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + ASKED + "<- message\n-> gulp\nsilence") as relay:
        await relay.house.send("b@dst.test")
        await relay.house.event(type="ambiguous")
        assert relay.types() == ["reception", "ambiguous"]


async def test_nonsense_behind_the_last_reply_loses_nothing(tmp_path: Path) -> None:
    taken = "<- message\n-> 250 taken\n-> by the way\nsilence"
    async with relaying(tmp_path, HELLO + ASKED + taken, HELLO + TAKES) as relay:
        await relay.house.send("b@dst.test")
        await relay.house.event(type="delivery")
        await relay.house.send("c@dst.test")
        await relay.house.event(type="delivery", recipient="c@dst.test")
        assert relay.types() == ["reception", "delivery"] * 2
