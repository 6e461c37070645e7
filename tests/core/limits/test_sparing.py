"""What anybody can bring about is told sparingly, and counted."""

from __future__ import annotations

from mta.core.limits.sparing import MOST, PERIOD, Sparing


def test_a_flood_is_told_a_few_times_and_then_as_a_number() -> None:
    sparing = Sparing()
    told = [sparing.may_tell("wrong", 0.0) for _ in range(1000)]
    assert told.count(True) == MOST
    assert sparing.may_tell("other", 1.0)
    assert sparing.rest(PERIOD - 1) == []
    assert sparing.rest(PERIOD) == [("wrong", 1000 - MOST)]
    assert sparing.may_tell("wrong", PERIOD)
    assert sparing.rest(2 * PERIOD + 1) == []  # nothing was left out
