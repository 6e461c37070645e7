"""What is told once an hour, and stays within its bounds."""

from __future__ import annotations

from mta.core.limits.hourly import EACH, MOST, Hourly, Objection


def test_the_first_is_told_the_rest_are_counted_and_all_is_forgotten() -> None:
    told = Hourly()
    assert told.met("key", "app", "src.test") == Objection("key", "app", "src.test")
    assert [told.met("key", "app", "src.test") for _ in range(3)] == [None] * 3
    assert told.met("alignment", "app", "src.test") is not None
    assert told.rest() == [(Objection("key", "app", "src.test"), 3)]
    assert told.rest() == []
    assert told.met("key", "app", "src.test") is not None


def test_a_credential_with_a_thousand_domains_is_told_together() -> None:
    told = Hourly()
    new = [told.met("key", "app", f"d{n}.test") for n in range(1000)]
    assert new[:EACH] == [Objection("key", "app", f"d{n}.test") for n in range(EACH)]
    assert new[EACH] == Objection("key", "app", "")
    assert set(new[EACH + 1 :]) == {None}
    assert told.met("key", "other", "d.test") == Objection("key", "other", "d.test")
    assert told.rest() == [(Objection("key", "app", ""), 1000 - EACH - 1)]


def test_credentials_without_number_are_told_together() -> None:
    told = Hourly()
    for n in range(MOST):
        assert told.met("key", f"app{n}", "d.test") is not None
    assert told.met("key", "one-more", "d.test") == Objection("key", "", "")
    assert told.met("key", "and-another", "d.test") is None
    assert told.met("key", "app0", "d.test") is None  # as before
    assert len(told._more) <= MOST + 4
