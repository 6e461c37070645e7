"""The plain way of a message, in the sandbox."""

from __future__ import annotations

import asyncio
from pathlib import Path

from mta.config.settings import ListenerSettings, Sandbox
from tests.fakes.client import Client
from tests.fakes.house import LOOPBACK, running, settings


async def test_a_message_is_owned_and_delivered_and_kept(tmp_path: Path) -> None:
    terms = settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox"))
    content = b"From: a@src.test\r\nSubject: x\r\n\r\n.dot\r\n..dots\r\n" + b"long " * 1000 + b"\r\n"
    async with running(terms) as house:
        reply = await house.send("ok@dst.test", content=content)
        assert reply.startswith("250 2.0.0 Ok: queued as ")
        delivery = await house.event(type="delivery")
        assert delivery["recipient"] == "ok@dst.test"
        assert delivery["tls"] == "TLSv1.3"
    (kept,) = (tmp_path / "sandbox").glob("*.eml")
    assert kept.read_bytes().endswith(content)


async def test_each_actor_plays_its_part(tmp_path: Path) -> None:
    terms = settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox"))
    async with running(terms) as house:
        await house.send("ok@x.test", "defer@x.test", "bounce@y.test", "drop-after-data@z.test")
        assert (await house.event(type="delivery", recipient="ok@x.test"))["attempt"] == 1
        assert (await house.event(type="deferral"))["recipient"] == "defer@x.test"
        assert (await house.event(type="bounce"))["reply"]["enhanced"] == "5.1.1"
        assert (await house.event(type="ambiguous"))["due"]
        notice = await house.event(type="delivery", recipient="a@src.test")
        assert "sender" in notice
        assert notice["sender"] == ""


async def test_a_client_in_the_middle_of_a_message_is_answered_and_then_sent_away(tmp_path: Path) -> None:
    terms = settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox"))
    async with running(terms) as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.network)
        writer.write(b"EHLO c.test\r\nMAIL FROM:<a@src.test>\r\nRCPT TO:<ok@dst.test>\r\nDATA\r\n")
        await reader.readuntil(b"354 ")
        house.daemon.stop()
        writer.write(b"From: a@src.test\r\n\r\nhello\r\n.\r\n")
        said = (await reader.read(-1)).decode()
        writer.close()
    assert "250 2.0.0 Ok: queued as" in said
    assert said.endswith("421 4.3.2 The service is going down; please come back\r\n")


async def test_an_address_is_no_leave_to_send_in_the_clear(tmp_path: Path) -> None:
    """A network-bound credential on a listener that has TLS: first STARTTLS, then MAIL."""
    doors = (ListenerSettings(LOOPBACK, auth="network"),)
    terms = settings(tmp_path, listeners=doors, sandbox=Sandbox(tmp_path / "sandbox"))
    async with running(terms) as house, await Client.connect(house.submission) as client:
        await client.reply()
        await client.ehlo()
        assert await client.ask("MAIL FROM:<a@src.test>") == "530 5.7.0 Must issue a STARTTLS command first"
        assert (await client.ask("STARTTLS")).startswith("220 ")
        await client.starttls()
        await client.ehlo()
        assert await client.ask("MAIL FROM:<a@src.test>") == "250 2.1.0 Ok"
