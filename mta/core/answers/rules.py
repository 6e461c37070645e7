"""What a peer's answer means: rules that are data, and the verdict of the first one that fits.

Between: `config.rules` builds the `RuleSet` from a file; `core.answers.classify`, lanes and `mta classify`
    ask it.
Contract: pure. A provider's own rules are asked before those for everybody, each group in its order, and
    where none fits the codes decide (`core.answers.status`). `stage` is the command that was answered, as
    `Outcome.command` has it; "" is unknown and fits every rule. `provider` is "" for none of those that
    rules name; None is unknown and fits every rule but those of common words. Waits are seconds, at
    least `SHORTEST`, at most `LONGEST`. Of a text the first `MAX_TEXT` characters count, in lower case,
    without its addresses. Whichever rule fits, a text with one of the `doubts` in it suppresses nothing.
Raises: ValueError from `Rule` for what contradicts itself; nothing that a peer can cause.
Standards: RFC 5321 4.2 (replies), 4.5.4.1 (retries), RFC 3463, RFC 6647 (greylisting).
Why: a wrong word about a mailbox is worse than none, so whatever a rule says, an answer suppresses an
    address only where `status.may_suppress`, and where it speaks of nothing else. Most texts are recognised
    by a plain phrase: `in` takes a twentieth of a regular expression's time, and a hostile text cannot slow
    it down; `core.answers.needles` keeps most rules from being tried at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from mta.core.answers import status
from mta.core.answers.needles import Needles
from mta.core.answers.status import Enhanced, Span
from mta.core.model import Reaction, Reply, Scope, Subject, Verdict

MAX_TEXT = 1024  # characters
SHORTEST, LONGEST = 30.0, 86400.0  # seconds that a peer can ask for
TRUSTED = 3  # so many times a wait that the peer names holds to the second
CACHED = 512  # verdicts, of some 2 KiB each

# An enhanced code that is not where RFC 2034 puts it: "#5.1.0 Rejected", "No mailbox (#5.1.1)",
# "5.1.1: Unknown", or behind one word, or the code once more: "cuda_nsu 5.1.1 Unknown", "550 5.1.1 Unknown"
_ASTRAY = re.compile(r"(?:#|^(?:[^\s\d]{1,20} |[45]\d\d[ -])?\(?)([45]\.\d{1,3}\.\d{1,3})(?!\.?\d)", re.A)
_AFTER_DOMAIN = re.compile(r"[:;,)>\]]")
_LETTER = re.compile(r"[^\W_]")
_NOT_AT = "(?<!at )(?<!until )(?<! à )(?<! um )(?<! bis )(?<!alle )"  # what follows these is a time of day
# A time that we are asked to wait: what announces it stands before it, in German also behind it.
_TIME = (
    r"(?<![0-9.])(?<![0-9]:)" + _NOT_AT + r"(?P<count>[0-9]{1,6}|(?<= )(?:an?|one)(?= )) ?(?P<unit>"
    r"(?:s(?:ec[a-z]{0,5}|ek[a-z]{0,5}|eg[a-z]{0,5})?|m(?:in[a-z]{0,4})?|h(?:rs?|ours?|eures?|oras?)?|"
    r"stunden?|ore|uur|секунд.?|минут.?|час.{0,2})(?![^\W\d_])|秒|分|小时)"
)
# With "at", with a zone, or from two hours on it is the time of day, wherever that is.
_CLOCK = (
    r"[: ]{1,2}(?P<hours>0?[01]):(?P<minutes>[0-5][0-9]):(?P<seconds>[0-5][0-9])"
    r"(?![0-9:.+-]| ?(?:[ap]\.?m\b|uhr|o'clock|z\b|[+-][0-9]|[a-z]{2,4}t\b|utc|gmt))"
)
_ANNOUNCED = (
    r"(?:again|retry|back|wait|gr[ae]y-?list|delay|defer|later|erneut|wieder|dans|essayer|nouveau|intent|"
    r"nuev|riprov|tente|novam|через|повтор|请)[^0-9]{0,40}?"
)
_WAITS = (
    re.compile(r"(?:wait|gr[ae]y-?listed|retry-after|delay(?:ed)?)" + _CLOCK),
    re.compile(
        r"(?:again|retry|back|wait|gr[ae]y-?list|delay|defer|later)[^0-9]{0,40}?"
        r"\b(?:in|for|after|of)" + _CLOCK
    ),
    re.compile(_ANNOUNCED + _TIME),
    re.compile(_TIME + r" (?:erneut|wieder|noch|opnieuw)"),
    re.compile(r"retry[- ]after:? ?(?P<seconds>[0-9]{1,6})(?! ?\S)"),
)
_UNITS = {"st": 3600, "s": 1, "секунд": 1, "秒": 1, "m": 60, "минут": 60, "分": 60}  # else an hour

REACTIONS = frozenset({Reaction.NEXT_MX, Reaction.REDUCE, Reaction.SUSPEND, Reaction.OTHER_SOURCE})
_LASTING = frozenset({Reaction.REDUCE, Reaction.SUSPEND, Reaction.OTHER_SOURCE})


class RetryClass(NamedTuple):
    """The waits of one class: `first`, then each `factor` times the one before, at most `maximum`."""

    first: float  # seconds
    factor: float
    maximum: float  # seconds

    def wait(self, attempts: int) -> float:
        """How long after attempt number `attempts`."""
        return min(self.first * self.factor ** min(max(attempts, 1) - 1, 30), self.maximum)


@dataclass(frozen=True, slots=True)
class Rule:
    """Which answers, and what they mean. What is left empty fits everything, or follows from the subject."""

    name: str
    subject: Subject
    providers: frozenset[str] = frozenset()  # none: for everybody
    common: bool = False  # others say the same and mean something else
    stages: frozenset[str] = frozenset()
    codes: tuple[str, ...] = ()  # "550", or first figures: "55", "5"
    enhanced: tuple[Span, ...] = ()
    phrases: tuple[str, ...] = ()  # of these and of `patterns` one must be in the text
    patterns: tuple[re.Pattern[str], ...] = ()
    permanent: bool | None = None  # None: as the codes say
    reaction: Reaction | None = None  # beyond giving up or trying again
    scope: Scope | None = None
    suppress: bool = False
    retry: str = ""  # the retry class, where the subject's is not right
    wait: float | None = None  # seconds: of the reaction, or of the retry where there is none
    examples: tuple[str, ...] = ()  # as logs show them
    source: str = ""  # where the text is documented

    def __post_init__(self) -> None:
        asked = self.codes or self.enhanced or self.phrases or self.patterns
        if not asked:
            raise ValueError("fits every answer: give codes, enhanced or text")
        if self.common and not self.providers:
            raise ValueError("common means that others than its providers say it: it names none")
        if self.reaction is not None and self.reaction not in REACTIONS:
            raise ValueError("to retry or to bounce follows from `permanent`: leave `reaction` out")
        if self.suppress and self.subject not in (Subject.RECIPIENT, Subject.MAILBOX):
            raise ValueError("only what is about a recipient or a mailbox can suppress an address")
        if self.suppress and self.permanent is False:
            raise ValueError("a mailbox that is no more (suppress) is not tried again (permanent: false)")
        if self.suppress and any(span.subject == 7 for span in self.enhanced):
            raise ValueError("x.7.x is policy: it never suppresses an address")
        if self.permanent and (self.retry or (self.wait is not None and self.reaction not in _LASTING)):
            raise ValueError("what is permanent is not tried again: it has no retry and no wait")
        if self.wait is not None and not SHORTEST <= self.wait <= LONGEST:
            raise ValueError(f"a wait is between {SHORTEST:.0f}s and {LONGEST / 3600:.0f}h")

    def fits(self, code: str, enhanced: Enhanced | None, text: str, stage: str) -> bool:
        if self.codes and not code.startswith(self.codes):
            return False
        if self.enhanced and (enhanced is None or not any(span.holds(enhanced) for span in self.enhanced)):
            return False
        if self.stages and stage and stage not in self.stages:
            return False
        if not self.phrases and not self.patterns:
            return True
        for phrase in self.phrases:
            if phrase in text:
                return True
        return any(pattern.search(text) for pattern in self.patterns)


class RuleSet:
    """All rules, in order, the retry classes that they name, and the words after which nothing suppresses."""

    def __init__(
        self, rules: Sequence[Rule], retries: Mapping[str, RetryClass], doubts: Sequence[str] = ()
    ) -> None:
        self.rules = tuple(rules)
        self.retries = dict(retries)
        self.doubts = tuple(doubts)
        # In the order in which they are asked: for each provider the numbers of its own come first.
        self._asked = sorted(self.rules, key=lambda rule: not rule.providers)
        self._needles = Needles(
            [(rule.phrases, [pattern.pattern for pattern in rule.patterns]) for rule in self._asked]
        )
        own = dict(enumerate(rule.providers for rule in self._asked))
        self._for_others = frozenset(number for number, providers in own.items() if not providers)
        unmistakable = (number for number in own if not self._asked[number].common)
        self._for: dict[str | None, frozenset[int]] = {None: frozenset(unmistakable)}
        for provider in sorted(frozenset[str]().union(*own.values())):
            named = (number for number, providers in own.items() if provider in providers)
            self._for[provider] = self._for_others.union(named)
        self._judged = lru_cache(maxsize=CACHED)(self._judge)

    @property
    def providers(self) -> list[str]:
        """Those that have rules of their own."""
        return sorted(provider for provider in self._for if provider is not None)

    @property
    def remembered(self) -> int:
        """How many verdicts are kept, of at most `CACHED`."""
        return self._judged.cache_info().currsize

    def judge(self, reply: Reply, stage: str = "", provider: str | None = None) -> Verdict:
        """What a reply to `stage` means. Of two equal questions the second costs a microsecond."""
        return self._judged(reply.code, reply.enhanced, reply.text[:MAX_TEXT], stage, provider)

    def wait(self, verdict: Verdict, attempts: int) -> float:
        """How long to leave what failed at attempt number `attempts`; the caller adds its dice.

        A peer that names a time means it; one that names the same short time for ever does not.
        """
        pace = self.retries[verdict.retry or "unknown"].wait(attempts)
        if verdict.wait is None:
            return pace
        return verdict.wait if verdict.stated and attempts <= TRUSTED else max(verdict.wait, pace)

    def _judge(self, code: int, given: str, said: str, stage: str, provider: str | None) -> Verdict:
        text = plain(said)
        astray = None if given else _ASTRAY.search(text)
        enhanced = Enhanced.read(astray[1] if astray else given)
        if code < 400:
            return status.verdict(code, enhanced, stage)
        figures = str(code)
        may_fit = self._needles.candidates(text) & self._for.get(provider, self._for_others)
        for rule in map(self._asked.__getitem__, sorted(may_fit)):
            if rule.fits(figures, enhanced, text, stage):
                found = _verdict(rule, code, enhanced, stage)
                break
        else:
            found = status.verdict(code, enhanced, stage)
        if found.suppress and self._doubts(text):
            found = found._replace(suppress=False)
        stated = None if found.permanent else stated_wait(text)
        return found if stated is None else found._replace(wait=stated, stated=True)

    def _doubts(self, text: str) -> bool:
        """Does a plain text, its host names and links aside, say more than that a mailbox is no more?"""
        said = " ".join(word for word in text.split() if "." not in word.strip("."))
        return any(doubt in said for doubt in self.doubts)


def plain(text: str) -> str:
    """The text that rules see: one line, lower case, no addresses (`spam@` is nobody's verdict)."""
    words = text[:MAX_TEXT].lower().split()
    if "@" in text:
        words = [_without_address(word) if "@" in word else word for word in words]
    return " ".join(filter(None, words))


def _without_address(word: str) -> str:
    """What hangs on an address, if it is more than brackets: "(ann@dst.test:blocked)" -> ":blocked)"."""
    end = _AFTER_DOMAIN.search(word, word.rfind("@"))
    return word[end.start() :] if end is not None and _LETTER.search(word, end.start()) else ""


def stated_wait(text: str) -> float | None:
    """The seconds after which a plain text asks us to come back, kept within bounds."""
    found = next(filter(None, (pattern.search(text) for pattern in _WAITS)), None)
    if found is None:
        return None
    part = found.groupdict()
    if "unit" in part:
        count = int(part["count"]) if part["count"].isdecimal() else 1
        wait = count * next((size for unit, size in _UNITS.items() if part["unit"].startswith(unit)), 3600)
    else:
        wait = int(part.get("hours", 0)) * 3600 + int(part.get("minutes", 0)) * 60 + int(part["seconds"])
    return min(max(float(wait), SHORTEST), LONGEST)


def _verdict(rule: Rule, code: int, enhanced: Enhanced | None, stage: str) -> Verdict:
    permanent = (
        status.is_permanent(code, enhanced, stage, rule.subject) if rule.permanent is None else rule.permanent
    )
    # After the dot an answer is about a message; a rule that names that stage knows of a peer that means one
    # recipient, and `classify` sees to it that there was one only.
    where = "" if stage in rule.stages else stage
    reaction = rule.reaction or status.reaction_to(rule.subject, permanent)
    scope = rule.scope or status.scope_of(reaction, rule.subject, stage)
    if rule.scope is None and scope is Scope.SITE and rule.providers:
        scope = Scope.PROVIDER
    return Verdict(
        rule.subject,
        permanent,
        rule.suppress and permanent and status.may_suppress(enhanced, where),
        rule.name,
        reaction,
        scope,
        "" if permanent else rule.retry or status.CLASSES[rule.subject],
        rule.wait if reaction in _LASTING or not permanent else None,
        is_own=bool(rule.providers),
    )
