"""Tag lists of DNS records, whatever stands in them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mta.core.mail.taglist import tags


def test_names_lose_their_case_values_their_blanks_and_the_first_counts() -> None:
    assert tags(b" V = DKIM1 ;p=a b;\tP=c; t") == {"v": "DKIM1", "p": "a b"}


@given(st.binary(max_size=300))
def test_any_octets_are_some_tags(record: bytes) -> None:
    for name, value in tags(record).items():
        assert ";" not in name + value
        assert "=" not in name
