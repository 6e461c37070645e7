"""Peers that keep the connection and say nothing, and peers that say nonsense."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.peer import HELLO, TAKES, envelope
from tests.fakes.relay import relaying, wait_of

ASKED = envelope("250 ok", "250 ok", "354 go on")
COMMANDS = ASKED.partition("->")[0]
NOBODY = "No host answered; it is tried again: 127.0.0.1 [127.0.0.1]: "


@pytest.mark.parametrize(
    ("said", "command", "awaited"),
    [
        pytest.param("", "CONNECT", "the greeting", id="greeting"),
        pytest.param("-> 220 mx.test\n<- EHLO *\n", "EHLO", "the answer to EHLO", id="EHLO"),
    ],
)
async def test_silence_before_the_first_message(
    tmp_path: Path, said: str, command: str, awaited: str
) -> None:
    async with relaying(tmp_path, said + "silence") as relay:
        await relay.house.send("b@dst.test")
        await relay.peer.at(1, "silence")
        await relay.clock.advance(299)
        assert relay.house.of(type="deferral") == []
        await relay.clock.advance(5)
        deferral = await relay.house.event(type="deferral")
        assert deferral["reply"]["text"] == f"{NOBODY}timed out: {awaited} did not come in 300 seconds"
        assert (deferral["reply"]["command"], deferral["subject"]) == (command, "network")


@pytest.mark.parametrize(
    ("said", "command", "seconds"),
    [
        pytest.param("", "MAIL", 300, id="MAIL"),
        pytest.param("-> 250 ok\n", "RCPT", 300, id="RCPT"),
        pytest.param("-> 250 ok\n-> 250 ok\n", "DATA", 120, id="DATA"),
    ],
)
async def test_silence_before_the_dot_each_time(
    tmp_path: Path, said: str, command: str, seconds: int
) -> None:
    script = again = HELLO + COMMANDS + said + "silence"
    if said:  # what it answers in part comes one by one the next time
        alone = "<- MAIL FROM:<*\n-> 250 ok\n<- RCPT TO:<*\n"
        again = HELLO + alone + ("-> 250 ok\n<- DATA\n" if command == "DATA" else "") + "silence"
    async with relaying(tmp_path, script, again) as relay:
        await relay.house.send("b@dst.test")
        for number in (1, 2):
            await relay.peer.at(number, "silence")
            await relay.clock.advance(seconds + 2)
        await relay.house.event(2, type="deferral")
        first, second = relay.house.of(type="deferral")
        text = f"{command} was not answered in {seconds} seconds; it is tried again"
        assert first["reply"] == second["reply"] == {
            "code": 451, "enhanced": "4.4.2", "text": text, "command": command,
        }  # fmt: skip
        assert (first["attempt"], wait_of(first)) == (1, 0)  # over another connection, at once
        assert (second["attempt"], wait_of(second)) == (1, 300)
        assert relay.types() == ["reception", "deferral", "deferral"]


async def test_silence_before_the_dot_once_and_another_connection_takes_it(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + COMMANDS + "silence", HELLO + TAKES) as relay:
        await relay.house.send("b@dst.test")
        await relay.peer.at(1, "silence")
        await relay.clock.advance(302)
        assert (await relay.house.event(type="delivery"))["attempt"] == 1
        assert relay.types() == ["reception", "deferral", "delivery"]  # five minutes are not passed over


async def test_silence_after_the_dot_is_waited_for_longer(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + ASKED + "<- message\nsilence", HELLO + TAKES) as relay:
        await relay.house.send("b@dst.test")
        await relay.peer.at(1, "silence")
        await relay.clock.advance(599)
        assert relay.types() == ["reception"]
        await relay.clock.advance(2)
        ambiguous = await relay.house.event(type="ambiguous")
        text = "The final dot was not answered in 600 seconds: the message may have arrived"
        assert ambiguous["reply"]["text"] == text
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
        ("SSH-2.0-OpenSSH_9.2", "answered the connection with what is no reply: 'SSH-2.0-OpenSSH_9.2'"),
        ("150 soon", "answered the connection with what is no reply: '150 soon'"),
        ("250 caf\udce9", "answered the connection with 250 caf\ufffd"),
        ("220-" + "x" * 70_000, "answered the connection with a reply without an end"),
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
    ("nonsense", "said"),
    [
        ("hello?", "MAIL was answered with what is no reply: 'hello?' (MAIL)"),
        ("600 ok", "MAIL was answered with what is no reply: '600 ok' (MAIL)"),
        ("250 ok\n-> 250 ok\n-> 250 one too many", "DATA was answered with '250 one too many' (DATA)"),
        ("250-a\n-> 451 b", "MAIL was answered with a reply with two codes: '250-a / 451 b' (MAIL)"),
    ],
    ids=["no reply", "600", "250 to DATA", "two codes"],
)
async def test_nonsense_for_an_answer_each_time(tmp_path: Path, nonsense: str, said: str) -> None:
    script = f"{HELLO}{COMMANDS}-> {nonsense}\nsilence"
    told = said.replace(" (", "; it is tried again (")
    async with relaying(tmp_path, script, script) as relay:
        await relay.house.send("b@dst.test")
        assert await relay.told(2) == [
            "reception b@dst.test",
            f"deferral 1 b@dst.test connection +300: 451 4.4.2 {told}",
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
