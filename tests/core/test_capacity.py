"""Room for one more message."""

from __future__ import annotations

from mta.core.capacity import MIB, RESERVE_FILES, Free, Memory, Quota, Reserve, Size, over_quota


def test_a_disk_below_its_reserve_takes_nothing_until_there_is_clearly_more() -> None:
    reserve = Reserve(100 * MIB)
    reserve.measured(Free(100 * MIB, 10_000))
    assert reserve.ask(0) is None
    reserve.measured(Free(99 * MIB, 10_000))
    assert reserve.ask(0) == "99 MiB are free and 100 MiB are kept in reserve"
    reserve.measured(Free(119 * MIB, 10_000))
    assert reserve.ask(0) == "119 MiB are free; mail is taken again from 120 MiB on"
    reserve.measured(Free(120 * MIB, 10_000))
    assert reserve.ask(0) is None


def test_a_message_that_would_eat_into_the_reserve_is_refused_alone() -> None:
    reserve = Reserve(100 * MIB)
    reserve.measured(Free(110 * MIB, None))
    assert reserve.ask(10 * MIB) is None
    assert reserve.ask(10 * MIB + 1) == "110 MiB are free, too few for 10485761 octets"
    assert reserve.short is None


def test_inodes_run_out_before_octets_do() -> None:
    reserve = Reserve(MIB)
    reserve.measured(Free(1000 * MIB, RESERVE_FILES - 1))
    assert reserve.ask(0) == "999 inodes are free and 1000 inodes are kept in reserve"
    assert reserve.remedy == "remove files there"
    reserve.measured(Free(1000 * MIB, RESERVE_FILES + 100))
    assert reserve.short == "1100 inodes are free; mail is taken again from 1200 inodes on"
    reserve.measured(Free(1000 * MIB, RESERVE_FILES + 200))
    assert reserve.short is None


def test_a_tenant_with_its_share_in_the_queue() -> None:
    quota = Quota(messages=2, size=Size(10 * MIB))
    assert over_quota(quota, 1, 9 * MIB, MIB) is None
    assert over_quota(quota, 2, 0, 0) == "you have 2 messages in the queue and may have 2"
    assert over_quota(quota, 1, 9 * MIB, MIB + 1) == "you have 9 MiB in the queue and may have 10 MiB"
    assert over_quota(Quota(), 10**9, 10**15, 0) is None


def test_memory_is_full_when_one_more_would_not_fit() -> None:
    memory = Memory(100, used=60)
    assert memory.has_room(40)
    assert not memory.has_room(41)
