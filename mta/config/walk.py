"""Nodes of a YAML file -> records of typed values, with every problem on the way.

Between: `config.load`, `config.rules` and `config.providers` read their files with a `Walk`.
Contract: dataclasses are the schema: nodes and type hints are gone down together. Relative paths are taken
    from a folder. A value that was refused is `BROKEN`, and so is what holds it; problems are in `problems`,
    with key, line and column. `SCALARS` reads and writes the values of each type.
Raises: nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from yaml import MappingNode, Node, ScalarNode, SequenceNode

from mta.config import units
from mta.config.document import BOOL, FLOAT, INT, NULL, STR, Problem, place
from mta.config.settings import (
    Address,
    Destination,
    Duration,
    Endpoint,
    FeedbackId,
    Hop,
    HostName,
    Instance,
    MailAddress,
    Port,
    Priority,
    Size,
    SourceSettings,
    StaticRoute,
    Suffix,
)
from mta.core.check import CheckMode
from mta.core.limits.throttle import Rate
from mta.core.limits.window import Window

MAX_WORDS = 300  # characters of one problem; values are quoted in it
UNION: Final = (Union, UnionType)  # `Duration | None` is the former, `Path | None` the latter
BROKEN: Final = object()  # stands for a value that was refused, so that the rest can still be judged
# How the keys of a mapping are read, by what it maps to; else any text.
NAMED: Final[Mapping[Any, Callable[[str], str]]] = {
    Destination: units.domain_name,
    StaticRoute: units.routed_domain,
    SourceSettings: units.label,
    CheckMode: units.check_name,
}
FORMER: Final = {"domains": "destinations"}  # keys that are called otherwise by now
SHORT: Final = (
    Endpoint,
    Hop,
    Address,
)  # a record whose first key is one of these may be written as that alone

_hints = cache(get_type_hints)  # they are evaluated anew each time, and some files have hundreds of records


class Walk:
    """Goes down the nodes and the type hints together, collecting problems."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.folder = folder
        self.problems: list[Problem] = []

    def value(self, node: Node, hint: Any, key: str) -> Any:
        origin, args = get_origin(hint), get_args(hint)
        if origin in UNION:
            return None if node.tag == NULL else self.value(node, present(hint), key)
        if origin is Literal:
            return self._choice(node, args, key)
        if isinstance(hint, type) and issubclass(hint, Enum):
            word = self._choice(node, tuple(member.value for member in hint), key)
            return word if word is BROKEN else hint(word)
        if origin is tuple:
            return self._sequence(node, args[0], key)
        if origin is Mapping:
            return self._mapping(node, args[1], key)
        return self._record(node, hint, key) if is_dataclass(hint) else self._scalar(node, hint, key)

    def _refuse(self, node: Node, key: str, text: str) -> object:
        text = text if len(text) <= MAX_WORDS else text[: MAX_WORDS - 3] + "..."
        self.problems.append(Problem(self.path, *place(node.start_mark), key, text))
        return BROKEN

    def _scalar(self, node: Node, hint: Any, key: str) -> Any:
        kind = SCALARS[hint]
        if not isinstance(node, ScalarNode) or node.tag not in kind.tags:
            return self._refuse(node, key, f"expected {kind.noun}, got {_found(node)}")
        try:
            value = kind.read(node.value)
        except ValueError as error:
            return self._refuse(node, key, str(error))
        return self.folder / value if hint is Path else value

    def _choice(self, node: Node, choices: tuple[str, ...], key: str) -> Any:
        if isinstance(node, ScalarNode) and node.tag == STR and node.value in choices:
            return node.value
        return self._refuse(node, key, f"expected one of {', '.join(choices)}; got {_found(node)}")

    def _sequence(self, node: Node, hint: Any, key: str) -> Any:
        if not isinstance(node, SequenceNode):
            return self._refuse(node, key, f"expected a list, got {_found(node)}")
        values = tuple(self.value(child, hint, f"{key}[{n}]") for n, child in enumerate(node.value))
        return BROKEN if BROKEN in values else values

    def _mapping(self, node: Node, hint: Any, key: str) -> Any:
        if not isinstance(node, MappingNode):
            return self._refuse(node, key, f"expected a mapping, got {_found(node)}")
        read = NAMED.get(hint, str)
        values = {
            name: self.value(child, hint, _join(key, name)) for name, _, child in self._pairs(node, key, read)
        }
        return BROKEN if BROKEN in values.values() else values

    def _record(self, node: Node, cls: Any, key: str) -> Any:
        hints = _hints(cls)
        first = fields(cls)[0].name
        values: dict[str, Any] = {}
        if isinstance(node, MappingNode):
            values = self._members(node, hints, key)
        elif hints[first] in SHORT and isinstance(node, ScalarNode) and node.tag != NULL:
            values[first] = self._scalar(node, hints[first], key)  # the one thing that matters
        else:
            return self._refuse(node, key, f"expected a mapping, got {_found(node)}")
        for field in fields(cls):
            if field.name not in values and _is_required(field):
                values[field.name] = self._refuse(node, _join(key, field.name), "missing, and has no default")
        if BROKEN in values.values():
            return BROKEN
        try:
            return cls(**values)
        except ValueError as error:
            return self._refuse(node, key, str(error))

    def _members(self, node: MappingNode, hints: Mapping[str, Any], key: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, name_node, child in self._pairs(node, key, str):
            if name in hints:
                values[name] = self.value(child, hints[name], _join(key, name))
                continue
            meant = difflib.get_close_matches(name, hints, n=1)
            advice = f"; did you mean '{meant[0]}'?" if meant else ""
            if FORMER.get(name) in hints:
                meant, advice = [FORMER[name]], f"; it is called '{FORMER[name]}' now"
            self._refuse(name_node, _join(key, name), f"unknown key{advice}")
            for lost in meant:
                values.setdefault(lost, BROKEN)  # it was meant to be there: not to be called missing as well
        return values

    def _pairs(
        self, node: MappingNode, key: str, read: Callable[[str], str]
    ) -> Iterator[tuple[str, Node, Node]]:
        lines: dict[str, int] = {}
        for name_node, child in node.value:
            if not isinstance(name_node, ScalarNode):
                self._refuse(name_node, key, f"expected a name before the colon, got {_found(name_node)}")
                continue
            try:
                name = read(name_node.value)
            except ValueError as error:
                self._refuse(name_node, _join(key, name_node.value), str(error))
                continue
            if name in lines:
                self._refuse(name_node, _join(key, name), f"duplicate key, first on line {lines[name]}")
                continue
            lines[name] = name_node.start_mark.line + 1
            yield name, name_node, child


def present(hint: Any) -> Any:
    """The X of `X | None`."""
    return next(arm for arm in get_args(hint) if arm is not NoneType)


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _join(key: str, name: str) -> str:
    name = name if name.isprintable() and len(name) <= 64 else repr(name[:64])
    return f"{key}.{name}" if key else name


def _found(node: Node) -> str:
    if not isinstance(node, ScalarNode):
        return "a mapping" if isinstance(node, MappingNode) else "a list"
    words = {STR: repr(node.value), NULL: "nothing", BOOL: str(node.value)}
    return words.get(node.tag, f"the number {node.value}")


# Scalars, both ways


class _Scalar(NamedTuple):
    """How values of one type are called, recognised, read and written."""

    noun: str
    tags: tuple[str, ...]
    read: Callable[[str], Any]
    write: Callable[[Any], object]


def _count(text: str) -> int:
    if int(text) < 1:
        raise ValueError(f"{text} is too small: at least 1")
    return int(text)


def _path(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError(f"{text!r} is not a path")
    return Path(text)


SCALARS: Final[Mapping[Any, _Scalar]] = {
    str: _Scalar("text", (STR,), str, str),
    bool: _Scalar("true or false", (BOOL,), lambda text: text.lower() == "true", bool),
    int: _Scalar("a whole number", (INT,), _count, int),
    float: _Scalar("a number", (INT, FLOAT), float, float),
    Duration: _Scalar("a duration", (STR, INT, FLOAT), units.duration, units.duration_text),
    Size: _Scalar("a size", (STR, INT, FLOAT), units.size, units.size_text),
    Port: _Scalar("a port", (INT,), units.port, int),
    Priority: _Scalar("a priority", (INT,), units.priority, int),
    Instance: _Scalar("an instance", (INT,), units.instance, int),
    Window: _Scalar("hours", (STR,), units.window, lambda window: window.text),
    Rate: _Scalar("a rate", (STR, INT, FLOAT), units.rate, units.rate_text),
    Endpoint: _Scalar("host:port", (STR, INT, FLOAT), units.endpoint, str),
    Hop: _Scalar("host:port", (STR, INT, FLOAT), units.hop, str),
    Address: _Scalar("an address", (STR, FLOAT), units.address, str),
    MailAddress: _Scalar("an address", (STR,), units.mail_address, str),
    FeedbackId: _Scalar("a pattern", (STR,), units.feedback_id, str),
    HostName: _Scalar("a host name", (STR,), units.host_name, str),
    Suffix: _Scalar("a suffix of host names", (STR,), units.suffix, str),
    Path: _Scalar("a path", (STR,), _path, str),
}
