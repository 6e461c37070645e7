"""Whose name a transaction goes under: the message's sender, or a return path of ours for each recipient.

Between: a lane asks when mail comes in, its transactions when one begins; the daemon brings the secrets, and
    says for which messages somebody takes what comes back.
Contract: `domain` is "" where the sender stays as it was given; the null sender always does, and nobody asks.
    A batch with a return path has one recipient. Each attempt gets an address anew, which says the same.
Raises: nothing.
Standards: RFC 7208 2.4 (SPF looks at the domain in MAIL), RFC 5321 4.5.5 (notices have the null sender).
"""

from __future__ import annotations

from collections.abc import Callable

from mta.clock import Clock
from mta.core.model import Batch, Message
from mta.core.returns.verp import Verp


class ReturnPath:
    """What stands in MAIL."""

    def __init__(self, verp: Verp, returns: Callable[[Message], str] | None, clock: Clock) -> None:
        self._verp = verp
        self._clock = clock
        self.domain = returns  # where what comes back for a message is taken; None: nowhere

    def sender(self, batch: Batch) -> str:
        """Of its next transaction."""
        if not batch.return_path:
            return batch.message.sender
        return self._verp.make(batch.message.id, batch.recipients[0].n, batch.return_path, self._clock.now())
