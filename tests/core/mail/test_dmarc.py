"""DMARC records, the walk up the tree, and who belongs together (RFC 9989)."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.core.mail.dmarc import MAX_QUERIES, DmarcRecord, TreeWalk, Walked, alignment, one, parse

PLAIN = b"v=DMARC1; p=none"
Zone = Mapping[str, bytes]


def walk(domain: str, zone: Zone) -> tuple[Walked, list[str]]:
    """The result, and what was asked."""
    made, asked = TreeWalk(domain), []
    while made.question:
        asked.append(made.question.removeprefix("_dmarc."))
        made.answer([zone[asked[-1]]] if asked[-1] in zone else [])
    return made.walked, asked


# Records


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (b"v=DMARC1", DmarcRecord()),
        (PLAIN, DmarcRecord()),
        (b"V = DMARC1 ;adkim=s;aspf = S ; psd=y;", DmarcRecord(True, True, "y")),
        (b"v=DMARC1; ADKIM=s", DmarcRecord(True)),
        (b"v=DMARC1; adkim=x; aspf=; psd=maybe", DmarcRecord()),  # errors are defaults
        (b"v=DMARC1; adkim=s; adkim=r", DmarcRecord(True)),
        (b"v=DMARC1; unheard=of; ;; =; psd=n", DmarcRecord(psd="n")),
        (b"v=DMARC1; p=\xff\x00; aspf=s", DmarcRecord(spf_is_strict=True)),
        (b"v=dmarc1; p=none", None),
        (b"v=DMARC10; p=none", None),
        (b"p=none; v=DMARC1", None),  # v= comes first
        (b" v=DMARC1", None),
        (b"v=spf1 -all", None),
        (b"", None),
    ],
)
def test_a_record_is_read_as_tolerantly_as_the_standard_says(
    record: bytes, expected: DmarcRecord | None
) -> None:
    assert parse(record) == expected


def test_several_records_are_none_and_others_at_the_name_do_not_count() -> None:
    assert one([PLAIN, b"v=DMARC1; p=reject"]) is None
    assert one([b"google-site-verification=x", PLAIN]) == DmarcRecord()
    assert one([]) is None


@given(st.binary(max_size=300))
def test_whatever_stands_there_is_a_record_or_none(record: bytes) -> None:
    parse(record)
    read = parse(b"v=DMARC1;" + record)
    assert read is not None
    assert read.psd in "ynu"


# The walk


def test_the_walk_of_the_standard_asks_eight_times_at_most() -> None:
    _, asked = walk("a.b.c.d.e.f.g.h.i.j.mail.example.com", {})
    assert asked == [
        "a.b.c.d.e.f.g.h.i.j.mail.example.com", "g.h.i.j.mail.example.com", "h.i.j.mail.example.com",
        "i.j.mail.example.com", "j.mail.example.com", "mail.example.com", "example.com", "com",
    ]  # fmt: skip
    assert walk("b.c.d.e.f.mail.example.com", {})[1][1:3] == [
        "c.d.e.f.mail.example.com",
        "d.e.f.mail.example.com",
    ]
    assert walk("com", {})[1] == ["com"]


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=120))
def test_a_name_however_long_is_asked_for_up_to_the_top(labels: list[str]) -> None:
    domain = ".".join(labels)
    _, asked = walk(domain, {})
    assert len(asked) == min(len(labels), MAX_QUERIES)
    assert (asked[0], asked[-1]) == (domain, labels[-1])


@pytest.mark.parametrize(
    ("domain", "zone", "organisation"),
    [
        ("a.mail.example.com", {"mail.example.com": PLAIN, "example.com": PLAIN}, "example.com"),
        ("a.mail.example.com", {"com": b"v=DMARC1; psd=y"}, "example.com"),
        ("a.mail.example.com", {"mail.example.com": b"v=DMARC1; psd=n", "example.com": PLAIN},
         "mail.example.com"),
        ("a.mail.example.com", {}, "a.mail.example.com"),
        ("a.mail.example.com", {"a.mail.example.com": PLAIN}, "a.mail.example.com"),
        ("giant.bank.example", {"bank.example": b"v=DMARC1; psd=y", "example": PLAIN}, "giant.bank.example"),
        ("bank.example", {"bank.example": b"v=DMARC1; psd=y", "example": PLAIN}, "bank.example"),
        ("x.bank.example", {"x.bank.example": PLAIN, "bank.example": PLAIN, "example": b"v=DMARC1; psd=y"},
         "bank.example"),
        ("b.a.example.com", {"example.com": b"v=DMARC10", "a.example.com": PLAIN}, "a.example.com"),
    ],
)  # fmt: skip
def test_where_an_organisation_ends_its_records_say(domain: str, zone: Zone, organisation: str) -> None:
    assert walk(domain, zone)[0].organisation == organisation


def test_a_record_that_says_where_it_ends_ends_the_walk() -> None:
    zone = {"mail.example.com": b"v=DMARC1; psd=n", "example.com": PLAIN}
    assert walk("a.mail.example.com", zone)[1] == ["a.mail.example.com", "mail.example.com"]


def test_the_record_that_holds_is_the_domains_own_else_that_of_its_organisation_else_of_its_suffix() -> None:
    strict, own = b"v=DMARC1; adkim=s", b"v=DMARC1; aspf=s"
    assert walk("a.example.com", {"a.example.com": own, "example.com": strict})[0].record == parse(own)
    assert walk("a.example.com", {"example.com": strict})[0].record == parse(strict)
    suffix = b"v=DMARC1; psd=y; adkim=s"
    assert walk("a.example.com", {"com": suffix})[0].record == parse(suffix)
    assert walk("a.example.com", {})[0].record is None


# Alignment


def aligned(author: str, zone: Zone, signers: tuple[str, ...] = (), path: str = "") -> bool | None:
    return alignment(author, signers, path, lambda name: walk(name, zone)[0])


ORGANISATION: Zone = {"example.com": PLAIN, "other.test": PLAIN}
STRICT: Zone = {"example.com": b"v=DMARC1; adkim=s; aspf=s"}


@pytest.mark.parametrize(
    ("author", "signers", "path", "zone", "expected"),
    [
        ("example.com", ("example.com",), "", STRICT, True),
        ("example.com", (), "example.com", STRICT, True),
        ("news.example.com", ("example.com",), "", ORGANISATION, True),
        ("news.example.com", ("mail.example.com",), "", ORGANISATION, True),
        ("news.example.com", (), "bounces.example.com", ORGANISATION, True),
        ("news.example.com", ("example.com",), "bounces.example.com", STRICT, False),
        ("example.com", ("other.test",), "other.test", ORGANISATION, False),
        ("example.com", ("other.test", "mail.example.com"), "", ORGANISATION, True),
        ("example.com", (), "", ORGANISATION, False),
        ("news.example.com", ("example.com",), "", {}, True),  # no record: one above the other
        ("example.com", (), "bounces.example.com", {}, True),
        ("badexample.com", ("example.com",), "", {}, False),
        ("a.example.com", ("b.example.com",), "", {}, False),
        ("example.com", (), "bounces.example.com", {"example.com": b"v=DMARC1; adkim=s"}, True),
        ("example.com", ("mail.example.com",), "", {"example.com": b"v=DMARC1; adkim=s"}, False),
    ],
)
def test_who_is_aligned(author: str, signers: tuple[str, ...], path: str, zone: Zone, expected: bool) -> None:
    assert aligned(author, zone, signers, path) is expected


def test_what_is_not_known_yet_is_not_unaligned() -> None:
    assert alignment("example.com", ("example.com",), "", lambda name: None) is True
    assert alignment("example.com", ("other.test",), "", lambda name: None) is None
    ours = walk("example.com", ORGANISATION)[0]
    assert alignment("example.com", ("other.test",), "", {"example.com": ours}.get) is None
    theirs = walk("mail.example.com", ORGANISATION)[0]
    known = {"example.com": ours, "mail.example.com": theirs}
    assert alignment("example.com", ("other.test", "mail.example.com"), "", known.get) is True
