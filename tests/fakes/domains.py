"""Sending domains as checks see them, without a store.

Between: tests of the checks hand them in where the daemon finds those that were added.
Contract: `added(house, domain)` makes a house find it by its name and all below it; nothing is signed, for
    there are no secrets.
"""

from __future__ import annotations

from mta.core.domain import DomainKey, KeyState, SendingDomain
from mta.signing.plans import SigningPlan
from tests.fakes.house import House


def active(selector: str = "s1", public: str = "AAAA") -> DomainKey:
    """A key that signs."""
    return DomainKey(selector, "rsa-sha256", public, KeyState.ACTIVE, 0.0, 0.0)


def sending(
    name: str = "src.test", return_path: str = "", keys: tuple[DomainKey, ...] = (active(),)
) -> SendingDomain:
    """A sending domain, whose keys have no secrets: its mail goes unsigned."""
    return SendingDomain(name, return_path=return_path, keys=keys, unsigned="send")


def added(house: House, domain: SendingDomain) -> None:
    """From now on."""
    signers = tuple((domain.name, key) for key in domain.signers)
    plan = SigningPlan(domain, signers, "" if signers else "no key is active", is_own=True)
    below = f".{domain.name}"

    def of(authors: tuple[str, ...]) -> SigningPlan | None:
        ours = [name for name in authors if name == domain.name or name.endswith(below)]
        return plan if ours else None

    house.daemon.plans.of = of  # type: ignore[method-assign]


def nobody(house: House) -> None:
    """Nobody is added any more."""
    house.daemon.plans.of = lambda authors: None  # type: ignore[method-assign]
