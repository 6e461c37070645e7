"""The clients of the crash tests: they keep a message until they have its 250, and send it again until then.

Between: the crash tests hand in one daemon after another; `tests.crash.books` compares what the
    clients know with what the peer and the spool hold.
Contract: every letter has a number, which stands in its sender, its recipients and a header field, and a
    content that can be told from all others.
"""

from __future__ import annotations

import asyncio
import base64
import random
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from mta.spool.bodies import THRESHOLD
from tests.fakes.home import KEY, LOGIN, PATIENCE, Served

CLIENTS = 6
SIZES = (300, 3_000, 20_000, THRESHOLD + 4_000)  # octets; the last one is a file
SIZE_WEIGHTS = (60, 25, 10, 5)
CASTS = (  # the recipients of a letter: actors of the sandbox
    ("ok",),
    ("ok", "ok", "ok"),
    ("ok", "bounce"),
    ("ok", "defer", "ok"),
    ("bounce", "bounce", "defer"),
)
CAST_WEIGHTS = (60, 15, 12, 8, 5)
DOMAINS = 7
_LOGIN = base64.b64encode(f"\0{LOGIN}\0{KEY}".encode())


@dataclass(slots=True, eq=False)
class Letter:
    """What a client wants to have delivered."""

    number: int
    recipients: list[str]
    size: int
    in_doubt: int = 0  # times that its dot was sent and no reply came

    @property
    def sender(self) -> str:
        return f"s{self.number}@src.test"

    @property
    def body(self) -> bytes:
        line = f"{self.number:08d} all work and no play makes a dull message\r\n".encode()
        return line * (self.size // len(line) + 1)

    @property
    def content(self) -> bytes:
        return f"From: {self.sender}\r\nX-Letter: {self.number}\r\n\r\n".encode() + self.body


class Mail:
    """All letters, and what the clients were told."""

    def __init__(self) -> None:
        self.letters: list[Letter] = []
        self.waiting: deque[Letter] = deque()
        self.acknowledged: dict[str, Letter] = {}  # by queue id

    def write(self, count: int, dice: random.Random) -> None:
        """So many letters more; one of them at least is a file in the spool.

        The very first goes to drop-after-data too, and no other: two that hang up make the site look dead.
        """
        large = dice.randrange(count)
        for n in range(count):
            (cast,) = dice.choices(CASTS, CAST_WEIGHTS)
            (size,) = dice.choices(SIZES, SIZE_WEIGHTS)
            if not self.letters:
                cast = ("ok", "drop-after-data")
            self.write_one(*cast, size=SIZES[-1] if n == large else size)

    def write_one(self, *cast: str, size: int = 300) -> Letter:
        number = len(self.letters)
        recipients = [f"{actor}+{number}-{n}@d{(number + n) % DOMAINS}.test" for n, actor in enumerate(cast)]
        letter = Letter(number, recipients, size)
        self.letters.append(letter)
        self.waiting.append(letter)
        return letter

    def send(self, served: Served, told: Callable[[int], object] = lambda count: None) -> None:
        """Send what waits until there is no more, or nobody to send it to; `told` hears of each 250."""
        asyncio.run(self._send_all(served, told))

    async def _send_all(self, served: Served, told: Callable[[int], object]) -> None:
        clients = (self._client(served, told) for _ in range(min(CLIENTS, len(self.waiting))))
        async with asyncio.timeout(PATIENCE):
            ended = await asyncio.gather(*clients, return_exceptions=True)
        for error in ended:
            assert error is None or isinstance(error, OSError | asyncio.IncompleteReadError), error

    async def _client(self, served: Served, told: Callable[[int], object]) -> None:
        door = served.facts["submissions"]
        reader, writer = await asyncio.open_connection(door["host"], door["port"], ssl=served.context)
        try:
            await _reply(reader, b"220")
            writer.write(b"EHLO client.test\r\nAUTH PLAIN " + _LOGIN + b"\r\n")
            await _reply(reader, b"250")
            await _reply(reader, b"235")
            while self.waiting:
                letter = self.waiting.popleft()
                try:
                    queue_id = await _submit(letter, reader, writer)
                except (OSError, asyncio.IncompleteReadError):
                    self.waiting.appendleft(letter)
                    raise
                self.acknowledged[queue_id] = letter
                told(len(self.acknowledged))
        finally:
            writer.transport.abort()


async def _submit(letter: Letter, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """The queue id in the 250."""
    commands = [f"MAIL FROM:<{letter.sender}>", *(f"RCPT TO:<{each}>" for each in letter.recipients), "DATA"]
    writer.write("".join(f"{command}\r\n" for command in commands).encode())
    for _ in commands[:-1]:
        await _reply(reader, b"250")
    await _reply(reader, b"354")
    letter.in_doubt += 1
    writer.write(letter.content + b".\r\n")
    reply = await _reply(reader, b"250")
    letter.in_doubt -= 1
    found = re.search(rb"queued as (\w+)", reply)
    assert found is not None, reply
    return found[1].decode()


async def _reply(reader: asyncio.StreamReader, code: bytes) -> bytes:
    while True:
        line = await reader.readuntil(b"\n")
        assert line.startswith(code), line
        if line[3:4] == b" ":
            return line
