"""What peers offer, and what they ask us to keep to."""

import pytest

from mta.core.answers.capabilities import UNLIMITED, Capabilities, PeerLimits, capabilities
from mta.core.model import Recipient


def to(*domains: str) -> list[Recipient]:
    return [Recipient(n, f"u{n}@{domain}", domain) for n, domain in enumerate(domains)]


def test_what_is_offered_is_known() -> None:
    offered = {"pipelining": "", "size": "1000", "8bitmime": "", "smtputf8": "", "starttls": ""}
    assert capabilities(offered) == Capabilities(True, True, True, True)
    assert capabilities({}) == Capabilities()


@pytest.mark.parametrize(
    ("said", "limits"),
    [
        ("RCPTMAX=20 MAILMAX=5 RCPTDOMAINMAX=1", PeerLimits(20, 5, 1)),
        ("mailmax=5", PeerLimits(mails=5)),
        ("RCPTMAX=999999 NOVELTY=x", PeerLimits(recipients=999_999)),
        ("RCPTMAX=20 MAILMAX=0", PeerLimits(recipients=20)),  # RFC 9422 4: no leading zero, so none at all
        ("RCPTMAX=1000000", None),  # seven digits
        ("RCPTMAX=020", None),
        ("RCPTMAX=-1", None),
        ("RCPTMAX=\u0661", None),
        ("RCPTMAX=20,MAILMAX=5", None),
        ("RCPTMAX", None),
        ("", None),
    ],
)
def test_limits_hold_only_as_the_standard_writes_them(said: str, limits: PeerLimits | None) -> None:
    assert capabilities({"limits": said}).limits == limits


def test_more_recipients_than_fit_are_for_another_transaction() -> None:
    assert PeerLimits(recipients=2).beyond(to("a", "b", "c", "d")) == {2, 3}
    assert PeerLimits(recipients=4).beyond(to("a", "b", "c", "d")) == set()


def test_more_domains_than_fit_are_for_another_transaction_and_each_keeps_its_recipients() -> None:
    assert PeerLimits(domains=1).beyond(to("a", "b", "a", "c")) == {1, 3}
    assert PeerLimits(domains=2).beyond(to("a", "b", "a", "c", "b")) == {3}
    assert PeerLimits(domains=2).beyond(to("a", "a", "a")) == set()


def test_both_limits_hold_at_once() -> None:
    assert PeerLimits(recipients=2, domains=1).beyond(to("a", "b", "a", "a")) == {1, 3}


def test_one_recipient_always_fits() -> None:
    assert PeerLimits(1, 1, 1).beyond(to("a")) == set()
    assert UNLIMITED > 999_999


def test_who_loses_commands_is_not_believed_to_take_several() -> None:
    assert not capabilities({"pipelining": ""}, is_stepwise=True).pipelining
