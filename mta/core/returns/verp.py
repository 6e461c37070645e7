"""A return path of ours for each recipient: the token in it says whose mail comes back, and that we sent it.

Between: `delivery.returnpath` makes an address for each transaction; who takes what comes back reads it.
Contract: pure. The local part is `b`, the queue id (11 letters) and 24 letters for the position of the
    recipient (22 bits), the week in which the token ends (13 bits), the number of the secret (5 bits) and the
    MAC (80 bits): 36 octets of the 64 that there may be, all letters and figures of Crockford's base 32.
    Upper and lower case are alike, for local parts are folded on their way; no `+`, `-` or `=` stands in it
    for others to cut at, and what they put before a `=` or behind a `+` (BATV, tags) is passed over. A token
    is good for `LIFETIME` and to the end of that week. Of another secret, purpose or domain none is good. The
    first secret makes tokens, all of them read. Times are wall-clock seconds, domains A-labels.
Raises: ValueError from `make` for a position from 4,194,304 on, or a queue id that is none; nothing on what
    others write.
Standards: RFC 5321 4.5.3.1.1 (64 octets), RFC 2104 5 (a MAC that is cut), RFC 6234 (SHA-256).
Why: who could write such an address himself would have our customers' addresses suppressed. 80 bits of the
    MAC are the least that RFC 2104 allows. It also asks for half of the hash, against collisions: those are
    of no use to who does not have the secret and may only ask us. At a million guesses a second he is right
    once in 38 billion years. Long local parts are what forwarders cut, so it has no letter more.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
from collections.abc import Sequence
from typing import NamedTuple

from mta.core.mail.address import ascii_address
from mta.core.queueid import ALPHABET, LENGTH, PAIRS, parse, text

WEEK = 7 * 86400.0  # seconds
LIFETIME = 30 * 86400.0  # seconds; servers try for five days, complaints and forwarded mail take longer
PREFIX = "b"
_PURPOSE = b"mta return path 1"
_MAC = 10  # octets
_FIELDS = 5  # octets
_LETTERS = len(PREFIX) + LENGTH + (_FIELDS + _MAC) * 8 // 5
_LAST_WEEK = (1 << 13) - 1  # in 2126
_POSITIONS = 1 << 22
_SHIFTS = range((_FIELDS + _MAC) * 8 - 10, -1, -10)  # two letters at a time
_RFC4648 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_THEIRS = bytes.maketrans(ALPHABET.encode() + b"ilou", _RFC4648 + b"!!!!")  # these four are no letters here


class Returned(NamedTuple):
    """A recipient of ours whose mail came back."""

    message: int
    n: int  # its position in the envelope


class NotOurs(enum.Enum):
    """Why an address says nothing of our mail."""

    NO_TOKEN = "no token"  # it is not written like one
    FORGED = "forged"  # we have not made it, or not for this domain, or with a secret that we no longer have
    EXPIRED = "expired"


class _Key(NamedTuple):
    """What a secret becomes for this purpose, and for no other."""

    octets: bytes
    number: int


class Verp:
    """Makes and reads addresses with these secrets."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._keys = [_key(secret) for secret in secrets]

    def make(self, message: int, n: int, domain: str, now: float) -> str:
        """The envelope sender for this recipient, from now on."""
        if n >= _POSITIONS:
            raise ValueError(f"no recipient has the position {n} in a message")
        key = self._keys[0]
        week = min(int((now + LIFETIME) // WEEK) + 1, _LAST_WEEK)
        fields = (n << 18 | week << 5 | key.number).to_bytes(_FIELDS, "big")
        sealed = int.from_bytes(fields + _mac(key, message, fields, domain), "big")
        # base64's own is Python, octet by octet: it would take as long as all the rest.
        letters = "".join([PAIRS[sealed >> shift & 1023] for shift in _SHIFTS])
        return f"{PREFIX}{text(message)}{letters}@{domain}"

    def read(self, address: str, now: float) -> Returned | NotOurs:
        """Whose mail comes back to this address."""
        said, domain = ascii_address(address)
        local = said.rpartition("@")[0].rpartition("=")[2].partition("+")[0]
        if len(local) != _LETTERS or not local.isascii() or local[0].lower() != PREFIX:
            return NotOurs.NO_TOKEN
        token = local[len(PREFIX) :].lower()
        try:
            message = parse(token[:LENGTH])
            octets = base64.b32decode(token[LENGTH:].encode().translate(_THEIRS))
        except ValueError:
            return NotOurs.NO_TOKEN
        fields, mac = octets[:_FIELDS], octets[_FIELDS:]
        said_of = int.from_bytes(fields, "big")
        alike = [key for key in self._keys if key.number == said_of & 31]
        if not any(hmac.compare_digest(_mac(key, message, fields, domain), mac) for key in alike):
            return NotOurs.FORGED
        if now // WEEK >= said_of >> 5 & _LAST_WEEK:
            return NotOurs.EXPIRED
        return Returned(message, said_of >> 18)


def _key(secret: bytes) -> _Key:
    octets = hmac.digest(secret, _PURPOSE, "sha256")
    return _Key(octets, hashlib.sha256(octets).digest()[0] & 31)


def _mac(key: _Key, message: int, fields: bytes, domain: str) -> bytes:
    """Everything has its length but the domain, which stands last."""
    said = message.to_bytes(7, "big") + fields + domain.lower().encode()
    return hmac.digest(key.octets, said, "sha256")[:_MAC]
