"""Open the best host of a route that lets us in.

Between: a lane's connection task asks; `delivery.search` says whom to dial, `smtp` dials and opens.
Contract: `connect` gives a Connection; or the Outcome for what waits; or a Wait, where mail is to come again
    a little later and no attempt is taken.
Raises: nothing that a peer can do.
Standards: RFC 7435 (opportunistic TLS), RFC 3207.
Why: a handshake that fails must not lose mail where clear text was good enough yesterday, so a fresh
    connection goes without, but not before the peer had a while to get well; where TLS is required, or a
    password goes over it, never. What then is refused is of our own making, and never final
    (`core.answers.classify.softened`). Some peers, or what stands before them, hang on a client's hello that
    does not fit into one segment: TLS 1.2 has a small one.
"""

from __future__ import annotations

import asyncio
import ssl
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from mta.clock import Clock
from mta.core.answers.classify import Judge
from mta.core.limits.spread import Spread
from mta.core.model import Kind, Outcome, Reply, Scope, Subject, Wait
from mta.core.route.hosts import TLS_WAIT, Candidate, Rung, TlsState
from mta.core.route.routing import Login, Route
from mta.core.route.source import Source
from mta.delivery.hosts import Hosts
from mta.delivery.router import Router
from mta.delivery.search import SAID_BEFORE, Search
from mta.smtp.client import Connection
from mta.smtp.dial import CONNECT_TIMEOUT, Dialled, dial
from mta.smtp.opening import open_connection
from mta.smtp.trouble import HandshakeError, LocalError, PeerError, SourceError


class Errand(NamedTuple):
    """What a lane wants a connection for."""

    route: Route
    source: Source
    login: tuple[str, str] | None  # user and password

    def requires_tls(self, address: str) -> bool:
        """A password is for nobody else's ears."""
        is_secret = self.login is not None and not ip_address(address).is_loopback
        return self.route.tls_required or is_secret


class Connector:
    """Dials for lanes."""

    def __init__(self, router: Router, hosts: Hosts, clock: Clock) -> None:
        self._router = router
        self._hosts = hosts
        self._clock = clock
        # One context for all: loading a CA store takes longer than many a delivery.
        self._contexts = {
            (is_verified, rung): _context(is_verified, rung)
            for is_verified in (False, True)
            for rung in (Rung.FULL, Rung.SMALL)
        }

    async def connect(
        self, route: Route, source: Source, judge: Judge, spread: Spread
    ) -> Connection | Outcome | Wait:
        """A connection to the first host that talks to us; hosts that are bad or shunned last."""
        try:
            login = None if route.login is None else await asyncio.to_thread(_read, route.login)
        except LocalError as error:
            return Outcome(Kind.DEFERRED, Subject.NETWORK, Scope.SITE, Reply(451, "4.3.5", str(error)))
        search = Search(route, source, self._router, self._hosts, self._clock, judge, spread)
        while (candidate := await search.next()) is not None:
            opened: Connection | Outcome | None = None
            spread.dialled(candidate.host.name)
            try:
                opened = await self._open(candidate, Errand(route, source, login), search)
            except SourceError as error:
                text = f"the source {source.name} ({source.address}) cannot be used: {error}"
                return Outcome(Kind.DEFERRED, Subject.SOURCE, Scope.SOURCE, Reply(451, "4.3.5", text))
            finally:
                if not isinstance(opened, Connection):
                    spread.closed(candidate.host.name)
            if isinstance(opened, Connection):
                search.connected()
            if opened is not None:
                return opened
        return search.outcome()

    async def _open(
        self, candidate: Candidate, errand: Errand, search: Search
    ) -> Connection | Outcome | None:
        """A connection, or what speaks for all hosts, or neither."""
        port, missed = candidate.host.port, partial(search.missed, candidate)
        seconds = min(CONNECT_TIMEOUT, *map(candidate.patience, candidate.addresses))
        try:
            dialled = await dial(
                candidate.addresses, port, errand.source.address, self._clock, missed, seconds
            )
        except SourceError:
            raise
        except PeerError:
            return None  # the search has heard of each address
        try:
            return await self._climb_down(dialled, candidate, errand, search)
        except PeerError as error:
            return search.failed(candidate, dialled.address, error)

    async def _climb_down(
        self, dialled: Dialled, candidate: Candidate, errand: Errand, search: Search
    ) -> Connection:
        """The best way to secure a connection that works, each tried on a connection of its own."""
        address, hosts = dialled.address, self._hosts
        peer = candidate.peer(address)
        required = errand.requires_tls(address)
        rungs = hosts.recall(peer).rungs(self._clock.now(), required)
        if not rungs and search.has_waited:
            rungs = Rung.FULL, Rung.CLEAR
        if not rungs:  # since we began to dial
            dialled.socket.close()
            search.waits(hosts.recall(peer).tls_since + TLS_WAIT)
            raise HandshakeError(hosts.recall(peer).tls_why)
        if rungs[0] is not Rung.CLEAR:
            hosts.tls_probed(peer)
        failed: list[HandshakeError] = []
        for rung in rungs:
            if failed and (rung is Rung.CLEAR or not failed[-1].has_begun):
                break
            try:
                if failed:
                    dialled = await self._again(dialled, candidate, errand)
                return await self._open_with(rung, dialled, candidate, errand)
            except HandshakeError as error:
                failed.append(error)
            except PeerError as error:
                if not failed or error.command not in SAID_BEFORE:
                    raise
                break  # who does not let us in again so soon has failed in TLS
        hosts.answered(peer)
        memory = hosts.unsecured(peer, str(failed[0]), failed[0].is_decided)
        if not required and (memory.tls is TlsState.CLEAR or search.has_waited):
            dialled = await self._again(dialled, candidate, errand)
            return await self._open_with(Rung.CLEAR, dialled, candidate, errand)
        if not required:
            search.waits(memory.tls_since + TLS_WAIT)
        raise failed[0]

    async def _again(self, dialled: Dialled, candidate: Candidate, errand: Errand) -> Dialled:
        """Another connection to the same address."""
        port, patience = candidate.host.port, candidate.patience(dialled.address)
        seconds = min(CONNECT_TIMEOUT, patience)
        source = errand.source.address
        return await dial((dialled.address,), port, source, self._clock, _unheard, seconds)

    async def _open_with(
        self, rung: Rung, dialled: Dialled, candidate: Candidate, errand: Errand
    ) -> Connection:
        peer, required = candidate.peer(dialled.address), errand.requires_tls(dialled.address)
        connection = await open_connection(
            dialled,
            host=candidate.host.name,
            ehlo=errand.source.hostname,
            clock=self._clock,
            tls_context=self._contexts.get((required, rung)),
            tls_required=required,
            login=errand.login,
            patience=candidate.patience(dialled.address),
            is_stepwise=self._hosts.recall(peer).is_stepwise(self._clock.now()),
        )
        connection.loses_commands = partial(self._hosts.loses_commands, peer)
        self._hosts.answered(peer)
        if connection.tls:
            self._hosts.secured(peer, rung)
        if rung is Rung.CLEAR:
            connection.note = f"in the clear: {self._hosts.recall(peer).tls_why}"
            connection.wants_tls = partial(self._hosts.refused_in_the_clear, peer)
        return connection


def _unheard(address: str, error: PeerError | None) -> None:
    """The only address that is dialled: its error is raised."""


def _context(is_verified: bool, rung: Rung) -> ssl.SSLContext:
    if is_verified:
        context = ssl.create_default_context()
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if rung is Rung.SMALL:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def _read(login: Login) -> tuple[str, str]:
    """The user and the password."""
    try:
        return login.user, Path(login.password_file).read_text("utf-8").strip()
    except OSError as error:
        raise LocalError(f"the password file of the route cannot be read: {error}") from error
    except ValueError:  # its words quote an octet
        raise LocalError("the password file of the route cannot be read: it is not UTF-8") from None
