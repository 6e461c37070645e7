"""One-click unsubscription: what is missing, in the words of the field."""

from __future__ import annotations

import pytest

from mta.core.mail.unsubscribe import missing

URI = b"<https://example.com/u?x=1>"
POST = b"list-unsubscribe=one-click"


@pytest.mark.parametrize(
    ("unsubscribe", "post", "lacks"),
    [
        ([URI], [POST], ""),
        ([b"<mailto:u@example.com>,\r\n\t<https://example.com/u>"], [b"list-unsubscribe =\n one-click"], ""),
        ([], [POST], "List-Unsubscribe: "),
        ([b"https://example.com/u"], [POST], "List-Unsubscribe: "),
        ([b"<http://example.com/u>"], [POST], "List-Unsubscribe: "),
        ([b"<mailto:u@example.com>"], [POST], "List-Unsubscribe: "),
        ([b"<https://>"], [POST], "List-Unsubscribe: "),
        ([URI, URI], [POST], "List-Unsubscribe: "),
        ([URI], [], "List-Unsubscribe-Post: "),
        ([URI], [b"one-click"], "List-Unsubscribe-Post: "),
        ([URI], [POST, POST], "List-Unsubscribe-Post: "),
    ],
)
def test_what_the_fields_lack(unsubscribe: list[bytes], post: list[bytes], lacks: str) -> None:
    assert missing(unsubscribe, post).startswith(lacks)
    assert bool(missing(unsubscribe, post)) is bool(lacks)
