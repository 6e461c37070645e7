"""The one gate before an attempt: may this mail go now, and if not, who says so, and until when.

Between: fresh mail on its way to a lane, the retries before they read a line from disk, and once more before
    they lease a message of it.
Contract: asked in this order, the first that is shut answers: DNS, the hours of the stream (a message's; a
    line may hold several streams), then the pool (its drain, the branch, the site, the lane). Holds and
    suspensions, breakers and warm-up stand between the hours and the pool. Go, or what goes with it: the
    source, the room in recipients; else Wait with wall-clock time, whose reason names who said it. What
    ends by itself before `until` has a reason in `ENDS`, and its mail is parked there, and woken.
Raises: nothing.
Why: what keeps mail back is asked for in one place, or the three who ask would come to disagree.
"""

from __future__ import annotations

from mta.clock import Clock
from mta.config.policy import Current
from mta.core.limits.order import Share
from mta.core.model import Batch, Line, Message, Outcome, Wait
from mta.core.route.routing import Route
from mta.delivery.lane import LANE_FULL
from mta.delivery.pool import Pool
from mta.outbound.leases import NO_PLACE
from mta.outbound.lookups import SILENT, Lookups

ENDS = (LANE_FULL, NO_PLACE, SILENT)  # somebody tells when that is over


class Gate:
    """Everything that may keep due mail back."""

    def __init__(self, lookups: Lookups, current: Current, pool: Pool, clock: Clock) -> None:
        self._lookups = lookups
        self._current = current
        self._pool = pool
        self._clock = clock

    def offer(self, route: Route, batch: Batch) -> Wait | None:
        """Let a batch into its lane, or say until when it has to wait."""
        return self.hours(batch.message) or self._pool.offer(route, batch)

    def source(self, route: Route | Outcome, message: Message) -> str | Wait:
        """The source that a message would leave from; "" where it has no route, and is not sent."""
        hours = self.hours(message)
        if hours is not None:
            return hours
        if isinstance(route, Outcome):
            return ""
        lane = self._pool.choose(route, message)
        return lane if isinstance(lane, Wait) else lane.source.name

    def room(self, route: Route | Outcome, line: Line, most: int) -> int | Wait:
        """How many recipients of a line, up to so many, may come."""
        if isinstance(route, Outcome):
            return self._lookups.gate(route) or most
        share: Share = (line.priority, line.tenant)
        answer = self._pool.gate(route, share)
        return answer if isinstance(answer, Wait) else self._pool.room(route, share, most)

    def hours(self, message: Message) -> Wait | None:
        """Until when its stream may not be delivered, if it may not now."""
        window = self._current.policy.windows.get(message.stream)
        answer = None if window is None else window.ask(self._clock.now())
        return answer if isinstance(answer, Wait) else None
