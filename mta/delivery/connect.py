"""Open the best host of a route.

Between: a lane's connection task asks; `smtp.client` opens, the router gives addresses.
Contract: `connect` gives a Connection, or the Outcome for what waits: hosts are tried by preference,
    ties shuffled, each with its addresses, at most 5 addresses in all.
Raises: nothing that a peer can do.
Standards: RFC 5321 5.1 (hosts in order), RFC 7435 (opportunistic TLS), RFC 3207, RFC 7504 (521, 556).
Why: a handshake that fails must not lose mail where clear text was good enough yesterday, so a fresh
    connection goes without; where TLS is required, or a password goes over it, it does not.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from mta.clock import Clock
from mta.core.answers.classify import Judge
from mta.core.answers.status import NO_MAIL
from mta.core.limits.adaptive import OURS
from mta.core.limits.spread import Spread
from mta.core.model import Kind, Outcome, Reply, Scope, Subject
from mta.core.route.routing import Host, Login, Route, within_reach
from mta.core.route.source import Source
from mta.delivery.router import Router
from mta.smtp.client import Connection, PeerError, SourceError, TlsError, open_connection

MAX_ADDRESSES = 5
_SAID = (Subject.DNS, Subject.SOURCE)  # their words are the whole of it
_NOT_US = (Subject.DESTINATION, Subject.RECIPIENT)


class Connector:
    """Dials for lanes."""

    def __init__(self, router: Router, clock: Clock) -> None:
        self._router = router
        self._clock = clock
        # One context for all: loading a CA store takes longer than many a delivery.
        self._opportunistic = ssl.create_default_context()
        self._opportunistic.check_hostname = False
        self._opportunistic.verify_mode = ssl.CERT_NONE
        self._verified = ssl.create_default_context()

    async def connect(
        self, route: Route, source: Source, judge: Judge, spread: Spread
    ) -> Connection | Outcome:
        """A connection to the first host that talks to us; hosts that are shunned last."""
        tried = 0
        said: list[str] = []
        last: Outcome | None = None
        final: set[Host] = set()  # those that never take mail
        for host in self._in_order(route.hosts, spread):
            addresses = await self._router.addresses(host, route)
            if not isinstance(addresses, Outcome):
                addresses = within_reach(host, addresses, source)
            if isinstance(addresses, Outcome):
                said.append(addresses.reply.text)
                # A host that cannot be looked up now is worth another try; one that is wrong is not.
                if addresses.kind is Kind.BOUNCED:
                    final.add(host)
                if last is None or last.kind is Kind.BOUNCED:
                    last = addresses
                continue
            for address in addresses[: MAX_ADDRESSES - tried]:
                tried += 1
                spread.dialled(host.name)
                connection: Connection | None = None
                try:
                    connection = await self._open(host, address, route, source)
                    return connection
                except SourceError as error:
                    text = f"the source {source.name} ({source.address}) cannot be used: {error}"
                    return Outcome(Kind.DEFERRED, Subject.SOURCE, Scope.SOURCE, Reply(451, "4.3.5", text))
                except PeerError as error:
                    said.append(f"{host.name} [{address}]: {error}")
                    last = _unreachable(host, error, judge)
                    if last.kind is Kind.BOUNCED:
                        if route.login is None:  # what serves us by contract is in trouble
                            final.add(host)
                        break  # it is about the host, whatever address it has
                    if last.subject in OURS:
                        return last  # it is about us: another door of the same house is no other answer
                finally:
                    if connection is None:
                        spread.closed(host.name)
        assert last is not None, "a route without hosts"
        if last.kind is Kind.BOUNCED and final != set(route.hosts):
            last = last._replace(kind=Kind.DEFERRED)
        return _worded(last, said)

    def _in_order(self, hosts: Sequence[Host], spread: Spread) -> list[Host]:
        """By preference, equals by how many connections they have, then shuffled (RFC 5321 5.1)."""
        now, dice = self._clock.monotonic(), self._clock.dice

        def rank(host: Host) -> tuple[object, ...]:
            return spread.is_shunned(host.name, now), host.preference, spread.rank(host.name, now), dice()

        return sorted(hosts, key=rank)

    async def _open(self, host: Host, address: str, route: Route, source: Source) -> Connection:
        secret = route.login is not None and not ip_address(address).is_loopback
        if route.tls_required or secret:
            return await self._open_with(host, address, route, source, self._verified, required=True)
        try:
            return await self._open_with(host, address, route, source, self._opportunistic)
        except TlsError as error:
            connection = await self._open_with(host, address, route, source, None)
            connection.note = f"in the clear: {error}"
            return connection

    async def _open_with(
        self,
        host: Host,
        address: str,
        route: Route,
        source: Source,
        context: ssl.SSLContext | None,
        *,
        required: bool = False,
    ) -> Connection:
        login = None if route.login is None else await asyncio.to_thread(_read, route.login)
        return await open_connection(
            host=host.name,
            address=address,
            port=host.port,
            ehlo=source.hostname,
            source=source.address,
            clock=self._clock,
            tls_context=context,
            tls_required=required,
            login=login,
        )


def _read(login: Login) -> tuple[str, str]:
    """The user and the password."""
    try:
        return login.user, Path(login.password_file).read_text("utf-8").strip()
    except OSError as error:
        raise PeerError(f"the password file of the route cannot be read: {error}") from error
    except ValueError:  # its words quote an octet
        raise PeerError("the password file of the route cannot be read: it is not UTF-8") from None


def _unreachable(host: Host, error: PeerError, judge: Judge) -> Outcome:
    if error.reply is not None:
        # A 5yz greeting is about this connection, not about the mail: it is tried again. But for RFC 7504.
        said = judge(error.reply, error.command)
        final = error.reply.code in NO_MAIL and said.permanent and said.subject in _NOT_US
        kind = Kind.BOUNCED if final else Kind.DEFERRED
        return Outcome(kind, said.subject, said.scope, error.reply, host.name, error.command, said)
    subject = Subject.TLS if isinstance(error, TlsError) else Subject.NETWORK
    reply = Reply(451, error.status, str(error))
    return Outcome(Kind.DEFERRED, subject, Scope.SITE, reply, host.name, error.command)


def _worded(last: Outcome, said: list[str]) -> Outcome:
    """The outcome of a plan that is used up, with what every host said."""
    if last.kind is Kind.BOUNCED or last.subject in _SAID or last.verdict is not None:
        return last
    what = "No host is as safe as it must be" if last.subject is Subject.TLS else "No host answered"
    text = f"{what}; it is tried again: " + "; ".join(said)
    return last._replace(reply=last.reply._replace(text=text[:1000]))
