"""Sending domains and the life of their keys."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mta.core.domain import (
    MAX_KEYS,
    DomainKey,
    KeyMoveError,
    KeyState,
    SendingDomain,
    activated,
    changed,
    new_selector,
    retired,
)

OLD = DomainKey("r1", "rsa-sha256", "b2xk", KeyState.ACTIVE, 0.0, 0.0)
NEW = DomainKey("r2", "rsa-sha256", "bmV3", KeyState.PENDING, 50.0, 50.0)
SMALL = DomainKey("e1", "ed25519-sha256", "c21hbGw=", KeyState.ACTIVE, 0.0, 0.0)
DOMAIN = SendingDomain("src.test", keys=(SMALL, OLD, NEW))


def test_a_new_key_takes_over_from_the_one_of_its_kind_only() -> None:
    new, former = activated(DOMAIN, "r2", 100.0)
    assert (new.selector, new.state, new.since) == ("r2", KeyState.ACTIVE, 100.0)
    assert (former.selector, former.state, former.since) == ("r1", KeyState.RETIRING, 100.0)
    after = replace(DOMAIN, keys=(SMALL, former, new))
    assert [key.selector for key in after.signers] == ["r2", "e1"]  # RSA first


def test_the_only_key_that_signs_does_not_retire() -> None:
    only = SendingDomain("src.test", keys=(OLD, NEW))
    with pytest.raises(KeyMoveError, match="r1 is the only key of src"):
        retired(only, "r1", 100.0)
    assert retired(DOMAIN, "r1", 100.0).state is KeyState.RETIRING


def test_a_key_that_is_over_says_so_in_its_record_and_never_comes_back() -> None:
    over = retired(DOMAIN, "r2", 100.0)
    assert over.record == "v=DKIM1; k=rsa; p="
    with pytest.raises(KeyMoveError, match="r2 is retired: it cannot become active"):
        activated(SendingDomain("src.test", keys=(OLD, over)), "r2", 200.0)


def test_a_key_that_signs_already_cannot_be_activated_again() -> None:
    with pytest.raises(KeyMoveError, match="r1 is active: it cannot become active"):
        activated(DOMAIN, "r1", 100.0)


def test_a_key_nobody_has_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="has no key 'r9': it has e1, r1, r2"):
        activated(DOMAIN, "r9", 100.0)


@pytest.mark.parametrize(
    "name", ["", "test", "[192.0.2.1]", "a..b", "a b.test", "-a.test", "x" * 64 + ".test"]
)
def test_what_is_no_domain_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"no domain|top-level"):
        SendingDomain(name)


def test_a_domain_beyond_ascii_is_kept_by_its_a_label() -> None:
    assert SendingDomain("Bücher.test", return_path="Bounces.Bücher.test") == SendingDomain(
        "xn--bcher-kva.test", return_path="bounces.xn--bcher-kva.test"
    )


def test_selectors_of_one_day_differ() -> None:
    taken: set[str] = set()
    for wanted in ("r20261128", "r20261128a", "r20261128b"):
        taken.add(new_selector("rsa-sha256", "20261128", taken))
        assert wanted in taken
    assert new_selector("ed25519-sha256", "20261128", taken) == "e20261128"


SHOWN = {
    "as it is printed": NEW.record,
    "in its shortest form": "p=bmV3",
    "with blanks": " v = DKIM1 ; k= rsa;\tp= bm V3 ;",
    "without its padding": "v=DKIM1; p=bmV3;",
    "for one service, and a test": "v=DKIM1; s=email; t=y:s; h=sha1:sha256; n=note; p=bmV3",
}
NOT_SHOWN = {
    "another key": "v=DKIM1; k=rsa; p=b2xk",
    "another kind": "v=DKIM1; k=ed25519; p=bmV3",
    "a key that is over": "v=DKIM1; p=",
    "another version": "v=DKIM2; p=bmV3",
    "a version that does not stand first": "p=bmV3; v=DKIM1",
    "another service": "v=DKIM1; s=tlsrpt; p=bmV3",
    "another hash": "v=DKIM1; h=sha1; p=bmV3",
    "SPF": "v=spf1 -all",
    "nothing": "",
}


@pytest.mark.parametrize("record", SHOWN.values(), ids=SHOWN)
def test_a_record_by_which_receivers_can_verify_is_recognised(record: str) -> None:
    assert NEW.is_shown_by(record.encode())


@pytest.mark.parametrize("record", NOT_SHOWN.values(), ids=NOT_SHOWN)
def test_a_record_by_which_they_cannot_is_none(record: str) -> None:
    assert not NEW.is_shown_by(record.encode())


def test_too_many_keys_are_none_too_many_where_some_are_retired() -> None:
    def numbered(n: int, state: KeyState) -> DomainKey:
        return replace(NEW, selector=f"s{n}", state=state)

    full = SendingDomain("src.test", keys=tuple(numbered(n, KeyState.RETIRED) for n in range(MAX_KEYS)))
    grown = changed(full, [numbered(MAX_KEYS, KeyState.PENDING)])
    assert [key.selector for key in grown.keys] == [f"s{n}" for n in range(1, MAX_KEYS + 1)]
    busy = SendingDomain("src.test", keys=tuple(numbered(n, KeyState.RETIRING) for n in range(MAX_KEYS)))
    with pytest.raises(KeyMoveError, match="has 16 keys: retire some first"):
        changed(busy, [NEW])
    assert changed(busy, [numbered(3, KeyState.RETIRED)]).key("s3").state is KeyState.RETIRED


def test_a_key_whose_host_is_too_long_for_dns_is_none_of_the_domain() -> None:
    name = ".".join(("x" * 60, "y" * 60, "z" * 60, "w" * 54, "test"))
    with pytest.raises(ValueError, match="is too long for DNS, by 3: take a shorter selector"):
        SendingDomain(name, keys=(OLD,))
