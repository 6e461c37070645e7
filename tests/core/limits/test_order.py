"""The one order of service: whose row is next."""

from __future__ import annotations

from collections import Counter

import pytest

from mta.core.limits.order import IN_A_ROW, Order


def order(*shares: tuple[int, str]) -> Order[str, tuple[int, str]]:
    """Rows without end."""
    made: Order[str, tuple[int, str]] = Order()
    for priority, tenant in shares:
        made.enter(priority, tenant, (priority, tenant))
    return made


def served(made: Order[str, tuple[int, str]], turns: int) -> list[tuple[int, str]]:
    told = []
    for _ in range(turns):
        row = made.head()
        assert row is not None
        made.served(*row, stays=True)
        told.append(row)
    return told


def test_the_lower_has_its_tenth_and_tenants_take_turns() -> None:
    told = served(order((-4, "a"), (4, "b"), (4, "c")), 10 * (IN_A_ROW + 1))
    assert told[:4] == [(4, "b"), (4, "c"), (4, "b"), (4, "c")]
    assert Counter(told) == {(4, "b"): 45, (4, "c"): 45, (-4, "a"): 10}


def test_a_row_that_leaves_comes_back_behind_the_others() -> None:
    made = order((0, "a"), (0, "b"))
    made.served(0, "a", stays=False)
    assert made.get(0, "a") is None
    made.enter(0, "a", (0, "a"))
    assert served(made, 2) == [(0, "b"), (0, "a")]


def test_where_the_first_may_not_be_served_the_next_may() -> None:
    made = order((-4, "a"), (4, "b"), (4, "c"))
    assert [row for *_, row in made.ranked()] == [(4, "b"), (4, "c"), (-4, "a")]
    for _ in range(IN_A_ROW):
        made.served(4, "b", stays=True)
    assert next(row for *_, row in made.ranked()) == (-4, "a")
    assert list(Order[str, str]().ranked()) == []


def test_a_tenant_leaves_at_every_priority_and_nobody_loses_a_turn() -> None:
    made = order((-4, "a"), (4, "a"), (4, "b"))
    assert made.leave("a") == [(4, "a"), (-4, "a")]
    assert len(made) == 1
    with pytest.raises(KeyError):
        made.served(4, "a", stays=False)
    made.clear()
    assert made.head() is None
