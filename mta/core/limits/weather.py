"""Refusals that have nothing to do with our speed: their share does not fall when we go slower.

Between: `core.limits.adaptive` tells what is answered and refused, and does what is said.
Contract: pure; times are seconds of one clock that never goes back, counts are transactions. `share` is
    that of the weather, 0 where none is known. While it is known, or being tested, a refusal counts only
    where so many come together that the weather cannot be all of it.
Raises: nothing.
Why: one organisation's rule, one bad host or a mood refuses a few in a hundred in words of speed, at any
    speed. Whoever slows down for each of them comes down to a message a minute.
How:
    1. A refusal makes us slower, and so slow we stay for as many answers as came before it and some more.
       Answers and refusals that stood alone (the next transaction passed) are counted by speed. Where two
       were refused at less than half of a speed, and their share is no smaller than at that one, it is the
       weather: the speed is what it was, and all marks are forgotten.
    2. Where a refusal is rare (once in hundreds, at no higher speed), it is nearly as before at once, and
       `core.limits.rarity` says what a second one means.
    3. While the weather is known, the log-likelihoods of its share against a larger one are summed up
       (CUSUM, Page 1954). Where that says more, we go slower, wait for as many answers as show whether
       fewer are refused, and if not, the speed is what it was.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field

from mta.core.limits.rarity import ENOUGH, RARE, SLOWER, Rarity, Seen

MOST = 0.3  # of what is answered; where more is refused it is right to go slower, whatever the reason
LEAST = 0.0002  # less is nothing
TESTED = 0.85  # of a mark: there it would not
SETTLED = 60.0  # seconds until a site has forgotten what came before we went slower
LEAST_QUIET, LONG_QUIET = 20, 200  # transactions without a refusal, and twice those between two: it was speed
RECENT, DOUBT = 15.0, 5.0  # transactions over which the share of refusals is measured; and of none before
STEPS, APART = 2.0, 3  # speeds by steps: so many to the double; and steps that are less than half
SLOWEST, FASTEST = 0.001, 1e6  # recipients a second
FORGOTTEN = 2000  # transactions at one speed, of which the older half is forgotten
WORSE = 0.05  # a share that is larger by so much, or twice the weather's, is more than the weather
SURE = 8.0  # log-likelihood: by chance alone once in some thousand refusals
MEMORY = 20_000  # transactions after which the rest is forgotten


class Say(enum.Enum):
    """What is to be done."""

    SLOW_DOWN = enum.auto()  # it is about speed
    NOTHING = enum.auto()
    TRY_SLOWER = enum.auto()  # undo it but for a little (`rarity.TRIED`)
    FOUND = enum.auto()  # it is the weather: undo all reactions, forget all marks
    STILL = enum.auto()  # it is the weather, as was known: undo the reactions


@dataclass(slots=True)
class Weather:
    """What one branch has shown."""

    share: float = 0.0
    is_slow: bool = False  # slower than what was refused
    was_alone: bool = True  # the last refusal: what was tried next was taken
    _answers: float = 0.0  # what `share` is made of
    _refusals: float = 0.0
    _fast: float = 0.0  # transactions since it is known, and at speeds that a limit may refuse
    _fast_refusals: float = 0.0
    _below: float = math.inf  # speeds at which a limit would not refuse
    _settled_at: float = math.inf
    _excess: float = 0.0  # the share that made us slower
    _late: int = 0  # transactions since the last reaction, and settled
    _late_refusals: int = 0
    _lately: float = 0.0  # transactions, up to `RECENT`
    _hits: float = 0.0  # of them refused
    _quiet: int = 0  # transactions since the last reaction
    _calm: int = 0  # of them, settled
    _patience: float = 0.0  # for so many of these
    _gap: int = 0  # before it
    _is_again: bool = False  # the last reaction was to a refusal at a speed that had been good
    _is_rare: bool = False
    _rarity: Rarity = field(default_factory=Rarity)
    _is_settled: bool = False
    _speed: float = math.inf  # of the last reaction
    _is_asked: bool = False  # was there a reaction since the site was open?
    # By step of speed: transactions, of them refused, and of these alone although we had gone slower.
    _by_speed: dict[int, list[float]] = field(default_factory=dict)
    _score: float = 0.0
    ignored: int = 0  # refusals since the score was nothing

    def answered(self, now: float, many: int, speed: float) -> None:
        """Transactions were not refused, at a speed."""
        self._look(many, 0)
        self._quiet += many
        self._rarity.passed(many)
        if not self.share:
            self._note(speed, many)
        if self.is_slow and not self.share:
            self._calm += many if now >= self._settled_at else 0
            self.is_slow = self._calm < self._patience and (self._is_again or speed <= self._below)
        elif self.is_slow:
            if speed > self._below:
                self.is_slow = False
            elif now >= self._settled_at:
                self._count(many, 0)
        elif self.share:
            self._fast += many
        if self._score:
            self._score += many * math.log1p(-self._worse / (1 - self.share))
            if self._score <= 0:
                self._score, self.ignored = 0.0, 0

    def refused(self, now: float) -> Say:
        """One was refused, and no other one just before."""
        self._look(1, 1)
        if not self.share:
            return Say.SLOW_DOWN
        if not self.is_slow:
            self._fast, self._fast_refusals = self._fast + 1, self._fast_refusals + 1
            self._measure()
        elif now >= self._settled_at:
            self._count(1, 1)
            is_as_before = self._late_refusals >= max(ENOUGH, self._late * self._excess / 2)
            if self.was_alone and self.share and is_as_before:
                self.is_slow = False
                return Say.STILL
        if not self.share:
            return Say.SLOW_DOWN
        self._score += math.log1p(self._worse / self.share)
        self.ignored += 1
        return Say.SLOW_DOWN if self._score >= SURE else Say.NOTHING

    def refused_again(self) -> None:
        """What was tried after a wait was refused as well."""
        self._look(1, 1)
        if self._is_much:
            self.is_slow = False

    def slowed(self, now: float, speed: float, mark: float, *, is_probe: bool) -> None:
        """For a refusal at this speed we go slower now; a probe went where it was refused before."""
        self._gap, self._quiet, self._calm = self._quiet, 0, 0
        self._rarity.broken_off()
        answers, refused = self._counted  # one gap between two refusals is chance
        gap = max(self._gap, answers / refused) if refused else self._gap
        self._patience = min(LEAST_QUIET + 2 * gap, LONG_QUIET)
        self._is_rare = not is_probe and self._gap >= RARE
        self._is_again = self.is_slow or not is_probe
        if not self.is_slow:
            # Refusals in words that nobody knows are not among the hits, and of nothing no share falls.
            self._excess = max(self._hits, 1.0) / (self._lately + DOUBT)
            self._settled_at = now + SETTLED
        self._is_settled = now >= self._settled_at
        self._speed, self._is_asked = speed, True
        self._below = TESTED * mark if self.share else SLOWER * speed
        self.is_slow = not self._is_much or self.share > 0
        self.was_alone = False
        self._score, self.ignored, self._late, self._late_refusals = 0.0, 0, 0, 0

    def reopened(self, refusals: int) -> Say:
        """The site takes mail again, after so many refusals in a row."""
        self.was_alone = refusals == 1
        if not self._is_asked:
            return Say.NOTHING  # it was shut for something else: a suspension, or connections
        self._is_asked = False
        is_sure = self.was_alone and self._is_settled
        if not self.share:
            self._note(self._speed, refusals, refusals, refusals if is_sure else 0)
        if self.share or not self.was_alone or self._is_much:
            return Say.NOTHING
        if is_sure and self._is_no_limit:
            answers, refused = self._counted
            self._by_speed.clear()
            if (said := self._found(answers, refused)) is Say.FOUND:
                return said
        return self._met_rarely() if self._is_rare else Say.NOTHING

    def _met_rarely(self) -> Say:
        self._is_rare = False
        seen = self._rarity.met(self._speed, self._gap)
        if seen is not Seen.WEATHER:
            return Say.TRY_SLOWER if seen is Seen.UNKNOWN else Say.NOTHING
        return self._found(self._rarity.answers, self._rarity.refusals)

    def _found(self, answers: float, refusals: float) -> Say:
        """It is the weather, if its share is one."""
        self._answers, self._refusals = answers, refusals
        self._count(0, 0)
        if not self.share:
            return Say.NOTHING
        self.is_slow = False
        return Say.FOUND

    @property
    def is_waiting(self) -> bool:
        """Is it time to stay as slow as we are, until it shows whether it is the weather?"""
        if self.share:
            return self.is_slow and self._late * self._excess < ENOUGH + 1
        if self._rarity.is_testing:
            return True
        is_soon = self._quiet < LEAST_QUIET + 2 * self._gap
        return self.is_slow and is_soon and self._is_again and self.was_alone and self._gap < RARE

    @property
    def _counted(self) -> tuple[float, float]:
        """Transactions at any speed, and how many of them were refused."""
        counted = self._by_speed.values()
        return sum(each[0] for each in counted), sum(each[1] for each in counted)

    @property
    def _is_much(self) -> bool:
        return self._hits > MOST * (self._lately + DOUBT)

    @property
    def _worse(self) -> float:
        return max(WORSE, self.share)

    @property
    def _is_no_limit(self) -> bool:
        """Is the share at some speed no smaller than at more than the double?"""
        steps = sorted(self._by_speed)
        for step in steps:
            slow = [self._by_speed[each] for each in steps if each <= step - APART]
            fast = [self._by_speed[each] for each in steps if each >= step]
            refusals, refused = sum(each[2] for each in slow), sum(each[1] for each in fast)
            if refusals >= ENOUGH and refused:
                share, former = (
                    refusals / sum(each[0] for each in slow),
                    refused / sum(each[0] for each in fast),
                )
                if share >= former / 2:
                    return True
        return False

    def _note(self, speed: float, many: int, refused: int = 0, in_spite: int = 0) -> None:
        step = round(STEPS * math.log2(min(max(speed, SLOWEST), FASTEST)))
        counted = self._by_speed.setdefault(step, [0.0, 0.0, 0.0])
        counted[:] = counted[0] + many, counted[1] + refused, counted[2] + in_spite
        if counted[0] > FORGOTTEN:
            counted[:] = [each / 2 for each in counted]

    def _look(self, many: int, refused: int) -> None:
        self._lately += many
        self._hits += refused
        if self._lately > RECENT:
            self._hits *= RECENT / self._lately
            self._lately = RECENT

    def _count(self, many: int, refused: int) -> None:
        self._late += many
        self._late_refusals += refused
        self._answers += many
        self._refusals += refused
        if self._answers > MEMORY:
            self._refusals *= MEMORY / self._answers
            self._answers = MEMORY
        self._measure()

    def _measure(self) -> None:
        """The share at speeds that a limit would not refuse; within its error, that at any speed."""
        if self._fast > MEMORY:
            self._fast, self._fast_refusals = self._fast / 2, self._fast_refusals / 2
        slow = self._refusals / (self._answers + DOUBT)
        error = math.sqrt(slow / (self._answers + DOUBT))  # the standard one
        every = (self._refusals + self._fast_refusals) / (self._answers + self._fast + DOUBT)
        share = min(max(every, slow - error), slow + error)
        self.share = share if self._refusals >= ENOUGH and LEAST <= share <= MOST else 0.0
