"""Contents that try to be two messages, dots at every border, and contents that must arrive as they are."""

from __future__ import annotations

import random
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.config.settings import Sandbox
from mta.core.mail.message import has_bare_newline, normalise_newlines, stuff, unstuff
from tests.fakes.client import ENVELOPE, Client, greeted, opened, stuffed
from tests.fakes.house import House, running, settings
from tests.fakes.probe import OK, Desk, probing

HEAD = b"From: a@src.test\r\nSubject: x\r\n\r\n"
REFUSED = "550 5.6.11 A CR or LF stands alone; lines end with CRLF (RFC 5321 2.3.8)"
SMUGGLED = (
    b"MAIL FROM:<admin@src.test>\r\nRCPT TO:<victim@dst.test>\r\nDATA\r\n"
    b"From: admin@src.test\r\n\r\nsmuggled\r\n"
)
ENDS = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r\n.\r",
    b"\r.\n",
    b"\n.\r",
    b"\r\r\n.\r\r\n",
    b"\n\n.\n\n",
    b"\n\r.\n\r",
]


def shown(end: bytes) -> str:
    return end.replace(b"\r", b"CR").replace(b"\n", b"LF").decode()


def kept(directory: Path) -> list[bytes]:
    """What the sandbox was given, less everything above the message's own first field."""
    files = sorted((directory / "sandbox").glob("*.eml"))
    return [HEAD + file.read_bytes().partition(HEAD)[2] for file in files]


async def the_daemon_is_unmoved(house: House, client: Client) -> None:
    """The connection is in step, and no recipient has been invented."""
    assert await client.ask("NOOP") == "250 2.0.0 OK"
    assert house.of(recipient="victim@dst.test") == []


@pytest.mark.parametrize("end", ENDS, ids=shown)
async def test_an_end_that_is_none_is_refused_as_one_message(tmp_path: Path, end: bytes) -> None:
    async with running(settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox"))) as house:
        async with await opened(house.network) as client:
            client.send(HEAD, b"before", end, SMUGGLED, b".\r\n")
            assert str(await client.reply()) == REFUSED
            await the_daemon_is_unmoved(house, client)
            event = await house.event(type="rejection")
        assert event["reply"] == {"code": 550, "enhanced": "5.6.11", "text": REFUSED[11:]}
        assert event["reason"] == "message refused"
        assert event["permanent"] is True
        assert event["sender"] == "a@src.test"
        assert event["credential"] == "network"
        assert house.of(type="reception") == []


@pytest.mark.parametrize("end", [b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\0\r\n.\0\r\n"], ids=repr)
async def test_an_end_with_a_nul_is_refused_as_one_message(tmp_path: Path, end: bytes) -> None:
    terms = settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox"))
    async with running(terms) as house, await opened(house.network) as client:
        client.send(HEAD, b"before", end, SMUGGLED, b".\r\n")
        expected = "550 5.6.0 The message holds a NUL octet; encode it (RFC 5321 4.5.2)"
        assert str(await client.reply()) == expected
        await the_daemon_is_unmoved(house, client)


@pytest.mark.parametrize("end", ENDS, ids=shown)
async def test_an_end_that_is_none_is_mended_into_one_message(tmp_path: Path, end: bytes) -> None:
    terms = settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox"), bare_newlines="normalise")
    body = b"before" + end + SMUGGLED
    async with running(terms) as house, await opened(house.network) as client:
        client.send(HEAD, body, b".\r\n")
        assert str(await client.reply()).startswith("250 2.0.0 Ok: queued as ")
        await the_daemon_is_unmoved(house, client)
        await house.event(type="delivery", recipient="b@dst.test")
    (content,) = kept(tmp_path)
    assert content == HEAD + unstuff(normalise_newlines(body))
    assert not has_bare_newline(content)


@pytest.mark.parametrize(
    "line", [b"NOOP\n", b"NO\rOP\r\n", b"NOOP\r\r\n", b"\n", b"MAIL FROM:<a@src.test>\nRCPT\r\n"]
)
async def test_a_command_with_another_end_closes(line: bytes) -> None:
    desk = Desk()
    async with probing(desk) as listener, await greeted(listener.port) as client:
        client.send(line, b"NOOP\r\n")
        assert await client.rest() == b"500 5.5.2 A command ends with CRLF (RFC 5321 2.3.8)\r\n"


async def test_a_content_too_large_whose_rest_looks_like_its_end_and_commands() -> None:
    desk = Desk()
    async with probing(desk, message_size=1000) as listener, await opened(listener.port) as client:
        for octets in (b"a" * 1100 + b"text.\r\nM", SMUGGLED, b"b" * 1100 + b"\r\n..\r\n", b"\r\n.", b"\r\n"):
            before = desk.octets
            client.send(octets)
            await desk.until(octets=before + len(octets))
        assert str(await client.reply()) == "552 5.3.4 The message is larger than 1000 octets"
        assert await client.ask("NOOP") == "250 2.0.0 OK"
    assert desk.contents == []


# Dots


TAIL = b"o\r\n.\r\n"


@pytest.mark.parametrize("content", [HEAD + b"hello\r\n", HEAD + b".hello\r\n"], ids=["plain", "dotted"])
async def test_the_final_dot_in_any_three_writes(content: bytes) -> None:
    desk = Desk()
    whole = stuffed(content)
    cuts = list(combinations(range(len(whole) - len(TAIL), len(whole)), 2))
    async with probing(desk) as listener, await greeted(listener.port) as client:
        for first, second in cuts:
            client.say(*ENVELOPE)
            await client.replies(3)
            for piece in (whole[:first], whole[first:second], whole[second:]):
                before = desk.octets
                client.send(piece)
                await desk.until(octets=before + len(piece))
            assert str(await client.reply()) == str(OK)
    assert desk.contents == [content] * len(cuts)


@pytest.mark.parametrize("content", [b"", b".\r\n", b"..\r\n", b"\r\n", b".\r\n.\r\n..\r\n...\r\n"], ids=repr)
async def test_a_content_of_nothing_or_only_dots_in_any_two_writes(content: bytes) -> None:
    desk = Desk()
    whole = stuffed(content)
    async with probing(desk) as listener, await greeted(listener.port) as client:
        for cut in range(1, len(whole)):
            client.say(*ENVELOPE)
            await client.replies(3)
            for piece in (whole[:cut], whole[cut:] + b"NOOP\r\n"):
                before = desk.octets
                client.send(piece)
                await desk.until(octets=before + len(piece))
            assert await client.replies(2) == [str(OK), "250 2.0.0 OK"]
    assert desk.contents == [content] * (len(whole) - 1)


async def test_an_empty_message_and_one_of_dots_have_no_author(tmp_path: Path) -> None:
    terms = settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox"))
    async with running(terms) as house, await greeted(house.network) as client:
        said = await client.deliver(b"")
        assert said == "550 5.6.0 The message has 0 From fields; it needs exactly one"
        said = await client.deliver(b".\r\n..\r\n")
        assert said == "550 5.6.0 Line 1 of the header is no field: ."
        assert (await client.deliver(HEAD + b".\r\n..\r\n.\r\n")).startswith("250 ")
        await house.event(type="delivery")
    assert kept(tmp_path) == [HEAD + b".\r\n..\r\n.\r\n"]


# What arrives is what was sent

LINES = st.lists(
    st.one_of(
        st.sampled_from([b"", b".", b"..", b". ", b"...", b".\0", b"QUIT"]),
        st.binary(max_size=20).map(lambda line: line.replace(b"\r", b"").replace(b"\n", b"")),
    ),
    max_size=12,
)


def content_of(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\r\n" for line in lines)


@given(LINES)
def test_what_is_stuffed_has_one_end_and_unstuffs_to_itself(lines: list[bytes]) -> None:
    content = content_of(lines)
    wire = stuff(content)
    assert unstuff(wire) == content
    assert (b"\r\n" + wire + b".\r\n").find(b"\r\n.\r\n") == len(wire)


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a"]), max_size=30).map(b"".join))
def test_what_is_mended_has_no_bare_newline_and_is_mended_once(octets: bytes) -> None:
    mended = normalise_newlines(octets)
    assert not has_bare_newline(mended)
    assert normalise_newlines(mended) == mended
    assert has_bare_newline(octets) == (mended != octets)


async def test_many_contents_in_one_write_arrive_octet_by_octet(tmp_path: Path) -> None:
    dice = random.Random(5321)
    atoms = [b".", b"..", b"\r\n", b"\r\n.", b"\r\n..", b"\r\n\r\n", b" ", b"QUIT", b"\xff", b"Bcc: x"]
    contents = [HEAD + b"".join(dice.choices(atoms, k=dice.randrange(40))) + b"\r\n" for _ in range(120)]
    session = [b"".join(line.encode() + b"\r\n" for line in ENVELOPE) + stuffed(each) for each in contents]
    async with running(settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox"))) as house:
        async with await greeted(house.network) as client:
            client.send(*session, b"QUIT\r\n")
            for _ in contents:
                assert (await client.replies(4))[3].startswith("250 2.0.0 Ok: queued as ")
            assert await client.rest() == b"221 2.0.0 Bye\r\n"
        await house.event(len(contents), type="delivery")
    assert sorted(kept(tmp_path)) == sorted(contents)
