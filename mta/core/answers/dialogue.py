"""The client's side of SMTP transactions: replies in, what to say next out.

Between: the SMTP client moves octets; this decides them.
Contract: pure. `begin` and `feed` give the octets to write and the transactions that are finished; a
    transaction carries its own replies. `take` is asked for the next transaction where one may follow.
    A transaction that is dropped (421, a lost connection) is `Left`, which says whether it may have arrived.
    `fault` says why a connection must never be used again: the peer answers what was not asked, or
    speaks no SMTP; or there is a bug of ours (`is_bug`). What was answered before counts.
Raises: nothing that a peer can cause; what `begin` raises is a bug of ours.
Standards: RFC 5321 3.3 (mail transaction), 4.2.1 (421), RFC 2920 3.1 (pipelining: DATA is the last of a
    group, and the next MAIL may follow the final dot), RFC 1870 (SIZE), RFC 6152, RFC 6531.
Why: in the steady state one write carries a body and the next envelope, and one read brings all its
    replies: half the system calls and one round trip a message.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from mta.core.answers.capabilities import Capabilities
from mta.core.answers.reply import MAX_QUOTED, ReplyError
from mta.core.mail.address import ascii_address
from mta.core.mail.message import header_block, needs_smtputf8
from mta.core.model import Message, Option, Recipient, Reply

SILENT = 5.0  # seconds behind an answer, until commands were lost; who only thinks takes that long, too
AT_ONCE = 16 * 1024  # octets that an empty socket of the system takes
MERGE_LIMIT = 256 * 1024  # octets; behind a larger body the next envelope would wait for long
_END = b".\r\n"


class Stage(enum.Enum):
    """The command that a reply answers."""

    RSET = "RSET"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    DOT = "."

    @property
    def shown(self) -> str:
        """At the beginning of a sentence."""
        return "The final dot" if self is Stage.DOT else self.value

    __hash__ = object.__hash__  # enum's own hashes the name, in Python, at every look-up


# Looked up once: in Python 3.11 a member by its enum's name costs as much as ten other names, 150 ns.
_RSET, _MAIL, _RCPT, _DATA, _DOT = Stage


class Desync(Exception):
    """The peer and we no longer speak of the same command."""


class Transaction(msgspec.Struct, eq=False):
    """One message to some of its recipients over one connection, and what was answered."""

    message: Message
    sender: str  # in MAIL: the message's, or a return path of ours
    recipients: list[Recipient]
    body: bytes  # stuffed
    carrier: object = None  # the connection that it goes over
    envelope: list[bytes] = []  # MAIL, each RCPT; DATA is understood
    started: float = 0.0  # seconds, on the caller's clock
    mail_reply: Reply | None = None
    rcpt_replies: list[Reply] = []
    accepted: int = 0
    data_reply: Reply | None = None
    dot_reply: Reply | None = None
    ended_by: Reply | None = None  # a 421 that cut it short ...
    ended_at: Stage | None = None  # ... and what that answered, if anything of it

    @property
    def mail_accepted(self) -> bool:
        return self.mail_reply is not None and self.mail_reply.code < 300

    @property
    def is_taken(self) -> bool:
        """The peer has it, for every recipient."""
        reply = self.dot_reply
        return reply is not None and reply.code < 300 and self.accepted == len(self.recipients)


class Left(NamedTuple):
    """A transaction that got no final reply."""

    transaction: Transaction
    after_dot: bool = False  # it may have arrived
    stage: Stage | None = None  # what was not answered
    why: str = ""  # a sentence without its full stop, where more is known than that the connection is gone


Take = Callable[[], Transaction | None]  # the next transaction, where one may follow


class Step(msgspec.Struct):
    """What to do after some replies."""

    write: list[bytes]  # not after a fault or a 421
    finished: list[Transaction]


class Dialogue:
    """The transactions of one connection, in order."""

    def __init__(self, capabilities: Capabilities, unsent: Callable[[], int] = lambda: 0) -> None:
        """`unsent` tells how many of the octets that were to be written have not left."""
        self._capabilities = capabilities
        self._pipelining = capabilities.pipelining
        self._expected: deque[tuple[Stage, Transaction]] = deque()
        self._reset_first = False  # the peer still holds a transaction that came to nothing
        self.closing: Reply | None = None  # the 421 that the peer said goodbye with
        self.fault: Exception | None = None
        self._unsent = unsent
        self._has_answered = False  # a transaction to its end
        # Its body was not sent, or in vain, in the step that ended everything.
        self._withheld: Transaction | None = None

    @property
    def idle(self) -> bool:
        """No reply is awaited."""
        return not self._expected

    @property
    def is_bug(self) -> bool:
        """Is it our own fault that the connection is of no more use?"""
        return self.fault is not None and not isinstance(self.fault, Desync | ReplyError)

    @property
    def awaited(self) -> int:
        """How many replies are."""
        return len(self._expected)

    @property
    def stage(self) -> Stage | None:
        """What the next reply answers."""
        return self._expected[0][0] if self._expected else None

    def has_lost_commands(self, silence: float) -> bool:
        """The connection ends after so many seconds: did the peer answer a part of what was sent together?

        RFC 2920 3.2: a server must not flush its input. Who hangs up at once has another reason.
        """
        if not self._pipelining or not self._expected or self.fault or silence < SILENT:
            return False
        stage, transaction = self._expected[0]
        if stage is _MAIL:
            return self._has_answered
        return stage in (_RCPT, _DATA) and transaction.mail_reply is not None

    def begin(self, transaction: Transaction) -> bytes:
        """The octets that open a transaction."""
        envelope = transaction.envelope = envelope_lines(transaction, self._capabilities)
        expected = self._expected
        if not self._pipelining:
            # A RSET goes alone; its reply is followed by MAIL.
            first = _RSET if self._reset_first else _MAIL
            self._reset_first = False
            expected.append((first, transaction))
            return b"RSET\r\n" if first is _RSET else envelope[0]
        reset = b""
        if self._reset_first:
            reset = b"RSET\r\n"
            expected.append((_RSET, transaction))
            self._reset_first = False
        expected.append((_MAIL, transaction))
        expected.extend([(_RCPT, transaction)] * len(transaction.recipients))
        expected.append((_DATA, transaction))
        return b"".join((reset, *envelope, b"DATA\r\n"))

    def feed(self, replies: Iterable[Reply], take: Take) -> Step:
        """Go on with what the peer said."""
        step = Step([], [])
        try:
            self._feed(replies, step, take)
        except Exception as error:
            self.fault = error
        if self.fault is None and self.closing is None:
            self._withheld = None
        return step

    def _feed(self, replies: Iterable[Reply], step: Step, take: Take) -> None:
        expected = self._expected
        asked = len(expected)  # what is said in this step is not written yet, so nobody can answer it
        for reply in replies:
            if not asked:
                if reply.code != 421:
                    raise Desync(f"The peer said {_shown(reply)} without being asked")
                self.closing = reply
                return  # nothing after a 421 counts
            asked -= 1
            stage, transaction = expected.popleft()
            if reply.code == 421:
                self.closing = reply
                if stage is _DOT:
                    transaction.dot_reply = reply
                    step.finished.append(transaction)
                else:
                    transaction.ended_at = stage
                    expected.appendleft((stage, transaction))
                return
            try:
                _HANDLERS[stage](self, transaction, reply, step, take)
            except Exception:
                expected.appendleft((stage, transaction))  # it has no final reply
                raise

    def abandon(self, why: str = "") -> list[Left]:
        """The transactions that got no final reply; `why` is what the connection knows of its end."""
        left: dict[int, Left] = {}
        why = self._fault_in_words() or why
        for stage, transaction in self._expected:
            transaction.ended_by = self.closing
            after_dot = stage is _DOT and transaction.accepted > 0 and transaction is not self._withheld
            left.setdefault(id(transaction), Left(transaction, after_dot, stage, why))
        self._expected.clear()
        return list(left.values())

    def _fault_in_words(self) -> str:
        if isinstance(self.fault, ReplyError):
            stage = self.stage
            return f"{'The peer spoke' if stage is None else f'{stage.shown} was answered'} with {self.fault}"
        if self.fault is not None:
            return str(self.fault) if isinstance(self.fault, Desync) else "We met an error of ours"
        return ""

    # One handler a stage.

    def _on_rset(self, transaction: Transaction, reply: Reply, step: Step, take: Take) -> None:
        if reply.code >= 300:
            raise Desync(f"RSET was answered with {_shown(reply)}")
        if not self._pipelining:
            self._say(_MAIL, transaction, transaction.envelope[0], step)

    def _on_mail(self, transaction: Transaction, reply: Reply, step: Step, take: Take) -> None:
        transaction.mail_reply = reply
        if self._pipelining:
            return
        if transaction.mail_accepted:
            self._say(_RCPT, transaction, transaction.envelope[1], step)
        else:
            self._finish(transaction, step, take)

    def _on_rcpt(self, transaction: Transaction, reply: Reply, step: Step, take: Take) -> None:
        replies = transaction.rcpt_replies
        replies.append(reply)
        transaction.accepted += reply.code < 300
        if self._pipelining:
            return
        if len(replies) < len(transaction.recipients):
            self._say(_RCPT, transaction, transaction.envelope[1 + len(replies)], step)
        elif transaction.accepted:
            self._say(_DATA, transaction, b"DATA\r\n", step)
        else:
            self._reset_first = True
            self._finish(transaction, step, take)

    def _on_data(self, transaction: Transaction, reply: Reply, step: Step, take: Take) -> None:
        if reply.code != 354 and reply.code < 400:
            raise Desync(f"DATA was answered with {_shown(reply)}")
        transaction.data_reply = reply
        if reply.code != 354:
            self._reset_first = transaction.mail_accepted
            self._finish(transaction, step, take)
            return
        # With no recipient the peer should have said 554; it waits for a message, so it gets an empty one.
        body = transaction.body if transaction.accepted else b""
        self._withheld = transaction
        step.write.append(body)
        self._say(_DOT, transaction, _END, step)
        if self._pipelining and len(body) <= MERGE_LIMIT:
            following = take()
            if following is not None:
                step.write.append(self.begin(following))

    def _on_dot(self, transaction: Transaction, reply: Reply, step: Step, take: Take) -> None:
        if 300 <= reply.code < 400:
            # Taken or not: nobody can tell.
            raise Desync(f"The final dot was answered with {_shown(reply)}")
        if reply.code < 300 and len(transaction.body) > AT_ONCE and self._unsent() > self._behind():
            self._withheld = transaction
            raise Desync(f"The peer said {_shown(reply)} before it had the whole message")
        transaction.dot_reply = reply
        self._finish(transaction, step, take)

    def _behind(self) -> int:
        """The most octets that may wait behind the body that was just answered: the next envelope."""
        if not self._expected:
            return 0
        envelope = sum(map(len, self._expected[-1][1].envelope)) + len(b"RSET\r\nDATA\r\n")
        return envelope + envelope // 50 + 100  # what TLS adds is less

    def _say(self, stage: Stage, transaction: Transaction, octets: bytes, step: Step) -> None:
        self._expected.append((stage, transaction))
        step.write.append(octets)

    def _finish(self, transaction: Transaction, step: Step, take: Take) -> None:
        step.finished.append(transaction)
        self._has_answered = True
        # What was refused may be a reason to send nothing more: its owner hears of it first.
        if not self._expected and transaction.is_taken:
            following = take()
            if following is not None:
                step.write.append(self.begin(following))


_HANDLERS = {
    _RSET: Dialogue._on_rset,
    _MAIL: Dialogue._on_mail,
    _RCPT: Dialogue._on_rcpt,
    _DATA: Dialogue._on_data,
    _DOT: Dialogue._on_dot,
}


def _shown(reply: Reply) -> str:
    said = " ".join(str(reply).split())
    return repr(said[:MAX_QUOTED])


def envelope_lines(transaction: Transaction, capabilities: Capabilities) -> list[bytes]:
    """MAIL and each RCPT, with the parameters that this peer offers."""
    message = transaction.message
    parameters = ""
    if capabilities.size:
        parameters += f" SIZE={message.size}"
    if message.options & Option.EIGHTBIT and capabilities.eightbit:
        parameters += " BODY=8BITMIME"
    if message.options & Option.SMTPUTF8:
        return _declared_utf8(transaction, capabilities, parameters)
    lines = [f"MAIL FROM:<{transaction.sender}>{parameters}\r\n".encode()]
    lines += [f"RCPT TO:<{recipient.address}>\r\n".encode() for recipient in transaction.recipients]
    return lines


def _declared_utf8(transaction: Transaction, capabilities: Capabilities, parameters: str) -> list[bytes]:
    """RFC 6531 3.2: the parameter goes with what needs it, and to those who know it."""
    sender, recipients = transaction.sender, [each.address for each in transaction.recipients]
    if not needs_smtputf8(header_block(transaction.body), sender, recipients):
        sender, *recipients = (ascii_address(each)[0] for each in (sender, *recipients))
    elif capabilities.smtputf8:
        parameters += " SMTPUTF8"
    mail = f"MAIL FROM:<{sender}>{parameters}\r\n".encode()
    return [mail, *(f"RCPT TO:<{each}>\r\n".encode() for each in recipients)]
