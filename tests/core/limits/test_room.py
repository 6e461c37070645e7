"""Room for one more message."""

from __future__ import annotations

from mta.core.limits.room import MIB, RESERVE_FILES, Free, Quota, Reserve, Share, Size, over_quota


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
    memory = Share(100)
    memory.take(60)
    assert memory.has_room(40)
    assert not memory.has_room(41)


def test_one_who_takes_all_that_he_may_leaves_room_for_the_next() -> None:
    memory = Share(1000)
    greedy = []
    for _ in range(100):
        message = memory.open("greedy", "192.0.2.1")
        while message.has_room(10) and message.used < 200:
            message.take(10)
        greedy.append(message)
    other = memory.open("other", "198.51.100.1")
    assert other.has_room(100)
    same_tenant = memory.open("greedy", "198.51.100.1")
    assert same_tenant.has_room(10)


def test_a_message_that_is_alone_may_have_a_half_and_one_that_is_not_a_quarter_of_the_rest() -> None:
    memory = Share(1000)
    alone = memory.open("acme", "192.0.2.1")
    assert alone.has_room(500)
    assert not alone.has_room(501)
    alone.take(400)
    other = memory.open("other", "192.0.2.2")
    assert other.has_room(150)
    assert not other.has_room(151)
    other.take(1)
    assert not alone.has_room(1)


def test_shares_of_those_who_are_gone_are_forgotten() -> None:
    memory = Share(1000)
    one, two = memory.open("acme", "192.0.2.1"), memory.open("acme", "192.0.2.1")
    one.take(300)
    two.take(100)
    assert memory.used == 400
    one.close()
    assert memory.used == 100
    two.close()
    assert memory.used == 0
    assert memory.open("acme", "192.0.2.1").free == 1000
