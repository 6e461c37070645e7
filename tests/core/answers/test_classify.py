"""What answers mean: one row for each line of the table."""

from __future__ import annotations

import pytest

from mta.core.answers.capabilities import Capabilities
from mta.core.answers.classify import NO_SMTPUTF8, broken, outcomes, shared, surplus, unsendable
from mta.core.answers.dialogue import Left, Stage, Transaction
from mta.core.answers.reply import ReplyParser
from mta.core.model import Kind, Message, Option, Outcome, Recipient, Reply, Scope, Subject

HOST = "mx.dst.test"
OK = "250 ok"


def reply(text: str) -> Reply:
    (made,) = ReplyParser().feed(f"{text}\r\n".encode())
    return made


def ended(mail: str, rcpts: list[str], data: str = "", dot: str = "") -> Transaction:
    """A transaction that was answered like this."""
    named = [Recipient(n, f"r{n}@dst.test", "dst.test") for n in range(len(rcpts))]
    message = Message(1, "a@src.test", "t", "s", "c", 0.0, 1, "<1@src.test>", 0, named)
    transaction = Transaction(message, message.sender, named, b"")
    transaction.mail_reply = reply(mail)
    transaction.rcpt_replies = [reply(each) for each in rcpts]
    transaction.accepted = sum(each.code < 300 for each in transaction.rcpt_replies)
    transaction.data_reply = reply(data) if data else None
    transaction.dot_reply = reply(dot) if dot else None
    return transaction


def short(given: list[Outcome]) -> list[tuple[str, str, str, str]]:
    assert all(each.host == HOST for each in given)
    return [(each.kind.value, each.subject.value, each.scope.value, each.command) for each in given]


@pytest.mark.parametrize(
    ("mail", "rcpt", "data", "dot", "expected"),
    [
        # the final dot
        (OK, OK, "354 go", OK, ("delivered", "recipient", "recipient", ".")),
        (OK, OK, "354 go", "251 will forward", ("delivered", "recipient", "recipient", ".")),
        (OK, OK, "354 go", "450 later", ("deferred", "unknown", "message", ".")),
        (OK, OK, "354 go", "421 4.3.2 bye", ("deferred", "destination", "message", ".")),
        (OK, OK, "354 go", "452 4.3.1 full", ("deferred", "destination", "message", ".")),
        (OK, OK, "354 go", "552 5.3.4 too big", ("bounced", "destination", "message", ".")),
        (OK, OK, "354 go", "554 5.7.1 spam", ("bounced", "policy", "message", ".")),
        (OK, OK, "354 go", "550 5.6.0 no From", ("bounced", "message", "message", ".")),
        (OK, OK, "354 go", "354 more", ("deferred", "unknown", "message", ".")),
        # DATA
        (OK, OK, "451 4.3.0 later", "", ("deferred", "destination", "message", "DATA")),
        (OK, OK, "554 5.7.1 no", "", ("bounced", "policy", "message", "DATA")),
        # RCPT
        (OK, "450 4.2.1 greylisted", "554 none", "", ("deferred", "mailbox", "recipient", "RCPT")),
        (OK, "550 5.1.1 who?", "554 none", "", ("bounced", "recipient", "recipient", "RCPT")),
        (OK, "550 who?", "554 none", "", ("bounced", "unknown", "recipient", "RCPT")),
        (OK, "552 5.2.2 mailbox full", "554 none", "", ("deferred", "mailbox", "recipient", "RCPT")),
        (OK, "552 too many recipients", "554 none", "", ("deferred", "unknown", "recipient", "RCPT")),
        (OK, "452 4.5.3 too many", "554 none", "", ("deferred", "connection", "recipient", "RCPT")),
        (OK, "451 4.4.4 no route", "554 none", "", ("deferred", "network", "recipient", "RCPT")),
        (OK, "550 5.9.9 what", "554 none", "", ("bounced", "unknown", "recipient", "RCPT")),
        (OK, "550 5.1.1 who?", "354 go", OK, ("bounced", "recipient", "recipient", "RCPT")),
        # MAIL: everything after it is an echo
        ("451 later", "503 MAIL first", "503 RCPT first", "", ("deferred", "sender", "message", "MAIL")),
        ("550 not you", "503 MAIL first", "503 no", "", ("bounced", "sender", "message", "MAIL")),
        ("550 5.1.8 no DNS", "503 no", "503 no", "", ("bounced", "recipient", "message", "MAIL")),
        ("552 5.3.4 too big", "503 no", "503 no", "", ("bounced", "destination", "message", "MAIL")),
        ("550 5.7.1 not you", "503 no", "354 go", "503 no", ("bounced", "policy", "message", "MAIL")),
    ],
)
def test_one_recipient(mail: str, rcpt: str, data: str, dot: str, expected: tuple[str, ...]) -> None:
    assert short(outcomes(ended(mail, [rcpt], data, dot), HOST)) == [expected]


def test_each_of_three_recipients_has_its_own_answer() -> None:
    transaction = ended(OK, [OK, "550 5.1.1 who?", "450 4.2.0 later"], "354 go", "250 2.0.0 taken")
    assert short(outcomes(transaction, HOST)) == [
        ("delivered", "recipient", "recipient", "."),
        ("bounced", "recipient", "recipient", "RCPT"),
        ("deferred", "mailbox", "recipient", "RCPT"),
    ]


def test_the_message_refused_says_nothing_new_of_a_recipient_refused_before() -> None:
    given = outcomes(ended(OK, [OK, "550 5.1.1 who?"], "354 go", "554 5.7.1 spam"), HOST)
    assert [str(each.reply) for each in given] == ["554 5.7.1 spam", "550 5.1.1 who?"]


def test_mail_refused_speaks_for_all_recipients_though_they_were_not_asked_for() -> None:
    transaction = ended("550 5.7.1 not you", [])
    transaction.recipients = [Recipient(n, f"r{n}@dst.test", "dst.test") for n in range(3)]
    assert short(outcomes(transaction, HOST)) == [("bounced", "policy", "message", "MAIL")] * 3


@pytest.mark.parametrize(
    ("rcpts", "positions"),
    [
        ([OK, "452 4.5.3 too many"], {1}),
        ([OK, "452 too many"], {1}),
        ([OK, "552 too many"], {1}),
        ([OK, "552 5.5.3 too many"], {1}),
        ([OK, "452 4.5.3 too many", OK, "452 4.5.3 too many"], {1, 3}),
        ([OK, "452 4.2.2 mailbox full"], set()),
        ([OK, "552 5.2.2 mailbox full"], set()),
        ([OK, "451 4.5.3 not this code"], set()),
        ([OK, OK], set()),
        (["452 4.5.3 too many", "452 4.5.3 too many"], set()),
    ],
)
def test_one_too_many_goes_in_another_transaction(rcpts: list[str], positions: set[int]) -> None:
    assert surplus(ended(OK, rcpts, "354 go", OK)) == positions


@pytest.mark.parametrize(
    ("stage", "why", "said"),
    [
        (None, "", "The connection was lost; it is tried again"),
        (Stage.RCPT, "", "The connection was lost before RCPT was answered; it is tried again"),
        (Stage.DOT, "", "The connection was lost while the message was sent; it is tried again"),
        (Stage.DATA, "DATA was answered with '250 ok'", "DATA was answered with '250 ok'; it is tried again"),
    ],
)
def test_no_final_reply_before_the_dot(stage: Stage | None, why: str, said: str) -> None:
    left = Left(ended(OK, [OK]), False, stage, why)
    reply, command = Reply(451, "4.4.2", said), "" if stage is None else stage.value
    expected = Outcome(Kind.DEFERRED, Subject.CONNECTION, Scope.CONNECTION, reply, HOST, command)
    assert broken(left, HOST) == expected


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("", "The connection was lost after the final dot: the message may have arrived"),
        (
            "The final dot was answered with 'x'",
            "The final dot was answered with 'x': the message may have arrived",
        ),
    ],
)
def test_no_final_reply_after_the_dot(why: str, said: str) -> None:
    left = Left(ended(OK, [OK], "354 go"), True, Stage.DOT, why)
    reply = Reply(451, "4.4.2", said)
    expected = Outcome(Kind.AMBIGUOUS, Subject.NETWORK, Scope.CONNECTION, reply, HOST, ".")
    assert broken(left, HOST) == expected


@pytest.mark.parametrize("after_dot", [False, True])
def test_a_421_says_why(after_dot: bool) -> None:
    transaction = ended(OK, [OK])
    transaction.ended_by = reply("421 4.3.2 going down")
    outcome = broken(Left(transaction, after_dot), HOST)
    assert (outcome.kind, outcome.reply) == (Kind.DEFERRED, transaction.ended_by)


def test_who_was_refused_before_a_421_keeps_that_answer() -> None:
    transaction = ended(OK, ["550 5.1.1 who?", OK])
    transaction.recipients.append(Recipient(2, "r2@dst.test", "dst.test"))  # not answered yet
    transaction.ended_by, transaction.ended_at = reply("421 4.3.2 going down"), Stage.RCPT
    given = shared(broken(Left(transaction), HOST), transaction)
    assert [(each.kind.value, each.reply.code) for each in given] == [
        ("bounced", 550),
        ("deferred", 421),
        ("deferred", 421),
    ]


def test_recipients_behind_a_mail_that_was_refused_have_no_answers_of_their_own() -> None:
    transaction = ended("451 4.3.0 later", ["503 MAIL first"])
    transaction.ended_by = reply("421 4.3.2 going down")
    (given,) = shared(broken(Left(transaction), HOST), transaction)
    assert given.reply.code == 421


@pytest.mark.parametrize(
    ("options", "offered", "refused"),
    [
        (Option.SMTPUTF8, False, True),
        (Option.SMTPUTF8 | Option.EIGHTBIT, False, True),
        (Option.SMTPUTF8, True, False),
        (Option.EIGHTBIT, False, False),
        (0, False, False),
    ],
)
def test_utf8_addresses_go_only_where_they_are_understood(options: int, offered: bool, refused: bool) -> None:
    outcome = unsendable(options, Capabilities(smtputf8=offered), HOST)
    expected = Outcome(Kind.BOUNCED, Subject.DESTINATION, Scope.MESSAGE, NO_SMTPUTF8, HOST, "MAIL")
    assert outcome == (expected if refused else None)
