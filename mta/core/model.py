"""The nouns: what a message, a recipient, a reply, a route and an outcome are.

Between: every room; this is the vocabulary that they share.
Contract: plain values. Times are wall-clock seconds since the epoch (float), sizes are octets.
    The null sender is "". Domains are lower-case A-labels; addresses are str, UTF-8 on the wire.
Raises: nothing.
Standards: RFC 5321 (envelope, replies), RFC 3463 (enhanced status codes).
Why: what is made for each message is a struct of msgspec's, made in C: a dataclass takes twice the time and
    a named tuple three times.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import msgspec


class Option:
    """What a message asks of its transport: bits of an int (a test of enum's flags costs 2 us)."""

    EIGHTBIT = 1  # BODY=8BITMIME was declared (RFC 6152)
    SMTPUTF8 = 2  # SMTPUTF8 was declared (RFC 6531): it may be needed, `core.mail.message` says whether it is
    NOTIFY = 4  # a failure notice goes to the envelope sender
    RETURN = 8  # it has 8-bit content, and is returned where a peer does not offer 8BITMIME
    REQUIRE_TLS = 16  # it goes to nobody but under TLS with a certificate that proves the host


class Recipient(msgspec.Struct, eq=False):
    """One RCPT of a message; state belongs to it."""

    n: int  # position in the envelope; (message, n) is its key for ever
    address: str
    domain: str
    attempts: int = 1  # tries that were begun, this one included
    last: str | None = None  # of the try before (`core.queue.last`), where it was read from the spool


class Message(msgspec.Struct, eq=False):
    """One spooled content with its envelope. `content` is None while it is only on disk."""

    id: int
    sender: str
    tenant: str
    stream: str
    credential: str  # "": nobody submitted it, we wrote it
    expires: float
    size: int
    message_id: str
    options: int  # Option's bits
    recipients: list[Recipient] = []  # each message's own
    content: bytes | None = None
    whole: bool = False  # `recipients` are all that the spool still holds of this message
    dotless: bool = False  # no line of the content starts with a dot: it needs no stuffing
    on_the_way: int = 0  # recipients that are in lanes; the content leaves memory with the last one
    fresh: bool = False  # its recipients are in their first attempt
    priority: int = 0  # -9 to 9 (RFC 6710)
    release: float | None = None  # not before then (RFC 4865); only said of a message that comes in
    tags: tuple[str, ...] = ()  # the sender's, for events
    score: int | None = None  # the sender's, 0 to 100
    metadata: str = ""  # the sender's, a JSON object; only said of a message that comes in, or is exported
    body_hash: bytes = b""  # SHA-256 of the body in relaxed canonical form, where signed (RFC 6376 3.4.4)
    author: str = ""  # the domain in From; only known of a message that came in since the start
    return_path: str = ""  # the domain of a sender of ours for each recipient; "": the sender stays

    def line(self, recipient: Recipient) -> Line:
        """Where a recipient of it waits."""
        return Line(recipient.domain, self.priority, self.tenant)


class Line(NamedTuple):
    """Who waits behind whom: the mail of one tenant at one priority for one domain."""

    domain: str
    priority: int
    tenant: str


class Batch(msgspec.Struct, eq=False):
    """A message for some of its recipients at one site: what waits in a lane and goes in one transaction."""

    message: Message
    recipients: list[Recipient]
    requeued: bool = False  # its connection went away before it was sent
    head: bytes = b""  # the header block, where the content was read from disk

    def split(self, positions: set[int]) -> Batch:
        """Take the recipients at these positions out into a batch of their own."""
        apart = [recipient for position, recipient in enumerate(self.recipients) if position in positions]
        self.recipients = [each for position, each in enumerate(self.recipients) if position not in positions]
        return Batch(self.message, apart)


class Reply(NamedTuple):
    """One SMTP reply. `text` is free of the codes; lines are joined by a line feed."""

    code: int
    enhanced: str  # "5.1.1", or "" where the peer gave none
    text: str

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.enhanced, self.text) if part)


class Kind(enum.Enum):
    """What became of one recipient in one attempt."""

    DELIVERED = "delivered"
    DEFERRED = "deferred"
    BOUNCED = "bounced"
    EXPIRED = "expired"
    AMBIGUOUS = "ambiguous"  # no final reply after the dot: it may be delivered

    __hash__ = object.__hash__  # enum's own hashes the name, in Python, at every look-up


class Subject(enum.Enum):
    """Whom an answer is about."""

    RECIPIENT = "recipient"
    MAILBOX = "mailbox"
    MESSAGE = "message"
    SENDER = "sender"
    SOURCE = "source"
    RATE = "rate"
    CONNECTION = "connection"
    POLICY = "policy"
    DESTINATION = "destination"
    NETWORK = "network"
    TLS = "tls"
    DNS = "dns"
    UNKNOWN = "unknown"


class Scope(enum.Enum):
    """Whom our reaction hits."""

    RECIPIENT = "recipient"
    MESSAGE = "message"
    CONNECTION = "connection"
    HOST = "host"
    SITE = "site"
    PROVIDER = "provider"
    SOURCE = "source"
    TENANT = "tenant"


class Reaction(enum.Enum):
    """What we do about an answer."""

    NONE = "none"  # it was taken
    BOUNCE = "bounce"  # give this mail up, nothing more
    RETRY = "retry"  # try this mail again later, nothing more
    NEXT_MX = "next_mx"  # this host is no good now: try another one at once
    REDUCE = "reduce"  # send slower, over fewer connections
    SUSPEND = "suspend"  # send nothing for a time
    OTHER_SOURCE = "other_source"  # this source is refused: use another one, suspend this one


class Verdict(NamedTuple):
    """What a peer's answer means, as a rule says. `permanent` decides over the mail itself."""

    subject: Subject
    permanent: bool  # trying the same again is of no use
    suppress: bool  # this answer alone shows that the mailbox is no more: nothing is to be sent there
    rule: str  # its name, for people and events
    reaction: Reaction  # what else follows ...
    scope: Scope  # ... and whom it hits
    retry: str = ""  # the retry class by name; "" where it is permanent
    wait: float | None = None  # seconds that the peer or the rule names, for the reaction or the retry
    stated: bool = False  # the peer itself named it
    is_own: bool = False  # the rule is one of the provider's own words

    @property
    def is_by_rule(self) -> bool:
        """Did a rule know the words, or do only the codes speak?"""
        return not self.rule.startswith(("status-", "code-"))


class Outcome(NamedTuple):
    """The result of one attempt for one recipient. A failure is this value, never an exception."""

    kind: Kind
    subject: Subject
    scope: Scope
    reply: Reply
    host: str = ""  # the peer's name, "" where none was reached
    command: str = ""  # the command that the reply answers: MAIL, RCPT, DATA, "." ...
    verdict: Verdict | None = None  # what a rule says of the reply; None for what no peer said

    @property
    def is_said(self) -> bool:
        """Are these a peer's words? Else they are ours."""
        return self.verdict is not None


class Go(NamedTuple):
    """A gate is open."""


class Wait(NamedTuple):
    """A gate is shut: not before `until`, because of `reason`."""

    until: float
    reason: str
