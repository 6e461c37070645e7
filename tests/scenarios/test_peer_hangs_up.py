"""Peers that end the connection when it suits them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.peer import HELLO, TAKES, envelope
from tests.fakes.relay import relaying, wait_of

MAYBE = {
    "code": 451,
    "enhanced": "4.4.2",
    "text": "The connection was lost after the final dot: the message may have arrived",
    "command": ".",
}
ASKED = envelope("250 ok", "250 ok", "354 go on")
LARGE = (
    b"From: a@src.test\r\n\r\n"
    + b"a line of some length, sixty-four octets with its end, CR LF.\r\n" * 100_000
)


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_before_the_greeting(tmp_path: Path, end: str) -> None:
    async with relaying(tmp_path, end) as relay:
        await relay.house.send("b@dst.test")
        deferral = await relay.house.event(type="deferral")
        assert deferral["reply"]["text"].startswith("No host answered; it is tried again: 127.0.0.1 [")
        assert (deferral["reply"]["code"], deferral["reply"]["enhanced"]) == (451, "4.4.1")
        assert (deferral["reply"]["command"], deferral["subject"]) == ("CONNECT", "network")
        assert wait_of(deferral) == 300
        assert relay.types() == ["reception", "deferral"]


@pytest.mark.parametrize(
    ("until", "before", "command"),
    [
        pytest.param("", "before MAIL was answered", "MAIL", id="EHLO"),
        pytest.param("<- MAIL FROM:<*\n", "before MAIL was answered", "MAIL", id="MAIL"),
        pytest.param(ASKED.partition("->")[0], "before MAIL was answered", "MAIL", id="DATA"),
        pytest.param(ASKED + "<- octets 5\n", "while the message was sent", ".", id="the first octets"),
    ],
)
@pytest.mark.parametrize("end", ["close", "abort"])
async def test_always_after(tmp_path: Path, until: str, before: str, command: str, end: str) -> None:
    script = HELLO + until + end
    async with relaying(tmp_path, script, script) as relay:
        await relay.house.send("b@dst.test", content=LARGE if "octets" in until else b"")
        deferral = await relay.house.event(type="deferral")
        text = f"The connection was lost {before}; it is tried again"
        assert deferral["reply"] == {"code": 451, "enhanced": "4.4.2", "text": text, "command": command}
        assert (deferral["subject"], deferral["attempt"], wait_of(deferral)) == ("connection", 1, 300)
        assert relay.types() == ["reception", "deferral"]


@pytest.mark.parametrize(
    "until", ["", "<- MAIL FROM:<*\n", ASKED + "<- octets 100000\n"], ids=["EHLO", "MAIL", "the body"]
)
async def test_once_and_the_message_goes_over_a_new_connection(tmp_path: Path, until: str) -> None:
    async with relaying(tmp_path, HELLO + until + "abort", HELLO + TAKES) as relay:
        await relay.house.send("b@dst.test", content=LARGE)
        assert (await relay.house.event(type="delivery"))["attempt"] == 1
        assert relay.peer.calls[1].messages[0].endswith(LARGE)
        assert relay.types() == ["reception", "delivery"]


async def test_after_the_dot_it_may_have_arrived_and_is_sent_again(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + ASKED + "<- message\nclose", HELLO + TAKES) as relay:
        await relay.house.send("b@dst.test")
        ambiguous = await relay.house.event(type="ambiguous")
        assert ambiguous["reply"] == MAYBE
        assert (ambiguous["subject"], wait_of(ambiguous)) == ("network", 300)
        await relay.clock.advance(301)
        assert (await relay.house.event(type="delivery"))["attempt"] == 2
        first, second = relay.peer.calls
        assert first.messages == second.messages


async def test_a_retry_from_disk_is_an_attempt_though_the_peer_hangs_up_before_it_is_read(
    tmp_path: Path,
) -> None:
    script = HELLO + "close"
    async with relaying(tmp_path, *[script] * 4) as relay:
        await relay.house.send("b@dst.test")
        await relay.house.event(type="deferral")
        await relay.clock.advance(301)
        await relay.house.event(2, type="deferral")
        assert [event["attempt"] for event in relay.house.of(type="deferral")] == [1, 2]


@pytest.mark.parametrize(
    "goodbye", ["-> 421 4.4.2 idle for too long\nclose", "close", "abort"], ids=["421", "close", "abort"]
)
async def test_while_idle_and_the_next_message_goes_over_a_new_connection(
    tmp_path: Path, goodbye: str
) -> None:
    async with relaying(tmp_path, f"{HELLO}{TAKES}hold\n{goodbye}", HELLO + TAKES) as relay:
        await relay.house.send("b@dst.test")
        await relay.house.event(type="delivery")
        relay.peer.go()
        await relay.peer.at(1, "end")
        await relay.house.send("c@dst.test")
        delivery = await relay.house.event(type="delivery", recipient="c@dst.test")
        assert delivery["attempt"] == 1
        assert relay.types() == ["reception", "delivery"] * 2


@pytest.mark.parametrize("code", ["421", "554"])
async def test_with_a_greeting_that_refuses(tmp_path: Path, code: str) -> None:
    async with relaying(tmp_path, f"-> {code} 4.7.0 not today, \udce9\nclose", HELLO + TAKES) as relay:
        await relay.house.send("b@dst.test")
        deferral = await relay.house.event(type="deferral")
        assert deferral["reply"] == {
            "code": int(code),
            "enhanced": "4.7.0",
            "text": "not today, \ufffd",
            "command": "CONNECT",
        }
        assert deferral["permanent"] is False
        await relay.clock.advance(wait_of(deferral) + 1)
        assert (await relay.house.event(type="delivery"))["attempt"] == 2


async def test_with_421_to_mail_each_time(tmp_path: Path) -> None:
    script = HELLO + "<- MAIL FROM:<*\n-> 421 4.3.2 going down\nclose"
    async with relaying(tmp_path, script, script) as relay:
        await relay.house.send("b@dst.test")
        deferral = await relay.house.event(type="deferral")
        assert deferral["reply"] == {
            "code": 421,
            "enhanced": "4.3.2",
            "text": "going down",
            "command": "MAIL",
        }
        assert deferral["subject"] == "destination"


async def test_with_421_after_the_dot_which_is_an_answer(tmp_path: Path) -> None:
    script = HELLO + ASKED + "<- message\n-> 421 4.3.1 disk full\nclose"
    async with relaying(tmp_path, script, HELLO + TAKES) as relay:
        await relay.house.send("b@dst.test")
        deferral = await relay.house.event(type="deferral")
        assert deferral["reply"] == {"code": 421, "enhanced": "4.3.1", "text": "disk full", "command": "."}
        await relay.clock.advance(301)
        assert (await relay.house.event(type="delivery"))["attempt"] == 2


async def test_a_peer_that_always_hangs_up_is_not_dialled_for_each_message_that_waits(tmp_path: Path) -> None:
    script = HELLO + "<- MAIL FROM:<*\n"
    scripts = (script + "hold\nabort", *[script + "abort"] * 3, HELLO + TAKES * 2)
    async with relaying(tmp_path, *scripts, connections=1) as relay:
        await relay.house.send("first@dst.test")
        await relay.peer.at(1, "hold")
        for name in ("b", "c", "d"):
            await relay.house.send(f"{name}@dst.test")
        relay.peer.go()
        await relay.house.event(2, type="deferral")
        await relay.clock.advance(29)
        assert len(relay.peer.calls) == 4  # two attempts, each on two connections
        await relay.clock.advance(2)
        await relay.house.event(2, type="delivery", attempt=1)
        assert len(relay.house.of(type="deferral")) == 2


async def test_a_goodbye_now_and_then_does_not_make_a_site_dead(tmp_path: Path) -> None:
    """Of a batch that is lost twice in a row, on connections between which others take mail."""
    cut = HELLO + TAKES + "<- MAIL FROM:<*\nabort"
    async with relaying(
        tmp_path, cut, HELLO + "<- MAIL FROM:<*\nabort", HELLO + TAKES, connections=1
    ) as relay:
        for name in "abc":
            await relay.house.send(f"{name}@dst.test")
        await relay.house.event(2, type="delivery")
        await relay.house.event(1, type="deferral")
        assert relay.house.of(type="state") == []


async def test_a_connection_that_works_takes_mail_though_others_are_cut(tmp_path: Path) -> None:
    works = HELLO + ASKED + "hold\n<- message\n-> 250 taken\n" + TAKES
    cut = HELLO + "<- MAIL FROM:<*\nabort"
    async with relaying(tmp_path, works, cut, cut) as relay:
        await relay.house.send("first@dst.test")
        await relay.peer.at(1, "hold")
        await relay.house.send("second@dst.test")
        for number in (2, 3):
            await relay.clock.advance(3.3)  # it has waited for a second: one more connection
            await relay.peer.at(number, "end")
        await relay.house.event(type="deferral", recipient="second@dst.test")
        await relay.house.send("third@dst.test")
        relay.peer.go()
        await relay.house.event(type="delivery", recipient="third@dst.test")


async def test_a_connection_too_many_is_not_dialled_again_while_another_works(tmp_path: Path) -> None:
    busy = HELLO + ASKED + "hold\n<- message\n-> 250 taken\n" + TAKES * 12
    async with relaying(tmp_path, busy, "-> 421 4.7.0 one connection is enough\nclose") as relay:
        await relay.house.send("first@dst.test")
        await relay.peer.at(1, "hold")
        for number in range(12):
            await relay.house.send(f"{number}@dst.test")
        await relay.peer.at(2, "end")
        relay.peer.go()
        await relay.house.event(13, type="delivery")
        assert relay.house.of(type="deferral") == []
