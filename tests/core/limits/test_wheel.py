"""Who is looked at when: nobody too late, nobody twice, and nobody for another."""

from __future__ import annotations

from random import Random

from mta.core.limits.wheel import Wheel


def all_due(wheel: Wheel[str], now: float) -> list[str]:
    found = []
    while (item := wheel.next(now)) is not None:
        found.append(item)
    return found


def test_who_is_noted_again_is_looked_at_once_at_the_earlier_time() -> None:
    wheel: Wheel[str] = Wheel()
    for due in (50.0, 10.5, 30.0):
        wheel.note("lane", due)
    assert (all_due(wheel, 10.5), all_due(wheel, 11.0), all_due(wheel, 60.0)) == ([], ["lane"], [])
    assert not len(wheel)


def test_who_has_left_is_not_looked_at_and_may_come_again() -> None:
    wheel: Wheel[str] = Wheel()
    wheel.note("stays", 5.0)
    wheel.note("goes", 5.0)
    wheel.discard("goes")
    wheel.discard("nobody")
    assert all_due(wheel, 5.0) == ["stays"]
    wheel.note("goes", 5.0)
    assert all_due(wheel, 5.0) == ["goes"]


def test_a_time_that_is_long_over_is_now() -> None:
    wheel: Wheel[str] = Wheel()
    wheel.note("late", 1.0)
    assert all_due(wheel, 1e9) == ["late"]
    wheel.note("later", -1e9)
    assert all_due(wheel, 1e9) == ["later"]


def test_whatever_comes_and_goes_each_is_due_when_it_was_noted_first_and_nothing_is_left_behind() -> None:
    dice, wheel = Random(7), Wheel[str]()
    due: dict[str, float] = {}
    now = 0.0
    for _ in range(20_000):
        item = f"lane{dice.randrange(200)}"
        if dice.random() < 0.2:
            wheel.discard(item)
            due.pop(item, None)
        else:
            when = now + dice.uniform(0.0, 50.0)
            wheel.note(item, when)
            due[item] = min(when, due.get(item, when))
        if dice.random() < 0.05:
            now += dice.uniform(0.0, 5.0)
            for found in all_due(wheel, now):
                assert due.pop(found) <= now
            assert all(when > now - 1.0 for when in due.values())
    assert len(wheel) == len(due)
    assert len(all_due(wheel, now + 100.0)) == len(due)
    assert not wheel._seconds
    assert not wheel._next
