"""The X-MTA fields: what is understood, and that whatever is not is a refusal of one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.core.mail.carried import (
    MAX_DEPTH,
    MAX_METADATA,
    MAX_SCORE,
    MAX_TAG,
    MAX_TAGS,
    MAX_WRITTEN,
    NOTHING,
    Carried,
    metadata,
    read,
    tags,
)
from mta.core.mail.header import TABLE, Fate, HeaderError, scan
from mta.core.mail.text import fit

NOW = 1_700_000_000.0  # 2023-11-14T22:13:20Z
STREAMS = ("transactional", "bulk")
LATER = "write a time like 2026-12-24T18:00:00Z"


def said(*lines: str | bytes) -> Carried:
    """What the fields of a header block say."""
    block = b"".join((line if isinstance(line, bytes) else line.encode()) + b"\r\n" for line in lines)
    return read(scan(b"From: a@b.test\r\n" + block, 2**20).ours, STREAMS)


def refused(*lines: str | bytes) -> str:
    with pytest.raises(HeaderError) as error:
        said(*lines)
    reply = str(error.value.reply)
    assert reply.isprintable()
    assert len(reply.encode()) < 500
    return reply


def test_mail_without_such_fields_carries_nothing() -> None:
    assert said("Subject: x", "X-MTA: y", "X-MTA-Tags: z", "X-X-MTA-Tag: z") is NOTHING


def test_everything_that_a_message_may_carry() -> None:
    found = said(
        "x-mta-stream: bulk", "X-MTA-TAG: spring, Übung", "X-Mta-Metadata : { \"a\": [1, 2.50] }",
        "X-MTA-Send-At: 2023-11-14T23:13:25+01:00", "X-MTA-Expires: 2023-11-15T22:13:20.5Z",
        "X-MTA-Score: 70", "X-MTA-Require-TLS: Yes", "X-MTA-Tag: third",
    )  # fmt: skip
    assert found == Carried(
        "bulk", ("spring", "Übung", "third"), '{"a":[1,2.5]}', NOW + 5, NOW + 86400.5, 70, True
    )


def test_every_field_of_the_table_is_understood() -> None:
    names = {name for row in TABLE if row.fate is Fate.OBEYED for name in row.names}
    for name in names:
        assert refused(name + b":").startswith("550 5."), name


# Folded and encoded


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["X-MTA-Tag: one,", "\ttwo,", " three"], ("one", "two", "three")),
        (["X-MTA-Tag:", " spring", "\tsale"], ("spring sale",)),
        (["X-MTA-Tag: =?utf-8?q?=C3=9Cbung=2C_zwei?="], ("Übung", "zwei")),
        (["X-MTA-Tag: =?UTF-8?B?w5w=?=", " =?utf-8?b?YnVuZw==?="], ("Übung",)),
        (["X-MTA-Tag: =?utf-8?b?w4M=?= =?utf-8?b?w5w=?="], ("ÃÜ",)),
        (["X-MTA-Tag: =?utf-8?b?ww==?= =?utf-8?b?nA==?="], ("Ü",)),  # a letter cut in two
        (["X-MTA-Tag: =?utf-8*en?q?a?= b"], ("a b",)),
        (["X-MTA-Tag: =?iso-8859-1?q?=DC?="], ("Ü",)),
        (["X-MTA-Tag: a=?utf-8?q?b?="], ("a=?utf-8?q?b?=",)),
        (["X-MTA-Tag: =?utf-8?x?b?="], ("=?utf-8?x?b?=",)),
        (["X-MTA-Tag: =?"], ("=?",)),
    ],
)
def test_what_was_folded_or_encoded_is_what_was_meant(lines: list[str], expected: tuple[str, ...]) -> None:
    assert said(*lines).tags == expected


@given(st.dictionaries(st.text(max_size=9), st.text(max_size=90) | st.integers() | st.none(), max_size=9))
def test_what_pythons_library_makes_of_metadata_is_what_was_set(value: dict[str, Any]) -> None:
    """It folds at blanks, and encodes whatever has none for long."""
    for written in (json.dumps(value), json.dumps(value, separators=(",", ":"))):
        made = EmailMessage()
        made["From"] = "a@b.test"
        made["X-MTA-Metadata"] = written
        made.set_content("Hello.")
        block = made.as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        found = read(scan(block, 2**20).ours, STREAMS)
        assert json.loads(found.metadata) == value


def test_metadata_that_was_folded_at_a_blank_within_a_text() -> None:
    assert said('X-MTA-Metadata: {"a": "one', '\ttwo"}').metadata == '{"a":"one two"}'
    assert said('X-MTA-Metadata: {"a": "=?utf-8?q?b?="}').metadata == '{"a":"=?utf-8?q?b?="}'


# Refusals


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (
            "X-MTA-Stream: news",
            "550 5.7.1 X-MTA-Stream: you may not use 'news'; write one of transactional, bulk",
        ),
        (
            "X-MTA-Stream:",
            "550 5.7.1 X-MTA-Stream: you may not use ''; write one of transactional, bulk",
        ),
        ("X-MTA-Tag: a,,b", "550 5.6.0 X-MTA-Tag: a tag is empty; write X-MTA-Tag: one, two"),
        ("X-MTA-Tag: a\x7fb", "550 5.6.0 X-MTA-Tag: 'a?b' is no tag: it has a comma, or what does not print; "
         "write X-MTA-Tag: one, two"),
        (b"X-MTA-Tag: \xff", "550 5.6.0 X-MTA-Tag cannot be decoded; write ASCII or UTF-8"),
        ("X-MTA-Tag: =?koi8-r?q?a?=", "550 5.6.0 X-MTA-Tag cannot be decoded; write ASCII or UTF-8"),
        ("X-MTA-Tag: =?utf-8?q?=FF?=", "550 5.6.0 X-MTA-Tag cannot be decoded; write ASCII or UTF-8"),
        ("X-MTA-Tag: =?utf-8?b?w5w?=", "550 5.6.0 X-MTA-Tag cannot be decoded; write ASCII or UTF-8"),
        ("X-MTA-Score: 101", "550 5.6.0 X-MTA-Score: '101' is no score; write a whole number from 0 to 100"),
        ("X-MTA-Score: 1.5", "550 5.6.0 X-MTA-Score: '1.5' is no score; write a whole number from 0 to 100"),
        ("X-MTA-Score: ٣", "550 5.6.0 X-MTA-Score: '٣' is no score; write a whole number from 0 to 100"),
        ("X-MTA-Require-TLS: no", "550 5.6.0 X-MTA-Require-TLS: 'no' is not yes; write yes, or leave it out"),
        ("X-MTA-Send-At: 1800000000", f"550 5.6.0 X-MTA-Send-At: '1800000000' is no time; {LATER}"),
        ("X-MTA-Send-At: 2026-12-24 18:00:00Z",
         f"550 5.6.0 X-MTA-Send-At: '2026-12-24 18:00:00Z' is no time; {LATER}"),
        ("X-MTA-Send-At: 2026-12-24T18:00:00",
         f"550 5.6.0 X-MTA-Send-At: '2026-12-24T18:00:00' is no time; {LATER}"),
        ("X-MTA-Expires: 2026-02-30T18:00:00Z",
         f"550 5.6.0 X-MTA-Expires: there is no 2026-02-30T18:00:00Z; {LATER}"),
        ("X-MTA-Metadata: [1]", "550 5.6.0 X-MTA-Metadata: it is no JSON object; write {\"order\": 17}"),
        ("X-MTA-Metadata: {a: 1}", "550 5.6.0 X-MTA-Metadata: it is no JSON (Expecting property name "
         "enclosed in double quotes at character 2); write {\"order\": 17}"),
        ('X-MTA-Metadata: {"a": 1, "a": 2}',
         "550 5.6.0 X-MTA-Metadata: the key 'a' stands there twice; write {\"order\": 17}"),
        ('X-MTA-Metadata: {"a": NaN}',
         "550 5.6.0 X-MTA-Metadata: NaN is no number of JSON; write {\"order\": 17}"),
        ('X-MTA-Metadata: {"a": 1e999}',
         "550 5.6.0 X-MTA-Metadata: 1e999 is too large a number; write {\"order\": 17}"),
        ('X-MTA-Metadata: {"a": "\\ud800"}',
         "550 5.6.0 X-MTA-Metadata: it has half a character (a lone surrogate); write {\"order\": 17}"),
    ],
)  # fmt: skip
def test_what_cannot_be_obeyed_is_told_with_what_to_write(line: str | bytes, reply: str) -> None:
    assert refused(line) == reply


@pytest.mark.parametrize("name", ["Stream: bulk", "Metadata: {}", "Score: 1", "Require-TLS: yes"])
def test_a_field_that_stands_there_twice(name: str) -> None:
    field = name.partition(":")[0]
    assert refused(f"X-MTA-{name}", f"x-mta-{name}") == (
        f"550 5.6.0 X-MTA-{field} stands there 2 times; write it once"
    )


def test_more_than_there_may_be() -> None:
    most = ["X-MTA-Tag: " + ",".join(f"t{n}" for n in range(MAX_TAGS))]
    assert len(said(*most, "X-MTA-Tag: t3").tags) == MAX_TAGS  # said twice, it counts once
    assert "17 tags are more than 16" in refused(*most, "X-MTA-Tag: other")
    assert said("X-MTA-Tag: " + "Ü" * (MAX_TAG // 2)).tags == ("Ü" * 64,)
    assert "a tag has 130 octets, and may have 128" in refused("X-MTA-Tag: " + "Ü" * 65)
    assert said(f"X-MTA-Score: {MAX_SCORE}", "X-MTA-Metadata: {}").metadata == "{}"
    fits = '{"a":"%s"}' % ("Ü" * ((MAX_METADATA - 8) // 2))
    assert said(f"X-MTA-Metadata: {fits}").metadata == fits
    assert said("X-MTA-Metadata:" + '\r\n {"a":  "%s"}' % ("\\u00dc" * 2044)).metadata == fits
    assert "it has 4098 octets, and may have 4096" in refused(f"X-MTA-Metadata: {fits.replace('a', 'abc')}")
    assert refused("X-MTA-Metadata: " + "x" * (MAX_WRITTEN + 1)) == (
        "550 5.6.0 X-MTA-Metadata is larger than 65536 octets; write less"
    )


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 1000, 20_000])
def test_metadata_that_is_too_deep(levels: int) -> None:
    deep = '{"a":' + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1) + "}"
    assert metadata(deep) == deep
    for opens, closes in (("[", "]"), ('{"a":', "1" + "}")):
        value = '{"a":' + opens * (levels - 1) + closes[:-1] + closes[-1] * (levels - 1) + "}"
        if len(value) <= MAX_WRITTEN:
            assert "it is deeper than 20 levels" in refused(f"X-MTA-Metadata: {value}")


def test_a_tag_with_a_line_feed_is_refused() -> None:
    for tag in ("a\nb", "a\u2028b", "a\u202eb", "a,b", " a", ""):
        with pytest.raises(ValueError, match="tag"):
            tags([tag])


# Times


def outcome(ask: Callable[[], float]) -> float | str:
    try:
        return ask()
    except HeaderError as error:
        return str(error.reply).removeprefix("550 ")


@pytest.mark.parametrize(
    ("asked", "longest", "send_at", "expected"),
    [
        (0.0, None, None, 0.0),
        (60.0, 60.0, None, 60.0),
        (0.0, None, NOW - 1, 0.0),  # a time that has passed is no wait
        (0.0, 3600.0, NOW + 3600, 3600.0),
        (50.0, 3600.0, NOW + 60, 60.0),
        (0.0, None, NOW + 1, "5.7.1 X-MTA-Send-At: you may not ask for a later release"),
        (0.0, 3600.0, NOW + 3601, "5.7.1 X-MTA-Send-At: you may delay a message by 3600 seconds at most"),
        (600.0, 3600.0, NOW + 60,
         "5.6.0 X-MTA-Send-At: HOLDFOR or HOLDUNTIL named another time; write one of them"),
        (600.0, 3600.0, NOW - 60,
         "5.6.0 X-MTA-Send-At: HOLDFOR or HOLDUNTIL named another time; write one of them"),
    ],
)  # fmt: skip
def test_when_it_may_go(
    asked: float, longest: float | None, send_at: float | None, expected: float | str
) -> None:
    carried = Carried(send_at=send_at)
    assert outcome(lambda: carried.delay(asked, longest, NOW)) == expected


@pytest.mark.parametrize(
    ("expires", "send_at", "expected"),
    [
        (None, None, NOW + 100),
        (NOW + 50, None, NOW + 50),
        (NOW + 500, None, NOW + 100),
        (NOW, None, f"5.6.0 X-MTA-Expires: it has passed; write a later time, {LATER[6:]}"),
        (
            NOW,
            NOW,
            f"5.6.0 X-MTA-Expires: it is not after the time of release; write a later time, {LATER[6:]}",
        ),
    ],
)
def test_when_its_time_is_over(expires: float | None, send_at: float | None, expected: float | str) -> None:
    carried = Carried(expires=expires, send_at=send_at)
    assert outcome(lambda: carried.end(NOW, NOW + 100)) == expected


# Whatever comes

NAMES = st.sampled_from([name.decode() for row in TABLE if row.fate is Fate.OBEYED for name in row.names])
PIECES = st.sampled_from(
    ["=?utf-8?q?", "?=", "=?utf-8?b?", "{", "}", '"', ",", " ", "\r\n ", "\r\n\t", "1", "yes", "bulk", "\\u"]
)
VALUES = st.lists(PIECES | st.text(max_size=3), max_size=20).map("".join)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=4))
def test_anything_is_understood_or_refused_in_one_line(fields: list[tuple[str, str]]) -> None:
    ours = tuple((name.encode(), value.encode("utf-8", "surrogatepass").strip()) for name, value in fields)
    try:
        found = read(ours, STREAMS)
    except HeaderError as error:
        said, found = str(error.reply), NOTHING
        if not said.isprintable():
            pytest.fail(said)
    assert tags(found.tags) == found.tags
    assert all(fit(tag, MAX_TAG) == tag for tag in found.tags)
    assert not found.metadata or metadata(found.metadata) == found.metadata


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(max_size=9),
            lambda inner: st.lists(inner, max_size=3)
            | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=9,
        ),
        max_size=5,
    )
)  # fmt: skip
def test_metadata_is_kept_as_it_was_said_and_once_compact_stays_so(value: dict[str, Any]) -> None:
    kept = metadata(json.dumps(value, indent=2))
    assert json.loads(kept) == value
    assert metadata(kept) == kept


ENDLESS = {
    "encoded words": lambda n: "=?utf-8?q?a?= " * (n // 14),
    "words that are none": lambda n: " =?utf-8?q?a" * (n // 12),
    "words that do not end": lambda n: " =?utf-8?q?" + "a" * n,
    "words in words": lambda n: "=?a?q?" * (n // 6),
    "commas": lambda n: "," * n,
    "tags": lambda n: ",".join(map(str, range(n // 6))),
    "keys": lambda n: "{" + ",".join(f'"{k}":1' for k in range(n // 9)) + "}",
    "quotes": lambda n: '{"' + '\\"' * (n // 2),
}


@pytest.mark.parametrize("shape", ENDLESS)
def test_the_work_grows_with_the_octets_and_no_faster(shape: str) -> None:
    """Quadratic work on all that a field may have would take seconds for each field."""
    value = ENDLESS[shape](MAX_WRITTEN - 100).strip().encode()
    for name in (b"x-mta-tag", b"x-mta-metadata"):
        for _ in range(20):
            with pytest.raises(HeaderError):
                read(((name, value),), STREAMS)
