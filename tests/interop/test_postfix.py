"""Debian's Postfix takes our mail, over TLS, and keeps it as it was sent."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from benchmarks.peers import postfix
from benchmarks.process import PATH, Process
from tests.fakes.house import certificate, routed, running, settings

NOBODY = 65534

# Added to the rival's settings: mail for postfix.test ends in a maildir of its own.
MAIN = """\
virtual_mailbox_domains = postfix.test
virtual_mailbox_base = {directory}/mail
virtual_mailbox_maps = inline:{{ known@postfix.test=known/ }}
virtual_uid_maps = static:{nobody}
virtual_gid_maps = static:{nobody}
smtpd_tls_security_level = may
smtpd_tls_chain_files = {key}, {certificate}
"""
MASTER = """\
virtual unix - n n - - virtual
tlsmgr unix - - n 1000? 1 tlsmgr
"""

pytestmark = [
    pytest.mark.skipif(shutil.which("postconf", path=PATH) is None, reason="Postfix is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="Postfix must be started by root"),
]


@dataclass(frozen=True)
class Postfix:
    """One that runs."""

    port: int
    log: Path
    maildir: Path

    async def says(self, words: str) -> str:
        """The log's line with these words, as soon as it is there."""
        argv = ["tail", "-n", "+1", "-F", str(self.log)]
        tail = await asyncio.create_subprocess_exec(
            *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        assert tail.stdout is not None
        try:
            async with asyncio.timeout(10):
                async for line in tail.stdout:
                    if words in line.decode():
                        return line.decode()
        finally:
            tail.kill()
            await tail.wait()
        raise AssertionError(f"Postfix never said {words!r}")


def free_port() -> int:
    """Postfix must be told one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def receiver() -> Iterator[Postfix]:
    with TemporaryDirectory(prefix="postfix-") as name:  # Postfix's users must be able to enter it
        directory = Path(name)
        directory.chmod(0o755)
        listen = free_port()
        argv = postfix.as_shipped(listen, 1, directory, None)  # nothing is relayed
        (directory / "mail").mkdir()
        os.chown(directory / "mail", NOBODY, NOBODY)
        signed, key = certificate()
        with (directory / "etc/main.cf").open("a") as main:
            main.write(MAIN.format(directory=directory, nobody=NOBODY, certificate=signed, key=key))
        with (directory / "etc/master.cf").open("a") as master:
            master.write(MASTER)
        with Process(argv, listen, directory / "output"):
            yield Postfix(listen, directory / "mail.log", directory / "mail/known/new")


async def test_postfix_takes_our_mail_over_tls_and_keeps_every_octet(
    tmp_path: Path, receiver: Postfix
) -> None:
    body = b".\r\n..\r\n" + b"x" * 990 + b"\r\n" + b"text\r\n" * 5000
    content = b"From: a@src.test\r\nTo: known@postfix.test\r\nSubject: hello\r\n\r\n" + body
    async with running(settings(tmp_path, routes=routed(receiver.port))) as house:
        await house.send("known@postfix.test", content=content)
        delivery = await house.event(type="delivery")
    assert delivery["reply"]["code"] == 250
    assert delivery["tls"] == "TLSv1.3"
    queue_id = delivery["reply"]["text"].rpartition(" ")[2]
    line = await receiver.says(f"{queue_id}: to=<known@postfix.test>")
    assert "status=sent (delivered to maildir)" in line
    kept = [file.read_bytes().partition(b"\n\n")[2] for file in receiver.maildir.iterdir()]
    assert body.replace(b"\r\n", b"\n") in kept


async def test_postfix_refuses_one_recipient_and_takes_the_other(tmp_path: Path, receiver: Postfix) -> None:
    async with running(settings(tmp_path, routes=routed(receiver.port))) as house:
        await house.send("unknown@postfix.test", "known@postfix.test")
        bounce = await house.event(type="bounce")
        delivery = await house.event(type="delivery", recipient="known@postfix.test")
    assert bounce["recipient"] == "unknown@postfix.test"
    assert (bounce["reply"]["code"], bounce["reply"]["enhanced"]) == (550, "5.1.1")
    assert "unknown in virtual mailbox table" in bounce["reply"]["text"]
    assert delivery["queue_id"] == bounce["queue_id"]


async def test_many_messages_go_over_few_connections(tmp_path: Path, receiver: Postfix) -> None:
    async with running(settings(tmp_path, routes=routed(receiver.port, connections=2))) as house:
        sent = [house.send("known@postfix.test", sender=f"s{n}@src.test") for n in range(60)]
        assert all(reply.startswith("250 2.0.0 ") for reply in await asyncio.gather(*sent))
        await house.event(60, type="delivery")
        assert house.daemon.pool.connections <= 2
    assert not house.of(type="deferral")
