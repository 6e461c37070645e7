"""Sending domains as checks see them, without a store.

Between: tests of the checks hand them in where the daemon finds those that were added.
Contract: `added(house, domain)` makes the checks of a house find it by its name and all below it; nothing
    is signed.
"""

from __future__ import annotations

from mta.core.domain import DomainKey, KeyState, SendingDomain
from tests.fakes.house import House


def active(selector: str = "s1", public: str = "AAAA") -> DomainKey:
    """A key that signs."""
    return DomainKey(selector, "rsa-sha256", public, KeyState.ACTIVE, 0.0, 0.0)


def sending(
    name: str = "src.test", return_path: str = "", keys: tuple[DomainKey, ...] = (active(),)
) -> SendingDomain:
    """A sending domain."""
    return SendingDomain(name, return_path=return_path, keys=keys)


def added(house: House, domain: SendingDomain) -> None:
    """From now on."""
    ends = domain.name, f".{domain.name}"
    house.daemon.checks.domain_of = lambda author: (
        domain if author == ends[0] or author.endswith(ends[1]) else None
    )
