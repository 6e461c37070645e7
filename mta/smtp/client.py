"""One connection to a peer: opened by aiosmtplib, its transactions driven by `core.answers.dialogue`.

Between: `smtp.opening` makes it; the transactions of its lane feed it and hear what became of each.
Contract: a Connection is ready for MAIL, and nothing is awaited: `send` starts a transaction, the `Feeder` is
    asked for the next and told of every end. `deadline` (monotonic seconds) is when the phase under way is
    over its time: the pool looks, and calls `expire`. A bug of ours in what the event loop calls costs the
    connection; its transactions are handed back as lost.
Raises: PeerError where the connection was lost before it began.
Standards: RFC 5321 4.5.3.2 (time-outs), RFC 2920 (pipelining).
Why: aiosmtplib has one waiter a connection and drops what comes between commands, so it can neither
    pipeline nor hear a 421 while idle; and it rewrites addresses and line ends. It opens, we send.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import aiosmtplib
from aiosmtplib.protocol import SMTPProtocol

from mta.clock import Clock, timeout
from mta.core.answers.capabilities import Capabilities
from mta.core.answers.dialogue import Dialogue, Left, Stage, Transaction
from mta.core.answers.reply import ReplyParser, quoted
from mta.core.model import Reply
from mta.smtp.trouble import PeerError

QUIT_TIMEOUT = 5.0
BLOCK_TIMEOUT = 180.0  # RFC 5321 4.5.3.2.5: a block of data must get away in this time
BLOCK = 256 * 1024  # octets handed to the transport at once
_TIMEOUTS = {  # seconds until the reply; RFC 5321 4.5.3.2.2 to 4.5.3.2.6
    Stage.RSET: 300.0,
    Stage.MAIL: 300.0,
    Stage.RCPT: 300.0,
    Stage.DATA: 120.0,
    Stage.DOT: 600.0,
}


_REPLY_LINE = re.compile(rb"[2-5]\d\d(?:[ -]|\r?$)")


class Feeder(Protocol):
    """Where a connection gets its work, and whom it tells."""

    def take(self, connection: Connection) -> Transaction | None: ...

    def finished(self, connection: Connection, transaction: Transaction) -> None: ...

    def idle_again(self, connection: Connection) -> None: ...

    def lost(self, connection: Connection, left: list[Left]) -> None: ...

    def bug(self, error: Exception) -> None: ...


class _Protocol(SMTPProtocol):
    """aiosmtplib's protocol until the connection is ready, ours from then on."""

    connection: Connection | None = None
    why_lost: Exception | None = None

    def data_received(self, data: bytes) -> None:
        if self.connection is None:
            super().data_received(data)
        else:
            try:
                self.connection.received(data)
            except Exception as error:
                self.connection.broke(error)

    def _read_response_from_buffer(self) -> aiosmtplib.SMTPResponse | None:
        """Where theirs refuses lines of more than 8 KiB, and empty ones, and takes any number for a code.

        Nor does theirs mind several codes, or two replies where one was asked for: who is one reply ahead
        stays so, and what he says to EHLO would be his answer to MAIL.
        """
        *lines, rest = bytes(self._buffer).split(b"\n")
        texts: list[bytes] = []
        first = b""
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            if not _REPLY_LINE.match(line):
                raise _nonsense(f"what is no reply: {quoted(line)}")
            first = first or line
            if line[:1] != first[:1]:
                raise _nonsense(f"a reply with two codes: {quoted(first.rstrip() + b' / ' + line)}")
            texts.append(line[4:].strip())
            if line[3:4] != b"-":
                more = b"".join((*lines[number:], rest)).strip()
                if more.startswith(b"421"):  # which may be said at any time, and takes back what is before it
                    texts, first = [], b""
                    continue
                if more:
                    raise _nonsense(f"more than one reply: {quoted(line.rstrip() + b' / ' + more)}")
                del self._buffer[:]
                said = b"\n".join(texts).decode("utf-8", "surrogateescape")
                return aiosmtplib.SMTPResponse(int(line[:3]), said)
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.why_lost = exc
        super().connection_lost(exc)
        if self.connection is not None:
            self.connection.gone()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.connection is not None:
            self.connection.paused = True

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.connection is not None:
            self.connection.paused = False
            try:
                self.connection.pump()
            except Exception as error:
                self.connection.broke(error)


def _nonsense(what: str) -> aiosmtplib.SMTPResponseException:
    """What `smtp.trouble` knows by its code."""
    return aiosmtplib.SMTPResponseException(-1, what)


class Client(aiosmtplib.SMTP):
    """aiosmtplib over a socket that is connected, with our protocol beneath."""

    opened: asyncio.Transport | None = None
    made: _Protocol | None = None

    @property
    def why_lost(self) -> Exception | None:
        """What the system, or TLS, said when the connection was lost, if anything."""
        return None if self.made is None else self.made.why_lost

    def discard(self) -> None:
        """Drop the connection; the base forgets its transport on some errors, and keeps it on others."""
        if self.opened is not None:
            self.opened.abort()
        elif self.sock is not None:
            self.sock.close()

    async def _create_connection(self, timeout: float | None) -> Any:
        assert self.loop is not None
        self.made = made = _Protocol(loop=self.loop, connection_lost_callback=self._on_connection_lost)
        self.opened, self.protocol = await self.loop.create_connection(lambda: made, sock=self.sock)
        self.transport = self.opened
        greeting = await made.read_response()
        if greeting.code != 220:
            raise aiosmtplib.SMTPConnectResponseError(greeting.code, greeting.message)
        return greeting


class Connection:
    """A peer that is ready for transactions."""

    def __init__(
        self, client: Client, host: str, address: str, capabilities: Capabilities, tls: str, clock: Clock
    ) -> None:
        if not isinstance(client.protocol, _Protocol):  # it was, until the connection was lost
            raise PeerError("hung up before any mail was sent")
        self._client = client
        self._protocol = client.protocol
        self._transport: Any = client.transport
        self._clock = clock
        self._parser = ReplyParser()
        self._dialogue = Dialogue(capabilities, self._unsent)
        self._backlog: deque[memoryview] = deque()  # of a body larger than the transport likes
        self.feeder: Feeder
        self.host = host
        self.address = address
        self.capabilities = capabilities
        self.tls = tls  # "TLSv1.3", "" in the clear
        self.note = ""  # why it is in the clear, where that was not the plan
        self.wants_tls: Callable[[], None] = lambda: None  # the peer wants no mail in the clear
        self.loses_commands: Callable[[], None] = lambda: None  # that are sent together
        self.paused = False
        self.begun = 0  # transactions
        self.carried = 0  # of these, answered to their end; counted by the owner
        self.deadline = float("inf")
        self.idle_since = clock.monotonic()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_lost = False

    def serve(self, feeder: Feeder) -> None:
        """From here on octets are ours."""
        self.feeder = feeder
        self._protocol.connection = self

    # Sending

    def send(self, transaction: Transaction) -> None:
        """Begin a transaction; the connection is idle."""
        self._note(transaction)
        try:
            opening = self._dialogue.begin(transaction)
            if self._protocol.is_connected:
                self._write([opening])
                self._set_deadline()
            else:
                self.gone()  # before `serve` nobody heard of it
        except Exception as error:
            self.broke(error)

    def _take(self) -> Transaction | None:
        transaction = self.feeder.take(self)
        if transaction is not None:
            self._note(transaction)
        return transaction

    def _note(self, transaction: Transaction) -> None:
        transaction.started = self._clock.monotonic()
        self.begun += 1

    def _write(self, pieces: list[bytes]) -> None:
        if self._transport.is_closing():
            return  # `gone` is on its way; uvloop raises on a write now
        if self._backlog or max(map(len, pieces)) > BLOCK:
            for piece in pieces:
                view = memoryview(piece)
                self._backlog.extend(view[at : at + BLOCK] for at in range(0, len(view), BLOCK))
            self.pump()
        elif len(pieces) == 1:
            self._transport.write(pieces[0])
        else:
            self._transport.writelines(pieces)

    def pump(self) -> None:
        """Hand blocks over as long as the transport takes them."""
        while self._backlog and not self.paused:
            self._transport.write(self._backlog.popleft())
        self._set_deadline()

    def _set_deadline(self) -> None:
        stage = self._dialogue.stage
        if stage is None:
            self.deadline = float("inf")
        else:
            self.deadline = self._clock.monotonic() + (BLOCK_TIMEOUT if self._backlog else _TIMEOUTS[stage])

    # Receiving

    def received(self, data: bytes) -> None:
        """Octets from the peer."""
        if self.ended.done():
            return
        dialogue = self._dialogue
        awaited = dialogue.awaited
        step = dialogue.feed(self._parser.feed(data), self._take)
        write, finished = step.write, step.finished
        over = dialogue.closing is not None or dialogue.fault is not None
        try:
            if write and not over:
                self._write(write)
        finally:  # what was answered is not sent again
            for transaction in finished:
                self.feeder.finished(self, transaction)
        if over:
            if dialogue.is_bug:
                assert dialogue.fault is not None
                self.feeder.bug(dialogue.fault)
            self.drop()
            return
        if write or finished or dialogue.awaited != awaited:
            self._set_deadline()  # a reply was whole: one that drips wins no time
        if dialogue.idle and not self.ended.done():
            self.idle_since = self._clock.monotonic()
            self.feeder.idle_again(self)

    def _unsent(self) -> int:
        """Octets that have not left; TLS makes them a few more."""
        waiting: int = self._transport.get_write_buffer_size()
        return waiting + len(self._backlog) * BLOCK

    # The end

    @property
    def last_word(self) -> Reply | None:
        """The 421 that the peer said goodbye with."""
        return self._dialogue.closing

    def gone(self, why: str = "") -> None:
        """The peer closed, or the network did."""
        if not self.ended.done():
            try:
                self._end(why)
            except Exception as error:
                self.feeder.bug(error)

    def broke(self, error: Exception) -> None:
        """A bug of ours: nobody knows any more what the peer and we speak of."""
        self.feeder.bug(error)
        self.drop()

    def expire(self) -> None:
        """The phase under way is over its time."""
        stage = self._dialogue.stage
        if self._backlog:
            self.drop(f"The peer took nothing of the message for {BLOCK_TIMEOUT:.0f} seconds")
        elif stage is not None:
            self.drop(f"{stage.shown} was not answered in {_TIMEOUTS[stage]:.0f} seconds")

    def drop(self, why: str = "") -> None:
        """Cut the connection: nobody may use it again."""
        self._transport.abort()
        self.gone(why)

    def _end(self, why: str) -> None:
        self.is_lost = True
        self.ended.set_result(None)
        # An unsent rest of the body means that the final dot was never sent.
        after_dot = not self._backlog
        if self._dialogue.has_lost_commands(self._silence):
            self.loses_commands()
        left = self._dialogue.abandon(why)
        if not after_dot:
            left = [each._replace(after_dot=False) for each in left]
        self._backlog.clear()
        self.deadline = float("inf")
        self.feeder.lost(self, left)

    @property
    def _silence(self) -> float:
        """Seconds since the peer said anything, where it is its turn."""
        stage = self._dialogue.stage
        if stage is None or self._backlog:
            return 0.0
        return self._clock.monotonic() - (self.deadline - _TIMEOUTS[stage])

    def retire(self) -> None:
        """No more transactions: whoever waits for `ended` says QUIT."""
        if not self.ended.done():
            self.ended.set_result(None)

    async def quit(self) -> None:
        """Say goodbye, and do not wait for long."""
        self._protocol.connection = None
        try:
            async with timeout(self._clock, QUIT_TIMEOUT):
                await self._client.quit()
        except (aiosmtplib.SMTPException, OSError, TimeoutError, ValueError):
            pass
        finally:
            self._transport.abort()
