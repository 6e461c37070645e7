"""Texts of others, made fit for people: nothing in them moves a cursor, ends a line or turns a direction."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.core.mail.text import UNFIT, fit


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("", ""),
        ("\x1b[2Jgone", "?[2Jgone"),  # C0: would clear the terminal
        ("a\r\nb\tc\0\x7f", "a??b?c??"),
        ("a\x85b\x9b2Jc", "a?b?2Jc"),  # C1: NEL, and CSI in one character
        ("user\u202etxt.exe", "user?txt.exe"),  # right to left override
        ("\u2066a\u2069\u200e\u200f\u061c", "?a????"),
        ("a\u2028b\u2029c", "a?b?c"),  # ends of lines for JavaScript and for splitlines
        ("\ud800\udcff", "??"),
        ("\ufeff\u00ad\ue000\U000e0041", "????"),  # nothing to see
        ("J\u00f6rg \u4f60\u597d \U0001f600", "J\u00f6rg \u4f60\u597d \U0001f600"),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        ),
        ("a\u00a0b\u3000c", "a\u00a0b\u3000c"),
        ("<script>", "<script>"),  # to escape is the page's own work
    ],
)
def test_each_kind(text: str, shown: str) -> None:
    assert fit(text, 100) == shown


@given(st.text(st.characters()), st.integers(0, 40))
def test_whatever_was_written(text: str, limit: int) -> None:
    shown = fit(text, limit)
    assert len(shown) == min(len(text), limit)
    assert not re.search(f"[{UNFIT}]", shown)
    assert len(f"{shown}x".splitlines()) == 1
    assert fit(shown, limit) == shown
    shown.encode()
