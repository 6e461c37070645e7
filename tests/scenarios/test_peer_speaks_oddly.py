"""Peers whose replies are huge, slow, out of place or no replies at all: what each of them costs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.fakes.peer import ASKED, HELLO, TAKES, answers
from tests.fakes.relay import relaying

B, C = "b@dst.test", "c@dst.test"
TAKEN = f"{B}: 250 2.0.0 taken (.)"
AGAIN, MAYBE = "it is tried again", "the message may have arrived"
NOBODY = "451 4.4.1 No host answered; it is tried again: 127.0.0.1 [127.0.0.1]:"
WORDS = "x" * 60
LINES = "\n".join(f"550-5.1.1 {WORDS}" for _ in range(1500)) + "\n550 5.1.1 end"  # some 100 KiB
LONG = "550 5.1.1 " + "x" * 100 * 1024
ENDLESS = {
    LINES: f"a reply without an end: '550-5.1.1 {WORDS}'",
    LONG: f"a reply without an end: '{LONG[:200]}'...",
}


@pytest.mark.parametrize("reply", [LINES, LONG], ids=["lines", "one line"])
@pytest.mark.parametrize("stage", ["MAIL", "RCPT"])
async def test_a_reply_of_100_kib_is_not_listened_to(tmp_path: Path, reply: str, stage: str) -> None:
    script = HELLO + answers(stage, reply)
    async with relaying(tmp_path, script, script, HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.come_due()
        said = f"451 4.4.2 {stage} was answered with {ENDLESS[reply]}; {AGAIN} ({stage})"
        assert await relay.told(3) == [
            f"reception {B}",
            f"deferral 1 {B} connection +300: {said}",
            f"delivery 2 {TAKEN}",
        ]


@pytest.mark.parametrize("reply", [LINES, LONG], ids=["lines", "one line"])
async def test_a_reply_of_100_kib_to_the_dot_may_mean_anything(tmp_path: Path, reply: str) -> None:
    async with relaying(tmp_path, HELLO + answers(".", reply), HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.come_due()
        said = f"451 4.4.2 The final dot was answered with {ENDLESS[reply]}: {MAYBE} (.)"
        assert await relay.told(3) == [
            f"reception {B}",
            f"ambiguous 1 {B} network +300: {said}",
            f"delivery 2 {TAKEN}",
        ]


@pytest.mark.parametrize("length", [600, 3000, 60_000])
async def test_a_message_whose_yes_is_too_long_is_delivered_once(tmp_path: Path, length: int) -> None:
    reply = "250 2.0.0 " + "x" * length
    async with relaying(tmp_path, HELLO + answers(".", reply)) as relay:
        await relay.house.send(B)
        told = await relay.told(2)
        assert told[1].startswith(f"delivery 1 {B}: 250 2.0.0 xxx")
        assert len(told[1]) < 2200


@pytest.mark.parametrize("line", ["220 mx.test ESMTP", "250 8BITMIME"], ids=["greeting", "EHLO"])
async def test_a_greeting_and_extensions_of_ten_kib_are_taken(tmp_path: Path, line: str) -> None:
    hello = (
        HELLO.replace(line, line[:4] + "x" * 10_000)
        if line[:3] == "220"
        else HELLO.replace(line, f"250-X-LONG {'x ' * 5_000}\n    -> {line}")
    )
    async with relaying(tmp_path, hello + TAKES) as relay:
        await relay.house.send(B)
        assert await relay.told(2) == [f"reception {B}", f"delivery 1 {TAKEN}"]


async def test_a_reply_of_two_hundred_lines_is_an_answer(tmp_path: Path) -> None:
    lines = [f"line {number}" for number in range(200)]
    reply = "\n".join(f"550-5.1.1 {each}" for each in lines) + "\n550 5.1.1 User unknown"
    async with relaying(tmp_path, HELLO + answers("RCPT", reply)) as relay:
        await relay.house.send(B)
        said = "\n".join(["550 5.1.1 line 0", *lines[1:], "User unknown"])
        assert await relay.told(2) == [f"reception {B}", f"bounce 1 {B} recipient: {said} (RCPT)"]


@pytest.mark.parametrize(
    ("stage", "reply", "what"),
    [
        pytest.param("MAIL", "999 what?", "what is no reply: ", id="999 to MAIL"),
        pytest.param("RCPT", "000", "what is no reply: ", id="000 to RCPT"),
        pytest.param("RCPT", "25 ok", "what is no reply: ", id="two figures"),
        pytest.param("DATA", "250 ok", "", id="250 to DATA"),
        pytest.param("DATA", "299 ok", "", id="299 to DATA"),
        pytest.param("DATA", "150 wait", "what is no reply: ", id="150 to DATA"),
    ],
)
async def test_a_code_that_does_not_exist_or_does_not_belong_there(
    tmp_path: Path, stage: str, reply: str, what: str
) -> None:
    script = HELLO + answers(stage, reply)
    async with relaying(tmp_path, script, script, HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.come_due()
        said = f"451 4.4.2 {stage} was answered with {what}'{reply}'; {AGAIN} ({stage})"
        assert await relay.told(3) == [
            f"reception {B}",
            f"deferral 1 {B} connection +300: {said}",
            f"delivery 2 {TAKEN}",
        ]


@pytest.mark.parametrize("reply", ["999 what?", "354 go on", "hello"])
async def test_a_wrong_code_for_the_dot_may_mean_that_it_was_taken(tmp_path: Path, reply: str) -> None:
    async with relaying(tmp_path, HELLO + answers(".", reply), HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.come_due()
        what = "" if reply[0] == "3" else "what is no reply: "
        said = f"451 4.4.2 The final dot was answered with {what}'{reply}': {MAYBE} (.)"
        assert await relay.told(3) == [
            f"reception {B}",
            f"ambiguous 1 {B} network +300: {said}",
            f"delivery 2 {TAKEN}",
        ]


async def test_354_to_rcpt_is_no_yes(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + answers("RCPT", "354 go on"), HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.come_due()
        assert await relay.told(3) == [
            f"reception {B}",
            f"deferral 1 {B} connection +300: 354 go on (RCPT)",
            f"delivery 2 {TAKEN}",
        ]


@pytest.mark.parametrize("code", ["251", "252"])
async def test_251_and_252_to_rcpt_are_a_yes(tmp_path: Path, code: str) -> None:
    script = HELLO + TAKES.replace("250 2.1.5 ok", f"{code} 2.1.5 will forward")
    async with relaying(tmp_path, script) as relay:
        await relay.house.send(B)
        assert await relay.told(2) == [f"reception {B}", f"delivery 1 {TAKEN}"]


async def test_a_reply_octet_by_octet_is_an_answer(tmp_path: Path) -> None:
    slow = "drip 250 2.1.0 ok\n-> 250 2.1.5 ok\n-> 354 go on\n<- message\ndrip 250 2.0.0 taken\n"
    async with relaying(tmp_path, HELLO + ASKED + slow) as relay:
        await relay.house.send(B)
        assert await relay.told(2) == [f"reception {B}", f"delivery 1 {TAKEN}"]


async def test_a_reply_that_drips_does_not_win_time(tmp_path: Path) -> None:
    """A line of one letter every minute: the command has its five minutes all the same."""
    script = HELLO + ASKED + "-> 250-ok\nhold\n" * 5 + "silence"
    async with relaying(tmp_path, script, HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.peer.at(1, "hold")
        (lane,) = relay.house.daemon.pool._lanes
        (connection,) = lane.serving
        for lines in range(1, 6):
            async with asyncio.timeout(10):
                while len(connection._parser._lines) < lines:  # noqa: ASYNC110 - nobody tells of half a reply
                    await asyncio.sleep(0)
            await relay.clock.advance(60)
            relay.peer.go()
        await relay.clock.advance(2)
        assert await relay.told(3) == [
            f"reception {B}",
            f"deferral 1 {B} connection +0: 451 4.4.2 MAIL was not answered in 300 seconds; {AGAIN} (MAIL)",
            f"delivery 1 {TAKEN}",
        ]


async def test_a_greeting_after_four_minutes_is_waited_for(tmp_path: Path) -> None:
    async with relaying(tmp_path, "hold\n" + HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.peer.at(1, "hold")
        await relay.clock.advance(240)
        relay.peer.go()
        assert await relay.told(2) == [f"reception {B}", f"delivery 1 {TAKEN}"]


async def test_a_greeting_of_several_lines(tmp_path: Path) -> None:
    hello = HELLO.replace(
        "-> 220 mx.test ESMTP", "-> 220-mx.test ESMTP\n    -> 220-No spam\n    -> 220 please"
    )
    async with relaying(tmp_path, hello + TAKES) as relay:
        await relay.house.send(B)
        assert await relay.told(2) == [f"reception {B}", f"delivery 1 {TAKEN}"]


async def test_a_greeting_that_begins_and_does_not_end(tmp_path: Path) -> None:
    async with relaying(tmp_path, "-> 220-mx.test ESMTP\n-> 220-wait\nsilence", HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.peer.at(1, "silence")
        await relay.clock.advance(301)
        await relay.told(2)
        await relay.come_due()
        late = "timed out: the greeting did not come in 300 seconds"
        assert await relay.told(3) == [
            f"reception {B}",
            f"deferral 1 {B} network +300: {NOBODY} {late} (CONNECT)",
            f"delivery 2 {TAKEN}",
        ]


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_a_reply_that_is_cut_off_in_the_middle_is_none(tmp_path: Path, end: str) -> None:
    cut = HELLO + ASKED + f"-> 250 ok\n-> 550-5.1.1 User unk\n{end}"
    async with relaying(tmp_path, cut, HELLO + TAKES) as relay:
        await relay.house.send(B)
        assert await relay.told(2) == [f"reception {B}", f"delivery 1 {TAKEN}"]


async def test_a_refusal_of_rset_costs_the_connection_and_no_mail(tmp_path: Path) -> None:
    script = HELLO + answers("RCPT", "550 5.1.1 User unknown")
    script += "<- RSET\n" + ASKED + "-> 500 5.5.1 what is RSET?\n-> 250 ok\n-> 250 ok\n-> 354 go on\nsilence"
    async with relaying(tmp_path, script, HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.house.send(C)
        assert await relay.told(4) == [
            f"reception {B}",
            f"bounce 1 {B} recipient: 550 5.1.1 User unknown (RCPT)",
            f"reception {C}",
            f"delivery 1 {C}: 250 2.0.0 taken (.)",
        ]


async def test_a_text_in_latin_1_with_control_characters_is_told_without_them(tmp_path: Path) -> None:
    reply = "550 5.1.1 \udce9\x1b[31m\x00 User unknown"
    async with relaying(tmp_path, HELLO + answers("RCPT", reply)) as relay:
        await relay.house.send(B)
        assert await relay.told(2) == [
            f"reception {B}",
            f"bounce 1 {B} recipient: 550 5.1.1 \ufffd\ufffd[31m\ufffd User unknown (RCPT)",
        ]
