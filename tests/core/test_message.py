"""The header block: what is found in it, what is put on top and taken out, and whose mail it says it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.core.message import (
    MAX_FIELDS,
    HeaderError,
    Mending,
    begun,
    has_bare_newline,
    header_block,
    normalise_newlines,
    scan,
    stamp,
    stuff,
    unstuff,
)

LIMIT = 10_000  # octets of a header block


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


def test_fields_are_found_in_any_case_folded_and_only_in_the_header_block() -> None:
    found = scan(
        b"RECEIVED: x\r\nreceived:y\r\n\tz\r\nReceived-SPF: x\r\nFrom : a@b.test\r\n (folded)\r\n"
        b"X-From: c\r\nSubject: x\r\n Date: hidden\r\nmessage-id:\r\n <m@b.test>\r\n"
        b"\r\nDate: body\r\nFrom: d\r\nBcc: e\r\n",
        LIMIT,
    )
    assert found.hops == 2
    assert found.froms == [b"a@b.test\r\n (folded)"]
    assert found.message_id == b"<m@b.test>"
    assert not found.has_date
    assert found.out == []


def test_an_empty_message_has_nothing() -> None:
    assert scan(b"", LIMIT) == ([], None, False, 0, [])
    assert scan(b"\r\nFrom: a@b.test\r\n", LIMIT) == ([], None, False, 0, [])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"A: b\r\n\r\nbody\r\n", b"A: b\r\n\r\nbody\r\n"),
        (b"Bcc: x\r\nA: b\r\n\r\n", b"A: b\r\n\r\n"),
        (b"A: b\r\nbcc: x\r\n\ty\r\n z\r\n\r\nBcc: body\r\n", b"A: b\r\n\r\nBcc: body\r\n"),
        (b"BCC:\r\n x\r\nA: b\r\nBcc :y\r\nC: d\r\n\r\n", b"A: b\r\nC: d\r\n\r\n"),
        (b"Resent-Bcc: x\r\nResent-To: y\r\n\r\n", b"Resent-To: y\r\n\r\n"),
        (b"A: b\r\nBcc: x\r\n", b"A: b\r\n"),
        (b"A: b\r\nBcc: x", b"A: b\r\n"),
        (b"A: b\r\n Bcc: folded\r\nX-Bcc: x\r\nBcc-To: y\r\n\r\n", None),
    ],
)
def test_a_blind_copy_is_taken_out_and_nothing_else(content: bytes, expected: bytes | None) -> None:
    stamped = b"".join(stamp([content], scan(content, LIMIT), b"New: field\r\n"))
    assert stamped == b"New: field\r\n" + (content if expected is None else expected)


FIELDS = [b"Bcc: x", b"BCC:", b"bcc : y", b" folded", b"\tbcc: z", b"From: a@b.test", b"A: b", b"", b"Bcc"]
LINES = st.lists(st.sampled_from(FIELDS), max_size=12).map(
    lambda lines: b"".join(line + b"\r\n" for line in lines)
)


@given(LINES, st.binary(max_size=20))
def test_whatever_the_header_block_no_blind_copy_stays_and_the_body_does(head: bytes, body: bytes) -> None:
    content = head + b"\r\n" + body
    block = header_block(content)
    stamped = b"".join(stamp([content], scan(content, LIMIT), b""))
    assert scan(stamped, LIMIT).out == []
    assert stamped.endswith(content[len(block) :])


@given(st.binary())
def test_any_octets_can_be_scanned(content: bytes) -> None:
    header = scan(content, LIMIT)
    assert b"".join(stamp([content], header, b"X: y\r\n")).startswith(b"X: y\r\n")


@given(LINES, st.lists(st.integers(1, 9), max_size=12), st.integers(0, 60))
def test_whatever_the_pieces_the_first_has_the_header_block(head: bytes, cuts: list[int], size: int) -> None:
    content = head + b"\r\nbody\r\n"
    pieces, rest = [], content
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    together = begun([*pieces, rest], size)
    assert b"".join(together) == content
    assert len(together[0]) >= min(size, len(content))
    whole = begun(together, len(content))
    assert b"".join(stamp(whole, scan(whole[0], LIMIT), b"X: y\r\n")).startswith(b"X: y\r\n")


@pytest.mark.parametrize("end", [b"", b"\r\n", b"\r\nbody\r\n" * 9])
def test_a_header_block_over_its_limit(end: bytes) -> None:
    line = b"Subject: x\r\n"
    assert scan(line * 4 + end, 4 * len(line)).froms == []
    with pytest.raises(HeaderError, match="47 octets"):
        scan(line * 4 + end, 4 * len(line) - 1)


def test_a_header_block_with_too_many_fields() -> None:
    folded = b"a:\r\n b\r\n\tc\r\n"
    assert scan(folded * MAX_FIELDS + b"\r\n", 2**20).froms == []
    for one_more in (folded * MAX_FIELDS + b"x:\r\n", b"x:\r\n" + folded * MAX_FIELDS + b"\r\nbody\r\n"):
        with pytest.raises(HeaderError, match="10000 fields"):
            scan(one_more, 2**20)
