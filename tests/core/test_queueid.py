"""Queue ids sort by time, read back, and survive a clock that is set back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.core.queueid import INSTANCES, LENGTH, QueueIds, created, first_id, others, parse, text

IDS = st.integers(0, 2**55 - 1)
INSTANCE = st.integers(0, INSTANCES - 1)
TIMES = st.lists(st.floats(0, 4e9) | st.sampled_from([0.0, 1.8e9, 1.8e9 + 0.001]), max_size=30)
NOW = 1_800_000_000.123


def instance_of(queue_id: int) -> int:
    return queue_id >> 9 & 15


@given(IDS)
def test_a_text_reads_back(queue_id: int) -> None:
    assert len(text(queue_id)) == LENGTH == 11
    assert parse(text(queue_id)) == queue_id
    assert parse(text(queue_id).upper()) == queue_id


@given(IDS, IDS)
def test_texts_sort_as_ids_do(one: int, other: int) -> None:
    assert (one < other) == (text(one) < text(other))


def test_an_id_tells_the_millisecond_it_was_minted_in() -> None:
    assert created(QueueIds(0).mint(NOW)) == pytest.approx(NOW, abs=0.001)


@given(IDS, INSTANCE, TIMES, st.integers(0, 600))
def test_ids_only_grow_whatever_the_clock_does_and_whoever_minted_the_last(
    last: int, instance: int, times: list[float], many: int
) -> None:
    """The last may be another instance's, after an import, or from before there were any."""
    ids = QueueIds(last, instance)
    minted = [ids.mint(now) for now in times + times[-1:] * many]
    assert [last, *minted] == sorted({last, *minted})
    assert {instance_of(each) for each in minted} <= {instance}
    assert all(each >= first_id(now) for each, now in zip(minted, times, strict=False))


@given(st.lists(st.tuples(INSTANCE, st.floats(1.8e9, 1.8e9 + 0.01)), max_size=99), st.integers(0, 600))
def test_no_two_instances_mint_the_same(minters: list[tuple[int, float]], many: int) -> None:
    each = [QueueIds(0, instance) for instance in range(INSTANCES)]
    minted = [each[instance].mint(now) for instance, now in minters for _ in range(1 + many // 60)]
    assert len(set(minted)) == len(minted)


@given(IDS, INSTANCE, st.floats(0, 4e9))
def test_no_id_is_further_ahead_than_it_must_be(last: int, instance: int, now: float) -> None:
    """One millisecond beyond the last: the counter is carried into the time, and nowhere else."""
    minted = QueueIds(last, instance).mint(now)
    assert minted >> 13 <= max(first_id(now) >> 13, (last >> 13) + 1)
    if instance_of(last) == instance and last & 511 < 511 and first_id(now) <= last >> 13 << 13:
        assert minted == last + 1


@given(IDS)
def test_the_other_ids_of_a_millisecond_are_of_the_same_instance(queue_id: int) -> None:
    found = others(queue_id)
    assert len(found) == 256
    assert {(each >> 13, instance_of(each)) for each in found} == {(queue_id >> 13, instance_of(queue_id))}
    assert min(found) & 511 == 256


def test_a_clock_that_is_set_back_and_comes_forward_again() -> None:
    ids = QueueIds(0)
    first = ids.mint(NOW)
    assert [ids.mint(NOW - 3600), ids.mint(NOW - 1)] == [first + 1, first + 2]
    assert created(ids.mint(NOW + 1)) == pytest.approx(NOW + 1, abs=0.001)


def test_more_than_a_millisecond_holds_spill_into_the_next() -> None:
    ids = QueueIds(0)
    minted = [ids.mint(NOW) for _ in range(2**9 + 1)]
    assert len(set(minted)) == len(minted)
    assert created(minted[-1]) == pytest.approx(created(minted[0]) + 0.001)
    assert ids.mint(NOW + 0.001) == minted[-1] + 1


def test_a_spool_goes_on_after_its_last_id_though_the_clock_is_behind() -> None:
    last = QueueIds(0).mint(NOW)
    assert QueueIds(last).mint(0.0) == last + 1


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        ("", "a queue id has 11 letters: ''"),
        ("d331e50000", "a queue id has 11 letters: 'd331e50000'"),
        ("d331e5000000", "a queue id has 11 letters: 'd331e5000000'"),
        ("d331e50000u", "no letter of a queue id: 'u'"),
        ("d331e50000 ", "no letter of a queue id: ' '"),
        ("d331e50000\u0660", "no letter of a queue id: '\u0660'"),
        ("-331e500000", "no letter of a queue id: '-'"),
    ],
)
def test_a_text_that_is_no_queue_id(shown: str, words: str) -> None:
    with pytest.raises(ValueError) as error:
        parse(shown)
    assert str(error.value) == words
