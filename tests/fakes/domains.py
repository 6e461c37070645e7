"""Sending domains as checks see them, without a store.

Between: tests of the checks hand them in where the daemon finds those that were added.
Contract: `added(house, domain)` makes the daemon of a house find it by its name and all below it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.fakes.house import House


@dataclass(frozen=True)
class Key:
    """A key that we sign with."""

    selector: str = "s1"
    public: str = "AAAA"


@dataclass(frozen=True)
class Sending:
    """A sending domain."""

    name: str = "src.test"
    return_path: str = ""
    keys: tuple[Key, ...] = (Key(),)


def added(house: House, domain: Sending) -> None:
    """From now on."""
    ends = domain.name, f".{domain.name}"
    house.daemon.checks.domain_of = lambda author: (
        domain if author == ends[0] or author.endswith(ends[1]) else None
    )
