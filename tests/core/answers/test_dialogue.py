"""The transaction as a table: what the peer says, what we say next. No sockets."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mta.core.answers.capabilities import Capabilities
from mta.core.answers.dialogue import (
    MERGE_LIMIT,
    Desync,
    Dialogue,
    Stage,
    Step,
    Transaction,
    envelope_lines,
)
from mta.core.answers.reply import ReplyParser
from mta.core.model import Message, Option, Recipient, Reply

PIPELINING = Capabilities(pipelining=True)
PLAIN = Capabilities()
EVERYTHING = Capabilities(True, True, True, True)
BODY = b"Subject: x\r\n\r\nhello\r\n"
OPENING = b"MAIL FROM:<a@src.test>\r\nRCPT TO:<r0@dst.test>\r\nDATA\r\n"


def transaction(recipients: int = 1, body: bytes = BODY, options: int = 0) -> Transaction:
    named = [Recipient(n, f"r{n}@dst.test", "dst.test") for n in range(recipients)]
    message = Message(1, "a@src.test", "t", "s", "c", 0.0, len(body), "<1@src.test>", options, named)
    return Transaction(message, message.sender, named, body)


def nothing() -> Transaction | None:
    return None


def queue(*waiting: Transaction) -> Callable[[], Transaction | None]:
    left = iter(waiting)
    return lambda: next(left, None)


def say(
    dialogue: Dialogue, *replies: str, take: Callable[[], Transaction | None] = nothing
) -> tuple[bytes, list[Transaction]]:
    """What is written, and what is finished, after these replies came in one go."""
    octets = "".join(f"{reply}\r\n" for reply in replies).encode()
    step: Step = dialogue.feed(ReplyParser().feed(octets), take)
    return b"".join(step.write), step.finished


def begun(capabilities: Capabilities = PIPELINING, recipients: int = 1) -> tuple[Dialogue, Transaction]:
    dialogue, first = Dialogue(capabilities), transaction(recipients)
    dialogue.begin(first)
    return dialogue, first


def abandoned(dialogue: Dialogue) -> list[tuple[Transaction, bool]]:
    return [(left.transaction, left.after_dot) for left in dialogue.abandon()]


def codes(given: list[Reply]) -> list[int]:
    return [reply.code for reply in given]


def test_pipelined_the_envelope_is_one_write_and_the_body_the_next() -> None:
    dialogue, first = Dialogue(PIPELINING), transaction(2)
    assert dialogue.begin(first) == (
        b"MAIL FROM:<a@src.test>\r\nRCPT TO:<r0@dst.test>\r\nRCPT TO:<r1@dst.test>\r\nDATA\r\n"
    )
    assert dialogue.stage is Stage.MAIL
    assert say(dialogue, "250 ok", "250 ok", "250 ok") == (b"", [])
    assert dialogue.stage is Stage.DATA
    assert say(dialogue, "354 go") == (BODY + b".\r\n", [])
    assert dialogue.stage is Stage.DOT
    assert say(dialogue, "250 2.0.0 taken") == (b"", [first])
    assert dialogue.idle
    assert dialogue.stage is None
    assert first.dot_reply == Reply(250, "2.0.0", "taken")


def test_without_pipelining_each_command_waits_for_its_reply() -> None:
    dialogue, first = Dialogue(PLAIN), transaction(2)
    written = [dialogue.begin(first)]
    for reply in ("250 ok", "250 ok", "250 ok", "354 go"):
        octets, finished = say(dialogue, reply)
        written.append(octets)
        assert finished == []
    assert written == [
        b"MAIL FROM:<a@src.test>\r\n",
        b"RCPT TO:<r0@dst.test>\r\n",
        b"RCPT TO:<r1@dst.test>\r\n",
        b"DATA\r\n",
        BODY + b".\r\n",
    ]
    assert say(dialogue, "250 taken") == (b"", [first])


def test_the_next_envelope_rides_behind_the_body() -> None:
    dialogue, first = begun()
    second = transaction()
    written, finished = say(dialogue, "250 ok", "250 ok", "354 go", take=queue(second))
    assert written == BODY + b".\r\n" + OPENING
    assert finished == []
    assert say(dialogue, "250 taken", "250 ok", "250 ok", "354 go") == (BODY + b".\r\n", [first])
    assert say(dialogue, "250 taken") == (b"", [second])


@pytest.mark.parametrize(("size", "rides"), [(MERGE_LIMIT, True), (MERGE_LIMIT + 1, False)])
def test_behind_a_large_body_the_next_envelope_would_wait_for_long(size: int, rides: bool) -> None:
    dialogue, first = Dialogue(PIPELINING), transaction(body=b"x" * size)
    second = transaction()
    dialogue.begin(first)
    written, _ = say(dialogue, "250 ok", "250 ok", "354 go", take=queue(second))
    assert written.endswith(OPENING) is rides
    if not rides:
        assert say(dialogue, "250 taken", take=queue(second)) == (OPENING, [first])


def test_without_pipelining_the_next_mail_waits_for_the_reply_to_the_dot() -> None:
    dialogue, first = begun(PLAIN)
    second = transaction()
    for reply in ("250 ok", "250 ok", "354 go"):
        say(dialogue, reply, take=queue(second))
    assert say(dialogue, "250 taken", take=queue(second)) == (b"MAIL FROM:<a@src.test>\r\n", [first])


def test_mail_refused_pipelined_is_over_with_the_reply_to_data() -> None:
    dialogue, first = begun()
    assert say(dialogue, "550 5.7.1 not you", "503 MAIL first") == (b"", [])
    assert say(dialogue, "503 MAIL first", take=queue(transaction())) == (b"", [first])
    assert not first.mail_accepted
    assert dialogue.begin(transaction()) == OPENING


def test_mail_refused_is_over_at_once() -> None:
    dialogue, first = begun(PLAIN)
    assert say(dialogue, "451 4.3.0 later", take=queue(transaction())) == (b"", [first])
    assert dialogue.begin(transaction()) == b"MAIL FROM:<a@src.test>\r\n"


@pytest.mark.parametrize("capabilities", [PIPELINING, PLAIN])
def test_one_of_three_recipients_refused(capabilities: Capabilities) -> None:
    dialogue, first = begun(capabilities, 3)
    written = b""
    for reply in ("250 ok", "250 ok", "550 5.1.1 who?", "250 ok", "354 go"):
        octets, finished = say(dialogue, reply)
        written += octets
        assert finished == []
    assert written.endswith(BODY + b".\r\n")
    assert say(dialogue, "250 taken") == (b"", [first])
    assert codes(first.rcpt_replies) == [250, 550, 250]
    assert first.accepted == 2


def test_all_recipients_refused_and_data_too() -> None:
    dialogue, first = begun(PIPELINING, 2)
    replies = ("250 ok", "550 who?", "550 who?", "554 no valid recipients")
    written, finished = say(dialogue, *replies, take=queue(transaction()))
    assert (written, finished) == (b"", [first])
    assert dialogue.begin(transaction()) == b"RSET\r\n" + OPENING
    assert dialogue.stage is Stage.RSET


def test_all_recipients_refused_and_data_taken_gets_an_empty_message() -> None:
    dialogue, first = begun()
    assert say(dialogue, "250 ok", "550 who?", "354 go") == (b".\r\n", [])
    assert dialogue.stage is Stage.DOT
    assert say(dialogue, "554 no valid recipients", take=queue(transaction())) == (b"", [first])
    assert dialogue.begin(transaction()) == OPENING


def test_all_recipients_refused_without_pipelining_never_says_data() -> None:
    dialogue, first = begun(PLAIN)
    say(dialogue, "250 ok")
    assert say(dialogue, "550 who?", take=queue(transaction())) == (b"", [first])
    assert dialogue.begin(transaction()) == b"RSET\r\n"
    assert say(dialogue, "250 ok") == (b"MAIL FROM:<a@src.test>\r\n", [])


@pytest.mark.parametrize("capabilities", [PIPELINING, PLAIN])
def test_data_refused_after_recipients_were_accepted(capabilities: Capabilities) -> None:
    dialogue, first = begun(capabilities)
    for reply in ("250 ok", "250 ok"):
        say(dialogue, reply)
    assert say(dialogue, "451 4.3.1 disk full") == (b"", [first])
    assert dialogue.begin(transaction()).startswith(b"RSET\r\n")
    assert dialogue.stage is Stage.RSET


def test_a_refusal_after_the_dot_needs_no_rset() -> None:
    dialogue, _ = begun()
    say(dialogue, "250 ok", "250 ok", "354 go")
    say(dialogue, "554 5.7.1 spam")
    assert dialogue.begin(transaction()) == OPENING


def test_rset_goes_once() -> None:
    dialogue, _ = begun()
    say(dialogue, "250 ok", "550 who?", "554 none")
    second = transaction()
    assert dialogue.begin(second) == b"RSET\r\n" + OPENING
    say(dialogue, "250 ok", "250 ok", "250 ok", "354 go")
    say(dialogue, "250 taken")
    assert dialogue.begin(transaction()) == OPENING


@pytest.mark.parametrize(
    ("replies", "stage"),
    [
        pytest.param([], Stage.MAIL, id="MAIL"),
        pytest.param(["250 ok"], Stage.RCPT, id="RCPT"),
        pytest.param(["250 ok", "250 ok"], Stage.DATA, id="DATA"),
    ],
)
@pytest.mark.parametrize("capabilities", [PIPELINING, PLAIN])
def test_421_before_the_dot_leaves_the_transaction_unsent(
    capabilities: Capabilities, replies: list[str], stage: Stage
) -> None:
    dialogue, first = begun(capabilities)
    for reply in replies:
        say(dialogue, reply)
    assert dialogue.stage is stage
    assert say(dialogue, "421 4.3.2 going down", "250 ignored") == (b"", [])
    assert dialogue.closing == Reply(421, "4.3.2", "going down")
    assert dialogue.fault is None
    assert abandoned(dialogue) == [(first, False)]
    assert first.ended_by == dialogue.closing


def test_421_to_rset() -> None:
    dialogue, _ = begun()
    say(dialogue, "250 ok", "550 who?", "554 none")
    second = transaction()
    dialogue.begin(second)
    say(dialogue, "421 enough")
    assert abandoned(dialogue) == [(second, False)]


def test_421_after_the_dot_is_the_answer_and_the_next_envelope_is_unsent() -> None:
    dialogue, first = begun()
    second = transaction()
    say(dialogue, "250 ok", "250 ok", "354 go", take=queue(second))
    assert say(dialogue, "421 enough", take=queue(transaction())) == (b"", [first])
    assert first.dot_reply == Reply(421, "", "enough")
    assert abandoned(dialogue) == [(second, False)]
    assert second.ended_by == dialogue.closing


def test_421_while_idle_is_goodbye() -> None:
    dialogue = Dialogue(PIPELINING)
    assert say(dialogue, "421 idle for too long") == (b"", [])
    assert dialogue.closing == Reply(421, "", "idle for too long")
    assert abandoned(dialogue) == []


def test_421_behind_the_last_reply_leaves_the_next_transaction_unsent() -> None:
    dialogue, first = begun()
    second = transaction()
    say(dialogue, "250 ok", "250 ok", "354 go")
    _, finished = say(dialogue, "250 taken", "421 enough", take=queue(second))
    assert finished == [first]
    assert abandoned(dialogue) == [(second, False)]


def test_a_reply_to_nothing_is_a_fault() -> None:
    dialogue = Dialogue(PIPELINING)
    assert say(dialogue, "250 hello?") == (b"", [])
    assert isinstance(dialogue.fault, Desync)
    assert str(dialogue.fault) == "The peer said '250 hello?' without being asked"


def test_a_reply_to_what_is_not_written_yet_is_a_fault() -> None:
    dialogue, first = begun()
    _, finished = say(dialogue, "250 ok", "250 ok", "354 go", "250 taken, so soon")
    assert finished == []
    assert str(dialogue.fault) == "The peer said '250 taken, so soon' without being asked"
    assert abandoned(dialogue) == [(first, False)]


@pytest.mark.parametrize("nonsense", ["what?", "250 a reply to nothing", "999 no such code"])
def test_what_was_answered_before_nonsense_counts(nonsense: str) -> None:
    dialogue, first = begun()
    say(dialogue, "250 ok", "250 ok", "354 go")
    second = transaction()
    _, finished = say(dialogue, "250 taken", nonsense, take=queue(second))
    assert finished == [first]
    assert dialogue.fault is not None
    assert abandoned(dialogue) == [(second, False)]


def test_nonsense_after_the_dot_may_mean_anything() -> None:
    dialogue, first = begun()
    say(dialogue, "250 ok", "250 ok", "354 go")
    assert say(dialogue, "gulp") == (b"", [])
    assert str(dialogue.fault) == "what is no reply: 'gulp'"
    assert abandoned(dialogue) == [(first, True)]


@pytest.mark.parametrize("reply", ["250 ok", "334 more", "220 hello"])
def test_data_must_be_taken_or_refused(reply: str) -> None:
    dialogue, first = begun()
    say(dialogue, "250 ok", "250 ok")
    say(dialogue, reply)
    assert str(dialogue.fault) == f"DATA was answered with '{reply}'"
    assert abandoned(dialogue) == [(first, False)]


@pytest.mark.parametrize("capabilities", [PIPELINING, PLAIN])
def test_a_refused_rset_is_a_fault(capabilities: Capabilities) -> None:
    dialogue, _ = begun(capabilities)
    for reply in ("250 ok", "250 ok", "451 disk full"):
        say(dialogue, reply)
    second = transaction()
    dialogue.begin(second)
    say(dialogue, "500 RSET?")
    assert str(dialogue.fault) == "RSET was answered with '500 RSET?'"
    assert abandoned(dialogue) == [(second, False)]


@pytest.mark.parametrize(
    ("replies", "after_dot"),
    [
        pytest.param([], False, id="nothing answered"),
        pytest.param(["250 ok"], False, id="MAIL"),
        pytest.param(["250 ok", "250 ok"], False, id="RCPT"),
        pytest.param(["250 ok", "250 ok", "354 go"], True, id="354"),
        pytest.param(["250 ok", "550 who?", "354 go"], False, id="354 and nobody to send to"),
    ],
)
def test_a_lost_connection(replies: list[str], after_dot: bool) -> None:
    dialogue, first = begun()
    say(dialogue, *replies)
    assert abandoned(dialogue) == [(first, after_dot)]
    assert first.ended_by is None
    assert dialogue.idle
    assert abandoned(dialogue) == []


def test_a_lost_connection_between_two_messages() -> None:
    dialogue, first = begun()
    second = transaction()
    say(dialogue, "250 ok", "250 ok", "354 go", take=queue(second))
    assert abandoned(dialogue) == [(first, True), (second, False)]


@pytest.mark.parametrize(
    ("capabilities", "options", "mail"),
    [
        (EVERYTHING, 0, b"MAIL FROM:<a@src.test> SIZE=21\r\n"),
        (EVERYTHING, Option.EIGHTBIT, b"MAIL FROM:<a@src.test> SIZE=21 BODY=8BITMIME\r\n"),
        (EVERYTHING, Option.SMTPUTF8, b"MAIL FROM:<a@src.test> SIZE=21\r\n"),  # nothing needs it
        (PLAIN, Option.EIGHTBIT | Option.SMTPUTF8 | Option.NOTIFY, b"MAIL FROM:<a@src.test>\r\n"),
        (Capabilities(eightbit=True), Option.EIGHTBIT, b"MAIL FROM:<a@src.test> BODY=8BITMIME\r\n"),
    ],
)
def test_only_what_was_offered_is_asked_for(capabilities: Capabilities, options: int, mail: bytes) -> None:
    assert envelope_lines(transaction(options=options), capabilities)[0] == mail


@pytest.mark.parametrize(
    ("sender", "recipient", "head", "offered", "lines"),
    [
        ("jörg@src.test", "r@dst.test", "x", True, ["FROM:<jörg@src.test> SMTPUTF8", "TO:<r@dst.test>"]),
        ("a@src.test", "bé@dst.test", "x", True, ["FROM:<a@src.test> SMTPUTF8", "TO:<bé@dst.test>"]),
        ("a@src.test", "r@dst.test", "é", True, ["FROM:<a@src.test> SMTPUTF8", "TO:<r@dst.test>"]),
        ("a@src.test", "r@bücher.test", "x", True, ["FROM:<a@src.test>", "TO:<r@xn--bcher-kva.test>"]),
        ("a@bücher.test", "r@dst.test", "x", False, ["FROM:<a@xn--bcher-kva.test>", "TO:<r@dst.test>"]),
        ("", "r@bücher.test", "x", False, ["FROM:<>", "TO:<r@xn--bcher-kva.test>"]),
        ("a@src.test", "r@dst.test", "x", True, ["FROM:<a@src.test>", "TO:<r@dst.test>"]),
    ],
)
def test_smtputf8_goes_with_what_needs_it(
    sender: str, recipient: str, head: str, offered: bool, lines: list[str]
) -> None:
    made = transaction(options=Option.SMTPUTF8, body=f"Subject: {head}\r\n\r\nbody: é\r\n".encode())
    made.sender, made.recipients[0].address = sender, recipient
    mail, rcpt = envelope_lines(made, Capabilities(smtputf8=offered))
    assert [mail.decode(), rcpt.decode()] == [f"MAIL {lines[0]}\r\n", f"RCPT {lines[1]}\r\n"]


def test_the_null_sender_and_utf8() -> None:
    made = transaction()
    made.sender = ""
    made.recipients[0].address = "jürgen@dst.test"
    lines = [b"MAIL FROM:<>\r\n", "RCPT TO:<jürgen@dst.test>\r\n".encode()]
    assert envelope_lines(made, PIPELINING) == lines
