"""The last outcome of a recipient: what is told when nothing else happens before its time is over.

Between: `outbound.outcome` writes it with each deferral, the spool keeps it, notices, the events of expiries
    and `mta queue list` show it.
Contract: pure; a JSON list of some 150 octets, 600 at most, of whose text `MAX_TEXT` are the peer's. What
    cannot be read is as good as none.
Raises: nothing.
Why: the event log has it all, but expiry must not need a log that may be far away by then.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mta.core.model import Kind, Outcome, Reaction, Reply, Scope, Subject, Verdict

MAX_TEXT = 300  # octets
MAX_NAME = 100  # characters of a host's name, or of a rule's

EXPIRED = Outcome(
    Kind.EXPIRED,
    Subject.UNKNOWN,
    Scope.MESSAGE,
    Reply(451, "4.4.7", "The message was not delivered before its time was over"),
)


class Last(msgspec.Struct, array_like=True, frozen=True):
    """What became of the attempt before."""

    at: int  # seconds since the epoch
    kind: str
    code: int
    enhanced: str
    text: str
    subject: str
    command: str = ""
    host: str = ""
    tls: str = ""
    rule: str = ""  # "" where no peer said it

    @property
    def shown(self) -> dict[str, Any]:
        """For people and programs; what is empty is left out."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value != ""}


_decoder = msgspec.json.Decoder(Last)


def written(outcome: Outcome, tls: str, now: float) -> str:
    """An outcome, as it is kept."""
    code, enhanced, text = outcome.reply
    rule = "" if outcome.verdict is None else outcome.verdict.rule
    octets = text.encode("utf-8", "replace")
    if len(octets) > MAX_TEXT:
        text = octets[:MAX_TEXT].decode("utf-8", "ignore")
        text = text.rpartition(" ")[0] or text  # of an address the half would escape its erasure
    kept = Last(
        int(now), outcome.kind.value, code, enhanced, text, outcome.subject.value, outcome.command,
        outcome.host[:MAX_NAME], tls, rule[:MAX_NAME],
    )  # fmt: skip
    return msgspec.json.encode(kept).decode()


def read(kept: str | None) -> Last | None:
    """What was kept."""
    try:
        return None if kept is None else _decoder.decode(kept)
    except (msgspec.DecodeError, UnicodeEncodeError, TypeError):
        return None


def was_ambiguous(kept: str | None) -> bool:
    """May it have arrived the last time?"""
    last = read(kept)
    return last is not None and last.kind == Kind.AMBIGUOUS.value


def expired(kept: str | None) -> Outcome:
    """The outcome when the time is over: the last one, for good."""
    last = read(kept)
    if last is None:
        return EXPIRED
    try:
        subject = Subject(last.subject)
    except ValueError:
        subject = Subject.UNKNOWN
    verdict = None
    if last.rule:
        verdict = Verdict(subject, False, False, last.rule, Reaction.NONE, Scope.MESSAGE)
    reply = Reply(last.code, last.enhanced, last.text)
    return Outcome(Kind.EXPIRED, subject, Scope.MESSAGE, reply, last.host, last.command, verdict)
