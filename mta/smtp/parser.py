"""The octets that come in on one connection: commands and messages out of them.

Between: `smtp.connection` is the connection itself; `smtp.server` answers the commands.
Contract: a subclass answers `on_command` with replies that it notes; `on_message` with a Reply, or None
    and a call of `answer` later, or work to wait for that calls it. A content is handed over in pieces, one
    if it is small, checked and mended: CRLF line ends, dots unstuffed, no NUL. No dialogue and no message
    keeps the loop from other connections: so many commands are answered in one turn, so many octets mended.
Raises: nothing to the loop.
Standards: RFC 5321 2.3.8 (line ends), 4.5.2 (transparency), RFC 2920 (groups).
Why: aiosmtpd's stream reader goes line by line through DATA (35 MB/s), so octets are taken here, in bulk,
    and a command is answered without a task. A large message is mended while it comes, slice by slice, and
    not in a thread at its end: the work is the same, but it comes in small parts, nobody waits for the GIL,
    what is wrong is known at once, and the message never stands in memory twice.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from mta.core.limits.room import Share
from mta.core.mail import message
from mta.core.mail.address import PathError
from mta.core.mail.message import Mending
from mta.core.model import Reply
from mta.smtp.connection import BUG, BUSY, CLOSED, COMMAND, DATA, GOING_DOWN, TAKEN, ClientConnection

MAX_COMMAND = 2048  # octets; RFC 5321 4.5.3.1.4 asks for 512, extensions for more
MAX_AUTH = 12288 + 16  # octets, RFC 4954 4
MAX_PENDING = 64 * 1024  # octets that may wait while we are busy; then reading pauses
TURN = 100  # commands of one connection that are answered before others have their turn
TURN_TIME = 0.005  # seconds for them
SMALL = 64 * 1024  # octets; a message that is whole in one read and no larger needs no share of memory
SLICE = 256 * 1024  # octets; of a message that is larger so many at a time are mended, as it comes
BARE_NEWLINE = Reply(550, "5.6.11", "A CR or LF stands alone; lines end with CRLF (RFC 5321 2.3.8)")
NUL = Reply(550, "5.6.0", "The message holds a NUL octet; encode it (RFC 5321 4.5.2)")
CROWDED = Reply(452, "4.3.1", "Too much is being received at once; try again in 30 seconds")
_END = b"\r\n.\r\n"
_QUICK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux


class Parser(ClientConnection):
    """The server's end of one connection, below the verbs."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._in = b""
        self._position = 0
        self._pumping = False
        self._line: asyncio.Future[bytes] | None = None
        self._reader: Any = self  # for the AUTH exchange of the base, which reads a line at a time
        self._has_turn = False  # the loop will come back
        self._data = bytearray()  # of the message that comes: all, or what is not mended yet
        self._mending: Mending | None = None  # of a large one
        self._dropped: Reply | None = None  # why the message is not kept while it still comes
        self._dotted = False
        super().connection_made(transport)

    # Commands

    def data_received(self, data: bytes) -> None:
        mode = self._mode
        if mode is DATA:
            self._collect(data)
            if self._mode is BUSY:
                return  # there is nothing to say until the message is on disk
            if self._mode is DATA:
                self._acknowledge()
            self._pump()
            return
        if mode is CLOSED:
            return
        self._in = self._in[self._position :] + data
        self._position = 0
        if mode is COMMAND and not self._has_turn:
            self._pump()
        elif self._line is not None:
            self._offer_line()
        elif len(self._in) > MAX_PENDING:
            self._pause_reading()

    def eof_received(self) -> bool:
        """A client that shuts its side after the dot, or behind many commands, still gets its answers."""
        self._ended = True
        works = self._mode is BUSY or (self._mode is COMMAND and self._has_turn)
        return works and self._tls_protocol is None

    def resume_writing(self) -> None:
        self._choked = False
        if self._mode is COMMAND:
            self._yield(0.0)  # commands that wait come before more is read
        else:
            self._resume_reading()

    def _resume_reading(self) -> None:
        if len(self._in) - self._position <= MAX_PENDING:  # or there is work enough
            super()._resume_reading()

    def _acknowledge(self) -> None:
        """Part of a message is here: a client with the Nagle algorithm waits for this to send the next one.

        Left to itself the kernel takes 40 ms for it (RFC 1122 4.2.3.2, 4.2.3.4).
        """
        if _QUICK is not None:
            with suppress(OSError):  # gone meanwhile
                self.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, _QUICK, 1)

    def _yield(self, length: float) -> None:
        """Go on, and read on, for about so long, when others have had their turn."""
        if not self._has_turn:
            self._has_turn = True
            self.listener.rests.ask(self.party, self._take_turn, length)

    def _take_turn(self) -> bool:
        self._has_turn = False
        if self._mode is CLOSED:
            return False
        self._pump()
        return True

    def _pump(self) -> None:
        """Answer the whole commands that are here, as many as one turn has; their replies go in one write."""
        if self._pumping:
            return  # a message was answered at once: the loop below goes on, not deeper
        self._pumping = True
        clock, left, until = self.listener.clock, TURN, 0.0
        while self._mode is COMMAND:
            octets, begin = self._in, self._position
            if begin == len(octets):
                break
            end = octets.find(b"\n", begin) + 1
            if not end:
                if len(octets) - begin > MAX_AUTH:
                    self.hang_up(Reply(421, "4.5.2", "The command line does not end"))
                break
            now = clock.monotonic()
            until = until or now + TURN_TIME
            if not left or now > until or self._choked:
                if not self._choked:
                    self._yield(TURN_TIME)
                break
            left -= 1
            self._position = end
            self._command(octets[begin:end], now)
        self._pumping = False
        if self._out:
            self._flush()
        if self._mode is COMMAND and not self._has_turn and not self._choked:  # all is done
            if self._ended:
                self._close()
            elif self.listener.draining and self.is_idle:
                self.hang_up(GOING_DOWN)
        if not self._reading and not self._has_turn and self._mode is not BUSY:
            self._resume_reading()

    def _command(self, line: bytes, now: float) -> None:
        text, _, end = line.partition(b"\r")
        if end != b"\n":
            # Who ends lines otherwise may have been made to by somebody else (smuggling).
            self.hang_up(Reply(500, "5.5.2", "A command ends with CRLF (RFC 5321 2.3.8)"))
            return
        verb, _, argument = text.partition(b" ")
        verb = verb.upper()
        if len(line) > MAX_COMMAND and (verb != b"AUTH" or len(line) > MAX_AUTH):
            self.refuse(Reply(500, "5.5.6", "The command line is too long"))
            return
        if not self.is_stranger:
            self.deadline = now + self.terms.command_timeout
        try:
            self.on_command(verb, argument.strip(b" \t"))
        except PathError as error:
            self.refuse(error.reply)
        except Exception as error:
            self._bug(error)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Let a verb that waits run as a task; commands behind it stay where they are."""
        self._mode = BUSY
        self._flush()
        self._task = self.listener.spawn(self._finish(work))

    async def _finish(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self._bug(error)
        self._task = None
        self._go_on()

    def _go_on(self) -> None:
        """A busy connection is free again."""
        if self._mode is not BUSY:
            return
        self._mode = COMMAND
        if not self.is_stranger:
            self.deadline = self.listener.clock.monotonic() + self.terms.command_timeout
        self._pump()

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

    def _await_message(self) -> None:
        """What comes now is a message, as far as it is not here yet."""
        self._mode = DATA
        self._dropped = None
        self._dotted = False
        self.deadline = self.listener.clock.monotonic() + self.terms.data_timeout
        if self._position < len(self._in):
            self._flush()
            self._collect(self._in, self._position)
        else:
            self._in, self._position = b"", 0

    def _collect(self, data: bytes, begin: int = 0) -> None:
        """Take the octets of a message, from `begin` on, until its final dot."""
        held = self._data
        octets: bytes | bytearray = data
        start = begin
        if held:
            start = max(len(held) - 4, 0)
            held += data
            octets = held
        dot = self._find_dot(octets, begin, start)
        if dot < 0:
            if not held:
                held += memoryview(data)[begin:] if begin else data
                self._in, self._position = b"", 0
            self._keep_or_drop(held, len(data) - begin)
            return
        if octets is data:
            content = data[begin:dot]
            self._in, self._position = data, dot + 3
            new = dot - begin
        else:
            with memoryview(held) as view:
                content = bytes(view[:dot])
                self._in, self._position = bytes(view[dot + 3 :]), 0
            new = dot + len(data) - len(held)
            self._data = bytearray()
        if self._share is not None:
            self._share.take(new)
        elif new > SMALL:
            self._share = self.open_share()
            self._share.take(new)
        self._mode = BUSY
        self.deadline = float("inf")  # from here on it is our turn
        self._is_asked = True
        try:
            said = self._complete(content)
        except Exception as error:
            self.listener.bug(error)
            said = BUG
        if isinstance(said, Reply):
            self.answer(said)
        elif said is not None:
            self.listener.spawn(self._wait_for(said))

    def _keep_or_drop(self, held: bytearray, new: int) -> None:
        """A message that is too much is heard to its end, but not held."""
        if self._dropped is None:
            share = self._share
            if share is None:
                share = self._share = self.open_share()
            share.take(new)
            if len(held) > SLICE:
                self._dropped = self._set_aside(held)
            if self._dropped is None:
                # Of what is held the last octets may be the final dot's line, and no content.
                size = len(held) - len(b".\r")
                if size + (0 if self._mending is None else self._mending.size) > self.terms.message_size:
                    self._dropped = self._too_large()
                elif not share.has_room(-len(b".\r")):
                    self._dropped = CROWDED
            if self._dropped is not None:
                self._let_go()
        if self._dropped is not None:
            del held[:-4]

    def _set_aside(self, held: bytearray) -> Reply | None:
        """Mend what has come of a large message, but for what may begin its final dot; or refuse it."""
        began = self.loop.time()
        try:
            with memoryview(held) as view:
                first = bytes(view[:-4])
            del held[:-4]
            self._pause_reading()  # libuv would read 32 times before anybody else has a turn
            return self._mend(first)
        except Exception as error:
            self.listener.bug(error)
            return BUG
        finally:
            self._yield(self.loop.time() - began)  # the next slice takes as long

    def _mend(self, data: bytes) -> Reply | None:
        """Mend the next slice of a large message, or refuse what no message may hold."""
        mending = self._mending
        if mending is None:
            mending = self._mending = Mending(self.terms.normalise)
        before = mending.size
        mending.feed(data)
        if self._share is not None:
            self._share.take(mending.size - before - len(data))
        if mending.has_bare_newline and not self.terms.normalise:
            return BARE_NEWLINE
        return NUL if mending.has_nul else None

    def _too_large(self) -> Reply:
        return Reply(552, "5.3.4", f"The message is larger than {self.terms.message_size} octets")

    def _find_dot(self, octets: bytes | bytearray, begin: int, start: int) -> int:
        """Where the final dot is; -1 if it is not here yet. Before `start` there is none.

        One pass for two questions: the first line that starts with a dot is the final one, or else the
        message has dots to unstuff. Each pass over 100 KiB costs 60 us.
        """
        # What is held of one that is dropped, or mended as it comes, begins anywhere.
        if not self._dotted and self._dropped is None and self._mending is None:
            dot = begin if octets.startswith(b".", begin) else octets.find(b"\r\n.", start) + 2
            if dot == 1 or len(octets) < dot + 3:
                return -1
            if octets.startswith(b"\r\n", dot + 1):
                return dot
            self._dotted = True
        end = octets.find(_END, start)
        return end if end < 0 else end + 2

    def _complete(self, content: bytes) -> Reply | Coroutine[Any, Any, None] | None:
        """A message is here as a whole: check and mend what is not yet, then ask."""
        if self._dropped is not None:
            return self._dropped
        if self._mending is not None:
            if (refusal := self._mend(content)) is not None:
                return refusal
            dotted, size = self._mending.dotted, self._mending.size
            pieces, self._mending = self._mending.pieces, None
        else:
            dotted = self._dotted
            if message.has_bare_newline(content):
                if not self.terms.normalise:
                    return BARE_NEWLINE
                content, dotted = message.normalise_newlines(content), True
            if b"\0" in content:
                return NUL
            if dotted:
                content = message.unstuff(content)
            pieces, size = [content], len(content)
        return self._too_large() if size > self.terms.message_size else self.on_message(pieces, dotted)

    async def _wait_for(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self.listener.bug(error)
            self.answer(BUG)

    def answer(self, reply: Reply) -> None:
        """The reply to a message; the transaction is over."""
        self._is_asked = False
        if self._share is not None or self._mending is not None:
            self._let_go()
        self._set_rset_state()
        if self._mode is CLOSED:
            return
        if self._errors and reply.code == 250:
            self.forgive(TAKEN)
        self.reply(reply)
        self._go_on()

    def _let_go(self) -> None:
        super()._let_go()
        self._mending = None

    # What a subclass does

    def open_share(self) -> Share:
        """The memory that the message at hand may have."""
        raise NotImplementedError

    def on_command(self, verb: bytes, argument: bytes) -> None:
        """Answer one command."""
        raise NotImplementedError

    def on_message(self, pieces: list[bytes], dotted: bool) -> Reply | Coroutine[Any, Any, None] | None:
        """Take the message; `dotted`: lines of it may start with a dot."""
        raise NotImplementedError
