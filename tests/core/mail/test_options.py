"""What a client may ask for beyond the address."""

from __future__ import annotations

import pytest

from mta.core.mail.address import PathError
from mta.core.mail.options import delay_for, delay_until, priority

NOW = 1_700_000_000.0  # 2023-11-14T22:13:20Z


@pytest.mark.parametrize("value", ["-9", "-1", "0", "5", "9"])
def test_a_priority(value: str) -> None:
    assert priority(value) == int(value)


@pytest.mark.parametrize("value", [None, "", "10", "-10", "+1", "1.0", "high", "--1"])
def test_what_is_no_priority(value: str | None) -> None:
    with pytest.raises(PathError, match="from -9 to 9"):
        priority(value)


@pytest.mark.parametrize("value", [None, "0", "-5", "1e3", "1000000000", "soon"])
def test_what_is_no_interval(value: str | None) -> None:
    with pytest.raises(PathError, match="seconds"):
        delay_for(value)


def test_an_interval() -> None:
    assert delay_for("999999999") == 999_999_999.0


def test_a_time() -> None:
    assert delay_until("2023-11-14T22:13:25Z", NOW) == 5.0
    assert delay_until("2023-11-14T23:13:25+01:00", NOW) == 5.0


def test_a_time_that_has_passed_is_no_wait() -> None:
    assert delay_until("2020-01-01T00:00:00Z", NOW) == 0.0


@pytest.mark.parametrize(
    "value",
    [
        None,
        "tomorrow",
        "2023-11-14",
        "2023-11-14T22:13:25",
        "2023-99-14T00:00:00Z",
        "20231114T221325Z",
        "2023-11-14T22:13Z",
        "2023-W46-2T22:13:25Z",
        "2023-11-14T22:13:25+0100",
    ],
)
def test_what_is_no_time(value: str | None) -> None:
    with pytest.raises(PathError, match="2026-12-24T18:00:00Z"):
        delay_until(value, NOW)
