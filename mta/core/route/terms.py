"""What we may do towards a destination, value by value: from layers of settings to one answer with origins.

Between: the settings and the provider profiles are layers; `delivery.router` resolves them for a route.
Contract: pure. A later layer wins over an earlier one, for each value that it says. `connections` and `rate`
    are ceilings; their starts are never above them, and where no layer says a start it is the ceiling. Rates
    become recipients a second; no rate is no limit.
Raises: ValueError for a start above its own ceiling.
Why: limits of one destination come from several places, and nobody believes a number without its origin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal, NamedTuple, TypeVar

from mta.core.limits.level import Bounds
from mta.core.limits.throttle import Rate, SiteLimits
from mta.core.queue.retry import Duration, Schedule

FLOOR_RATE = 1 / 60  # recipients a second: however little a site takes, one a minute is tried
UNLIMITED = Bounds(FLOOR_RATE, math.inf, math.inf)
STARTS = {"connections_start": "connections", "rate_start": "rate"}  # and their ceilings


@dataclass(frozen=True)
class Terms:
    """What one layer says; None: nothing."""

    connections: int | None = None  # at once: the ceiling
    connections_start: int | None = None  # at once, before anything is learned
    rate: Rate | None = None  # recipients: the ceiling
    rate_start: Rate | None = None  # recipients, before anything is learned
    messages_per_connection: int | None = None
    recipients_per_message: int | None = None  # RCPT in one transaction
    retry_first: Duration | None = None  # the wait before the second attempt, where the stream's is shorter
    retry_max: Duration | None = None  # the wait doubles up to this, where the stream's is shorter
    tls: Literal["opportunistic", "required"] | None = None  # required: a certificate proves the host

    def __post_init__(self) -> None:
        wrong = [
            f"{start} is above {ceiling}"
            for start, ceiling in STARTS.items()
            if _above(getattr(self, start), getattr(self, ceiling))
        ]
        if self.retry_first and self.retry_max and self.retry_max < self.retry_first:
            wrong.append("retry_first is above retry_max")
        if wrong:
            raise ValueError("; ".join(wrong))

    def said(self) -> dict[str, int | Rate | str]:
        """What this layer says, by name."""
        values = {key: getattr(self, key) for key in KEYS}
        return {key: value for key, value in values.items() if value is not None}


KEYS = tuple(each.name for each in fields(Terms))
T = TypeVar("T", bound=Terms)


class Layer(NamedTuple):
    """The terms of one origin: "default", "provider google", "destination example.com", "route *"."""

    origin: str
    terms: Terms
    because: Mapping[str, str] = {}  # why a value is what it is, by name


class Limit(NamedTuple):
    """One value that holds, and who said it."""

    name: str
    value: int | Rate | str | None  # None: no limit
    origin: str
    because: str = ""


class BranchBounds(NamedTuple):
    """What a branch may learn; in the order in which the controller takes them."""

    rate: Bounds
    connections: Bounds


@dataclass(frozen=True)
class Resolved:
    """What holds."""

    limits: SiteLimits
    bounds: BranchBounds
    retry: Schedule  # waits are at least these
    tls_required: bool
    said: tuple[Limit, ...] = field(compare=False)  # for people; two that differ only here are alike


def resolve(layers: Sequence[Layer]) -> Resolved:
    """What holds, of layers from the most general to the most special.

    All of them together say every value but rates, starts and waits.
    """
    found: dict[str, Limit] = {}
    for layer in layers:
        for key, value in layer.terms.said().items():
            found[key] = Limit(key, value, layer.origin, layer.because.get(key, ""))
    for start, ceiling in STARTS.items():
        top = found.get(ceiling) or Limit(ceiling, None, layers[0].origin)
        found[ceiling] = top
        if start not in found or _above(found[start].value, top.value):
            found[start] = top._replace(name=start)
    terms = Terms(**{key: found[key].value for key in KEYS if key in found})  # type: ignore[arg-type]
    said = tuple(found[key] for key in KEYS if key in found)
    retry = Schedule(terms.retry_first or 0.0, terms.retry_max or 0.0)
    return Resolved(_limits(terms), _bounds(terms), retry, terms.tls == "required", said)


def overlay(base: T, above: Terms) -> T:
    """One layer of two; a ceiling of the upper one holds a start of the lower one down."""
    said = above.said()
    for start, ceiling in STARTS.items():
        if start not in said and ceiling in said and _above(getattr(base, start), said[ceiling]):
            said[start] = said[ceiling]
    return replace(base, **said)  # type: ignore[arg-type]


def per_second(rate: Rate | None) -> float:
    """Recipients a second; no rate is no limit."""
    return math.inf if rate is None else rate.amount / rate.period


def _above(start: object, ceiling: object) -> bool:
    if isinstance(start, Rate) and isinstance(ceiling, Rate):
        return per_second(start) > per_second(ceiling)
    return isinstance(start, int) and isinstance(ceiling, int) and start > ceiling


def _limits(terms: Terms) -> SiteLimits:
    assert terms.connections is not None
    assert terms.messages_per_connection is not None
    assert terms.recipients_per_message is not None
    return SiteLimits(
        terms.connections, terms.messages_per_connection, terms.recipients_per_message, terms.rate
    )


def _bounds(terms: Terms) -> BranchBounds:
    assert terms.connections is not None
    assert terms.connections_start is not None
    start = per_second(terms.rate_start)
    return BranchBounds(
        Bounds(min(FLOOR_RATE, start), start, per_second(terms.rate)),
        Bounds(1.0, terms.connections_start, terms.connections),
    )
