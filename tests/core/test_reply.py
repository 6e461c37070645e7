"""Octets that a peer sent -> replies, whatever the slices."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.core.model import Reply
from mta.core.reply import MAX_LINE, MAX_REPLY, ReplyError, ReplyParser


def parse(octets: bytes, cuts: list[int] | None = None) -> tuple[list[Reply], str]:
    """The replies, and what was wrong in the end."""
    parser = ReplyParser()
    replies: list[Reply] = []
    places = [0, *sorted(cut % (len(octets) + 1) for cut in cuts or []), len(octets)]
    try:
        for begin, end in pairwise(places):
            replies.extend(parser.feed(octets[begin:end]))
    except ReplyError as error:
        return replies, str(error)
    return replies, ""


@pytest.mark.parametrize(
    ("octets", "reply"),
    [
        (b"250 ok\r\n", Reply(250, "", "ok")),
        (b"250 2.0.0 ok\r\n", Reply(250, "2.0.0", "ok")),
        (b"250 2.0.0\r\n", Reply(250, "2.0.0", "")),
        (b"250\r\n", Reply(250, "", "")),
        (b"250 \r\n", Reply(250, "", "")),
        (b"250 ok\n", Reply(250, "", "ok")),
        (b"550 5.1.1  twice  spaced \r\n", Reply(550, "5.1.1", "twice  spaced")),
        (b"550 5.1.1\ttab\r\n", Reply(550, "5.1.1", "tab")),
        (b"550 6.1.1 no class\r\n", Reply(550, "", "6.1.1 no class")),
        (b"550 5.1.1234 too long\r\n", Reply(550, "", "5.1.1234 too long")),
        (b"550 5.1.1text\r\n", Reply(550, "", "5.1.1text")),
        (b"250-a\r\n250-b\r\n250 c\r\n", Reply(250, "", "a\nb\nc")),
        (b"550-5.7.1 a\r\n550-5.7.1 b\r\n550 5.7.1 c\r\n", Reply(550, "5.7.1", "a\nb\nc")),
        (b"550-5.7.1 a\r\n550 b\r\n", Reply(550, "5.7.1", "a\nb")),
        (b"250-a\r\n250\r\n", Reply(250, "", "a\n")),
        (b"550 caf\xe9\r\n", Reply(550, "", "caf�")),
        ("550 grüße\r\n".encode(), Reply(550, "", "grüße")),
    ],
)
def test_one_reply(octets: bytes, reply: Reply) -> None:
    assert parse(octets) == ([reply], "")


@pytest.mark.parametrize(
    ("octets", "fault"),
    [
        (b"hello\r\n", "not a reply: b'hello\\r'"),
        (b"\r\n", "not a reply: b'\\r'"),
        (b"25 ok\r\n", "not a reply: b'25 ok\\r'"),
        (b"2500 ok\r\n", "not a reply: b'2500 ok\\r'"),
        (b"199 ok\r\n", "not a reply: b'199 ok\\r'"),
        (b"600 ok\r\n", "not a reply: b'600 ok\\r'"),
        (b"250ok\r\n", "not a reply: b'250ok\\r'"),
        (b"250 a\rb\r\n", "not a reply: b'250 a\\rb\\r'"),
        (b"\xff\xfe\r\n", "not a reply: b'\\xff\\xfe\\r'"),
        (b"250-a\r\n251 b\r\n", "a reply with two codes: b'250-a\\r'"),
        (b"250-a\r\nhello\r\n", "not a reply: b'hello\\r'"),
    ],
)
def test_no_reply(octets: bytes, fault: str) -> None:
    assert parse(octets) == ([], fault)
    assert parse(b"250 ok\r\n" + octets) == ([Reply(250, "", "ok")], fault)


def test_a_line_without_an_end_is_stopped() -> None:
    assert parse(b"x" * MAX_LINE) == ([], "")
    assert parse(b"x" * (MAX_LINE + 1)) == ([], "a reply line without an end")
    assert parse(b"250 " + b"x" * MAX_LINE + b"\r\n")[1].startswith("not a reply: b'250 xxx")


def test_a_reply_without_an_end_is_stopped() -> None:
    parser = ReplyParser()
    line = b"250-" + b"x" * 1000 + b"\r\n"
    for _ in range(MAX_REPLY // len(line)):
        assert list(parser.feed(line)) == []
    with pytest.raises(ReplyError, match=r"^a reply without an end$"):
        list(parser.feed(line))


LINES = st.one_of(
    st.sampled_from(
        [b"250 ok", b"250-more", b"250 2.0.0 ok", b"550-5.1.1 a", b"550 5.1.1 b", b"421 bye", b"250"]
    ),
    st.binary(max_size=20).map(lambda octets: octets.replace(b"\n", b"")),
)
STREAMS = st.lists(LINES, max_size=8).map(lambda lines: b"".join(line + b"\r\n" for line in lines))


@given(STREAMS, st.lists(st.integers(0, 1000), max_size=5))
def test_any_slices_give_the_same_replies(octets: bytes, cuts: list[int]) -> None:
    whole = parse(octets)
    assert parse(octets, cuts) == whole
    assert parse(octets, list(range(len(octets)))) == whole


@given(st.binary(max_size=200), st.lists(st.integers(0, 1000), max_size=5))
def test_nothing_but_a_reply_error(octets: bytes, cuts: list[int]) -> None:
    replies, _ = parse(octets, cuts)
    assert all(200 <= reply.code < 600 for reply in replies)
