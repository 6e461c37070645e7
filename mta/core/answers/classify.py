"""What a peer's answer, or its silence, means: one outcome a recipient.

Between: `delivery.connect` hands in a transaction that ended; `outbound.outcome` settles the answer.
Contract: pure; one `Outcome` for each recipient of the transaction, in its order. `judge` is
    `RuleSet.judge` with the provider filled in; without it the first figures of the codes decide.
Standards: RFC 5321 4.2.1 (2yz, 4yz, 5yz), 4.5.3.1.10 (552 for too many recipients is transient),
    RFC 3463 (the second figure of an enhanced code names the subject).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mta.core.answers.capabilities import Capabilities
from mta.core.answers.dialogue import Left, Stage, Transaction
from mta.core.mail.message import needs_smtputf8
from mta.core.model import Kind, Option, Outcome, Reaction, Recipient, Reply, Scope, Subject, Verdict

Judge = Callable[[Reply, str], Verdict]  # of a reply, and the command that it answers

# What every delivery asks for is looked up once: in Python 3.11 a member by its enum's name takes 150 ns.
_DOT, _DELIVERED = Stage.DOT, Kind.DELIVERED
_RECIPIENT, _RECIPIENT_ALONE = Subject.RECIPIENT, Scope.RECIPIENT
_COMMANDS = {stage: stage.value for stage in Stage}
_SUBJECTS = {
    "1": Subject.RECIPIENT,
    "2": Subject.MAILBOX,
    "3": Subject.DESTINATION,
    "4": Subject.NETWORK,
    "5": Subject.CONNECTION,
    "6": Subject.MESSAGE,
    "7": Subject.POLICY,
}
_TOO_MANY_RECIPIENTS = frozenset({452, 552})
_SAME_UNDER_TLS = frozenset({Subject.RECIPIENT, Subject.MAILBOX, Subject.MESSAGE})
NO_EIGHTBIT = Reply(
    554, "5.6.3", "The message has 8-bit content, which the receiving server does not take (RFC 6152)"
)
NO_SMTPUTF8 = Reply(553, "5.6.7", "The address needs SMTPUTF8 and the receiving server does not offer it")

OUR_FAULT = Outcome(
    Kind.DEFERRED,
    Subject.UNKNOWN,
    Scope.SITE,
    Reply(451, "4.3.0", "An error of ours; it is counted and the mail is tried again"),
)


def unsigned(why: str) -> Outcome:
    """Mail of our own whose signature cannot be made now."""
    reply = Reply(451, "4.7.5", f"The message cannot be signed: {why}")
    return Outcome(Kind.DEFERRED, Subject.MESSAGE, Scope.MESSAGE, reply)


def outcomes(transaction: Transaction, host: str, judge: Judge | None = None) -> list[Outcome]:
    """The outcomes of a transaction that was answered to its end."""
    dot = transaction.dot_reply
    if dot is not None and transaction.accepted == len(transaction.recipients):
        return [_outcome(dot, _DOT, host, judge, transaction.accepted)] * transaction.accepted
    mail = transaction.mail_reply
    if mail is not None and mail.code >= 300:
        return [_outcome(mail, Stage.MAIL, host, judge)] * len(transaction.recipients)
    results = []
    for reply in transaction.rcpt_replies:
        if reply.code >= 300:
            results.append(_outcome(reply, Stage.RCPT, host, judge))
        elif dot is not None:
            results.append(_outcome(dot, Stage.DOT, host, judge, transaction.accepted))
        else:
            data = transaction.data_reply
            assert data is not None, "a transaction ended without an answer"
            results.append(_outcome(data, Stage.DATA, host, judge, transaction.accepted))
    return results


def softened(outcome: Outcome) -> Outcome:
    """The same where we are in the clear only because TLS failed: what may be said for that is not final.

    Of the mailbox, or of the message, a peer would say the same under TLS, where its words are clear.
    """
    verdict = outcome.verdict
    is_clear = bool(outcome.reply.enhanced) or (verdict is not None and verdict.is_by_rule)
    if outcome.kind is not Kind.BOUNCED or (is_clear and outcome.subject in _SAME_UNDER_TLS):
        return outcome
    if verdict is not None:
        reaction = Reaction.RETRY if verdict.reaction is Reaction.BOUNCE else verdict.reaction
        verdict = verdict._replace(permanent=False, suppress=False, reaction=reaction)
    return outcome._replace(kind=Kind.DEFERRED, verdict=verdict)


def wants_tls(outcome: Outcome) -> bool:
    """May clear text be why a peer refused?"""
    if outcome.kind is _DELIVERED:
        return False
    return outcome.reply.code == 530 or outcome.subject in (Subject.TLS, Subject.POLICY)


def despite_bug(transaction: Transaction, host: str) -> list[Outcome]:
    """Outcomes after a bug of ours: what was taken stays delivered, the rest is tried again."""
    try:
        plain = outcomes(transaction, host)
    except Exception:
        plain = []
    plain = plain or [OUR_FAULT] * len(transaction.recipients)
    return [each if each.kind is Kind.DELIVERED else OUR_FAULT for each in plain]


def surplus(transaction: Transaction) -> set[int]:
    """Positions of recipients that were one too many for this transaction: another takes them at once.

    RFC 5321 4.5.3.1.10. Only where others were accepted, or the same would be asked for ever.
    """
    if not transaction.accepted or transaction.accepted == len(transaction.recipients):
        return set()
    return {
        position
        for position, reply in enumerate(transaction.rcpt_replies)
        if reply.code in _TOO_MANY_RECIPIENTS and reply.enhanced[1:] in ("", ".5.3")
    }


def broken(left: Left, host: str, judge: Judge | None = None) -> Outcome:
    """The outcome for every recipient of a transaction that got no final reply."""
    transaction, reply = left.transaction, left.transaction.ended_by
    if reply is None:
        return _lost(left, host)
    stage = transaction.ended_at.value if transaction.ended_at else ""
    if judge is None:
        return Outcome(Kind.DEFERRED, Subject.CONNECTION, Scope.CONNECTION, reply, host, stage)
    verdict = judge(reply, "")
    return Outcome(Kind.DEFERRED, verdict.subject, verdict.scope, reply, host, stage, verdict)


def _lost(left: Left, host: str) -> Outcome:
    """No word of the peer ended it: what we know, in ours."""
    stage = left.stage
    command = stage.value if stage is not None else ""
    if left.after_dot:
        why = left.why or "The connection was lost after the final dot"
        reply = Reply(451, "4.4.2", f"{why}: the message may have arrived")
        return Outcome(Kind.AMBIGUOUS, Subject.NETWORK, Scope.CONNECTION, reply, host, command)
    before = "" if stage is None else f" before {command} was answered"
    if stage is Stage.DOT:
        before = " while the message was sent"
    why = left.why or f"The connection was lost{before}"
    reply = Reply(451, "4.4.2", f"{why}; it is tried again")
    return Outcome(Kind.DEFERRED, Subject.CONNECTION, Scope.CONNECTION, reply, host, command)


def shared(outcome: Outcome, transaction: Transaction, judge: Judge | None = None) -> list[Outcome]:
    """What `broken` says, for each recipient: who was refused before the end keeps that answer."""
    results = [outcome] * len(transaction.recipients)
    if transaction.mail_accepted:
        for position, reply in enumerate(transaction.rcpt_replies):
            if reply.code >= 300:
                results[position] = _outcome(reply, Stage.RCPT, outcome.host, judge)
    return results


def unsendable(options: int, capabilities: Capabilities, host: str) -> Outcome | None:
    """Why this peer cannot take those whom `refused` tells, if anybody; before anything is said."""
    if options & Option.RETURN and not capabilities.eightbit:
        said = NO_EIGHTBIT
    elif options & Option.SMTPUTF8 and not capabilities.smtputf8:
        said = NO_SMTPUTF8
    else:
        return None
    return Outcome(Kind.BOUNCED, Subject.DESTINATION, Scope.MESSAGE, said, host, Stage.MAIL.value)


def refused(refusal: Outcome, sender: str, recipients: Sequence[Recipient], head: bytes) -> set[int]:
    """Positions of the recipients whom it refuses: for 8 bits all, for SMTPUTF8 those who need it."""
    if refusal.reply is NO_EIGHTBIT:
        return set(range(len(recipients)))
    return {
        position
        for position, recipient in enumerate(recipients)
        if needs_smtputf8(head, sender, (recipient.address,))
    }


def _outcome(reply: Reply, stage: Stage, host: str, judge: Judge | None, speaks_for: int = 1) -> Outcome:
    """The outcome for each of the recipients that a reply speaks for."""
    if reply.code < 300:
        return Outcome(_DELIVERED, _RECIPIENT, _RECIPIENT_ALONE, reply, host, _COMMANDS[stage])
    if judge is not None:
        verdict = judge(reply, stage.value)
        if verdict.suppress and speaks_for > 1:
            verdict = verdict._replace(suppress=False)  # which of them is unknown it does not say
        kind = Kind.BOUNCED if verdict.permanent else Kind.DEFERRED
        return Outcome(kind, verdict.subject, verdict.scope, reply, host, stage.value, verdict)
    transient = reply.code < 500 or (stage is Stage.RCPT and reply.code in _TOO_MANY_RECIPIENTS)
    kind = Kind.DEFERRED if transient else Kind.BOUNCED
    scope = Scope.RECIPIENT if stage is Stage.RCPT else Scope.MESSAGE
    return Outcome(kind, _subject(reply, stage), scope, reply, host, stage.value)


def _subject(reply: Reply, stage: Stage) -> Subject:
    if reply.enhanced:
        return _SUBJECTS.get(reply.enhanced.split(".")[1], Subject.UNKNOWN)
    return Subject.SENDER if stage is Stage.MAIL else Subject.UNKNOWN
