"""What goes wrong with a peer before the first transaction, in words.

Between: `smtp.dial`, `smtp.opening` and `smtp.client` raise it, `delivery.connect` makes outcomes of it.
Contract: every text is one line, fit to be written anywhere: neither a library's words nor Python's.
Raises: nothing but what it is there for.
Why: whether to ask the next host, to do without TLS or to blame our own machine follows from what it was.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiosmtplib

from mta.clock import Clock, timeout
from mta.core.answers.reply import reply_of
from mta.core.mail.text import heard
from mta.core.model import Reply

COMMAND_TIMEOUT = 300.0  # seconds: EHLO, STARTTLS, AUTH
MAX_SAID = 500  # characters of what a peer, or the system, says before the first transaction
NO_AUTH = "offers no AUTH that we know, and the route has a password"


class PeerError(Exception):
    """The peer would not, or could not, talk; `reply` is what it said to `command`, if it said anything."""

    status = "4.4.1"  # RFC 3463, where the peer gave none

    def __init__(self, text: str, reply: Reply | None = None, command: str = "CONNECT") -> None:
        super().__init__(_words(text))
        self.reply = reply
        self.command = command


class LocalError(PeerError):
    """It is this machine that cannot: no network, no way, no free port, no password."""


class SourceError(LocalError):
    """Our own address cannot be bound."""


class TlsError(PeerError):
    """TLS is required and cannot be had."""

    status = "4.7.5"

    def __init__(self, text: str) -> None:
        super().__init__(text, None, "STARTTLS")


class HandshakeError(TlsError):
    """TLS was offered, and came to nothing before the first reply behind the handshake.

    `is_decided` where the peer's own TLS says why (an alert), or it hangs up when it has seen all of ours: it
    would do so again. What was cut before, or hangs, may be weather. It has not begun where STARTTLS itself
    was refused.
    """

    def __init__(self, text: str, is_decided: bool = False, has_begun: bool = True) -> None:
        super().__init__(text)
        self.is_decided = is_decided
        self.has_begun = has_begun


def _words(said: str) -> str:
    """All that libraries, the system and peers say before the first transaction comes through here."""
    return heard(" ".join(said[: 2 * MAX_SAID].split()), MAX_SAID)


@asynccontextmanager
async def step(
    command: str, clock: Clock, seconds: float = COMMAND_TIMEOUT, awaited: str = ""
) -> AsyncIterator[None]:
    """One command and its answer; what goes wrong is a PeerError that names it."""
    try:
        async with timeout(clock, seconds):
            yield
    except aiosmtplib.SMTPResponseException as error:
        raise refused(error, command) from error
    except (aiosmtplib.SMTPException, OSError, ValueError) as error:
        awaited = awaited or f"the answer to {command}"
        raise PeerError(in_words(error, awaited, seconds), None, command) from error


def refused(error: aiosmtplib.SMTPResponseException, command: str) -> PeerError:
    """The peer said no, or nonsense."""
    asked = "the connection" if command == "CONNECT" else command
    if error.code < 0:
        said = error.message.replace("Response too long", "a reply without an end")
        return PeerError(f"answered {asked} with {said}", None, command)
    reply = reply_of(error.code, error.message)
    reply = reply._replace(text=_words(reply.text))
    if not 400 <= error.code < 600:
        return PeerError(f"answered {asked} with {reply}", None, command)
    return PeerError(str(reply), reply, command)


def causes(error: BaseException) -> list[BaseException]:
    """The error and what it was raised from."""
    return [error, *filter(None, (error.__cause__, error.__context__))]


def in_words(error: Exception, awaited: str = "", seconds: float = 0.0) -> str:
    """What happened, for people: neither the library's words nor Python's."""
    found = causes(error)
    for cause in found:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate is not accepted: {cause.verify_message.rstrip('.')}"
        if isinstance(cause, ssl.SSLError) and cause.reason:
            return cause.reason.replace("_", " ").lower()
    if type(error) is TimeoutError and not error.errno:
        return f"timed out: {awaited} did not come in {seconds:.0f} seconds"
    system = next((cause for cause in found if isinstance(cause, OSError) and cause.errno), None)
    why = "" if system is None else os.strerror(system.errno or 0)
    if isinstance(error, aiosmtplib.SMTPServerDisconnected | aiosmtplib.SMTPTimeoutError):
        return f"the connection was lost before {awaited} came" + (f" ({why})" if why else "")
    if isinstance(error, aiosmtplib.SMTPException):  # the only thing that it looks for itself
        return NO_AUTH
    if isinstance(error, ValueError):  # a host's name that is none
        return "its name cannot be used"
    return why or "the connection was lost"
