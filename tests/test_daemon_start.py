"""A daemon that cannot start says why, in words that name the thing, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from mta.clock import SystemClock
from mta.config.policy import build
from mta.config.settings import AdminSettings, Endpoint, ListenerSettings, Sandbox, Settings, Tls
from mta.daemon import Daemon
from mta.spool.database import take_lock
from tests.fakes.house import certificate, settings


@pytest.fixture
def taken() -> Iterator[Endpoint]:
    """An address that somebody else listens at."""
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        yield Endpoint(*somebody.getsockname())


async def complaint(terms: Settings) -> str:
    """What keeps it from starting: exactly one reason."""
    daemon = Daemon(build(terms), SystemClock(), {})
    async with asyncio.timeout(10):
        try:
            await daemon.run(lambda _: daemon.stop())
        except Exception as error:
            (reason,) = _leaves(error)
            return str(reason)
    raise AssertionError("it started")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


@pytest.mark.parametrize("door", ["listener", "sandbox", "admin"])
async def test_an_address_that_is_taken_is_named(tmp_path: Path, taken: Endpoint, door: str) -> None:
    changes: dict[str, Any] = {
        "listener": {"listeners": (ListenerSettings(taken),)},
        "sandbox": {"sandbox": Sandbox(tmp_path / "sandbox", taken)},
        "admin": {"admin": AdminSettings(taken)},
    }[door]
    words = await complaint(settings(tmp_path, **changes))
    assert re.search(r"(?i)address already in use", words)
    assert str(taken.port) in words
    key = {"listener": "listeners[0].bind", "sandbox": "sandbox.bind", "admin": "admin.bind"}[door]
    assert f"({key})" in words
    # Everything was given back: another daemon can have the spool.
    take_lock(tmp_path / "spool")


async def test_an_address_of_another_machine_is_named(tmp_path: Path) -> None:
    terms = settings(tmp_path, listeners=(ListenerSettings(Endpoint("192.0.2.1", 0)),))
    words = "cannot listen at 192.0.2.1 port 0: Cannot assign requested address (listeners[0].bind)"
    assert await complaint(terms) == f"[Errno 99] {words}"


async def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone.pem"
    terms = replace(settings(tmp_path), tls=Tls(gone, certificate()[1]))
    words = f"cannot use the certificate {gone} with the key {certificate()[1]}: [Errno 2]"
    assert (await complaint(terms)).startswith(words)


async def test_a_key_that_is_not_there_is_told_from_the_certificate(tmp_path: Path) -> None:
    gone = tmp_path / "gone.pem"
    terms = replace(settings(tmp_path), tls=Tls(certificate()[0], gone))
    assert (await complaint(terms)).endswith(f"[Errno 2] No such file or directory: '{gone}'")


async def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    key = load_pem_private_key(certificate()[1].read_bytes(), None)
    locked = tmp_path / "key.pem"
    locked.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    terms = replace(settings(tmp_path), tls=Tls(certificate()[0], locked))
    assert (await complaint(terms)).endswith("the key is encrypted: write it without a passphrase")


async def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "junk.pem").write_text("junk")
    terms = replace(settings(tmp_path), tls=Tls(tmp_path / "junk.pem", certificate()[1]))
    assert (await complaint(terms)).startswith(
        f"cannot use the certificate {tmp_path}/junk.pem with the key "
    )


@pytest.mark.parametrize("file", ["queue.db", "credentials.db"])
async def test_a_file_that_is_no_database_is_named(tmp_path: Path, file: str) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / file).write_text("This is not a database at all, it is a text.")
    words = f"{tmp_path}/spool/{file}: file is not a database; move this file away, or set another spool.path"
    assert await complaint(settings(tmp_path)) == words


async def test_a_secret_that_others_may_read_is_named(tmp_path: Path) -> None:
    terms = settings(tmp_path)
    terms.spool.path.mkdir()
    terms.secret.write_text("0" * 64)
    terms.secret.chmod(0o644)
    assert (await complaint(terms)).startswith(f"{terms.secret} is open to others than its owner (mode 0644)")


async def test_an_event_log_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "spool/events.jsonl").mkdir(parents=True)
    assert (
        await complaint(settings(tmp_path)) == f"[Errno 21] Is a directory: '{tmp_path}/spool/events.jsonl'"
    )
