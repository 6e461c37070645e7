"""STARTTLS that fails, that is missing where it is required, and smarthosts that want a password."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import pytest

from tests.fakes.peer import HELLO, TAKES
from tests.fakes.relay import relaying

OFFERS = HELLO.replace("-> 250 8BITMIME", "-> 250 STARTTLS")
BEGIN = OFFERS + "<- STARTTLS\n-> 220 go ahead\n"
SECURED = BEGIN + "starttls\n" + HELLO.replace("-> 220 mx.test ESMTP", "") + TAKES
FAILED = "No host answered; it is tried again: 127.0.0.1 [127.0.0.1]: the TLS handshake failed: "
LOGIN = b64encode(b"\0user@src.test\0secret word").decode()


async def test_tls_where_it_is_offered(tmp_path: Path) -> None:
    async with relaying(tmp_path, SECURED) as relay:
        await relay.house.send("b@dst.test")
        assert (await relay.house.event(type="delivery"))["tls"] == "TLSv1.3"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param("-> 220 go ahead\nstarttls-garbage", id="garbage"),
        pytest.param("-> 220 go ahead\nabort", id="reset"),
        pytest.param("-> 220 go ahead\nclose", id="closed"),
        pytest.param("-> 454 4.7.0 TLS not available\nsilence", id="454"),
    ],
)
async def test_a_handshake_that_fails_and_the_message_goes_in_the_clear(tmp_path: Path, answer: str) -> None:
    async with relaying(tmp_path, OFFERS + "<- STARTTLS\n" + answer, OFFERS + TAKES) as relay:
        await relay.house.send("b@dst.test")
        delivery = await relay.house.event(type="delivery")
        assert "tls" not in delivery
        assert relay.types() == ["reception", "delivery"]


async def test_a_handshake_that_never_ends_and_the_message_goes_in_the_clear(tmp_path: Path) -> None:
    async with relaying(tmp_path, BEGIN + "silence", OFFERS + TAKES) as relay:
        await relay.house.send("b@dst.test")
        await relay.peer.at(1, "silence")
        await relay.clock.advance(61)
        assert "tls" not in await relay.house.event(type="delivery")


async def test_tls_is_required_and_not_offered(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + "silence", tls="required") as relay:
        await relay.house.send("b@dst.test")
        deferral = await relay.house.event(type="deferral")
        assert deferral["reply"]["text"] == (
            "No host answered; it is tried again: 127.0.0.1 [127.0.0.1]: "
            "offers no STARTTLS, and the route requires it"
        )


@pytest.mark.parametrize("answer", ["starttls-garbage", "starttls\nsilence"], ids=["garbage", "a stranger"])
async def test_tls_is_required_and_the_handshake_fails(tmp_path: Path, answer: str) -> None:
    async with relaying(tmp_path, BEGIN + answer, tls="required") as relay:
        await relay.house.send("b@dst.test")
        deferral = await relay.house.event(type="deferral")
        assert deferral["reply"]["text"].startswith(FAILED)
        assert deferral["subject"] == "tls"
        assert relay.types() == ["reception", "deferral"]


async def test_a_smarthost_gets_the_user_and_the_password_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret word\n")
    script = HELLO.replace("-> 250 8BITMIME", "-> 250 AUTH PLAIN LOGIN")
    script += f"<- AUTH PLAIN {LOGIN}\n-> 235 2.7.0 welcome\n" + TAKES
    terms = {"user": "user@src.test", "password_file": tmp_path / "password"}
    async with relaying(tmp_path, script, **terms) as relay:
        await relay.house.send("b@dst.test")
        await relay.house.event(type="delivery")


async def test_a_smarthost_that_does_not_know_us(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret word\n")
    script = HELLO.replace("-> 250 8BITMIME", "-> 250 AUTH PLAIN")
    script += f"<- AUTH PLAIN {LOGIN}\n-> 535 5.7.8 who are you?\nsilence"
    terms = {"user": "user@src.test", "password_file": tmp_path / "password"}
    async with relaying(tmp_path, script, **terms) as relay:
        await relay.house.send("b@dst.test")
        deferral = await relay.house.event(type="deferral")
        assert (deferral["reply"]["code"], deferral["reply"]["text"]) == (535, "who are you?")
        assert relay.types() == ["reception", "deferral"]


async def test_a_smarthost_without_auth(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret word\n")
    terms = {"user": "user@src.test", "password_file": tmp_path / "password"}
    async with relaying(tmp_path, HELLO + "silence", **terms) as relay:
        await relay.house.send("b@dst.test")
        deferral = await relay.house.event(type="deferral")
        assert ": The SMTP AUTH extension is not supported by this server." in deferral["reply"]["text"]


async def test_the_password_file_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "nowhere"
    async with relaying(tmp_path, user="user@src.test", password_file=file) as relay:
        await relay.house.send("b@dst.test")
        deferral = await relay.house.event(type="deferral")
        assert deferral["reply"]["text"] == (
            "No host answered; it is tried again: 127.0.0.1 [127.0.0.1]: the password file of the route "
            f"cannot be read: [Errno 2] No such file or directory: '{file}'"
        )
