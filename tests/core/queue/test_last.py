"""What is kept of a recipient's last attempt, and what is made of it when its time is over."""

from __future__ import annotations

import pytest

from mta.core.model import Kind, Outcome, Reaction, Reply, Scope, Subject, Verdict
from mta.core.queue.last import EXPIRED, MAX_TEXT, Last, expired, read, was_ambiguous, written

FULL = Verdict(Subject.MAILBOX, False, False, "full", Reaction.RETRY, Scope.RECIPIENT, "mailbox")
REPLY = Reply(452, "4.2.2", "Mailbox\nfull")
SAID = Outcome(Kind.DEFERRED, Subject.MAILBOX, Scope.RECIPIENT, REPLY, "mx.test", "RCPT", FULL)


def test_what_a_peer_said_is_the_outcome_when_the_time_is_over() -> None:
    kept = written(SAID, "TLSv1.3", 1_800_000_000.9)
    assert read(kept) == Last(
        1_800_000_000, "deferred", *REPLY, "mailbox", "RCPT", "mx.test", "TLSv1.3", "full"
    )  # fmt: skip
    made = expired(kept)
    assert (made.kind, made.subject, made.reply, made.host) == (Kind.EXPIRED, Subject.MAILBOX, *SAID[3:5])
    assert made.is_said
    assert not was_ambiguous(kept)


def test_what_we_said_ourselves_is_not_a_peers() -> None:
    lost = SAID._replace(kind=Kind.AMBIGUOUS, verdict=None)
    kept = written(lost, "", 0.0)
    assert not expired(kept).is_said
    assert was_ambiguous(kept)


@pytest.mark.parametrize("kept", [None, "", "[1]", "{}", "null", '["x",1,2]', "\ud800"])
def test_without_a_last_outcome_there_is_no_reason(kept: str | None) -> None:
    assert expired(kept) == EXPIRED
    assert EXPIRED.reply.enhanced == "4.4.7"
    assert not was_ambiguous(kept)


@pytest.mark.parametrize("word", ["x ", "é ", "\N{SNOWMAN}", "y" * 299 + " "])
def test_a_long_text_is_cut_between_words(word: str) -> None:
    last = read(written(SAID._replace(reply=Reply(450, "", word * 400)), "", 0.0))
    assert last is not None
    assert 0 < len(last.text.encode()) <= MAX_TEXT
    assert (word * 400).startswith(last.text)
