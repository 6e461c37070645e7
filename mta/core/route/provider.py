"""Whose mail hosts are these? Named groups of sites, known by the names of their MX hosts.

Between: `config.providers` reads the profiles; `delivery.router` asks for the provider of each site.
Contract: pure; names are lower-case A-labels without the final dot. A host matches a suffix that it is, or
    that it ends in after a dot. A site is a provider's if all its hosts of the best preference match: where
    the backup stands does not matter. A recipient domain that a profile names comes first.
Raises: nothing.
Why: `complaints` is the linter. Other senders' shared profiles had rules without a match, and suffixes that
    no host name can ever have; nobody noticed for years.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from mta.core.route.routing import Host
from mta.core.route.terms import Layer, Terms

_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")  # without a dot: no domain is taken for it


class Provider(NamedTuple):
    """One profile."""

    name: str
    terms: Terms
    match: tuple[str, ...] = ()  # suffixes of MX host names
    domains: tuple[str, ...] = ()  # recipient domains
    examples: tuple[str, ...] = ()  # MX host names
    per_site: bool = False  # its limits hold for each of its sites, not for all of them together
    because: Mapping[str, str] = {}  # why a limit is what it is, by name

    @property
    def layer(self) -> Layer:
        return Layer(f"provider {self.name}", self.terms, self.because)


class Match(NamedTuple):
    """A provider, and what of its profile fits."""

    provider: Provider
    rule: str


class Providers:
    """All profiles; of two that take the same, the first has it."""

    def __init__(self, profiles: Iterable[Provider] = ()) -> None:
        self.by_name: dict[str, Provider] = {}
        self._suffixes: dict[str, Provider] = {}
        self._domains: dict[str, Provider] = {}
        for profile in profiles:
            self.by_name[profile.name] = profile
            for suffix in profile.match:
                self._suffixes.setdefault(suffix, profile)
            for domain in profile.domains:
                self._domains.setdefault(domain, profile)

    def match(self, hosts: Sequence[Host], domain: str) -> Match | None:
        """The provider of a domain with these MX hosts."""
        named = self._domains.get(domain)
        if named is not None:
            return Match(named, f"domains {domain}")
        best = min((host.preference for host in hosts), default=0)
        found = [self._of(host.name) for host in hosts if host.preference == best]
        first = found[0] if found else None
        if first is None or any(each is None or each.provider is not first.provider for each in found):
            return None
        return first

    def _of(self, host: str) -> Match | None:
        for suffix in (host, *_parents(host)):
            if suffix in self._suffixes:
                return Match(self._suffixes[suffix], f"match {suffix}")
        return None


def complaints(profiles: Sequence[Provider]) -> Iterator[tuple[str, str]]:
    """What is wrong within a profile, or between two: the name of it, or of the later one, and words."""
    providers = Providers(profiles)
    seen: set[str] = set()
    for profile in profiles:
        seen.add(profile.name)
        if not _NAME.fullmatch(profile.name):
            yield profile.name, "is no name: lower case, digits and single hyphens"
        if not profile.match and not profile.domains:
            yield profile.name, "can never match: give match, or domains"
        for suffix in profile.match:
            if not any(_ends_in(example, suffix) for example in profile.examples):
                yield profile.name, f"match {suffix} fits none of its examples: add a real MX host name"
        for example in profile.examples:
            found = providers.match((Host(example, 25),), "")
            if found is None:
                yield profile.name, f"its example {example} does not match it"
            elif found.provider.name in seen - {profile.name}:
                yield profile.name, f"its example {example} is taken by provider {found.provider.name}"
            elif found.provider is not profile:
                words = f"{found.rule} takes the example {example} of provider {profile.name}"
                yield found.provider.name, words
    yield from _shared(profiles)


def _shared(profiles: Sequence[Provider]) -> Iterator[tuple[str, str]]:
    """What two profiles, or one twice, lay claim to; the later one is blamed."""
    suffixes = [(suffix, profile.name) for profile in profiles for suffix in profile.match]
    first: dict[str, int] = {}
    for at, (suffix, name) in enumerate(suffixes):
        if (earlier := first.setdefault(suffix, at)) != at:
            yield name, f"match {suffix} stands in provider {suffixes[earlier][1]} already"
    for suffix, at in first.items():
        for parent in _parents(suffix):
            if parent in first:
                (one, owner), (two, blamed) = (suffixes[index] for index in sorted((at, first[parent])))
                yield blamed, f"match {two} overlaps {one} of provider {owner}"
    claimed: dict[str, str] = {}
    for profile in profiles:
        for domain in profile.domains:
            owner = claimed.setdefault(domain, profile.name)
            if owner != profile.name:
                yield profile.name, f"the domain {domain} is taken by provider {owner}"


def _parents(name: str) -> Iterator[str]:
    """What is left when labels are taken off at the front."""
    while name := name.partition(".")[2]:
        yield name


def _ends_in(host: str, suffix: str) -> bool:
    return host == suffix or host.endswith(f".{suffix}")
