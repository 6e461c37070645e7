"""Places: nobody fills the house with strangers, and a customer always finds one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.core.limits.places import Places
from mta.core.networks import client_network


def test_one_network_holds_no_more_than_its_number() -> None:
    places: Places[str] = Places(100, 2)
    assert not places.arrive("a", "192.0.2.1").is_refused
    assert not places.arrive("b", "192.0.2.1").is_refused
    assert places.arrive("c", "192.0.2.1").is_refused
    assert not places.arrive("d", "192.0.2.2").is_refused
    places.leave("c")  # who was refused holds none
    assert len(places) == 3
    places.leave("a")
    assert not places.arrive("c", "192.0.2.1").is_refused


def test_strangers_hold_half_and_the_next_one_takes_the_place_of_the_longest_idle_of_the_many() -> None:
    places: Places[str] = Places(8, 8)
    for name in ("many-1", "many-2", "many-3"):
        places.arrive(name, "192.0.2.1")
    places.arrive("one", "192.0.2.9")
    places.got_on("many-1")
    arrival = places.arrive("customer", "198.51.100.1")
    assert arrival.leaves == "many-2"
    places.leave("many-2")
    places.logged_in("customer")
    assert (len(places), places.strangers) == (4, 3)


def test_where_every_stranger_is_alone_the_longest_idle_goes() -> None:
    places: Places[str] = Places(8, 8)
    for n in range(4):
        places.arrive(f"s{n}", f"192.0.2.{n}")
    places.got_on("s0")
    assert places.arrive("customer", "198.51.100.1").leaves == "s1"


def test_customers_may_have_all_places_and_strangers_make_room_for_them() -> None:
    places: Places[str] = Places(4, 4)
    places.arrive("stranger", "192.0.2.1")
    for n in range(3):
        assert places.arrive(f"c{n}", f"198.51.100.{n}", is_known=True).leaves is None
    assert places.arrive("c3", "198.51.100.3", is_known=True).leaves == "stranger"
    places.leave("stranger")
    assert places.arrive("c4", "198.51.100.4", is_known=True).is_refused
    assert places.arrive("late", "192.0.2.2").is_refused


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2", True),
    ],
)
def test_what_one_client_counts_as(one: str, other: str, alike: bool) -> None:
    assert (client_network(one) == client_network(other)) == alike


Steps = st.lists(
    st.tuples(st.sampled_from("aaalllog"), st.integers(0, 30), st.integers(0, 4), st.booleans()), max_size=200
)


@given(Steps)
def test_whatever_happens_the_books_are_right(steps: list[tuple[str, int, int, bool]]) -> None:
    places: Places[int] = Places(10, 4)
    present: dict[int, tuple[int, bool]] = {}  # guest -> network, stranger
    for step, guest, network, known in steps:
        if step == "a" and guest not in present:
            arrival = places.arrive(guest, str(network), is_known=known)
            if arrival.leaves is not None:
                assert present[arrival.leaves][1]
                places.leave(arrival.leaves)
                del present[arrival.leaves]
            if not arrival.is_refused:
                present[guest] = (network, not known)
        elif step == "l":
            places.leave(guest)
            present.pop(guest, None)
        elif step == "o":
            places.logged_in(guest)
            if guest in present:
                present[guest] = (present[guest][0], False)
        elif step == "g":
            places.got_on(guest)
        networks = [network for network, _ in present.values()]
        assert len(places) == len(present) <= 10
        assert places.strangers == sum(stranger for _, stranger in present.values()) <= 5
        assert all(networks.count(each) <= 4 for each in networks)
