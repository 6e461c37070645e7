"""Which source a message takes: the weights hold, and nothing moves without need."""

from __future__ import annotations

from collections import Counter

import pytest

from mta.core.queueid import QueueIds
from mta.core.route.source import Source, SourcePool, Sources, chosen_by_the_system

ONE, TWO, THREE = (Source(f"mail{n}", f"192.0.2.{n}", f"mail{n}.example.com") for n in (1, 2, 3))
NAMED = {source.name: source for source in (ONE, TWO, THREE)}


def messages(many: int) -> list[int]:
    """Ids as they are given in one busy minute."""
    ids = QueueIds(0)
    return [ids.mint(1_800_000_000.0 + n / 200) for n in range(many)]


def test_of_many_messages_each_source_is_first_for_the_share_of_its_weight() -> None:
    pool = SourcePool({ONE: 1, TWO: 2, THREE: 5})
    firsts = Counter(pool.order(message)[0] for message in messages(16_000))
    assert firsts[ONE] == pytest.approx(2_000, rel=0.08)
    assert firsts[TWO] == pytest.approx(4_000, rel=0.08)
    assert firsts[THREE] == pytest.approx(10_000, rel=0.08)


def test_a_message_keeps_its_order_for_all_attempts() -> None:
    one, other = SourcePool({ONE: 1, TWO: 1, THREE: 1}), SourcePool({THREE: 1, ONE: 1, TWO: 1})
    for message in messages(100):
        assert one.order(message) == one.order(message) == other.order(message)
        assert sorted(one.order(message)) == [ONE, TWO, THREE]


def test_where_a_source_is_taken_away_only_its_own_mail_moves() -> None:
    before, after = SourcePool({ONE: 1, TWO: 3, THREE: 2}), SourcePool({ONE: 1, THREE: 2})
    for message in messages(500):
        assert after.order(message) == tuple(each for each in before.order(message) if each is not TWO)


def test_streams_have_their_pools_and_all_others_the_default_one() -> None:
    sources = Sources(NAMED, {"news": {"mail3": 1}}, {"bulk": "news"})
    assert sources.order("bulk", 1) == (THREE,)
    assert set(sources.order("transactional", 1)) == {ONE, TWO, THREE}
    assert set(sources.order("a stream of old that is no more", 1)) == {ONE, TWO, THREE}
    assert [pool.sources for pool in sources.pools] == [(ONE, TWO, THREE), (THREE,)]


def test_a_default_pool_that_is_said_takes_the_place_of_all_alike() -> None:
    sources = Sources(NAMED, {"default": {"mail2": 1}}, {})
    assert sources.order("bulk", 1) == (TWO,)
    assert sources.all == (ONE, TWO, THREE)


def test_without_sources_the_system_chooses() -> None:
    assert chosen_by_the_system("mta.test").order("bulk", 7) == (Source("", "", "mta.test"),)


@pytest.mark.parametrize(
    ("pools", "streams"), [({"news": {"mail4": 1}}, {}), ({}, {"bulk": "news"})], ids=["source", "pool"]
)
def test_a_name_that_nobody_gave_is_refused(
    pools: dict[str, dict[str, int]], streams: dict[str, str]
) -> None:
    with pytest.raises(KeyError):
        Sources(NAMED, pools, streams)
