"""What name servers have said, for as long as it holds, and for a while longer.

Between: `resolver` keeps answers here, by their questions in octets.
Contract: times are seconds that never jump. At most `OCTETS` of memory, by an estimate of what an answer
    takes in it; what was not asked for longest goes first. What has expired stays: it may be needed when no
    server answers.
Raises: nothing.
Standards: RFC 2308 (negative answers), RFC 8767 (answers that have expired).
Why: an answer may hold one record or a thousand, so a number of answers bounds nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

from mta.core.route.routing import Mx, Status
from mta.dns.wire import Tlsa

OCTETS = 32 * 2**20
ANSWER = 280  # octets of memory for an answer without its records: key, tuples, numbers, a place in the table
RECORD = 60  # for a text of a record, or its octets, beside its characters, and its place in the tuple
FIELDS = 90  # for a record that is a tuple


class Kept(NamedTuple):
    """One answer."""

    status: Status
    records: tuple[Any, ...]
    is_authentic: bool
    ends: float  # when its ttl is over
    rests: float  # until when nobody is asked again: its end, or later


class Cache:
    """Answers by their questions."""

    def __init__(self, octets: int = OCTETS) -> None:
        self.octets = 0
        self._most = octets
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, question: bytes) -> Kept | None:
        """What is known, expired or not."""
        kept = self._kept.get(question)
        if kept is not None:
            self._kept.move_to_end(question)
        return kept

    def put(self, question: bytes, kept: Kept) -> None:
        """In the place of what was known."""
        self.drop(question)
        self._kept[question] = kept
        self.octets += size(question, kept)
        while self.octets > self._most:
            oldest, gone = self._kept.popitem(last=False)
            self.octets -= size(oldest, gone)

    def drop(self, question: bytes) -> None:
        """Nothing is known any more."""
        gone = self._kept.pop(question, None)
        if gone is not None:
            self.octets -= size(question, gone)

    def clear(self) -> None:
        """Nothing at all."""
        self._kept.clear()
        self.octets = 0


def size(question: bytes, kept: Kept) -> int:
    """Octets of memory, about."""
    octets = ANSWER + len(question)
    for record in kept.records:
        if isinstance(record, Mx):
            octets += FIELDS + RECORD + len(record.exchange)
        elif isinstance(record, Tlsa):
            octets += FIELDS + RECORD + len(record.data)
        else:
            octets += RECORD + len(record)
    return octets
