"""What is told once an hour, and stays within its bounds."""

from __future__ import annotations

from mta.core.limits.hourly import EACH, MOST, Hourly, Objection


def test_the_first_is_told_the_rest_are_counted_and_all_is_forgotten() -> None:
    told = Hourly()
    assert [told.met("key", "app", "src.test").more for _ in range(4)] == [0, 1, 2, 3]
    assert told.met("alignment", "app", "src.test").more == 0
    assert told.rest() == [Objection("key", "app", "src.test", 3)]
    assert told.rest() == []
    assert told.met("key", "app", "src.test").more == 0


def test_a_credential_with_a_thousand_domains_is_told_together() -> None:
    told = Hourly()
    each = [told.met("key", "app", f"d{n}.test") for n in range(1000)]
    assert each[:EACH] == [Objection("key", "app", f"d{n}.test") for n in range(EACH)]
    assert all(later is each[EACH] for later in each[EACH:])
    assert told.met("key", "other", "d.test") == Objection("key", "other", "d.test")
    assert told.met("key", "app", "d0.test").more == 1  # as before
    assert told.rest() == [Objection("key", "app", "d0.test", 1), Objection("key", "app", "", 999 - EACH)]


def test_credentials_without_number_are_told_together() -> None:
    told = Hourly()
    for n in range(MOST):
        assert told.met("key", f"app{n}", "d.test").more == 0
    assert told.met("key", "one-more", "d.test") == Objection("key", "", "")
    assert told.met("key", "and-another", "d.test").more == 1
    assert told.met("key", "app0", "d.test").more == 1
    assert len(told._met) == MOST + 1
