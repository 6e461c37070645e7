"""What is remembered of successes, and for how long."""

from __future__ import annotations

from mta.core.limits.proofs import GUESSES, REMEMBERED, Proofs

ANN, BOB, RIGHT, OTHER = b"ann", b"bob", b"right", b"other"


def test_a_proof_is_of_one_client_one_login_and_one_secret() -> None:
    proofs = Proofs()
    proofs.keep("c", ANN, RIGHT, 0.0)
    assert proofs.matches("c", ANN, RIGHT, 1.0)
    assert not proofs.matches("c", ANN, OTHER, 1.0)
    assert not proofs.matches("d", ANN, RIGHT, 1.0)
    assert not proofs.matches("c", BOB, RIGHT, 1.0)
    assert proofs.has("c", ANN, 1.0)
    assert not proofs.has("d", ANN, 1.0)
    assert not proofs.has("c", BOB, 1.0)
    assert proofs.has_any("c", 1.0)
    assert not proofs.has_any("d", 1.0)


def test_use_refreshes_and_a_month_without_forgets() -> None:
    proofs = Proofs()
    proofs.keep("c", ANN, RIGHT, 0.0)
    assert proofs.matches("c", ANN, RIGHT, REMEMBERED - 1.0)
    assert proofs.matches("c", ANN, RIGHT, 2 * REMEMBERED - 2.0)
    assert not proofs.has("c", ANN, 3 * REMEMBERED)
    assert not proofs.has_any("c", 3 * REMEMBERED)
    assert not proofs.matches("c", ANN, RIGHT, 3 * REMEMBERED)


def test_another_secret_takes_the_place_of_the_former() -> None:
    proofs = Proofs()
    proofs.keep("c", ANN, RIGHT, 0.0)
    proofs.keep("c", ANN, OTHER, 0.0)
    assert not proofs.matches("c", ANN, RIGHT, 0.0)
    assert proofs.matches("c", ANN, OTHER, 0.0)


def test_neighbour_who_searches_what_is_remembered_is_stopped_and_one_with_an_old_secret_is_not() -> None:
    proofs = Proofs()
    proofs.keep("c", ANN, RIGHT, 0.0)
    for second in range(3600):  # a program with an old secret, once a second
        assert not proofs.matches("c", ANN, OTHER, float(second))
        assert proofs.matches("c", ANN, RIGHT, float(second))
    for number in range(2 * GUESSES.amount):
        proofs.matches("c", ANN, b"%d" % number, 3600.0)
    assert not proofs.matches("c", ANN, RIGHT, 3600.0)
    assert proofs.has("c", ANN, 3600.0)
    assert proofs.matches("c", ANN, RIGHT, 3600.0 + GUESSES.period)


def test_login_with_many_networks_pushes_out_its_own() -> None:
    proofs = Proofs(bound=100)
    for number in range(20):
        proofs.keep("office", b"user%d" % number, RIGHT, 0.0)
    for number in range(1000):
        proofs.keep(f"c{number}", ANN, RIGHT, 1.0)
    assert all(proofs.has("office", b"user%d" % number, 2.0) for number in range(20))
    assert not proofs.has_any("c0", 2.0)
    assert sum(proofs.has(f"c{number}", ANN, 2.0) for number in range(920, 1000)) == 80
    for number in range(20, 40):  # each takes its room from who has the most
        proofs.keep("office", b"user%d" % number, RIGHT, 3.0)
    assert all(proofs.has("office", b"user%d" % number, 4.0) for number in range(40))
    assert sum(proofs.has(f"c{number}", ANN, 4.0) for number in range(1000)) == 60


def test_more_logins_than_room_forget_the_oldest() -> None:
    proofs = Proofs(bound=3)
    for number in range(5):
        proofs.keep("c", b"%d" % number, RIGHT, 0.0)
    assert [proofs.has("c", b"%d" % number, 0.0) for number in range(5)] == [False, False, True, True, True]
    assert proofs.has_any("c", 0.0)
