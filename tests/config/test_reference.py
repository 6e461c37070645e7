"""config/mta.yaml says of every setting what the types say, and of nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
import yaml

from mta.config.load import load
from mta.config.settings import Settings, Tls

REFERENCE = Path(__file__).parents[2] / "config" / "mta.yaml"
TEXT = REFERENCE.read_text(encoding="utf-8")
NOTHING: tuple[Any, ...] = (MISSING, None, "", (), {})  # defaults that leave nothing to show but an example


def uncommented(text: str) -> str:
    return re.sub(r"(?m)^( *)#(?=\S)", r"\1", text)


def default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def members(hint: Any) -> tuple[str, Any]:
    """How a key goes on below this type, and the type found there."""
    if get_origin(hint) is tuple:
        return "[]", get_args(hint)[0]
    if get_origin(hint) is Mapping:
        return ".*", get_args(hint)[1]
    return "", next((arm for arm in get_args(hint) if is_dataclass(arm)), hint)


def keys_of_types(hint: Any, key: str = "", optional: bool = False) -> Iterator[tuple[str, bool]]:
    """Every key, and whether it may stay commented out."""
    suffix, inner = members(hint)
    if not is_dataclass(inner):
        return
    hints = get_type_hints(inner)
    for field in fields(inner):
        name = f"{key}{suffix}.{field.name}"
        may_rest = optional or (default(field) in NOTHING and default(field) is not MISSING)
        is_section = is_dataclass(members(hints[field.name])[1])
        below = list(keys_of_types(hints[field.name], name, may_rest)) if is_section else []
        # A section of which everything may rest has nothing to show either.
        yield name, may_rest or bool(below and all(rests for _, rests in below))
        yield from below


def keys_of_data(data: Any, hint: Any, key: str = "") -> Iterator[str]:
    suffix, inner = members(hint)
    items = data if suffix == "[]" else data.values() if suffix == ".*" else [data]
    if not is_dataclass(inner):
        return
    hints = get_type_hints(inner)
    for item in items:
        for name, value in item.items() if isinstance(item, dict) else ():
            yield f"{key}{suffix}.{name}"
            if name in hints:
                yield from keys_of_data(value, hints[name], f"{key}{suffix}.{name}")


def differing(value: Any, key: str = "") -> Iterator[str]:
    """Keys whose value is not the default; an example for a key without default is gone into."""
    if is_dataclass(value):
        for field in fields(value):
            here, name = getattr(value, field.name), f"{key}.{field.name}"
            if is_dataclass(here) or isinstance(here, Mapping) or default(field) in NOTHING:
                yield from differing(here, name)
            elif here != default(field):
                yield name
    elif isinstance(value, Mapping):
        for name, member in value.items():
            yield from differing(member, f"{key}.{name}")


def test_the_reference_as_it_stands_gives_the_defaults() -> None:
    example = Tls(Path("/etc/mta/tls/fullchain.pem"), Path("/etc/mta/tls/key.pem"))
    assert load(REFERENCE) == Settings("mail.example.com", tls=example)


def test_every_key_with_a_default_is_shown_and_no_other_stands_uncommented() -> None:
    shown = set(keys_of_data(yaml.safe_load(TEXT), Settings))
    examples = {".hostname", ".tls.certificate", ".tls.key", ".tls"}
    assert shown | examples == {key for key, may_rest in keys_of_types(Settings) if not may_rest} | examples


def test_every_key_is_there_and_none_that_the_types_do_not_know() -> None:
    shown = set(keys_of_data(yaml.safe_load(uncommented(TEXT)), Settings))
    assert shown == {key for key, _ in keys_of_types(Settings)}


@pytest.mark.parametrize("left_out", ["sandbox", "routes"])  # they exclude each other
def test_the_optional_parts_load_and_show_their_defaults(tmp_path: Path, left_out: str) -> None:
    sections = TEXT.split("\n\n")
    kept = [section for section in sections if not section.startswith(f"#{left_out}:")]
    assert len(kept) == len(sections) - 1
    path = tmp_path / "mta.yaml"
    path.write_text(uncommented("\n\n".join(kept)), encoding="utf-8")
    assert list(differing(load(path))) == []


def test_a_remark_follows_every_key() -> None:
    """On its line, unless the same key had one further up."""
    remarked: set[str] = set()
    for line in TEXT.splitlines():
        setting = re.match(r" *(?:- |#)?(\w+):(?P<rest>.*)", line)
        if setting and " # " in setting["rest"]:
            remarked.add(setting[1])
    names = {key.rpartition(".")[2] for key, _ in keys_of_types(Settings)}
    assert names - remarked == set()
