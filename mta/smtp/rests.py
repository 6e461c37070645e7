"""When those go on who have much to say: one after the other, so that everybody else comes in between.

Between: a connection that has used up its turn of the loop asks for the next one.
Contract: the turns of all connections are `REST` and their own length (seconds) apart. Parties take theirs
    by turns, however many connections each has; all strangers are one party. Whose connection is over by
    then takes none: a turn that answers False costs nobody any time.
Raises: nothing.
Why: each turn is short, but those of fifty clients in one round of the loop are not. And a thread that waits
    for the GIL asks for it when nobody has let go of it for 5 ms: without rests a commit can take 300 ms.
    In one line for all 200 lines of NOOP and a hang-up, a thousand times a second, were the end of all
    customers' large mail.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable

REST = 0.001  # seconds

Turn = Callable[[], bool]


class Rests:
    """What all listeners share of the loop."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, deque[tuple[Turn, float]]] = {}  # by party, whose turn it is first
        self._is_resting = False

    def ask(self, party: Hashable, turn: Turn, length: float) -> None:
        """Call `turn`, which takes about so many seconds, when it is this party's turn."""
        self._lines.setdefault(party, deque()).append((turn, length))
        if not self._is_resting:
            self._rest(0.0)

    def _rest(self, length: float) -> asyncio.TimerHandle:
        self._is_resting = True
        return asyncio.get_running_loop().call_later(length + REST, self._next)

    def _next(self) -> None:
        self._is_resting = False
        while self._lines:
            party = next(iter(self._lines))
            line = self._lines.pop(party)
            turn, length = line.popleft()
            if line:
                self._lines[party] = line  # behind all others
            timer = self._rest(length)  # whatever the turn raises
            if turn():
                return
            timer.cancel()
            self._is_resting = False
