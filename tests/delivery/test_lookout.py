"""Lanes and connections are looked at in their time, however many there are, and whatever one of them has."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise

from mta.delivery.lookout import AT_ONCE, EACH, Lookout
from tests.fakes.clock import HandClock


async def test_one_bad_item_keeps_no_other_from_its_look_and_has_its_own_again() -> None:
    clock, bugs, looked = HandClock(), [], Counter[str]()

    def look(item: str, now: float) -> float | None:
        looked[item] += 1
        if item == "bad":
            raise RuntimeError("a bug in one item")
        return None

    lookout: Lookout[str] = Lookout(clock, look, bugs.append)
    lookout.start()
    for item in ("a", "bad", "b"):
        lookout.within(item, EACH)
    await clock.advance(3.5)
    assert (looked["a"], looked["bad"], looked["b"], len(bugs)) == (1, 3, 1, 3)
    lookout.stop()


async def test_ten_thousand_that_are_due_at_once_let_the_loop_see_to_others_between_them() -> None:
    clock, looked = HandClock(), Counter[int]()
    lookout: Lookout[int] = Lookout(clock, lambda item, now: looked.update([item]), fail)
    lookout.start()
    for item in range(10_000):
        lookout.within(item, EACH)
    steps = []
    await clock.advance(2.0)
    while len(looked) < 10_000:
        steps.append(len(looked))
        await asyncio.sleep(0)
    assert max(after - before for before, after in pairwise(steps)) <= AT_ONCE
    await clock.advance(10.0)
    assert set(looked.values()) == {1}
    lookout.stop()


async def test_who_wants_to_be_looked_at_at_once_again_does_not_hold_the_loop() -> None:
    clock, looked = HandClock(), Counter[str]()

    def look(item: str, now: float) -> float:
        looked[item] += 1
        return now - 1.0

    lookout: Lookout[str] = Lookout(clock, look, fail)
    lookout.start()
    lookout.within("eager", EACH)
    await clock.advance(10.0)
    assert looked["eager"] == 10
    lookout.stop()


def fail(error: Exception) -> None:
    raise error
