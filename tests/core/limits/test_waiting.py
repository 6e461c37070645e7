"""Many wait for the same token: the order of service says whose it is."""

from __future__ import annotations

import pytest

from mta.core.limits.order import IN_A_ROW
from mta.core.limits.waiting import Waiting


def next_of(waiting: Waiting[str]) -> str:
    """Who is served, and waits no more."""
    item = waiting.head()
    waiting.served(item, stays=False)
    return item


def served(waiting: Waiting[str], times: int) -> list[str]:
    return [next_of(waiting) for _ in range(times)]


def test_who_has_the_higher_priority_goes_before_those_who_came_first() -> None:
    waiting: Waiting[str] = Waiting()
    for site in range(50):
        waiting.add(f"news{site}", (-4, "acme"))
    waiting.add("password", (4, "acme"))
    assert next_of(waiting) == "password"


def test_tenants_take_turns_and_within_one_its_sites() -> None:
    waiting: Waiting[str] = Waiting()
    for site in "abc":
        waiting.add(f"acme-{site}", (0, "acme"))
    waiting.add("shop-a", (0, "shop"))
    assert served(waiting, 4) == ["acme-a", "shop-a", "acme-b", "acme-c"]


def test_every_tenth_turn_is_the_lower_priority_s() -> None:
    waiting: Waiting[str] = Waiting()
    waiting.add("news", (-4, "acme"))
    got = []
    for turn in range(IN_A_ROW + 1):
        waiting.add(f"password{turn}", (4, "acme"))
        got.append(next_of(waiting))
    assert got.index("news") == IN_A_ROW


def test_who_comes_again_with_better_mail_has_the_better_place_and_only_that() -> None:
    waiting: Waiting[str] = Waiting()
    waiting.add("other", (0, "acme"))
    waiting.add("lane", (-4, "acme"))
    waiting.add("lane", (4, "acme"))
    assert served(waiting, 2) == ["lane", "other"]
    assert not waiting


def test_who_has_gone_is_not_served() -> None:
    waiting: Waiting[str] = Waiting()
    waiting.add("gone", (4, "acme"))
    waiting.add("stays", (0, "acme"))
    waiting.discard("gone")
    assert "gone" not in waiting
    assert next_of(waiting) == "stays"
    with pytest.raises(IndexError, match="nobody waits"):
        next_of(waiting)


def test_who_comes_again_and_again_with_other_mail_costs_no_memory_and_leaves_nothing_behind() -> None:
    waiting: Waiting[str] = Waiting()
    waiting.add("first", (4, "acme"))
    for turn in range(10_000):
        waiting.add("lane", (-4, f"tenant{turn % 2}"))
    assert sum(map(len, waiting._order)) == len(waiting) == 2
    waiting.discard("lane")
    waiting.discard("first")
    assert not list(waiting._order)


def test_who_has_not_been_served_keeps_his_turn_and_who_stays_waits_behind_the_others() -> None:
    waiting: Waiting[str] = Waiting()
    for tenant in ("acme", "shop"):
        waiting.add(f"{tenant}-a", (0, tenant))
    assert [waiting.head() for _ in range(3)] == ["acme-a"] * 3
    waiting.served("acme-a", stays=True)
    assert served(waiting, 2) == ["shop-a", "acme-a"]
    waiting.served("gone", stays=True)
    assert not waiting
