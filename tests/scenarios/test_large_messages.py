"""Messages too large to be looked at in one go, and header blocks larger than any that is meant."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from mta.config.settings import Limits, Sandbox, Size
from mta.core.credential import Credential
from mta.core.mail.header import MAX_FIELDS
from mta.core.mail.message import Mending, normalise_newlines
from mta.intake import admission
from mta.smtp import parser
from mta.smtp.parser import BARE_NEWLINE, NUL, SLICE
from tests.fakes.client import CONTENT, ENVELOPE, greeted, opened, stuffed
from tests.fakes.house import KEY, running, settings
from tests.fakes.probe import OK, Desk, probing

FROM = b"From: a@src.test\r\n"
HEAD = FROM + b"Subject: x\r\n\r\n"
LARGE = HEAD + b".line\r\n" * (admission.LARGE // 7 + 1)
BUG = "451 4.3.0 An error of ours, not of yours; please try again"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is large begins with a few octets."""
    monkeypatch.setattr(parser, "SLICE", 16)
    monkeypatch.setattr(admission, "LARGE", 64)


def kept(directory: Path) -> list[bytes]:
    """What the sandbox was given, from the message's own first field on."""
    files = sorted((directory / "sandbox").glob("*.eml"))
    return [b"".join(file.read_bytes().partition(FROM)[1:]) for file in files]


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("bare", ["refuse", "normalise"])
async def test_contents_in_any_slices_arrive_as_they_would_in_one(tmp_path: Path, bare: Any) -> None:
    dice = random.Random(5321)
    atoms = [b".", b"..", b"\r\n", b"\r\n.", b"\r\n..", b"\r\n\r\n", b" ", b"QUIT", b"\xff", b"x" * 9]
    atoms += [b"\r", b"\n", b"\r\r", b"\r\r\n", b"\n."] if bare == "normalise" else []
    contents = [HEAD + b"".join(dice.choices(atoms, k=dice.randrange(60))) + b"\r\n" for _ in range(60)]
    terms = settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox"), bare_newlines=bare)
    async with running(terms) as house, await greeted(house.network) as client:
        for content in contents:
            client.say(*ENVELOPE)
            await client.replies(3)
            wire = stuffed(content)
            while wire:
                cut = dice.randrange(1, 40)
                client.send(wire[:cut])
                await client.drained()
                await asyncio.sleep(0)
                wire = wire[cut:]
            assert str(await client.reply()).startswith("250 2.0.0 Ok: queued as ")
        await house.event(len(contents), type="delivery")
    wanted = contents
    if bare == "normalise":  # the dot behind a bare newline was not stuffed, and is taken off
        wanted = [normalise_newlines(stuffed(each)[:-3]) for each in contents]
        wanted = [each.replace(b"\r\n.", b"\r\n") for each in wanted]
    assert sorted(kept(tmp_path)) == sorted(wanted)


async def test_a_large_message_arrives_octet_by_octet(tmp_path: Path) -> None:
    async with running(settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox"))) as house:
        async with await opened(house.network) as client:
            client.send(stuffed(LARGE), b"NOOP\r\n")
            assert str(await client.reply()).startswith("250 2.0.0 Ok: queued as ")
            assert str(await client.reply()) == "250 2.0.0 OK"
            await house.event(type="delivery")
        assert house.daemon.capacity.memory.used == 0
    assert kept(tmp_path) == [LARGE]


async def test_a_large_message_arrives_octet_by_octet_under_tls(tmp_path: Path) -> None:
    terms = settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox"))
    app = Credential("app", "acme", "transactional", kind="key")
    async with running(terms, credentials=(app,)) as house:
        async with await greeted(house.submissions, tls=True) as client:
            assert await client.auth("app", KEY) == "235 2.7.0 Authentication successful"
            for _ in range(2):
                assert (await client.deliver(LARGE)).startswith("250 2.0.0 Ok: queued as ")
        await house.event(2, type="delivery")
    assert kept(tmp_path) == [LARGE] * 2


@pytest.mark.usefixtures("tiny")
async def test_a_blind_copy_is_taken_out_wherever_a_slice_ends(tmp_path: Path) -> None:
    body = b"\r\nBcc: body\r\n" + b"x" * 100 + b"\r\n"
    async with running(settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox"))) as house:
        async with await greeted(house.network) as client:
            for length in range(40):
                fields = FROM + b"X: x" + b"x" * length + b"\r\nBcc: secret\r\n\tsecret\r\nY: z\r\n"
                client.say(*ENVELOPE)
                await client.replies(3)
                for piece in (fields, body, b".\r\n"):
                    client.send(piece)
                    await client.drained()
                assert str(await client.reply()).startswith("250 ")
        await house.event(40, type="delivery")
    contents = kept(tmp_path)
    assert len(contents) == 40
    assert all(b"secret" not in each and each.endswith(b"x\r\nY: z\r\n" + body) for each in contents)


@pytest.mark.parametrize(
    ("octets", "expected"),
    [(b"x\n", BARE_NEWLINE), (b"x\r", BARE_NEWLINE), (b"\r\r\n", BARE_NEWLINE), (b"\0", NUL)],
    ids=repr,
)
async def test_what_no_message_may_hold_is_not_held_to_its_end(octets: bytes, expected: object) -> None:
    desk = Desk()
    async with probing(desk, message_size=10 * SLICE) as listener, await opened(listener.port) as client:
        before = desk.octets
        client.send(HEAD, octets, b"x" * 2 * SLICE)
        await desk.until(octets=before + len(HEAD) + len(octets) + 2 * SLICE)
        assert listener.memory.used == 0
        client.send(b"\r\n.\r\n")
        assert str(await client.reply()) == str(expected)
        assert await client.ask("NOOP") == "250 2.0.0 OK"
    assert desk.contents == []


async def test_a_message_that_mending_makes_too_large_is_not_taken(tmp_path: Path) -> None:
    limits = Limits(message_size=Size(SLICE))
    terms = settings(tmp_path, bare_newlines="normalise", limits=limits)
    too_large = f"552 5.3.4 The message is larger than {SLICE} octets"
    async with running(terms) as house, await greeted(house.network) as client:
        for lines in (SLICE // 3, SLICE // 2, SLICE):
            assert await client.deliver(HEAD + b"x\n" * lines + b"\r\n") == too_large
        assert house.daemon.capacity.memory.used == 0


async def test_stuffing_is_no_part_of_the_size() -> None:
    desk = Desk()
    content = b".\r\n" * 1000
    async with probing(desk, message_size=len(content)) as listener, await greeted(listener.port) as client:
        assert await client.deliver(content) == str(OK)
        assert (await client.deliver(content + b"\r\n")).startswith("552 5.3.4 ")


# Misfortunes while it is worked on


async def test_a_bug_while_a_large_message_is_mended_is_temporary(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    monkeypatch.setattr(Mending, "feed", lambda self, data: 1 / 0)
    async with probing(desk, message_size=10 * SLICE) as listener, await opened(listener.port) as client:
        client.send(stuffed(HEAD + b"x" * 4 * SLICE + b"\r\n"))
        assert str(await client.reply()) == BUG
        assert await client.deliver() == str(OK)
        assert listener.memory.used == 0
    assert [type(bug) for bug in desk.bugs] == [ZeroDivisionError]


async def test_a_bug_when_a_large_message_is_put_together_is_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox"))) as house:
        async with await opened(house.network) as client:
            monkeypatch.setattr(admission.Admission, "_message", lambda *a: 1 / 0)
            client.send(stuffed(LARGE))
            assert str(await client.reply()) == BUG
            monkeypatch.undo()
            assert (await client.deliver(LARGE)).startswith("250 ")
        assert house.daemon.metrics.bugs["intake"]._value.get() == 1
        assert house.daemon.capacity.memory.used == 0


async def test_a_client_that_vanishes_behind_a_large_message_has_it_delivered(tmp_path: Path) -> None:
    async with running(settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox"))) as house:
        client = await opened(house.network)
        client.send(stuffed(LARGE))
        await client.drained()
        client.writer.close()
        await client.gone()
        await house.event(type="delivery", recipient="b@dst.test")
    assert kept(tmp_path) == [LARGE]


async def test_a_client_that_shuts_its_side_behind_a_large_message_gets_its_answer(tmp_path: Path) -> None:
    async with running(settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox"))) as house:
        client = await opened(house.network)
        client.send(stuffed(LARGE))
        await client.drained()
        client.finish()
        assert (await client.rest()).startswith(b"250 2.0.0 Ok: queued as ")


async def test_a_client_that_vanishes_in_a_large_message_gives_its_memory_back() -> None:
    desk = Desk()
    async with probing(desk, message_size=10 * SLICE) as listener:
        client = await opened(listener.port)
        before = desk.octets
        client.send(HEAD + b"x" * 4 * SLICE)
        await desk.until(octets=before + len(HEAD) + 4 * SLICE)
        assert listener.memory.used == len(HEAD) + 4 * SLICE
        client.reset()
        await desk.until(gone=1)
        assert listener.memory.used == 0


async def test_a_client_that_vanishes_behind_its_message_still_has_the_memory_that_it_holds(
    tmp_path: Path,
) -> None:
    async with running(settings(tmp_path)) as house:
        spool, memory = house.daemon.spool, house.daemon.capacity.memory
        real, goes_on = spool._bodies.write, threading.Event()

        def slow(contents: object) -> None:
            goes_on.wait(30)
            real(contents)  # type: ignore[arg-type]

        spool._bodies.write = slow  # type: ignore[method-assign,assignment]
        client = await opened(house.network)
        client.send(stuffed(LARGE))
        await client.drained()
        async with asyncio.timeout(10):
            while not spool._writing:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.001)
            client.reset()
            while house.daemon.intake.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            assert memory.used >= len(LARGE)
            goes_on.set()
            while memory.used:  # noqa: ASYNC110
                await asyncio.sleep(0.001)


async def test_a_drain_waits_for_a_large_message(tmp_path: Path) -> None:
    async with running(settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox"))) as house:
        client = await opened(house.network)
        client.send(stuffed(LARGE))
        await client.drained()
        house.daemon.stop()
        assert str(await client.reply()).startswith("250 2.0.0 Ok: queued as ")
        assert await client.rest() == b"421 4.3.2 The service is going down; please come back\r\n"


# The header block


async def test_a_header_block_over_its_limit_is_refused_with_the_limit(tmp_path: Path) -> None:
    terms = settings(tmp_path, limits=Limits(header=Size(1000)))
    fits = (CONTENT[: CONTENT.index(b"\r\n\r\n")] + b"\r\nX: ").ljust(998, b"x") + b"\r\n"
    refused = "552 5.6.0 The header block is larger than 1000 octets"
    async with running(terms) as house, await greeted(house.network) as client:
        for body in (b"", b"\r\n", b"\r\nbody\r\n" * 500):
            assert (await client.deliver(fits + body)).startswith("250 ")
            assert await client.deliver(b"X: y\r\n" + fits + body) == refused
        assert await client.deliver(b"x:\r\n" * SLICE) == refused


async def test_a_header_block_of_too_many_fields_is_refused_with_the_limit(tmp_path: Path) -> None:
    async with running(settings(tmp_path)) as house, await greeted(house.network) as client:
        fields = FROM + b"Bcc: b\r\n\tfolded\r\n" * (MAX_FIELDS - 1)
        assert (await client.deliver(fields + b"\r\nbody\r\n")).startswith("250 ")
        said = await client.deliver(b"X: y\r\n" + fields + b"\r\nbody\r\n")
        assert said == "552 5.6.0 The header block is larger than 10000 fields"
