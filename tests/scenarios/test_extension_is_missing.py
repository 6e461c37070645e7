"""Peers that lack an extension that the message wants, or that take less than it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.client import Client
from tests.fakes.house import House
from tests.fakes.peer import HELLO, TAKES, answers
from tests.fakes.relay import named, relaying

B, UTF8 = "b@dst.test", "bé@dst.test"
TAKEN = f"{B}: 250 2.0.0 taken (.)"
CONTENT = "From: a@src.test\r\nTo: b@dst.test\r\nSubject: hello\r\n\r\nCafé.\r\n".encode()
PLAIN = HELLO.replace("-> 250 8BITMIME", "-> 250 HELP")
SIZED = HELLO.replace("-> 250 8BITMIME", "-> 250 SIZE 1000")
UTF8_TOO = HELLO.replace("-> 250 8BITMIME", "-> 250-8BITMIME\n    -> 250 SMTPUTF8")


async def submit(house: House, recipient: str, mail: str) -> None:
    """Send 8-bit content, with these parameters to MAIL."""
    async with await Client.connect(house.network) as client:
        await client.reply()
        await client.ehlo()
        assert (await client.deliver(CONTENT, recipient, mail=mail)).startswith("250 2.0.0 Ok: queued as ")


@pytest.mark.parametrize(
    ("hello", "said"),
    [
        pytest.param(HELLO, "MAIL FROM:<a@src.test> BODY=8BITMIME", id="offered"),
        pytest.param(PLAIN, "MAIL FROM:<a@src.test>", id="missing"),
    ],
)
async def test_8_bit_content_is_announced_only_where_8bitmime_is_offered_and_sent_as_it_is(
    tmp_path: Path, hello: str, said: str
) -> None:
    async with relaying(tmp_path, hello + TAKES) as relay:
        await submit(relay.house, B, " BODY=8BITMIME")
        assert await relay.told(2) == [f"reception {B}", f"delivery 1 {TAKEN}"]
        (call,) = relay.peer.calls
    assert call.commands[1] == said
    assert call.messages[0].endswith("\r\n\r\nCafé.\r\n".encode())


async def test_8_bit_content_that_is_refused_for_it_bounces(tmp_path: Path) -> None:
    reply = "554 5.6.1 8-bit content is not accepted here"
    async with relaying(tmp_path, PLAIN + answers(".", reply)) as relay:
        await submit(relay.house, B, " BODY=8BITMIME")
        assert await relay.told(2) == [f"reception {B}", f"bounce 1 {B} message: {reply} (.)"]


async def test_8_bit_content_is_returned_where_8bitmime_is_missing_if_it_is_to_be(tmp_path: Path) -> None:
    async with relaying(tmp_path, PLAIN + TAKES, eight_bit="return") as relay:
        await relay.house.send(B, content=CONTENT)
        reply = "554 5.6.3 The message has 8-bit content, which the receiving server does not take (RFC 6152)"
        assert await relay.told(2) == [f"reception {B}", f"bounce 1 {B} destination: {reply} (MAIL)"]
        await relay.house.send(B)
        assert (await relay.told(4))[3] == f"delivery 1 {TAKEN}"


async def test_an_address_in_utf_8_where_smtputf8_is_offered(tmp_path: Path) -> None:
    async with relaying(tmp_path, UTF8_TOO + TAKES) as relay:
        await submit(relay.house, UTF8, " BODY=8BITMIME SMTPUTF8")
        assert await relay.told(2) == [f"reception {UTF8}", f"delivery 1 {UTF8}: 250 2.0.0 taken (.)"]
        (call,) = relay.peer.calls
    assert call.commands[1:3] == ["MAIL FROM:<a@src.test> BODY=8BITMIME SMTPUTF8", f"RCPT TO:<{UTF8}>"]


async def test_an_address_in_utf_8_where_smtputf8_is_missing_is_said_to_nobody(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO) as relay:
        await submit(relay.house, UTF8, " SMTPUTF8")
        reply = "553 5.6.7 The address needs SMTPUTF8 and the receiving server does not offer it"
        assert await relay.told(2) == [
            f"reception {UTF8}",
            f"bounce 1 {UTF8} destination: {reply} (MAIL)",
        ]
        (call,) = relay.peer.calls
    assert call.commands == ["EHLO mta.test"]


async def test_ascii_mail_goes_where_smtputf8_is_missing_whatever_its_client_declared(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + TAKES) as relay:
        await submit(relay.house, B, " BODY=8BITMIME SMTPUTF8")
        assert await relay.told(2) == [f"reception {B}", f"delivery 1 {TAKEN}"]
        (call,) = relay.peer.calls
    assert call.commands[1] == "MAIL FROM:<a@src.test> BODY=8BITMIME"


async def test_a_domain_beyond_ascii_is_said_by_its_a_label(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + TAKES) as relay:
        await submit(relay.house, "b@bücher.test", " SMTPUTF8")
        assert (await relay.told(2))[1].startswith("delivery 1 b@bücher.test: ")
        (call,) = relay.peer.calls
    assert call.commands[1:3] == ["MAIL FROM:<a@src.test>", "RCPT TO:<b@xn--bcher-kva.test>"]


@pytest.mark.parametrize("fresh", [True, False], ids=["from memory", "from disk"])
async def test_a_neighbour_in_utf_8_does_not_take_the_others_with_it(tmp_path: Path, fresh: bool) -> None:
    async with relaying(tmp_path, HELLO + TAKES, shut=not fresh) as relay:
        async with await Client.connect(relay.house.network) as client:
            await client.reply()
            await client.ehlo()
            client.say("MAIL FROM:<a@src.test> SMTPUTF8", f"RCPT TO:<{UTF8}>", f"RCPT TO:<{B}>", "DATA")
            assert [(await client.reply()).code for _ in range(4)] == [250, 250, 250, 354]
            client.send(CONTENT, b".\r\n")
            assert (await client.reply()).code == 250
        if not fresh:
            await relay.house.event(2, type="deferral")
            await relay.peer.open()
            await relay.clock.advance(301)
        await relay.house.event(type="bounce", recipient=UTF8)
        await relay.house.event(type="delivery", recipient=B)
        bounce = relay.house.of(type="bounce")
    assert [each["reply"]["enhanced"] for each in bounce] == ["5.6.7"]


async def test_a_message_too_large_is_announced_and_refused_before_it_is_sent(tmp_path: Path) -> None:
    reply = "552 5.3.4 Message size exceeds fixed maximum message size"
    content = CONTENT + b"x" * 60 + b"\r\n" + b"y" * 900 + b"\r\n"
    async with relaying(tmp_path, SIZED + answers("MAIL", reply)) as relay:
        await relay.house.send(B, content=content)
        assert await relay.told(2) == [f"reception {B}", f"bounce 1 {B} message: {reply} (MAIL)"]
        (call,) = relay.peer.calls
        size = relay.house.events[0]["size"]
    assert size > 1000
    assert call.commands[1] == f"MAIL FROM:<a@src.test> SIZE={size}"
    assert call.messages == []


async def test_a_message_too_large_is_refused_at_the_dot(tmp_path: Path) -> None:
    reply = "552 5.3.4 Error: message file too big"
    async with relaying(tmp_path, HELLO + answers(".", reply)) as relay:
        await relay.house.send(B)
        assert await relay.told(2) == [f"reception {B}", f"bounce 1 {B} message: {reply} (.)"]


async def test_too_large_for_one_mailbox_is_about_the_message(tmp_path: Path) -> None:
    reply = "552 5.2.3 Message exceeds local size limit"
    async with relaying(tmp_path, SIZED + answers("RCPT", reply)) as relay:
        await relay.house.send(B)
        assert await relay.told(2) == [f"reception {B}", f"bounce 1 {B} message: {reply} (RCPT)"]


async def test_no_room_for_this_size_now(tmp_path: Path) -> None:
    reply = "452 4.2.2 The recipient's inbox is out of storage space"
    async with relaying(tmp_path, SIZED + answers("RCPT", reply), SIZED + TAKES) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.come_due()
        assert await relay.told(3) == [
            f"reception {B}",
            f"deferral 1 {B} mailbox {named(3600)}: {reply} (RCPT)",
            f"delivery 2 {TAKEN}",
        ]


async def test_a_parameter_that_is_offered_and_refused(tmp_path: Path) -> None:
    reply = "555 5.5.4 Unsupported option: SIZE"
    async with relaying(tmp_path, SIZED + answers("MAIL", reply)) as relay:
        await relay.house.send(B)
        assert await relay.told(2) == [f"reception {B}", f"bounce 1 {B} connection: {reply} (MAIL)"]
