"""Credentials: whom they let through and what they refuse to be."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.core.credential import Credential, check_senders
from mta.core.limits.throttle import Rate
from mta.core.networks import parse_networks


def credential(**changes: Any) -> Credential:
    return Credential(**{"login": "app", "tenant": "acme", "stream": "bulk"} | changes)


@pytest.mark.parametrize(
    ("pattern", "address", "allowed"),
    [
        ("user@example.com", "user@example.com", True),
        ("User@Example.COM", "uSER@eXAMPLE.com", True),
        ("user@example.com", "other@example.com", False),
        ("example.com", "anyone@EXAMPLE.com", True),
        ("example.com", "anyone@mail.example.com", False),
        ("example.com", "anyone@notexample.com", False),
        ("example.com", "user@example.com@evil.test", False),
        ("example.com", "example.com", False),
        ("bücher.example", "anyone@xn--bcher-kva.example", True),
        ("xn--bcher-kva.example", "anyone@bücher.example", True),
        ("example.com", "anyone@-not a domain-", False),
        ("*", "anyone@anywhere.test", True),
        ("*", "postmaster", True),
    ],
)
def test_sender_patterns(pattern: str, address: str, allowed: bool) -> None:
    assert credential(senders=(pattern,)).allows(address) is allowed


def test_null_sender_needs_the_widest_pattern() -> None:
    assert credential(senders=("*",)).allows("")
    assert not credential(senders=("example.com", "user@example.com")).allows("")


@given(st.text(max_size=30))
def test_no_text_gets_past_a_pattern_of_another_domain(text: str) -> None:
    assert not credential(senders=("only.example",)).allows(text) or text.lower().endswith("@only.example")


@pytest.mark.parametrize(
    "text", ["", "@example.com", "user@", "*.example.com", "a b@example.com", "exam ple.com"]
)
def test_bad_sender_pattern_is_told_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match=r"write user@example\.com, example\.com or \*"):
        credential(senders=(text,))


def test_a_stored_pattern_that_no_address_matches_shuts_nobody_out() -> None:
    """One that was taken by an older version must not keep the others of the store from being read."""
    old = credential(senders=("a@b@example.com", "ann@example.com"))
    assert old.allows("ann@example.com")
    assert not old.allows("b@example.com")
    with pytest.raises(ValueError, match="is not a sender"):
        check_senders(old.senders)


def test_patterns_and_networks_are_kept_in_one_form_and_once() -> None:
    one = credential(
        senders=("Example.COM", "example.com"),
        networks=("192.0.2.1", "2001:DB8:0::/32", "::ffff:10.0.0.0/104"),
    )
    assert one.senders == ("example.com",)
    assert one.networks == ("192.0.2.1/32", "2001:db8::/32", "10.0.0.0/8")


@pytest.mark.parametrize(
    "text", ["0.0.0.0/0", "0.0.0.0/7", "::/0", "2000::/15", "::ffff:0:0/96", "::ffff:0.0.0.0/103"]
)
def test_the_whole_internet_is_no_network_of_ours(text: str) -> None:
    with pytest.raises(ValueError, match="too much of the internet"):
        parse_networks([text])


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "example.com", "10.0.0.0/33"])
def test_text_that_is_no_network_is_told_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match=r"write a network like 192\.0\.2\.0/24"):
        parse_networks([text])


@pytest.mark.parametrize(
    ("ip", "allowed"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.0.0.1", False),
        ("2001:db8::7", True),
        ("2001:db9::7", False),
    ],
)
def test_clients_are_held_to_the_networks(ip: str, allowed: bool) -> None:
    assert credential(networks=("10.0.0.0/8", "2001:db8::/32")).allows_client(ip) is allowed


def test_the_stream_of_mail_that_names_none_is_the_first() -> None:
    assert credential().streams == ("bulk",)
    assert credential(streams=("bulk", "news", "bulk")).streams == ("bulk", "news")
    assert credential(streams=("news", "bulk")).streams == ("bulk", "news")


def test_without_networks_a_password_may_come_from_anywhere() -> None:
    assert credential().allows_client("203.0.113.9")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"login": ""}, "no login"),
        ({"login": "two words"}, "no login"),
        ({"login": "line\nbreak"}, "no login"),
        ({"login": "é" * 200}, "no login"),
        ({"tenant": ""}, "no tenant"),
        ({"stream": "\x00"}, "no stream"),
        ({"streams": ("news", "two words")}, "no stream"),
        ({"senders": ()}, "needs a sender"),
        ({"message_size": 0}, "message_size must be at least 1"),
        ({"recipients": -1}, "recipients must be at least 1"),
        ({"rate": Rate(0, 60.0)}, "rate must allow"),
        ({"kind": "network"}, "needs the networks"),
    ],
)
def test_an_impossible_credential_does_not_exist(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        credential(**changes)
