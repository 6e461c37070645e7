"""The plain way of a message, in the sandbox."""

from __future__ import annotations

from pathlib import Path

from mta.config.settings import Sandbox
from tests.fakes.house import running, settings


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
