"""Hosts of one preference, each with a limit of its own: all are to be used alike."""

from __future__ import annotations

import pytest

from tests.fakes.sites import Bucket
from tests.fakes.street import Street


def buckets(hosts: int, rate: float) -> dict[str, Bucket]:
    return {f"mx{number}.dst.test": Bucket(rate, 1.0) for number in range(hosts)}


async def test_connections_that_are_used_up_together_do_not_leave_all_mail_to_the_other_host() -> None:
    """With three there, nothing was dialled for the one without: after ten minutes half of it was found."""
    async with Street(buckets(2, 6.0), offered=15.0) as street:
        await street.minutes(5)
        taken, refused = await street.minutes(5)
    assert taken > 11.0
    assert refused < 5


async def test_a_host_with_two_busy_connections_does_not_get_twice_as_much_as_one_with_one() -> None:
    async with Street(buckets(2, 6.0), offered=15.0, latency=0.3) as street:
        await street.minutes(6)
        taken, refused = await street.minutes(4)
    assert taken > 10.5
    assert refused < 5


@pytest.mark.parametrize("latency", [0.05, 0.3])
async def test_a_dead_host_is_not_missed_for_ever(latency: float) -> None:
    async with Street(buckets(3, 4.0), offered=15.0, latency=latency) as street:
        street.dead.add("mx1.dst.test")
        taken, _ = await street.minutes(4)
        assert street.lane.connections < 10
    assert taken > 5.0
    assert street.dials["mx1.dst.test"] < 60
