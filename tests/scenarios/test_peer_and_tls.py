"""STARTTLS that fails, that is missing where it is required, and smarthosts that want a password."""

from __future__ import annotations

import socket
import ssl
from base64 import b64encode
from pathlib import Path

import pytest

from mta.clock import SystemClock
from mta.config.settings import Endpoint, StaticRoute
from mta.smtp.dial import Dialled
from mta.smtp.opening import NO_SECRET, NO_STARTTLS, open_connection
from mta.smtp.trouble import PeerError
from tests.fakes.clock import HandClock
from tests.fakes.house import running, settings
from tests.fakes.network import FIRST, own_network
from tests.fakes.peer import HELLO, TAKES, ScriptedPeer
from tests.fakes.relay import relaying

OFFERS = HELLO.replace("-> 250 8BITMIME", "-> 250 STARTTLS")
BEGIN = OFFERS + "<- STARTTLS\n-> 220 go ahead\n"
SECURED = BEGIN + "starttls\n" + HELLO.replace("-> 220 mx.test ESMTP", "") + TAKES
B = "b@dst.test"
NOBODY = "451 4.4.1 No host answered; it is tried again: 127.0.0.1 [127.0.0.1]: "
UNSAFE = "451 4.7.5 No host is as safe as it must be; it is tried again: 127.0.0.1 [127.0.0.1]: "
LOGIN = b64encode(b"\0user@src.test\0secret word").decode()


async def test_tls_where_it_is_offered(tmp_path: Path) -> None:
    async with relaying(tmp_path, SECURED) as relay:
        await relay.house.send(B)
        assert (await relay.house.event(type="delivery"))["tls"] == "TLSv1.3"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param("-> 220 go ahead\nstarttls-garbage", "the TLS handshake failed: ", id="garbage"),
        pytest.param("-> 220 go ahead\nabort", "the TLS handshake failed: ", id="reset"),
        pytest.param("-> 220 go ahead\nclose", "the TLS handshake failed: ", id="closed"),
        pytest.param("-> 454 4.7.0 TLS not available\nsilence", "STARTTLS was refused: 454 4.7.0", id="454"),
    ],
)
async def test_a_handshake_that_fails_and_the_message_goes_in_the_clear(
    tmp_path: Path, answer: str, why: str
) -> None:
    async with relaying(tmp_path, OFFERS + "<- STARTTLS\n" + answer, OFFERS + TAKES) as relay:
        await relay.house.send(B)
        assert await relay.told(2) == [f"reception {B}", f"delivery 1 {B}: 250 2.0.0 taken (.)"]
        assert "tls" not in relay.house.events[1]
        assert relay.house.events[1]["reason"].startswith(f"in the clear: {why}")


async def test_a_handshake_that_never_ends_and_the_message_goes_in_the_clear(tmp_path: Path) -> None:
    async with relaying(tmp_path, BEGIN + "silence", OFFERS + TAKES) as relay:
        await relay.house.send(B)
        await relay.peer.at(1, "silence")
        await relay.clock.advance(61)
        assert "tls" not in await relay.house.event(type="delivery")


async def test_tls_is_required_and_not_offered(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + "silence", tls="required") as relay:
        await relay.house.send(B)
        said = UNSAFE + "offers no STARTTLS, and the route requires it (STARTTLS)"
        assert await relay.told(2) == [f"reception {B}", f"deferral 1 {B} tls +300: {said}"]


async def test_tls_is_required_and_starttls_is_refused(tmp_path: Path) -> None:
    script = OFFERS + "<- STARTTLS\n-> 454 4.7.0 TLS not available\nsilence"
    async with relaying(tmp_path, script, tls="required") as relay:
        await relay.house.send(B)
        said = UNSAFE + "STARTTLS was refused: 454 4.7.0 TLS not available (STARTTLS)"
        assert await relay.told(2) == [f"reception {B}", f"deferral 1 {B} tls +300: {said}"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param("starttls-garbage", "", id="garbage"),
        pytest.param(
            "starttls\nsilence", "the certificate is not accepted: self-signed certificate", id="a stranger"
        ),
        pytest.param("abort", "", id="reset"),
    ],
)
async def test_tls_is_required_and_the_handshake_fails(tmp_path: Path, answer: str, why: str) -> None:
    async with relaying(tmp_path, BEGIN + answer, tls="required") as relay:
        await relay.house.send(B)
        received, deferral = await relay.told(2)
        assert received == f"reception {B}"
        assert deferral.startswith(f"deferral 1 {B} tls +300: {UNSAFE}the TLS handshake failed: ")
        assert why in deferral
        assert relay.peer.calls[0].messages == []


async def test_a_smarthost_gets_the_user_and_the_password_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret word\n")
    script = HELLO.replace("-> 250 8BITMIME", "-> 250 AUTH PLAIN LOGIN")
    script += f"<- AUTH PLAIN {LOGIN}\n-> 235 2.7.0 welcome\n" + TAKES
    terms = {"user": "user@src.test", "password_file": tmp_path / "password"}
    async with relaying(tmp_path, script, **terms) as relay:
        await relay.house.send(B)
        await relay.house.event(type="delivery")


async def test_a_smarthost_that_does_not_know_us(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret word\n")
    script = HELLO.replace("-> 250 8BITMIME", "-> 250 AUTH PLAIN")
    script += f"<- AUTH PLAIN {LOGIN}\n-> 535 5.7.8 who are you?\nsilence"
    terms = {"user": "user@src.test", "password_file": tmp_path / "password"}
    async with relaying(tmp_path, script, **terms) as relay:
        await relay.house.send(B)
        assert await relay.told(2) == [
            f"reception {B}",
            f"deferral 1 {B} policy +300: 535 5.7.8 who are you? (AUTH)",
        ]


async def test_a_smarthost_without_auth(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret word\n")
    terms = {"user": "user@src.test", "password_file": tmp_path / "password"}
    async with relaying(tmp_path, HELLO + "silence", **terms) as relay:
        await relay.house.send(B)
        received, deferral = await relay.told(2)
        assert received == f"reception {B}"
        said = f"{NOBODY}offers no AUTH that we know, and the route has a password"
        assert deferral.startswith(f"deferral 1 {B} network +300: {said}")


async def test_the_password_file_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "nowhere"
    async with relaying(tmp_path, user="user@src.test", password_file=file) as relay:
        await relay.house.send(B)
        said = NOBODY + (
            "the password file of the route cannot be read: "
            f"[Errno 2] No such file or directory: '{file}' (CONNECT)"
        )
        assert await relay.told(2) == [f"reception {B}", f"deferral 1 {B} network +300: {said}"]


GREETS = HELLO.replace("-> 250 8BITMIME", "-> 250 AUTH PLAIN LOGIN CRAM-MD5")
SECRETLY = HELLO.replace("-> 220 mx.test ESMTP", "").replace("-> 250 8BITMIME", "-> 250 AUTH PLAIN")


async def test_somebody_between_strips_starttls_and_no_password_is_said(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret word\n")
    async with ScriptedPeer(GREETS + "silence") as peer:
        # A name is not known to be loopback before it is looked up: TLS is required.
        relay = StaticRoute(
            Endpoint("localhost", peer.port), user="user@src.test", password_file=tmp_path / "password"
        )
        async with running(settings(tmp_path, routes={"*": relay}), HandClock()) as house:
            await house.send(B)
            told = await house.event(type="deferral")
        call = await peer.at(1, "end")
    assert NO_STARTTLS in told["reply"]["text"]
    assert bytes(call.received) == b"EHLO mta.test\r\n"


@pytest.mark.parametrize(
    ("script", "verified", "required", "said"),
    [
        pytest.param(GREETS + "silence", None, False, NO_SECRET, id="in the clear"),
        pytest.param(GREETS + "silence", None, True, NO_STARTTLS, id="required, and asked in the clear"),
        pytest.param(GREETS + "silence", True, True, NO_STARTTLS, id="stripped"),
        pytest.param(GREETS + "silence", True, False, NO_SECRET, id="stripped, and not required"),
        pytest.param(
            BEGIN + "starttls\n" + SECRETLY + "silence", False, False, NO_SECRET, id="anybody's certificate"
        ),
        pytest.param(
            BEGIN + "starttls\n<- EHLO mta.test\n-> 500 what?\nsilence",
            False,
            True,
            "500",
            id="no second EHLO",
        ),
    ],
)
async def test_a_password_goes_to_nobody_who_is_not_proved(
    script: str, verified: bool | None, required: bool, said: str
) -> None:
    context = None if verified is None else ssl.create_default_context()
    if verified is False:
        assert context is not None
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with own_network():
        async with ScriptedPeer(script, host=FIRST) as peer:
            dialled = socket.create_connection((FIRST, peer.port))
            dialled.setblocking(False)
            with pytest.raises(PeerError, match=said):
                await open_connection(
                    Dialled(dialled, FIRST), host="relay.test", ehlo="mta.test", clock=SystemClock(),
                    tls_context=context, tls_required=required, login=("user@src.test", "secret word"),
                )  # fmt: skip
    assert b"AUTH" not in peer.calls[0].received


async def test_starttls_is_refused_in_latin_1(tmp_path: Path) -> None:
    script = OFFERS + "<- STARTTLS\n-> 454 TLS nicht verf\udcfcgbar\x00\nsilence"
    async with relaying(tmp_path, script, tls="required") as relay:
        await relay.house.send(B)
        said = UNSAFE + "STARTTLS was refused: 454 TLS nicht verf\ufffdgbar\ufffd (STARTTLS)"
        assert await relay.told(2) == [f"reception {B}", f"deferral 1 {B} tls +300: {said}"]
