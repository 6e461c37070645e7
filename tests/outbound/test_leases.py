"""The retries in memory: how many of them, and whose."""

from __future__ import annotations

from collections import Counter

import pytest

from mta.core.model import Message, Recipient
from mta.outbound import leases
from mta.outbound.leases import ALL, LOT, Leases, Lot

A, B, C = (Lot(site, "", 0, "acme") for site in "abc")


def message(number: int) -> Message:
    return Message(number, "", "acme", "bulk", "app", 0.0, 0, "", 0, [Recipient(0, "b@dst.test", "dst.test")])


def take(held: Leases, lot: Lot, numbers: range) -> None:
    for number in numbers:
        made = message(number)
        held.take(made, made.recipients[0], lot)


def give_back(held: Leases, number: int) -> Lot | None:
    made = message(number)
    return held.give_back(made, made.recipients[0])


def test_a_lot_alone_has_half_a_lane() -> None:
    held = Leases()
    take(held, A, range(LOT))
    assert held.room(A) == 0
    assert held.room(B) == LOT


def test_the_more_lots_the_less_for_each_but_never_nothing() -> None:
    held = Leases()
    for n in range(99):
        take(held, Lot(f"s{n}", "", 0, "acme"), range(n, n + 1))
    assert held.room(Lot("new", "", 0, "acme")) == ALL // 100
    assert held.room(Lot("s0", "", 0, "acme")) == ALL // 100 - 1


def test_stuck_lots_leave_room_for_another() -> None:
    held = Leases()
    for n in range(ALL // LOT):
        take(held, Lot(f"stuck{n}", "", 0, "acme"), range(n * LOT, (n + 1) * LOT))
    assert held.room(Lot("live", "", 0, "acme")) > LOT // 2


def test_a_share_with_too_many_lots_is_shut_out_until_one_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LOTS", 4)
    held = Leases()
    take(held, A, range(1))
    take(held, B, range(1, 2))
    assert held.shuts_out(C)
    assert held.room(C) == 0
    assert held.room(A) > 0
    assert give_back(held, 0) == A
    assert held.room(C) > 0


@pytest.mark.parametrize("lot", [Lot("c", "", 4, "acme"), Lot("c", "", 0, "other")])
def test_the_lots_of_one_share_leave_places_and_room_for_others(
    monkeypatch: pytest.MonkeyPatch, lot: Lot
) -> None:
    monkeypatch.setattr(leases, "LOTS", 200)
    held = Leases()
    for n in range(100):
        take(held, Lot(f"mute{n}", "", 0, "acme"), range(n, n + 1))
    assert held.shuts_out(C)
    assert held.room(lot) == LOT


def test_what_is_promised_in_one_look_counts_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LOTS", 4)
    held = Leases()
    take(held, A, range(1))
    assert not held.promise(A.share, [A, B])  # it has its place
    assert held.promise(C.share, [B, C])
    assert not held.has_place(C.share)
    held.withdraw([C.share])
    assert held.has_place(C.share)


def test_a_lot_is_told_once_that_it_has_come_down_to_half() -> None:
    held = Leases()
    take(held, A, range(LOT))
    told = [number for number in range(LOT) if give_back(held, number) and held.is_low(A)]
    assert told == [LOT // 2 - 1, LOT - 1]


def test_fresh_mail_is_not_counted() -> None:
    held = Leases()
    assert give_back(held, 1) is None
    assert len(held) == 0


async def test_what_is_settled_while_the_spool_is_flushed_is_not_free() -> None:
    """Its outcome may be in the commit after the one that the flush waits for: the row is still there."""
    held = Leases()
    take(held, A, range(1))

    async def flush() -> None:
        give_back(held, 0)

    async with held.looking(flush):
        assert held.free(message(0)) == []


def test_who_finds_a_full_lot_comes_back_one_behind_another_and_never_much_later() -> None:
    held = Leases()
    lot = Lot("a", "mail1", 0, "acme")
    take(held, lot, range(LOT))
    due = [held.comes_back(lot, 1000.0) for _ in range(300_000)]
    assert due[:3] == [1003.0] * 3
    assert max(Counter(due).values()) <= 3 / leases.SPACING  # it came round twice
    assert max(due) <= 1000.0 + leases.LONGEST
    assert held.comes_back(lot, 5000.0) == 5002.0
    assert held.comes_back(lot, 100.0) == 102.0  # the clock was set back
    for number in range(LOT):
        give_back(held, number)
    assert held.comes_back(lot, 100.0) == 103.0
    assert held._returns == {}
