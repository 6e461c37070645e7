"""The table of states: total, reachable, without dead ends."""

from __future__ import annotations

import pytest

from mta.core.model import Kind
from mta.core.queue.lifecycle import FINAL, TABLE, Cause, ImpossibleMove, State, move

CAUSES: list[Kind | Cause] = [*Kind, *Cause]
PRINTED = """\
           delivered  deferred  bounced  expired  ambiguous  postpone  recover   cancel     doubt
FRESH      DELIVERED  DEFERRED  BOUNCED  EXPIRED  DEFERRED   DEFERRED  DEFERRED  CANCELLED  UNCERTAIN
DEFERRED   DELIVERED  DEFERRED  BOUNCED  EXPIRED  DEFERRED   DEFERRED  -         CANCELLED  UNCERTAIN
DELIVERED  -          -         -        -        -          -         -         -          -
BOUNCED    -          -         -        -        -          -         -         -          -
EXPIRED    -          -         -        -        -          -         -         -          -
CANCELLED  -          -         -        -        -          -         -         -          -
UNCERTAIN  -          -         -        -        -          -         -         -          -"""


def printed() -> str:
    rows = [["", *(cause.value for cause in CAUSES)]]
    for state in State:
        after = TABLE.get(state, {})
        rows.append([state.name, *(after[cause].name if cause in after else "-" for cause in CAUSES)])
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def test_the_table_is_the_one_that_we_know() -> None:
    assert printed() == PRINTED


def test_every_outcome_moves_every_state_that_is_stored() -> None:
    for state in set(State) - FINAL:
        assert set(Kind) <= set(TABLE[state])
        for kind in Kind:
            assert move(state, kind) in State


def test_a_final_state_stays() -> None:
    for state in FINAL:
        assert state not in TABLE
        for cause in CAUSES:
            with pytest.raises(ImpossibleMove, match=f"^{state.name} cannot {cause.value}$"):
                move(state, cause)


def test_every_state_is_reached_and_every_stored_one_has_an_end() -> None:
    def reached(start: State) -> set[State]:
        found, waiting = {start}, [start]
        while waiting:
            for following in TABLE.get(waiting.pop(), {}).values():
                if following not in found:
                    found.add(following)
                    waiting.append(following)
        return found

    assert reached(State.FRESH) == set(State)
    assert all(reached(state) >= FINAL for state in set(State) - FINAL)


def test_only_what_is_fresh_is_recovered() -> None:
    assert move(State.FRESH, Cause.RECOVER) is State.DEFERRED
    with pytest.raises(ImpossibleMove, match=r"^DEFERRED cannot recover$"):
        move(State.DEFERRED, Cause.RECOVER)


def test_the_numbers_on_disk_never_change() -> None:
    assert {state.name: int(state) for state in State} == {
        "FRESH": 0,
        "DEFERRED": 1,
        "DELIVERED": 2,
        "BOUNCED": 3,
        "EXPIRED": 4,
        "CANCELLED": 5,
        "UNCERTAIN": 6,
    }
