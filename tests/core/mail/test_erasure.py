"""One person is forgotten, and nobody else."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.core.event import Event, ReplyField, Type, encode_lines
from mta.core.mail.erasure import Erasure

ANN = Erasure("Ann@Dst.test")


@pytest.mark.parametrize(
    ("address", "is_named"),
    [
        ("Ann@Dst.test", True),
        ("ann@dst.test", True),
        ("ann@DST.TEST", True),
        ("ANN@dst.test", True),
        ("joann@dst.test", False),
        ("ann@x.dst.test", False),
        ("ann@dst.test.example", False),
        ("ann+news@dst.test", False),
        ("", False),
        ("no address", False),
    ],
)
def test_whose_address_it_is(address: str, is_named: bool) -> None:
    assert ANN.names(address) is is_named


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("<ann@dst.test>: no such user", "<erased>: no such user"),
        ("<aNN@DST.test> bounces+ANN=dst.TEST@shop.test", "<erased> bounces+erased@shop.test"),
        ("rfc822;Ann@dst.test, or 'ann@DST.test'.", "rfc822;erased, or 'erased'."),
        ("user=ann@dst.test", "user=erased"),
        ("ann@dst.test ann@dst.test.", "erased erased."),
        ("bounces+ann=dst.test@shop.test", "bounces+erased@shop.test"),
        ("bounces-ann=dst.test@shop.test", "bounces-erased@shop.test"),
        ("joann@dst.test jo.ann@dst.test jo+ann@dst.test", "joann@dst.test jo.ann@dst.test jo+ann@dst.test"),
        (
            "ann@dst.test.example ann@dst.test-2 ann@dst.tests",
            "ann@dst.test.example ann@dst.test-2 ann@dst.tests",
        ),
        ("ann@x.test dst.test", "ann@x.test dst.test"),
        ("", ""),
    ],
)
def test_text_names_the_person_no_more_and_everybody_else_still(text: str, after: str) -> None:
    assert ANN.text(text) == after


def test_every_field_of_an_event_and_the_reply_in_it_forget() -> None:
    event = Event(
        7, "2026-11-21T00:00:00.000Z", Type.BOUNCE, "0q", "ann@dst.test", "ann@dst.test",
        message_id="<ann@dst.test>", reply=ReplyField(550, "5.1.1", "<Ann@dst.test> unknown", "RCPT"),
        permanent=True,
    )  # fmt: skip
    other = Event(8, recipient="bob@dst.test", reason="annoyed")
    erased = Event(
        7, "2026-11-21T00:00:00.000Z", Type.BOUNCE, "0q", "erased", "erased", message_id="<erased>",
        reply=ReplyField(550, "5.1.1", "<erased> unknown", "RCPT"), permanent=True,
    )  # fmt: skip
    lines = encode_lines([event, other]).splitlines(keepends=True)
    assert [ANN.line(line) for line in lines] == encode_lines([erased, other]).splitlines(keepends=True)


@pytest.mark.parametrize(
    "line",
    [b'{"reason":"anna"}\n', b'{"reason": "ann"}\n', b"ann\n", b"\xff ann\n", b"\n", b'"ann"\n', b"[1]"],
)
def test_a_line_without_the_address_is_left_to_the_octet(line: bytes) -> None:
    assert ANN.line(line) == line


def test_a_line_that_is_not_ours_forgets_too() -> None:
    assert ANN.line(b'{"half": "ann@dst.test\xff\n') == b'{"half": "erased\xff\n'
    assert ANN.line(b'["ann@dst.test",{"a":["ann@dst.test"]}]\n') == b'["erased",{"a":["erased"]}]\n'


@pytest.mark.parametrize("given_as", ["j\u00f6rg@b\u00fccher.test", "j\u00f6rg@xn--bcher-kva.test"])
def test_a_domain_is_meant_in_both_of_its_forms(given_as: str) -> None:
    person = Erasure(given_as)
    assert person.domain == "xn--bcher-kva.test"
    assert person.text("j\u00f6rg@b\u00fccher.test j\u00f6rg@XN--BCHER-KVA.test") == "erased erased"
    assert person.line('{"a":"j\u00f6rg@b\u00fccher.test"}\n'.encode()) == b'{"a":"erased"}\n'
    assert person.names("j\u00f6rg@b\u00fccher.test")


def test_letters_that_are_not_ascii_have_two_cases_too() -> None:
    person = Erasure("j\u00f6rg@b\u00fccher.test")
    assert person.line('{"a":"J\u00d6RG@B\u00dcCHER.test"}\n'.encode()) == b'{"a":"erased"}\n'
    assert person.names("J\u00d6RG@b\u00fccher.test")


def test_a_quoted_local_part_is_found_behind_the_escapes_of_json() -> None:
    person = Erasure('"a b"@dst.test')
    assert person.line(b'{"a":"\\"a b\\"@dst.test"}\n') == b'{"a":"erased"}\n'


def test_characters_that_mean_something_to_a_pattern_do_not() -> None:
    person = Erasure("a.b*c@dst.test")
    assert person.text("a.b*c@dst.test axb*c@dst.test a.bbc@dst.test a.b*c@dstxtest") == (
        "erased axb*c@dst.test a.bbc@dst.test a.b*c@dstxtest"
    )


@pytest.mark.parametrize(
    "address", ["", "ann", "ann@", "@dst.test", "<ann@dst.test>", "ann@dst.test> SIZE=1"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"(?i)address|recipient|local part|domain"):
        Erasure(address)


@given(st.text(), st.text())
def test_what_was_erased_is_not_found_again(before: str, after: str) -> None:
    line = json.dumps({"a": f"{before} <ann@dst.test> {after}"}, ensure_ascii=False).encode(
        "utf-8", "replace"
    )
    erased = ANN.line(line)
    assert b"<ann@dst.test>" not in erased
    assert ANN.line(erased) == erased


def test_metadata_and_tags_that_name_the_person_do_not_any_more() -> None:
    event = Event(
        tags=("ann@dst.test", "spring"), metadata=msgspec.Raw(b'{"ann@dst.test":{"to":["ANN@dst.test"]}}')
    )
    (line,) = encode_lines([event]).splitlines()
    assert json.loads(ANN.line(line)) == {
        "tags": ["erased", "spring"],
        "metadata": {"erased": {"to": ["erased"]}},
    }
