"""Whose turn it is."""

from __future__ import annotations

from collections import Counter
from itertools import count

import pytest

from mta.core.limits.order import IN_A_ROW
from mta.core.limits.turns import CAPACITY, Turns
from mta.core.model import Batch, Message, Recipient

ids = count(1)


def batch(priority: int = 0, tenant: str = "acme", recipients: int = 1) -> Batch:
    addresses = [Recipient(n, f"{n}@dst.test", "dst.test") for n in range(recipients)]
    message = Message(next(ids), "", tenant, "", "", 0.0, 0, "", 0, addresses, priority=priority)
    return Batch(message, addresses)


def pushed(*batches: Batch) -> Turns:
    turns = Turns()
    for each in batches:
        turns.push(each)
    return turns


def popped(turns: Turns, lowest: int = -9) -> list[Batch]:
    taken = []
    while (head := turns.head(lowest)) is not None:
        taken.append(turns.pop())
        assert taken[-1] is head
    return taken


def test_one_tenants_mail_keeps_its_order() -> None:
    batches = [batch() for _ in range(5)]
    assert popped(pushed(*batches)) == batches


def test_a_password_goes_before_a_thousand_newsletters() -> None:
    newsletters = [batch(priority=-4) for _ in range(1000)]
    password = batch(priority=4)
    assert popped(pushed(*newsletters, password))[0] is password


def test_a_flood_of_high_priority_leaves_every_tenth_turn_to_the_lower() -> None:
    turns = pushed(*(batch(4) for _ in range(90)), *(batch(-4) for _ in range(20)))
    order = [each.message.priority for each in popped(turns)]
    assert order[:IN_A_ROW] == [4] * IN_A_ROW
    assert Counter(order[:100]) == {4: 90, -4: 10}
    assert all(order[start : start + IN_A_ROW + 1].count(-4) == 1 for start in range(0, 100, IN_A_ROW + 1))


def test_the_lowest_of_three_is_not_starved_by_the_other_two() -> None:
    turns = pushed(*(batch(p) for p in (9, 0, -9) for _ in range(100)))
    first = Counter(each.message.priority for each in popped(turns)[:100])
    assert first[9] >= 80
    assert first[0] >= 5
    assert first[-9] >= 5


def test_a_tenant_with_a_thousand_messages_does_not_keep_others_waiting() -> None:
    turns = pushed(*(batch(tenant="big") for _ in range(900)), batch(tenant="small"), batch(tenant="tiny"))
    assert {each.message.tenant for each in popped(turns)[:3]} == {"big", "small", "tiny"}


def test_what_may_not_go_now_does_not_hold_what_may() -> None:
    low, high = batch(-4), batch(0)
    turns = pushed(low, high)
    assert popped(turns, lowest=0) == [high]
    assert turns.head(lowest=0) is None
    assert turns.batches == 1
    assert popped(turns) == [low]


def test_what_had_its_turn_in_vain_goes_first_again() -> None:
    first, second = batch(), batch()
    turns = pushed(first, second)
    turns.head()
    turns.put_back(turns.pop())
    assert popped(turns) == [first, second]


def test_a_batch_that_is_too_large_for_a_peer_is_parted_and_keeps_its_turn() -> None:
    turns = pushed(large := batch(recipients=3), later := batch(), other := batch(tenant="other"))
    assert turns.head() is large
    turns.part({1, 2})
    first, second, third, fourth = popped(turns)
    assert (first, second, fourth) == (large, other, later)
    assert [len(each.recipients) for each in (first, third)] == [1, 2]
    assert turns.batches == 0
    assert turns.room((0, "acme")) == CAPACITY


def test_room_is_counted_in_recipients_for_each_tenant_and_priority() -> None:
    turns = pushed(batch(0, "big", CAPACITY))
    assert turns.room((0, "big")) == 0
    assert turns.room((4, "big")) == turns.room((0, "small")) == CAPACITY
    turns.push(batch(0, "big", 1))  # it was on its way already
    assert turns.room((0, "big")) == 0
    popped(turns)
    assert turns.room((0, "big")) == CAPACITY


def test_one_tenant_leaves_and_the_others_stay() -> None:
    theirs, ours = [batch(9), batch(-4)], [batch(9, "other"), batch(0, "other", 3)]
    turns = pushed(*theirs, *ours)
    assert set(turns.take_tenant("acme")) == set(theirs)
    assert turns.room((9, "acme")) == CAPACITY
    assert turns.batches == 2
    assert popped(turns) == ours
    assert turns.take_tenant("nobody") == []


def test_all_leave_at_once() -> None:
    batches = [batch(9), batch(0), batch(0, "other"), batch(-9)]
    turns = pushed(*batches)
    assert set(turns.take_all()) == set(batches)
    assert turns.batches == 0
    assert turns.head() is None
    with pytest.raises(IndexError):
        turns.pop()
