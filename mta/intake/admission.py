"""Accept or refuse one message, and own it.

Between: the submission listener hands in a transaction that is complete; the spool commits what is accepted;
    the scheduler hears of it then.
Contract: `submit` answers with a Reply that refuses, or None and later one call of `answer` with the reply;
    for a large message with work to wait for, and then the same. Of the content only the header block
    changes, as `core.mail.header` has it: Received on top, Date and Message-ID where they are missing,
    Feedback-ID and CFBL-Address where the settings say so, signatures above all, out what does not go on. The
    body goes on byte for byte, but where 8 bits are to be converted. What its X-MTA fields ask for
    (`core.mail.carried`) is judged by what the credential may.
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
from mta.core.mail.carried import NOTHING, Carried, read
from mta.core.mail.header import Header, HeaderError, addable, begun, scan, stamp
from mta.core.mail.mailbox import MAX_FIELD, addresses, domains, names_somebody
from mta.core.mail.text import fit
from mta.core.model import Message, Option, Recipient, Reply, Wait
from mta.core.queueid import text
from mta.guard.checks import Checks
from mta.signing.plans import Plans, SigningPlan
from mta.signing.signer import Signed, Signer, SigningError
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


class _Terms(msgspec.Struct, frozen=True):
    """What a message asked for, and gets."""

    carried: Carried
    stream: str
    delay: float  # seconds until it may go
    expires: float
    reason: str  # for its events


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
    terms: _Terms
    plan: SigningPlan | None  # who signs it
    body_hash: bytes = b""  # of what is signed

    def tell(self, reason: str) -> None:
        """Its events say this as well."""
        self.reason = f"{self.reason}; {reason}" if self.reason else reason


class Admission:
    """The decision, and the stamp."""

    def __init__(
        self,
        current: Current,
        checks: Checks,
        plans: Plans,
        signer: Signer,
        spool: Spool,
        clock: Clock,
        accepted: Callable[[Message], None],
    ) -> None:
        self._current = current
        self._checks = checks
        self._spool = spool
        self._plans = plans
        self._signer = signer
        self._clock = clock
        self._accepted = accepted

    def highest(self, credential: Credential) -> int:
        """The priority that it may ask for; of which stream a message is, is known at its end."""
        if credential.priority is not None:
            return credential.priority
        priorities = self._current.policy.priorities
        return max(priorities.get(stream, 0) for stream in credential.streams)

    def submit(self, submission: Submitted, answer: Answer) -> Answered:
        """Refuse now, or own it and answer later."""
        policy, credential = self._current.policy, submission.credential
        settings, limits = policy.settings, policy.settings.limits
        size = sum(map(len, submission.pieces))
        if credential.message_size is not None and size > credential.message_size:
            return Reply(552, "5.3.4", f"The message is larger than your {credential.message_size} octets")
        pieces = submission.pieces
        if len(pieces) > 1:
            pieces = begun(pieces, limits.header)
        now = self._clock.now()
        try:
            header = scan(pieces[0], limits.header)
            terms = _terms(policy, submission, header, now)
        except HeaderError as error:
            return error.reply
        said = header.authors[0][1]
        authors = domains(said)
        author = authors[0] if len(authors) == 1 else ""  # whose policy holds (RFC 9989 5.3.1)
        refused = _judge(credential, header, limits.hops)
        if refused is not None:
            return refused
        plan = self._plans.of(authors)
        if not authors and self._plans.is_in_use and names_somebody(said):
            return _unreadable("From")  # nobody could tell whose it is, or sign it
        sender = submission.sender.domain
        forbids = self._checks.accept(credential, terms.stream, author, sender, header, plan)
        if forbids is not None:
            return refusal(forbids, now)
        queue_id = self._spool.mint()
        fields, message_id = _fields(settings, submission, header, queue_id, now)
        identity = settings.identity
        if identity.feedback_id or identity.complaints:
            fields += _told(identity, credential, terms.stream, author, header, plan)
        stamped = stamp(pieces, header, fields)
        owned = _Owned(
            policy, submission, queue_id, message_id, author, terms.reason, now, answer, terms, plan
        )
        if size > (LARGE_EIGHT_BIT if settings.eight_bit == "convert" else LARGE):
            return self._own_large(owned, stamped)
        self._own(owned, *_content(settings.eight_bit, stamped))
        return None

    def _own(self, owned: _Owned, content: bytes, left: str, is_converted: bool) -> None:
        if left:
            owned.tell(f"left in 8 bits: {left}")
        if owned.plan is None:
            self._put(owned, content, is_converted)
        else:
            self._signer.sign(owned.plan, content, partial(self._signed, owned, is_converted))

    def _signed(self, owned: _Owned, is_converted: bool, answer: Signed | SigningError) -> None:
        if isinstance(answer, SigningError):
            words = f"The message cannot be signed now, and was not kept: {fit(str(answer), MAX_TEXT)}"
            owned.answer(Reply(451, "4.7.5", words))
            return
        if answer.reason:
            owned.tell(answer.reason)
        owned.body_hash = answer.body_hash
        self._put(owned, answer.content, is_converted)

    def _put(self, owned: _Owned, content: bytes, is_converted: bool) -> None:
        message = self._message(owned, content, is_converted)
        receptions = self._receptions(message, owned)
        self._spool.put(message, receptions, partial(self._committed, message, owned.answer))

    async def _own_large(self, owned: _Owned, pieces: list[bytes]) -> None:
        owned.submission.pieces.clear()  # of so many octets one copy is enough
        made = await asyncio.to_thread(_content, owned.policy.settings.eight_bit, pieces)
        pieces.clear()
        self._own(owned, *made)

    def _message(self, owned: _Owned, content: bytes, is_converted: bool) -> Message:
        policy, submission, terms = owned.policy, owned.submission, owned.terms
        credential, carried = submission.credential, terms.carried
        options = submission.options
        eight_bit = policy.settings.eight_bit
        if eight_bit != "send":  # else what the client has declared is enough
            options = options & ~Option.EIGHTBIT if content.isascii() else options | Option.EIGHTBIT
            if eight_bit == "return" and options & Option.EIGHTBIT:
                options |= Option.RETURN
        if credential.notify:
            options |= Option.NOTIFY
        if carried.requires_tls:
            options |= Option.REQUIRE_TLS
        delay = terms.delay
        priority: int = policy.priorities[terms.stream]
        if submission.priority is not None:
            priority = _priority(policy, credential, terms.stream, submission.priority)
        message = Message(
            owned.queue_id,
            submission.sender.address,
            credential.tenant,
            terms.stream,
            credential.login,
            terms.expires,
            len(content),
            owned.message_id[:998],
            options,
            [Recipient(n, path.address, path.domain) for n, path in enumerate(submission.recipients)],
            content,
            True,
            not (submission.dotted or is_converted),
            priority=priority,
            release=owned.now + delay if delay else None,
            author=owned.author,
        )
        if carried is not NOTHING:
            message.tags, message.score, message.metadata = carried.tags, carried.score, carried.metadata
        if owned.plan is not None:
            message.body_hash = owned.body_hash
            message.return_path = owned.plan.return_path if message.sender else ""
        return message

    def _receptions(self, message: Message, owned: _Owned) -> list[Event]:
        now = owned.now
        events = [about(_RECEPTION, message, recipient, now) for recipient in message.recipients]
        if message.metadata:  # once: a thousand recipients would have four megabytes of it
            events[0].metadata = msgspec.Raw(message.metadata)
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


def _terms(policy: Policy, submission: Submitted, header: Header, now: float) -> _Terms:
    credential = submission.credential
    carried = read(header.ours, credential.streams) if header.ours else NOTHING
    stream = carried.stream or credential.stream
    lifetime = policy.lifetimes.get(stream)
    if lifetime is None:
        raise HeaderError(451, f"The stream {stream} of your credential is not configured", "4.3.5")
    delay, asked = submission.delay, submission.priority
    if carried is NOTHING and asked is None:
        return _Terms(carried, stream, delay, now + delay + lifetime, header.reason)
    delay = carried.delay(delay, credential.delay, now)
    expires = carried.end(now + delay, now + delay + lifetime)
    told = [header.reason] if header.reason else []
    if carried.expires is not None and carried.expires > expires:
        told.append(f"expires at {rfc3339(expires)}: the stream {stream} tries no longer")
    if asked is not None and asked > (gets := _priority(policy, credential, stream, asked)):
        told.append(f"at priority {gets}: the stream {stream} goes no higher")
    return _Terms(carried, stream, delay, expires, "; ".join(told))


def _priority(policy: Policy, credential: Credential, stream: str, asked: int) -> int:
    """What is asked for; the stream's is the highest, where the credential has no other."""
    own = policy.priorities[stream]
    return min(asked, own if credential.priority is None else credential.priority)


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


def _told(
    identity: IdentitySettings,
    credential: Credential,
    stream: str,
    author: str,
    header: Header,
    plan: SigningPlan | None,
) -> bytes:
    """What providers are to tell complaints by, and to whom; what the application has written stays."""
    fields = ""
    if identity.feedback_id is not None and addable(header, b"feedback-id"):
        words = stream, credential.tenant, credential.login, author
        fields += f"Feedback-ID: {feedbackid.filled(identity.feedback_id, *words)}\r\n"
    complaints = identity.complaints
    if complaints is not None and _vouched(complaints, plan) and addable(header, b"cfbl-address"):
        fields += f"CFBL-Address: {complaints}; report=arf\r\n"
    return fields.encode()


def _vouched(complaints: str, plan: SigningPlan | None) -> bool:
    """Is it signed by the domain that complaints go to (RFC 9477 3.1)? Else no provider sends any there."""
    name = complaints.rpartition("@")[2]
    return plan is not None and any(name == each or name.endswith(f".{each}") for each in plan.names)


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


def _unreadable(field: str) -> Reply:
    return Reply(550, "5.6.0", f"The {field} field cannot be read: write Name <user@domain>")


def _judge_authors(credential: Credential, authors: list[tuple[str, bytes]]) -> Reply | None:
    """May the addresses of those who say that they wrote or sent it be used? RFC 6409 6.1."""
    left = MAX_FIELD  # octets, of all fields together
    for field, value in authors:
        left -= len(value)
        found = addresses(value) if left >= 0 else []
        if not found:
            return _unreadable(field)
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
