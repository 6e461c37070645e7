"""Who plays which recipient in the sandbox."""

from __future__ import annotations

import pytest

from mta.sandbox.actors import ACTORS, actor_for


def test_actors_do_what_their_names_say() -> None:
    assert actor_for("ok@example.org").rcpt is None
    assert str(actor_for("defer@example.org").rcpt) == "451 4.7.1 Try again later"
    assert str(actor_for("bounce@example.org").rcpt) == "550 5.1.1 No such user here"
    dropping = actor_for("drop-after-data@example.org")
    assert (dropping.rcpt, dropping.after_data) == (None, "drop")


@pytest.mark.parametrize("address", ["BOUNCE@example.org", "bounce+42@example.org", "Bounce+a+b@example.org"])
def test_case_and_tag_do_not_change_the_actor(address: str) -> None:
    assert actor_for(address) is ACTORS["bounce"]


@pytest.mark.parametrize("address", ["someone@example.org", "bouncer@example.org", "postmaster", "", "+@x"])
def test_everyone_else_takes_the_mail(address: str) -> None:
    assert actor_for(address) is ACTORS["ok"]


def test_the_domain_plays_no_part() -> None:
    assert actor_for("ok@bounce") is ACTORS["ok"]
    assert actor_for('"a@b"@defer') is ACTORS["ok"]


@pytest.mark.parametrize("actor", ACTORS.values(), ids=ACTORS)
def test_each_is_described_in_a_sentence(actor: object) -> None:
    does = getattr(actor, "does", "")
    assert does.endswith(".")
    assert "\n" not in does
