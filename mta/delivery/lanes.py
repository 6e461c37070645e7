"""Every lane, by site, source and TLS policy; when each is looked at, and which one leaves.

Between: the pool makes lanes and puts them here, and says what it has seen of them; it is told of each that
    is forgotten.
Contract: there are `LANES` at most. A lane is forgotten when nothing waits, nothing is open and nothing is
    remembered. Where one more is wanted that leaves which has been quiet for longest, whatever it remembers
    of its site, but for limits that are known nowhere else. A look costs nobody else anything.
Raises: nothing; a bug over one lane is told, and its next look comes.
Why: fifty thousand lanes that were all looked at cost a fifth of each second. Each second is for those where
    mail waits beside connections; the others hear from who keeps their mail back, or have none.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from mta.clock import Clock
from mta.core.limits.budget import LANES
from mta.core.route.routing import Route
from mta.core.route.source import Source
from mta.delivery.lane import Lane
from mta.delivery.lookout import EACH, Lookout

UNCONNECTED = 30.0  # seconds between looks at mail without a connection: who keeps it back wakes it
QUIET = 60.0  # seconds between looks at a lane without mail


class Lanes:
    """All lanes."""

    def __init__(
        self, clock: Clock, forgotten: Callable[[Lane], None], bug: Callable[[Exception], None]
    ) -> None:
        self._lanes: dict[tuple[str, str, bool], Lane] = {}
        self._leaving: set[Lane] = set()  # no mail comes in; what is under way ends
        self._quiet: OrderedDict[Lane, None] = OrderedDict()  # when they were seen so, the longest ago first
        self._forgotten = forgotten
        self._lookout: Lookout[Lane] = Lookout(clock, self._look, bug)
        self.start, self.stop = self._lookout.start, self._lookout.stop

    def __len__(self) -> int:
        return len(self._lanes) + len(self._leaving)

    def __iter__(self) -> Iterator[Lane]:
        """All there are now."""
        return iter([*self._lanes.values(), *self._leaving])

    def get(self, route: Route, source: Source) -> Lane | None:
        """The one that mail comes in at."""
        return self._lanes.get((route.site, source.name, route.is_apart))

    def add(self, lane: Lane) -> None:
        """It is there from now on; there was room."""
        self._lanes[_key(lane)] = lane
        self._quiet[lane] = None
        self._lookout.within(lane, EACH)

    def leave(self, lane: Lane) -> None:
        """No mail comes in there; it is forgotten when the last has left."""
        del self._lanes[_key(lane)]
        self._leaving.add(lane)
        self._lookout.within(lane, EACH)
        lane.leave()

    def has_room(self) -> bool:
        """May there be one more? If need be another one leaves for it."""
        if len(self) < LANES:
            return True
        while self._quiet:
            lane = next(iter(self._quiet))
            if lane.is_quiet:
                self._forget(lane)
                return True
            del self._quiet[lane]  # it comes again when it is seen
        return False

    def stalls(self, lane: Lane) -> None:
        """Mail waits there."""
        self._lookout.within(lane, EACH)

    def closed(self, lane: Lane) -> None:
        """A connection of it is over."""
        if not lane.connections:
            self._rests(lane)
            self._lookout.within(lane, EACH)

    def _rests(self, lane: Lane) -> None:
        self._quiet[lane] = None
        self._quiet.move_to_end(lane)

    def _look(self, lane: Lane, now: float) -> float | None:
        """Does mail wait in it for too long, or may it be forgotten?"""
        if lane.is_leaving:
            lane.leave()  # what was put back meanwhile
        lane.kick(stalled=True)
        if lane.is_forgettable:
            self._forget(lane)
            return None
        if lane.is_leaving or (lane.has_mail and lane.connections):
            return now + EACH
        if lane.has_mail:
            return now + UNCONNECTED
        lane.is_watched = False
        if lane not in self._quiet and not lane.connections:
            self._rests(lane)
        return now + QUIET

    def _forget(self, lane: Lane) -> None:
        if lane in self._leaving:
            self._leaving.remove(lane)
        else:
            del self._lanes[_key(lane)]
        self._quiet.pop(lane, None)
        self._lookout.discard(lane)
        self._forgotten(lane)


def _key(lane: Lane) -> tuple[str, str, bool]:
    return lane.route.site, lane.source.name, lane.route.is_apart
