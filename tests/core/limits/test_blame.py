"""One customer of a hosted provider thinks ill of us: the others hear of it only where it is the provider."""

from __future__ import annotations

from mta.core.limits.blame import REMEMBERED, SITES, WITHIN, Blame
from mta.core.model import Reaction, Scope, Subject, Verdict

ANYBODYS = Verdict(Subject.SOURCE, True, False, "client-rejected", Reaction.OTHER_SOURCE, Scope.SOURCE)
OWN = ANYBODYS._replace(rule="giant-banned", is_own=True)


def test_words_that_anybody_may_write_are_the_sites() -> None:
    assert not Blame().climbs(0.0, "a", ANYBODYS)


def test_words_of_the_providers_own_are_the_providers() -> None:
    assert Blame().climbs(0.0, "a", OWN)


def test_the_providers_own_words_about_a_site_are_the_sites() -> None:
    assert not Blame().climbs(0.0, "a", OWN._replace(scope=Scope.SITE))


def test_one_site_that_repeats_itself_speaks_for_nobody_else() -> None:
    blame = Blame()
    assert not any(blame.climbs(float(second), "a", ANYBODYS) for second in range(100))


def test_so_many_sites_within_minutes_speak_for_the_provider() -> None:
    blame = Blame()
    assert [blame.climbs(0.0, f"s{n}", ANYBODYS) for n in range(SITES)] == [False] * (SITES - 1) + [True]


def test_sites_that_say_it_one_after_another_do_not() -> None:
    blame = Blame()
    assert not any(blame.climbs(n * WITHIN * 0.6, f"s{n}", ANYBODYS) for n in range(10))


def test_sites_that_say_different_things_do_not() -> None:
    blame = Blame()
    said = [blame.climbs(0.0, f"s{n}", ANYBODYS._replace(rule=f"r{n}")) for n in range(SITES)]
    assert not any(said)


def test_words_without_end_are_not_remembered_without_end() -> None:
    blame = Blame()
    for n in range(10 * REMEMBERED):
        blame.climbs(0.0, "a", ANYBODYS._replace(rule=f"r{n}"))
    assert len(blame) == REMEMBERED


def test_sites_without_end_are_not_remembered_without_end() -> None:
    blame = Blame()
    assert [blame.climbs(n * 0.001, f"s{n}", ANYBODYS) for n in range(10_000)].count(False) == SITES - 1
    assert sum(map(len, blame._said.values())) <= SITES
