"""The peer gets the very octets that the client sent, below what we put on top."""

from __future__ import annotations

import re
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.fakes.peer import HELLO, TAKES
from tests.fakes.relay import relaying

STAMP = re.compile(
    rb"Received: from hidden\r\n\tby mta\.test with ESMTP id \w+;\r\n\t.+\r\nDate: .+\r\nMessage-ID: <.+>\r\n"
)
HEAD = b"From: a@src.test\r\nTo: b@dst.test\r\nSubject: hello\r\n\r\n"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b".\r\n..\r\n...\r\n.x\r\nx.\r\n", id="dots"),
        pytest.param(b".", id="a dot and no end of the line"),
        pytest.param(b"x" * 1_000_000 + b"\r\n." + b"." * 100_000 + b"\r\n", id="long lines"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\r\n\r\n\r\n", id="empty lines"),
        pytest.param(bytes(set(range(1, 256)) - {10, 13}) + b"\r\n", id="every octet"),
        pytest.param(b"MAIL FROM:<x@y.test>\r\nQUIT\r\n", id="commands"),
    ],
)
async def test_a_body_arrives_byte_for_byte(tmp_path: Path, body: bytes) -> None:
    sent = HEAD + body
    if not sent.endswith(b"\r\n"):
        sent += b"\r\n"
    async with relaying(tmp_path, HELLO + TAKES) as relay:
        await relay.house.send("b@dst.test", content=sent)
        await relay.house.event(type="delivery")
        (arrived,) = relay.peer.calls[0].messages
    assert arrived.endswith(sent)
    assert STAMP.fullmatch(arrived.removesuffix(sent))


async def test_a_retry_sends_the_same_octets(tmp_path: Path) -> None:
    busy = TAKES.replace("250 2.0.0 taken", "450 4.2.1 busy")
    sent = HEAD + b"..\r\n.\r\n" + b"x" * 100_000 + b"\r\n"
    async with relaying(tmp_path, HELLO + busy, HELLO + TAKES) as relay:
        await relay.house.send("b@dst.test", content=sent)
        await relay.house.event(type="deferral")
        await relay.clock.advance(301)
        await relay.house.event(type="delivery")
        first, second = relay.peer.calls
    assert first.messages == second.messages
    assert first.messages[0].endswith(sent)


async def test_a_signature_of_the_application_verifies_at_the_peer(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 1024)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    record = b"v=DKIM1; k=rsa; p=" + b"".join(public.splitlines()[1:-1])
    content = HEAD.replace(b"\r\n\r\n", b"\r\nDate: Fri, 15 Jan 2027 08:00:00 +0000\r\n\r\n")
    content += b".dots\r\n..\r\n" + b"long " * 1000 + b"\r\n"
    signature = dkim.sign(content, b"s1", b"src.test", private, canonicalize=(b"simple", b"simple"))
    async with relaying(tmp_path, HELLO + TAKES) as relay:
        await relay.house.send("b@dst.test", content=signature + content)
        await relay.house.event(type="delivery")
        (arrived,) = relay.peer.calls[0].messages
    assert dkim.verify(arrived, dnsfunc=lambda name, timeout=5: record)
    assert not dkim.verify(arrived.replace(b"long", b"lung", 1), dnsfunc=lambda name, timeout=5: record)
