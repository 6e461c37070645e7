"""Who signs a message: decided from memory, as the store of domains was a tenth of a second ago.

Between: admission asks for a `SigningPlan` as a message comes in, checks ask whose it is; the signer does it.
Contract: None is nobody. A plan with an `error` is one that cannot be carried out: the message is not taken.
    While the store cannot be read, and for a domain that has keys and is not in it, nobody goes unsigned.
    Domains are lower-case A-labels.
Raises: nothing.
Standards: RFC 6376 5.1 (who may sign); RFC 9989 5.3.1 (several authors).
Why: the store is a file that commands write; to ask it for each message would take 30 us.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import NamedTuple

from mta.clock import Clock
from mta.config.policy import Current
from mta.config.settings import IdentitySettings
from mta.core.domain import DomainKey, SendingDomain
from mta.core.limits.budget import SIGNERS
from mta.signing.keys import KeyFileError, KeyFolder
from mta.store.database import StoreError
from mta.store.domains import DomainStore

LOOK = 0.1  # seconds between looks at the store

Signers = tuple[tuple[str, DomainKey], ...]  # domains and keys

log = logging.getLogger(__name__)


class SigningPlan(NamedTuple):
    """Who signs a message."""

    domain: SendingDomain | None  # whose settings hold: that of the From field, else the default
    signers: Signers
    error: str = ""  # why nobody can
    is_own: bool = False  # the domain is that of the From field

    @property
    def names(self) -> tuple[str, ...]:
        """The d= of the signatures."""
        return tuple(dict.fromkeys([name for name, _ in self.signers]))

    @property
    def own(self) -> SendingDomain | None:
        """The domain that was added for the From field."""
        return self.domain if self.is_own else None

    @property
    def return_path(self) -> str:
        """The domain that bounces go to; "" where the client's sender stays."""
        return "" if self.domain is None else self.domain.return_path

    @property
    def may_go_unsigned(self) -> bool:
        """Does the domain say so?"""
        return self.domain is not None and self.domain.unsigned == "send"


class Plans:
    """All domains' plans."""

    def __init__(self, store: DomainStore, keys: KeyFolder, current: Current, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._current = current
        self._clock = clock
        self._looked = -LOOK  # monotonic
        self._revision = -1
        self._plans: dict[str, SigningPlan | None] = {}
        self._searched = False
        self._is_idle = True  # nobody signs
        self.returns_are_taken = False  # somebody listens for what comes back to a return path
        self._closed = ""  # why the store cannot be asked
        self._unlisted = ""  # why the secrets cannot be listed
        self._lost: frozenset[str] = frozenset()  # domains that have secrets, and are not in the store

    def open(self) -> None:
        """Begin, or begin anew with another file; a store that cannot be opened is tried again."""
        self._store.close()
        self._searched = False
        self._looked = -LOOK
        self._look()

    def close(self) -> None:
        self._store.close()

    @property
    def complaints(self) -> list[str]:
        """Whom mail is refused for, and why."""
        wrong = [f"who signs is not known: {self._closed}"] if self._closed else []
        wrong += [f"who has keys is not known: {self._unlisted}"] if self._unlisted else []
        wrong += [f"mail for {name} cannot be signed: {_lost(name)}" for name in sorted(self._lost)]
        for key, name in (("default", self._identity.default), ("second", self._identity.second)):
            if name is not None and not self._closed and self.get(name) is None:
                wrong.append(f"identity.{key} is {name}, which nobody has added: mta domain add {name}")
        return wrong

    @property
    def known(self) -> int:
        """From domains whose signer is remembered."""
        return len(self._plans)

    @property
    def _identity(self) -> IdentitySettings:
        return self._current.policy.settings.identity

    @property
    def is_in_use(self) -> bool:
        """Does anybody sign, or should?"""
        self._look()
        return not self._is_idle

    def of(self, authors: tuple[str, ...]) -> SigningPlan | None:
        """Who signs what has these domains in its From field: the first of them that was added."""
        if self._clock.monotonic() - self._looked >= LOOK:
            self._look()
        if self._is_idle:
            return None
        if len(authors) > 1:
            authors = tuple(filter(self._is_ours, authors)) or authors
        name = authors[0] if authors else ""
        try:
            return self._plans[name]
        except KeyError:
            pass
        plan = self._made(name)
        if plan is None or not plan.error:
            if len(self._plans) >= SIGNERS:
                self._plans.clear()
            self._plans[name] = plan
        return plan

    def _known(self, domain: SendingDomain | None) -> SendingDomain | None:
        if domain is None or not domain.return_path or self.returns_are_taken:
            return domain
        return replace(domain, return_path="")

    def _is_ours(self, name: str) -> bool:
        try:
            return self._is_lost(name) or self._store.find(name) is not None
        except StoreError:
            return True  # the plan says why not

    def _made(self, name: str) -> SigningPlan | None:
        if self._is_lost(name):
            return SigningPlan(None, (), self._closed or _lost(name))
        if self._closed:
            return None  # nobody was ever added who could be this one
        try:
            first = own = self._known(self._store.find(name))
            if first is None and self._identity.default is not None:
                first = self._store.get(self._identity.default)
                if first is None:
                    return SigningPlan(None, (), f"identity.default, {self._identity.default}, was not added")
            second = None if self._identity.second is None else self._store.get(self._identity.second)
        except StoreError as error:
            log.error("who signs for %s is not known: %s", name, error)
            return SigningPlan(None, (), f"what is kept of {name} cannot be read")
        if first is not None and not first.signers:
            return SigningPlan(first, (), f"no key of {first.name} is active", own is not None)
        signers = [(each.name, key) for each in (first, second) if each is not None for key in each.signers]
        if not signers:
            return None
        return SigningPlan(first, tuple(dict.fromkeys(signers)), is_own=own is not None)

    def get(self, name: str) -> SendingDomain | None:
        """The one of just this name, as it is now."""
        try:
            return self._store.get(name)
        except StoreError:
            return None

    def _is_lost(self, name: str) -> bool:
        """It or a domain above it is: that may have been for those below."""
        labels = name.split(".")
        return bool(self._lost) and any(".".join(labels[n:]) in self._lost for n in range(len(labels)))

    def _look(self) -> None:
        now = self._clock.monotonic()
        if now - self._looked < LOOK:
            return
        self._looked = now
        try:
            if not self._store.is_open:
                self._store.open()
            revision = self._store.look()
        except StoreError as error:
            if not self._closed:
                log.error(
                    "who signs is not known: %s; mail that may be to be signed waits at its client", error
                )
                self._closed = str(error)
                self._search()
                self._judge()
            return
        if revision != self._revision or self._closed:
            self._revision, self._closed = revision, ""
            self._plans.clear()
            if self._lost or not self._searched:
                self._search()
            self._judge()

    def adopted(self, *_: object) -> None:
        """The settings have changed."""
        self._plans.clear()
        self._judge()

    def _judge(self) -> None:
        nobody = self._store.is_empty and not self._lost and not self._closed
        self._is_idle = nobody and self._identity.is_silent

    def _search(self) -> None:
        """Find domains that have secrets, and are not in the store: it was lost, or cannot be read."""
        self._searched = True
        known: frozenset[str] = frozenset()
        try:
            if not self._closed:
                known = self._store.names()
            self._lost = frozenset(self._keys.domains) - known
            self._unlisted = ""
        except (KeyFileError, StoreError) as error:
            self._searched, self._unlisted = False, str(error)
            log.error("who has keys is not known: %s", error)


def _lost(name: str) -> str:
    return f"its settings are lost: restore store.db, or mta domain add {name}"
