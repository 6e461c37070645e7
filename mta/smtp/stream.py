"""The octets of one client's connection: commands and messages out of them, replies into them.

Between: `smtp.listener` makes one for each connection; `smtp.server` answers the commands.
Contract: a subclass answers `on_connect` with a Reply that refuses, or None; `on_command` with replies
    that it notes; `on_message` with a Reply, or None and a call of `answer` later. A content is
    normalised: CRLF line ends, dots unstuffed. A bug of ours is 451 4.3.0.
Raises: nothing to the loop.
Standards: RFC 5321 2.3.8 (line ends), 4.5.2 (transparency), 4.5.3.2 (time-outs), RFC 2920 (groups).
Why: aiosmtpd's SMTP is the base: its session, its AUTH exchange and its plain verbs. But its stream
    reader goes line by line through DATA (35 MB/s) and costs a task and 250 us for each connection,
    so octets are taken here, in bulk, and a command is answered without a task.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, Self, cast

from aiosmtpd.smtp import SMTP, Session

from mta.clock import Clock
from mta.core import message
from mta.core.address import Path, PathError
from mta.core.capacity import Memory
from mta.core.model import Reply

MAX_COMMAND = 2048  # octets; RFC 5321 4.5.3.1.4 asks for 512, extensions for more
MAX_AUTH = 12288 + 16  # octets, RFC 4954 4
MAX_PENDING = 64 * 1024  # octets that may wait while we are busy; then reading pauses
MAX_ERRORS = 20  # refused commands before we hang up
LINGER = 10.0  # seconds for a client to read our last words
BUG = Reply(451, "4.3.0", "An error of ours, not of yours; please try again")
GOING_DOWN = Reply(421, "4.3.2", "The service is going down; please come back")
CROWDED = Reply(452, "4.3.1", "Too much is being received at once; try again in 30 seconds")
_END = b"\r\n.\r\n"

log = logging.getLogger(__name__)


class Mode(enum.Enum):
    """What the next octets are."""

    COMMAND = enum.auto()
    DATA = enum.auto()
    BUSY = enum.auto()  # a verb, or the disk, is at work: octets wait
    CLOSED = enum.auto()


class Policy(Protocol):
    """What all connections of one listener share."""

    clock: Clock
    hostname: str
    message_size: int
    command_timeout: float
    data_timeout: float
    session_timeout: float
    normalise: bool  # bare newlines are mended instead of refused
    tls_context: ssl.SSLContext | None  # for STARTTLS
    offers_auth: bool
    draining: bool  # idle clients are sent away
    memory: Memory  # of contents on their way in, over all listeners

    def joined(self, connection: Stream) -> None: ...

    def left(self, connection: Stream) -> None: ...

    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]

    def bug(self, error: BaseException) -> None: ...


class Stream(SMTP):
    """The server's end of one connection, below the verbs."""

    policy: Policy
    transport: asyncio.Transport

    @classmethod
    def template(cls, policy: Policy, handler: object) -> Self:
        """The connection that all others are copied from: the base looks its methods up only once."""
        made = cls(
            handler, hostname=policy.hostname, ident="ESMTP", loop=asyncio.get_running_loop(),
            tls_context=policy.tls_context, data_size_limit=policy.message_size,
        )  # fmt: skip
        made.policy = policy
        return made

    def copy(self) -> Self:
        """A new connection."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made

    # The connection's life

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.session: Session = Session(self.loop)
        self.session.peer = transport.get_extra_info("peername")
        self.client = str(self.session.peer[0]) if self.session.peer else ""
        # The base knows only the TLS that it started itself; implicit TLS has to be told.
        self._tls_protocol = transport.get_extra_info("sslcontext")
        self._mode = Mode.COMMAND
        self._in = b""
        self._position = 0
        self._data = bytearray()
        self._held = 0  # octets of the message at hand, as counted in the policy's memory
        self._dropped: Reply | None = None  # why the message is not kept while it still comes
        self._dotted = False
        self._out: list[bytes] = []
        self._errors = 0
        self._reading = True
        self._choked = False  # the client does not read its replies
        self._ended = False  # the client has shut its side
        self._pumping = False
        self._lost = False
        self._line: asyncio.Future[bytes] | None = None
        self._reader: Any = self  # for the AUTH exchange of the base, which reads a line at a time
        self._task: asyncio.Task[None] | None = None
        self._set_rset_state()
        now = self.policy.clock.monotonic()
        self.deadline = now + self.policy.command_timeout
        self.session_deadline = now + self.policy.session_timeout
        try:
            refusal = self.on_connect()
        except Exception as error:
            self.policy.bug(error)
            refusal = BUG._replace(code=421)
        self.policy.joined(self)
        if refusal is not None:
            self.hang_up(refusal)
            return
        self.transport.write(b"220 %b ESMTP\r\n" % self.policy.hostname.encode())

    def connection_lost(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._lost = True
        self._mode = Mode.CLOSED
        self.policy.left(self)
        self.on_disconnect()
        self._let_go()
        if self._task is not None:
            self._task.cancel()

    def eof_received(self) -> bool:
        """A client that shuts its side after the dot still gets its answer."""
        self._ended = True
        return self._mode is Mode.BUSY and self._tls_protocol is None

    def pause_writing(self) -> None:
        """A client that does not read its replies gets no new ones: stop taking commands."""
        self._choked = True
        self._pause_reading()

    def resume_writing(self) -> None:
        self._choked = False
        self._resume_reading()

    @property
    def is_idle(self) -> bool:
        """No transaction is under way."""
        return self._mode is Mode.COMMAND and self.sender is None

    def hang_up(self, reply: Reply) -> None:
        """Say why, and close."""
        if self._mode is not Mode.CLOSED:
            self.reply(reply)
            self._close()

    def time_out(self, now: float) -> None:
        """Called about once a second: is this phase, or the session, over its time?"""
        if self._mode is Mode.CLOSED:
            if now >= self.deadline:
                self.abort()
        elif self.deadline < float("inf") and now >= min(self.deadline, self.session_deadline):
            phase = "message" if self._mode is Mode.DATA else "command"
            if now >= self.session_deadline:
                phase = "session"
            self.hang_up(Reply(421, "4.4.2", f"Timed out: the {phase} took too long"))

    def abort(self) -> None:
        """Drop the connection without a word."""
        self.transport.abort()

    def _close(self) -> None:
        self._flush()
        self._mode = Mode.CLOSED
        self.deadline = self.policy.clock.monotonic() + LINGER
        self.transport.close()

    # Octets in

    def data_received(self, data: bytes) -> None:
        if self._mode is Mode.DATA:
            self._collect(data)
            self._pump()
        elif self._mode is Mode.COMMAND:
            self._in = self._in[self._position :] + data
            self._position = 0
            self._pump()
        elif self._mode is Mode.BUSY:
            self._in = self._in[self._position :] + data
            self._position = 0
            if self._line is not None:
                self._offer_line()
            elif len(self._in) > MAX_PENDING:
                self._pause_reading()

    def _pump(self) -> None:
        """Answer every whole command that is here; the replies go out in one write."""
        if self._pumping:
            return  # a message was answered at once: the loop below goes on, not deeper
        self._pumping = True
        while self._mode is Mode.COMMAND:
            end = self._in.find(b"\n", self._position) + 1
            if not end:
                if len(self._in) - self._position > MAX_AUTH:
                    self.hang_up(Reply(421, "4.5.2", "The command line does not end"))
                break
            line = self._in[self._position : end]
            self._position = end
            self._command(line)
        self._pumping = False
        self._flush()

    def _command(self, line: bytes) -> None:
        if line[-2:] != b"\r\n" or line.find(b"\r") != len(line) - 2:
            # Who ends lines otherwise may have been made to by somebody else (smuggling).
            self.hang_up(Reply(500, "5.5.2", "A command ends with CRLF (RFC 5321 2.3.8)"))
            return
        verb, _, argument = line[:-2].partition(b" ")
        verb = verb.upper()
        if len(line) > (MAX_AUTH if verb == b"AUTH" else MAX_COMMAND):
            self.refuse(Reply(500, "5.5.6", "The command line is too long"))
            return
        self.deadline = self.policy.clock.monotonic() + self.policy.command_timeout
        try:
            self.on_command(verb, argument.strip())
        except PathError as error:
            self.refuse(error.reply)
        except Exception as error:
            self._bug(error)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Let a verb that waits run as a task; commands behind it stay where they are."""
        self._mode = Mode.BUSY
        self._flush()
        self._task = self.policy.spawn(self._finish(work))

    async def _finish(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self._bug(error)
        self._task = None
        self._go_on()

    def _go_on(self) -> None:
        """A busy connection is free again."""
        if self._mode is not Mode.BUSY:
            return
        self._mode = Mode.COMMAND
        self.deadline = self.policy.clock.monotonic() + self.policy.command_timeout
        self._pump()
        if self._mode is Mode.COMMAND and self._ended:
            self._close()
        elif self.policy.draining and self.is_idle:
            self.hang_up(GOING_DOWN)
        if len(self._in) - self._position <= MAX_PENDING:  # or there is work enough
            self._resume_reading()

    def _pause_reading(self) -> None:
        if self._reading and not self.transport.is_closing():
            self._reading = False
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._reading and not self._choked and not self.transport.is_closing():
            self._reading = True
            self.transport.resume_reading()

    async def readline(self) -> bytes:
        """The next line of an AUTH exchange."""
        self._flush()
        line: asyncio.Future[bytes] = self.loop.create_future()
        self._line = line
        self._offer_line()  # it may be here already
        return await line

    def _offer_line(self) -> None:
        end = self._in.find(b"\r\n", self._position) + 2
        if (end if end >= 2 else len(self._in)) - self._position > MAX_AUTH:
            self.hang_up(Reply(500, "5.5.6", "The AUTH exchange line is too long"))
            return
        if end >= 2 and self._line is not None:
            line = self._in[self._position : end]
            self._position = end
            if not self._line.done():
                self._line.set_result(line)
            self._line = None

    # DATA

    def _collect(self, data: bytes) -> None:
        """Take octets of a message until its final dot."""
        held = self._data
        start = max(len(held) - 4, 0)
        held += data
        self._held += len(data)
        self.policy.memory.used += len(data)
        if held[:3] == b".\r\n" and self._dropped is None:
            content, rest = b"", bytes(held[3:])
        else:
            end = self._find_end(held, start)
            if end < 0:
                self._keep_or_drop(held)
                return
            content, rest = bytes(memoryview(held)[: end + 2]), bytes(memoryview(held)[end + 5 :])
        self._data = bytearray()
        self._in, self._position = rest, 0
        self._mode = Mode.BUSY
        self.deadline = float("inf")  # from here on it is our turn
        try:
            reply = self._complete(content)
        except Exception as error:
            self.policy.bug(error)
            reply = BUG
        if reply is not None:
            self.answer(reply)

    def _keep_or_drop(self, held: bytearray) -> None:
        """A message that is too much is heard to its end, but not held."""
        policy = self.policy
        if self._dropped is None:
            if len(held) > policy.message_size:
                self._dropped = self._too_large()
            elif not policy.memory.has_room(0):
                self._dropped = CROWDED
        if self._dropped is not None:
            del held[:-4]
            self._let_go()

    def _let_go(self) -> None:
        """The octets of the message at hand are no longer ours to hold."""
        self.policy.memory.used -= self._held
        self._held = 0

    def _too_large(self) -> Reply:
        return Reply(552, "5.3.4", f"The message is larger than {self.policy.message_size} octets")

    def _find_end(self, held: bytearray, start: int) -> int:
        """Where the final dot's line begins, less its CRLF; -1 if it is not here yet.

        One pass for two questions: the first line that starts with a dot is the final one, or else the
        message has dots to unstuff. Each pass over 100 KiB costs 60 us.
        """
        if not self._dotted:
            at = -2 if held[:1] == b"." else held.find(b"\r\n.", start)
            if at == -1 or len(held) < at + 5:
                return -1
            if held[at + 3 : at + 5] == b"\r\n":
                return at
            self._dotted = True
        return held.find(_END, start)

    def _complete(self, content: bytes) -> Reply | None:
        """A message is here as a whole: check and mend its octets, then ask."""
        if self._dropped is not None:
            return self._dropped
        if len(content) > self.policy.message_size:
            return self._too_large()
        if message.has_bare_newline(content):
            if not self.policy.normalise:
                return Reply(550, "5.6.11", "A CR or LF stands alone; lines end with CRLF (RFC 5321 2.3.8)")
            content = message.normalise_newlines(content)
            self._dotted = True
        return self.on_message(message.unstuff(content) if self._dotted else content, self._dotted)

    def answer(self, reply: Reply) -> None:
        """The reply to a message; the transaction is over."""
        self._let_go()
        self._set_rset_state()
        if self._mode is Mode.CLOSED:
            return
        self.reply(reply)
        self._go_on()

    # Replies

    def reply(self, reply: Reply) -> None:
        """Note a reply; it goes out with the others of this read."""
        line = f"{reply.code} {reply.enhanced} {reply.text}\r\n"
        self._out.append(line.encode("ascii", "backslashreplace"))  # it may show what the client sent

    def refuse(self, reply: Reply) -> None:
        """Note a reply to a command that was wrong; too many, and we hang up."""
        self.reply(reply)
        self._count_error()

    def _count_error(self) -> None:
        self._errors += 1
        if self._errors > MAX_ERRORS:
            self.hang_up(Reply(421, "4.7.0", "Too many errors"))

    async def push(self, status: str | bytes) -> None:
        """Replies of the base: the enhanced code is put in where it has none."""
        line = status.encode() if isinstance(status, str) else status
        code, text = line[:3], line[4:]
        enhanced = _ENHANCED.get(code)
        if enhanced is not None and text[:2] != code[:1] + b".":
            line = b"%b %b %b" % (code, enhanced, text)
        self._out.append(line + b"\r\n")
        if line[:1] == b"5":
            self._count_error()

    def _flush(self) -> None:
        if self._out and self._mode is not Mode.CLOSED:
            if not self.transport.is_closing():  # uvloop raises on a transport that is
                self.transport.write(b"".join(self._out))
            self._out.clear()

    def _bug(self, error: Exception) -> None:
        self.policy.bug(error)
        self.reply(BUG)

    def _set_rset_state(self) -> None:
        self.sender: Path | None = None
        self.options = 0
        self.declared = 0  # octets, by SIZE; 0 where the client said nothing
        self.priority: int | None = None  # by MT-PRIORITY
        self.hold = 0.0  # seconds, by HOLDFOR or HOLDUNTIL
        self.recipients: list[Path] = []

    # What a subclass does

    def on_connect(self) -> Reply | None:
        """May this client stay?"""
        raise NotImplementedError

    def on_disconnect(self) -> None:
        """The client is gone; called once for each `on_connect`."""

    def on_command(self, verb: bytes, argument: bytes) -> None:
        """Answer one command."""
        raise NotImplementedError

    def on_message(self, content: bytes, dotted: bool) -> Reply | None:
        """Take the message; `dotted`: lines of it may start with a dot."""
        raise NotImplementedError


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
