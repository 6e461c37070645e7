"""The octets that come in on one connection: commands and messages out of them.

Between: `smtp.connection` is the connection itself; `smtp.server` answers the commands.
Contract: a subclass answers `on_command` with replies that it notes; `on_message` with a Reply, or None
    and a call of `answer` later. A content is normalised: CRLF line ends, dots unstuffed.
Raises: nothing to the loop.
Standards: RFC 5321 2.3.8 (line ends), 4.5.2 (transparency), RFC 2920 (groups).
Why: aiosmtpd's stream reader goes line by line through DATA (35 MB/s), so octets are taken here, in bulk,
    and a command is answered without a task.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from mta.core import message
from mta.core.address import PathError
from mta.core.model import Reply
from mta.smtp.connection import BUG, GOING_DOWN, TAKEN, Connection, Mode

MAX_COMMAND = 2048  # octets; RFC 5321 4.5.3.1.4 asks for 512, extensions for more
MAX_AUTH = 12288 + 16  # octets, RFC 4954 4
MAX_PENDING = 64 * 1024  # octets that may wait while we are busy; then reading pauses
CROWDED = Reply(452, "4.3.1", "Too much is being received at once; try again in 30 seconds")
_END = b"\r\n.\r\n"
_QUICK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux


class Stream(Connection):
    """The server's end of one connection, below the verbs."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._in = b""
        self._position = 0
        self._pumping = False
        self._line: asyncio.Future[bytes] | None = None
        self._reader: Any = self  # for the AUTH exchange of the base, which reads a line at a time
        self._data = bytearray()
        self._dropped: Reply | None = None  # why the message is not kept while it still comes
        self._dotted = False
        super().connection_made(transport)

    # Commands

    def data_received(self, data: bytes) -> None:
        if self._mode is Mode.DATA:
            self._collect(data)
            if self._mode is Mode.DATA:
                self._acknowledge()
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

    def _acknowledge(self) -> None:
        """Part of a message is here: a client with the Nagle algorithm waits for this to send the next one.

        Left to itself the kernel takes 40 ms for it (RFC 1122 4.2.3.2, 4.2.3.4).
        """
        if _QUICK is not None:
            with suppress(OSError):  # gone meanwhile
                self.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, _QUICK, 1)

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
            # Where the content begins is behind a CRLF, too: the final dot may be all that is still to come.
            held[:] = (b"\r\n" + held[-4:])[-4:]
            self._let_go()

    def _too_large(self) -> Reply:
        return Reply(552, "5.3.4", f"The message is larger than {self.policy.message_size} octets")

    def _find_end(self, held: bytearray, start: int) -> int:
        """Where the final dot's line begins, less its CRLF; -1 if it is not here yet.

        One pass for two questions: the first line that starts with a dot is the final one, or else the
        message has dots to unstuff. Each pass over 100 KiB costs 60 us.
        """
        if not self._dotted and self._dropped is None:  # what is held of a dropped one begins anywhere
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
        if self._errors and reply.code == 250:
            self.forgive(TAKEN)
        self.reply(reply)
        self._go_on()

    # What a subclass does

    def on_command(self, verb: bytes, argument: bytes) -> None:
        """Answer one command."""
        raise NotImplementedError

    def on_message(self, content: bytes, dotted: bool) -> Reply | None:
        """Take the message; `dotted`: lines of it may start with a dot."""
        raise NotImplementedError
