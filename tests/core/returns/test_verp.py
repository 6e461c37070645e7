"""A token says whose mail came back, and nobody can write one but us."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.core.mail.address import parse
from mta.core.returns.verp import LIFETIME, WEEK, NotOurs, Returned, Verp

NOW = 1_800_000_000.0
SECRET, OTHER = b"s" * 32, b"o" * 32
DOMAIN = "bounces.src.test"
OURS = Verp([SECRET])
IDS = st.integers(0, 2**55 - 1)
POSITIONS = st.integers(0, 2**22 - 1)
ADDRESS = OURS.make(123456789, 7, DOMAIN, NOW)
LOCAL = ADDRESS.partition("@")[0]


@given(IDS, POSITIONS, st.floats(0, 4e9))
def test_an_address_reads_back(message: int, n: int, now: float) -> None:
    address = OURS.make(message, n, DOMAIN, now)
    assert OURS.read(address, now) == Returned(message, n)
    assert OURS.read(address, now + LIFETIME) == Returned(message, n)
    assert OURS.read(address, now + LIFETIME + WEEK) is NotOurs.EXPIRED


@given(IDS, POSITIONS)
def test_an_address_is_one_that_every_server_takes(message: int, n: int) -> None:
    address = OURS.make(message, n, DOMAIN, NOW)
    local = address.partition("@")[0]
    assert len(local) == 36 <= 64  # RFC 5321 4.5.3.1.1
    assert local.isascii()
    assert local.isalnum()  # nothing in it that others cut at
    assert local == local.lower()
    assert parse(b"FROM", f"FROM:<{address}>".encode())[0].address == address


@given(st.data())
def test_a_letter_that_was_changed_is_refused(data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(LOCAL) - 1))
    letter = data.draw(st.characters().filter(lambda each: each.lower() != LOCAL[position]))
    assert isinstance(OURS.read(f"{LOCAL[:position]}{letter}{LOCAL[position + 1 :]}@{DOMAIN}", NOW), NotOurs)


def test_every_single_octet_that_was_changed_is_refused() -> None:
    for position, right in enumerate(LOCAL):
        for octet in range(128):
            if chr(octet).lower() != right:
                changed = f"{LOCAL[:position]}{chr(octet)}{LOCAL[position + 1 :]}@{DOMAIN}"
                assert OURS.read(changed, NOW) in (NotOurs.NO_TOKEN, NotOurs.FORGED), changed


def test_a_letter_that_only_unicode_folds_to_ours_is_refused() -> None:
    kelvin = "\N{KELVIN SIGN}"
    assert kelvin.lower() == "k"
    address = next(each for n in range(100) if "k" in (each := OURS.make(n, 0, DOMAIN, NOW)))
    assert OURS.read(address.replace("k", kelvin, 1), NOW) is NotOurs.NO_TOKEN


@given(st.integers(0, 2 ** len(ADDRESS) - 1))
def test_letters_that_were_folded_on_their_way_are_the_same(folded: int) -> None:
    mixed = "".join(each.upper() if folded >> n & 1 else each for n, each in enumerate(ADDRESS))
    assert OURS.read(mixed, NOW) == Returned(123456789, 7)


@pytest.mark.parametrize("local", [f"prvs=1234abcdef={LOCAL}", f"btv1==06c==={LOCAL}", f"{LOCAL}+tag"])
def test_what_others_put_before_it_or_behind_it_is_passed_over(local: str) -> None:
    assert OURS.read(f"{local}@{DOMAIN}", NOW) == Returned(123456789, 7)


@pytest.mark.parametrize(
    "address",
    [
        "", "@", LOCAL, f"@{DOMAIN}", f"postmaster@{DOMAIN}", f"{LOCAL}x@{DOMAIN}", f"{LOCAL[1:]}@{DOMAIN}",
        f"{LOCAL}=@{DOMAIN}", f"+{LOCAL}@{DOMAIN}", f'"{LOCAL}"@{DOMAIN}', f"{'u' * 36}@{DOMAIN}",
        f"b{'u' * 35}@{DOMAIN}", f"b{'é' * 35}@{DOMAIN}", f"b{'=' * 35}@{DOMAIN}", "b" * 100_000,
    ],
)  # fmt: skip
def test_what_is_written_otherwise_is_no_token(address: str) -> None:
    assert OURS.read(address, NOW) is NotOurs.NO_TOKEN


@given(st.text())
def test_whatever_others_write_it_is_answered(text: str) -> None:
    assert isinstance(OURS.read(text, NOW), NotOurs)
    assert isinstance(OURS.read(f"{text}@{DOMAIN}", NOW), NotOurs)


@pytest.mark.parametrize("domain", ["bounces.other.test", "src.test", "", "bounces.src.test.evil.test"])
def test_a_token_of_another_domain_is_refused(domain: str) -> None:
    assert OURS.read(f"{LOCAL}@{domain}", NOW) is NotOurs.FORGED


@pytest.mark.parametrize("last", range(64))
def test_a_token_of_another_secret_is_refused(last: int) -> None:
    """Whatever number that secret has: some of these have ours."""
    theirs = Verp([b"t" * 31 + bytes((last,))])
    assert OURS.read(theirs.make(123456789, 7, DOMAIN, NOW), NOW) is NotOurs.FORGED


def test_a_token_of_another_purpose_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mta.core.returns.verp._PURPOSE", b"mta unsubscribe 1")
    theirs = Verp([SECRET])
    assert OURS.read(theirs.make(123456789, 7, DOMAIN, NOW), NOW) is NotOurs.FORGED


def test_a_secret_is_changed_without_a_token_lost() -> None:
    both = Verp([OTHER, SECRET])
    assert both.read(ADDRESS, NOW) == Returned(123456789, 7)
    renewed = both.make(123456789, 7, DOMAIN, NOW)
    assert both.read(renewed, NOW) == Returned(123456789, 7)
    assert Verp([OTHER]).read(renewed, NOW) == Returned(123456789, 7)
    assert Verp([OTHER]).read(ADDRESS, NOW) is NotOurs.FORGED
    assert OURS.read(renewed, NOW) is NotOurs.FORGED


def test_the_domain_of_a_token_may_come_back_in_its_other_form() -> None:
    address = OURS.make(1, 0, "xn--bcher-kva.test", NOW)
    assert OURS.read(address.replace("xn--bcher-kva", "Bücher"), NOW) == Returned(1, 0)


def test_a_position_that_no_recipient_has_is_a_bug() -> None:
    with pytest.raises(ValueError, match="no recipient has the position 4194304"):
        OURS.make(1, 2**22, DOMAIN, NOW)


def test_a_clock_that_is_far_ahead_makes_tokens_all_the_same() -> None:
    far = 1e10
    assert OURS.read(OURS.make(1, 0, DOMAIN, far), NOW) == Returned(1, 0)
