"""What is remembered is bounded in octets, and the estimate is an honest one."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from mta.core.route.routing import Mx, Status
from mta.dns import wire
from mta.dns.cache import Cache, Kept, size


def question(number: int, kind: int = wire.MX) -> bytes:
    return wire.question(wire.named(f"d{number}.example.test"), kind)


def kept(*records: Any, ends: float = 10.0) -> Kept:
    return Kept(Status.FOUND, records, False, ends, ends)


def test_what_was_not_asked_for_longest_is_forgotten() -> None:
    one = size(question(0), kept("192.0.2.1"))
    cache = Cache(3 * one)
    for n in range(3):
        cache.put(question(n), kept("192.0.2.1"))
    assert cache.get(question(0)) is not None
    cache.put(question(3), kept("192.0.2.1"))
    assert [n for n in range(4) if cache.get(question(n))] == [0, 2, 3]
    assert cache.octets == 3 * one


def test_an_answer_that_is_larger_than_all_room_is_not_kept_and_leaves_no_debt() -> None:
    cache = Cache(1000)
    cache.put(question(0), kept("192.0.2.1"))
    cache.put(question(1), kept(*(f"192.0.2.{n}" for n in range(200))))
    assert (len(cache), cache.octets) == (0, 0)


def test_octets_are_those_of_what_is_there() -> None:
    cache = Cache()
    cache.put(question(0), kept(b"x" * 1000))
    cache.put(question(0), kept("192.0.2.1"))
    assert cache.octets == size(question(0), kept("192.0.2.1"))
    cache.drop(question(0))
    cache.drop(question(1))
    assert (len(cache), cache.octets) == (0, 0)


@pytest.mark.parametrize(
    "records",
    [
        pytest.param(lambda n: (), id="none"),
        pytest.param(lambda n: (f"192.0.{n // 256}.{n % 256}",), id="A"),
        pytest.param(lambda n: tuple(f"2001:db8::{n:x}:{k}" for k in range(20)), id="many AAAA"),
        pytest.param(lambda n: tuple(Mx(1000 + k, f"mx{k}.d{n}.test") for k in range(4)), id="MX"),
        pytest.param(lambda n: (b"%1000d" % n,), id="TXT"),
        pytest.param(lambda n: (wire.Tlsa(3, 1, 1, b"%32d" % n),), id="TLSA"),
    ],
)
def test_the_estimate_is_what_an_answer_takes(records: Callable[[int], tuple[Any, ...]]) -> None:
    count = 2000
    gc.collect()
    tracemalloc.start()
    try:
        cache = Cache()
        for n in range(count):
            cache.put(question(n), kept(*records(n), ends=n + 0.5))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.8 < taken / cache.octets < 1.2
