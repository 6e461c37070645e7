"""What can go wrong between a client's EHLO and our 250, each with its reply and its event."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mta.config.settings import Limits, Sandbox, Settings
from mta.core import queueid
from mta.core.credential import Credential
from mta.core.limits.throttle import Rate
from mta.smtp.connection import STRANGER
from mta.store.credentials import CredentialStore
from tests.fakes.client import CONTENT, ENVELOPE, Client, greeted
from tests.fakes.clock import HandClock
from tests.fakes.house import KEY, NETWORK, House, running, settings

APP = Credential("app", "acme", "transactional", kind="key")
RECEIVED = "Received: from hidden\r\n\tby mta.test"
BODY = b"\r\n\r\nHello.\r\n"


def network(**terms: Any) -> Credential:
    """Who comes from loopback, with limits."""
    return Credential("network", "acme", "transactional", networks=("127.0.0.0/8",), kind="network", **terms)


def terms_of(directory: Path, **terms: Any) -> Settings:
    return settings(directory, sandbox=Sandbox(directory / "sandbox"), **terms)


def daemon(directory: Path, clock: HandClock | None = None) -> AbstractAsyncContextManager[House]:
    """A daemon that knows a login."""
    return running(terms_of(directory), clock, (APP,))


@asynccontextmanager
async def bound(
    directory: Path, credential: Credential = NETWORK, clock: HandClock | None = None, **terms: Any
) -> AsyncIterator[tuple[House, Client]]:
    """A daemon and a client that its address lets in."""
    wanted = terms_of(directory, **terms)
    async with running(wanted, clock, (credential, APP)) as house, await greeted(house.network) as client:
        yield house, client


@asynccontextmanager
async def logged_in(directory: Path) -> AsyncIterator[tuple[House, Client]]:
    """A daemon and a client on the implicit TLS port that has authenticated."""
    async with daemon(directory) as house, await greeted(house.submissions, tls=True) as client:
        assert await client.auth("app", KEY) == "235 2.7.0 Authentication successful"
        yield house, client


def facts(event: dict[str, Any]) -> dict[str, Any]:
    """An event without what differs each time."""
    return {name: value for name, value in event.items() if name not in ("seq", "time", "type")}


def kept(directory: Path) -> bytes:
    """The one message that the sandbox was given, less its own fields."""
    (file,) = (directory / "sandbox").glob("*.eml")
    content = file.read_bytes()
    return content[content.index(b"Received: ") :]


# Who are you?


async def test_a_wrong_password(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mta.intake")
    async with daemon(tmp_path) as house:
        async with await greeted(house.submissions, tls=True) as client:
            assert await client.auth("app", "wrong") == "535 5.7.8 Authentication credentials invalid"
            event = await house.event(type="rejection")
            assert await client.ask(ENVELOPE[0]) == "530 5.7.0 Authentication required"
        assert facts(event) == {
            "credential": "app",
            "client": "127.0.0.1",
            "reply": {"code": 535, "enhanced": "5.7.8", "text": "Authentication credentials invalid"},
            "permanent": True,
            "reason": "authentication: wrong",
        }
        assert caplog.messages == ["127.0.0.1: the login 'app' was refused"]  # for whoever bans addresses
        assert KEY not in str(house.events)
        assert "wrong" not in str(event["reply"])


async def test_auth_before_tls(tmp_path: Path) -> None:
    async with daemon(tmp_path) as house, await greeted(house.submission) as client:
        expected = "530 5.7.0 Must issue a STARTTLS command first"
        assert await client.auth("app", KEY) == expected
        assert await client.ask(ENVELOPE[0]) == "530 5.7.0 Authentication required"


async def test_a_client_whose_address_nobody_is_bound_to(tmp_path: Path) -> None:
    rack = Credential("rack", "acme", "bulk", networks=("10.0.0.0/8",), kind="network")
    async with running(terms_of(tmp_path), credentials=(rack,)) as house:
        async with await Client.connect(house.network) as client:
            assert await client.rest() == b"554 5.7.1 No credential is bound to your address\r\n"
        event = await house.event(type="rejection")
        assert event["reason"] == "no credential is bound to 127.0.0.1"
        assert "credential" not in event


async def test_an_address_is_no_credential_where_passwords_are_asked_for(tmp_path: Path) -> None:
    async with running(terms_of(tmp_path), credentials=(NETWORK,)) as house:
        for port, tls in ((house.submission, False), (house.submissions, True)):
            async with await greeted(port, tls=tls) as client:
                assert await client.ask(ENVELOPE[0]) == "530 5.7.0 Authentication required"


async def test_a_credential_removed_while_we_run_stops_working_at_the_next_auth(tmp_path: Path) -> None:
    terms = terms_of(tmp_path)
    async with running(terms, credentials=(APP,)) as house:
        async with await greeted(house.submissions, tls=True) as client:
            assert await client.auth("app", KEY) == "235 2.7.0 Authentication successful"
        with CredentialStore(terms.spool.path / "credentials.db") as store:
            store.remove("app")
        async with await greeted(house.submissions, tls=True) as client:
            assert await client.auth("app", KEY) == "535 5.7.8 Authentication credentials invalid"


# Whose mail is it?


async def test_a_sender_who_is_not_allowed(tmp_path: Path) -> None:
    async with bound(tmp_path, network(senders=("src.test", "one@other.test"))) as (house, client):
        for address in ("a@evil.test", "two@other.test", "a@sub.src.test"):
            said = await client.ask(f"MAIL FROM:<{address}>")
            assert said == f"550 5.7.1 You may not send from <{address}>"
        event = await house.event(3, type="rejection")
        assert facts(event) == {
            "sender": "a@evil.test",
            "credential": "network",
            "client": "127.0.0.1",
            "reply": {"code": 550, "enhanced": "5.7.1", "text": "You may not send from <a@evil.test>"},
            "permanent": True,
            "reason": "sender not allowed",
        }
        for address in ("A@SRC.test", "one@other.test", "ONE@other.TEST"):
            assert await client.ask(f"MAIL FROM:<{address}>") == "250 2.1.0 Ok"
            await client.ask("RSET")


UNREADABLE = "550 5.6.0 The From field cannot be read: write Name <user@domain>"
EVIL = "550 5.7.1 You may not send as evil@evil.test (From field)"
NONE = "550 5.6.0 The message has 0 From fields; it needs exactly one"
TWO = "550 5.6.0 The message has 2 From fields; it needs exactly one"
FROMS = {
    "somebody else's": (b"From: evil@evil.test", EVIL),
    "somebody else's, named as ours": (b'From: "a@src.test" <evil@evil.test>', EVIL),
    "somebody else's, named as ours without quotes": (b"From: a@src.test <evil@evil.test>", EVIL),
    "ours, named as somebody else's without quotes": (b"From: evil@evil.test <a@src.test>", EVIL),
    "somebody else's with our comment": (b"From: evil@evil.test (a@src.test)", EVIL),
    "somebody else's behind our comment": (b"From: (<a@src.test>) evil@evil.test", EVIL),
    "a comment within a comment": (b"From: (a(b)) evil@evil.test (c)", EVIL),
    "a comment that does not end": (b"From: a@src.test (evil@evil.test", UNREADABLE),
    "a list with one of ours": (b"From: a@src.test, evil@evil.test", EVIL),
    "a list, ours last": (b"From: evil@evil.test, a@src.test", EVIL),
    "a list, folded": (b"From: a@src.test,\r\n\tevil@evil.test", EVIL),
    "a group": (b"From: a@src.test: evil@evil.test;", UNREADABLE),
    "a group with a good name": (b"From: us: a@src.test, evil@evil.test;", EVIL),
    "an empty group": (b"From: undisclosed:;", UNREADABLE),
    "two angles": (b"From: <a@src.test> <evil@evil.test>", UNREADABLE),
    "two angles, the other way": (b"From: <evil@evil.test> <a@src.test>", UNREADABLE),
    "an angle in an angle": (b"From: <<evil@evil.test>a@src.test>", UNREADABLE),
    "a quote that does not end": (b'From: "a@src.test <evil@evil.test>', UNREADABLE),
    "a quoted angle": (b'From: "<a@src.test>" <evil@evil.test>', EVIL),
    "a quote with a backslash": (b'From: "\\"<a@src.test>" <evil@evil.test>', EVIL),
    "a route": (b"From: <@src.test:evil@evil.test>", UNREADABLE),
    "a domain that goes on behind a fold": (b"From: a@src.test\r\n .evil.test", UNREADABLE),
    "two at signs": (b"From: evil@evil.test@src.test", UNREADABLE),
    "an encoded address": (b"From: =?utf-8?q?a=40src=2Etest?= <evil@evil.test>", EVIL),
    "only an encoded address": (b"From: =?utf-8?q?a=40src=2Etest?=", UNREADABLE),
    "nothing": (b"From:", UNREADABLE),
    "no address": (b"From: The Boss", UNREADABLE),
    "an angle alone": (b"From: <", UNREADABLE),
    "a quote alone": (b'From: "', UNREADABLE),
    "a domain literal": (b"From: a@[127.0.0.1]", "550 5.7.1 You may not send as a@[127.0.0.1] (From field)"),
    "brackets without end": (b"From: " + b"(" * 5000, UNREADABLE),
    "a phrase without end": (b"From: a" + b" " * 200_000 + b"!", UNREADABLE),
    "a list without end": (b"From: " + b"a@src.test," * 20_000, UNREADABLE),
    "no letter": (b"From: a@src.test\xff", EVIL.replace("evil@evil.test", "a@src.test\\ufffd")),
    "two fields": (b"From: a@src.test\r\nFrom: evil@evil.test", TWO),
    "two fields, the other way": (b"From: evil@evil.test\r\nFrom: a@src.test", TWO),
    "two fields, one in capitals": (b"From: a@src.test\r\nFROM: evil@evil.test", TWO),
    "two fields, one with a space": (b"From: a@src.test\r\nFrom : evil@evil.test", TWO),
    "no field": (b"Subject: x", NONE),
    "a field that is part of another": (b"Subject: x\r\n From: a@src.test", NONE),
    "a field in the body": (b"Subject: x\r\n\r\nFrom: a@src.test", NONE),
}  # fmt: skip


async def test_an_author_who_is_not_allowed_or_cannot_be_told(tmp_path: Path) -> None:
    async with bound(tmp_path, network(senders=("src.test",))) as (house, client):
        for name, (field, expected) in FROMS.items():
            assert (name, await client.deliver(field + BODY)) == (name, expected)
        event = await house.event(len(FROMS), type="rejection")
        assert facts(event) == {
            "sender": "a@src.test",
            "credential": "network",
            "client": "127.0.0.1",
            "reply": {"code": 550, "enhanced": "5.7.1", "text": EVIL[10:]},
            "permanent": True,
            "reason": "message refused",
        }
        assert house.of(type="reception") == []


@pytest.mark.parametrize(
    "field",
    [
        b"From: a@src.test",
        b"FROM:a@SRC.test",
        b'From: "Evil, <evil@evil.test>" <a@src.test>',
        b"From: The Boss\r\n <a@src.test>",
        b"From: a@src.test (the boss), b@src.test",
        b"From: us: a@src.test, b@src.test;",
        b"From: J\xc3\xb6rg <a@src.test>",
        b'From: "a b"@src.test',
        b"From: a@src.test <a@src.test>",
        b"From: John Q. Public (x) <a@src.test>",
        b"From: " + b"(a)" * 2720 + b"a@src.test",
        b"From: " + b"a" * 16_000 + b" <a@src.test>",
        b"From: a\r\n @src.test",
    ],
)
async def test_an_author_who_is_allowed_though_it_looks_odd(tmp_path: Path, field: bytes) -> None:
    async with bound(tmp_path, network(senders=("src.test",))) as (_, client):
        assert (await client.deliver(field + BODY)).startswith("250 2.0.0 Ok: queued as ")


# Parameters and sizes


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("RET=FULL", "555 5.5.4 The parameter is not known: RET"),
        ("BODY=BINARYMIME", "501 5.5.4 BODY has no such value"),
        ("SIZE=ten", "501 5.5.4 SIZE has no such value"),
        ("SIZE=\u0661\u0662", "501 5.5.4 SIZE has no such value"),
        ("SIZE=\uff11\uff10\uff10", "501 5.5.4 SIZE has no such value"),
        ("SIZE=\u00b2", "501 5.5.4 SIZE has no such value"),
        ("BODY=8b\u0131tm\u0131me", "501 5.5.4 BODY has no such value"),
        ("MT-PRIORITY=\u0661", "501 5.5.4 MT-PRIORITY is a whole number from -9 to 9"),
        ("HOLDFOR=\u0661\u0662", "501 5.5.4 HOLDFOR is a number of seconds, at least 1"),
        (
            "HOLDUNTIL=2099-12-24\u206018:00:00Z",
            "501 5.5.4 HOLDUNTIL is a time like 2026-12-24T18:00:00Z",
        ),
        ("SIZE=1\u00a0BODY=7BIT", "501 5.5.4 Not a parameter: SIZE=1\\xa0BODY=7BIT"),
        ("SIZE=1\u2003BODY=7BIT", "501 5.5.4 Not a parameter: SIZE=1\\u2003BODY=7BIT"),
        ("SIZE=00000000000000000000000052428801", "552 5.3.4 The message is larger than 52428800 octets"),
        ("SIZE", "501 5.5.4 SIZE has no such value"),
        ("SMTPUTF8=yes", "501 5.5.4 SMTPUTF8 has no such value"),
        ("SIZE=1 size=2", "501 5.5.4 SIZE is given twice"),
        ("SIZE=52428801", "552 5.3.4 The message is larger than 52428800 octets"),
        ("SIZE=99999999999999999999999999", "552 5.3.4 The message is larger than 52428800 octets"),
        ("SIZE=50000000 BODY=8bitmime AUTH=<> SMTPUTF8", "250 2.1.0 Ok"),
    ],
)
async def test_a_parameter_that_we_cannot_honour(tmp_path: Path, parameters: str, expected: str) -> None:
    async with bound(tmp_path) as (_, client):
        assert await client.ask(f"MAIL FROM:<a@src.test> {parameters}") == expected


async def test_a_body_over_the_size(tmp_path: Path) -> None:
    async with bound(tmp_path, limits=Limits(message_size=2**20)) as (house, client):
        assert await client.ask("MAIL FROM:<a@src.test> SIZE=1048577") == (
            "552 5.3.4 The message is larger than 1048576 octets"
        )
        fits = CONTENT + b"x" * (2**20 - len(CONTENT) - 2) + b"\r\n"
        said = await client.deliver(b"x" + fits)
        assert said == "552 5.3.4 The message is larger than 1048576 octets"
        event = await house.event(type="rejection")
        assert facts(event) == {
            "sender": "a@src.test",
            "credential": "network",
            "client": "127.0.0.1",
            "reply": {"code": 552, "enhanced": "5.3.4", "text": said[10:]},
            "permanent": True,
            "reason": "message refused",
        }
        assert (await client.deliver(fits)).startswith("250 ")
        await house.event(type="delivery")


async def test_a_body_over_the_size_of_its_credential(tmp_path: Path) -> None:
    async with bound(tmp_path, network(message_size=100)) as (_, client):
        said = await client.deliver(CONTENT + b"x" * 100 + b"\r\n")
        assert said == "552 5.3.4 The message is larger than your 100 octets"


# Time


@pytest.mark.parametrize(
    ("said", "seconds", "phase"),
    [
        (b"", 300, "command"),
        (b"MAIL FR", 300, "command"),
        (b"MAIL FROM:<a@src.test>\r\nRCPT TO:<b@dst.test>\r\n", 300, "command"),
        (b"MAIL FROM:<a@src.test>\r\nRCPT TO:<b@dst.test>\r\nDATA\r\n" + CONTENT, 600, "message"),
    ],
    ids=["silent", "in a command", "between commands", "in data"],
)
async def test_a_client_that_stalls(tmp_path: Path, said: bytes, seconds: float, phase: str) -> None:
    clock = HandClock()
    async with bound(tmp_path, clock=clock) as (house, client):
        client.send(said)
        for _ in range(said.count(b"\r\n", 0, 60)):
            await client.reply()
        await clock.advance(seconds - 2)
        assert house.daemon.intake.connections == 1
        await clock.advance(3)
        assert await client.rest() == f"421 4.4.2 Timed out: the {phase} took too long\r\n".encode()


async def test_a_client_that_stalls_in_the_handshake(tmp_path: Path) -> None:
    clock = HandClock()
    async with daemon(tmp_path, clock) as house:
        async with await greeted(house.submission) as client:
            assert await client.ask("STARTTLS") == "220 2.0.0 Ready to start TLS"
            await clock.advance(STRANGER + 1)
            assert await client.rest() == b""  # in a handshake nothing can be said
        async with await greeted(house.submission):
            assert house.daemon.intake.connections == 1


async def test_a_client_that_stalls_in_auth(tmp_path: Path) -> None:
    clock = HandClock()
    async with daemon(tmp_path, clock) as house, await greeted(house.submissions, tls=True) as client:
        assert await client.ask("AUTH LOGIN") == "334 VXNlcm5hbWU6"
        await clock.advance(STRANGER + 1)
        assert await client.rest() == b"421 4.4.2 Timed out: the login took too long\r\n"


@pytest.mark.parametrize(("before", "minutes"), [([], 5), (ENVELOPE, 10)], ids=["command", "data"])
async def test_one_octet_a_minute(tmp_path: Path, before: list[str], minutes: int) -> None:
    clock = HandClock()
    async with bound(tmp_path, clock=clock) as (_, client):
        for line in before:
            await client.ask(line)
        for _ in range(minutes - 1):
            client.send(b"N")
            await clock.advance(60)
        await clock.advance(61)
        phase = "message" if before else "command"
        assert await client.rest() == f"421 4.4.2 Timed out: the {phase} took too long\r\n".encode()


async def test_a_session_that_never_ends(tmp_path: Path) -> None:
    clock = HandClock()
    async with bound(tmp_path, clock=clock, limits=Limits(session_timeout=600.0)) as (_, client):
        for _ in range(5):
            await clock.advance(100)
            assert await client.ask("NOOP") == "250 2.0.0 OK"
        await clock.advance(101)
        assert await client.rest() == b"421 4.4.2 Timed out: the session took too long\r\n"


# Contents


async def test_a_nul_in_the_content(tmp_path: Path) -> None:
    async with bound(tmp_path) as (_, client):
        said = await client.deliver(CONTENT + b"\0\r\n")
        assert said == "550 5.6.0 The message holds a NUL octet; encode it (RFC 5321 4.5.2)"


async def test_a_message_that_goes_round_in_circles(tmp_path: Path) -> None:
    hop = b"Received: from x by y;\r\n\tThu, 1 Jan 2026 00:00:00 +0000\r\n"
    async with bound(tmp_path) as (_, client):
        said = await client.deliver(hop * 51 + CONTENT)
        assert said == "554 5.4.6 The message has passed 51 servers: this is a loop"
        assert (await client.deliver(hop * 50 + CONTENT)).startswith("250 ")


async def test_a_bcc_is_taken_out_wherever_it_hides(tmp_path: Path) -> None:
    head = b"Bcc: one@x.test\r\nFrom: a@src.test\r\nbCC :two@x.test,\r\n three@x.test,\r\n\tfour@x.test\r\n"
    head += b"Subject: Bcc: kept\r\nResent-Bcc:\r\n five@x.test\r\nX-Bcc: kept\r\nBCC:\r\nDate: today\r\n"
    head += b"Message-ID: <x@src.test>\r\nBcc: six@x.test\r\n"
    body = b"\r\nBcc: kept@x.test\r\n"
    async with bound(tmp_path) as (house, client):
        assert (await client.deliver(head + body)).startswith("250 ")
        await house.event(type="delivery")
    received, _, rest = kept(tmp_path).partition(b"From: ")
    assert received.count(b"\r\n") == 3
    assert rest == (
        b"a@src.test\r\nSubject: Bcc: kept\r\nX-Bcc: kept\r\nDate: today\r\n"
        b"Message-ID: <x@src.test>\r\n\r\nBcc: kept@x.test\r\n"
    )


async def test_a_message_of_a_header_block_only_that_ends_in_bcc(tmp_path: Path) -> None:
    async with bound(tmp_path) as (house, client):
        assert (await client.deliver(b"From: a@src.test\r\nBcc: b@x.test\r\n")).startswith("250 ")
        await house.event(type="delivery")
    assert kept(tmp_path).endswith(b"From: a@src.test\r\n")


async def test_date_and_message_id_are_added_where_they_are_missing_only(tmp_path: Path) -> None:
    clock = HandClock(now=1_800_000_000.0)
    async with bound(tmp_path, clock=clock) as (house, client):
        said = await client.deliver()
        shown = said.removeprefix("250 2.0.0 Ok: queued as ")
        event = await house.event(type="delivery")
        assert event["message_id"] == f"<{shown}@mta.test>"
    date = "Fri, 15 Jan 2027 08:00:00 +0000"
    fields = f"{RECEIVED} with ESMTP id {shown};\r\n\t{date}\r\nDate: {date}\r\n"
    fields += f"Message-ID: <{shown}@mta.test>\r\n"
    assert kept(tmp_path) == fields.encode() + CONTENT


async def test_an_empty_date_or_message_id_is_replaced_and_not_doubled(tmp_path: Path) -> None:
    content = b"Date:\r\nX-Date: kept\r\nMessage-ID: \r\n\t\r\n" + CONTENT
    async with bound(tmp_path) as (house, client):
        await client.deliver(content)
        shown = (await house.event(type="delivery"))["message_id"]
    names = [line.partition(b":")[0] for line in kept(tmp_path).split(b"\r\n\r\n")[0].split(b"\r\n")]
    assert [name for name in names if not name.startswith(b"\t")] == [
        b"Received", b"Date", b"Message-ID", b"X-Date", b"From", b"To", b"Subject",
    ]  # fmt: skip
    assert f"Message-ID: {shown}\r\n".encode() in kept(tmp_path)


async def test_date_and_message_id_of_the_author_stay(tmp_path: Path) -> None:
    content = b"date: long ago\r\nMESSAGE-ID:\r\n <mine\r\n @src.test>\r\n" + CONTENT
    async with bound(tmp_path) as (house, client):
        await client.deliver(content)
        event = await house.event(type="delivery")
        assert event["message_id"] == "<mine @src.test>"
    assert re.fullmatch(rb"Received: [^\r]+\r\n\t[^\r]+\r\n\t[^\r]+\r\n" + re.escape(content), kept(tmp_path))


async def test_the_clients_address_and_name_go_no_further(tmp_path: Path) -> None:
    async with logged_in(tmp_path) as (house, client):
        assert (await client.deliver()).startswith("250 ")
        await house.event(type="delivery")
    content = kept(tmp_path)
    assert content.startswith(f"{RECEIVED} with ESMTPSA id ".encode())
    for secret in (b"127.0.0.1", b"client.test", b"app", b"b@dst.test;"):
        assert secret not in content


@pytest.mark.parametrize(
    ("greeting", "mail", "protocol"),
    [
        ("HELO", "", "SMTP"),
        ("EHLO", "", "ESMTP"),
        ("EHLO", " SMTPUTF8", "UTF8SMTP"),  # RFC 6531 4.3: not UTF8ESMTP
    ],
)
async def test_received_names_a_protocol_that_is_registered(
    tmp_path: Path, greeting: str, mail: str, protocol: str
) -> None:
    async with bound(tmp_path) as (house, client):
        await client.ask(f"{greeting} client.test")
        await client.deliver(mail=mail)
        await house.event(type="delivery")
    assert kept(tmp_path).startswith(f"{RECEIVED} with {protocol} id ".encode())


async def test_eight_bits_arrive_as_they_are(tmp_path: Path) -> None:
    content = CONTENT + bytes(range(128, 256)) + b"\r\n"
    async with bound(tmp_path) as (house, client):
        assert (await client.deliver(content, mail=" BODY=8BITMIME")).startswith("250 ")
        await house.event(type="delivery")
    assert kept(tmp_path).endswith(content)


async def test_addresses_beyond_ascii(tmp_path: Path) -> None:
    sender, recipient = "jörg@src.test", "δοκιμή@παράδειγμα.test"
    async with bound(tmp_path) as (house, client):
        expected = "553 5.6.7 The address needs the SMTPUTF8 parameter"
        assert await client.ask(f"MAIL FROM:<{sender}>") == expected
        assert await client.ask(ENVELOPE[0]) == "250 2.1.0 Ok"
        assert await client.ask(f"RCPT TO:<{recipient}>") == expected + " of MAIL"
        await client.ask("RSET")
        content = f"From: {sender}\r\nSubject: grüße\r\n\r\n".encode()
        said = await client.deliver(content, recipient, sender=sender, mail=" SMTPUTF8 BODY=8BITMIME")
        assert said.startswith("250 ")
        event = await house.event(type="delivery")
        assert (event["sender"], event["recipient"]) == (sender, recipient)
    assert kept(tmp_path).endswith(content)


async def test_a_sender_beyond_ascii_who_is_not_allowed_is_told_in_ascii(tmp_path: Path) -> None:
    async with bound(tmp_path, network(senders=("src.test",))) as (_, client):
        said = await client.ask("MAIL FROM:<j\u00f6rg@evil.test> SMTPUTF8")
        assert said == "550 5.7.1 You may not send from <j\\xf6rg@evil.test>"


# Limits


async def test_too_many_recipients(tmp_path: Path) -> None:
    async with bound(tmp_path, limits=Limits(recipients=3)) as (house, client):
        assert await client.ask(ENVELOPE[0]) == "250 2.1.0 Ok"
        for number in range(3):
            assert await client.ask(f"RCPT TO:<b{number}@dst.test>") == "250 2.1.5 Ok"
        for _ in range(2):
            said = await client.ask("RCPT TO:<c@dst.test>")
            assert said == "452 4.5.3 Too many recipients: at most 3 a message"
        assert (await client.data(CONTENT)).startswith("250 ")
        await house.event(3, type="delivery")
        assert house.of(recipient="c@dst.test") == []


async def test_far_too_many_recipients_lose_nothing_for_those_who_fit(tmp_path: Path) -> None:
    """Each one over the limit hears 452: no mistake to be thrown out for, and one event for all."""
    async with bound(tmp_path, limits=Limits(recipients=1)) as (house, client):
        client.say(ENVELOPE[0], *(f"RCPT TO:<b{number}@dst.test>" for number in range(101)))
        said = await client.replies(102)
        assert said[1:] == ["250 2.1.5 Ok", *["452 4.5.3 Too many recipients: at most 1 a message"] * 100]
        assert (await client.data(CONTENT)).startswith("250 ")
        await house.event(type="delivery")
        (event,) = house.of(type="rejection")
        text = "Too many recipients: at most 1 a message"
        assert facts(event) == {
            "sender": "a@src.test",
            "credential": "network",
            "client": "127.0.0.1",
            "reply": {"code": 452, "enhanced": "4.5.3", "text": text},
            "permanent": False,
            "reason": text,
        }
        counted = house.daemon.metrics.registry.get_sample_value("mta_rejections_total", {"code": "4yz"})
        assert counted == 100


async def test_a_credential_may_not_have_more_recipients_than_the_machine(tmp_path: Path) -> None:
    async with bound(tmp_path, network(recipients=9), limits=Limits(recipients=1)) as (_, client):
        said = await client.deliver(CONTENT, "b@dst.test", "c@dst.test")
        assert said == "452 4.5.3 Too many recipients: at most 1 a message"


async def test_every_refused_command_is_counted(tmp_path: Path) -> None:
    async with bound(tmp_path) as (house, client):
        for line in ("XYZZY", "MAIL FROM:<a", "MAIL FROM:<a@src.test> X=Y", "RCPT TO:<b@dst.test>"):
            assert (await client.ask(line))[0] == "5"
        counted = house.daemon.metrics.registry.get_sample_value("mta_rejections_total", {"code": "5yz"})
        assert counted == 4


async def test_too_many_recipients_for_the_credential(tmp_path: Path) -> None:
    async with bound(tmp_path, network(recipients=1)) as (_, client):
        said = await client.deliver(CONTENT, "b@dst.test", "c@dst.test")
        assert said == "452 4.5.3 Too many recipients: at most 1 a message"


async def test_a_rate_that_is_used_up_and_comes_back(tmp_path: Path) -> None:
    clock = HandClock()
    async with bound(tmp_path, network(rate=Rate(2, 60.0)), clock) as (house, client):
        assert (await client.deliver(CONTENT, "b@dst.test", "c@dst.test")).startswith("250 ")
        await client.ask(ENVELOPE[0])
        expected = "450 4.7.1 Your rate is used up; try again in {} seconds"
        assert await client.ask(ENVELOPE[1]) == expected.format(30)
        await clock.advance(10.5)
        assert await client.ask(ENVELOPE[1]) == expected.format(20)
        async with await greeted(house.network) as other:  # the same credential on another connection
            await other.ask(ENVELOPE[0])
            assert await other.ask(ENVELOPE[1]) == expected.format(20)
        await clock.advance(19.5)
        assert await client.ask(ENVELOPE[1]) == "250 2.1.5 Ok"
        assert await client.ask("RCPT TO:<c@dst.test>") == expected.format(30)
        assert (await client.data(CONTENT)).startswith("250 ")


@pytest.mark.parametrize("limits", [Limits(connections=2), Limits(connections_per_client=2)])
async def test_too_many_connections(tmp_path: Path, limits: Limits) -> None:
    async with bound(tmp_path, limits=limits) as (house, client):
        second = await greeted(house.network)
        async with await Client.connect(house.network) as third:
            expected = b"421 4.7.0 Too many connections; close some and try again in 5 seconds\r\n"
            assert await third.rest() == expected
        second.say("QUIT")
        assert await second.rest() == b"221 2.0.0 Bye\r\n"
        assert await client.ask("NOOP") == "250 2.0.0 OK"
        async with await greeted(house.network) as fourth:
            assert await fourth.ask("NOOP") == "250 2.0.0 OK"


# The disk


def rows(directory: Path) -> list[int]:
    """How much of messages there is on disk."""
    with sqlite3.connect(directory / "spool" / "queue.db") as connection:
        counts = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("message", "body", "recipient")
        ]
    connection.close()
    return counts


def contents(directory: Path) -> set[Path]:
    """Files in the spool that are not always there."""
    known = ("queue.db", "credentials.db", "store.db", "identity.secret", "lock", "control", "events.jsonl")
    files = [file for file in (directory / "spool").rglob("*") if file.is_file()]
    return {file for file in files if not file.name.startswith(known)}


@pytest.mark.parametrize("size", [30_000, 900_000], ids=["body in the database", "body in a file"])
async def test_a_disk_that_is_full_and_gets_room_again(tmp_path: Path, size: int) -> None:
    clock = HandClock()
    content = CONTENT + b"x" * size + b"\r\n"
    many = [f"{number}-{'x' * 50}@dst.test" for number in range(200)]
    async with bound(tmp_path, clock=clock) as (house, client):
        writer = house.daemon.spool._writer
        (pages,) = await (await writer.execute("PRAGMA page_count")).fetchone()
        await writer.execute(f"PRAGMA max_page_count = {pages}")
        expected = "452 4.3.1 The spool cannot take the message now; it was not kept, please try again"
        assert await client.deliver(content, *many) == expected
        assert rows(tmp_path) == [0, 0, 0]
        assert contents(tmp_path) == set()
        assert house.of(type="reception") == []
        assert house.daemon._not_ready() == [
            "the spool cannot write: database or disk is full; free some space on its disk"
        ]
        await writer.execute("PRAGMA max_page_count = 1000000")
        await clock.advance(1)
        said = await client.deliver(content, *many)
        assert said.startswith("250 2.0.0 Ok: queued as ")
        await house.event(len(many), type="delivery")
        assert house.daemon._not_ready() == []
    arrived = [file.read_bytes() for file in (tmp_path / "sandbox").glob("*.eml")]
    assert sum(each.count(b"Delivered-To: ") for each in arrived) == len(many)
    assert all(each.endswith(content) for each in arrived)


async def test_the_250_names_the_queue_id_of_every_event(tmp_path: Path) -> None:
    clock = HandClock(now=1_800_000_000.0)
    async with bound(tmp_path, clock=clock) as (house, client):
        said = await client.deliver(CONTENT, "b@dst.test", "c@dst.test")
        shown = said.removeprefix("250 2.0.0 Ok: queued as ")
        assert queueid.created(queueid.parse(shown)) == 1_800_000_000.0
        await house.event(2, type="delivery", queue_id=shown)
        assert {event["queue_id"] for event in house.events if event["type"] != "check"} == {shown}
        first = house.of(type="reception")[0]
        assert facts(first) == {
            "queue_id": shown,
            "recipient": "b@dst.test",
            "sender": "a@src.test",
            "tenant": "acme",
            "stream": "transactional",
            "credential": "network",
            "client": "127.0.0.1",
            "message_id": f"<{shown}@mta.test>",
            "size": first["size"],
        }
        assert first["size"] > len(CONTENT)


async def test_a_credential_whose_stream_was_taken_out_of_the_settings(tmp_path: Path) -> None:
    lost = Credential("network", "acme", "gone", networks=("127.0.0.0/8",), kind="network")
    async with bound(tmp_path, lost) as (_, client):
        expected = "451 4.3.5 The stream gone of your credential is not configured"
        assert await client.deliver() == expected
        assert await client.ask("NOOP") == "250 2.0.0 OK"
