"""The UDP sockets towards one name server.

Between: `servers` sends questions; a socket hands what fits one of them back to it.
Contract: a socket is connected, so the system drops what comes from elsewhere. It holds `ROOM` questions, and
    is used for `LIFE` of them (`LIFE_AWAY` where the server is another machine), while any waits; with the
    last one it closes. At most `PORTS` sockets; then the questions share those. What fits no question is
    `ignored`.
Raises: OSError where no socket can be had.
Standards: RFC 5452 9.2 (each question has an id, and few have a port, that nobody can guess).
Why: a socket for each question costs more than the question. Linux chooses the port of a socket that is not
    bound at random. What waits in a socket of the system while we are busy must fit in it: hence `ROOM`.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Protocol

from mta.config.settings import Endpoint

ROOM = 64  # questions that wait at a socket
LIFE = 1024  # questions, to a server on this machine: nobody can forge its address
LIFE_AWAY = 16
PORTS = 64  # sockets for one server
BUFFER = 4096  # octets; nobody may send us more than we have said
BURST = 64  # datagrams of one socket, before others have their turn
IDS = 512  # ids made at once


class Datagram(Protocol):
    """A question that was sent to one server."""

    port: Port
    id: bytes

    def received(self, packet: bytes) -> bool: ...

    def broken(self, error: OSError) -> None: ...


class Ports:
    """All sockets towards one server."""

    def __init__(self, server: Endpoint, ignored: Callable[[], object]) -> None:
        self.server = server
        self.ignored = ignored
        self.family = _family(server.host)
        self.open: list[Port] = []
        self._life = LIFE if server.is_loopback else LIFE_AWAY
        self._newest: Port | None = None
        self._ids: list[bytes] = []

    def send(self, datagram: Datagram, query: bytes) -> None:
        """Ask; `query` lacks its id."""
        port = self._chosen()
        number = self.id()
        while number in port.waiting:
            number = self.id()
        datagram.port, datagram.id = port, number
        port.send(datagram, number + query)

    def closed(self, port: Port) -> None:
        """It is gone."""
        self.open.remove(port)
        if port is self._newest:
            self._newest = None

    def _chosen(self) -> Port:
        if not self.family:
            raise OSError("it is no address")  # and to look it up would take a name server
        newest = self._newest
        if newest is not None and newest.used < self._life and len(newest.waiting) < ROOM:
            return newest
        if len(self.open) >= PORTS:
            return min(self.open, key=lambda port: len(port.waiting))
        self._newest = newest = Port(self)
        self.open.append(newest)
        return newest

    def id(self) -> bytes:
        if not self._ids:
            dice = os.urandom(2 * IDS)
            self._ids = [dice[at : at + 2] for at in range(0, 2 * IDS, 2)]
        return self._ids.pop()


class Port:
    """One socket, and who waits at it, by id."""

    __slots__ = ("_loop", "_ports", "_socket", "used", "waiting")

    def __init__(self, ports: Ports) -> None:
        self.waiting: dict[bytes, Datagram] = {}
        self.used = 0
        self._ports = ports
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(ports.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.connect(ports.server)
            self._loop.add_reader(self._socket.fileno(), self._readable)
        except BaseException:
            self._socket.close()
            raise

    def send(self, datagram: Datagram, packet: bytes) -> None:
        """Whoever asks waits here until it is forgotten, or `broken` is called."""
        self.used += 1
        self.waiting[datagram.id] = datagram
        try:
            self._socket.send(packet)
        except (BlockingIOError, InterruptedError):
            pass  # lost, as on any way
        except OSError as error:
            self._broken(error)

    def forget(self, number: bytes) -> None:
        """Nobody waits for this answer any more."""
        if self.waiting.pop(number, None) is not None and not self.waiting:
            self._close()

    def _readable(self) -> None:
        for _ in range(BURST):
            if not self.waiting:
                return
            try:
                packet = self._socket.recv(BUFFER)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:  # ECONNREFUSED: ICMP says that nobody listens there
                self._broken(error)
                return
            datagram = self.waiting.get(packet[:2])
            if datagram is None or not datagram.received(packet):
                self._ports.ignored()

    def _broken(self, error: OSError) -> None:
        waiting, self.waiting = self.waiting, {}
        self._close()
        for datagram in waiting.values():
            datagram.broken(error)

    def _close(self) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._ports.closed(self)


def _family(host: str) -> int:
    """That of an address; 0 of what is none."""
    try:
        return socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        return 0
