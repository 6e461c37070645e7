"""The one order of service: which tenant's row is next, at which priority.

Between: whatever keeps mail waiting keeps a row for each tenant at each priority, in a kind of its own
    (batches in a lane, due lines, parked lines, questions to DNS), and asks here which one is served.
Contract: pure. The higher priority first (-9 to 9, RFC 6710); while both wait, every tenth turn of those
    that it could have had is the lower's. Within a priority rows take turns. What goes first in a row is the
    row's own affair: it keeps its sites apart, and serves them in turn. Each call costs O(priorities).
Raises: KeyError from `served` and `drop` for one that is not here.
Standards: RFC 6710 4.1 (a higher priority is served first; starvation is the receiver's to prevent).
Why: one queue for all would let one tenant's newsletter stand before everybody's passwords, and each place
    with an order of its own would be the one where it does.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

IN_A_ROW = 9  # turns in a row that a priority may take while a lower one waits
LOWEST, HIGHEST = -9, 9  # RFC 6710 4.1

Share = tuple[int, str]  # priority, tenant

Who = TypeVar("Who", bound=Hashable)  # a tenant, or one in one of several parts
Row = TypeVar("Row")


class _Band(Generic[Who, Row]):
    """The rows of one priority; the one whose turn it is stands first."""

    __slots__ = ("passed", "priority", "rows")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.rows: dict[Who, Row] = {}
        self.passed = 0  # turns that went to a higher priority while somebody waited here


class Order(Generic[Who, Row]):
    """Rows by priority and tenant."""

    __slots__ = ("_bands",)

    def __init__(self) -> None:
        self._bands: list[
            _Band[Who, Row]
        ] = []  # the highest first; one that is empty stays, there are 19 at most

    def __len__(self) -> int:
        return sum(len(band.rows) for band in self._bands)

    def __iter__(self) -> Iterator[Row]:
        """All of them, in no order."""
        return (row for band in self._bands for row in band.rows.values())

    def get(self, priority: int, tenant: Who) -> Row | None:
        """The row of a tenant at a priority, if it waits here."""
        for band in self._bands:
            if band.priority == priority:
                return band.rows.get(tenant)
        return None

    def enter(self, priority: int, tenant: Who, row: Row) -> None:
        """The row waits behind the others of its priority."""
        for band in self._bands:
            if band.priority == priority:
                break
        else:
            band = _Band(priority)
            insort(self._bands, band, key=_downward)
        band.rows[tenant] = row

    def head(self, lowest: int = LOWEST) -> Row | None:
        """Whose turn it is, among priorities from `lowest` on."""
        chosen = self._chosen(lowest)
        return None if chosen is None else next(iter(chosen.rows.values()))

    def ranked(self) -> Iterator[tuple[int, Who, Row]]:
        """Whose turn it is, and whose it were if those before could not be served; serve after the loop."""
        chosen = self._chosen()
        if chosen is None:
            return
        for band in (chosen, *(each for each in self._bands if each is not chosen)):
            for tenant, row in band.rows.items():
                yield band.priority, tenant, row

    def served(self, priority: int, tenant: Who, *, stays: bool) -> None:
        """The row had its turn: it goes behind the others of its priority, or leaves."""
        for band in self._bands:
            if band.priority == priority:
                rows = band.rows
                if not stays:
                    del rows[tenant]
                elif len(rows) > 1:
                    rows[tenant] = rows.pop(tenant)
                band.passed = 0
            elif band.priority < priority and band.rows:
                band.passed += 1

    def drop(self, priority: int, tenant: Who) -> None:
        """One row leaves without a turn."""
        for band in self._bands:
            if band.priority == priority:
                del band.rows[tenant]

    def leave(self, tenant: Who) -> list[Row]:
        """The rows of a tenant, of every priority, leave without a turn."""
        return [band.rows.pop(tenant) for band in self._bands if tenant in band.rows]

    def clear(self) -> None:
        """All leave."""
        self._bands.clear()

    def _chosen(self, lowest: int = LOWEST) -> _Band[Who, Row] | None:
        chosen = None
        for band in self._bands:
            if band.priority < lowest:
                break
            if band.rows and (chosen is None or band.passed >= IN_A_ROW):
                chosen = band
        return chosen


def _downward(band: _Band[Who, Row]) -> int:
    return -band.priority
