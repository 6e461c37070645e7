"""What clients write about themselves and their mail: who is told, who is believed, and what it can break."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mta.config.settings import Sandbox
from mta.core.credential import Credential
from mta.core.model import Option
from tests.fakes.client import CONTENT, Client, greeted
from tests.fakes.house import NETWORK, House, running, settings
from tests.fakes.probe import Desk, probing

APP = Credential("app", "acme", "transactional", kind="key")
OURS = Credential("ours", "acme", "transactional", ("src.test",), networks=("127.0.0.0/8",), kind="network")
TAKEN = "250 2.0.0 Ok: queued as "
BODY = b"\r\n\r\nHello.\r\n"


@asynccontextmanager
async def bound(
    directory: Path, credential: Credential = NETWORK, **terms: Any
) -> AsyncIterator[tuple[House, Client]]:
    wanted = settings(directory, sandbox=Sandbox(directory / "sandbox"), **terms)
    async with (
        running(wanted, credentials=(credential, APP)) as house,
        await greeted(house.network) as client,
    ):
        yield house, client


def kept(directory: Path) -> bytes:
    (file,) = (directory / "sandbox").glob("*.eml")
    content = file.read_bytes()
    return content[content.index(b"Received: ") :]


# Who was it?


async def test_a_credential_in_the_wrong_hands_is_traced_to_an_address(tmp_path: Path) -> None:
    async with bound(tmp_path) as (house, _), await greeted(house.network, address="127.0.0.9") as thief:
        assert (await thief.deliver(CONTENT, "b@dst.test", "c@dst.test")).startswith(TAKEN)
        assert (await thief.deliver(b"Subject: x" + BODY)).startswith("550 ")
        await house.event(2, type="reception", client="127.0.0.9")
        assert (await house.event(type="rejection"))["client"] == "127.0.0.9"
        async with await greeted(house.submissions, tls=True, address="127.0.0.8") as guesser:
            assert (await guesser.auth("app", "wrong")).startswith("535 ")
        await house.event(type="rejection", client="127.0.0.8", credential="app")


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
async def test_a_login_that_is_no_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mechanism: str
) -> None:
    login = b"\xff\xfe\x1b[2J\xe2\x80\xae\r\n" + b"x" * 300
    caplog.set_level("INFO", "mta")
    async with bound(tmp_path) as (house, _), await greeted(house.submissions, tls=True) as client:
        if mechanism == "PLAIN":
            said = await client.ask(f"AUTH PLAIN {_coded(bytes(1) + login + bytes(1) + b'x')}")
        else:
            await client.ask("AUTH LOGIN")
            await client.ask(_coded(login))
            said = await client.ask(_coded(b"\xff"))
        assert said == "535 5.7.8 Authentication credentials invalid"
        event = await house.event(type="rejection")
        assert event["credential"] == "\ufffd\ufffd?[2J???" + "x" * 55
        assert await client.ask("NOOP") == "250 2.0.0 OK"
    assert all(record.levelno < logging.ERROR for record in caplog.records)
    assert all(message.isprintable() for message in caplog.messages)


def _coded(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


HELOS = {
    "client.test": "client.test ([127.0.0.1])",
    "WIN_7": "WIN_7 ([127.0.0.1])",
    "[192.0.2.1]": "[192.0.2.1] ([127.0.0.1])",
    "[IPv6:2001:db8::1]": "[IPv6:2001:db8::1] ([127.0.0.1])",
    "x(": "[127.0.0.1] ([127.0.0.1])",
    "a)by(b": "[127.0.0.1] ([127.0.0.1])",
    "x;Fri,1Jan": "[127.0.0.1] ([127.0.0.1])",
    "[127.0.0.1": "[127.0.0.1] ([127.0.0.1])",
    '"': "[127.0.0.1] ([127.0.0.1])",
    "<a@b.test>": "[127.0.0.1] ([127.0.0.1])",
    "x" * 255: "[127.0.0.1] ([127.0.0.1])",
    "a.test.": "[127.0.0.1] ([127.0.0.1])",
}


@pytest.mark.parametrize("name", HELOS)
async def test_a_name_that_would_forge_our_received_field(tmp_path: Path, name: str) -> None:
    async with bound(tmp_path, received="full") as (house, client):
        await client.ehlo(name)
        assert (await client.deliver()).startswith(TAKEN)
        await house.event(type="delivery")
    assert kept(tmp_path).startswith(f"Received: from {HELOS[name]}\r\n\tby mta.test with ESMTP id ".encode())


# Whose mail is it?


YOURS = "550 5.7.1 You may not send as evil@evil.test ({} field)"
MASKS = {
    b"Sender: evil@evil.test": YOURS.format("Sender"),
    b"sender :a@src.test, evil@evil.test": YOURS.format("Sender"),
    b"Resent-From: evil@evil.test": YOURS.format("Resent-From"),
    b"Resent-From: a@src.test\r\nRESENT-FROM: evil@evil.test": YOURS.format("Resent-From"),
    b"Resent-Sender:\r\n evil@evil.test": YOURS.format("Resent-Sender"),
    b"Sender: a@src.test <evil@evil.test>": YOURS.format("Sender"),
    b"Sender: boss": "550 5.6.0 The Sender field cannot be read: write Name <user@domain>",
    b"Resent-From: a@src.test\r\n" * 2000 + b"A: b": (
        "550 5.6.0 The Resent-From field cannot be read: write Name <user@domain>"
    ),
}


async def test_somebody_else_as_the_sender_behind_an_author_of_ours(tmp_path: Path) -> None:
    async with bound(tmp_path, OURS) as (_, client):
        for fields, said in MASKS.items():
            content = b"From: a@src.test\r\n" + fields + BODY
            assert (fields, await client.deliver(content)) == (fields, said)
        mine = b"From: a@src.test\r\nSender: B <b@src.test>\r\nResent-From: c@src.test\r\n"
        assert (await client.deliver(mine + b"Resent-From: d@src.test" + BODY)).startswith(TAKEN)


async def test_one_who_may_send_as_anybody_is_not_asked(tmp_path: Path) -> None:
    async with bound(tmp_path) as (_, client):
        for fields in MASKS:
            assert (await client.deliver(b"From: a@src.test\r\n" + fields + BODY)).startswith(TAKEN)


async def test_a_notice_of_an_application_whose_credential_is_narrow(tmp_path: Path) -> None:
    async with bound(tmp_path, OURS) as (house, client):
        assert (await client.deliver(CONTENT, sender="")).startswith(TAKEN)
        assert (await house.event(type="reception"))["sender"] == ""
        said = await client.deliver(b"From: evil@evil.test" + BODY, sender="")
        assert said == YOURS.format("From")


async def test_a_signature_that_covers_a_date_which_is_not_there(tmp_path: Path) -> None:
    content = b"DKIM-Signature: v=1; h=from:date:message-id;\r\n b=aGk=\r\n" + CONTENT
    async with bound(tmp_path) as (house, client):
        assert (await client.deliver(content)).startswith(TAKEN)
        event = await house.event(type="reception")
        await house.event(type="delivery")
    assert event["reason"] == (
        "no Date was added: a DKIM-Signature of the application covers that field; "
        "no Message-ID was added: a DKIM-Signature of the application covers that field"
    )
    assert "due" not in event
    assert "message_id" not in event
    received, _, rest = kept(tmp_path).partition(b"DKIM-")
    assert b"DKIM-" + rest == content
    assert received.count(b"\r\n") == 3


# Eight bits


@pytest.mark.parametrize("times", [1, 5000], ids=["small", "large"])
async def test_eight_bits_are_seven_where_that_is_wanted(tmp_path: Path, times: int) -> None:
    head = CONTENT.partition(b"\r\n\r\n")[0] + b"\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n"
    body = b".gr\xc3\xbc\xc3\x9fe, dots and so on" + b"." * 100 + b"\r\n"
    async with bound(tmp_path, eight_bit="convert") as (house, client):
        assert (await client.deliver(head + b"\r\n" + body * times, mail=" BODY=8BITMIME")).startswith(TAKEN)
        event = await house.event(type="reception")
        await house.event(type="delivery")
    assert "reason" not in event
    encoded = b".gr=C3=BC=C3=9Fe, dots and so on" + b"." * 43 + b"=\r\n" + b"." * 57 + b"\r\n"
    assert kept(tmp_path).endswith(
        head + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + encoded * times
    )


@pytest.mark.parametrize("eight_bit", ["convert", "return"])
@pytest.mark.parametrize(("octets", "is_eight"), [(b"plain", False), (b"\xff", True)])
async def test_whether_a_message_has_eight_bits_is_seen_and_not_believed(
    tmp_path: Path, eight_bit: str, octets: bytes, is_eight: bool
) -> None:
    async with bound(tmp_path, eight_bit=eight_bit) as (house, client):
        accepted = []
        take = house.daemon.intake.admission._accepted
        house.daemon.intake.admission._accepted = lambda message: (
            accepted.append(message.options),
            take(message),
        )
        for mail in ("", " BODY=7BIT", " BODY=8BITMIME"):
            assert (await client.deliver(CONTENT + octets + b"\r\n", mail=mail)).startswith(TAKEN)
        await house.event(3, type="delivery")
    assert {bool(each & Option.EIGHTBIT) for each in accepted} == {is_eight and eight_bit == "return"}


async def test_eight_bits_under_a_signature_stay_and_the_event_says_so(tmp_path: Path) -> None:
    content = b"DKIM-Signature: v=1; h=from\r\n" + CONTENT + b"gr\xc3\xbc\xc3\x9fe\r\n"
    async with bound(tmp_path, eight_bit="convert") as (house, client):
        assert (await client.deliver(content)).startswith(TAKEN)
        event = await house.event(type="reception")
        await house.event(type="delivery")
    assert event["reason"] == "left in 8 bits: a message with a DKIM-Signature"
    assert kept(tmp_path).endswith(content)


# To whom?


async def test_the_same_recipient_twice_gets_one_copy(tmp_path: Path) -> None:
    twice = ["ann@dst.test", "ann@dst.test", "ann@DST.Test", "Ann@dst.test", "j@b\u00fccher.test"]
    twice += ["j@xn--bcher-kva.test", "j@B\u00dcCHER.test", "ann@[127.0.0.1]", "ann@[127.0.0.1]"]
    async with bound(tmp_path) as (house, client):
        assert (await client.deliver(CONTENT, *twice, mail=" SMTPUTF8")).startswith(TAKEN)
        await house.event(4, type="reception")
        told = [event["recipient"] for event in house.of(type="reception")]
        assert told == ["ann@dst.test", "Ann@dst.test", "j@b\u00fccher.test", "ann@[127.0.0.1]"]
        assert (await client.deliver()).startswith(TAKEN)
        assert (await client.deliver()).startswith(TAKEN)  # in another message it is another one
        await house.event(2, type="reception", recipient="b@dst.test")


async def test_a_recipient_that_was_refused_is_not_taken_when_said_again(tmp_path: Path) -> None:
    few = Credential("few", "acme", "transactional", recipients=1, networks=("127.0.0.0/8",), kind="network")
    async with bound(tmp_path, few) as (_, client):
        said = await client.deliver(CONTENT, "a@dst.test", "b@dst.test")
        assert said == "452 4.5.3 Too many recipients: at most 1 a message"
        assert await client.ask("RCPT TO:<b@dst.test>") == said
        assert await client.ask("RCPT TO:<a@DST.test>") == "250 2.1.5 Ok"
        assert (await client.data(CONTENT)).startswith(TAKEN)


@pytest.mark.parametrize("letter", ["\u202e", "\x85", "\u2028", "\u2066"])
async def test_an_address_that_would_turn_what_stands_behind_it(tmp_path: Path, letter: str) -> None:
    async with bound(tmp_path) as (_, client):
        for line in (
            f"MAIL FROM:<a{letter}b@src.test> SMTPUTF8",
            f'MAIL FROM:<"{letter}"@src.test> SMTPUTF8',
        ):
            assert (await client.ask(line))[:3] == "501"
        assert await client.ask("MAIL FROM:<a@src.test> SMTPUTF8") == "250 2.1.0 Ok"
        assert (await client.ask(f"RCPT TO:<{letter}@dst.test>"))[:3] == "501"


@pytest.mark.parametrize("line", ["X\x1b[2J\x07Y", "MAIL FROM:<a@src.test> A\x1b[2J=1", "MAIL FROM:<a@\x07>"])
async def test_what_a_client_says_comes_back_without_controls(tmp_path: Path, line: str) -> None:
    async with bound(tmp_path) as (_, client):
        said = await client.ask(line)
        assert said[0] == "5"
        assert said.isprintable()


# Whom have we got there?


WEB = {
    "a page": b"GET / HTTP/1.1\r\nHost: mta.test\r\n\r\n",
    "a form": b"POST /x HTTP/1.1\r\nContent-Type: text/plain\r\n\r\n",
    "a proxy": b"CONNECT mx.test:25 HTTP/1.1\r\n\r\n",
    "a field alone": b"Host: mta.test\r\n",
    "a field without a blank": b"Host:mta.test\r\n",
    "the next version": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "in lower case": b"get / http/1.1\r\n",
    "a file": b"PUT /x HTTP/1.1\r\n",
    "a question": b"OPTIONS * HTTP/1.1\r\n",
}
SMUGGLED = (
    b"EHLO client.test\r\nMAIL FROM:<a@src.test>\r\nRCPT TO:<b@dst.test>\r\nDATA\r\n"
    + CONTENT
    + b".\r\nQUIT\r\n"
)


@pytest.mark.parametrize("kind", WEB)
@pytest.mark.parametrize("greets", [False, True])
async def test_a_browser_that_was_made_to_talk_to_us(tmp_path: Path, kind: str, greets: bool) -> None:
    async with bound(tmp_path) as (house, _), await greeted(house.network, ehlo=greets) as browser:
        browser.send(WEB[kind] + SMUGGLED)
        assert await browser.rest() == b"421 4.7.0 This is SMTP, not HTTP\r\n"
        assert house.of(type="reception") == []


async def test_a_browser_that_speaks_tls_first(tmp_path: Path) -> None:
    async with (
        bound(tmp_path) as (house, _),
        await greeted(house.submissions, tls=True, ehlo=False) as browser,
    ):
        browser.send(WEB["a form"] + SMUGGLED)
        assert await browser.rest() == b"421 4.7.0 This is SMTP, not HTTP\r\n"


async def test_tls_in_the_middle_of_a_transaction() -> None:
    async with probing(Desk()) as listener, await greeted(listener.port) as client:
        assert await client.ask("MAIL FROM:<a@src.test>") == "250 2.1.0 Ok"
        said = await client.ask("STARTTLS")
        assert said == "503 5.5.1 A transaction is open; send RSET to give it up"
        assert await client.ask("RSET") == "250 2.0.0 OK"
        assert await client.ask("STARTTLS now") == "501 5.5.4 Syntax: STARTTLS"
        assert await client.ask("STARTTLS") == "220 2.0.0 Ready to start TLS"
        await client.starttls()
        assert await client.ask("MAIL FROM:<a@src.test>") == "503 5.5.1 Send EHLO first"
        await client.ehlo()
        assert await client.ask("STARTTLS") == "503 5.5.1 TLS is active"
