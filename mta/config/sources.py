"""Sources and pools: the settings -> `core.route.source`, and what is wrong between their names.

Between: `daemon` and `mta explain` call `sources`; `config.load` asks for the problems of the settings.
Contract: every pool names sources that there are, every stream a pool that there is; every source is in a
    pool, and no two have one address. In the sandbox nothing is bound, but sources are chosen all the same.
Raises: KeyError from `sources`, for settings that `problems` would complain of.
Why: mail that leaves from another address than was meant spoils its reputation, and nobody notices.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from yaml import MappingNode, Node, ScalarNode

from mta.config.document import NULL, Problem, child, members, place
from mta.config.settings import Settings, SourceSettings
from mta.config.walk import BROKEN, Walk
from mta.core.route.source import DEFAULT, Source, Sources, chosen_by_the_system


def sources(terms: Settings) -> Sources:
    """What these settings say."""
    if not terms.sources:
        return chosen_by_the_system(terms.hostname)
    made = {
        name: Source(name, "" if terms.sandbox else each.address, each.hostname or terms.hostname)
        for name, each in terms.sources.items()
    }
    return Sources(made, terms.pools, {name: each.pool for name, each in terms.streams.items() if each.pool})


def problems(path: Path, root: Node) -> Iterator[Problem]:
    """Names that nobody has given or nobody uses, and addresses that are given twice."""
    named = dict(members(child(root, "sources")))
    pools = dict(members(child(root, "pools")))
    for pool, weights in pools.items():
        for source, weight in members(weights):
            if source not in named:
                yield _problem(path, weight, f"pools.{pool}.{source}", _unknown("source", source, named))
        if isinstance(weights, MappingNode) and not weights.value:
            yield _problem(
                path, weights, f"pools.{pool}", "has no source: give one at least, as name: weight"
            )
    known = {*pools, *([DEFAULT] if named else [])}
    for stream, terms in members(child(root, "streams")):
        said = child(terms, "pool")
        if isinstance(said, ScalarNode) and said.tag != NULL and said.value not in known:
            yield _problem(path, said, f"streams.{stream}.pool", _unknown("pool", said.value, known))
    if DEFAULT in pools:
        placed = {source for weights in pools.values() for source, _ in members(weights)}
        for source, node in named.items():
            if source not in placed:
                yield _problem(path, node, f"sources.{source}", "is in no pool: no mail would leave from it")
    yield from _twins(path, named)


def _twins(path: Path, named: Mapping[str, Node]) -> Iterator[Problem]:
    """Sources with an address that another one has."""
    owners: dict[object, str] = {}
    for name, node in named.items():
        said = Walk(path, path).value(node, SourceSettings, "")
        if said is BROKEN:
            continue  # told by whoever walks the whole file
        owner = owners.setdefault(said.address, name)
        if owner != name:
            words = f"{said.address} is the address of {owner} already; to others both would be one sender"
            yield _problem(path, node, f"sources.{name}", words)


def _unknown(noun: str, name: str, known: Collection[str]) -> str:
    meant = difflib.get_close_matches(name, known, n=1)
    return f"there is no {noun} {name!r}" + (f"; did you mean '{meant[0]}'?" if meant else "")


def _problem(path: Path, node: Node, key: str, text: str) -> Problem:
    return Problem(path, *place(node.start_mark), key, text)
