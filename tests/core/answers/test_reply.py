"""Octets that a peer sent -> replies, whatever the slices."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.core.answers.reply import MAX_LINE, MAX_REPLY, MAX_TEXT, ReplyError, ReplyParser, reply_of
from mta.core.model import Reply


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
        (b"250-a\r\n251 b\r\n", Reply(251, "", "a\nb")),  # RFC 5321 4.2.1: they should be equal
        (b"550-5.1.1 a\r\n550 5.1.10 b\r\n", Reply(550, "5.1.1", "a\nb")),
        (b"550-a\r\n550 5.1.10 b\r\n", Reply(550, "5.1.10", "a\nb")),
        (b"250 a\rb\r\n", Reply(250, "", "a b")),
        (b"250 a\0b\r\n", Reply(250, "", "a\ufffdb")),
        (b"550 caf\xe9\r\n", Reply(550, "", "caf�")),
        ("550 grüße\r\n".encode(), Reply(550, "", "grüße")),
    ],
)
def test_one_reply(octets: bytes, reply: Reply) -> None:
    assert parse(octets) == ([reply], "")


@pytest.mark.parametrize(
    ("octets", "fault"),
    [
        (b"hello\r\n", "what is no reply: 'hello'"),
        (b"25 ok\r\n", "what is no reply: '25 ok'"),
        (b"2500 ok\r\n", "what is no reply: '2500 ok'"),
        (b"199 ok\r\n", "what is no reply: '199 ok'"),
        (b"600 ok\r\n", "what is no reply: '600 ok'"),
        (b"250ok\r\n", "what is no reply: '250ok'"),
        (b"\xff\xfe\r\n", "what is no reply: '\\xff\\xfe'"),
        (b"250-a\r\n450 b\r\n", "a reply with two codes: '250-a / 450 b'"),
        (b"250-a\r\nhello\r\n", "what is no reply: 'hello'"),
    ],
)
def test_no_reply(octets: bytes, fault: str) -> None:
    assert parse(octets) == ([], fault)
    assert parse(b"250 ok\r\n" + octets) == ([Reply(250, "", "ok")], fault)


def test_an_empty_line_is_no_reply() -> None:
    assert parse(b"\r\n\n250 ok\r\n \t\r\n250-a\r\n\r\n250 b\r\n\r\n") == (
        [Reply(250, "", "ok"), Reply(250, "", "a\nb")],
        "",
    )
    assert parse(b"\r\n" * MAX_REPLY)[1].startswith("a reply without an end")


@pytest.mark.parametrize("cuts", [[], [1, 2000, 9000], [60_000]])
def test_a_reply_that_is_too_long_is_one_and_its_code_counts(cuts: list[int]) -> None:
    """A message whose 2yz was too long was sent ten times."""
    for length in (MAX_LINE - 4, MAX_LINE, 3000, 60_000):
        (reply,), fault = parse(b"250 2.0.0 " + b"x" * length + b"\r\n", cuts)
        assert (reply.code, reply.enhanced, fault) == (250, "2.0.0", "")
        assert 0 < len(reply.text) <= MAX_TEXT
    lines = b"".join(b"550-5.7.1 line %d\r\n" % number for number in range(3000)) + b"550 5.7.1 end\r\n"
    (reply,), fault = parse(lines, cuts)
    assert (reply.code, reply.enhanced, len(reply.text), fault) == (550, "5.7.1", MAX_TEXT, "")


@pytest.mark.parametrize("line", [b"250-" + b"x" * 1000 + b"\r\n", b"x", b"250 " + b"x" * 9000, b"\r\n"])
def test_a_reply_without_an_end_is_stopped(line: bytes) -> None:
    parser = ReplyParser()
    for _ in range(MAX_REPLY // len(line) - 1):
        assert list(parser.feed(line)) == []
    with pytest.raises(ReplyError, match=r"^a reply without an end: "):
        list(parser.feed(line * 3))


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


def test_lines_that_another_parser_has_joined() -> None:
    assert reply_of(550, "5.7.1 a\n5.7.1 b") == Reply(550, "5.7.1", "a\nb")
    assert len(reply_of(550, "x" * 100_000).text) == MAX_TEXT
