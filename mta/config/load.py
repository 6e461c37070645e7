"""mta.yaml -> `Settings`, or every problem in the file at once; and back to text.

Between: `daemon` and the commands call `load`; `mta config show` prints what `show` gives.
Contract: the dataclasses of `config.settings` are the schema: their type hints drive both directions, so a
    new key is one line there and none here. Relative paths are taken from the folder of the file.
    `show` writes every key with its unit, and `load` reads that back to an equal value.
Raises: `SettingsError`, with the problems in the order of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from mta.config import providers, sources
from mta.config.document import Problem, SettingsError, compose
from mta.config.settings import Settings
from mta.config.walk import SCALARS, UNION, Walk, present

__all__ = ["Problem", "SettingsError", "load", "show"]


def load(path: Path) -> Settings:
    """Read the whole file; nothing in it is passed over in silence."""
    root = compose(path)
    walk = Walk(path, path.absolute().parent)
    settings = walk.value(root, Settings, "")
    problems = [*walk.problems, *providers.problems(path, root), *sources.problems(path, root)]
    if problems:
        raise SettingsError(problems)
    assert isinstance(settings, Settings)
    return settings


def show(settings: Settings) -> str:
    """The resolved settings, every key, with units."""
    return yaml.safe_dump(_plain(settings, Settings), sort_keys=False, allow_unicode=True, width=1000)


# Values -> plain data


def _plain(value: Any, hint: Any) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if value is None or origin is Literal:
        return value
    if origin in UNION:
        return _plain(value, present(hint))
    if origin is tuple:
        return [_plain(member, args[0]) for member in value]
    if origin is Mapping:
        return {name: _plain(member, args[1]) for name, member in value.items()}
    if is_dataclass(hint):
        return {name: _plain(getattr(value, name), arm) for name, arm in get_type_hints(hint).items()}
    return SCALARS[hint].write(value)
