"""How much the queue holds: counted along with the commits, never looked up.

Between: `spool.queue` tells what each commit did; metrics, `status` and quotas look.
Contract: exact from `open` on, as of the last commit. Recipients by state; messages and octets by tenant.
Raises: nothing.
Why: to count a million rows takes a quarter of a second of the disk's and the reader's time, again and
    again. A tenant that holds nothing is forgotten, so the dict is as large as the queue is wide.
"""

from __future__ import annotations

from collections.abc import Iterable

from mta.core.model import Message

Held = tuple[str, int, int]  # tenant, messages, octets


class Tally:
    """The queue in numbers."""

    def __init__(self) -> None:
        self.fresh = 0  # recipients whose first attempt is not over
        self.recipients = 0  # all of them
        self._tenants: dict[str, list[int]] = {}

    @property
    def deferred(self) -> int:
        """Recipients that wait for their due time, or for the end of a retry."""
        return self.recipients - self.fresh

    def of(self, tenant: str) -> tuple[int, int]:
        """A tenant's messages and octets."""
        messages, octets = self._tenants.get(tenant, (0, 0))
        return messages, octets

    def found(self, recipients: int, held: Iterable[Held]) -> None:
        """What is there at the start; nothing is fresh then."""
        self.recipients = recipients
        self._tenants = {tenant: [messages, octets] for tenant, messages, octets in held}

    def came(self, messages: Iterable[Message]) -> None:
        """These are on disk."""
        tenants = self._tenants
        for message in messages:
            count = len(message.recipients)
            if message.fresh:
                self.fresh += count
            self.recipients += count
            held = tenants.get(message.tenant)
            if held is None:
                tenants[message.tenant] = [1, message.size]
            else:
                held[0] += 1
                held[1] += message.size

    def went(self, fresh: int, gone: int, left: Iterable[Held]) -> None:
        """So many first attempts are over, so many recipients are gone, and these messages with them."""
        self.fresh -= fresh
        self.recipients -= gone
        for tenant, messages, octets in left:
            held = self._tenants[tenant]
            held[0] -= messages
            held[1] -= octets
            if not held[0]:
                del self._tenants[tenant]
