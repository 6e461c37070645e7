"""Events as lines: absent fields are left out, one line each, whatever a peer has said."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.core.event import Event, ReplyField, Type, encode_lines, rfc3339


def test_what_is_absent_is_left_out() -> None:
    assert encode_lines([Event()]) == b"{}\n"
    assert encode_lines([]) == b""
    event = Event(7, "t", Type.BOUNCE, reply=ReplyField(550))
    assert encode_lines([event]) == b'{"seq":7,"time":"t","type":"bounce","reply":{"code":550}}\n'


def test_the_null_sender_and_a_temporary_answer_are_not_absent() -> None:
    assert encode_lines([Event(sender="", permanent=False)]) == b'{"sender":"","permanent":false}\n'


def test_the_names_of_fields_and_types_are_a_promise() -> None:
    assert [field.name for field in msgspec.structs.fields(Event)] == [
        "seq", "time", "type", "queue_id", "recipient", "sender", "tenant", "stream", "credential",
        "message_id", "size", "source", "site", "provider", "host", "attempt", "reply", "subject",
        "permanent", "reason", "due", "tls", "duration_ms", "rule", "limit", "untold",
        "client", "tags", "metadata", "check", "mode", "domain",
    ]  # fmt: skip
    assert [field.name for field in msgspec.structs.fields(ReplyField)] == [
        "code", "enhanced", "text", "command",
    ]  # fmt: skip
    promised = "reception rejection delivery deferral bounce expiration ambiguous cancel check limit state"
    assert {each.value for each in Type} >= set(promised.split())


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_one_line_each_whatever_was_said(texts: list[str]) -> None:
    lines = encode_lines(Event(1, reply=ReplyField(550, text=text), reason=text) for text in texts)
    assert lines.count(b"\n") == len(texts)
    assert lines.endswith(b"\n")
    read = [json.loads(line) for line in lines.splitlines()]
    assert [each.get("reason", "") for each in read] == texts
    assert [each["reply"].get("text", "") for each in read] == texts


@pytest.mark.parametrize(
    ("at", "shown"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_800_000_000.0, "2027-01-15T08:00:00.000Z"),
        (1_800_000_000.5, "2027-01-15T08:00:00.500Z"),
        (1_800_000_000.9999, "2027-01-15T08:00:00.999Z"),
    ],
)
def test_a_time(at: float, shown: str) -> None:
    assert rfc3339(at) == shown


@given(st.floats(0, 4e9))
def test_a_time_is_cut_to_the_millisecond_and_never_ahead(at: float) -> None:
    shown = datetime.fromisoformat(rfc3339(at))
    assert -0.001 <= shown.timestamp() - at <= 1e-6
    assert shown.tzinfo == UTC
