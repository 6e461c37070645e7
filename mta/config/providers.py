"""Provider profiles: the file that comes with us, and what the settings change in it or add.

Between: `daemon` and `mta explain` call `load`; `config.load` asks for the problems of the settings.
Contract: both files have records of `ProviderSettings`; ours says of each limit `because` of what. What
    the settings say of a shipped provider replaces that value only; any other name is a new provider.
Raises: `SettingsError` from `load`, with the problems in the order of the file.
Why: a profile that never applies is worse than none, for somebody relies on it; so each shows by an example
    that it does.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Final

from yaml import Node

from mta.config.document import Problem, SettingsError, child, compose, members, place
from mta.config.settings import ProviderSettings
from mta.config.walk import BROKEN, Walk
from mta.core.route.provider import Provider, Providers, complaints
from mta.core.route.terms import KEYS, Terms, overlay

SHIPPED: Final = Path(__file__).with_name("providers.yaml")
OURS = "said in the settings"


@dataclass(frozen=True)
class Profile(ProviderSettings):
    """A provider of our own file."""

    because: Mapping[str, str] = field(default_factory=dict)  # documented, community value or caution

    def __post_init__(self) -> None:
        super().__post_init__()
        said = set(self.said())
        wrong = [f"{key} needs a reason in because" for key in KEYS if key in said - set(self.because)]
        wrong += [f"because names {key}, which is not said" for key in self.because if key not in said]
        if wrong:
            raise ValueError("; ".join(wrong))


def load(changes: Mapping[str, ProviderSettings], path: Path = SHIPPED) -> Providers:
    """The shipped profiles with the changes of the settings."""
    return Providers(_merged(_shipped(path), changes))


def problems(path: Path, root: Node) -> Iterator[Problem]:
    """What is wrong between the `providers` of a settings file and ours, where they can be read at all."""
    node = child(root, "providers")
    changes: dict[str, ProviderSettings] = {}
    for name, said in members(node):
        change = Walk(path, path).value(said, ProviderSettings, "")
        if change is not BROKEN:  # else whoever walks the whole file tells why
            changes.setdefault(name, change)
    if not changes:
        return
    for name, text in _objections(_shipped(SHIPPED), changes):
        yield Problem(path, *_place(node, name), f"providers.{name}", text)


@cache
def _shipped(path: Path) -> dict[str, Provider]:
    root = compose(path)
    walk = Walk(path, path.parent)
    profiles = walk.value(root, Mapping[str, Profile], "")
    if walk.problems:
        raise SettingsError(walk.problems)
    found = {name: _provider(name, profile, profile.because) for name, profile in profiles.items()}
    told = complaints(list(found.values()))
    wrong = [Problem(path, *_place(root, name), name, text) for name, text in told]
    if wrong:
        raise SettingsError(wrong)
    return found


def _merged(shipped: Mapping[str, Provider], changes: Mapping[str, ProviderSettings]) -> list[Provider]:
    """Those of the settings come last: what is wrong between two is theirs."""
    merged = [profile for name, profile in shipped.items() if name not in changes]
    for name, change in changes.items():
        base = shipped.get(name, Provider(name, Terms()))
        terms = overlay(base.terms, change)
        kept = {key for key, value in base.terms.said().items() if value == getattr(terms, key)}
        merged.append(
            Provider(
                name,
                terms,
                change.match or base.match,
                change.domains or base.domains,
                change.examples if change.match else base.examples + change.examples,
                base.per_site if change.per is None else change.per == "site",
                {key: base.because[key] if key in kept else OURS for key in terms.said()},
            )
        )
    return merged


def _objections(
    shipped: Mapping[str, Provider], changes: Mapping[str, ProviderSettings]
) -> Iterator[tuple[str, str]]:
    """Complaints, each under a name of the settings."""
    sound: dict[str, ProviderSettings] = {}
    for name, change in changes.items():
        if name not in shipped and not change.match and not change.domains:
            meant = difflib.get_close_matches(name, shipped, n=1)
            advice = f"; did you mean '{meant[0]}'?" if meant else ""
            yield name, f"none of the shipped providers; one of your own needs match or domains{advice}"
            continue
        try:
            if name in shipped:
                overlay(shipped[name].terms, change)
        except ValueError as error:
            yield name, f"{error} of the shipped profile"
            continue
        sound[name] = change
    yield from complaints(_merged(shipped, sound))


def _provider(name: str, said: ProviderSettings, because: Mapping[str, str]) -> Provider:
    terms = Terms(**{key.name: getattr(said, key.name) for key in fields(Terms)})
    return Provider(name, terms, said.match, said.domains, said.examples, said.per == "site", because)


def _place(node: Node | None, name: str) -> tuple[int, int]:
    """Where a profile begins."""
    profile = child(node, name)
    assert profile is not None
    return place(profile.start_mark)
