"""Connect to one of several addresses of a host.

Between: `delivery.connect` gives the addresses; `smtp.opening` greets over the socket.
Contract: addresses are numeric, at least one, in the order to try them. The next one begins `HEAD_START`
    seconds after the one before, or when that has failed; who is connected first is kept, others are closed.
    `missed` hears of each address that was given its chance, and why it was not kept: None where it had not
    answered when a later one had.
Raises: SourceError where our address cannot be bound, LocalError where this machine has no way to any of
    them, else PeerError.
Standards: RFC 8305 5 (a quarter of a second), RFC 5321 4.5.3.2.
Why: one of both families is broken at many a host, or here, and a connection to nowhere takes half a minute
    to fail. Only this step races: a second greeting would cost a peer that counts connections.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mta.clock import Clock, timeout
from mta.smtp.trouble import LocalError, PeerError, SourceError, causes, in_words, step

CONNECT_TIMEOUT = 30.0  # seconds; a host that is up answers in a few
HEAD_START = 0.25  # seconds, RFC 8305 5
_OURS = {errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPERM}

Missed = Callable[[str, PeerError | None], None]


class Dialled(NamedTuple):
    """A connected socket, and to whom."""

    socket: socket.socket
    address: str


async def dial(
    addresses: Sequence[str], port: int, source: str, clock: Clock, missed: Missed, seconds: float
) -> Dialled:
    """Connect, from the source if there is one; each address has so many seconds."""
    if len(addresses) == 1:
        try:
            return await _connect(addresses[0], port, source, clock, seconds)
        except SourceError:
            raise
        except PeerError as error:
            missed(addresses[0], error)
            raise
    waiting = list(addresses)
    racing: dict[asyncio.Task[Dialled], str] = {}
    last: PeerError | None = None
    try:
        while waiting or racing:
            if waiting:
                address = waiting.pop(0)
                task = asyncio.create_task(_connect(address, port, source, clock, seconds))
                racing[task] = address
            for task in await _ended(list(racing), clock, HEAD_START if waiting else None):
                address = racing.pop(task)
                try:
                    won = task.result()
                except PeerError as error:
                    missed(address, error)
                    if last is None or not isinstance(error, LocalError):
                        last = error
                    continue
                for other in racing.values():
                    if addresses.index(other) < addresses.index(address):
                        missed(other, None)
                return won
    finally:
        for task in racing:
            task.cancel()
        for left in await asyncio.gather(*racing, return_exceptions=True):
            if isinstance(left, Dialled):
                left.socket.close()
    assert last is not None, "nobody to dial"
    raise last


async def _ended(
    tasks: list[asyncio.Task[Dialled]], clock: Clock, seconds: float | None
) -> list[asyncio.Task[Dialled]]:
    """Those that are over, in their order, when one is, or none after so many seconds."""
    try:
        if seconds is None:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        else:
            async with timeout(clock, seconds):
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError:
        pass
    return [task for task in tasks if task.done()]


async def _connect(address: str, port: int, source: str, clock: Clock, seconds: float) -> Dialled:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        dialled = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:  # a machine without IPv6
        if error.errno not in _OURS:
            raise
        raise LocalError(in_words(error)) from error
    try:
        dialled.setblocking(False)
        dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source:
            _bind(dialled, source)
        async with step("CONNECT", clock, seconds, "the connection"):
            await asyncio.get_running_loop().sock_connect(dialled, (address, port))
    except PeerError as error:
        dialled.close()
        is_ours = any(isinstance(cause, OSError) and cause.errno in _OURS for cause in causes(error))
        if is_ours and not isinstance(error, SourceError):
            raise LocalError(str(error)) from error
        raise
    except BaseException:
        dialled.close()
        raise
    return Dialled(dialled, address)


def _bind(dialled: socket.socket, source: str) -> None:
    if hasattr(socket, "IP_BIND_ADDRESS_NO_PORT"):
        # The port is chosen when it connects: one of 28,000 for each peer, not for all of them together.
        dialled.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
    try:
        dialled.bind((source, 0))
    except OSError as error:
        raise SourceError(in_words(error)) from error
