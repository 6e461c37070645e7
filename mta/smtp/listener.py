"""One listening address and the connections on it.

Between: the daemon starts and drains listeners; `smtp.connection`s join and leave.
Contract: `start` binds (port 0: the system chooses; `endpoint` says which); `drain` stops accepting,
    sends idle clients and strangers away (421 4.3.2), waits for the others up to the grace, then aborts them.
Raises: OSError from `start` where the address cannot be bound.
Standards: RFC 5321 3.8 (421 on shutdown), 4.5.3.2 (time-outs).
Why: one sweep a second over all connections instead of a timer for each command.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

from mta.clock import Clock, Every
from mta.core.limits.room import Share
from mta.smtp.connection import GOING_DOWN, ClientConnection, ClientTerms
from mta.smtp.rests import Rests

SWEEP = 1.0  # seconds
BACKLOG = 1024


class Listener:
    """What its connections share, and who they are."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        hostname: str,
        clock: Clock,
        terms: ClientTerms,
        memory: Share,
        rests: Rests,
        tls_context: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        offers_auth: bool = False,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        bug: Callable[[BaseException], None],
        handshake_failed: Callable[[str, BaseException], object] = lambda client, error: None,
        connect: Callable[[Listener], ClientConnection],
    ) -> None:
        self._host, self._port = host, port
        self.hostname = hostname
        self.clock = clock
        self.terms = terms  # of the transactions to come
        self.memory = memory
        self.rests = rests
        self.tls_context = None if implicit_tls else tls_context
        self.implicit_tls = tls_context if implicit_tls else None
        self.offers_auth = offers_auth
        self.draining = False
        self.spawn = spawn  # runs a verb that waits; the verb answers for its own errors
        self._bug = bug
        self.handshake_failed = handshake_failed
        self._connect = connect
        self.connections: set[ClientConnection] = set()
        self._sweeps = Every(clock, SWEEP, self._sweep, self.bug)
        self._empty = asyncio.Event()

    async def start(self) -> None:
        """Bind and accept."""
        loop = asyncio.get_running_loop()
        template = self._connect(self)
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self._host, self._port))
            self._server = await loop.create_server(template.copy, sock=listening, backlog=BACKLOG)
        except BaseException as error:
            listening.close()
            if isinstance(error, OSError):
                words = f"cannot listen at {self._host} port {self._port}: {error.strerror}"
                raise OSError(error.errno, words) from error
            raise
        self.host, self.port = listening.getsockname()[:2]
        self._sweeps.start()

    async def drain(self, grace: float) -> None:
        """Stop accepting and let transactions under way come to their end."""
        self._server.close()
        self.draining = True
        for connection in list(self.connections):
            if connection.is_idle or connection.is_shaking or connection.is_stranger:
                connection.hang_up(GOING_DOWN)
        if self.connections:
            overdue = self.clock.call_later(grace, self._abort_all)
            await self._empty.wait()
            overdue.cancel()
        self._sweeps.stop()

    def _abort_all(self) -> None:
        for connection in list(self.connections):
            connection.abort()

    def _sweep(self) -> None:
        now = self.clock.monotonic()
        for connection in list(self.connections):
            try:
                connection.time_out(now)
            except Exception as error:
                self.bug(error)

    # What connections ask

    def joined(self, connection: ClientConnection) -> None:
        self.connections.add(connection)
        self._empty.clear()

    def left(self, connection: ClientConnection) -> None:
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    def bug(self, error: BaseException) -> None:
        """An error of ours in a connection."""
        self._bug(error)
