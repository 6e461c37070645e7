"""The reply rules: a YAML file -> `RuleSet`, or every problem in it at once.

Between: `daemon` and `mta classify` load the rules that come with us, `SHIPPED`; `core.answers.rules`
    applies them.
Contract: the head of the file says what a rule may hold. An example is a reply as `core.answers.logline`
    reads it, to the first of the rule's stages and from the first of its providers. It must come to its
    own rule: one that an earlier rule takes is refused, with the other's name. A regular expression
    repeats only single letters and classes, within bounds, so that the longest text costs it at most
    `MAX_STEPS` for each of its letters.
Raises: `SettingsError`, with the problems in the order of the file.
Why: a rule that never fires is worse than none, for somebody relies on it; other senders' shared files had
    providers misspelt and patterns that matched nothing, for years.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

from yaml import MappingNode, Node

from mta.config.document import Problem, SettingsError, compose, place
from mta.config.settings import Duration
from mta.config.walk import Walk
from mta.core.answers.logline import quoted
from mta.core.answers.reply import ReplyError
from mta.core.answers.rules import RetryClass, Rule, RuleSet, plain
from mta.core.answers.status import CLASSES, Span
from mta.core.model import Reaction, Scope, Subject

SHIPPED: Final = Path(__file__).with_name("rules.yaml")
MAX_STEPS = 200  # of one regular expression at one letter of the text
MAX_REPEATS = 80
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_QUANTIFIER = re.compile(r"\{([0-9]{1,4})(?:,([0-9]{1,4}))?\}")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]")

Stage = Literal["CONNECT", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "."]


@dataclass(frozen=True)
class Retry:
    """A retry class as the file has it."""

    first: Duration
    factor: float
    maximum: Duration

    def __post_init__(self) -> None:
        if self.factor < 1 or self.maximum < self.first:
            raise ValueError("waits do not shrink: factor is at least 1, maximum at least first")


@dataclass(frozen=True)
class Entry:
    """A rule as the file has it."""

    name: str
    subject: Subject
    examples: tuple[str, ...]
    providers: tuple[str, ...] = ()
    common: bool = False
    stages: tuple[Stage, ...] = ()
    codes: tuple[int, ...] = ()
    enhanced: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    permanent: bool | None = None
    suppress: bool = False
    reaction: Reaction | None = None
    scope: Scope | None = None
    retry: str | None = None
    wait: Duration | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        _check(self)
        rule(self)  # says what contradicts itself


@dataclass(frozen=True)
class File:
    """The whole file."""

    retries: Mapping[str, Retry]
    rules: tuple[Entry, ...]
    doubts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for text in self.doubts:
            if text.strip() != plain(text):
                raise ValueError(f"doubt {text!r} never matches: lower case, single blanks, no @")


@cache
def shipped() -> RuleSet:
    """The rules of this version."""
    return load()


def load(path: Path = SHIPPED) -> RuleSet:
    """Read the whole file; nothing in it is passed over in silence."""
    root = compose(path)
    walk = Walk(path, path.absolute().parent)
    file = walk.value(root, File, "")
    if walk.problems:
        raise SettingsError(walk.problems)
    assert isinstance(file, File)
    retries = {name: RetryClass(each.first, each.factor, each.maximum) for name, each in file.retries.items()}
    rules = RuleSet([rule(entry) for entry in file.rules], retries, file.doubts)
    nodes = _entries(root)
    problems = [
        Problem(path, *place(nodes[at].start_mark), f"rules[{at}]", text)
        for at, text in (*_unnamed(rules), *_astray(rules))
    ]
    if problems:
        raise SettingsError(problems)
    return rules


def rule(entry: Entry) -> Rule:
    """The rule that an entry stands for; ValueError where it is none."""
    phrases = tuple(text for text in entry.text if not _is_pattern(text))
    patterns = tuple(_pattern(text[1:-1]) for text in entry.text if _is_pattern(text))
    for phrase in phrases:
        if phrase != plain(phrase):
            raise ValueError(f"text {phrase!r} never matches: lower case, single blanks, no @")
    return Rule(
        name=entry.name,
        subject=entry.subject,
        providers=frozenset(entry.providers),
        common=entry.common,
        stages=frozenset(entry.stages),
        codes=tuple(map(str, entry.codes)),
        enhanced=tuple(map(Span.read, entry.enhanced)),
        phrases=phrases,
        patterns=patterns,
        permanent=entry.permanent,
        reaction=entry.reaction,
        scope=entry.scope,
        suppress=entry.suppress,
        retry=entry.retry or "",
        wait=entry.wait,
        examples=entry.examples,
        source=entry.source or "",
    )


def steps(pattern: str) -> int:
    """The most that a pattern tries at one letter of a text; ValueError where nothing bounds it."""
    most, at, repeats_group = 1, 0, False
    while at < len(pattern):
        letter, counted = pattern[at], _QUANTIFIER.match(pattern, at)
        if letter in "*+":
            raise ValueError(f"'{letter}' has no bound: write {{0,{MAX_REPEATS}}}")
        if pattern.startswith("(?", at) and not pattern.startswith("(?:", at):
            raise ValueError("of groups only (?:...) is allowed")
        if counted is not None:
            low, high = int(counted[1]), int(counted[2] or counted[1])
            if repeats_group or high > MAX_REPEATS:
                raise ValueError(f"{counted[0]} repeats a group, or more than {MAX_REPEATS} times")
            most *= high - low + 1
        most *= 2 if letter == "?" and not pattern.startswith("(?:", at - 1) else 1
        skipped = counted or (_CLASS.match(pattern, at) if letter == "[" else None)
        repeats_group = letter == ")"
        at = skipped.end() if skipped else at + (2 if letter == "\\" else 1)
    if most > MAX_STEPS:
        raise ValueError(f"it tries {most} ways at each letter of a text, at most {MAX_STEPS} are allowed")
    return most


def _is_pattern(text: str) -> bool:
    return len(text) > 2 and text[0] == text[-1] == "/"


def _pattern(text: str) -> re.Pattern[str]:
    if re.sub(r"\\.", "", text) != re.sub(r"\\.", "", text).lower():
        raise ValueError(f"/{text}/ never matches: the text is in lower case")
    try:
        steps(text)
        return re.compile(text)
    except (re.error, ValueError) as error:
        raise ValueError(f"/{text}/: {error}") from None


def _check(entry: Entry) -> None:
    """What a rule of the file must have beyond what any rule must."""
    if not _NAME.fullmatch(entry.name):
        raise ValueError(f"{entry.name!r} is no name: lower case, digits and single hyphens")
    if not entry.examples:
        raise ValueError("needs an example: a real reply that it is for")
    for code in entry.codes:
        if str(code)[0] not in "45" or code > 599:
            raise ValueError(f"{code} is no code of a refusal: 4yz or 5yz, or its first figures")
    if entry.source is not None and not entry.source.startswith(("https://", "http://")):
        raise ValueError(f"source {entry.source!r} is no address of a page")


def _entries(root: Node) -> list[Node]:
    """The nodes of the rules, for their places."""
    assert isinstance(root, MappingNode)
    return next(list(child.value) for name, child in root.value if name.value == "rules")


def _unnamed(rules: RuleSet) -> Iterator[tuple[int, str]]:
    """Names that are taken twice, retry classes that are not there."""
    seen: set[str] = set()
    for at, each in enumerate(rules.rules):
        if each.name in seen:
            yield at, f"the name {each.name!r} is taken by a rule above"
        seen.add(each.name)
        if each.retry and each.retry not in rules.retries:
            yield at, f"retry {each.retry!r} is none of {', '.join(rules.retries)}"
    missing = sorted(set(CLASSES.values()) - set(rules.retries))
    if missing:
        yield 0, f"retries: lacks {', '.join(missing)}"


def _astray(rules: RuleSet) -> Iterator[tuple[int, str]]:
    """Examples that do not come to their rule."""
    for at, each in enumerate(rules.rules):
        stage = next((stage for stage in ("RCPT", *sorted(each.stages)) if stage in each.stages), "")
        provider = min(each.providers, default="")
        for example in each.examples:
            try:
                reply, told = quoted(example)
            except ReplyError as error:
                yield at, f"{each.name}: an example is {error}"
                continue
            found = rules.judge(reply, told or stage, provider)
            if found.rule == each.name and found.suppress == each.suppress:
                continue
            alone = RuleSet([each], rules.retries).judge(reply, told or stage, provider)
            if found.rule == each.name and found.suppress == alone.suppress:
                continue  # such as 450, or 5.7.1, in a rule that else suppresses
            if found.rule == each.name:
                why = "has a word of `doubts` in it and does not suppress"
            elif alone.rule == each.name:
                why = f"is taken by {found.rule!r} before it"
            else:
                why = f"does not match it (but {found.rule!r})"
            yield at, f"{each.name}: its example {example[:60]!r} {why}"
