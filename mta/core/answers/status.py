"""What a reply's codes say by themselves, where no rule knows its text.

Between: `core.answers.rules` asks last; it names the codes that a rule is for by `Span`.
Contract: pure. `verdict` always answers: first by 421, then by the enhanced code (its detail, else its
    subject), then by the reply code and the command that it answers. `stage` is that command as
    `Outcome.command` has it ("RCPT", "." ...), "" where nobody knows.
Raises: ValueError from `Span.read`, with words.
Standards: RFC 3463 and the registry of RFC 5248 (enhanced codes), RFC 5321 4.2.1, 4.5.3.1.10 (552), RFC 7504
    (521, 556), RFC 7372 (authentication), RFC 7505 (null MX), RFC 6710, RFC 7293, RFC 8689.
Why: of two codes that contradict each other the milder one holds. A retry too many costs an attempt, a
    bounce too many costs the mail. So does a code about something else (552, 571) with 5.1.1: it suppresses
    nothing.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Self

from mta.core.model import Reaction, Scope, Subject, Verdict

S = Subject
_SPAN = re.compile(r"([45x])\.([0-9]{1,3})\.(?:([0-9]{1,3})(?:-([0-9]{1,3}))?|x)")
_MAILBOX_STAGES = frozenset({"", "RCPT"})  # only here an answer is about one recipient

# X.Y.Z -> subject. RFC 3463 3.x and the registry; the general sense of X.Y is below.
_DETAILS = {
    (1, 7): S.SENDER, (1, 8): S.SENDER,
    (2, 3): S.MESSAGE,  # longer than this mailbox allows
    (3, 4): S.MESSAGE,  # too big for the system
    (4, 2): S.CONNECTION, (4, 3): S.DNS, (4, 4): S.DNS, (4, 5): S.DESTINATION, (4, 6): S.DESTINATION,
    (4, 7): S.DESTINATION,
    (6, 7): S.DESTINATION, (6, 9): S.DESTINATION,  # knows no UTF-8 addresses
    (7, 4): S.TLS, (7, 5): S.TLS, (7, 10): S.TLS, (7, 11): S.TLS, (7, 30): S.TLS,
    (7, 7): S.MESSAGE, (7, 16): S.MESSAGE,
    (7, 17): S.RECIPIENT, (7, 18): S.RECIPIENT,  # it belongs to somebody else now
    (7, 20): S.SENDER, (7, 21): S.SENDER, (7, 22): S.SENDER, (7, 23): S.SENDER, (7, 24): S.SENDER,
    (7, 26): S.SENDER, (7, 27): S.SENDER, (7, 29): S.SENDER,
    (7, 25): S.SOURCE,
    (7, 28): S.RATE,
}  # fmt: skip
_GENERAL = {
    1: S.RECIPIENT, 2: S.MAILBOX, 3: S.DESTINATION, 4: S.NETWORK, 5: S.CONNECTION, 6: S.MESSAGE, 7: S.POLICY,
}  # fmt: skip
_CODES = {
    432: S.MAILBOX, 451: S.DESTINATION, 452: S.DESTINATION, 454: S.TLS, 455: S.DESTINATION,
    500: S.CONNECTION, 501: S.CONNECTION, 502: S.CONNECTION, 503: S.CONNECTION, 504: S.CONNECTION,
    521: S.DESTINATION, 523: S.TLS, 530: S.POLICY, 534: S.POLICY, 535: S.POLICY, 538: S.TLS,
    541: S.POLICY, 551: S.RECIPIENT, 555: S.DESTINATION, 556: S.RECIPIENT, 571: S.POLICY,
}  # fmt: skip
# The mailbox is no more: unknown, impossible, moved away, at a domain that takes no mail.
_GONE = frozenset({(1, 1), (1, 3), (1, 6), (1, 10)})
_LATER = frozenset({(4, 7), (5, 3), (7, 28)})  # said with 5yz too, and never for good
_TOO_MANY = frozenset({None, (2, 2), (3, 1), (5, 3)})  # what 552 to RCPT stands for ...
_TOO_MANY_SUBJECTS = frozenset(
    {S.MAILBOX, S.CONNECTION, S.DESTINATION, S.UNKNOWN}
)  # ... unless the text differs

NO_MAIL = frozenset({521, 556})  # RFC 7504: this host takes none, whoever asks

# The retry class of what is tried again.
CLASSES = {
    S.RECIPIENT: "unknown", S.MAILBOX: "mailbox", S.MESSAGE: "policy", S.SENDER: "policy",
    S.SOURCE: "policy", S.RATE: "rate", S.CONNECTION: "connection", S.POLICY: "policy",
    S.DESTINATION: "connection", S.NETWORK: "connection", S.TLS: "connection", S.DNS: "connection",
    S.UNKNOWN: "unknown",
}  # fmt: skip


class Enhanced(NamedTuple):
    """An enhanced code in figures."""

    level: int  # 4 or 5
    subject: int
    detail: int

    @classmethod
    def read(cls, text: str) -> Self | None:
        return cls(*map(int, text.split("."))) if text else None


class Span(NamedTuple):
    """Enhanced codes that a rule is for: 5.7.1, x.7.1 (both levels), 5.7.606-649, 5.7.x."""

    level: int  # 0: any
    subject: int
    low: int
    high: int

    @classmethod
    def read(cls, text: str) -> Self:
        found = _SPAN.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is no enhanced code: write 5.7.1, x.7.1, 5.7.606-649 or 5.7.x")
        level, subject, low, high = found.groups()
        first = int(low) if low else 0
        last = int(high or low) if low else 999
        if first > last:
            raise ValueError(f"{text!r} ends before it begins")
        return cls(0 if level == "x" else int(level), int(subject), first, last)

    def holds(self, code: Enhanced) -> bool:
        level, subject, detail = code
        same = subject == self.subject and (not self.level or level == self.level)
        return same and self.low <= detail <= self.high


def is_permanent(code: int, enhanced: Enhanced | None, stage: str, subject: Subject) -> bool:
    """Do the codes say that trying again is of no use, where the answer is about `subject`?"""
    detail = enhanced[1:] if enhanced else None
    if code < 500 or (enhanced and enhanced.level == 4) or detail in _LATER:
        return False
    return not (
        code == 552 and stage in _MAILBOX_STAGES and detail in _TOO_MANY and subject in _TOO_MANY_SUBJECTS
    )


def may_suppress(enhanced: Enhanced | None, stage: str) -> bool:
    """Could this answer show at all that a mailbox is no more? Never policy, a full one, or a message."""
    return stage in _MAILBOX_STAGES and not (enhanced and (enhanced.subject == 7 or enhanced[1:] == (2, 2)))


def verdict(code: int, enhanced: Enhanced | None, stage: str) -> Verdict:
    """What the codes mean."""
    if code < 300:
        return Verdict(S.RECIPIENT, False, False, f"code-{code}", Reaction.NONE, Scope.RECIPIENT)
    name, subject = _named(code, enhanced, stage)
    permanent = is_permanent(code, enhanced, stage, subject)
    gone = enhanced is not None and enhanced[1:] in _GONE
    agrees = code != 552 and _CODES.get(code, S.RECIPIENT) is S.RECIPIENT  # 552 is about room
    suppress = permanent and gone and agrees and subject is S.RECIPIENT and may_suppress(enhanced, stage)
    reaction = reaction_to(subject, permanent)
    retry = "" if permanent else CLASSES[subject]
    return Verdict(subject, permanent, suppress, name, reaction, scope_of(reaction, subject, stage), retry)


def reaction_to(subject: Subject, permanent: bool) -> Reaction:
    """What follows from the subject alone."""
    if subject is S.RATE:
        return Reaction.REDUCE
    return Reaction.BOUNCE if permanent else Reaction.RETRY


def scope_of(reaction: Reaction, subject: Subject, stage: str) -> Scope:
    """Whom a reaction hits where nobody says more."""
    beyond = {
        Reaction.NEXT_MX: Scope.HOST, Reaction.REDUCE: Scope.SITE, Reaction.SUSPEND: Scope.SITE,
        Reaction.OTHER_SOURCE: Scope.SOURCE,
    }.get(reaction)  # fmt: skip
    if beyond is not None:
        return beyond
    if subject is S.CONNECTION or stage in ("CONNECT", "EHLO", "STARTTLS", "AUTH"):
        return Scope.CONNECTION
    if subject in (S.MESSAGE, S.SENDER):
        return Scope.MESSAGE
    one = subject in (S.RECIPIENT, S.MAILBOX) or stage in _MAILBOX_STAGES
    return Scope.RECIPIENT if one else Scope.MESSAGE


def _named(code: int, enhanced: Enhanced | None, stage: str) -> tuple[str, Subject]:
    """The name of what decides, and the subject."""
    if code == 421 or code < 400:  # 3yz where nothing was to be continued
        return f"code-{code}", S.CONNECTION
    if enhanced is not None:
        _, subject, detail = enhanced
        known = _DETAILS.get((subject, detail))
        if known is None:
            known = _GENERAL.get(subject, S.UNKNOWN)
            if known is S.RECIPIENT and stage == "MAIL":
                known = S.SENDER  # the only address that was said
        registered = subject in _GENERAL and detail <= 30  # providers make up their own above
        return f"status-{subject}.{detail}" if registered else f"status-{min(subject, 8)}", known
    if stage == "MAIL":
        return f"code-{code}", S.SENDER
    if stage in ("CONNECT", "EHLO") and code >= 500 and code not in NO_MAIL:
        return f"code-{code}", S.SOURCE
    return f"code-{code}", _CODES.get(code, S.RECIPIENT if code == 553 else S.UNKNOWN)
