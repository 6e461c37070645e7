"""Accept or refuse one message, and own it.

Between: the submission listener hands in a transaction that is complete; the spool commits what is accepted;
    the scheduler hears of it then.
Contract: `submit` answers with a Reply that refuses, or None and later one call of `answer` with the reply;
    for a large message with work to wait for, and then the same. Of the content only the header block
    changes, as `core.mail.header` has it: Received on top, Date and Message-ID where they are missing,
    Feedback-ID and CFBL-Address where the settings say so, out what does not go on. The body goes on byte
    for byte, but where 8 bits are to be converted.
Raises: nothing for what a client can do.
Standards: RFC 6409 6 and 8 (submission), RFC 5321 4.4 (Received), 6.3 (loops), RFC 3848 (with ESMTPSA), RFC
    9477 (CFBL-Address).
Why: a large content is put together once, under the fields of ours, in a thread: `join` lets go of the GIL,
    and a conversion goes in slices.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache, partial
from typing import Any

import msgspec

from mta.clock import Clock
from mta.config.policy import Current, Policy
from mta.config.settings import EightBit, IdentitySettings, Settings
from mta.core.check import refusal
from mta.core.credential import ANY, Credential
from mta.core.event import Event, ReplyField, Type, about, rfc3339
from mta.core.mail import eightbit, feedbackid
from mta.core.mail.address import EnvelopePath, PathError, a_label
from mta.core.mail.header import Header, HeaderError, addable, begun, scan, stamp
from mta.core.mail.mailbox import MAX_FIELD, addresses, domain
from mta.core.mail.text import fit
from mta.core.model import Message, Option, Recipient, Reply, Wait
from mta.core.queueid import text
from mta.guard.checks import Checks
from mta.smtp.connection import BUG
from mta.spool.commit import Unwritable
from mta.spool.queue import Spool

_RECEPTION = Type.RECEPTION  # looked up once: in Python 3.11 by its enum's name it takes 150 ns
MAX_MESSAGE_ID = 4096  # octets that are looked at; an event keeps fewer
MAX_TEXT = 1000  # characters of a reply or a reason in an event
MAX_SHOWN = 100  # characters of an address in a reply
LARGE = 1024 * 1024  # octets; to put the pieces of more together takes milliseconds ...
LARGE_EIGHT_BIT = 64 * 1024  # ... and to convert these

Answer = Callable[[Reply], None]
Answered = Reply | Coroutine[Any, Any, None] | None  # a coroutine is to be run
FULL = Reply(452, "4.3.1", "The spool cannot take the message now; it was not kept, please try again")


class Submitted(msgspec.Struct):
    """A transaction that is complete."""

    credential: Credential
    protocol: str  # RFC 3848: ESMTPSA ...
    sender: EnvelopePath
    recipients: list[EnvelopePath]
    options: int
    pieces: list[bytes]  # of the content
    dotted: bool  # lines of the content may start with a dot
    client: str  # its numeric address
    helo: str
    priority: int | None = None  # None: that of the stream
    delay: float = 0.0  # seconds until it may go


class _Owned(msgspec.Struct):
    """A message that is accepted, by the policy of the moment in which its content was here."""

    policy: Policy
    submission: Submitted
    queue_id: int
    message_id: str
    author: str  # the domain in From
    reason: str  # for its events
    now: float
    answer: Answer


class Admission:
    """The decision, and the stamp."""

    def __init__(
        self,
        current: Current,
        checks: Checks,
        spool: Spool,
        clock: Clock,
        accepted: Callable[[Message], None],
    ) -> None:
        self._current = current
        self._checks = checks
        self._spool = spool
        self._clock = clock
        self._accepted = accepted

    def priority(self, stream: str) -> int:
        """The priority of a stream's mail; an unknown stream is refused at the end of the message."""
        return self._current.policy.priorities.get(stream, 0)

    def submit(self, submission: Submitted, answer: Answer) -> Answered:
        """Refuse now, or own it and answer later."""
        policy, credential = self._current.policy, submission.credential
        settings, limits = policy.settings, policy.settings.limits
        size = sum(map(len, submission.pieces))
        if credential.message_size is not None and size > credential.message_size:
            return Reply(552, "5.3.4", f"The message is larger than your {credential.message_size} octets")
        if credential.stream not in policy.lifetimes:
            return Reply(451, "4.3.5", f"The stream {credential.stream} of your credential is not configured")
        pieces = submission.pieces
        if len(pieces) > 1:
            pieces = begun(pieces, limits.header)
        try:
            header = scan(pieces[0], limits.header)
        except HeaderError as error:
            return error.reply
        now = self._clock.now()
        author = domain(header.authors[0][1])
        refused = _judge(credential, header, limits.hops)
        if refused is not None:
            return refused
        forbids = self._checks.accept(credential, author, submission.sender.domain, header)
        if forbids is not None:
            return refusal(forbids, now)
        queue_id = self._spool.mint()
        fields, message_id = _fields(settings, submission, header, queue_id, now)
        identity = settings.identity
        if identity.feedback_id or identity.complaints:
            fields += _told(identity, credential, author, header)
        stamped = stamp(pieces, header, fields)
        owned = _Owned(policy, submission, queue_id, message_id, author, header.reason, now, answer)
        if size > (LARGE_EIGHT_BIT if settings.eight_bit == "convert" else LARGE):
            return self._own_large(owned, stamped)
        self._own(owned, *_content(settings.eight_bit, stamped))
        return None

    def _own(self, owned: _Owned, content: bytes, left: str, is_converted: bool) -> None:
        if left:
            told = f"left in 8 bits: {left}"
            owned.reason = f"{owned.reason}; {told}" if owned.reason else told
        message = self._message(owned, content, is_converted)
        receptions = self._receptions(message, owned)
        self._spool.put(message, receptions, partial(self._committed, message, owned.answer))

    async def _own_large(self, owned: _Owned, pieces: list[bytes]) -> None:
        owned.submission.pieces.clear()  # of so many octets one copy is enough
        made = await asyncio.to_thread(_content, owned.policy.settings.eight_bit, pieces)
        pieces.clear()
        self._own(owned, *made)

    def _message(self, owned: _Owned, content: bytes, is_converted: bool) -> Message:
        policy, submission, now = owned.policy, owned.submission, owned.now
        credential = submission.credential
        options = submission.options
        eight_bit = policy.settings.eight_bit
        if eight_bit != "send":  # else what the client has declared is enough
            options = options & ~Option.EIGHTBIT if content.isascii() else options | Option.EIGHTBIT
            if eight_bit == "return" and options & Option.EIGHTBIT:
                options |= Option.RETURN
        if credential.notify:
            options |= Option.NOTIFY
        priority = submission.priority
        return Message(
            owned.queue_id,
            submission.sender.address,
            credential.tenant,
            credential.stream,
            credential.login,
            now + submission.delay + policy.lifetimes[credential.stream],
            len(content),
            owned.message_id[:998],
            options,
            [Recipient(n, path.address, path.domain) for n, path in enumerate(submission.recipients)],
            content,
            True,
            not (submission.dotted or is_converted),
            priority=policy.priorities[credential.stream] if priority is None else priority,
            release=now + submission.delay if submission.delay else None,
            author=owned.author,
        )

    def _receptions(self, message: Message, owned: _Owned) -> list[Event]:
        now = owned.now
        events = [about(_RECEPTION, message, recipient, now) for recipient in message.recipients]
        window = owned.policy.windows.get(message.stream)
        start, reason, told = now, "", owned.reason
        if message.release is None and window is None and not told:  # nearly all mail
            for event in events:
                event.client = owned.submission.client
            return events
        if message.release is not None:
            start, reason = message.release, "delayed, as the client asked"
        if window is not None and isinstance(answer := window.ask(start), Wait):
            start, reason = answer
        due = rfc3339(start) if reason else ""
        if reason and told:
            reason = f"{reason}; {told}"
        for event in events:
            event.client, event.due, event.reason = owned.submission.client, due, reason or told
        return events

    def _committed(self, message: Message, answer: Answer, error: Exception | None) -> None:
        if error is None:
            answer(Reply(250, "2.0.0", f"Ok: queued as {text(message.id)}"))
            self._accepted(message)
        else:
            answer(BUG if isinstance(error, Unwritable) else FULL)


def _judge(credential: Credential, header: Header, hops: int) -> Reply | None:
    if header.hops > hops:
        return Reply(554, "5.4.6", f"The message has passed {header.hops} servers: this is a loop")
    return None if ANY in credential.senders else _judge_authors(credential, header.authors)


def _fields(
    settings: Settings, submission: Submitted, header: Header, queue_id: int, now: float
) -> tuple[bytes, str]:
    """What goes on top, and the Message-ID."""
    shown = text(queue_id)
    date = _date(int(now))
    client = _extended_domain(submission.helo, submission.client) if settings.received == "full" else "hidden"
    fields = (
        f"Received: from {client}\r\n"
        f"\tby {settings.hostname} with {submission.protocol} id {shown};\r\n\t{date}\r\n"
    )
    if header.adds_date:
        fields += f"Date: {date}\r\n"
    told = header.message_id[:MAX_MESSAGE_ID]
    message_id = " ".join(told.decode("utf-8", "replace").split())  # unfolded
    if header.adds_message_id:
        message_id = f"<{shown}@{settings.hostname}>"
        fields += f"Message-ID: {message_id}\r\n"
    return fields.encode(), message_id


def _told(identity: IdentitySettings, credential: Credential, author: str, header: Header) -> bytes:
    """What providers are to tell complaints by, and to whom; what the application has written stays."""
    fields = ""
    if identity.feedback_id is not None and addable(header, b"feedback-id"):
        words = credential.stream, credential.tenant, credential.login, author
        fields += f"Feedback-ID: {feedbackid.filled(identity.feedback_id, *words)}\r\n"
    if identity.complaints is not None and addable(header, b"cfbl-address"):
        fields += f"CFBL-Address: {identity.complaints}; report=arf\r\n"
    return fields.encode()


def _content(eight_bit: EightBit, pieces: list[bytes]) -> tuple[bytes, str, bool]:
    """What goes on, what of it has 8 bits though it was to be converted, and whether it was."""
    content = b"".join(pieces)
    if eight_bit != "convert" or content.isascii():
        return content, "", False
    converted = eightbit.seven(content)
    return b"".join(converted.pieces), converted.left, True


@lru_cache(maxsize=8)
def _date(second: int) -> str:
    return format_datetime(datetime.fromtimestamp(second, UTC))  # +0000: -0000 says that the zone is unknown


def _judge_authors(credential: Credential, authors: list[tuple[str, bytes]]) -> Reply | None:
    """May the addresses of those who say that they wrote or sent it be used? RFC 6409 6.1."""
    left = MAX_FIELD  # octets, of all fields together
    for field, value in authors:
        left -= len(value)
        found = addresses(value) if left >= 0 else []
        if not found:
            return Reply(550, "5.6.0", f"The {field} field cannot be read: write Name <user@domain>")
        for address in found:
            if not credential.allows(address):
                return Reply(550, "5.7.1", f"You may not send as {fit(address, MAX_SHOWN)} ({field} field)")
    return None


@lru_cache(maxsize=1024)
def _extended_domain(helo: str, client: str) -> str:
    """Who connected, as RFC 5321 4.4 writes it; what is no name is not repeated, whatever it is made of."""
    literal = f"[IPv6:{client}]" if ":" in client else f"[{client}]"
    try:
        a_label(helo)
    except PathError:
        return f"{literal} ({literal})"
    return f"{helo} ({literal})"


def rejection(
    reply: Reply, reason: str, now: float, client: str, *, sender: str | None = None, login: str = ""
) -> Event:
    """What the event log keeps of a refusal."""
    shown = ReplyField(reply.code, reply.enhanced, fit(reply.text, MAX_TEXT))
    return Event(
        time=rfc3339(now), type=Type.REJECTION, sender=sender, credential=login, client=client,
        reason=fit(reason, MAX_TEXT), reply=shown, permanent=reply.code >= 500,
    )  # fmt: skip
