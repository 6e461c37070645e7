"""Who may submit, as whom, from where and how much.

Between: the spool keeps credentials, authentication hands one to the session, admission asks it.
Contract: a `Credential` that exists is valid: senders and networks are brought to one written form.
    A sender pattern is `user@example.com`, `example.com` (any address at it) or `*` (any). The null
    envelope sender is anybody's: then From alone says whose mail it is. `message_size` is octets,
    `recipients` counts those of one message, `rate` all of them. Mail that names none of `streams` is of the
    first, `stream`.
Raises: ValueError, whose text says what to write.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mta.core.limits.order import HIGHEST, LOWEST
from mta.core.limits.throttle import Rate
from mta.core.mail.address import PathError, a_label, parse
from mta.core.networks import client_address, parse_networks

AuthKind = Literal["password", "key", "network"]  # network: the client's address is the credential

ANY = "*"
LONGEST_LOGIN = 255  # octets
LONGEST_DELAY = 365 * 86400.0  # seconds; whoever wants more has a calendar


@dataclass(frozen=True)
class Credential:
    """One entitlement to submit; `login` is the user name and its key."""

    login: str
    tenant: str
    stream: str
    senders: tuple[str, ...] = (ANY,)
    message_size: int | None = None
    recipients: int | None = None
    rate: Rate | None = None
    networks: tuple[str, ...] = ()  # where from; none: anywhere
    notify: bool = True  # tell the sender of failures
    kind: AuthKind = "password"
    priority: int | None = None  # the highest MT-PRIORITY that it may ask for; None: that of its stream
    delay: float | None = None  # seconds, the longest HOLDFOR that it may ask for; None: it may not
    streams: tuple[str, ...] = ()  # all that its mail may be of, `stream` first

    def __post_init__(self) -> None:
        object.__setattr__(self, "streams", tuple(dict.fromkeys((self.stream, *self.streams))))
        for name in ("login", "tenant"):
            _check_name(name, getattr(self, name))
        for stream in self.streams:
            _check_name("stream", stream)
        for name in ("message_size", "recipients"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise ValueError(f"{name} must be at least 1: to forbid submission, remove the credential")
        if self.rate is not None and (self.rate.amount < 1 or self.rate.period <= 0):
            raise ValueError("rate must allow at least one recipient: write 100/min")
        if self.priority is not None and not LOWEST <= self.priority <= HIGHEST:
            raise ValueError(f"priority is a whole number from {LOWEST} to {HIGHEST}")
        if self.delay is not None and not 1 <= self.delay <= LONGEST_DELAY:
            raise ValueError(f"delay is at least 1s and at most {LONGEST_DELAY / 86400:.0f}d")
        if not self.senders:
            raise ValueError("a credential needs a sender: user@example.com, example.com or *")
        if self.kind == "network" and not self.networks:
            raise ValueError("a credential without a secret needs the networks that may use it")
        object.__setattr__(self, "senders", parse_senders(self.senders))
        object.__setattr__(self, "networks", tuple(str(network) for network in parse_networks(self.networks)))

    def allows(self, address: str) -> bool:
        """May mail be sent from this address? The null sender is ""."""
        if ANY in self.senders:
            return True
        local, at, domain = address.rpartition("@")
        try:
            domain = a_label(domain) if at else ""
        except PathError:
            return False
        return bool(at) and (domain in self.senders or f"{local.lower()}@{domain}" in self.senders)

    def allows_client(self, ip: str) -> bool:
        """May a client at this numeric address use it?"""
        client = client_address(ip)
        return not self.networks or any(client in network for network in parse_networks(self.networks))


def parse_senders(texts: Iterable[str]) -> tuple[str, ...]:
    """Sender patterns in the form that they are compared in."""
    return tuple(dict.fromkeys(_sender(text) for text in texts))


def check_senders(texts: Iterable[str]) -> None:
    """Refuse patterns that no address can match (`a@b@example.com`).

    Only new ones are asked this: in a credential that is stored such a pattern does no harm, and to refuse it
    would shut out everybody.
    """
    for text in texts:
        if "@" not in text:
            continue
        try:
            path, parameters = parse(b"FROM", f"FROM:<{text}>".encode())
        except PathError:
            raise ValueError(_no_sender(text)) from None
        if path.address != text or parameters:  # `@host:user@example.com`, `user@example.com> SIZE=1`
            raise ValueError(_no_sender(text))


def _no_sender(text: str) -> str:
    return f"{text!r} is not a sender: write user@example.com, example.com or *"


def _sender(text: str) -> str:
    words = _no_sender(text)
    if text == ANY:
        return ANY
    local, at, domain = text.rpartition("@")
    if bool(local) != bool(at) or not local.isprintable() or " " in local:
        raise ValueError(words)
    try:
        return f"{local.lower()}{at}{a_label(domain)}"
    except PathError:
        raise ValueError(words) from None


def _check_name(name: str, text: str) -> None:
    if not text or not text.isprintable() or " " in text or len(text.encode()) > LONGEST_LOGIN:
        raise ValueError(f"{text!r} is no {name}: write 1 to {LONGEST_LOGIN} octets without spaces")
