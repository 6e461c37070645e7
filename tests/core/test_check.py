"""The vocabulary of checks: which mode, who wins, what the client hears."""

from __future__ import annotations

import pytest

from mta.core.check import CheckFinding, CheckMode, CheckName, Drop, Refuse, refusal, usual
from mta.core.model import Reply, Wait


@pytest.mark.parametrize(
    ("check", "stream", "is_ours", "mode"),
    [
        ("alignment", "bulk", True, "enforce"),
        ("alignment", "bulk", False, "warn"),
        ("alignment", "transactional", True, "warn"),
        ("key", "bulk", True, "warn"),
        ("one-click", "bulk", True, "enforce"),
        ("one-click", "bulk", False, "warn"),
        ("one-click", "transactional", True, "off"),
        ("proximity", "bulk", True, "warn"),
    ],
)
def test_the_mode_where_nobody_says_one(
    check: CheckName, stream: str, is_ours: bool, mode: CheckMode
) -> None:
    assert usual(check, stream, is_ours) == mode


def test_a_refusal_says_what_and_who_and_a_wait_how_long() -> None:
    assert refusal(CheckFinding("key", "enforce", Refuse("No key: publish it")), 0.0) == Reply(
        550, "5.7.1", "No key: publish it (check key)"
    )
    assert refusal(CheckFinding("key", "enforce", Wait(100.5, "Too much")), 90.0) == Reply(
        451, "4.7.1", "Too much; try again in 11 seconds (check key)"
    )
    assert refusal(CheckFinding("key", "enforce", Wait(1.0, "Too much")), 90.0).text.startswith(
        "Too much; try again in 1 "
    )


def test_before_a_message_is_ours_to_drop_it_is_to_refuse_it() -> None:
    assert refusal(CheckFinding("key", "enforce", Drop("unwanted")), 0.0).code == 550
