"""Values with a unit: what is read, and what is refused with words."""

from collections.abc import Iterable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.config import units
from mta.config.settings import Endpoint
from mta.core.limits.throttle import Rate


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("30s", 30.0), ("5m", 300.0), ("1.5h", 5400.0), ("4d", 345600.0), ("0", 0.0)],
)
def test_duration(text: str, seconds: float) -> None:
    assert units.duration(text) == seconds


@pytest.mark.parametrize(("text", "octets"), [("64K", 65536), ("25M", 26214400), ("1G", 1 << 30), ("0", 0)])
def test_size(text: str, octets: int) -> None:
    assert units.size(text) == octets


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10/s", Rate(10, 1.0)),
        ("100/min", Rate(100, 60.0)),
        ("20/30min", Rate(20, 1800.0)),
        ("9/day", Rate(9, 86400.0)),
    ],
)
def test_rate(text: str, rate: Rate) -> None:
    assert units.rate(text) == rate


@pytest.mark.parametrize(
    "text", ["127.0.0.1:587", "[::1]:587", "[2001:db8::1]:0", "mx.example.com:25", "127.0.0.1:65535"]
)
def test_endpoint_reads_what_it_writes(text: str) -> None:
    assert str(units.endpoint(text)) == text


def test_endpoint_brings_an_address_to_its_short_form() -> None:
    assert units.endpoint("[0:0::1]:25") == Endpoint("::1", 25)


@pytest.mark.parametrize("text", ["30", "30 s", "s", "-1s", "1e3s", "9" * 5000 + "s", "٣s"])
def test_duration_without_a_unit_or_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write a number and a unit: 250ms, 30s, 5m, 2h, 4d"):
        units.duration(text)


@pytest.mark.parametrize("text", ["25", "1.5M", "25MB", "25m", ""])
def test_size_without_a_unit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write a whole number and a unit: 64K, 25M, 1G"):
        units.size(text)


@pytest.mark.parametrize("text", ["5", "5/", "0/s", "5/0s", "5/m", "/min"])
def test_rate_that_allows_nothing_or_has_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write 10/s, 100/min"):
        units.rate(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mx.example.com", "has no port"),
        ("mx.example.com:70000", "has no port"),
        ("::1:25", "put an IPv6 address in brackets"),
        ("[127.0.0.1]:25", "not an IPv6 address"),
        ("300.1.1.1:25", "not an IPv4 address"),
        (":25", "no valid host"),
        ("a b:25", "no valid host"),
    ],
)
def test_endpoint_that_is_half_or_ambiguous_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        units.endpoint(text)


@given(st.text(max_size=40))
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    for parse in (units.duration, units.size, units.rate, units.endpoint):
        with suppress(ValueError):
            parse(text)


@pytest.mark.parametrize(
    ("text", "begin", "end", "days", "zone"),
    [
        ("08:00-20:00", 480, 1200, range(7), "UTC"),
        ("mon-fri 08:30-20:00 Europe/Berlin", 510, 1200, range(5), "Europe/Berlin"),
        ("sat,sun 22:00-06:00", 1320, 360, (5, 6), "UTC"),
        ("fri-mon 00:00-24:00", 0, 1440, (4, 5, 6, 0), "UTC"),
    ],
)
def test_hours(text: str, begin: int, end: int, days: Iterable[int], zone: str) -> None:
    window = units.window(text)
    assert (window.begin, window.end, window.days) == (begin, end, frozenset(days))
    assert (str(window.zone), window.text) == (zone, text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("8-20", "write 08:00-20:00"),
        ("25:00-26:00", "a day has 24"),
        ("day 08:00-20:00", "write 08:00-20:00"),
        ("08:00-20:00 Mars/Olympus", "no time zone"),
        ("08:00-20:00 ../../etc/passwd", "write 08:00-20:00"),
    ],
)
def test_what_are_no_hours(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        units.window(text)


def test_an_instance_is_between_zero_and_fifteen() -> None:
    assert [units.instance(text) for text in ("0", "15")] == [0, 15]
    with pytest.raises(ValueError, match="from 0 to 15"):
        units.instance("16")


def test_a_priority_is_between_minus_nine_and_nine() -> None:
    assert [units.priority(text) for text in ("-9", "0", "9")] == [-9, 0, 9]
    with pytest.raises(ValueError, match="from -9 to 9"):
        units.priority("10")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "0.25s"),
        (45.24, "45.2s"),
        (90, "1.5m"),
        (900, "15m"),
        (7200, "2h"),
        (4 * 86400, "4d"),
        (754.2, "12.6m"),
    ],
)
def test_a_duration_that_was_measured_is_told_in_the_unit_of_the_settings(seconds: float, text: str) -> None:
    assert units.about_duration(seconds) == text


@pytest.mark.parametrize(
    ("octets", "text"),
    [(0, "0K"), (120, "0.12K"), (1024, "1K"), (12_400, "12.1K"), (1023 * 1024, "1023K"), (25 * 2**20, "25M"),
     (3 * 2**30, "3G")],
)  # fmt: skip
def test_a_size_that_was_measured_is_told_in_the_unit_of_the_settings(octets: int, text: str) -> None:
    assert units.about_size(octets) == text


@pytest.mark.parametrize(
    ("rate", "text"), [(0.005, "0.3/min"), (5.0, "300/min"), (0.55, "33/min"), (123.4, "7404/min")]
)
def test_every_rate_that_was_measured_is_told_by_the_minute(rate: float, text: str) -> None:
    assert units.about_rate(rate) == text
