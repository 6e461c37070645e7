"""What is signed of a message: what dkimpy signs, and what the standards show."""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode, b64encode

import dkim as dkimpy
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from dkim.canonicalization import Relaxed
from hypothesis import given
from hypothesis import strategies as st

from mta.core.mail import dkim

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
RECORD = b"v=DKIM1; k=ed25519; p=" + b64encode(KEY.public_key().public_bytes_raw())
FROM = b"From: a@src.test\r\n"
NAMES = [name.decode() for name in (*dkim.OVERSIGNED, *dkim.SIGNED)] + ["X-Other", "Received", "List-Help"]

blanks = st.sampled_from([b" ", b"\t", b"  ", b" \t ", b"a", b"bc", b".", b"\xff", b"=20", b"\xc3\xa4"])
lines = st.lists(blanks, max_size=6).map(b"".join)
bodies = st.lists(lines, max_size=8).map(lambda each: b"".join(line + b"\r\n" for line in each))
folds = st.sampled_from(
    [b" ", b"\t", b"a", b":", b";", b"\r\n ", b"\r\n\t", b"\r\n \r\n\t", b"\xc3\xa4", b"=", b"d"]
)
values = st.lists(folds, max_size=12).map(lambda each: b"".join(each) + b"x")
names = st.sampled_from(NAMES).flatmap(lambda name: st.sampled_from([name, name.upper(), name.title()]))
fields = st.tuples(names.filter(lambda name: name.lower() != "from"), values)
messages = st.builds(
    lambda before, behind, body: b"".join((*before, FROM, *behind, b"\r\n", body)),
    *[st.lists(fields.map(lambda field: field[0].encode() + b":" + field[1] + b"\r\n"), max_size=9)] * 2,
    bodies,
)


def signed(
    content: bytes, key: Ed25519PrivateKey = KEY, domain: str = "src.test", selector: str = "s1"
) -> bytes:
    """With one signature on top."""
    field, octets = dkim.to_sign(dkim.prepare(content), "ed25519-sha256", domain, selector, 1_700_000_000)
    return dkim.signed(field, key.sign(hashlib.sha256(octets).digest())) + content


def verifies(content: bytes, record: bytes = RECORD) -> bool:
    return bool(dkimpy.verify(content, dnsfunc=lambda name, timeout: record))


@given(bodies)
def test_a_body_has_the_hash_that_dkimpy_gives_it(body: bytes) -> None:
    wanted = hashlib.sha256(Relaxed.canonicalize_body(body)).digest()
    assert dkim.prepare(FROM + b"\r\n" + body).body_hash == wanted


@given(bodies, st.sampled_from([2, 4, 6, 16]))
def test_a_body_in_slices_has_the_hash_of_the_whole(body: bytes, size: int) -> None:
    content = FROM + b"\r\n" + body
    whole, usual = dkim.prepare(content).body_hash, dkim.SLICE
    dkim.SLICE = size
    try:
        assert dkim.prepare(content).body_hash == whole
    finally:
        dkim.SLICE = usual


def test_a_large_body_of_blanks_and_empty_lines_takes_no_quadratic_time_and_is_right() -> None:
    for body in (
        b" " * 3_000_000 + b"\r\n",
        b"\r\n" * 1_500_000 + b"x\r\n",
        b"x\t" * 1_000_000 + b"\r\n" * 500_000,
    ):
        wanted = hashlib.sha256(Relaxed.canonicalize_body(body)).digest()
        assert dkim.prepare(FROM + b"\r\n" + body).body_hash == wanted


@given(messages)
def test_whatever_fields_a_message_has_dkimpy_verifies_its_signature(content: bytes) -> None:
    assert verifies(signed(content))


@pytest.mark.parametrize(
    "content", [FROM, FROM + b"\r\n", FROM + b"\r\n\r\n\r\n"], ids=["no", "empty", "lines"]
)
def test_a_message_without_a_body_has_the_hash_of_nothing(content: bytes) -> None:
    assert (
        b64encode(dkim.prepare(content).body_hash) == b"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    )  # 3.4.4
    assert verifies(signed(content))


@pytest.mark.parametrize("name", [name.decode() for name in dkim.OVERSIGNED])
def test_a_field_that_is_added_later_breaks_the_signature(name: str) -> None:
    whole = signed(FROM + b"To: b@dst.test\r\nSubject: hello\r\n\r\nHello.\r\n")
    assert verifies(whole)
    head, tail = whole.split(b"From:", 1)
    for forged in (
        head + name.encode() + b": forged\r\nFrom:" + tail,
        whole.replace(b"\r\n\r\n", b"\r\n%b: x\r\n\r\n" % name.encode()),
    ):
        assert not verifies(forged)


def test_a_field_that_is_signed_only_where_it_stands_may_be_added() -> None:
    whole = signed(FROM + b"\r\nHello.\r\n")
    assert verifies(whole.replace(b"From:", b"List-Id: <list.test>\r\nFrom:"))


def test_ten_thousand_fields_of_one_name_are_all_signed() -> None:
    content = b"MIME-Version: 1.0\r\n" * 9_000 + FROM + b"\r\n"
    assert verifies(signed(content))


def test_the_field_is_folded_within_seventy_eight_columns() -> None:
    content = FROM + b"References: <x@y.test>\r\n" * 20 + b"\r\n"
    field = signed(content)[: -len(content)]
    assert max(len(line.expandtabs()) for line in field.decode().splitlines()) <= 78
    assert all(line[:1] in b" \tD" for line in field.splitlines())


RFC8463 = (
    b"From: Joe SixPack <joe@football.example.com>\r\n"
    b"To: Suzie Q <suzie@shopping.example.net>\r\n"
    b"Subject: Is dinner ready?\r\n"
    b"Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n"
    b"Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n"
    b"\r\n"
    b"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n"
)


RFC8463_KEY = Ed25519PrivateKey.from_private_bytes(b64decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="))
RFC8463_RECORD = b"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="


def test_our_signature_on_the_message_of_rfc_8463_verifies_by_its_record() -> None:
    whole = signed(RFC8463, RFC8463_KEY, "football.example.com", "brisbane")
    assert verifies(whole, RFC8463_RECORD)
    assert b"bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=" in whole
    assert not verifies(whole.replace(b"hungry", b"thirsty"), RFC8463_RECORD)


def test_the_fields_of_the_message_of_rfc_8463_are_canonical_as_its_signature_has_them() -> None:
    """Its own field names others than ours does, in another order: of it only the octets are ours."""
    prepared = dkim.prepare(RFC8463)
    assert b64encode(prepared.body_hash) == b"2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="
    by_name = dict(re.findall(rb"([a-z-]+):([^\r]*)\r\n", prepared.fields))
    listed = (b"from", b"to", b"subject", b"date", b"message-id")
    octets = b"".join(b"%b:%b\r\n" % (name, by_name[name]) for name in listed) + (
        b"dkim-signature:v=1; a=ed25519-sha256; c=relaxed/relaxed; d=football.example.com; "
        b"i=@football.example.com; q=dns/txt; s=brisbane; t=1528637909; h=from : to : subject : date : "
        b"message-id : from : subject : date; bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=; b="
    )
    assert b64encode(RFC8463_KEY.sign(hashlib.sha256(octets).digest())) == (
        b"/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11BusFa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw=="
    )


def test_the_example_of_rfc_6376_is_canonical_as_it_shows() -> None:
    content = b"From: X\r\nsubject : Y\t\r\n\tZ  \r\n\r\n C \r\nD \t E\r\n\r\n\r\n"
    prepared = dkim.prepare(content)  # 3.4.5, by names that are signed
    assert prepared.fields == b"from:X\r\nsubject:Y Z\r\n"
    assert prepared.body_hash == hashlib.sha256(b" C\r\nD E\r\n").digest()
