"""Feedback-ID: the pattern, and what a field gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.core.mail.feedbackid import LONGEST, check, filled


@pytest.mark.parametrize(
    "pattern", ["example", "{stream}:example", "{stream}-{tenant}:{credential}:{domain}:example"]
)
def test_a_pattern(pattern: str) -> None:
    check(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        ":",
        "a::b",
        "a:b:c:d:e",
        "{streem}:example",
        "{stream",
        "a b:example",
        "a\r\nX: y:example",
        "{stream}",
    ],
)
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="is no pattern"):
        check(pattern)


def test_the_words_are_filled_in() -> None:
    pattern = "{stream}:{tenant}-{credential}:{domain}:example"
    assert filled(pattern, "bulk", "acme", "app", "src.test") == "bulk:acme-app:src.test:example"
    assert filled("{domain}:example", "bulk", "acme", "app", "") == "-:example"


@given(st.text(max_size=300), st.text(max_size=300))
def test_whatever_a_tenant_is_called_the_field_is_one_line_of_four_parts(tenant: str, stream: str) -> None:
    value = filled("{stream}:{tenant}:x:example", stream, tenant, "", "")
    assert value.isascii()
    assert value.isprintable()
    assert value.count(":") == 3
    assert len(value) <= 2 * LONGEST + 12
