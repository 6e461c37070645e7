"""Make a connection ready for mail: greet, secure, authenticate.

Between: `delivery.connect` hands in a connected socket of `smtp.dial`, and gets a `smtp.client` Connection.
Contract: `open_connection` gives a Connection that is ready for MAIL, or raises; the socket is closed then.
    A password goes only where nobody listens: over TLS to a peer whose certificate was verified, or to
    loopback. `patience` is how many seconds a greeting may take.
Raises: PeerError when the peer refused, was silent or spoke nonsense; TlsError when TLS is required and
    cannot be had; HandshakeError when it was offered and failed, also behind the handshake.
Standards: RFC 5321 4.5.3.2 (time-outs), RFC 3207 (STARTTLS), RFC 4954 (AUTH), RFC 8446 4.4 (TLS 1.3).
Why: with TLS 1.3 our side of a handshake is done before the peer has looked at it. What it thinks of us, such
    as that we show no certificate, comes with the first octets that we read, or as an end of the connection.
"""

from __future__ import annotations

import ssl
from ipaddress import ip_address

import aiosmtplib

from mta.clock import Clock, timeout
from mta.core.answers.capabilities import capabilities
from mta.core.route.hosts import GREETING_TIMEOUT
from mta.smtp.client import Client, Connection
from mta.smtp.dial import Dialled
from mta.smtp.trouble import HandshakeError, PeerError, TlsError, causes, in_words, step

HANDSHAKE_TIMEOUT = 60.0  # seconds
NO_STARTTLS = "offers no STARTTLS, and TLS is required"
NO_SECRET = "the password of the route was kept back: the connection is not secret, or the peer not proved"


async def open_connection(
    dialled: Dialled,
    *,
    host: str,
    ehlo: str,
    clock: Clock,
    tls_context: ssl.SSLContext | None,
    tls_required: bool,
    login: tuple[str, str] | None = None,
    patience: float = GREETING_TIMEOUT,
    is_stepwise: bool = False,
) -> Connection:
    """From a connected socket to MAIL. Without a context: in the clear; stepwise: one command at a time."""
    address = dialled.address
    client = Client(hostname=host, sock=dialled.socket, local_hostname=ehlo, start_tls=False, timeout=None)
    try:
        async with step("CONNECT", clock, patience, "the greeting"):
            await client.connect()
        async with step("EHLO", clock):
            await _greet(client)
        tls = ""
        if tls_context is not None and client.supports_extension("starttls"):
            tls = await _secure(client, tls_context, host, clock)
        if tls_required and not tls:
            raise TlsError(NO_STARTTLS)
        if login is not None:
            if not _keeps_secrets(address, tls, tls_context):
                raise TlsError(NO_SECRET)
            async with step("AUTH", clock):
                await client.login(*login)
        offered = capabilities(client.esmtp_extensions, is_stepwise=is_stepwise)
        return Connection(client, host, address, offered, tls, clock)
    except BaseException:
        client.discard()
        raise


def _keeps_secrets(address: str, tls: str, context: ssl.SSLContext | None) -> bool:
    """May a password go there? Whoever strips STARTTLS, or brings a certificate of his own, waits for it."""
    if ip_address(address).is_loopback:
        return True
    return bool(tls) and context is not None and context.verify_mode is ssl.CERT_REQUIRED


async def _greet(client: Client) -> None:
    try:
        await client.ehlo()
    except aiosmtplib.SMTPHeloError as error:
        if error.code == 421 or error.code < 400:  # a yes that is none
            raise
        await client.helo()  # RFC 5321 3.2: a server from before EHLO


async def _secure(client: Client, context: ssl.SSLContext, host: str, clock: Clock) -> str:
    """The version of TLS that we speak from here on, by the first reply under it."""
    try:
        async with timeout(clock, HANDSHAKE_TIMEOUT):
            await client.starttls(tls_context=context, server_hostname=host or None)
    except aiosmtplib.SMTPResponseException as error:
        if error.code < 0:
            text = f"STARTTLS was answered with {error.message}"
            raise HandshakeError(text, has_begun=False) from error
        text = f"STARTTLS was refused: {error.code} {error.message}"
        raise HandshakeError(text, has_begun=False) from error
    except (aiosmtplib.SMTPException, OSError, ValueError) as error:
        raise _failed(error, in_words(error, "its end", HANDSHAKE_TIMEOUT)) from error
    secured = client.get_transport_info("ssl_object")
    if secured is None or not (version := secured.version()):
        raise HandshakeError("the TLS handshake failed: the connection is in the clear")
    try:
        async with step("EHLO", clock):
            await client.ehlo()  # RFC 3207 4.2: what was offered in the clear does not count
    except PeerError as error:
        if error.reply is not None:
            raise  # it came under TLS: that works
        lost = client.why_lost
        if isinstance(lost, ssl.SSLError):
            raise _failed(lost, in_words(lost)) from error
        is_cut = isinstance(error.__cause__, aiosmtplib.SMTPServerDisconnected)
        raise HandshakeError(f"the TLS handshake failed: {error}", is_decided=is_cut) from error
    return str(version)


def _failed(error: BaseException, why: str) -> TlsError:
    """What a handshake, or what comes right behind it, has met."""
    text = f"the TLS handshake failed: {why}"
    found = [cause for cause in causes(error) if isinstance(cause, ssl.SSLError)]
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in found):
        return TlsError(text)  # TLS itself works; it is the certificate that we do not take
    alerts = [cause.reason for cause in found if cause.reason and "_ALERT_" in cause.reason]
    return HandshakeError(text, any("INTERNAL_ERROR" not in reason for reason in alerts))
