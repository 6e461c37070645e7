"""DMARC: the record, the walk up the DNS tree, the organisational domain, alignment.

Between: `guard.domains` walks with the answers of DNS; the check of alignment asks.
Contract: pure; domains are lower-case A-labels without a final dot. `TreeWalk` names the next question and
    takes its answer, until there is no question left; then `walked` is the result. A name is asked for at
    most `MAX_QUERIES` times. `alignment` is None where it hangs on what is not known yet.
Raises: nothing.
Standards: RFC 9989 4.7 and 4.8 (records), 4.10 (walk, policy, organisational domain), 4.4 and 5.3
    (alignment).
Why: where an organisation ends its own records say, not a list of suffixes that is as old as its copy. Where
    there is no record at all DMARC does not apply; then one domain that lies below the other is taken for
    the same organisation, since receivers who go by a list take it for that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mta.core.mail.taglist import tags

PREFIX = "_dmarc."
MAX_QUERIES = 8

_VERSION = re.compile(rb"[vV][ \t]*+=[ \t]*+DMARC1[ \t]*+(?:;|\Z)")


class DmarcRecord(NamedTuple):
    """What a record says that alignment needs; a value that cannot be read is the default."""

    dkim_is_strict: bool = False
    spf_is_strict: bool = False
    psd: str = "u"  # y: a public suffix; n: an organisational domain; u: the walk finds out


class Walked(NamedTuple):
    """What a walk has shown of a domain."""

    domain: str
    organisation: str  # the organisational domain
    record: DmarcRecord | None  # that holds for it; None: DMARC does not apply


def parse(record: bytes) -> DmarcRecord | None:
    """One TXT record; None where it is another kind of record."""
    if not _VERSION.match(record):
        return None
    said = {name: value.lower() for name, value in tags(record).items()}
    psd = said.get("psd", "u")
    return DmarcRecord(said.get("adkim") == "s", said.get("aspf") == "s", psd if psd in ("y", "n") else "u")


def one(records: Sequence[bytes]) -> DmarcRecord | None:
    """The record among the TXT records of a name; several are none (RFC 9989 4.10)."""
    found = [each for each in map(parse, records) if each is not None]
    return found[0] if len(found) == 1 else None


class TreeWalk:
    """From a domain towards the root."""

    def __init__(self, domain: str) -> None:
        self.domain = domain
        self._left = _names(domain)
        self._found: dict[str, DmarcRecord] = {}  # from the longest name to the shortest

    @property
    def question(self) -> str:
        """The name whose TXT records are to be asked for; "" at the end."""
        return f"{PREFIX}{self._left[0]}" if self._left else ""

    def answer(self, records: Sequence[bytes]) -> None:
        """The TXT records of that name; none where there are none."""
        name = self._left.pop(0)
        record = one(records)
        if record is not None:
            self._found[name] = record
            if record.psd != "u":
                self._left.clear()

    @property
    def walked(self) -> Walked:
        """The result, at the end."""
        organisation = self._organisation()
        psd = next((each for each in self._found.values() if each.psd == "y"), None)
        record = self._found.get(self.domain) or self._found.get(organisation) or psd
        return Walked(self.domain, organisation, record)

    def _organisation(self) -> str:
        """RFC 9989 4.10.2."""
        shortest = self.domain
        for name, record in self._found.items():
            if record.psd == "n":
                return name
            if record.psd == "y" and name != self.domain:
                labels = self.domain.split(".")
                return ".".join(labels[-name.count(".") - 2 :])
            shortest = name
        return shortest


def _names(domain: str) -> list[str]:
    """Those that are asked for: the domain, then its last seven labels at most, then one less each time."""
    labels = domain.split(".")
    above = [".".join(labels[at:]) for at in range(1, len(labels))]
    return [domain, *above[-(MAX_QUERIES - 1) :]]


def alignment(
    author: str, signers: Sequence[str], path: str, known: Callable[[str], Walked | None]
) -> bool | None:
    """Is the domain in From aligned with the d= of a signature, or with the return path?"""
    if author == path or author in signers:
        return True
    others = [(name, True) for name in signers]
    if path:
        others.append((path, False))
    ours = known(author) if others else None
    if ours is None:
        return None if others else False
    is_known = True
    for name, is_signer in others:
        if ours.record is None:
            if author.endswith(f".{name}") or name.endswith(f".{author}"):
                return True
        elif not (ours.record.dkim_is_strict if is_signer else ours.record.spf_is_strict):
            theirs = known(name)
            is_known = is_known and theirs is not None
            if theirs is not None and theirs.organisation == ours.organisation:
                return True
    return False if is_known else None
