"""A person's address, wherever it is named in what we have written down.

Between: erasure asks of the spool's addresses and of the event log's lines.
Contract: the address is meant in any case of its letters, its domain as A-label or U-label; `ann+news@` is
    another address. In text the address ends where it could not go on, so `ann@x.test` is not found in
    `joann@x.test` nor in `ann@x.test.example`; a VERP sender names it too (`bounces+ann=x.test@...`).
    A line without it comes back as it was, another as the same JSON with `erased` in its place.
Raises: ValueError where it is given what is no address.
Standards: RFC 5321 2.4 (the case of local part and domain), RFC 5890 (A- and U-labels).
Why: whether `Ann@` is `ann@` is for its host to say. But no large host tells them apart, people write now one
    and now the other, and to leave a person in our files is the worse mistake of the two.
"""

from __future__ import annotations

import re
from typing import Any

import idna
import msgspec

from mta.core.mail.address import PathError, parse

ERASED = "erased"

_encoder = msgspec.json.Encoder()


class Erasure:
    """One address to be forgotten."""

    def __init__(self, address: str) -> None:
        try:
            path, rest = parse(b"TO", f"TO:<{address}>".encode())
        except PathError as error:
            raise ValueError(f"{address!r}: {error}") from None
        if path.address != address or rest:
            raise ValueError(f"{address!r} is not an address: write user@example.com")
        local, _, written = address.rpartition("@")
        self.domain = path.domain
        self._local = local.lower()
        domains = {path.domain, written, *_u_label(path.domain)}
        user = re.escape(local)
        hosts = "|".join(sorted(map(re.escape, domains)))
        self._pattern = re.compile(
            rf"(?<![\w.+-]){user}@(?:{hosts})(?![\w-]|\.\w)|(?<!\w){user}=(?:{hosts})(?=@)", re.IGNORECASE
        )
        # What a line holds in any case that holds the address; JSON writes a quoted local part otherwise.
        hints = domains if '"' in local else {local}
        # Octets have a lower case for ASCII only, and it is looked for in every line of the log.
        self._hints = tuple(hint.encode().lower() for hint in hints) if "".join(hints).isascii() else (b"",)

    def names(self, address: str) -> bool:
        """Is it this person's?"""
        try:
            path, _ = parse(b"TO", f"TO:<{address}>".encode())
        except PathError:
            return False
        return path.domain == self.domain and path.address.rpartition("@")[0].lower() == self._local

    def text(self, text: str) -> str:
        """Without the address."""
        return self._pattern.sub(ERASED, text)

    def line(self, line: bytes) -> bytes:
        """A line of the event log without the address."""
        lowered = line.lower()
        if not any(hint in lowered for hint in self._hints):
            return line
        try:
            event = msgspec.json.decode(line)
        except (UnicodeDecodeError, msgspec.DecodeError):  # not one of ours
            return self.text(line.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
        changed = self._value(event)
        return line if changed == event else _encoder.encode(changed) + b"\n"

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(name): self._value(member) for name, member in value.items()}
        if isinstance(value, list):
            return [self._value(member) for member in value]
        return value


def _u_label(domain: str) -> set[str]:
    try:
        return {idna.decode(domain)}
    except (idna.IDNAError, UnicodeError):  # an underscore, an address literal
        return set()
