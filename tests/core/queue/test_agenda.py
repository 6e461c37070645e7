"""Lines by their due time."""

from __future__ import annotations

from mta.core.model import Line
from mta.core.queue.agenda import SLACK, Agenda

A, B = Line("a.test", 0, "acme"), Line("b.test", 0, "acme")
SITE = ("site", 0)


def line(n: int) -> Line:
    return Line(f"d{n}.test", 0, "acme")


def test_the_earliest_time_counts_and_only_once() -> None:
    agenda = Agenda()
    assert agenda.note(A, 20.0)
    assert not agenda.note(A, 30.0)
    assert agenda.note(A, 10.0)
    assert not agenda.note(B, 15.0)
    assert agenda.next() == 10.0
    assert agenda.take(9.0, 10) == []
    assert agenda.take(40.0, 10) == [(A, 10.0), (B, 15.0)]
    assert agenda.take(40.0, 10) == []
    assert len(agenda) == 0


def test_the_oldest_go_first_and_no_more_than_asked_for() -> None:
    agenda = Agenda()
    for n in range(5):
        agenda.note(line(n), 10.0 - n)
    assert [each.domain for each, _ in agenda.take(10.0, 2)] == ["d4.test", "d3.test"]
    assert [each.domain for each, _ in agenda.take(10.0, 9)] == ["d2.test", "d1.test", "d0.test"]


def test_a_line_that_moves_all_the_time_does_not_fill_the_heap() -> None:
    agenda = Agenda()
    for n in range(10 * SLACK):
        agenda.note(A, float(-n))
    for times in (agenda._later, *agenda._shares.values()):
        assert len(times._heap) <= SLACK + 3
    assert agenda.take(0.0, 10) == [(A, 1.0 - 10 * SLACK)]


def test_a_parked_line_waits_for_room_and_no_new_mail_brings_it_back() -> None:
    agenda = Agenda()
    agenda.park(SITE, A, 100.0)
    assert not agenda.note(A, 5.0)
    assert agenda.take(99.0, 10) == []
    assert agenda.wake(SITE, 10, 50.0)
    assert agenda.take(50.0, 10) == [(A, 50.0)]
    assert not agenda.wake(SITE, 10, 50.0)


def test_who_was_parked_first_is_woken_first() -> None:
    agenda = Agenda()
    for n in range(4):
        agenda.park(SITE, line(n), 100.0)
    agenda.wake(SITE, 2, 10.0)
    assert sorted(each.domain for each, _ in agenda.take(10.0, 10)) == ["d0.test", "d1.test"]
    agenda.park(SITE, line(0), 100.0)
    agenda.wake(SITE, 2, 11.0)
    assert sorted(each.domain for each, _ in agenda.take(11.0, 10)) == ["d2.test", "d3.test"]


def test_a_parked_line_comes_back_by_itself_and_is_not_woken_then() -> None:
    agenda = Agenda()
    agenda.park(SITE, A, 100.0)
    assert agenda.take(100.0, 10) == [(A, 100.0)]
    agenda.note(A, 500.0)
    agenda.wake(SITE, 10, 101.0)
    assert agenda.take(101.0, 10) == []


def test_the_time_of_a_line_that_was_woken_is_not_held_back_any_more() -> None:
    agenda = Agenda()
    agenda.park(SITE, A, 100.0)
    agenda.wake(SITE, 1, 10.0)
    agenda.take(10.0, 1)
    agenda.note(A, 20.0)
    assert agenda.take(20.0, 1) == [(A, 20.0)]


ROUND = 200


def backlog(lines: int) -> Agenda:
    """One tenant's newsletters, all of them due before time 100."""
    agenda = Agenda()
    for n in range(lines):
        agenda.note(Line(f"d{n}.test", -4, "news"), 99.0)
    return agenda


def test_a_password_that_is_due_is_in_the_next_round_however_much_was_due_before() -> None:
    agenda, password = backlog(20 * ROUND), Line("shop.test", 4, "news")
    agenda.note(password, 100.0)
    assert password in [each for each, _ in agenda.take(100.0, ROUND)]


def test_the_line_of_another_tenant_is_in_the_next_round_however_much_was_due_before() -> None:
    agenda, other = backlog(20 * ROUND), Line("shop.test", -4, "other")
    agenda.note(other, 100.0)
    assert other in [each for each, _ in agenda.take(100.0, ROUND)]


def test_passwords_without_end_leave_a_tenth_of_each_round_to_others() -> None:
    agenda = backlog(ROUND)
    for n in range(20 * ROUND):
        agenda.note(Line(f"p{n}.test", 4, "shop"), 99.5)
    taken = [each for each, _ in agenda.take(100.0, ROUND)]
    assert sum(each.priority == -4 for each in taken) >= ROUND // 10


def test_what_is_not_due_yet_is_not_taken_whatever_its_priority() -> None:
    agenda = backlog(1)
    agenda.note(Line("shop.test", 4, "shop"), 101.0)
    assert [each.domain for each, _ in agenda.take(100.0, ROUND)] == ["d0.test"]
    assert agenda.next() == 101.0


def test_a_line_that_comes_back_goes_behind_the_others_of_its_tenant() -> None:
    agenda = backlog(10)
    (first, _), *_ = agenda.take(100.0, 1)
    agenda.note(first, 100.0)
    assert [each for each, _ in agenda.take(100.0, ROUND)][-1] == first


def test_tenants_take_turns_from_round_to_round() -> None:
    agenda = backlog(20)
    for n in range(20):
        agenda.note(Line(f"o{n}.test", -4, "other"), 99.5)
    taken = [agenda.take(100.0, 1)[0][0].tenant for _ in range(6)]
    assert taken == ["news", "other"] * 3


def test_a_clock_that_is_set_back_brings_nothing_before_its_time() -> None:
    agenda = backlog(3)
    assert len(agenda.take(100.0, 1)) == 1
    assert agenda.take(50.0, ROUND) == []
    assert agenda.next() == 99.0
    assert len(agenda.take(100.0, ROUND)) == 2
    assert len(agenda) == 0


def test_what_is_woken_is_woken_in_order_and_only_of_those_that_may_go() -> None:
    agenda = Agenda()
    lines = [
        Line("a.test", -4, "news"),
        Line("b.test", -4, "news"),
        Line("c.test", -4, "other"),
        Line("d.test", 4, "x"),
    ]
    for each in lines:
        agenda.park(SITE, each, 100.0)
    assert agenda.wake(SITE, 1, 10.0)
    assert agenda.take(10.0, ROUND) == [(lines[3], 10.0)]
    agenda.wake(SITE, ROUND, 11.0, lambda share: share == (-4, "other"))
    assert agenda.take(11.0, ROUND) == [(lines[2], 11.0)]
    agenda.wake(SITE, ROUND, 12.0)
    assert [each for each, _ in agenda.take(12.0, ROUND)] == lines[:2]
