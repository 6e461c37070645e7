"""The header block: what is found in it, what is put on top and taken out, and whose mail it says it is."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.core.message import (
    from_addresses,
    has_bare_newline,
    header_block,
    normalise_newlines,
    scan,
    stamp,
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
        (b"\r\r\n\n", b"\r\n\r\n\r\n"),
        (b"\n\r", b"\r\n\r\n"),
    ],
)
def test_newlines_are_mended(octets: bytes, mended: bytes) -> None:
    assert normalise_newlines(octets) == mended


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
        b"\r\nDate: body\r\nFrom: d\r\nBcc: e\r\n"
    )
    assert found.hops == 2
    assert found.froms == [b"a@b.test\r\n (folded)"]
    assert found.message_id == b"<m@b.test>"
    assert not found.has_date
    assert found.out == []


def test_an_empty_message_has_nothing() -> None:
    assert scan(b"") == ([], None, False, 0, [])
    assert scan(b"\r\nFrom: a@b.test\r\n") == ([], None, False, 0, [])


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
    stamped = stamp(content, scan(content), b"New: field\r\n")
    assert stamped == b"New: field\r\n" + (content if expected is None else expected)


FIELDS = [b"Bcc: x", b"BCC:", b"bcc : y", b" folded", b"\tbcc: z", b"From: a@b.test", b"A: b", b"", b"Bcc"]
LINES = st.lists(st.sampled_from(FIELDS), max_size=12).map(
    lambda lines: b"".join(line + b"\r\n" for line in lines)
)


@given(LINES, st.binary(max_size=20))
def test_whatever_the_header_block_no_blind_copy_stays_and_the_body_does(head: bytes, body: bytes) -> None:
    content = head + b"\r\n" + body
    block = header_block(content)
    stamped = stamp(content, scan(content), b"")
    assert scan(stamped).out == []
    assert stamped.endswith(content[len(block) :])


@given(st.binary())
def test_any_octets_can_be_scanned(content: bytes) -> None:
    header = scan(content)
    assert stamp(content, header, b"X: y\r\n").startswith(b"X: y\r\n")


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        (b"a@b.test", ["a@b.test"]),
        (b"<a@b.test>", ["a@b.test"]),
        (b"  A B <a@b.test>  ", ["a@b.test"]),
        (b'"A, <x@y.test>" <a@b.test>', ["a@b.test"]),
        (b"A\r\n\t<a@b.test>", ["a@b.test"]),
        (b"a@b.test, <c@d.test>", ["a@b.test", "c@d.test"]),
        (b"us: a@b.test, c@d.test;", ["a@b.test", "c@d.test"]),
        (b"(c) a@b.test (d)", ["a@b.test"]),
        ("Jörg <jörg@bücher.test>".encode(), ["jörg@bücher.test"]),
        (b"x@y.test <a@b.test>", []),
        (b"<a@b.test> <c@d.test>", []),
        (b"<@x.test:a@b.test>", []),
        (b"a@b.test (", []),
        (b"us:;", []),
        (b"", []),
        (b"<", []),
        (b'"', []),
        (b"a", []),
        (b"," * 100, []),
    ],
)
def test_whose_mail_it_says_it_is(value: bytes, addresses: list[str]) -> None:
    assert from_addresses(value) == addresses


TOKENS = st.lists(
    st.sampled_from(
        [b"a@b.test", *map(str.encode, '<>"()@,:;\\ .[]xö'), b"\r\n ", b"=?utf-8?q?", b"?=", b"\xff"]
    ),
    max_size=12,
).map(b"".join)


@given(st.one_of(TOKENS, st.binary(max_size=40)))
def test_any_octets_give_addresses_or_none(value: bytes) -> None:
    assert all("@" in each or each for each in from_addresses(value.strip()))


@pytest.mark.parametrize(
    "value",
    [
        b"(" * 8000,
        b"a" + b" " * 1_000_000 + b"!",
        b"a@b.test," * 100_000,
        b'"' + b"a" * 1_000_000,
        b"<" + b"a" * 1_000_000,
        b"a" * 1_000_000 + b"@",
    ],
)
def test_a_field_without_end_is_given_up_at_once(value: bytes) -> None:
    started = time.process_time()
    assert from_addresses(value) == []
    assert time.process_time() - started < 0.5
