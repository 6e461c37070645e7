"""Paths and parameters: what is read, what is refused, and that nothing else can happen."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mta.core.mail.address import NULL, EnvelopePath, PathError, a_label, parameters, parse


@pytest.mark.parametrize(
    ("argument", "path"),
    [
        (b"FROM:<a@b.test>", EnvelopePath("a@b.test", "b.test")),
        (b"from:<a@b.test>", EnvelopePath("a@b.test", "b.test")),
        (b"FROM: <a@b.test>", EnvelopePath("a@b.test", "b.test")),
        (b"FROM:\t <a@b.test>", EnvelopePath("a@b.test", "b.test")),
        (b"FROM:<A.b+c@B.Test>", EnvelopePath("A.b+c@B.Test", "b.test")),
        (b"FROM:<a..b.@b.test>", EnvelopePath("a..b.@b.test", "b.test")),  # carriers gave such out
        (b"FROM:<!#$%&'*+/=?^_`{|}~-@b.test>", EnvelopePath("!#$%&'*+/=?^_`{|}~-@b.test", "b.test")),
        (b"FROM:<a@_b.test>", EnvelopePath("a@_b.test", "_b.test")),
        (b"FROM:<a@localhost>", EnvelopePath("a@localhost", "localhost")),
        (b"FROM:<a@[192.0.2.1]>", EnvelopePath("a@[192.0.2.1]", "[192.0.2.1]")),
        (b"FROM:<a@[IPv6:2001:DB8::0:1]>", EnvelopePath("a@[IPv6:2001:DB8::0:1]", "[IPv6:2001:db8::1]")),
        (b'FROM:<"a b>@"@b.test>', EnvelopePath('"a b>@"@b.test', "b.test")),
        (b'FROM:<"a\\"b"@b.test>', EnvelopePath('"a\\"b"@b.test', "b.test")),
        (b"FROM:<@x.test:a@b.test>", EnvelopePath("a@b.test", "b.test")),
        (b"FROM:<@x.test,@y.test:a@b.test>", EnvelopePath("a@b.test", "b.test")),
        (b"FROM:<>", NULL),
        ("FROM:<jörg@bücher.test>".encode(), EnvelopePath("jörg@bücher.test", "xn--bcher-kva.test")),
        ("FROM:<a@BÜCHER.test>".encode(), EnvelopePath("a@BÜCHER.test", "xn--bcher-kva.test")),
        (b"FROM:<" + b"l" * 64 + b"@b.test>", EnvelopePath("l" * 64 + "@b.test", "b.test")),
    ],
)
def test_a_path_that_is_read(argument: bytes, path: EnvelopePath) -> None:
    assert parse(b"FROM", argument) == (path, {})


SYNTAX = (501, "5.5.4", "Syntax: MAIL FROM:<address>")
LOCAL = (501, "5.1.3", "The local part is not valid")
NEEDS = (501, "5.1.3", "The address needs a domain: local@domain")
DOMAIN = (501, "5.1.3", "The domain is not valid")
LITERAL = (501, "5.1.3", "The address literal is not valid")
CLOSED = (501, "5.5.4", "The address is not closed by >")


@pytest.mark.parametrize(
    ("argument", "reply"),
    [
        (b"", SYNTAX),
        (b"a@b.test", SYNTAX),
        (b"FROM:a@b.test", SYNTAX),
        (b"FROM", SYNTAX),
        (b"FROM <a@b.test>", SYNTAX),
        (b"TO:<a@b.test>", SYNTAX),
        (b"FROM:<a@b.test", CLOSED),
        (b"FROM:<a@b.test>SIZE=1", CLOSED),
        (b"FROM:<a@b.test>>", CLOSED),
        (b"FROM:<a>", NEEDS),
        (b"FROM:<a b@c.test>", NEEDS),
        (b"FROM:<a:b@c.test>", NEEDS),
        (b"FROM:<@b.test>", LOCAL),
        (b"FROM:< a@b.test>", LOCAL),
        (b"FROM:<(a)@b.test>", LOCAL),
        (b'FROM:<"a@b.test>', LOCAL),
        (b'FROM:<"a\x01"@b.test>', LOCAL),
        (b"FROM:<" + b"l" * 65 + b"@b.test>", LOCAL),
        (b"FROM:<" + "ö".encode() * 33 + b"@b.test>", LOCAL),
        (b"FROM:<a@>", DOMAIN),
        (b"FROM:<a@b..test>", DOMAIN),
        (b"FROM:<a@.test>", DOMAIN),
        (b"FROM:<a@b.test.>", DOMAIN),
        (b"FROM:<a@-b.test>", DOMAIN),
        (b"FROM:<a@b-.test>", DOMAIN),
        (b"FROM:<a@b c.test>", DOMAIN),
        (b"FROM:<a@b@c.test>", DOMAIN),
        (b"FROM:<a@" + b"l" * 64 + b".test>", DOMAIN),
        (b"FROM:<a@" + b"l." * 126 + b"test>", DOMAIN),
        (b"FROM:<a@[192.0.2.256]>", LITERAL),
        (b"FROM:<a@[192.0.2.1>", LITERAL),
        (b"FROM:<a@[b.test]>", LITERAL),
        (b"FROM:<a@[IPv6:192.0.2.1]>", LITERAL),
        (b"FROM:<a@[IPv6:fe80::1%eth0]>", LITERAL),
        ("FROM:<a@[1\u0669.0.2.1]>".encode(), LITERAL),
        (b"FROM:<a\xff@b.test>", (501, "5.5.4", "The address is not UTF-8")),
        (b"FROM:<a@b.test> =x", (501, "5.5.4", "Not a parameter: =x")),
        (b"FROM:<a@b.test> X=1 x", (501, "5.5.4", "X is given twice")),
        (b"FROM:<> X=", (501, "5.5.4", "Not a parameter: X=")),
    ],
)
def test_a_path_that_is_refused(argument: bytes, reply: tuple[int, str, str]) -> None:
    with pytest.raises(PathError) as error:
        parse(b"FROM", argument)
    assert error.value.reply == reply
    assert str(error.value) == reply[2]


def test_a_recipient_cannot_be_empty() -> None:
    with pytest.raises(PathError, match=r"A recipient cannot be empty") as error:
        parse(b"TO", b"TO:<>")
    assert error.value.reply[:2] == (501, "5.1.3")


@pytest.mark.parametrize("domain", ["\u0378.test", "xn--\xfc.test", "\u2024.test", "\xad"])
def test_a_domain_that_unicode_forbids(domain: str) -> None:
    with pytest.raises(PathError, match=r"\AThe domain is not valid"):
        a_label(domain)


def test_parameters_keep_values_and_upper_case_names() -> None:
    found = parameters("size=10  Body=8bitMIME SMTPUTF8")
    assert found == {"SIZE": "10", "BODY": "8bitMIME", "SMTPUTF8": None}
    assert parameters("") == {}


PIECES = st.sampled_from(
    [b"FROM:", b"TO:", b"<", b">", b"@", b"@", b":", b",", b'"', b"\\", b" ", b"\t", b".", b"a", b"b.test",
     b"[", b"]", b"IPv6:", b"=", b"SIZE=1", b"\xff", b"\0", b"-", *map(str.encode, "ö\u200b\u3002")]
)  # fmt: skip
ARGUMENTS = st.one_of(
    st.binary(max_size=60),
    st.lists(PIECES, max_size=20).map(b"".join),
    st.lists(PIECES, max_size=12).map(lambda pieces: b"FROM:<a@" + b"".join(pieces) + b">"),
)


@given(ARGUMENTS)
@example(b"FROM:<" + b"@a" * 1000 + b">")
@example(b"FROM:<" + b"@" * 2000 + b">")
def test_any_octets_give_a_path_or_a_patherror(argument: bytes) -> None:
    try:
        path, found = parse(b"FROM", argument)
    except PathError as error:
        code, enhanced, text = error.reply
        assert code == 501
        assert enhanced in ("5.5.4", "5.1.3")
        assert len(text) < 400
        return
    assert path.domain.isascii()
    assert path.domain == "" or re.fullmatch(r"\[[0-9A-Za-z:.]+\]|[a-z0-9_.-]+", path.domain)
    assert not set("\r\n\0<") & set(path.address) or '"' in path.address
    assert all(name == name.upper() for name in found)
    if path != NULL:
        assert path.address.encode() in argument


def test_a_line_of_at_signs_is_answered_at_once() -> None:
    """It is read before anybody has authenticated, in the one loop that there is."""
    started = time.process_time()
    ends = (b'"' + b"\\a" * 900, b"a@" + b"a." * 900, b"a@" + b"-" * 1900)
    for line in (b"@a" * 1000, b"@" * 2000, b"@a," * 600, *ends):
        with pytest.raises(PathError):
            parse(b"FROM", b"FROM:<" + line + b">")
    assert time.process_time() - started < 0.5
