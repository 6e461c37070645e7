"""Whose mail a message says it is: every address of a From field, or none."""

from __future__ import annotations

from email.headerregistry import Address, AddressHeader, Group
from email.policy import default

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.core.mail.mailbox import MAX_FIELD, addresses, domains


@pytest.mark.parametrize(
    ("value", "expected"),
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
        (b"x@y.test <a@b.test>", ["x@y.test", "a@b.test"]),  # a name that looks like an address
        (b"a@b.test <a@b.test>, c@d.test", ["a@b.test", "a@b.test", "c@d.test"]),
        (b"Q x@y.test <a@b.test>", []),
        (b"x@y.test Q <a@b.test>", []),
        (b"x@y.test <a@b.test> z@y.test", []),
        (b"John Q. Public <a@b.test>", ["a@b.test"]),
        (b"John Q. Public (x) <a@b.test>, [Team] (y) <c@d.test>", ["a@b.test", "c@d.test"]),
        (b'(a(b(c)\\)d)e) a@b.test ("<x@y.test>)', ["a@b.test"]),
        (b"(a) a (b) @ (c) b.test (d)", ["a@b.test"]),
        (b"a@b (c) .test", []),
        (b"a@b.test (c", []),
        (b"a@b.test )", []),
        (b"a@[192.0.2.1] (x)", ["a@[192.0.2.1]"]),
        (b"a@[192.0.2.1", []),
        (b'"a"@b.test', ["a@b.test"]),  # as it is compared
        (b'"a b"@b.test, "c\\"d"@b.test', ['"a b"@b.test', '"c\\"d"@b.test']),
        (b'"x@y.test"@b.test', ['"x@y.test"@b.test']),
        (b'"a\r\n b"@b.test', ['"a b"@b.test']),
        (b'"a" b@c.test', []),
        (b'"a"b@c.test', []),
        (b'"a\x01"@c.test', []),
        (b"a\x01 (x) <a@b.test>", []),
        (
            b"us: A <a@b.test>, x@y.test <c@d.test>;, e@f.test",
            ["a@b.test", "x@y.test", "c@d.test", "e@f.test"],
        ),
        (b"us:;, a@b.test", ["a@b.test"]),
        (b"us: them: a@b.test;;", []),
        (b"us: a@b.test", []),
        (b"us: a@b.test; c@d.test", []),
        (b": a@b.test;", []),
        (b"a@b.test;", []),
        (b"a@b.test,", []),
        (b"a@b.test,, c@d.test", []),
        (b"a@b.test c@d.test", []),
        (b"a@b@c.test", []),
        (b"<>", []),
        (b"<a@b.test>>", []),
        (b"=?utf-8?q?x=40y.test?= <a@b.test>", ["a@b.test"]),
        (b"=?utf-8?q?x@y.test?= <a@b.test>", ["a@b.test"]),
        (b"=?utf-8?b?eEB5LnRlc3Q=?= =?utf-8?q?_z?= (c) <a@b.test>", ["a@b.test"]),
        (b"=?utf-8?q?a?=@b.test", []),
        (b"a@=?utf-8?q?b.test?=", []),
        (b"=?utf-8?q?a=40b.test?=", []),
        (b"=?utf-8?q?,x@y.test,?= <a@b.test>", []),
        ("Jörg (ö) <jörg@bücher.test>".encode(), ["jörg@bücher.test"]),
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
def test_whose_mail_it_says_it_is(value: bytes, expected: list[str]) -> None:
    assert addresses(value) == expected


TOKENS = st.lists(
    st.sampled_from(
        [b"a@b.test", *map(str.encode, '<>"()@,:;\\ .[]xö'), b"\r\n ", b"=?utf-8?q?", b"?=", b"\xff"]
    ),
    max_size=12,
).map(b"".join)


@given(st.one_of(TOKENS, st.binary(max_size=40)))
def test_any_octets_give_addresses_or_none(value: bytes) -> None:
    assert all("@" in each or each for each in addresses(value.strip()))


WORD = st.text("abzAZ09!#$%&'*+/^_`{|}~-", min_size=1, max_size=6)
SPACE = st.sampled_from(["", " ", "\t", "\r\n ", "(a)", " (b (c) d) ", "\r\n\t(\\))"])
DOTTED = st.lists(WORD, min_size=1, max_size=3).map(".".join)
QUOTED = st.text("ab ,:;<>()@", min_size=1, max_size=8).map(lambda text: f'"{text}"')
SPEC = st.tuples(st.one_of(DOTTED, QUOTED), st.one_of(DOTTED, st.just("[192.0.2.1]"))).map("@".join)
NAME = st.lists(st.one_of(WORD, QUOTED), min_size=1, max_size=3).map(" ".join)
MAILBOX = st.one_of(
    st.tuples(SPACE, SPEC, SPACE).map("".join),
    st.tuples(SPACE, NAME, SPACE, SPEC, SPACE).map(lambda x: f"{x[0]}{x[1]}{x[2]}<{x[3]}>{x[4]}"),
)
LIST = st.lists(MAILBOX, min_size=1, max_size=3).map(",".join)
GROUP = st.tuples(NAME, LIST).map(lambda x: f"{x[0]}:{x[1]};")
FIELD = st.lists(st.one_of(MAILBOX, GROUP), min_size=1, max_size=3).map(",".join)


@given(FIELD)
def test_what_is_written_well_is_read_as_the_email_package_reads_it(field: str) -> None:
    parsed = default.header_factory("from", field.replace("\r\n", ""))
    assert isinstance(parsed, AddressHeader)
    assert addresses(field.encode()) == [
        address.addr_spec
        for group in parsed.groups
        if isinstance(group, Group)
        for address in group.addresses
        if isinstance(address, Address)
    ]


@pytest.mark.parametrize(
    "value",
    [
        b"(" * 8000,
        b"a" + b" " * 1_000_000 + b"!",
        b"a@b.test," * 100_000,
        b'"' + b"a" * 1_000_000,
        b"<" + b"a" * 1_000_000,
        b"a" * 1_000_000 + b"@",
        b"(a)" * (MAX_FIELD // 3) + b"@",
        b"=?" * (MAX_FIELD // 2),
        b"=?a?q?" * (MAX_FIELD // 6),
        b'"a"' * (MAX_FIELD // 3),
        b"a@b," * (MAX_FIELD // 4),
        b"a:" * (MAX_FIELD // 2),
    ],
    ids=lambda value: value[:6],
)
def test_a_field_without_end_is_given_up(value: bytes) -> None:
    """And at once: where the cost is measured is no place for a test."""
    assert addresses(value) == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"A <a@b.test>", ("b.test",)),
        (b"a@b.test, c@B.test", ("b.test",)),
        ("a@bücher.test".encode(), ("xn--bcher-kva.test",)),
        (b"a@b.test, c@d.test", ("b.test", "d.test")),
        (b"a@[192.0.2.1]", ()),
        (b"a@b..test", ()),
        (b"nobody", ()),
        (b"", ()),
        (b"a@b.test," * 50 + b"c@b.test", ("b.test",)),
    ],
)
def test_the_domains_that_they_are_at(value: bytes, expected: tuple[str, ...]) -> None:
    assert domains(value) == expected
