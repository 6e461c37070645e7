"""How much of something bounded one share may hold."""

from __future__ import annotations

from mta.core.limits.parts import Parts


def flood(parts: Parts, *shares: str) -> None:
    """They take turns until none of them finds room."""
    while willing := [share for share in shares if parts.has_room(share)]:
        for share in willing:
            if parts.has_room(share):
                parts.take(share)


def test_who_is_alone_leaves_half_of_it_to_whoever_comes() -> None:
    parts = Parts(100)
    flood(parts, "list")
    assert parts.of("list") == 50
    assert parts.has_room("password")


def test_two_floods_leave_a_third_of_it() -> None:
    parts = Parts(90)
    flood(parts, "one", "two")
    assert (parts.of("one"), parts.of("two")) == (30, 30)
    assert parts.has_room("three")


def test_who_came_late_has_what_a_flood_gives_back() -> None:
    parts = Parts(20)
    flood(parts, "early")
    flood(parts, "late")
    parts.give_back("early")
    assert not parts.has_room("early")
    assert parts.has_room("late")


def test_who_holds_nothing_is_forgotten_and_nothing_is_given_back_twice() -> None:
    parts = Parts(10)
    parts.take("one", 3)
    parts.take("two")
    parts.give_back("one", 3)
    parts.give_back("one")
    assert (parts.held, parts.of("one")) == (1, 0)
    assert list(parts._held) == ["two"]
