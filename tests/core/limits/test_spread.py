"""Connections to the hosts of one site: alike, and by what each of them says."""

from mta.core.limits.spread import BELIEVED, SHUN, Spread


def test_the_host_with_the_fewest_connections_is_next() -> None:
    spread = Spread()
    spread.dialled("a")
    assert sorted(["a", "b"], key=lambda host: spread.rank(host, 0.0)) == ["b", "a"]
    spread.dialled("b")
    spread.dialled("b")
    assert sorted(["a", "b"], key=lambda host: spread.rank(host, 0.0)) == ["a", "b"]
    spread.closed("b")
    spread.closed("b")
    assert sorted(["a", "b"], key=lambda host: spread.rank(host, 0.0)) == ["b", "a"]


def test_a_host_that_wants_no_more_is_last_for_a_while() -> None:
    spread = Spread()
    assert spread.is_own("a", ["b"], 0.0)
    spread.dialled("b")
    assert sorted(["a", "b"], key=lambda host: spread.rank(host, 1.0)) == ["b", "a"]
    assert not spread.is_quiet(1.0)
    assert sorted(["b", "a"], key=lambda host: spread.rank(host, BELIEVED)) == ["a", "b"]
    assert spread.is_quiet(BELIEVED + 1)


def test_where_every_host_wants_no_more_it_is_the_site() -> None:
    spread = Spread()
    assert spread.is_own("a", ["b"], 0.0)
    assert not spread.is_own("b", ["a"], 1.0)
    assert spread.is_own("a", ["b"], 2.0)  # and anew


def test_a_host_without_its_like_is_the_site() -> None:
    assert not Spread().is_own("a", [], 0.0)


def test_a_full_host_is_asked_again_because_the_other_is_dead_and_it_is_the_site() -> None:
    """Else it would be asked without end."""
    spread = Spread()
    assert spread.is_own("a", ["dead"], 0.0)
    assert not spread.is_own("a", ["dead"], 1.0)


def test_a_full_host_that_takes_one_more_is_full_no_longer() -> None:
    spread = Spread()
    assert spread.is_own("a", ["b"], 0.0)
    spread.opened("a", ["b"])
    assert spread.is_quiet(1.0)


def test_mail_that_has_waited_for_a_host_does_so_again_only_when_somebody_took_some_or_much_later() -> None:
    spread = Spread()
    assert not spread.has_waited(0.0)
    spread.waits(60.0)
    assert not spread.has_waited(59.0)
    assert spread.has_waited(60.0)
    assert not spread.is_quiet(60.0 + BELIEVED)
    assert not spread.has_waited(60.0 + BELIEVED)
    spread.opened("a", ["b"])
    assert not spread.has_waited(60.0)
    assert spread.is_quiet(60.0)


def test_a_host_that_says_ask_another_is_left_alone_for_as_long_as_it_says() -> None:
    spread = Spread()
    spread.shun("a", 0.0, None)
    spread.shun("b", 0.0, 10.0)
    assert spread.is_shunned("a", SHUN - 1)
    assert spread.is_shunned("b", 9.0)
    assert not spread.is_shunned("b", 10.0)
    assert not spread.is_quiet(SHUN - 1)
    assert spread.is_quiet(SHUN + 1)


def test_the_host_that_was_served_longest_ago_has_its_turn() -> None:
    spread = Spread()
    for host in ("a", "b", "a"):
        spread.dialled(host)
    spread.served("b")
    spread.served("a")
    assert min(["a", "b"], key=spread.turn) == "b"
    spread.served("b")
    assert min(["a", "b"], key=spread.turn) == "a"
    spread.closed("b")
    assert spread.turn("b") == 0  # nothing is remembered of a host without connections


def dialled(*hosts: str) -> Spread:
    spread = Spread()
    for host in hosts:
        spread.dialled(host)
        spread.opened(host, {"a", "b"} - {host})
    return spread


def test_a_host_without_a_connection_is_missed() -> None:
    spread = dialled("a", "a", "b")
    assert not spread.lacks(["a", "b"], ["a", "b"], 0.0)
    spread.closed("b")
    assert spread.lacks(["a", "b"], ["a"], 0.0)
    spread.dialled("b")
    spread.dialled("b")
    assert not spread.lacks(["a", "b"], ["a"], 0.0)


def test_a_host_with_fewer_connections_is_missed_while_all_of_them_are_busy() -> None:
    spread = dialled("a", "b", "b")
    assert spread.lacks(["a", "b"], ["b"], 0.0)
    assert not spread.lacks(["a", "b"], ["a"], 0.0)


def test_a_host_that_does_not_take_its_connection_is_missed_no_more_until_it_takes_one() -> None:
    spread = dialled("a", "a", "a")
    assert not spread.lacks(["a", "b"], [], 0.0)
    spread.dialled("b")
    spread.opened("b", ["a"])
    assert spread.lacks(["a", "b"], [], 0.0)


def test_a_host_that_wants_no_more_is_not_missed() -> None:
    spread = dialled("a", "b", "b")
    assert spread.is_own("a", ["b"], 0.0)
    assert not spread.lacks(["a", "b"], [], 1.0)
    assert spread.lacks(["a", "b"], [], BELIEVED)
