"""Is it a refusal, weather, or the end of a connection that has carried enough?

Between: `core.limits.adaptive` asks where no rule is sure.
Contract: pure; times are seconds of one clock that never goes back.
Raises: nothing.
Why: a site that restarts says 421 too; whoever slows down for that is slow for ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

DOUBT = 6.0  # refusals that no rule knows make one: where 2 % are random, one in 1600 of them is believed
TRUST = 0.04  # of one is forgiven by each answer: 4 % of strange answers are weather
SAME = 4  # goodbyes in a row after the same number of messages
MEMORY = 86400.0  # seconds in which that number holds


@dataclass(slots=True)
class Evidence:
    """What one branch has shown of late."""

    doubt: float = 0.0
    carried: int = 0  # messages before the last goodbye
    times: int = 0  # goodbyes in a row after as many
    forget_at: float = math.inf
    messages_per_connection: int | None = None

    def answered(self, now: float, recipients: int) -> None:
        self.doubt = max(self.doubt - TRUST * recipients, 0.0)
        if now >= self.forget_at:
            self.messages_per_connection, self.forget_at = None, math.inf

    def is_enough(self) -> bool:
        """One more that no rule is sure about: is it time to believe it?"""
        self.doubt += 1
        if self.doubt < DOUBT:
            return False
        self.doubt = 0.0
        return True

    def is_used_up(self, now: float, carried: int) -> bool:
        """A goodbye after so many messages: is that all that one connection may carry?"""
        if carried == self.messages_per_connection:
            return True
        self.times = self.times + 1 if carried == self.carried else 1
        self.carried = carried
        if self.times < SAME:
            return False
        self.messages_per_connection, self.forget_at = carried, now + MEMORY
        self.doubt = 0.0
        return True
