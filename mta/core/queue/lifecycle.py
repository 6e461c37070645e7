"""The state of a recipient: the one table of what may follow what.

Between: `outbound.outcome`, the spool's recovery and its export and erasure move states, nobody else.
Contract: `move(state, cause)` gives the next state. FRESH and DEFERRED are stored; a final state means
    that the row is gone and the event log has the rest.
Raises: ImpossibleMove, which is a bug of ours.
"""

from __future__ import annotations

import enum

from mta.core.model import Kind


class State(enum.IntEnum):
    """Where a recipient stands."""

    FRESH = 0  # the first attempt is under way; `due` is NULL
    DEFERRED = 1  # `due` says when the next attempt may begin
    DELIVERED = 2
    BOUNCED = 3
    EXPIRED = 4
    CANCELLED = 5
    UNCERTAIN = 6  # given up, though it may have arrived


class Cause(enum.Enum):
    """What moves a recipient besides an outcome."""

    POSTPONE = "postpone"  # a gate of ours said later; the attempt is given back
    RECOVER = "recover"  # we were stopped in the middle of it
    CANCEL = "cancel"  # an operator took it out of the queue
    DOUBT = "doubt"  # ambiguous once more, or when its time is over


class ImpossibleMove(Exception):
    """The table has no such move."""


FINAL = frozenset({State.DELIVERED, State.BOUNCED, State.EXPIRED, State.CANCELLED, State.UNCERTAIN})
_OUTCOMES: dict[Kind | Cause, State] = {
    Kind.DELIVERED: State.DELIVERED,
    Kind.DEFERRED: State.DEFERRED,
    Kind.AMBIGUOUS: State.DEFERRED,  # retried once: better twice than never, but not ten times
    Kind.BOUNCED: State.BOUNCED,
    Kind.EXPIRED: State.EXPIRED,
    Cause.POSTPONE: State.DEFERRED,
    Cause.CANCEL: State.CANCELLED,
    Cause.DOUBT: State.UNCERTAIN,
}
TABLE: dict[State, dict[Kind | Cause, State]] = {
    State.FRESH: _OUTCOMES | {Cause.RECOVER: State.DEFERRED},
    State.DEFERRED: _OUTCOMES,
}


def move(state: State, cause: Kind | Cause) -> State:
    """The state that `cause` leads to."""
    try:
        return TABLE[state][cause]
    except KeyError:
        raise ImpossibleMove(f"{state.name} cannot {cause.value}") from None
