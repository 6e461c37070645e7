"""A client that submits as mail programs do: STARTTLS, AUTH PLAIN, then messages.

Between: `load` runs `send` in a process of its own; the MTA's settings name the same LOGIN and SECRET.
Contract: so many sessions at once share the messages; each opens a connection for every message, or keeps
    one. What the server offers is used: MAIL, RCPT and DATA go in one write under PIPELINING, and AUTH
    carries its response. Every connection is a full TLS handshake: no session is resumed.
Raises: Unexpected with the server's own words when a reply is not the one that leads on.
Standards: RFC 3207, RFC 4954, RFC 2920.
Why: sessions are generators on one selector, and each TLS socket reads and writes for itself: no event loop
    and no copy between two BIOs, so that on two cores the server is what is measured. The certificate is not
    checked, for that would cost the client only.
"""

from __future__ import annotations

import base64
import re
import selectors
import socket
import ssl
from collections.abc import Generator, Iterator

LOGIN = "sender"
SECRET = "mta_" + 12 * "b0a7"  # a key in our daemon, a password of sasldb in Postfix
PLAIN = base64.b64encode(f"\0{LOGIN}\0{SECRET}".encode())

Waiting = Generator[int, None, None]  # yields the event that the socket waits for
REPLY = re.compile(rb"(?:\d{3}-[^\n]*\n)*(\d{3})(?: [^\n]*)?\n")


class Unexpected(Exception):
    """The server does not do what it is here for."""


class Session:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._in = b""
        self.pipelining = False

    def open(self, context: ssl.SSLContext) -> Waiting:
        """Connect, encrypt, authenticate."""
        plain = socket.create_connection(("127.0.0.1", self._port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setblocking(False)
        self.socket: socket.socket = plain
        yield from self._expect(b"220")
        yield from self.converse(b"EHLO source.test\r\n", b"250")
        yield from self.converse(b"STARTTLS\r\n", b"220")
        encrypted = context.wrap_socket(plain, do_handshake_on_connect=False)
        self.socket = encrypted
        yield from self._handshake(encrypted)
        yield from self.converse(b"EHLO source.test\r\n", b"250")
        self.pipelining = b"PIPELINING" in self._last
        yield from self.converse(b"AUTH PLAIN %b\r\n" % PLAIN, b"235")

    def close(self) -> Waiting:
        yield from self.converse(b"QUIT\r\n", b"221")
        self.socket.close()

    def send(self, content: bytes) -> Waiting:
        """One message."""
        envelope = (b"MAIL FROM:<a@src0.test>\r\n", b"RCPT TO:<b@dst0.test>\r\n", b"DATA\r\n")
        codes = (b"250", b"250", b"354")
        if self.pipelining:
            yield from self.converse(b"".join(envelope), *codes)
        else:
            for command, code in zip(envelope, codes, strict=True):
                yield from self.converse(command, code)
        yield from self.converse(content, b"250")

    def converse(self, octets: bytes, *codes: bytes) -> Waiting:
        """Write all of it, then read the replies with these codes."""
        rest = memoryview(octets)
        while rest:
            try:
                rest = rest[self.socket.send(rest) :]
            except (ssl.SSLWantWriteError, BlockingIOError):
                yield selectors.EVENT_WRITE
            except ssl.SSLWantReadError:
                yield selectors.EVENT_READ
        yield from self._expect(*codes)

    def _expect(self, *codes: bytes) -> Waiting:
        for code in codes:
            while (reply := REPLY.match(self._in)) is None:
                try:
                    received = self.socket.recv(65536)
                except (ssl.SSLWantReadError, BlockingIOError):
                    yield selectors.EVENT_READ
                    continue
                if not received:
                    raise Unexpected(f"the server hung up: {self._in!r}")
                self._in += received
            self._last, self._in = reply[0], self._in[reply.end() :]
            if reply[1] != code:
                raise Unexpected(f"the server did not say {code.decode()}: {reply[0].decode()}")

    @staticmethod
    def _handshake(encrypted: ssl.SSLSocket) -> Waiting:
        while True:
            try:
                encrypted.do_handshake()
                return
            except ssl.SSLWantReadError:
                yield selectors.EVENT_READ
            except ssl.SSLWantWriteError:
                yield selectors.EVENT_WRITE


def _work(
    session: Session, jobs: Iterator[int], keep: bool, content: bytes, context: ssl.SSLContext
) -> Waiting:
    """One sender: messages until there are no more."""
    is_open = False
    for _ in jobs:
        if not is_open:
            yield from session.open(context)
            is_open = True
        yield from session.send(content)
        if not keep:
            yield from session.close()
            is_open = False
    if is_open:
        yield from session.close()


def send(port: int, messages: int, sessions: int, keep: bool, size: int) -> None:
    """Send so many messages with bodies of `size` octets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    jobs = iter(range(messages))
    content = _content(size)
    with selectors.DefaultSelector() as selector:
        for _ in range(min(sessions, messages)):
            session = Session(port)
            _advance(selector, session, _work(session, jobs, keep, content, context))
        while selector.get_map():
            for key, _events in selector.select():
                selector.unregister(key.fileobj)
                _advance(selector, *key.data)


def _advance(selector: selectors.BaseSelector, session: Session, work: Waiting) -> None:
    """Go on until the socket has to wait."""
    event = next(work, None)
    if event is not None:
        selector.register(session.socket, event, (session, work))


def _content(size: int) -> bytes:
    lines, rest = divmod(size, 80)
    body = b"x" * 78 + b"\r\n"
    header = b"From: <a@src0.test>\r\nTo: <b@dst0.test>\r\nSubject: benchmark\r\n\r\n"
    return header + body * lines + b"x" * max(rest - 2, 0) + b"\r\n.\r\n"
