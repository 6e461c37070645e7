"""What clients bring about that have not logged in: counted as it comes, told sparingly.

Between: the submission listeners report refusals and handshakes that failed.
Contract: of each cause at most six events and six log lines a minute (`core.limits.sparing`); then one
    event of the same cause says how many more there were (`untold`). Names that a stranger chose are cut
    at `MAX_NAME` characters.
Raises: nothing.
Why: who holds no credential may be anybody. The spool's writer, its disk and the operator's eyes are not
    theirs to use up.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial

from mta.clock import Clock, Every
from mta.core.event import Event, Type, rfc3339
from mta.core.limits.sparing import PERIOD, Sparing
from mta.core.mail.text import fit
from mta.metrics import Metrics
from mta.spool.queue import Spool

MAX_NAME = 64  # characters

log = logging.getLogger(__name__)


class Strangers:
    """Who has no credential, all together."""

    def __init__(self, spool: Spool, clock: Clock, metrics: Metrics) -> None:
        self._spool = spool
        self._clock = clock
        self._metrics = metrics
        self._events = Sparing()
        self._lines = Sparing()
        bug = partial(metrics.bug, "intake", "a bug in what is told of strangers")
        self._rests = Every(clock, PERIOD, self.tell_rest, bug)

    def start(self) -> None:
        self._rests.start()

    def stop(self) -> None:
        """What was not told is told now."""
        self._rests.stop()
        self.tell_rest(math.inf)

    def refused(self, cause: str, event: Callable[[], Event]) -> None:
        """An event, if the cause was not told often of late."""
        if self._events.may_tell(cause, self._clock.monotonic()):
            self._spool.report([event()])

    def handshake_failed(self, client: str, error: BaseException) -> None:
        """Garbage instead of a handshake, a client that goes away, a protocol that we do not speak."""
        self._metrics.handshakes_failed.inc()
        self.say("handshakes that failed", "%s: the TLS handshake failed: %s", client, fit(str(error), 200))

    def say(self, cause: str, words: str, *values: object) -> None:
        """A log line, if the cause was not told often of late."""
        if self._lines.may_tell(cause, self._clock.monotonic()):
            log.info(words, *values)

    def tell_rest(self, now: float = -math.inf) -> None:
        """How many more there were of what was told often."""
        now = max(now, self._clock.monotonic())
        time = rfc3339(self._clock.now())
        rest = [
            Event(time=time, type=Type.REJECTION, reason=cause, untold=count)
            for cause, count in self._events.rest(now)
        ]
        if rest:
            self._spool.report(rest)
        for cause, count in self._lines.rest(now):
            log.info("%s: %d more in the last minute", cause, count)
