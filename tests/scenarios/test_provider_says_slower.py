"""Answers about how fast we send: rates, connections, messages in one connection."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.peer import ASKED, HELLO, TAKES, answers, envelope, goodbye
from tests.fakes.relay import named, relaying, wait_of

B, C, D = "b@dst.test", "c@dst.test", "d@dst.test"
GOOGLE = "aspmx.l.google.com"
MICROSOFT = "dst-test.mail.protection.outlook.com"
YAHOO = "mta5.am0.yahoodns.net"
ORANGE = "smtp-in.orange.fr"
GMAIL = (
    "421-4.7.28 Gmail has detected an unusual rate of email. To protect our\n"
    "421-4.7.28 users from spam, email has been temporarily rate limited.\n"
    "421 4.7.28 x - gsmtp"
)
GMAIL_SAID = (
    "421 4.7.28 Gmail has detected an unusual rate of email. To protect our\n"
    "users from spam, email has been temporarily rate limited.\nx - gsmtp"
)
TSS04 = "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume"
BUSY = "451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (S77719)"
OFR = "421 mwinf5c77 ME Service refuse. Service refused, please try later. OFR_999 [999]"


@pytest.mark.parametrize(
    ("mx", "script", "said", "stage", "seconds"),
    [
        pytest.param(GOOGLE, HELLO + goodbye(".", GMAIL), GMAIL_SAID, ".", 1800, id="Gmail, at the dot"),
        pytest.param(MICROSOFT, HELLO + answers("MAIL", BUSY), BUSY, "MAIL", 900, id="Microsoft, at MAIL"),
        pytest.param(MICROSOFT, HELLO + answers("RCPT", BUSY), BUSY, "RCPT", 900, id="Microsoft, at RCPT"),
        pytest.param(ORANGE, f"-> {OFR}\nclose", OFR, "CONNECT", 7200, id="Orange, at the greeting"),
        pytest.param(YAHOO, f"-> {TSS04}\nclose", TSS04, "CONNECT", 3600, id="Yahoo, at the greeting"),
        pytest.param(YAHOO, HELLO + goodbye(".", TSS04), TSS04, ".", 3600, id="Yahoo, at the dot"),
    ],
)
async def test_a_rate_that_a_provider_refuses_is_about_the_rate(
    tmp_path: Path, mx: str, script: str, said: str, stage: str, seconds: float
) -> None:
    async with relaying(tmp_path, script, HELLO + TAKES, mx=mx) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.come_due()
        assert await relay.told(3) == [
            f"reception {B}",
            f"deferral 1 {B} rate {named(seconds)}: {said} ({stage})",
            f"delivery 2 {B}: 250 2.0.0 taken (.)",
        ]


@pytest.mark.parametrize(
    ("mx", "reply", "seconds"),
    [(YAHOO, TSS04, 3600), (GOOGLE, GMAIL.splitlines()[0].replace("-", " ", 1), 1800)],
)
async def test_a_421_about_the_rate_at_mail_is_not_tried_again_at_once(
    tmp_path: Path, mx: str, reply: str, seconds: float
) -> None:
    async with relaying(tmp_path, HELLO + goodbye("MAIL", reply), HELLO + TAKES, mx=mx) as relay:
        await relay.house.send(B)
        await relay.told(2)
        assert len(relay.peer.calls) == 1
        await relay.come_due()
        assert await relay.told(3) == [
            f"reception {B}",
            f"deferral 1 {B} rate {named(seconds)}: {reply} (MAIL)",
            f"delivery 2 {B}: 250 2.0.0 taken (.)",
        ]


async def test_a_daily_limit_that_is_said_with_550_is_no_bounce(tmp_path: Path) -> None:
    reply = "550 5.4.5 Daily SMTP relay limit exceeded for user. x - gsmtp"
    async with relaying(tmp_path, HELLO + answers(".", reply), HELLO + TAKES, mx=GOOGLE) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.come_due()
        assert await relay.told(3) == [
            f"reception {B}",
            f"deferral 1 {B} rate {named(3600)}: {reply} (.)",
            f"delivery 2 {B}: 250 2.0.0 taken (.)",
        ]


async def test_a_rate_that_nobody_has_a_name_for(tmp_path: Path) -> None:
    reply = "450 4.7.1 Error: too much mail from 192.0.2.1"
    async with relaying(tmp_path, HELLO + answers("MAIL", reply), HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.come_due()
        assert await relay.told(3) == [
            f"reception {B}",
            f"deferral 1 {B} rate {named(900)}: {reply} (MAIL)",
            f"delivery 2 {B}: 250 2.0.0 taken (.)",
        ]


async def test_a_rate_refusal_slows_down_what_waits_behind_it_and_costs_it_no_attempt(tmp_path: Path) -> None:
    first = HELLO + "hold\n" + answers("MAIL", BUSY) + "close"
    async with relaying(tmp_path, first, *[HELLO + TAKES] * 2, mx=MICROSOFT, connections=1) as relay:
        await relay.house.send(B)
        await relay.peer.at(1, "hold")
        await relay.house.send(C)
        relay.peer.go()
        await relay.told(3)
        await relay.clock.advance(1)
        await relay.told(3)  # it was refused, so the path is quiet for a while
        assert relay.house.of(type="limit")[0]["reason"] == "refused: rate"
        await relay.clock.advance(wait_of(relay.house.of(type="limit")[0]))
        await relay.told(4)
        await relay.come_due()
        assert await relay.told(5) == [
            f"reception {B}",
            f"reception {C}",
            f"deferral 1 {B} rate {named(900)}: {BUSY} (MAIL)",
            f"delivery 1 {C}: 250 2.0.0 taken (.)",
            f"delivery 2 {B}: 250 2.0.0 taken (.)",
        ]


async def test_one_connection_is_one_too_many_and_the_mail_is_tried_again(tmp_path: Path) -> None:
    reply = "421 4.7.0 mx.dst.test Error: too many connections from 192.0.2.1"
    async with relaying(tmp_path, f"-> {reply}\nclose", HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.come_due()
        assert await relay.told(3) == [
            f"reception {B}",
            f"deferral 1 {B} connection +300: {reply} (CONNECT)",
            f"delivery 2 {B}: 250 2.0.0 taken (.)",
        ]


async def test_a_second_connection_is_one_too_many_and_the_first_takes_all(tmp_path: Path) -> None:
    busy = HELLO + ASKED + "hold\n-> 250 ok\n-> 250 ok\n-> 354 go on\n<- message\n-> 250 taken\n" + TAKES * 12
    reply = "421 4.7.0 Too many concurrent SMTP connections; please try again later."
    async with relaying(tmp_path, busy, f"-> {reply}\nclose") as relay:
        await relay.house.send(B)
        await relay.peer.at(1, "hold")
        names = [f"c{number}@dst.test" for number in range(12)]
        for name in names:
            await relay.house.send(name)
        await relay.peer.at(2, "end")
        relay.peer.go()
        told = await relay.told(26)
    assert told[:13] == [f"reception {name}" for name in (B, *names)]
    assert told[13] == f"delivery 1 {B}: 250 taken (.)"
    assert told[14:] == [f"delivery 1 {name}: 250 2.0.0 taken (.)" for name in names]


@pytest.mark.parametrize(
    "reply", ["421 4.7.0 Too many messages in this session", "421 Max message per connection reached"]
)
async def test_one_message_too_many_for_this_connection_goes_over_the_next(
    tmp_path: Path, reply: str
) -> None:
    first = HELLO + TAKES * 2 + goodbye("MAIL", reply)
    async with relaying(tmp_path, first, HELLO + TAKES) as relay:
        for number, name in enumerate((B, C, D), 1):
            await relay.house.send(name)
            await relay.told(2 * number)
        assert await relay.told(6) == [
            line
            for name in (B, C, D)
            for line in (f"reception {name}", f"delivery 1 {name}: 250 2.0.0 taken (.)")
        ]
        assert [len(call.messages) for call in relay.peer.calls] == [2, 1]


async def test_one_message_too_many_that_is_said_with_452_waits(tmp_path: Path) -> None:
    reply = "452 4.5.3 Too many messages per connection"
    async with relaying(tmp_path, HELLO + TAKES + answers("MAIL", reply), HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.house.send(C)
        await relay.told(4)
        await relay.come_due()
        assert await relay.told(5) == [
            f"reception {B}",
            f"delivery 1 {B}: 250 2.0.0 taken (.)",
            f"reception {C}",
            f"deferral 1 {C} connection +300: {reply} (MAIL)",
            f"delivery 2 {C}: 250 2.0.0 taken (.)",
        ]


async def test_too_many_recipients_are_split_and_lose_no_attempt(tmp_path: Path) -> None:
    many = envelope(
        "250 ok", "250 ok", "452 4.5.3 too many recipients", "552 too many recipients", "354 go on"
    )
    two = envelope("250 ok", "250 ok", "250 ok", "354 go on")
    script = HELLO + many + "<- message\n-> 250 one\n" + two + "<- message\n-> 250 two\n"
    async with relaying(tmp_path, script) as relay:
        await relay.house.send(B, C, D)
        assert await relay.told(6) == [
            f"reception {B}",
            f"reception {C}",
            f"reception {D}",
            f"delivery 1 {B}: 250 one (.)",
            f"delivery 1 {C}: 250 two (.)",
            f"delivery 1 {D}: 250 two (.)",
        ]
        (call,) = relay.peer.calls
    assert [each for each in call.commands if each.startswith("RCPT")] == [
        f"RCPT TO:<{each}>" for each in (B, C, D, C, D)
    ]
    assert call.messages[0] == call.messages[1]


@pytest.mark.parametrize("reply", ["452 4.5.3 Error: too many recipients", "552 5.5.3 Too many recipients"])
async def test_one_recipient_is_one_too_many_and_it_waits(tmp_path: Path, reply: str) -> None:
    async with relaying(tmp_path, HELLO + answers("RCPT", reply), HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.come_due()
        assert await relay.told(3) == [
            f"reception {B}",
            f"deferral 1 {B} connection +300: {reply} (RCPT)",
            f"delivery 2 {B}: 250 2.0.0 taken (.)",
        ]
