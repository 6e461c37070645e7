"""The header block: what is refused, what is taken out, and what is put on top, row by row of one table."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mta.core.mail.header import (
    MAX_FIELDS,
    TABLE,
    Fate,
    Header,
    HeaderError,
    addable,
    begun,
    scan,
    stamp,
    values,
)
from mta.core.mail.message import header_block
from mta.core.model import Reply

LIMIT = 10_000  # octets of a header block
DOCUMENT = Path(__file__).parents[3] / "docs" / "headers.md"
FROM = b"From: a@b.test\r\n"
DATE, ID = b"Date: today\r\n", b"Message-ID: <1@b.test>\r\n"


def passed(content: bytes, fields: bytes = b"") -> bytes:
    return b"".join(stamp([content], scan(content, LIMIT), fields))


def judged(content: bytes, limit: int = LIMIT) -> Header | Reply:
    try:
        return scan(content, limit)
    except HeaderError as error:
        return error.reply


def refused(content: bytes, limit: int = LIMIT) -> str:
    with pytest.raises(HeaderError) as error:
        scan(content, limit)
    return str(error.value.reply)


def signed(*names: str) -> bytes:
    return f"DKIM-Signature: v=1; a=rsa-sha256;\r\n\th={':'.join(names)};\r\n\tb=aGk=\r\n".encode()


def test_the_document_has_the_table_of_the_code() -> None:
    rows = re.findall(r"(?m)^\| (.+?) \| (.+?) \|$", DOCUMENT.read_text(encoding="utf-8"))[1:]
    assert rows == [(row.what, row.fate.value) for row in TABLE]


# What is refused


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b" From: a@b.test\r\n", "The header begins with a blank"),
        (b"\tfolded\r\n" + FROM, "The header begins with a blank"),
        (b" \r\n" + FROM, "The header begins with a blank"),
        (b"From a\r\n folded\r\n" + FROM, "The header begins with a blank"),
        (FROM + b"Hello Bob,\r\n", "Line 2 of the header is no field: Hello Bob,"),
        (FROM + b"A: b\r\n c\r\nSubject\r\n\r\n", "Line 4 of the header is no field: Subject"),
        (b": x\r\n" + FROM, "Line 1 of the header is no field: : x"),
        (b" x\r\n", "The header begins with a blank"),
        (FROM + b"A B: c\r\n", "Line 2 of the header is no field: A B: c"),
        (FROM + b"\xc3\xa4: c\r\n", "Line 2 of the header is no field: \u00e4: c"),
        (FROM + b"A\x0b: c\r\n", "Line 2 of the header is no field: A?: c"),
        (FROM + b"From b@b.test  Sat Jan  3 01:05:34 1996\r\n", "Line 2 of the header is no field: From b"),
        (FROM + b"\x1b[2J\xe2\x80\xae\r\n", "Line 2 of the header is no field: ?[2J?"),
        (FROM + b"x" * 5000, "Line 2 of the header is no field: " + "x" * 40),
        (b"", "The message has 0 From fields; it needs exactly one"),
        (b"\r\nFrom: a@b.test\r\n", "The message has 0 From fields; it needs exactly one"),
        (b"From a\r\n", "The message has 0 From fields; it needs exactly one"),
        (b"From a\r\n\r\nFrom: a@b.test", "The message has 0 From fields; it needs exactly one"),
        (FROM * 3, "The message has 3 From fields; it needs exactly one"),
    ],
)
def test_what_can_be_read_in_two_ways_or_in_none(content: bytes, said: str) -> None:
    whole = refused(content)
    assert whole.startswith(f"550 5.6.0 {said}")
    assert whole.isprintable()


@pytest.mark.parametrize("name", ["From", "Sender", "Subject", "To", "Cc", "Reply-To"])
def test_a_field_that_may_stand_there_once_stands_there_twice(name: str) -> None:
    field = f"{name}: a@b.test\r\n".encode()
    other = b"" if name == "From" else FROM
    assert scan(field + other, LIMIT).authors[0] == ("From", b"a@b.test")
    for twin in (field, field.upper(), f"{name} \t:\r\n".encode(), field.lower()):
        assert refused(field + b"A: b\r\n" + twin + other).startswith(
            f"550 5.6.0 The message has 2 {name} fields; it "
        )
    assert scan(field + other + b" " + field + b"X-" + field + b"\r\n" + field, LIMIT)


@pytest.mark.parametrize("end", [b"", b"\r\n", b"\r\nbody\r\n" * 9])
def test_a_header_block_over_its_limit(end: bytes) -> None:
    line = b"A-Name: xy\r\n"
    content = FROM + line * 4 + end
    assert scan(content, len(FROM) + 4 * len(line)).authors
    said = refused(content, len(FROM) + 4 * len(line) - 1)
    assert said == "552 5.6.0 The header block is larger than 63 octets"


def test_a_header_block_with_too_many_fields() -> None:
    folded = b"a:\r\n b\r\n\tc\r\n"
    known = FROM + folded * (MAX_FIELDS - 1)
    assert scan(known + b"\r\n", 2**20).authors
    for one_more in (known + b"x:\r\n", b"x:\r\n" + known + b"\r\nbody\r\n"):
        assert refused(one_more, 2**20) == "552 5.6.0 The header block is larger than 10000 fields"


# What is found


def test_fields_are_found_in_any_case_folded_and_only_in_the_header_block() -> None:
    found = scan(
        b"RECEIVED: x\r\nreceived:y\r\n\tz\r\nReceived-SPF: x\r\nFrom : A@b.test\r\n (folded)\r\n"
        b"X-From: c\r\nSubject: x\r\n Date: hidden\r\nmessage-id:\r\n <M@b.test>\r\n"
        b"resent-FROM: d@b.test\r\nSENDER:e@b.test\r\nResent-Sender: f\r\nResent-From: g\r\n"
        b"\r\nDate: body\r\nFrom: d\r\nBcc: e\r\n",
        LIMIT,
    )
    assert replace(found, fields=[]) == Header(
        [
            ("From", b"a@b.test\r\n (folded)"), ("Sender", b"e@b.test"), ("Resent-From", b"d@b.test"),
            ("Resent-From", b"g"), ("Resent-Sender", b"f"),
        ],
        b"<M@b.test>", True, False, 2, [], "",
    )  # fmt: skip


@pytest.mark.parametrize("twice", [b"", b"List-Unsubscribe: <z>\r\n", b"To: a\r\nBcc: b\r\n"])
def test_what_others_ask_for_is_found_in_the_same_pass(twice: bytes) -> None:
    found = scan(
        FROM + b"LIST-Unsubscribe : <X>,\r\n <Y>\r\n" + twice
        + b"list-unsubscribe-post:z\r\nX-List-Unsubscribe: q\r\n"
        b"DKIM-Signature: h=from:feedback-id\r\n\r\nList-Unsubscribe: body\r\nCFBL-Address: body\r\n",
        LIMIT,
    )  # fmt: skip
    assert found.is_list
    assert values(found, b"list-unsubscribe") == [b"<x>,\r\n <y>", b"<z>"][: 1 + twice.count(b"z")]
    assert values(found, b"list-unsubscribe-post") == [b"z"]
    assert not addable(found, b"feedback-id")  # a signature says that there is none
    assert addable(found, b"cfbl-address")
    assert not addable(found, b"list-unsubscribe")
    assert not scan(FROM + b"List-Unsubscribe-Post: z\r\n\r\n", LIMIT).is_list


# What is taken out


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (FROM + b"\r\nbody\r\n", None),
        (b"Bcc: x\r\n" + FROM + b"\r\n", FROM + b"\r\n"),
        (FROM + b"bcc: x\r\n\ty\r\n z\r\n\r\nBcc: body\r\n", FROM + b"\r\nBcc: body\r\n"),
        (b"BCC:\r\n x\r\n" + FROM + b"Bcc :y\r\nC: d\r\n\r\n", FROM + b"C: d\r\n\r\n"),
        (b"Resent-Bcc: x\r\nResent-To: y\r\n" + FROM, b"Resent-To: y\r\n" + FROM),
        (FROM + b"Bcc: x\r\n", FROM),
        (FROM + b"Bcc: x", FROM),
        (FROM + b" Bcc: folded\r\nX-Bcc: x\r\nBcc-To: y\r\n\r\n", None),
        (signed("from", "bcc") + b"Bcc: x\r\n" + FROM, signed("from", "bcc") + FROM),
        (b"Return-Path: <>\r\nreturn-path : x\r\n y\r\n" + FROM, FROM),
        (FROM + b"\r\nReturn-Path: body\r\n", None),
        (b"From a@b.test  Sat Jan  3 01:05:34 1996\r\n" + FROM, FROM),
        (b">From a\r\nFrom b\r\n>>From c: d\r\n" + FROM + b"\r\nFrom e\r\n", FROM + b"\r\nFrom e\r\n"),
        (b"From a\r\nBcc: x\r\n" + FROM, FROM),
        (b"From : a@b.test\r\n", None),
        (b"From \t: a@b.test\r\n", None),
        (b">From: a@b.test\r\n" + FROM, None),
        (DATE + FROM + b"Date: later\r\n", DATE + FROM),
        (b"date:\r\n \r\n" + FROM + DATE + b"Date:\r\n", FROM + DATE),
        (b"Message-ID:\t\r\n" + FROM, FROM),
        (ID + FROM + ID.upper() + ID.lower(), ID + FROM),
        (signed("from", "date", "date") + DATE + FROM + b"Date: later\r\n", None),
        (signed("from", "DATE", " date \r\n\t", "date") + DATE + FROM + b"Date: later\r\n", None),
        (
            signed("from", "date") + DATE + FROM + b"Date: later\r\n",  # it covers the last one
            signed("from", "date") + FROM + b"Date: later\r\n",
        ),
        (signed("date", "from") + signed("from") + b"Date:\r\n" + FROM, None),
        (signed("x-date", "dated") + DATE * 2 + FROM, signed("x-date", "dated") + DATE + FROM),
        (b"DKIM-Signature: h=date:date\r\n" + DATE * 2 + FROM, None),
        (b"DKIM-Signature: bh=date:date; xh=date:date\r\n" + DATE * 2 + FROM,
         b"DKIM-Signature: bh=date:date; xh=date:date\r\n" + DATE + FROM),
        (b"x" * 40 + b": " + b"y" * 2000 + b"\r\n" + FROM, None),
        (b"X-MTA-Tag: a,\r\n\tb\r\n" + FROM + b"x-mta-SCORE :\r\n 1\r\nX-MTA-Tag:", FROM),
        (signed("from", "x-mta-tag") + b"X-MTA-Tag: x\r\n" + FROM, signed("from", "x-mta-tag") + FROM),
        (FROM + b"X-MTA-Tags: x\r\nX-X-MTA-Tag: y\r\n\r\nX-MTA-Tag: body\r\n", None),
    ],
)  # fmt: skip
def test_what_does_not_go_on_is_taken_out_and_nothing_else(content: bytes, expected: bytes | None) -> None:
    assert passed(content, b"New: field\r\n") == b"New: field\r\n" + (
        content if expected is None else expected
    )


def test_fields_for_us_are_found_as_they_were_written_behind_lines_of_a_mailbox_too() -> None:
    found = scan(b"From a\r\nX-MTA-Tag: \xc3\x84,\r\n B\r\n" + FROM + b"x-mta-score:7\r\nx-mta-TAG:", LIMIT)
    assert sorted(found.ours) == [
        (b"x-mta-score", b"7"), (b"x-mta-tag", b""), (b"x-mta-tag", b"\xc3\x84,\r\n B"),
    ]  # fmt: skip


def test_of_two_the_one_that_stays_counts() -> None:
    twice = ID + FROM + b"Message-ID: <2@b.test>\r\n"
    assert scan(twice, LIMIT).message_id == b"<1@b.test>"
    assert scan(signed("message-id", "message-id") + twice, LIMIT).message_id == b"<1@b.test>"
    assert scan(signed("message-id") + twice, LIMIT).message_id == b"<2@b.test>"


# What is put on top


@pytest.mark.parametrize(
    ("content", "adds", "reason"),
    [
        (FROM, (True, True), ""),
        (DATE + ID + FROM, (False, False), ""),
        (DATE + b"Message-ID: \r\n\t\r\n" + FROM, (False, True), ""),
        (signed("from", "subject") + FROM, (True, True), ""),
        (signed("from", "date", "message-id") + DATE + ID + FROM, (False, False), ""),
        (signed("from", "date", "date") + DATE + FROM, (False, True), ""),
        (
            signed("from", "Date") + FROM,
            (False, True),
            "no Date was added: a DKIM-Signature of the application covers that field",
        ),
        (
            signed("from", "date") + b"Date: \r\n" + FROM + ID,
            (False, False),
            "no Date was added: a DKIM-Signature of the application covers that field",
        ),
        (
            FROM + signed("from") + signed("from", "date", "message-id"),
            (False, False),
            "no Date was added: a DKIM-Signature of the application covers that field; "
            "no Message-ID was added: a DKIM-Signature of the application covers that field",
        ),
    ],
)
def test_what_is_missing_is_added_but_not_under_a_signature(
    content: bytes, adds: tuple[bool, bool], reason: str
) -> None:
    header = scan(content, LIMIT)
    assert (header.adds_date, header.adds_message_id) == adds
    assert header.reason == reason


# Whatever comes


FIELDS = [
    b"Bcc: x", b"BCC:", b"bcc : y", b" folded", b"\tbcc: z", b"From: a@b.test", b"A: b", b"", b"Bcc",
    b"From a", b">From b", b"Date: x", b"DATE:", b"Message-ID: <y>", b"message-id:", b"Return-Path: <>",
    b"DKIM-Signature: v=1; h=from:date", b"DKIM-Signature: h=date:date:message-id; b=x", b"Sender: c@b.test",
    b"Subject:", b"Received: x", b"\xff: x", b" ", b"X-MTA-Tag: a", b"x-mta-score :", b"X-MTA-Tags: b",
]  # fmt: skip
LINES = st.lists(st.sampled_from(FIELDS), max_size=12).map(
    lambda lines: b"".join(line + b"\r\n" for line in lines)
)


def fields_of(block: bytes) -> list[bytes]:
    return re.findall(rb"(?m)^([!-9;-~]+)[ \t]*:", block.lower())


@given(LINES, st.sampled_from([b"", FROM]), st.binary(max_size=20))
def test_what_was_judged_once_has_nothing_more_to_take_out(head: bytes, more: bytes, body: bytes) -> None:
    content = more + head + b"\r\n" + body
    header = judged(content)
    if isinstance(header, Reply):
        assert header.enhanced == "5.6.0"
        return
    stamped = b"".join(stamp([content], header, b""))
    again = scan(stamped, LIMIT)
    assert replace(again, fields=[]) == replace(header, out=[], ours=(), fields=[])
    assert stamped.endswith(content[len(header_block(content)) :])  # the body, byte for byte
    left = fields_of(header_block(stamped))
    assert not {b"bcc", b"resent-bcc", b"return-path", b"x-mta-tag", b"x-mta-score"} & set(left)
    assert all(left.count(name) < 2 for name in (b"from", b"sender", b"subject"))
    if b"dkim-signature" not in left:
        assert all(left.count(name) == (not adds) for name, adds in (
            (b"date", header.adds_date), (b"message-id", header.adds_message_id)
        ))  # fmt: skip


@given(st.binary())
def test_any_octets_can_be_scanned(content: bytes) -> None:
    for octets in (content, FROM + content, content + FROM):
        header = judged(octets)
        if isinstance(header, Header):
            assert b"".join(stamp([octets], header, b"X: y\r\n")).startswith(b"X: y\r\n")
        else:
            assert header.code in (550, 552)


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


MEGABYTE = 2**20
ENDLESS: dict[str, Callable[[int], bytes]] = {
    "blanks before no colon": lambda n: FROM + b"a" + b" " * n,
    "a name": lambda n: FROM + b"a" * n,
    "lines that are nearly fields": lambda n: FROM + b"Bcc x\r\n" * (n // 7),
    "folds": lambda n: FROM + b"Bcc:" + b"\r\n x" * (n // 4),
    "folds of a mailbox file": lambda n: b"From x\r\n" * (n // 8) + FROM,
    "angles": lambda n: b">" * n,
    "signatures": lambda n: FROM + b"DKIM-Signature:h=\r\n" * min(n // 19, 4000),
    "a signature of semicolons": lambda n: FROM + b"DKIM-Signature:" + b"; " * (n // 2),
    "a signature of blanks": lambda n: FROM + b"DKIM-Signature:" + b" " * n + b"x",
    "a signature of names": lambda n: FROM + b"DKIM-Signature:h=" + b"date:" * (n // 5),
    "dates": lambda n: FROM + b"Date:\r\n" * min(n // 7, 9000),
}


@pytest.mark.parametrize("shape", ENDLESS)
def test_the_work_grows_with_the_octets_and_no_faster(shape: str) -> None:
    """Quadratic work on a megabyte would take minutes, and the suite's time-out would end it."""
    header = judged(ENDLESS[shape](MEGABYTE), 2 * MEGABYTE)
    assert isinstance(header, Header) or header.code in (550, 552)


def test_every_name_of_a_row_is_what_the_row_says() -> None:
    for row in TABLE:
        for name in row.names:
            if row.fate not in (Fate.TOLD, Fate.ONE_STAYS, Fate.ADDED):
                assert f"`{name.decode()}`" in row.what.lower()
