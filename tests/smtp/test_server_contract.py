"""What the server's end promises beyond its base class, one test for each override.

Between: raw clients and `mta.smtp.parser`, `mta.smtp.server` over real sockets.
"""

from __future__ import annotations

import asyncio
import base64
import re
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

import aiosmtplib
import pytest
from aiosmtpd.smtp import SMTP, Session
from aiosmtplib.protocol import SMTPProtocol

from mta.config.settings import Sandbox
from mta.core.credential import Credential
from mta.smtp.connection import LINGER
from mta.smtp.parser import CROWDED, MAX_AUTH, MAX_COMMAND, MAX_PENDING, TURN
from tests.fakes.client import CONTENT, ENVELOPE, Client, greeted, plain, stuffed
from tests.fakes.clock import HandClock
from tests.fakes.house import KEY, NETWORK, House, running, settings
from tests.fakes.probe import OK, Desk, probing

APP = Credential("app", "acme", "transactional", kind="key")
BUG = "451 4.3.0 An error of ours, not of yours; please try again"
KNOWN = "AUTH DATA EHLO HELO HELP MAIL QUIT RCPT STARTTLS VRFY NOOP RSET"
CHUNK = 256 * 1024  # octets that a loop reads at once
ENVELOPE_REPLIES = ["250 2.1.0 Ok", "250 2.1.5 Ok", "354 End with <CR><LF>.<CR><LF>"]


@asynccontextmanager
async def housed(directory: Path, **terms: object):
    terms = {"sandbox": Sandbox(directory / "sandbox"), **terms}
    async with running(settings(directory, **terms), credentials=(NETWORK, APP)) as house:
        yield house


# What is ours must still be theirs


OVERRIDDEN = {
    SMTP: "connection_made connection_lost eof_received push _set_rset_state",
    asyncio.StreamReaderProtocol: "data_received pause_writing resume_writing",
    SMTPProtocol: "data_received connection_lost pause_writing resume_writing read_response "
    "_read_response_from_buffer",
    aiosmtplib.SMTP: "_create_connection _on_connection_lost connect ehlo helo starttls login quit "
    "get_transport_info supports_extension",
}


@pytest.mark.parametrize(("base", "names"), OVERRIDDEN.items())
def test_a_base_class_that_was_renamed_under_us(base: type, names: str) -> None:
    assert [name for name in names.split() if not callable(getattr(base, name, None))] == []


def test_a_base_class_that_lost_what_we_lean_on() -> None:
    for name in ("smtp_AUTH", "smtp_NOOP", "smtp_RSET", "challenge_auth"):
        assert asyncio.iscoroutinefunction(getattr(SMTP, name))
    assert {"host_name", "extended_smtp", "authenticated", "peer"} <= vars(Session(None)).keys()
    assert version("aiosmtpd") == "1.4.6"


async def test_a_base_class_whose_limits_are_shared_by_all_connections(tmp_path: Path) -> None:
    before = dict(vars(SMTP))
    async with housed(tmp_path) as house, await greeted(house.submission) as client:
        await client.ehlo()
        assert dict(SMTP.command_size_limits) == {}
    assert dict(vars(SMTP)) == before


# Our bugs


@pytest.mark.parametrize(
    ("point", "before", "line"),
    [
        ("mail", [], "MAIL FROM:<a@src.test>"),
        ("rcpt", ENVELOPE[:1], "RCPT TO:<b@dst.test>"),
        ("data", ENVELOPE[:2], "DATA"),
        ("message", ENVELOPE, ".\r\nRSET"),
    ],
)
async def test_a_bug_of_ours_is_temporary_and_tells_nothing(point: str, before: list[str], line: str) -> None:
    desk = Desk()
    desk.faults[point] = RuntimeError("secret")
    async with probing(desk) as listener, await greeted(listener.port) as client:
        for each in before:
            await client.ask(each)
        assert await client.ask(line) == BUG
        desk.faults.clear()
        assert await client.ask("RSET") == "250 2.0.0 OK"
        if point == "message":
            await client.reply()
        assert await client.deliver() == str(OK)
    assert [str(bug) for bug in desk.bugs] == ["secret"]


async def test_a_bug_of_ours_in_auth_is_temporary_and_tells_nothing() -> None:
    desk = Desk()
    desk.faults["auth"] = RuntimeError("secret")
    async with probing(desk) as listener, await greeted(listener.port) as client:
        await client.ask("STARTTLS")
        await client.starttls()
        await client.ehlo()
        assert await client.auth("app", "x") == BUG
        assert await client.ask("NOOP") == "250 2.0.0 OK"


async def test_a_bug_of_ours_at_the_connection_sends_the_client_away() -> None:
    desk = Desk()
    desk.faults["connect"] = RuntimeError("secret")
    async with probing(desk) as listener:
        async with await Client.connect(listener.port) as client:
            assert await client.rest() == b"421 4.3.0 An error of ours, not of yours; please try again\r\n"
        await desk.until(gone=1)
        assert not listener.connections
        assert not listener.connections


# What is said


def capabilities(*more: str) -> set[str]:
    return {"PIPELINING", "SIZE 52428800", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", *more}


async def test_ehlo_offers_auth_only_under_tls(tmp_path: Path) -> None:
    async with housed(tmp_path) as house:
        async with await greeted(house.submission) as client:
            assert set(await client.ehlo()) == capabilities("STARTTLS")
            assert await client.ask("STARTTLS") == "220 2.0.0 Ready to start TLS"
            await client.starttls()
            assert set(await client.ehlo()) == capabilities("AUTH PLAIN LOGIN")
        async with await greeted(house.submissions, tls=True) as client:
            assert set(await client.ehlo()) == capabilities("AUTH PLAIN LOGIN")
            assert await client.ask("STARTTLS") == "503 5.5.1 TLS is active"
        async with await greeted(house.network) as client:
            assert set(await client.ehlo()) == capabilities("MT-PRIORITY")
            assert await client.ask("STARTTLS") == "502 5.5.1 TLS is not offered here"
            assert await client.ask("AUTH PLAIN AA==") == "502 5.5.1 AUTH is not offered here"


WALK = [
    ("MAIL FROM:<a@src.test>", "503 5.5.1 Send EHLO first"),
    ("AUTH PLAIN", "502 5.5.1 AUTH is not offered here"),
    ("EHLO", "501 5.5.4 Syntax: EHLO name"),
    ("EHLO two names", "501 5.5.4 Syntax: EHLO name"),
    ("EHLO " + 256 * "n", "501 5.5.4 Syntax: EHLO name"),
    ("EHLO cl\x01ient", "501 5.5.4 Syntax: EHLO name"),
    ("HELO client\x0b", "501 5.5.4 Syntax: HELO name"),
    ("EHLO m\u00fcller.test", "501 5.5.4 Syntax: EHLO name"),
    ("HELO", "501 5.5.4 Syntax: HELO name"),
    ("HELO client.test", "250 mta.test"),
    ("ehlo client.test", None),
    ("NOOP", "250 2.0.0 OK"),
    ("nOOp and more", "250 2.0.0 OK"),
    ("RSET", "250 2.0.0 OK"),
    ("RSET now", "501 5.5.4 Syntax: RSET"),
    ("VRFY a@src.test", "252 2.5.0 Send mail to find out (RFC 5321 3.5.3)"),
    ("VRFY", "501 5.5.4 Syntax: VRFY address"),
    ("HELP DATA", f"214 2.0.0 Commands (RFC 5321): {KNOWN}"),
    ("EXPN list", "500 5.5.1 The command is not known: EXPN"),
    ("", "500 5.5.1 The command is not known: "),
    ("GETS x", "500 5.5.1 The command is not known: GETS"),
    ("RCPT TO:<b@dst.test>", "503 5.5.1 Send MAIL first"),
    ("DATA", "503 5.5.1 Send MAIL first"),
    ("MAIL", "501 5.5.4 Syntax: MAIL FROM:<address>"),
    ("MAIL FROM:<a@src.test>", "250 2.1.0 Ok"),
    ("MAIL FROM:<a@src.test>", "503 5.5.1 A transaction is open; send RSET to give it up"),
    ("DATA", "554 5.5.1 No valid recipients"),
    ("RCPT TO:<>", "501 5.1.3 A recipient cannot be empty"),
    ("RCPT TO:<b@dst.test> NOTIFY=NEVER", "555 5.5.4 The parameter is not known: NOTIFY"),
    ("RCPT TO:<b@dst.test>", "250 2.1.5 Ok"),
    ("DATA now", "501 5.5.4 Syntax: DATA"),
]
BARE = re.compile(r"(?:250 mta\.test|354 .*|[245]\d\d [245]\.\d\.\d{1,2} .*)")  # RFC 2034: not EHLO, not 3yz


async def test_every_reply_has_an_enhanced_code(tmp_path: Path) -> None:
    async with housed(tmp_path) as house, await greeted(house.network, ehlo=False) as client:
        for number, (line, expected) in enumerate(WALK):
            if number % 10 == 9:  # not to be taken for a nuisance
                house.daemon.listeners[2].connections.copy().pop()._errors = 0
            said = await client.ask(line)
            if expected is not None:
                assert (line, said) == (line, expected)
                assert BARE.fullmatch(said)
        assert await client.ask("DATA") == "354 End with <CR><LF>.<CR><LF>"
        client.send(b".\r\n")
        said = str(await client.reply())
        assert said == "550 5.6.0 The message has 0 From fields; it needs exactly one"
        assert await client.ask("QUIT") == "221 2.0.0 Bye"
        assert await client.rest() == b""


@pytest.mark.parametrize(
    "line",
    [
        b"\x1b[2J\x07\xff\xfe",
        b"VRFY " + b"(" * 2000,
        b"VRFY <",
        b'VRFY "',
        b"HELP \xff",
        b"MAIL FROM:<" + b"@a" * 1000 + b">",
        b"MAIL FROM:<" + b"@" * 2000 + b">",
        b"MAIL FROM:<a@src.test> " + b"X" * 1990,
        b"MAIL FROM:<a@src.test> " + b"A" * 900 + b"=1 " + b"A" * 900 + b"=2",
        b"MAIL FROM:<a@src.test> \xff\xfe=",
        b"MAIL FROM:<a@" + "\u0378".encode() * 300 + b">",
        b"MAIL FROM:<a@src.test\0>",
        b"RCPT TO:<\xff@dst.test>",
    ],
)
async def test_a_hostile_line_is_answered_in_short_ascii_and_is_no_bug(line: bytes) -> None:
    desk = Desk()
    async with probing(desk) as listener, await greeted(listener.port) as client:
        client.send(line, b"\r\n")
        said = str(await client.reply())
        assert said.isascii()
        assert said.isprintable()
        assert len(said) + 2 <= 512  # RFC 5321 4.5.3.1.5
        assert await client.ask("NOOP") == "250 2.0.0 OK"
    assert desk.bugs == []


async def test_the_twenty_first_error_closes() -> None:
    desk = Desk()
    async with probing(desk) as listener, await greeted(listener.port) as client:
        for _ in range(20):
            assert await client.ask("XYZZY") == "500 5.5.1 The command is not known: XYZZY"
        assert await client.ask("XYZZY") == "500 5.5.1 The command is not known: XYZZY"
        assert await client.rest() == b"421 4.7.0 Too many errors\r\n"


async def test_the_twenty_first_error_closes_also_where_the_base_replies() -> None:
    desk = Desk()
    async with probing(desk) as listener, await greeted(listener.port) as client:
        client.say(*["RSET now"] * 30)
        assert await client.replies(21) == ["501 5.5.4 Syntax: RSET"] * 21
        assert await client.rest() == b"421 4.7.0 Too many errors\r\n"


async def test_a_line_that_no_one_can_misread_is_no_error() -> None:
    """HELP is no way to be thrown out."""
    async with probing(Desk()) as listener, await greeted(listener.port) as client:
        client.say(*["HELP"] * 30)
        assert await client.replies(30) == [f"214 2.0.0 Commands (RFC 5321): {KNOWN}"] * 30


@pytest.mark.parametrize("split", range(1, 9))
async def test_a_message_that_is_too_large_ends_wherever_the_wire_is_cut(split: int) -> None:
    """Of its octets only the last few are held: what they begin with is not the beginning of a line."""
    desk = Desk()
    tail = b"x.\r\nABC\r\n.\r\n"
    async with probing(desk, message_size=100) as listener, await greeted(listener.port) as client:
        for line in ENVELOPE:
            await client.ask(line)
        octets = desk.octets
        for part in (b"x" * 200, tail[:split], tail[split:]):
            client.send(part)
            octets += len(part)
            await desk.until(octets=octets)
        assert str(await client.reply()) == "552 5.3.4 The message is larger than 100 octets"
        assert await client.ask("NOOP") == "250 2.0.0 OK"
    assert desk.contents == []


async def test_a_message_that_finds_no_memory_at_its_first_octets_ends_too() -> None:
    desk = Desk()
    async with probing(desk, memory=0) as listener, await greeted(listener.port) as client:
        for line in ENVELOPE:
            await client.ask(line)
        octets = desk.octets
        for part in (b"a\r\n", b".", b"\r", b"\n"):
            client.send(part)
            octets += len(part)
            await desk.until(octets=octets)
        assert str(await client.reply()) == str(CROWDED)
        assert await client.ask("NOOP") == "250 2.0.0 OK"


async def test_a_command_that_is_too_long_and_one_that_does_not_end() -> None:
    desk = Desk()
    async with probing(desk) as listener:
        async with await greeted(listener.port) as client:
            assert await client.ask("NOOP " + "x" * (MAX_COMMAND - 7)) == "250 2.0.0 OK"
            said = await client.ask("NOOP " + "x" * (MAX_COMMAND - 6))
            assert said == "500 5.5.6 The command line is too long"
        async with await greeted(listener.port) as client:
            client.send(b"x" * (MAX_AUTH + 1))
            assert await client.rest() == b"421 4.5.2 The command line does not end\r\n"


# AUTH


@asynccontextmanager
async def secured(house: House):
    async with await greeted(house.submissions, tls=True) as client:
        yield client


async def test_auth_mechanisms_are_found_in_any_case(tmp_path: Path) -> None:
    async with housed(tmp_path) as house:
        for name in ("PLAIN", "plain", "pLaIn"):
            async with secured(house) as client:
                said = await client.ask(f"auth {name} {plain('app', KEY)}")
                assert said == "235 2.7.0 Authentication successful"
                assert await client.auth("app", KEY) == "503 5.5.1 Already authenticated"


async def test_auth_by_dialogue(tmp_path: Path) -> None:
    async with housed(tmp_path) as house:
        async with secured(house) as client:
            assert await client.ask("AUTH LOGIN") == "334 VXNlcm5hbWU6"
            assert await client.ask(base64.b64encode(b"app").decode()) == "334 UGFzc3dvcmQ6"
            said = await client.ask(base64.b64encode(KEY.encode()).decode())
            assert said == "235 2.7.0 Authentication successful"
        async with secured(house) as client:
            assert await client.ask("AUTH PLAIN") == "334 "
            assert await client.ask(plain("app", KEY)) == "235 2.7.0 Authentication successful"
        async with secured(house) as client:  # all of it before the first challenge
            client.say("AUTH LOGIN YXBw", base64.b64encode(KEY.encode()).decode(), "NOOP")
            assert await client.replies(3) == [
                "334 UGFzc3dvcmQ6", "235 2.7.0 Authentication successful", "250 2.0.0 OK",
            ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("AUTH", "501 5.5.4 Syntax: AUTH mechanism [initial-response]"),
        ("AUTH PLAIN a b", "501 5.5.4 Syntax: AUTH mechanism [initial-response]"),
        ("AUTH CRAM-MD5", "504 5.5.4 The mechanism is not known; use PLAIN or LOGIN"),
        ("AUTH PLAIN =", "501 5.5.2 PLAIN is authorisation, login and password, parted by NUL"),
        ("AUTH PLAIN %%%", "501 5.5.2 The response is not base64"),
        ("AUTH PLAIN\r\n%%%", "501 5.5.2 Can't decode base64"),
        ("AUTH PLAIN\r\n*", "501 5.7.0 Auth aborted"),
        ("AUTH LOGIN\r\n*", "501 5.7.0 Auth aborted"),
        ("AUTH LOGIN YXBw\r\n*", "501 5.7.0 Auth aborted"),
    ],
)
async def test_auth_that_is_not_well_formed(tmp_path: Path, line: str, expected: str) -> None:
    async with housed(tmp_path) as house, secured(house) as client:
        client.say(line)
        if "\r\n" in line:
            assert (await client.reply()).code == 334
        assert str(await client.reply()) == expected
        assert await client.auth("app", KEY) == "235 2.7.0 Authentication successful"


def long_response(octets: int) -> str:
    """A PLAIN response of so many base64 letters: a long password, and a wrong one."""
    return base64.b64encode(b"\0app\0".ljust(octets // 4 * 3, b"z")).decode()


async def test_auth_after_helo_says_what_is_missing(tmp_path: Path) -> None:
    async with housed(tmp_path) as house, secured(house) as client:
        assert await client.ask("HELO client.test") == "250 mta.test"
        assert await client.ask(f"AUTH PLAIN {plain('app', KEY)}") == "503 5.5.1 Send EHLO first"


async def test_a_login_that_would_act_as_somebody_else_is_refused(tmp_path: Path) -> None:
    async with housed(tmp_path) as house, secured(house) as client:
        response = base64.b64encode(f"root\0app\0{KEY}".encode()).decode()
        expected = "535 5.7.8 You may act as nobody else: leave the identity empty"
        assert await client.ask(f"AUTH PLAIN {response}") == expected
        event = await house.event(type="rejection", credential="app")
        assert event["reason"] == "authentication: other"
        assert (await client.ask("MAIL FROM:<a@src.test>")).startswith("530 ")
        itself = base64.b64encode(f"app\0app\0{KEY}".encode()).decode()
        assert await client.ask(f"AUTH PLAIN {itself}") == "235 2.7.0 Authentication successful"


async def test_auth_takes_12288_octets_in_any_slices(tmp_path: Path) -> None:
    response = long_response(12288)
    assert len(response) == 12288
    async with housed(tmp_path) as house:
        async with secured(house) as client:
            assert (await client.ask(f"AUTH PLAIN {response}")).startswith("535 5.7.8 ")
        async with secured(house) as client:
            await client.ask("AUTH PLAIN")
            assert (await client.ask(response)).startswith("535 5.7.8 ")
        async with secured(house) as client:
            said = await client.ask(f"AUTH PLAIN {long_response(12292 + 12)}")
            assert said == "500 5.5.6 The command line is too long"
        async with secured(house) as client:
            await client.ask("AUTH PLAIN")
            client.say(long_response(12292 + 12))
            assert await client.rest() == b"500 5.5.6 The AUTH exchange line is too long\r\n"


async def test_an_auth_line_that_comes_in_slices() -> None:
    desk = Desk()
    line = f"AUTH PLAIN {long_response(12288)}\r\n".encode()
    async with probing(desk) as listener, await greeted(listener.port) as client:
        await client.ask("STARTTLS")
        await client.starttls()
        await client.ehlo()
        octets = desk.octets
        for start in range(0, len(line), 4000):
            client.send(line[start : start + 4000])
            await desk.until(octets=octets + min(start + 4000, len(line)))
        assert str(await client.reply()) == "535 5.7.8 No"


# STARTTLS


async def test_what_was_said_in_the_clear_is_forgotten(tmp_path: Path) -> None:
    async with housed(tmp_path) as house, await greeted(house.submission) as client:
        await client.ask("STARTTLS")
        await client.starttls()
        assert await client.ask("MAIL FROM:<a@src.test>") == "503 5.5.1 Send EHLO first"
        assert await client.ask(f"AUTH PLAIN {plain('app', KEY)}") == "503 5.5.1 Send EHLO first"
        await client.ehlo()
        assert await client.ask("MAIL FROM:<a@src.test>") == "530 5.7.0 Authentication required"
        assert await client.auth("app", KEY) == "235 2.7.0 Authentication successful"
        assert (await client.deliver()).startswith("250 2.0.0 Ok: queued as ")


async def test_octets_pipelined_behind_starttls_are_refused(tmp_path: Path) -> None:
    async with housed(tmp_path) as house, await greeted(house.submission) as client:
        client.say("STARTTLS", "EHLO injected.test")
        expected = b"554 5.5.1 Nothing may follow STARTTLS before the handshake\r\n"
        assert await client.rest() == expected


async def test_starttls_with_an_argument(tmp_path: Path) -> None:
    async with housed(tmp_path) as house, await greeted(house.submission) as client:
        assert await client.ask("STARTTLS now") == "501 5.5.4 Syntax: STARTTLS"


@pytest.mark.parametrize("how", ["garbage", "reset", "closed", "silence"])
async def test_a_handshake_that_fails_leaves_no_connection_behind(how: str) -> None:
    desk, clock = Desk(), HandClock()
    async with probing(desk, clock) as listener:
        async with await greeted(listener.port) as client:
            assert await client.ask("STARTTLS") == "220 2.0.0 Ready to start TLS"
            if how == "garbage":
                client.say("EHLO in the clear")
            elif how == "reset":
                client.send(b"\x16\x03\x01\x02\x00\x01")  # the head of a ClientHello
                client.reset()
            elif how == "closed":
                client.writer.close()
            else:
                await clock.advance(300 + LINGER + 2)
            await desk.until(gone=1)
        assert desk.gone == 1
        assert not listener.connections
        assert not listener.connections


# Clients in a hurry, and clients without


async def test_a_whole_session_in_one_write(tmp_path: Path) -> None:
    async with housed(tmp_path) as house, await Client.connect(house.network) as client:
        message = [*ENVELOPE, stuffed(CONTENT).decode()[:-2]]
        client.say("EHLO client.test", *message, *message, "QUIT")
        assert (await client.reply()).code == 220
        assert (await client.reply()).code == 250
        for _ in range(2):
            assert await client.replies(3) == ENVELOPE_REPLIES
            assert str(await client.reply()).startswith("250 2.0.0 Ok: queued as ")
        assert await client.rest() == b"221 2.0.0 Bye\r\n"
        await house.event(2, type="delivery")


async def test_many_refused_messages_in_one_write_do_not_exhaust_the_stack(tmp_path: Path) -> None:
    refused = "\r\n".join([*ENVELOPE, "."])
    async with housed(tmp_path) as house, await greeted(house.network) as client:
        client.say(*[refused] * 1000, "NOOP")
        for _ in range(1000):
            assert await client.replies(4) == [
                *ENVELOPE_REPLIES,
                "550 5.6.0 The message has 0 From fields; it needs exactly one",
            ]
        assert str(await client.reply()) == "250 2.0.0 OK"
        assert await house.event(1000, type="rejection")


async def test_a_client_that_sends_octet_by_octet() -> None:
    desk = Desk()
    session = b"".join(line.encode() + b"\r\n" for line in ["EHLO c.test", *ENVELOPE])
    session += stuffed(b".dot\r\n..\r\n.\r\n") + b"QUIT\r\n"
    async with probing(desk) as listener, await Client.connect(listener.port) as client:
        for number, octet in enumerate(session, 1):
            client.send(bytes([octet]))
            await desk.until(octets=number)
        said = await client.replies(7)
        assert said[2:] == [*ENVELOPE_REPLIES, str(OK), "221 2.0.0 Bye"]
    assert desk.contents == [b".dot\r\n..\r\n.\r\n"]


async def test_a_client_that_shuts_its_side_after_the_dot_still_gets_its_answer(tmp_path: Path) -> None:
    async with housed(tmp_path) as house, await greeted(house.network) as client:
        client.say(*ENVELOPE)
        assert await client.replies(3) == ENVELOPE_REPLIES
        client.send(stuffed(CONTENT))
        client.finish()
        answer, end, rest = (await client.rest()).partition(b"\r\n")
        assert answer.startswith(b"250 2.0.0 Ok: queued as ")
        assert (end, rest) == (b"\r\n", b"")
        await house.event(type="delivery", recipient="b@dst.test")


async def test_a_client_that_shuts_its_side_while_the_disk_works_is_let_go_after_its_answer() -> None:
    desk = Desk()
    desk.hold = True
    async with probing(desk) as listener, await greeted(listener.port) as client:
        client.say(*ENVELOPE)
        await client.replies(3)
        client.send(stuffed(CONTENT))
        await desk.until(waiting=1)
        client.finish()
        await desk.until(ended=1)
        desk.waiting[0].answer(OK)
        assert await client.rest() == b"250 2.0.0 Ok\r\n"
        await desk.until(gone=1)
        assert not listener.connections


async def test_a_client_that_vanishes_after_the_dot_has_its_message_delivered(tmp_path: Path) -> None:
    async with housed(tmp_path) as house:
        client = await greeted(house.network)
        client.say(*ENVELOPE)
        assert await client.replies(3) == ENVELOPE_REPLIES
        client.send(stuffed(CONTENT))
        client.writer.close()
        await client.gone()
        received = await house.event(type="reception")
        delivered = await house.event(type="delivery")
        assert delivered["queue_id"] == received["queue_id"]


async def test_a_client_that_vanishes_while_the_disk_works_harms_nobody() -> None:
    desk = Desk()
    desk.hold = True
    async with probing(desk) as listener:
        client = await greeted(listener.port)
        client.say(*ENVELOPE)
        await client.replies(3)
        client.send(stuffed(CONTENT))
        await desk.until(waiting=1)
        client.reset()
        await desk.until(gone=1)
        desk.waiting[0].answer(OK)
        assert not listener.connections
    assert desk.bugs == []


async def test_a_client_that_vanishes_in_data_leaves_nothing(tmp_path: Path) -> None:
    async with housed(tmp_path) as house:
        async with await greeted(house.network) as client:
            client.say(*ENVELOPE)
            assert await client.replies(3) == ENVELOPE_REPLIES
            client.send(CONTENT)
            client.finish()
            assert await client.rest() == b""
        assert (await house.send("c@dst.test")).startswith("250 ")
        await house.event(type="delivery", recipient="c@dst.test")
        assert house.of(recipient="b@dst.test") == []


FLOOD = b"EHLO x\r\n" * 4000  # 8 octets make 130


async def test_a_client_that_does_not_read_its_replies_is_not_served_on_and_then_dropped() -> None:
    desk, clock = Desk(), HandClock()
    async with probing(desk, clock, buffer=4096) as listener:
        async with await Client.connect(listener.port, buffer=4096) as client:
            client.send(FLOOD)
            await desk.until(choked=1)
            (connection,) = listener.connections
            assert not connection.transport.is_reading()
            await clock.advance(301)
            assert listener.connections  # it has been told 421, and does not read that either
            await clock.advance(LINGER + 1)
            await desk.until(gone=1)
        assert not listener.connections


async def test_a_client_that_does_not_read_is_not_read_either_when_its_message_is_answered() -> None:
    desk = Desk()
    desk.hold = True
    async with probing(desk, buffer=4096) as listener:
        async with await Client.connect(listener.port, buffer=4096) as client:
            desk.connections[0].transport.set_write_buffer_limits(0)
            client.send(FLOOD[: 8 * (TURN - 4)], b"\r\n".join(map(str.encode, ENVELOPE)), b"\r\n.\r\n")
            await desk.until(choked=1, waiting=1)
            desk.waiting[0].answer(OK)
            assert not desk.connections[0].transport.is_reading()
        await desk.until(gone=1)


async def test_a_client_that_pipelines_without_end_waits_outside_of_our_memory() -> None:
    desk = Desk()
    desk.hold = True
    message = "\r\n".join([*ENVELOPE, "."]) + "\r\n"
    async with probing(desk) as listener, await greeted(listener.port) as client:
        client.send(message.encode() * 60_000)
        reading = asyncio.ensure_future(client.rest())
        for count in range(1, 100):
            await desk.until(waiting=count)
            for _ in range(3):
                await asyncio.sleep(0)
            assert len(desk.connections[0]._in) <= MAX_PENDING + CHUNK
            desk.waiting[-1].answer(OK)
        reading.cancel()


# Nobody keeps the loop from the others


def waiting(desk: Desk) -> int:
    """Octets of commands that the first connection has read and not answered yet."""
    connection = desk.connections[0]
    return len(connection._in) - connection._position


@pytest.mark.parametrize("line", ["NOOP", "RSET", "MAIL FROM:<a@src.test>\r\nRSET"])
async def test_a_flood_of_commands_lets_others_in_between(line: str) -> None:
    desk = Desk()
    flood = (line.encode() + b"\r\n") * (CHUNK // len(line))
    async with probing(desk) as listener:
        hasty, other = await greeted(listener.port), await greeted(listener.port)
        before = desk.octets
        hasty.send(flood)
        await desk.until(octets=before + 1)
        for _ in range(3):
            assert await other.ask("NOOP") == "250 2.0.0 OK"
            assert waiting(desk)
        assert len(await hasty.replies(flood.count(b"\n"))) == flood.count(b"\n")
        assert waiting(desk) == 0
        assert await hasty.ask("NOOP") == "250 2.0.0 OK"
        for client in (hasty, other):
            client.writer.close()


async def test_a_client_that_shuts_its_side_behind_many_commands_gets_all_its_answers() -> None:
    desk = Desk()
    async with probing(desk) as listener, await greeted(listener.port) as client:
        client.send(b"NOOP\r\n" * 2000)
        client.finish()
        assert await client.rest() == b"250 2.0.0 OK\r\n" * 2000
    assert desk.ended == 1


@pytest.mark.parametrize("end", ["QUIT", "NOOP and no more"])
async def test_a_client_that_reads_again_gets_the_answers_to_all_that_waited(end: str) -> None:
    desk = Desk()
    async with (
        probing(desk, buffer=4096) as listener,
        await Client.connect(listener.port, buffer=4096) as client,
    ):
        client.send(FLOOD, end.encode(), b"\r\n")
        if end != "QUIT":
            client.finish()
        await desk.until(choked=1)
        assert waiting(desk)
        rest = await client.rest()
        assert rest.count(b"250-mta.test\r\n") == 4000
        assert rest.endswith(b"\r\n221 2.0.0 Bye\r\n" if end == "QUIT" else b"\r\n250 2.0.0 OK\r\n")


async def test_a_drain_sends_away_who_has_got_the_answers_to_many_commands() -> None:
    desk = Desk()
    async with probing(desk) as listener, await greeted(listener.port) as client:
        client.send(b"MAIL FROM:<a@src.test>\r\n", b"NOOP\r\n" * 2000, b"RSET\r\n")
        await desk.until(octets=12_000)
        draining = asyncio.ensure_future(listener.drain(60.0))
        rest = await client.rest()
        assert rest.count(b"250 2.0.0 OK\r\n") == 2001
        assert rest.endswith(b"\r\n421 4.3.2 The service is going down; please come back\r\n")
        await draining


# Errors, and what makes up for them


async def test_a_long_list_with_wrong_addresses_goes_one_recipient_a_message() -> None:
    desk = Desk()
    async with probing(desk) as listener, await greeted(listener.port) as client:
        for number in range(1000):
            wrong = number % 20 == 7
            client.say(ENVELOPE[0], "RCPT TO:<b@>" if wrong else ENVELOPE[1], "DATA")
            replies = await client.replies(3)
            if wrong:
                assert [said[:3] for said in replies] == ["250", "501", "554"]
                client.say("RSET")
            else:
                client.send(stuffed(CONTENT))
            assert (await client.reply()).code == 250
    assert len(desk.contents) == 950


async def test_a_long_list_with_wrong_addresses_goes_in_one_transaction() -> None:
    desk = Desk()
    async with probing(desk) as listener, await greeted(listener.port) as client:
        lines = ["b" if number % 20 == 7 else f"b{number}@dst.test" for number in range(1000)]
        lines = [f"RCPT TO:<{each}>" for each in lines]
        client.say(ENVELOPE[0], *lines, "DATA")
        codes = [said[:3] for said in await client.replies(1002)]
        assert (codes.count("250"), codes.count("501"), codes[-1]) == (951, 50, "354")
        client.send(stuffed(CONTENT))
        assert str(await client.reply()) == str(OK)


async def test_errors_are_made_up_for_and_never_saved_up() -> None:
    desk = Desk()
    async with probing(desk) as listener, await greeted(listener.port) as client:
        recipients = [f"RCPT TO:<b{number}@dst.test>" for number in range(10)]
        client.say(*["XYZZY"] * 20, ENVELOPE[0], *recipients)  # all but one again
        await client.replies(31)
        client.say("XYZZY", "DATA")
        await client.replies(2)
        client.send(stuffed(CONTENT))
        assert str(await client.reply()) == str(OK)
        client.say(*["XYZZY"] * 5)
        await client.replies(5)
        for _ in range(20):
            assert await client.deliver() == str(OK)
        client.say(*["XYZZY"] * 21)
        assert len(await client.replies(21)) == 21
        assert await client.rest() == b"421 4.7.0 Too many errors\r\n"
