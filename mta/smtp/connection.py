"""One client's connection: how it comes and goes, and the replies that go out on it.

Between: `smtp.listener` makes one for each client and looks at its deadlines; `smtp.parser` is one, and
    takes the octets that come in.
Contract: a subclass answers `on_connect` with a Reply that refuses, or None; under implicit TLS before the
    handshake, so that a connection counts from its first packet on. Replies are noted, and go out in one
    write. Deadlines are monotonic seconds. A stranger (`is_stranger`) has `STRANGER` seconds for each step
    towards a login, and what is none wins no time. A bug of ours is 451 4.3.0.
Raises: nothing to the loop.
Standards: RFC 5321 3.8 (421), 4.5.3.2 (time-outs), RFC 2034 (enhanced codes).
Why: aiosmtpd's SMTP is the base: its session, its AUTH exchange and its plain verbs. But it costs a task and
    250 us for each connection, so ours are copies of one that was made before, and have no task.
"""

from __future__ import annotations

import asyncio
import enum
import ssl
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Protocol, Self, cast

import msgspec
from aiosmtpd.smtp import SMTP, Session

from mta.clock import Clock
from mta.core.limits.room import Share
from mta.core.mail.address import EnvelopePath
from mta.core.mail.text import fit
from mta.core.model import Reply
from mta.core.networks import client_address
from mta.smtp.rests import Rests

MAX_ERRORS = 20  # commands refused with 5yz before we hang up; in tenths below
TAKEN = 50  # tenths of an error that a message which is taken makes up for ...
ACCEPTED = 1  # ... and a recipient
MAX_TEXT = 400  # characters of a reply; 512 octets a line (RFC 5321 4.5.3.1.5)
LINGER = 10.0  # seconds for a client to read our last words
STRANGER = 30.0  # seconds that who has not logged in may take for a step
BUG = Reply(451, "4.3.0", "An error of ours, not of yours; please try again")
GOING_DOWN = Reply(421, "4.3.2", "The service is going down; please come back")


class Mode(enum.Enum):
    """What the next octets are."""

    COMMAND = enum.auto()
    DATA = enum.auto()
    BUSY = enum.auto()  # a verb, or the disk, is at work: octets wait
    CLOSED = enum.auto()


# Looked up once: in Python 3.11 a member by its enum's name costs as much as ten other names, 150 ns.
COMMAND, DATA, BUSY, CLOSED = Mode


class ClientTerms(msgspec.Struct, frozen=True):
    """What a client may take; a transaction ends on those on which it began."""

    message_size: int  # octets
    command_timeout: float  # seconds
    data_timeout: float  # seconds, for the whole of one message
    session_timeout: float
    normalise: bool = False  # bare newlines are mended instead of refused


class Acceptor(Protocol):
    """What all connections of one listener share."""

    clock: Clock
    hostname: str
    terms: ClientTerms  # of the next transaction
    tls_context: ssl.SSLContext | None  # for STARTTLS
    implicit_tls: ssl.SSLContext | None  # the handshake comes first
    offers_auth: bool
    draining: bool  # idle clients are sent away
    memory: Share  # of contents on their way in, over all listeners
    rests: Rests  # between turns of those who have much to say, over all listeners

    def joined(self, connection: ClientConnection) -> None: ...

    def left(self, connection: ClientConnection) -> None: ...

    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]

    def bug(self, error: BaseException) -> None: ...

    handshake_failed: Callable[[str, BaseException], object]  # a client's address, and why


class ClientConnection(SMTP):
    """The server's end of it, below the octets that come in."""

    listener: Acceptor
    terms: ClientTerms
    transport: asyncio.Transport
    is_stranger = False  # has not logged in, where one has to

    @classmethod
    def template(cls, listener: Acceptor, handler: object) -> Self:
        """The connection that all others are copied from: the base looks its methods up only once."""
        made = cls(
            handler, hostname=listener.hostname, ident="ESMTP", loop=asyncio.get_running_loop(),
            tls_context=listener.tls_context, data_size_limit=listener.terms.message_size,
        )  # fmt: skip
        made.listener = listener
        return made

    def copy(self) -> Self:
        """A new connection."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made

    # Its life

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.session: Session = Session(self.loop)
        self.session.peer = peer = transport.get_extra_info("peername")
        self.client = str(client_address(peer[0])) if peer else ""
        self._tls_protocol = None
        self.is_shaking = False  # a TLS handshake is under way: nothing can be said
        self._mode = COMMAND
        self._share: Share | None = None  # of memory, for the message at hand
        self._is_asked = False  # whether the message that is here is taken; `answer` says
        self._out: list[bytes] = []
        self._errors = 0  # tenths
        self._reading = True
        self._choked = False  # the client does not read its replies
        self._ended = False  # the client has shut its side
        self._lost = False
        self._task: asyncio.Task[None] | None = None  # a verb that waits
        self._set_rset_state()
        listener = self.listener
        now = listener.clock.monotonic()
        self.terms = listener.terms
        self.deadline = now + self.terms.command_timeout
        self.session_deadline = now + self.terms.session_timeout
        listener.joined(self)
        if peer is None:  # reset before we could look who it was: uvloop tells of it all the same
            self._mode = CLOSED
            self.abort()
            return
        try:
            refusal = self.on_connect()
        except Exception as error:
            listener.bug(error)
            refusal = BUG._replace(code=421)
        if self.is_stranger:
            self.deadline = now + STRANGER
        self.is_shaking = listener.implicit_tls is not None
        if refusal is None and listener.draining:  # it came as the door was closed
            refusal = GOING_DOWN
        if refusal is not None:
            self.hang_up(refusal)
        elif listener.implicit_tls is not None:
            self._pause_reading()  # until the octets go to the handshake, not one to us
            self.secure(listener.implicit_tls)
        else:
            self.greet()

    def greet(self) -> None:
        """The first words."""
        self.transport.write(b"220 %b ESMTP\r\n" % self.listener.hostname.encode())

    def connection_lost(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._lost = True
        self._mode = CLOSED
        self.listener.left(self)
        self.on_disconnect()
        if not self._is_asked:  # else the message is still held, and its answer lets go of it
            self._let_go()
        if self._task is not None:
            self._task.cancel()
        self._part()

    def _part(self) -> None:
        """Break the circles that hold it and its TLS session in memory until a collection: 25 KB each."""
        self.__dict__.pop("_reader", None)

    def pause_writing(self) -> None:
        """A client that does not read its replies gets no new ones: stop taking commands."""
        self._choked = True
        self._pause_reading()

    @property
    def is_idle(self) -> bool:
        """No transaction is under way."""
        return self._mode is COMMAND and self.sender is None

    def hang_up(self, reply: Reply) -> None:
        """Say why, and close; in a handshake there is nothing that could be said."""
        if self.is_shaking:
            self.abort()
        elif self._mode is not CLOSED:
            self.reply(reply)
            self._close()

    def time_out(self, now: float) -> None:
        """Called about once a second: is this phase, or the session, over its time?"""
        if self._mode is CLOSED:
            if now >= self.deadline:
                self.abort()
        elif self.deadline < float("inf") and now >= min(self.deadline, self.session_deadline):
            phase = "message" if self._mode is DATA else "command"
            if self.is_stranger:
                phase = "login"
            if now >= self.session_deadline:
                phase = "session"
            self.hang_up(Reply(421, "4.4.2", f"Timed out: the {phase} took too long"))

    def get_on(self) -> None:
        """A stranger has made a step towards a login."""
        if self.is_stranger:
            self.deadline = self.listener.clock.monotonic() + STRANGER

    def abort(self) -> None:
        """Drop the connection without a word."""
        self.transport.abort()

    def _close(self) -> None:
        self._flush()
        self._mode = CLOSED
        self.deadline = self.listener.clock.monotonic() + LINGER
        self.transport.close()

    def _pause_reading(self) -> None:
        if self._reading and not self.transport.is_closing():
            self._reading = False
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._reading and not self._choked and not self.transport.is_closing():
            self._reading = True
            self.transport.resume_reading()

    def _let_go(self) -> None:
        """The octets of the message at hand are no longer ours to hold."""
        if self._share is not None:
            self._share.close()
            self._share = None

    # Replies

    def reply(self, reply: Reply) -> None:
        """Note a reply; it goes out with the others of this read."""
        line = f"{reply.code} {reply.enhanced} {fit(reply.text, MAX_TEXT)}\r\n"
        self._out.append(line.encode("ascii", "backslashreplace"))  # it may show what the client sent

    def refuse(self, reply: Reply) -> None:
        """Note a reply to a command that was wrong; too many, and we hang up.

        4yz is no mistake of the client's: whoever sends to more recipients than are taken at a time hears it
        for each that is over, and the others go on (RFC 5321 4.5.3.1.10).
        """
        self.reply(reply)
        if reply.code >= 500:
            self._count_error()

    def _count_error(self) -> None:
        self._errors += 10
        if self._errors > MAX_ERRORS * 10:
            self.hang_up(Reply(421, "4.7.0", "Too many errors"))

    def forgive(self, tenths: int) -> None:
        """What went well makes up for errors: who sends to a long list meets addresses that are wrong."""
        self._errors = max(self._errors - tenths, 0)

    async def push(self, status: str | bytes) -> None:
        """Replies of the base: the enhanced code is put in where it has none."""
        line = status.encode() if isinstance(status, str) else status
        code, text = line[:3], line[4:]
        enhanced = _ENHANCED.get(code)
        if enhanced is not None and text[:2] != code[:1] + b".":
            line = b"%b %b %b" % (code, enhanced, text)
        if line[:1] == b"5":
            said = line.decode("utf-8", "replace").split(" ", 2)
            self.refuse(Reply(int(said[0]), said[1], said[2]))
        else:
            self._out.append(line + b"\r\n")

    def _flush(self) -> None:
        if self._out and self._mode is not CLOSED:
            if not self.transport.is_closing():  # uvloop raises on a transport that is
                self.transport.write(b"".join(self._out))
            self._out.clear()

    def _bug(self, error: Exception) -> None:
        self.listener.bug(error)
        self.reply(BUG)

    def _set_rset_state(self) -> None:
        self.sender: EnvelopePath | None = None
        self.options = 0
        self.declared = 0  # octets, by SIZE; 0 where the client said nothing
        self.priority: int | None = None  # by MT-PRIORITY
        self.delay = 0.0  # seconds, by HOLDFOR or HOLDUNTIL
        self.recipients: list[EnvelopePath] = []
        self._known: set[tuple[str, str]] = set()  # of all of them but the last

    # What a subclass does

    @property
    def party(self) -> Hashable:
        """Whose connections share the turns of the loop; None: all strangers'."""
        return None

    def secure(self, context: ssl.SSLContext) -> None:
        """Begin the handshake of implicit TLS."""
        raise NotImplementedError

    def on_connect(self) -> Reply | None:
        """May this client stay?"""
        raise NotImplementedError

    def on_disconnect(self) -> None:
        """The client is gone; called once, and without an `on_connect` where it had gone before."""


_ENHANCED = {
    b"214": b"2.0.0",
    b"250": b"2.0.0",
    b"252": b"2.5.0",
    b"500": b"5.5.2",
    b"501": b"5.5.4",
    b"502": b"5.5.1",
    b"503": b"5.5.1",
    b"504": b"5.5.4",
    b"550": b"5.7.1",
}
