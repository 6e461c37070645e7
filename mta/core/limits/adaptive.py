"""How fast, and over how many connections, one branch takes mail: learned from its answers.

Between: a lane asks before each dial and each transaction, and tells every answer. A branch is one place
    of the tree source -> provider -> site; its owner saves what it learned, and makes LIMIT events of its
    `Change`s.
Contract: pure; times are seconds of one clock that never goes back. Rates are recipients a second, windows
    are connections; infinity is no limit. A gate answers `Go` or `Wait(until, reason)`.
Raises: nothing.
Why, in ten lines:
    1. Rate and window each grow only while it is what holds mail back, and only by mail that is delivered: by
       their start every 20 s, in a line; with a mark, slowly. Small sites are not overrun meanwhile: over a
       connection goes no more than its answers allow.
    2. Only refusals about rate, connections or source lower them; greylisting and full mailboxes do not. What
       began before the last reaction tells nothing new: a burst of parallel refusals is one event.
    3. After a refusal all is quiet for a pause, then one transaction tries; refused again, the pause doubles.
    4. The level at the refusal is the mark. The rate falls below it, climbs to KEEP of it, and stays there.
       Refused again at once, it was for what had gone before: the mean of that minute is the mark.
    5. Rarely it probes above, slowly. A failed probe doubles the time to the next, which also has to pay for
       the mail and the time that were lost. Far above the mark, the mark is refuted and forgotten.
    6. Refused below the mark, the mark was too high: it comes down, further each time that cost a long
       silence. Where each long silence comes after as much mail as the last, it is a quota, and its mean
       rate is the mark.
    7. A window's mark is exact: as many as were open when one more was refused.
    8. Words that no rule knows count when they are frequent; a goodbye after always as many messages is
       no refusal but a limit of messages per connection.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from mta.core.limits.evidence import DOUBT, Evidence
from mta.core.limits.level import AGE, MINUTE, Bounds, Level, Meter
from mta.core.limits.rarity import TRIED
from mta.core.limits.replytime import ReplyTime
from mta.core.limits.throttle import Rate, RateLimit
from mta.core.limits.weather import Say, Weather
from mta.core.model import Go, Subject, Wait

NO_CONNECTION = "connections"  # the window is full
OURS = frozenset({Subject.RATE, Subject.CONNECTION, Subject.SOURCE})

# Growth; more about it in core.limits.level
USED = 0.7  # of the rate must be used for it to grow; the meter lags by a tenth, and chance takes its part
REACHED = 0.85  # of the rate is reached: more connections would not help
# Marks
KEEP = 0.93  # of the mark, for good: room for jitter, and it loses only 7 %
BACK = 0.8  # of the mark, after a refusal: what had piled up at the site drains
STEP = 0.7  # of the rate, where it was refused although it had gone slower
DEEPEST = 0.25  # of its value is all that one refusal may leave: one measurement may be wrong
HEEDED = 1.1  # times a refusal below the mark: a probe that went higher knows better
LAG = 1.1  # how much the meter is behind a rate that grows
SOON = 30.0  # seconds after a refusal in which the site may still count what came before it
DRAIN = 0.5  # of the mark, at least, until it has forgotten that
FULL = 200  # answers, weighted, of a minute that tells a mark; of fewer much is what a bucket had saved up
# Silence
PAUSE = (1.0, 300.0)  # seconds, the first and the longest: the end of a block is found within five minutes
TRIAL = 30.0  # seconds until another one is tried where the first got no answer
OPEN_FIRST = 5.0  # seconds that it waits for a connection that is open; those may all be stuck
LONG = 60.0  # seconds of silence that are a block or a quota, not a bucket that fills
ALIKE = 0.05  # by which the mail between long silences may differ where it is a quota
# Paying for probes
PAY_MAIL = 100  # messages are to pass for each that was refused: at most 1 % is refused
PAY_MOST = 1800.0  # seconds, for that
PAY_TIME = 20.0  # times a silence is to pass before the next is risked: at most 5 % of time is lost
PAY_LONGEST = 6 * 3600.0  # seconds, for that
FREE = 3  # refusals that need not be paid for: the first ones teach most
# The rest
RE_ENTRY_BLIND = 1.0  # recipients a second, after a suspension, where no rate was measured
RE_ENTRY = 0.25  # of the rate, over the fewest connections, after a suspension
BURST = 0.2  # seconds' worth may go at once: timers are late, buckets are small
DIALS = 2.0  # connections for each message that the rate allows: where each takes one, some are under way
ASK_AGAIN = 1.0  # seconds until a dial is asked for again; answers change the window
TELL = (15.0, 60.0)  # seconds between changes that are told: after refusals, while growing
REFRESH = 3600.0  # seconds after which what is as it was is saved again
WORTH_TELLING = 0.1  # of the value that was last told


class Refusal(NamedTuple):
    """A dial or a transaction that was refused."""

    subject: Subject
    by_rule: bool  # a rule knows these words; else the subject is a guess
    started: float  # when the dial or the transaction began
    open: int  # other connections that are open
    carried: int | None = None  # transactions that this connection had carried; None: the dial was refused
    recipients: int = 1
    again: float | None = None  # "try again in so many seconds"


class Change(NamedTuple):
    """What an owner tells the world; `old` is what was told before."""

    what: str  # "rate" or "connections"
    old: float
    new: float
    reason: str
    until: float | None = None  # nothing goes before


class Learned(NamedTuple):
    """What is saved of a branch."""

    rate: float
    rate_mark: float
    connections: float
    connections_mark: float
    messages_per_connection: int | None


class Suspended(NamedTuple):
    """One tenant whose mail does not go here."""

    tenant: str
    until: float
    reason: str


class Saved(NamedTuple):
    """What outlives a branch's use; times are wall-clock seconds."""

    learned: Learned
    at: float
    until: float = 0.0  # nothing goes before
    reason: str = ""
    barred: bool = False  # the peer wants none of this source
    tenants: tuple[Suspended, ...] = ()

    def is_like(self, other: Saved) -> bool:
        """Does it say the same, of about the same time? What is in use must not grow old."""
        is_recent = abs(self.at - other.at) < REFRESH
        is_as_long = abs(self.until - other.until) < 1.0
        return is_recent and is_as_long and (self.learned, self.tenants) == (other.learned, other.tenants)


class Branch:
    """One source towards one provider or site."""

    def __init__(self, rate: Bounds, connections: Bounds, *, is_known: bool = True) -> None:
        """Of a destination that somebody knows the limits of the start is a careful one."""
        self._rate = Level(rate, KEEP, 0.0, rate.start, is_careful=is_known)
        self._window = Level(connections, 1.0, 1.0, connections.start)
        self._pace = RateLimit(None)
        self._dials = RateLimit(None)
        self._meter = Meter()
        self._minute = Meter(MINUTE)
        self.until = -math.inf  # nothing goes before
        self.reason = ""  # for that
        self._closures = 0  # refusals in a row; 0: open
        self._reacted_at = -math.inf
        self._refused_at = -math.inf
        self._refused_value = 0.0
        self._closed_until = -math.inf
        self._is_guess = False  # the mark: no probe has proved it, so it may be tried soon
        self._silence = 0.0  # seconds, the last one
        self._served = 0  # answers between the two silences before
        self._quotas = 0  # silences in a row that look like a quota's end
        self._lapses = 0  # refusals below the mark in a row, each after a long silence
        self._cost = -FREE  # messages
        self._full_at = -math.inf  # the window was in the way
        self._grown_at = -math.inf
        self._evidence = Evidence()
        self._weather = Weather()
        self._replies = ReplyTime()
        self._former = (rate.start, math.inf)  # value and mark, before we went slower
        self._before = (rate.start, math.inf)  # the same before the last time
        self._told = {"rate": (-math.inf, rate.start), "connections": (-math.inf, connections.start)}
        self._set_pace()

    @property
    def rate(self) -> float:
        return self._rate.value

    @property
    def messages_per_connection(self) -> int | None:
        return self._evidence.messages_per_connection

    @property
    def connections(self) -> float:
        return self._window.value if self._window.value == math.inf else int(self._window.value)

    @property
    def is_free(self) -> bool:
        """Would `take` say Go to anything?"""
        return self._pace.rate is None and not self._closures

    @property
    def has_learned(self) -> bool:
        """Is anything not as it began?"""
        return self._rate.has_moved or self._window.has_moved or self.messages_per_connection is not None

    # Asked

    def ask_dial(self, now: float, connections: int, *, is_first: bool = False) -> Go | Wait:
        """One connection more than these, that are open or being dialled? Takes nothing. Who has none of them
        needs one, even where the rate is reached and more would not bring more.
        """
        if now < self.until:
            return Wait(self.until, self.reason)
        if self._closures and connections and now < self._closed_until + OPEN_FIRST:
            return Wait(now + ASK_AGAIN, self.reason)
        if connections and not is_first and self._meter.rate(now) > REACHED * self._rate.value:
            return Wait(now + ASK_AGAIN, "rate")
        if connections >= self.connections:
            self._full_at = now
            return Wait(now + ASK_AGAIN, NO_CONNECTION)
        return self._dials.ask(now)

    def dial(self, now: float, connections: int, *, is_first: bool = False) -> Go | Wait:
        """The same, and `Go` counts as one that is dialled."""
        answer = self.ask_dial(now, connections, is_first=is_first)
        return self._dials.take(now) if isinstance(answer, Go) else answer

    def ask(self, now: float, recipients: int) -> Go | Wait:
        """A transaction for so many? Takes nothing."""
        return Wait(self.until, self.reason) if now < self.until else self._pace.ask(now, recipients)

    def take(self, now: float, recipients: int) -> Go | Wait:
        """The same, and `Go` takes them from the rate."""
        if now < self.until:
            return Wait(self.until, self.reason)
        answer = self._pace.take(now, recipients)
        if self._closures and isinstance(answer, Go):
            self.until = now + TRIAL
        return answer

    # Told

    def opened(self, connections: int) -> None:
        """So many are open now: the site allows as many."""
        if connections > self._window.value:
            self._window.value = float(connections)

    def answered(
        self, now: float, started: float, recipients: int, delivered: int, transactions: int = 1
    ) -> Change | None:
        """Transactions ended, and these recipients were not refused for our speed; some were delivered."""
        meter = self._meter
        if meter.opened_at > now:
            meter.restart(started)
            meter.opened_at = started
        meter.count(now, recipients, self._rate.value)
        self._minute.count(now, recipients, self._rate.value)
        self._evidence.answered(now, recipients)
        if self._closures:
            if started < self._reacted_at:
                return None
            refusals = self._closures
            self._reopen(now)
            return self._obey(self._weather.reopened(refusals), now)
        pace = meter.rate(now)
        self._weather.answered(now, transactions, min(self._rate.value, LAG * pace))
        self._replies.took(now - started)
        if self._rate.is_probing and self._replies.is_near:
            self._rate.give_up_probe(now)
            self._set_pace()
        elif delivered and not self._weather.is_waiting and pace >= USED * self._rate.value:
            used, replies = delivered / self._rate.value, self._replies
            self._rate.grow(now, used, is_flat=replies.is_flat, is_crowded=replies.is_crowded)
            self._set_pace()
        if delivered and self._full_at >= min(started, now - 2 * ASK_AGAIN):
            used = min(now - self._grown_at, max(now - started, 2 * ASK_AGAIN))
            self._window.grow(now, used, is_crowded=self._replies.is_crowded)
            self._grown_at = now
        what = "rate" if self._rate.value != self._told["rate"][1] else "connections"
        return self._tell(now, what, "mail is delivered", TELL[1])

    def refused(self, now: float, refusal: Refusal) -> Change | None:
        """A dial or a transaction was refused; recipients that were not, are told to `answered`."""
        if refusal.subject not in OURS:
            return None
        evidence, carried = self._evidence, refusal.carried
        is_connection = refusal.subject is Subject.CONNECTION
        is_dial = is_connection and carried is None
        if is_connection and carried and evidence.is_used_up(now, carried):
            return None
        if refusal.started < self._reacted_at and not is_dial:
            self._cost += refusal.recipients
            return None
        # A goodbye in the middle is no sure sign, even in known words: the connection may just be used up.
        is_sure = (refusal.by_rule and (is_dial or not is_connection)) or self._closures > 0
        if not is_sure:
            if not evidence.is_enough():
                return None
            self._cost += int(DOUBT) - 1
        if is_dial:
            self._cost += refusal.recipients
            return self._crowded(now, refusal)
        if self._closures:
            self._weather.refused_again()
        elif is_sure and (said := self._weather.refused(now)) is not Say.SLOW_DOWN:
            return None if said is Say.NOTHING else self._obey(said, now)
        self._cost += refusal.recipients * max(self._weather.ignored, 1)
        return self._too_fast(now, refusal)

    def suspend(self, now: float, until: float, reason: str) -> Change:
        """Nothing goes before `until`; then it begins anew with a part of the former rate."""
        rate, window = self._rate, self._window
        former = rate.value if rate.value < math.inf else self._meter.rate(now)
        rate.mark = min(rate.mark, former) if former else rate.mark
        rate.value = max(former * RE_ENTRY if former else RE_ENTRY_BLIND, rate.bounds.floor)
        window.value = window.bounds.floor
        self._set_pace()
        self._meter.restart(until)
        self._closures += 1
        self._refused_at, self._is_guess = until, True  # what we chose is no cost of a probe
        self._reacted_at, self.reason = now, reason
        self.until = self._closed_until = until
        change = Change("rate", self._told["rate"][1], rate.value, reason, until)
        self._told["rate"] = (now, rate.value)
        return change

    def shut(self, now: float, until: float, reason: str) -> None:
        """So it was left: nothing goes before `until`, and then one transaction tries."""
        self.until = self._closed_until = until
        self.reason = reason
        self._closures = max(self._closures, 1)
        self._reacted_at = now
        self._refused_at, self._is_guess = until, True

    # Saved

    def snapshot(self) -> Learned:
        rate, window = self._rate, self._window
        return Learned(rate.value, rate.mark, window.value, window.mark, self.messages_per_connection)

    def restore(self, learned: Learned, age: float) -> None:
        """Begin with what was learned `age` seconds ago."""
        self._rate.restore(learned.rate, learned.rate_mark, age)
        self._window.restore(learned.connections, learned.connections_mark, age)
        if age < AGE:
            self._evidence.messages_per_connection = learned.messages_per_connection
        self._told = {"rate": (-math.inf, self.rate), "connections": (-math.inf, float(self.connections))}
        self._set_pace()

    # Inside

    def _crowded(self, now: float, refusal: Refusal) -> Change | None:
        window = self._window
        if window.is_probing and window.mark < math.inf:
            window.lose_patience()
        most = float(max(refusal.open, 1))
        window.fall(most, most)
        window.probe_at = now + window.patience
        if not refusal.open and refusal.started >= self._reacted_at:
            if not self._closures:
                self._refused_at, self._is_guess = now, True
            self._close(now, refusal)
        reason = f"refused with {refusal.open} connections open"
        return self._tell(now, "connections", reason, TELL[0], None if refusal.open else self.until)

    def _too_fast(self, now: float, refusal: Refusal) -> Change | None:
        rate, meter = self._rate, self._meter
        if not self._closures:
            meter.count(now, refusal.recipients, rate.value)
            weather, speed = self._weather, min(rate.value, LAG * meter.rate(now))
            was_slow, was_alone = weather.is_slow, weather.was_alone
            self._replies.refused()
            self._before = rate.value, rate.mark
            if not was_slow:
                self._former = self._before
            is_probe = rate.mark == math.inf or rate.is_probing or not refusal.by_rule
            mark, value = self._measured(now, speed)
            weather.slowed(now, speed, mark, is_probe=is_probe)
            if was_slow and was_alone and weather.is_slow:
                value = max(value, STEP * rate.value)
            self._refused_at, self._refused_value = now, rate.value
            self._is_guess = not rate.is_probing
            rate.fall(mark, value)
            self._set_pace()
            meter.restart(now)  # the silence counts: what a bucket takes after it was saved up in it
        self._close(now, refusal)
        return self._tell(now, "rate", f"refused: {refusal.subject.value}", TELL[0], self.until)

    def _measured(self, now: float, level: float) -> tuple[float, float]:
        """What a refusal at this level tells: the mark, and the rate to go on with."""
        rate, meter = self._rate, self._meter
        if rate.is_probing:
            rate.lose_patience()
            if level > HEEDED * rate.lesson:
                rate.lesson = math.inf
            level = max(min(level, rate.lesson), rate.mark)
            self._lapses = 0
        elif rate.mark == math.inf:
            level *= BACK  # it was climbing steeply: it had passed the limit before it heard of it
        else:
            rate.lesson = rate.value
            level = max(level, DEEPEST * rate.value)
            if now - self._refused_at < SOON:
                self._lapses = 0
                # After a steep climb its minute is full, however slow we go at once: that is no lower mark.
                is_climb = self._former[1] == math.inf and self._minute.answers > FULL
                mark = max(level, min(self._minute.rate(now), rate.mark if is_climb else rate.value))
                return mark, max(level * BACK, mark * DRAIN)
            self._lapses = self._lapses + 1 if now - meter.opened_at < self._silence else 0
            level *= BACK ** min(self._lapses, 2)
        return level, level * BACK

    def _close(self, now: float, refusal: Refusal) -> None:
        pause = max(PAUSE[0], 2 / self._rate.value) * 2.0 ** min(self._closures, 10)
        self._closures += 1
        self.until = now + (min(pause, PAUSE[1]) if refusal.again is None else refusal.again)
        self._closed_until = self.until
        self.reason = f"refused: {refusal.subject.value}"
        self._reacted_at = now

    def _reopen(self, now: float) -> None:
        rate, meter = self._rate, self._meter
        self._closures, self.until = 0, now
        # Not `now`: when no mail waited, nobody tried.
        self._silence = silence = max(min(now, self._closed_until + TRIAL) - self._refused_at, 0.0)
        mean = meter.mean(now)
        before, self._served = self._served, meter.total
        meter.opened_at, meter.total = now, 0
        is_quota = silence > LONG and abs(before - self._served) <= ALIKE * before
        self._quotas = self._quotas + 1 if is_quota and mean < REACHED * self._refused_value else 0
        if self._quotas > 1:
            mark = max(mean, DEEPEST * self._refused_value)
            rate.fall(mark, mark * BACK)
            self._set_pace()
        pay = max(rate.patience, min(PAY_MAIL * self._cost / rate.value, PAY_MOST))
        if self._quotas > 1 or not self._is_guess:
            pay = max(pay, min(PAY_TIME * silence, PAY_LONGEST))
        # A mark that fell far is not left so for the hours that an earlier probe has to pay.
        rate.probe_at = max(now + pay, -math.inf if self._lapses else rate.probe_at)
        self._cost = 0

    def _obey(self, said: Say, now: float) -> Change | None:
        """Do what the weather makes of an answer."""
        rate = self._rate
        if said is Say.NOTHING:
            return self._tell(now, "rate", "the site takes mail again", TELL[0])
        if said is Say.TRY_SLOWER:
            rate.value, rate.mark = TRIED * self._before[0], self._before[1]
        else:
            rate.value, rate.mark = max(rate.value, self._former[0]), self._former[1]
            if said is Say.FOUND:
                rate.forget()  # it may be the weather's, too
        self._set_pace()
        if said is not Say.FOUND:
            return self._tell(now, "rate", "as before: it was not refused for our speed", TELL[0])
        old, self._told["rate"] = self._told["rate"][1], (now, rate.value)
        reason = f"{self._weather.share:.1%} are refused at any speed: it is not about ours"
        return Change("rate", old, rate.value, reason)

    def _set_pace(self) -> None:
        self._pace.rate = _paced(self._rate.value, BURST)
        self._dials.rate = _paced(self._rate.value * DIALS, 1.0)

    def _tell(
        self, now: float, what: str, reason: str, gap: float, until: float | None = None
    ) -> Change | None:
        at, old = self._told[what]
        new = self.rate if what == "rate" else float(self.connections)
        is_same = new == old or abs(new - old) < WORTH_TELLING * min(old, new)
        if (now < at + gap and new >= old) or (is_same and until is None):
            return None
        self._told[what] = (now, new)
        return Change(what, old, new, reason, until)


def _paced(value: float, seconds: float) -> Rate | None:
    """So many a second, so many seconds' worth at once."""
    many = 1 if value == math.inf else max(round(value * seconds), 1)
    return None if value == math.inf else Rate(many, many / value)
