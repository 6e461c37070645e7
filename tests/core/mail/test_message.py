"""The octets of a message: line ends, dots, and where the header block ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.core.mail.message import (
    Mending,
    has_bare_newline,
    header_block,
    normalise_newlines,
    stuff,
    unstuff,
)


@pytest.mark.parametrize(
    ("octets", "bare"),
    [
        (b"", False),
        (b"a", False),
        (b"a\r\nb\r\n", False),
        (b"\n", True),
        (b"\r", True),
        (b"\n\r", True),
        (b"\r\r\n", True),
        (b"\r\n\n", True),
        (b"\r\n\r", True),
        (b"a\r\n" * 9 + b"\rb", True),
        (b"\x85\x0b\x0c\x1c\xe2\x80\xa8\r\n", False),  # ends of lines for others, not for SMTP
    ],
)
def test_a_newline_that_stands_alone(octets: bytes, bare: bool) -> None:
    assert has_bare_newline(octets) is bare


@pytest.mark.parametrize(
    ("octets", "mended"),
    [
        (b"a\nb\rc\r\nd", b"a\r\nb\r\nc\r\nd"),
        (b"\r\r\n\n", b"\r\n\r\n"),
        (b"\n\r", b"\r\n\r\n"),
        (
            b"a\r\r\r\r\nb",
            b"a\r\nb",
        ),  # what programs make that put a CR before each line end, again and again
        (b"\r\r\ra", b"\r\n\r\n\r\na"),
        (b"\r\r", b"\r\n\r\n"),
        (b"", b""),
    ],
)
def test_newlines_are_mended(octets: bytes, mended: bytes) -> None:
    assert normalise_newlines(octets) == mended


WIRE = st.one_of(
    st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a", b"\0"]), max_size=30).map(b"".join),
    st.binary(max_size=40),
)


@given(WIRE, st.lists(st.integers(0, 5), max_size=40), st.booleans())
def test_a_content_in_slices_is_mended_as_the_whole_is(
    wire: bytes, sizes: list[int], normalise: bool
) -> None:
    mending = Mending(normalise)
    rest = wire
    for size in sizes:
        mending.feed(rest[:size])
        rest = rest[size:]
    mending.feed(rest)
    mending.finish()
    whole = normalise_newlines(wire) if normalise else wire
    assert b"".join(mending.pieces) == unstuff(whole)
    assert mending.size == len(unstuff(whole))
    assert mending.has_bare_newline == has_bare_newline(wire)
    assert mending.has_nul == (b"\0" in wire)
    assert mending.dotted == (unstuff(whole) != whole)


def test_a_run_of_returns_without_end_takes_no_memory() -> None:
    mending = Mending(normalise=True)
    for _ in range(1000):
        mending.feed(b"\r" * 1000)
    assert mending.pieces == []
    mending.feed(b"\na")
    assert mending.pieces == [b"\r\na"]
    for _ in range(1000):
        mending.feed(b"\r" * 1000)
    mending.feed(b".b")
    assert b"".join(mending.pieces) == b"\r\na" + b"\r\n" * 1_000_000 + b"b"
    assert len(mending.pieces[1]) < 1_000_000
    assert mending.pieces[1] is mending.pieces[2]


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"", b""),
        (b".\r\n", b"..\r\n"),
        (b"a.\r\n.b\r\n", b"a.\r\n..b\r\n"),
        (b".\r\n.\r\n", b"..\r\n..\r\n"),
        (b"\r\n.\r\n", b"\r\n..\r\n"),
    ],
)
def test_dots_are_stuffed_and_unstuffed(content: bytes, wire: bytes) -> None:
    assert stuff(content) == wire
    assert unstuff(wire) == content


@pytest.mark.parametrize(
    ("content", "block"),
    [
        (b"", b""),
        (b"\r\nbody\r\n", b""),
        (b"A: b\r\n\r\nbody\r\n", b"A: b\r\n"),
        (b"A: b\r\n", b"A: b\r\n"),
        (b"A: b\r\n \r\n\r\nbody", b"A: b\r\n \r\n"),
    ],
)
def test_where_the_header_block_ends(content: bytes, block: bytes) -> None:
    assert header_block(content) == block
