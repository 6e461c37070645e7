"""Which domain to look at, and when: all that is held in memory of the mail that waits on disk.

Between: the scheduler notes when a domain has mail that is due, takes those whose time has come, and parks
    those whose site has no room.
Contract: pure; times are wall-clock seconds. One entry for each domain with mail that waits, the earliest
    due time known; a parked domain comes back when `wake` calls it, first come first served, or at `until`.
Raises: nothing.
Why: a heap, with entries that moved left in it until they outnumber the others: to look for one in its
    middle would cost time in proportion to the backlog.
"""

from __future__ import annotations

import heapq
from itertools import islice

SLACK = 1000  # outdated entries that are not worth a clean-up


class Agenda:
    """Domains by their due time."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []
        self._due: dict[str, float] = {}
        self._parked: dict[str, dict[str, None]] = {}  # site -> its domains, in the order of their coming
        self._until: dict[str, float] = {}  # parked domain -> when it comes back by itself

    def __len__(self) -> int:
        return len(self._due)

    def note(self, domain: str, due: float) -> bool:
        """The domain has mail that is due then; True if it is the first of all now."""
        due = max(due, self._until.get(domain, due))
        known = self._due.get(domain)
        if known is not None and known <= due:
            return False
        self._due[domain] = due
        if len(self._heap) > 2 * len(self._due) + SLACK:
            self._heap = [(when, each) for each, when in self._due.items()]
            heapq.heapify(self._heap)
        else:
            heapq.heappush(self._heap, (due, domain))
        return self._heap[0] == (due, domain)

    def next(self) -> float | None:
        """When to look again, at the latest."""
        return self._heap[0][0] if self._heap else None

    def take(self, now: float, most: int) -> list[tuple[str, float]]:
        """Domains whose time has come, with their due times, the oldest first; they leave."""
        taken: list[tuple[str, float]] = []
        while self._heap and self._heap[0][0] <= now and len(taken) < most:
            due, domain = heapq.heappop(self._heap)
            if self._due.get(domain) == due:  # else an older entry of a domain that moved
                del self._due[domain]
                self._until.pop(domain, None)
                taken.append((domain, due))
        return taken

    def park(self, site: str, domain: str, until: float) -> None:
        """The domain waits for room at its site, until then at most."""
        self._parked.setdefault(site, {})[domain] = None
        self._until[domain] = until
        self.note(domain, until)

    def wake(self, site: str, most: int, now: float) -> bool:
        """So many of the site's parked domains are due now; False if there were none."""
        waiting = self._parked.get(site)
        if waiting is None:
            return False
        for domain in list(islice(waiting, most)):
            del waiting[domain]
            if self._until.pop(domain, None) is not None:  # else its time came before
                self.note(domain, now)
        if not waiting:
            del self._parked[site]
        return True
