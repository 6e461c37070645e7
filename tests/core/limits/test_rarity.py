"""A refusal that comes once in hundreds of transactions: whose it is shows a little slower."""

from mta.core.limits.rarity import ENOUGH, LONGEST, SLOWER, TRIED, Rarity, Seen


def test_the_first_is_tested_and_one_more_a_little_slower_is_the_weather() -> None:
    rarity = Rarity()
    assert rarity.met(10.0, 300) is Seen.UNKNOWN
    assert rarity.is_testing
    rarity.passed(250)
    assert rarity.met(10.0 * TRIED, 250) is Seen.WEATHER
    assert (rarity.answers, rarity.refusals) == (550, ENOUGH)


def test_none_a_little_slower_shows_a_limit_and_it_is_believed_for_one_more() -> None:
    rarity = Rarity()
    rarity.met(10.0, 300)
    rarity.passed(600)
    assert not rarity.is_testing
    assert rarity.met(10.0, 700) is Seen.LIMIT
    assert rarity.met(10.0, 700) is Seen.UNKNOWN


def test_a_limit_that_was_shown_twice_is_believed_for_longer() -> None:
    rarity = Rarity()
    for believed in (1, 2, 4):
        assert rarity.met(10.0, 200) is Seen.UNKNOWN
        rarity.passed(400)
        assert [rarity.met(10.0, 200) for _ in range(believed)] == [Seen.LIMIT] * believed


def test_far_below_the_limit_it_is_tested_again() -> None:
    rarity = Rarity()
    rarity.met(10.0, 200)
    rarity.passed(400)
    assert rarity.met(10.0 * SLOWER, 200) is Seen.UNKNOWN


def test_one_at_the_same_speed_proves_nothing() -> None:
    rarity = Rarity()
    rarity.met(10.0, 300)
    rarity.broken_off()
    assert not rarity.is_testing
    assert rarity.met(10.0, 300) is Seen.UNKNOWN
    assert rarity.met(10.0 * TRIED, 300) is Seen.WEATHER


def test_the_test_of_what_is_very_rare_ends() -> None:
    rarity = Rarity()
    rarity.met(10.0, 100_000)
    rarity.passed(LONGEST - 1)
    assert rarity.is_testing
    rarity.passed(1)
    assert not rarity.is_testing
