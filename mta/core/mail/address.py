"""Envelope addresses and ESMTP parameters: the argument of MAIL and RCPT.

Between: the SMTP server hands in what follows the verb; admission and the router read the result.
Contract: `parse` takes b"FROM:<a@b.test> SIZE=10" and gives an `EnvelopePath` and the parameters with
    upper-case names. The null sender is the empty address. `domain` is the lower-case A-label form; the
    address itself is kept as it was written, UTF-8 where SMTPUTF8 was declared; nothing in it breaks a line
    or turns the direction of what stands behind it.
Raises: PathError, carrying the reply to give.
Standards: RFC 5321 4.1.2 (path grammar), 4.5.3.1 (sizes), RFC 6531 3.3 (UTF-8), RFC 5890 (A-labels).
Why: library validators are for sign-up forms; they refuse what a mail server has to relay.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

import idna
import msgspec

from mta.core.mail.text import UNFIT
from mta.core.model import Reply

# The ninety-nine in a hundred: an atom or dotted atoms at a name. Dots are not policed: a..b@ is no
# Dot-string, but carriers have given such addresses out and their servers take them.
_PLAIN = re.compile(
    rb"(FROM|TO): ?<([A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64})@([A-Za-z0-9._-]{1,255})>(?: ++(.*+))?+",
    re.I | re.S,
)
_COMMAND = re.compile(rb"(FROM|TO):[ \t]*+<(.*+)", re.I | re.S)
# A source route: accepted and ignored, RFC 5321 appendix F.2. Each @ begins a host and nothing else:
# otherwise a line of them is tried in every way there is, before anybody has authenticated.
_ROUTE = re.compile(r"@[^@,:<>\s]++(?:,@[^@,:<>\s]++)*+:")
_ATOM = re.compile(rf"(?:[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~.-]|[^\x00-\x7f{UNFIT}])++")
_QUOTED = re.compile(rf'"(?:[^"\\{UNFIT}]|\\[ -~])*+"')
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_DOMAIN = re.compile(rf"(?=.{{1,255}}$){_LABEL}(?:\.{_LABEL})*")
_WORD = re.compile(r"[^ \t]++")
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*+)(?:=([!-<>-~\u0080-\U0010ffff]++))?+")


class EnvelopePath(msgspec.Struct, frozen=True):
    """One mailbox of the envelope."""

    address: str
    domain: str


NULL = EnvelopePath("", "")
Parameters = dict[str, str | None]
_NONE: Parameters = {}


class PathError(Exception):
    """The argument cannot be read; `reply` says why."""

    def __init__(self, code: int, enhanced: str, text: str) -> None:
        super().__init__(text)
        self.reply = Reply(code, enhanced, text)


def parse(keyword: bytes, argument: bytes) -> tuple[EnvelopePath, Parameters]:
    """Read the argument of MAIL (keyword FROM) or RCPT (keyword TO)."""
    plain = _PLAIN.fullmatch(argument)
    if plain is not None:
        word, local, name, rest = plain.groups()
        if word.upper() == keyword:
            domain = name.decode()
            path = EnvelopePath(f"{local.decode()}@{domain}", a_label(domain))
            return path, parameters(rest.decode("utf-8", "replace")) if rest else _NONE
    return _parse_any(keyword, argument)


def _parse_any(keyword: bytes, argument: bytes) -> tuple[EnvelopePath, Parameters]:
    command = _COMMAND.fullmatch(argument)
    if command is None or command[1].upper() != keyword:
        verb = "MAIL" if keyword == b"FROM" else "RCPT"
        raise PathError(501, "5.5.4", f"Syntax: {verb} {keyword.decode()}:<address>")
    try:
        text = command[2].decode()
    except UnicodeDecodeError:
        raise PathError(501, "5.5.4", "The address is not UTF-8") from None
    route = _ROUTE.match(text)
    text = text[route.end() :] if route else text
    if text.startswith(">"):
        if keyword != b"FROM":
            raise PathError(501, "5.1.3", "A recipient cannot be empty")
        return NULL, parameters(text[1:].strip(" \t"))
    local = _QUOTED.match(text) or _ATOM.match(text)
    if local is None or len(local[0].encode()) > 64:
        raise PathError(501, "5.1.3", "The local part is not valid")
    if text[local.end() : local.end() + 1] != "@":
        raise PathError(501, "5.1.3", "The address needs a domain: local@domain")
    domain, bracket, rest = text[local.end() + 1 :].partition(">")
    if not bracket or (rest and rest[0] not in " \t"):
        raise PathError(501, "5.5.4", "The address is not closed by >")
    return EnvelopePath(f"{local[0]}@{domain}", a_label(domain)), parameters(rest.strip(" \t"))


def ascii_address(address: str) -> tuple[str, str]:
    """An address as it is said where UTF-8 is not understood, if it can be, and its domain as an A-label."""
    local, _, domain = address.rpartition("@")
    try:
        label = a_label(domain)
    except PathError:
        return address, domain.lower()
    return (address if address.isascii() or not local.isascii() else f"{local}@{label}"), label


@lru_cache(maxsize=10_000)
def a_label(domain: str) -> str:
    """A domain, or an address literal, in the form that is looked up and compared."""
    if domain.startswith("["):
        return _literal(domain)
    try:
        name = domain.lower() if domain.isascii() else idna.encode(domain, uts46=True).decode()
    except idna.IDNAError as error:
        raise PathError(501, "5.1.3", f"The domain is not valid: {str(error)[:80]}") from None
    if not _DOMAIN.fullmatch(name):
        raise PathError(501, "5.1.3", "The domain is not valid")
    return name


def _literal(domain: str) -> str:
    inner = domain[1:-1] if domain.endswith("]") else ""
    try:
        if "%" in inner:  # a zone means something on one host only, and takes any text
            raise ValueError(inner)
        if inner[:5].upper() == "IPV6:":
            return f"[IPv6:{ipaddress.IPv6Address(inner[5:])}]"
        return f"[{ipaddress.IPv4Address(inner)}]"
    except ValueError:
        raise PathError(501, "5.1.3", "The address literal is not valid") from None


def parameters(text: str) -> Parameters:
    """`NAME=value NAME` -> {"NAME": "value", "NAME": None}; names are upper-cased, values are kept."""
    found: Parameters = {}
    for word in _WORD.findall(text):
        parameter = _PARAMETER.fullmatch(word)
        if parameter is None:
            raise PathError(501, "5.5.4", f"Not a parameter: {word[:40]}")
        name = parameter[1].upper()
        if name in found:
            raise PathError(501, "5.5.4", f"{name[:40]} is given twice")
        found[name] = parameter[2]
    return found
