"""A settings file -> YAML nodes that mean what they look like.

Between: `config.load` judges the nodes.
Contract: a file of at most 1 MiB, UTF-8, one document, no anchors, no tags, no deep nesting. Of plain scalars
    only null, true, false, decimal integers and decimal fractions resolve; the rest is text.
Raises: `SettingsError`. Where the structure is broken the values are not judged: nobody knows yet where
    they belong.
Standards: YAML 1.2 core schema for plain scalars, without octal, hexadecimal and exponents.
Why: YAML 1.1 makes `no` false, `012` ten and `1:30` ninety; here they stay as written. Anchors are refused
    because a few lines of aliases unfold to gigabytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from mta.config.settings import MIB

try:
    from yaml import CSafeLoader as _SafeLoader
except ImportError:  # PyYAML built without libyaml
    from yaml import SafeLoader as _SafeLoader  # type: ignore[assignment]

MAX_SIZE = MIB  # octets
MAX_DEPTH = 16  # the settings need four; libyaml composes by recursion, on the C stack

STR = "tag:yaml.org,2002:str"
INT = "tag:yaml.org,2002:int"
FLOAT = "tag:yaml.org,2002:float"
BOOL = "tag:yaml.org,2002:bool"
NULL = "tag:yaml.org,2002:null"


class Problem(NamedTuple):
    """One complaint with its place; line and column count from 1."""

    path: Path
    line: int
    column: int
    key: str  # "listeners[0].bind"; empty for the whole file
    text: str

    def __str__(self) -> str:
        words = f"{self.key}: {self.text}" if self.key else self.text
        return f"{self.path}:{self.line}:{self.column}: {words}"


class SettingsError(Exception):
    """The settings cannot be used."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: (problem.line, problem.column))
        super().__init__("\n".join(map(str, self.problems)))


class _Loader(_SafeLoader):
    """Plain scalars mean what they look like; None is the resolver's wildcard for the first character."""

    # Digits are bounded: int() refuses more than 4300 of them, float() answers inf.
    yaml_implicit_resolvers = {
        "": [(NULL, re.compile(r"\Z"))],
        None: [
            (NULL, re.compile(r"(?:null|Null|NULL|~)\Z")),
            (BOOL, re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")),
            (INT, re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})\Z")),
            (FLOAT, re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,17}\Z")),
        ],
    }


def compose(path: Path) -> Node:
    """Read the file and take its structure apart."""
    text = _text(path)
    problems: list[Problem] = []
    try:
        problems.extend(_unwelcome(path, text))  # keeps those found before the syntax breaks
        root = None if problems else yaml.compose(text, Loader=_Loader)
        if root is not None:
            return root
        if not problems:
            problems.append(Problem(path, 1, 1, "", "holds no settings"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = ", ".join(part for part in (error.context, error.problem) if part)
        problems.append(Problem(path, *(place(mark) if mark else (1, 1)), "", f"YAML: {words}"))
    except yaml.reader.ReaderError as error:  # it knows an offset and no mark
        line = text.encode()[: error.position].count(b"\n") + 1
        problems.append(Problem(path, line, 1, "", f"YAML: {error.reason}"))
    raise SettingsError(problems)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            octets = file.read(MAX_SIZE + 1)
        if len(octets) <= MAX_SIZE:
            return octets.decode("utf-8-sig")
        words = "larger than 1 MiB"
    except OSError as error:
        words = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError as error:
        words = f"not UTF-8 (octet {error.start})"
    raise SettingsError([Problem(path, 1, 1, "", words)])


def _unwelcome(path: Path, text: str) -> Iterator[Problem]:
    """What YAML allows and we do not. Nodes no longer tell of it, so the events are asked."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        line, column = place(event.start_mark)
        tag = getattr(event, "tag", None)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            yield Problem(path, line, column, "", f"nested more than {MAX_DEPTH} deep")
            return
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            yield Problem(path, line, column, "", f"anchors and aliases are refused ({event.anchor})")
        if tag is not None:
            yield Problem(path, line, column, "", f"tags are refused ({tag})")


def child(node: Node | None, name: str) -> Node | None:
    """What stands under a key."""
    if not isinstance(node, MappingNode):
        return None
    return next((value for key, value in node.value if key.value == name), None)


def members(node: Node | None) -> Iterator[tuple[str, Node]]:
    """What stands under each key."""
    if isinstance(node, MappingNode):
        yield from ((key.value, value) for key, value in node.value if isinstance(key, ScalarNode))


def find(root: Node, key: Iterable[str | int]) -> Node:
    """What stands under a key of keys and numbers, or the last of them on the way that is there."""
    for part in key:
        if isinstance(part, str):
            below = child(root, part)
        else:
            below = root.value[part] if isinstance(root, SequenceNode) and part < len(root.value) else None
        if below is None:
            break
        root = below
    return root


def place(mark: Any) -> tuple[int, int]:
    """Line and column, from 1."""
    return mark.line + 1, mark.column + 1
