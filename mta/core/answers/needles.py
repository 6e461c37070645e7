"""Which rules can fit a text at all, by three letters that must be in it.

Between: `core.answers.rules` asks, so that of some 170 rules it tries the few that may fit, in their order.
Contract: pure. `candidates` never leaves out a rule that fits; it may name some that do not. A regular
    expression is one that `config.rules` lets pass: no groups but (?:...), no look-around, no flags.
Why: to look for 1,300 phrases and 50 expressions in a text one by one takes ten times as long.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

SIZE = 3  # letters of a needle
_LETTER = re.compile(r"\\[^\w\s]|[^\\\[\](){}|.^$*+?]")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]")
_OPTIONAL = re.compile(r"[?*{]")  # behind a letter: it may be there or not, or several times


class Needles:
    """Three letters for each phrase and expression of each rule, the rarest that they have."""

    def __init__(self, rules: Sequence[tuple[Sequence[str], Sequence[str]]]) -> None:
        """`rules` by number: their phrases, and the sources of their expressions; one of all must fit."""
        needed = [[*phrases, *map(literal, patterns)] for phrases, patterns in rules]
        common = Counter(part for texts in needed for text in texts for part in parts(text))
        self._always: set[int] = set()
        self._rules: dict[str, set[int]] = {}
        for number, texts in enumerate(needed):
            if not texts or any(len(text) < SIZE for text in texts):
                self._always.add(number)
                continue
            for text in texts:
                needle = min(parts(text), key=lambda part: (common[part], part))
                self._rules.setdefault(needle, set()).add(number)

    def candidates(self, text: str) -> set[int]:
        """The numbers of the rules that may fit a text."""
        found = self._rules.keys() & parts(text)
        return self._always.union(*(self._rules[needle] for needle in found))


def parts(text: str) -> set[str]:
    """Each three letters that stand side by side."""
    return set(map("".join, zip(text, text[1:], text[2:], strict=False)))


def literal(pattern: str) -> str:
    """The longest text that is in whatever an expression fits; "" where there is none."""
    return max(_literals(pattern), key=len, default="")


def _literals(pattern: str) -> Iterable[str]:
    """The texts outside of groups and classes, where no `|` makes them optional."""
    found, run, at, depth = [], "", 0, 0
    while at < len(pattern):
        letter = _LETTER.match(pattern, at)
        if pattern[at] == "|" and not depth:
            return []
        if letter and not depth and not _OPTIONAL.match(pattern, letter.end()):
            run += letter[0][-1]
            at = letter.end()
            continue
        found.append(run)
        run = ""
        depth += {"(": 1, ")": -1}.get(pattern[at], 0)
        at = _next(pattern, at)
    return [*found, run]


def _next(pattern: str, at: int) -> int:
    """Behind a class, an escape, or a count."""
    if pattern[at] == "[":
        found = _CLASS.match(pattern, at)
        return found.end() if found else at + 1
    if pattern[at] == "{":
        return pattern.index("}", at) + 1
    return at + (2 if pattern[at] == "\\" else 1)
