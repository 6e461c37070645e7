"""How many there were in the last 24 hours, by the hour.

Between: the count of what a domain sends to a provider (`guard.proximity`) keeps one for each pair;
    `store.volumes` keeps its octets.
Contract: pure; hours are whole ones since the epoch. The hour that runs and the 23 before it count: 23 to 24
    hours. A clock that is set back counts in the last hour. An hour's count ends at `FULL`.
Raises: ValueError for octets that are none of a day's.
Why: 24 numbers of four octets say as much as a hundred thousand times would.
"""

from __future__ import annotations

import struct

HOURS = 24
HOUR = 3600.0  # seconds
FULL = 2**32 - 1
_ONE = struct.Struct("<I")
_ALL = struct.Struct(f"<{HOURS}I")


class Day:
    """Counts of 24 hours; some 440 octets of memory with its place in a table."""

    __slots__ = ("_counts", "hour", "told", "total")

    def __init__(self, hour: int, counts: bytes = bytes(_ALL.size), told: float = 0.0) -> None:
        if len(counts) != _ALL.size:
            raise ValueError(f"{len(counts)} octets are no counts of {HOURS} hours")
        self._counts = bytearray(counts)
        self.hour = hour  # that was counted last
        self.total: int = sum(_ALL.unpack(counts))
        self.told = told  # when somebody was told of it, the last time; seconds since the epoch

    @property
    def counts(self) -> bytes:
        """The octets to keep."""
        return bytes(self._counts)

    def add(self, hour: int, many: int) -> int:
        """So many more; how many there are then."""
        self.turn(hour)
        at = self.hour % HOURS * _ONE.size
        (before,) = _ONE.unpack_from(self._counts, at)
        after = min(before + many, FULL)
        _ONE.pack_into(self._counts, at, after)
        self.total += after - before
        return self.total

    def turn(self, hour: int) -> int:
        """It is that hour now; how many there are."""
        if self.hour - hour > HOURS:  # a clock was ahead once
            self.hour, self.total, self._counts = hour, 0, bytearray(len(self._counts))
        for passed in range(max(self.hour + 1, hour - HOURS + 1), hour + 1):
            at = passed % HOURS * _ONE.size
            self.total -= _ONE.unpack_from(self._counts, at)[0]
            _ONE.pack_into(self._counts, at, 0)
        self.hour = max(self.hour, hour)
        return self.total
