"""One bound over all connections to peers: who has one more, and whose turn it is where there is none."""

from __future__ import annotations

from mta.core.limits.order import IN_A_ROW, Share
from mta.core.limits.outgoing import NOBODYS, Outgoing

NEWS, PASSWORDS, SHOP = (-4, "acme"), (4, "acme"), (-4, "shop")


def dial(places: Outgoing[str], lane: str, share: Share) -> bool:
    may = places.ask(lane, share)
    if may:
        places.take(lane, share)
    return may


def full(most: int, *shares: Share) -> Outgoing[str]:
    """All that these shares may have."""
    places: Outgoing[str] = Outgoing(most)
    for share in shares:
        number = 0
        while dial(places, f"{share}{number}", share):
            number += 1
        places.leave(f"{share}{number}")
    return places


def turns(places: Outgoing[str], shares: dict[str, Share], most: int) -> list[str]:
    """Who is served when one connection after another is over."""
    got = []
    for _ in range(most):
        lane = places.next()
        if lane is None:
            break
        assert dial(places, lane, shares[lane])
        got.append(lane)
        places.give_back(shares[lane])
    return got


def test_a_flood_leaves_room_for_whoever_comes_next() -> None:
    places = full(100, NEWS)
    assert places.held == 50
    assert not dial(places, "one more", NEWS)
    assert dial(places, "a password", PASSWORDS)
    assert dial(places, "another tenant", SHOP)


def test_who_waits_is_served_by_priority_and_each_tenth_turn_is_the_lower_s() -> None:
    places = full(4, NEWS, PASSWORDS)
    shares: dict[str, Share] = {"news": NEWS} | {f"password{n}": PASSWORDS for n in range(20)}
    for lane, share in shares.items():
        assert not dial(places, lane, share)
    for share in (NEWS, PASSWORDS):
        places.give_back(share)
    got = turns(places, shares, 20)
    assert got.index("news") == IN_A_ROW
    assert got[:2] == ["password0", "password1"]


def test_sites_of_a_tenant_take_turns_and_one_that_wants_many_is_not_served_twice_before_others() -> None:
    places = full(2, NEWS)
    for site in ("large", "b", "c"):
        assert not dial(places, site, NEWS)
    places.give_back(NEWS)
    lane = places.next()
    assert lane == "large"
    assert dial(places, lane, NEWS)
    assert not dial(places, lane, NEWS)  # its second
    places.give_back(NEWS)
    assert [places.next() for _ in range(3)] == ["b", "c", "large"]
    assert places.next() is None


def test_nobody_comes_before_those_who_wait_and_may() -> None:
    places = full(10, NEWS)
    assert not dial(places, "waits", NEWS)
    places.give_back(NEWS)
    assert not dial(places, "comes", NEWS)
    assert places.next() == "waits"


def test_whose_share_has_none_keeps_no_other_waiting() -> None:
    places = full(10, NEWS)
    assert not dial(places, "waits", NEWS)
    assert dial(places, "urgent", PASSWORDS)
    assert places.waiting == 1


def test_a_bound_that_falls_closes_nothing_and_lets_nobody_in() -> None:
    places = full(100, NEWS)
    places.most = 10
    assert places.held == 50
    assert not dial(places, "a password", PASSWORDS)
    for _ in range(46):
        places.give_back(NEWS)
    assert places.next() == "a password"


def test_the_smallest_bound_serves_one() -> None:
    places: Outgoing[str] = Outgoing(1)
    assert dial(places, "a", NEWS)
    assert not dial(places, "b", PASSWORDS)
    places.give_back(NEWS)
    assert places.next() == "b"


def test_nothing_of_others_closes_for_a_flood_that_has_its_part() -> None:
    places = full(10, NEWS)
    assert dial(places, "password", PASSWORDS)
    assert not dial(places, "waits", NEWS)
    assert places.urgency == NOBODYS
    assert places.waits(NEWS)
    assert not places.waits(PASSWORDS)


def test_what_is_in_use_is_wanted_by_those_only_who_have_less() -> None:
    places = full(10, NEWS)
    assert not places.is_wanted(NEWS)  # nobody waits
    assert not dial(places, "news", NEWS)
    assert dial(places, "password", PASSWORDS)
    assert places.is_wanted(NEWS)  # its own sites take turns
    assert not places.is_wanted(PASSWORDS)
    places.leave("news")
    while dial(places, "password", PASSWORDS):
        pass
    assert places.is_wanted(NEWS)
    places.leave("password")
    places.most = 5
    assert not dial(places, "shop", SHOP)
    assert places.is_wanted(PASSWORDS)  # there are more than there may be
