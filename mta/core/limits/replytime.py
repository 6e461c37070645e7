"""How long a site takes to answer: it tells that a limit is near before anything is refused.

Between: `core.limits.adaptive` tells each answer and each refusal, and asks before it grows.
Contract: pure; seconds. Means are of logarithms: one large message among small ones is no slope.
Raises: nothing.
Why: many servers slow down before they refuse. What they answered in while little was asked of them, over
    what they answer in now, is the gradient that limiters of concurrency go by (Netflix's Gradient2, Envoy's
    adaptive concurrency). Here it says when to climb fast, when slowly, and that a probe has gone far enough:
    where answers are as slow as at the last refusal, the next one is near.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LEAST = 0.01  # seconds that are added to each: a network's own jitter is no slope
LATELY = 8.0  # answers over which the mean is taken
FLAT = math.log(1.3)  # slower than unloaded by less is no slower
CROWDED = math.log(4.0)  # slower than unloaded by so much: a limit may be near
DRIFT = 0.0002  # by which the unloaded time rises with each answer: routes and peers change


@dataclass(slots=True)
class ReplyTime:
    """Of one branch; logarithms of seconds."""

    unloaded: float = math.inf
    now: float = 0.0
    limit: float = math.inf  # when it refused, where that was a slope
    _answers: int = 0

    def took(self, seconds: float) -> None:
        """One transaction was answered."""
        took = math.log(max(seconds, 0.0) + LEAST)
        self._answers += 1
        self.now += (took - self.now) / min(self._answers, LATELY)
        if self._answers >= LATELY:
            self.unloaded = min(self.unloaded + DRIFT, self.now)

    def refused(self) -> None:
        """It refuses now."""
        self.limit = self.now if self.is_crowded else math.inf

    @property
    def is_flat(self) -> bool:
        """Are answers as fast as ever?"""
        return self.now <= self.unloaded + FLAT

    @property
    def is_crowded(self) -> bool:
        """Are they so slow that a limit may be near?"""
        return self._answers >= LATELY and self.now > self.unloaded + CROWDED

    @property
    def is_near(self) -> bool:
        """Are they as slow as when it refused?"""
        return self.now > self.limit
