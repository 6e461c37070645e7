"""A peer that says and expects what its scripts tell it to.

Between: a test writes one script for each connection, in their order; the daemon dials `port`.
Contract: a script is lines:

    -> 250 ok           we say this; lines that follow one another go in one write
    drip 250 ok         the same, in a write for each octet
    raw 250 ok\\r\\n      these octets, with the escapes of Python, and no line end of ours
    <- EHLO *           the client says this; `*` stands for anything
    <- message          a whole message, up to its final dot
    <- octets 1000      so much of a message, and no more
    starttls            the handshake, with the test certificate; a client that breaks it off ends the script
    starttls-garbage    what is no handshake, and the end of the connection
    hold                wait until the test calls `go`
    silence             say nothing, and listen until the client gives up
    close / abort       end the connection with FIN / with RST

    At its end a script answers QUIT, and takes it well when the client hangs up. `calls` has what each
    connection received; `at` waits until a connection has come to a line ("end": there are no more).
    A peer that is `shut` refuses connections until `open`.
Raises: AssertionError, with what was expected and what was got, at the end of the block and from `at`:
    a client that says something else, a connection too many, or one that never came.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
from dataclasses import dataclass, field
from textwrap import dedent
from typing import Self

from tests.fakes.house import certificate

LIMIT = 64 * 1024 * 1024  # octets of one line
PATIENCE = 10.0  # seconds that `at` waits

HELLO = """
    -> 220 mx.test ESMTP
    <- EHLO mta.test
    -> 250-mx.test
    -> 250-PIPELINING
    -> 250 8BITMIME
"""
ASKED = "<- MAIL FROM:<*\n<- RCPT TO:<*\n<- DATA\n"
TAKES = """
    <- MAIL FROM:<*
    <- RCPT TO:<*
    <- DATA
    -> 250 2.1.0 ok
    -> 250 2.1.5 ok
    -> 354 go on
    <- message
    -> 250 2.0.0 taken
"""


def envelope(*replies: str) -> str:
    """A pipelined MAIL, one RCPT for each reply but the first and the last, and DATA."""
    asked = "<- MAIL FROM:<*\n" + "<- RCPT TO:<*\n" * (len(replies) - 2) + "<- DATA\n"
    return asked + "".join(f"-> {reply}\n" for reply in replies)


def answers(stage: str, reply: str) -> str:
    """A transaction for one recipient in which MAIL, RCPT, DATA or the dot is answered like that."""
    said = "\n-> ".join(reply.splitlines())
    none = "554 5.5.1 no valid recipients"
    if stage == ".":
        return envelope("250 ok", "250 ok", "354 go on") + f"<- message\n-> {said}\n"
    replies = {"MAIL": (said, none, none), "RCPT": ("250 ok", said, none), "DATA": ("250 ok", "250 ok", said)}
    return envelope(*replies[stage])


def goodbye(stage: str, reply: str) -> str:
    """The same, and the end of the connection: nothing is said to what was asked behind it."""
    if stage == ".":
        return answers(stage, reply) + "close\n"
    taken = {"MAIL": 0, "RCPT": 1, "DATA": 2}[stage]
    said = "\n-> ".join(reply.splitlines())
    return ASKED + "-> 250 ok\n" * taken + f"-> {said}\nclose\n"


def octets_of(escaped: str) -> bytes:
    """What escapes of Python stand for."""
    return escaped.encode("ascii").decode("unicode_escape").encode("latin-1")


@dataclass
class Call:
    """One connection: what it received, and how far its script has come."""

    host: str  # whence it came
    received: bytearray = field(default_factory=bytearray)
    commands: list[str] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)  # dots taken off again
    past: set[str] = field(default_factory=set)  # lines of the script that it came to


class _HungUp(Exception):
    """The client is gone."""


class _Stray(Exception):
    """The client did not follow the script."""


class ScriptedPeer:
    """`async with ScriptedPeer(script, ...) as peer:` plays at `peer.port`."""

    port: int

    def __init__(
        self,
        *scripts: str,
        shut: bool = False,
        receive_buffer: int = 0,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._bind = (host, port)
        self._scripts = [_lines(script) for script in scripts]
        self._shut = shut  # until `open`
        self._server: asyncio.Server | None = None
        self._receive_buffer = receive_buffer  # octets; small where a body must not get away at once
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._moved = asyncio.Event()
        self._go = asyncio.Event()
        self._over = False  # what is played from here on is no fault
        self.calls: list[Call] = []
        self.faults: list[str] = []

    async def __aenter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self._bind[0] else socket.AF_INET
        self._listening = socket.socket(family)
        self._listening.bind(self._bind)
        if self._receive_buffer:
            self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        self.port = self._listening.getsockname()[1]
        if not self._shut:
            await self.open()
        return self

    async def open(self) -> None:
        """Begin to listen; until then the port refuses."""
        self._server = await asyncio.start_server(self._answer, sock=self._listening, limit=LIMIT)

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._server is not None:
            self._server.close()
        self._listening.close()
        self._over = True
        self.hang_up()
        self.go()
        await asyncio.gather(*self._tasks)
        if error is None and len(self.calls) < len(self._scripts):
            self.faults.append(f"expected {len(self._scripts)} connections, got {len(self.calls)}")
        if self.faults:
            raise AssertionError("\n".join(self.faults)) from error

    def hang_up(self) -> None:
        """Cut every connection: a daemon that is to stop must not wait for a peer that is silent."""
        for writer in self._writers:
            writer.transport.abort()

    def go(self) -> None:
        """Let the connections that hold go on."""
        self._go.set()
        self._go = asyncio.Event()

    async def at(self, number: int, line: str) -> Call:
        """Wait until connection `number`, counted from 1, has come to a line of its script."""
        async with asyncio.timeout(PATIENCE):
            while len(self.calls) < number or line not in self.calls[number - 1].past:
                assert not self.faults, self.faults
                self._moved.clear()
                await self._moved.wait()
        return self.calls[number - 1]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.append(writer)
        call = Call(writer.get_extra_info("peername")[0])
        self.calls.append(call)
        number = len(self.calls)
        try:
            if number > len(self._scripts):
                raise _Stray(f"expected {len(self._scripts)} connections, got one more")
            await self._play(_Stage(reader, writer, call), self._scripts[number - 1])
        except (_Stray, _HungUp) as error:
            if not self._over:
                self.faults.append(f"connection {number}: {error}")
            self.hang_up()
        finally:
            self._stand(call, "end")
            writer.close()

    async def _play(self, stage: _Stage, script: list[str]) -> None:
        for line in script:
            self._stand(stage.call, line)
            if line == "hold":
                await self._go.wait()
            elif not await stage.play(line):
                return
        self._stand(stage.call, "end")
        await stage.epilogue()

    def _stand(self, call: Call, line: str) -> None:
        call.past.add(line)
        self._moved.set()


class _Stage:
    """One connection, line by line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, call: Call) -> None:
        self._reader = reader
        self._writer = writer
        self.call = call

    async def play(self, line: str) -> bool:
        """Do what one line says; False where the connection is over."""
        if line.startswith("-> "):
            if self._writer.is_closing():
                raise _HungUp(f"expected to say {line!r}, got the end of the connection")
            said = "".join(f"{each}\r\n" for each in line[3:].split("\n-> "))
            self._writer.write(said.encode("utf-8", "surrogateescape"))
        elif line.startswith("drip "):
            await self._drip(line[5:].encode() + b"\r\n")
        elif line.startswith("raw "):
            self._writer.write(octets_of(line[4:]))
        elif line == "<- message":
            await self._message()
        elif line.startswith("<- octets "):
            await self._octets(int(line.split()[2]))
        elif line.startswith("<- "):
            await self._command(line[3:])
        elif line == "starttls":
            return await self._handshake()
        elif line == "starttls-garbage":
            await self._reader.read(1)  # the client's hello has begun
            self._writer.write(b"550 this is no handshake\r\n")
            self._writer.close()
        elif line == "silence":
            self.call.received += await self._rest()
        elif line == "close":
            self._writer.close()
        elif line == "abort":
            self._reset()
        else:
            raise _Stray(f"the script says {line!r}, which is nothing")
        return line not in ("silence", "close", "abort", "starttls-garbage")

    async def epilogue(self) -> None:
        """After the script: QUIT, or nothing."""
        try:
            line = await self._line()
        except _HungUp:
            return
        if line != b"QUIT\r\n":
            raise _Stray(f"expected QUIT or the end of the connection, got {line!r}")
        self._writer.write(b"221 2.0.0 bye\r\n")

    async def _command(self, expected: str) -> None:
        try:
            line = (await self._line()).decode().removesuffix("\r\n")
        except _HungUp:
            raise _HungUp(f"expected {expected!r}, got the end of the connection") from None
        self.call.commands.append(line)
        if not re.fullmatch(re.escape(expected).replace(r"\*", ".*"), line):
            raise _Stray(f"expected {expected!r}, got {line!r}")

    async def _drip(self, octets: bytes) -> None:
        for octet in octets:
            self._writer.write(bytes((octet,)))
            await asyncio.sleep(0)  # the client reads in between

    async def _handshake(self) -> bool:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificate())
        try:
            await self._writer.start_tls(context)
        except OSError:
            return False
        return True

    async def _message(self) -> None:
        lines = []
        while (line := await self._line()) != b".\r\n":
            lines.append(line[1:] if line.startswith(b".") else line)
        self.call.messages.append(b"".join(lines))

    async def _octets(self, count: int) -> None:
        try:
            self.call.received += await self._reader.readexactly(count)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise _HungUp(f"expected {count} octets of a message, got {error}") from error

    async def _line(self) -> bytes:
        try:
            line = await self._reader.readline()
        except OSError:
            line = b""
        self.call.received += line
        if not line.endswith(b"\n"):
            raise _HungUp(f"expected a line, got the end of the connection after {line[:80]!r}")
        return line

    async def _rest(self) -> bytes:
        try:
            return await self._reader.read()
        except OSError:
            return b""

    def _reset(self) -> None:
        raw = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


def _lines(script: str) -> list[str]:
    """The lines of a script; what we say in one go is one."""
    lines: list[str] = []
    for line in dedent(script).splitlines():
        line = line.strip()
        if line.startswith("-> ") and lines and lines[-1].startswith("-> "):
            lines[-1] += f"\n{line}"
        elif line:
            lines.append(line)
    return lines
