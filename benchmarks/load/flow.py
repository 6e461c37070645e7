"""Mail that is submitted at a steady rate, transactional and bulk.

Between: `fleet` and `latency` submit through it, to a daemon that has the credentials of `credentials`;
    `python -m benchmarks.load.flow PORT RATE SECONDS` is bulk mail in a process of its own.
Contract: a `Flow` keeps its sessions open and sends what it is given, first come first served; nothing
    waits but what was added. `on_sent` is called with a message's tag at its
    final dot, `on_accepted` at the last octet of its 250.
Raises: ConnectionError, from `check`, when the daemon hung up.
Standards: RFC 2920.
Why: the daemon tells its two credentials apart by the client's address, so no time goes into TLS and AUTH.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Self, cast

import uvloop

from benchmarks.process import Broken
from mta.core.credential import Credential
from mta.store.credentials import CredentialStore

CLIENTS = {"bulk": "127.0.0.1", "transactional": "127.0.0.2"}  # stream -> whence it is submitted
SETTINGS = """\
hostname: relay.test
spool:
  path: {home}
admin:
  bind: 127.0.0.1:0
listeners:
  - bind: 127.0.0.1:{listen}
    tls: none
    auth: network
limits:
  drain: 1s
"""  # of the daemon, up to where its mail goes
CODES = (b"250", b"250", b"354")  # to MAIL, RCPT, DATA
CONTENT = b"From: <a@src0.test>\r\nSubject: benchmark\r\n\r\n" + 25 * (b"x" * 78 + b"\r\n") + b".\r\n"
SESSIONS = 20  # of `steady`
TICK = 0.01  # seconds
DEEPEST = 5000  # messages that may wait here; a daemon that is slower than the rate gets no more


def credentials(home: Path, urgent: str = "tenant") -> None:
    """One for each stream, in the store of a daemon that is about to start; `urgent` sends passwords."""
    with CredentialStore(home / "credentials.db") as store:
        for stream, client in CLIENTS.items():
            tenant = urgent if stream == "transactional" else "tenant"
            store.add(Credential(stream, tenant, stream, networks=(f"{client}/32",), kind="network"))


@contextmanager
def explained(log: Path) -> Iterator[None]:
    """A daemon that hangs up has said why; its errors are told in any case."""
    try:
        yield
    except ConnectionError as error:
        raise Broken(f"{error}\n{log.read_text(errors='replace')[-3000:]}") from error
    said = log.read_text(errors="replace")
    if errors := re.findall(r"(?m)^(?:ERROR|CRITICAL) ", said):
        first = said[said.index(errors[0]) :][:2000]
        print(f"{len(errors)} errors in the daemon's log, the first of them:\n{first}", file=sys.stderr)


class Mail(NamedTuple):
    """One message."""

    sender: str
    recipient: str
    tag: str = ""

    def envelope(self) -> bytes:
        return f"MAIL FROM:<{self.sender}>\r\nRCPT TO:<{self.recipient}>\r\nDATA\r\n".encode()


class Flow:
    """Some sessions and what waits for them, until the block ends."""

    def __init__(self, port: int, stream: str, sessions: int) -> None:
        self._port = port
        self._client = CLIENTS[stream]
        self._number = sessions
        self._waiting: deque[Mail] = deque()
        self._idle: list[Session] = []
        self._sessions: list[Session] = []
        self.accepted = 0
        self.turned_away = 0  # not even tried: too much waited here
        self.refused: Counter[str] = Counter()  # by reply
        self.fault = ""
        self.on_accepted: Callable[[str], None] = lambda tag: None
        self.on_sent: Callable[[str], None] = lambda tag: None  # its final dot

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for _ in range(self._number):
            _, session = await loop.create_connection(
                lambda: Session(self), "127.0.0.1", self._port, local_addr=(self._client, 0)
            )
            self._sessions.append(session)
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in self._sessions:
            session.end()

    def add(self, mail: Mail) -> None:
        """Send it as soon as a session is free."""
        if self._idle:
            self._idle.pop().send(mail)
        elif len(self._waiting) < DEEPEST:
            self._waiting.append(mail)
        else:
            self.turned_away += 1

    def check(self) -> None:
        """Is all well?"""
        if self.fault:
            raise ConnectionError(self.fault)

    def is_free(self, session: Session) -> None:
        if self._waiting:
            session.send(self._waiting.popleft())
        else:
            self._idle.append(session)


class Session(asyncio.Protocol):
    """One connection to the daemon."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._in = b""
        self._mail: Mail | None = None
        self._replies: list[bytes] = []  # to the envelope
        self._in_message = False
        self._greeted = 0  # replies before the first message
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(b"EHLO source.test\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended:
            self._flow.fault = f"the daemon hung up: {exc or self._in.decode(errors='replace')}"

    def end(self) -> None:
        self._ended = True
        with suppress(OSError):
            self._transport.abort()

    def send(self, mail: Mail) -> None:
        self._mail = mail
        self._replies.clear()
        self._transport.write(mail.envelope())

    def data_received(self, data: bytes) -> None:
        *lines, self._in = (self._in + data).split(b"\r\n")
        for line in lines:
            if line[3:4] != b"-":
                self._reply(line)

    def _reply(self, line: bytes) -> None:
        if self._mail is None:
            self._greeted += 1
            if self._greeted == 2:
                self._flow.is_free(self)
        elif self._in_message:
            self._in_message = False
            self._over(self._mail, line)
        else:
            self._replies.append(line)
            if len(self._replies) == len(CODES):
                self._opened(self._mail)

    def _opened(self, mail: Mail) -> None:
        pairs = zip(self._replies, CODES, strict=True)
        wrong = next((line for line, code in pairs if not line.startswith(code)), None)
        if wrong is None:
            self._in_message = True
            self._transport.write(CONTENT)
            self._flow.on_sent(mail.tag)
        else:
            self._over(mail, wrong)

    def _over(self, mail: Mail, line: bytes) -> None:
        if line.startswith(b"250"):
            self._flow.accepted += 1
            self._flow.on_accepted(mail.tag)
        else:
            self._flow.refused[line.decode(errors="replace")[:60]] += 1
        self._flow.is_free(self)


async def steady(port: int, rate: float, seconds: float) -> None:
    """Bulk mail, so many messages a second for so long."""
    async with Flow(port, "bulk", SESSIONS) as bulk:
        began, sent = time.monotonic(), 0
        while (elapsed := time.monotonic() - began) < seconds:
            while sent < elapsed * rate:
                bulk.add(Mail("b@src0.test", "b@dst0.test"))
                sent += 1
            bulk.check()
            await asyncio.sleep(TICK)
    for what, times in {"not even sent": bulk.turned_away, **bulk.refused}.items():
        if times:
            print(f"bulk mail: {times} of {sent}: {what}", file=sys.stderr, flush=True)


def main() -> None:
    port, rate, seconds = sys.argv[1:]
    uvloop.run(steady(int(port), float(rate), float(seconds)))


if __name__ == "__main__":
    main()
