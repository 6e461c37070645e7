"""Who may guess: strangers are slowed, and no number of them shuts an owner out."""

from __future__ import annotations

import heapq

import pytest

from mta.core.limits.guesses import BOUND, FORGOTTEN, LATELY, Guesses
from mta.core.limits.throttle import GO
from mta.core.model import Go, Wait

ANN = b"ann"
DAY = 86400.0


def fail(guesses: Guesses, client: str, login: bytes, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        guesses.failed(client, login, False, now)


def attacked() -> Guesses:
    """Twenty clients have failed once each at one login."""
    guesses = Guesses()
    for number in range(20):
        fail(guesses, f"bot{number}", ANN, 1)
    return guesses


def test_sixth_guess_of_a_client_at_a_login_waits_for_two_minutes() -> None:
    guesses = Guesses()
    fail(guesses, "c", ANN, 4)
    assert guesses.ask("c", ANN, False, 0.0) == GO
    fail(guesses, "c", ANN, 1)
    for proven in (False, True):
        assert guesses.ask("c", ANN, proven, 0.0) == Wait(120.0, "rate")
    assert guesses.ask("c", b"bob", False, 0.0) == GO
    assert guesses.ask("d", ANN, False, 0.0) == GO
    assert guesses.ask("c", ANN, False, 120.0) == GO


def test_client_that_tries_many_logins_waits_but_for_those_that_it_has_proved() -> None:
    guesses = Guesses()
    for number in range(20):
        assert guesses.ask("c", b"%d" % number, False, 0.0) == GO
        fail(guesses, "c", b"%d" % number, 1)
    assert guesses.ask("c", ANN, False, 0.0) == Wait(30.0, "rate")
    assert guesses.ask("c", ANN, True, 0.0) == GO


def test_login_under_attack_leaves_one_try_to_a_client_without_a_failure() -> None:
    guesses = attacked()
    assert guesses.ask("bot7", ANN, False, 0.0) == Wait(30.0, "rate")
    assert guesses.ask("bot7", b"bob", False, 0.0) == GO
    assert guesses.ask("owner", ANN, False, 0.0) == GO
    fail(guesses, "owner", ANN, 1)  # mistyped
    assert isinstance(guesses.ask("owner", ANN, False, 0.0), Wait)
    assert guesses.ask("owner", ANN, True, 0.0) == GO


def test_client_is_clean_again_later_after_each_failure() -> None:
    guesses, now, lately = Guesses(), 0.0, LATELY
    for _ in range(9):
        fail(guesses, "c", ANN, 1, now)
        for number in range(40):
            fail(guesses, f"bot{number}", ANN, 1, now + lately - 1.0)
        assert isinstance(guesses.ask("c", ANN, False, now + lately - 1.0), Wait)
        assert guesses.ask("c", ANN, False, now + lately) == GO
        now, lately = now + lately, min(2 * lately, DAY)
    assert guesses.failures("c", now) == 9
    assert guesses.failures("c", now + FORGOTTEN) == 0


def test_failures_of_who_has_proved_the_login_are_no_attack_on_it() -> None:
    guesses = Guesses()
    for number in range(40):
        guesses.failed(f"ours{number}", ANN, True, 0.0)
    assert guesses.ask("ours7", ANN, False, 0.0) == GO


def test_success_forgives_the_pair_and_no_more() -> None:
    guesses = Guesses()
    fail(guesses, "c", ANN, 5)
    fail(guesses, "c", b"bob", 5)
    guesses.succeeded("c", ANN)
    assert guesses.ask("c", ANN, False, 0.0) == GO
    assert isinstance(guesses.ask("c", b"bob", False, 0.0), Wait)
    assert guesses.failures("c", 0.0) == 10


@pytest.mark.parametrize(("clients", "most"), [(1, 725), (4, 2_900), (40, 2_900 + 40 * 8)])
def test_a_day_of_guesses_at_one_login(clients: int, most: int) -> None:
    """What the docstring of `intake.authentication` promises, against clients that never miss their turn."""
    guesses, tries = Guesses(), 0
    turns = [(0.0, f"bot{number}") for number in range(clients)]
    while turns[0][0] < DAY:
        now, client = heapq.heappop(turns)
        answer = guesses.ask(client, ANN, False, now)
        if isinstance(answer, Go):
            tries += 1
            guesses.failed(client, ANN, False, now)
            heapq.heappush(turns, (now + 0.1, client))
        else:
            heapq.heappush(turns, (answer.until + 0.001, client))
        if now % 600 < 1:
            assert guesses.ask("owner", ANN, False, now) == GO
    assert most * 0.9 <= tries <= most + 10


def test_tables_are_bounded_and_keep_the_latest() -> None:
    guesses = Guesses()
    for number in range(BOUND + 1):
        fail(guesses, f"c{number}", b"%d" % number, 5)
    assert guesses.ask("c0", b"0", False, 0.0) == GO
    assert isinstance(guesses.ask("c1", b"1", False, 0.0), Wait)
    assert isinstance(guesses.ask(f"c{BOUND}", b"%d" % BOUND, False, 0.0), Wait)
