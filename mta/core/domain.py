"""A sending domain of ours: its keys, its return path, and who may send as it.

Between: `store.domains` keeps them, `signing` makes signatures with their keys, checks ask what is aligned.
Contract: plain values; a `SendingDomain` that exists is valid. Names are lower-case A-labels. Where `streams`
    is empty any stream may send as it. A key is `PENDING` until every authoritative server shows its record,
    `ACTIVE` while it signs, `RETIRING` while mail that it signed may be on its way: it is still published;
    `RETIRED` when its record says so by an empty `p=`. Of each algorithm one key is active; those of a
    new domain are so at once: before them there is no signature that they could spoil. Times are seconds
    since the epoch.
Raises: ValueError, whose text says what to write; `KeyMoveError` where a key cannot do that in its state.
Standards: RFC 6376 3.6.1 (the record), 3.1 (selectors); RFC 8301 3 (rsa-sha256, 1024 to 4096 bits); RFC 8463.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, replace
from string import ascii_lowercase
from typing import Literal

from mta.core.mail.address import PathError, a_label
from mta.core.mail.taglist import tags

Algorithm = Literal["rsa-sha256", "ed25519-sha256"]
ALGORITHMS: tuple[Algorithm, ...] = ("rsa-sha256", "ed25519-sha256")
Unsigned = Literal["refuse", "send"]
MAX_KEYS = 16  # of a domain; more is not rotation
MAX_HOST = 253  # octets of a name in DNS, without its last dot (RFC 1035 2.3.4)
RECORD = "_domainkey"


class KeyState(enum.Enum):
    """Where a key stands in its life; in that order."""

    PENDING = "pending"
    ACTIVE = "active"
    RETIRING = "retiring"
    RETIRED = "retired"


_MOVES = {
    KeyState.PENDING: {KeyState.ACTIVE, KeyState.RETIRED},
    KeyState.ACTIVE: {KeyState.RETIRING},
    KeyState.RETIRING: {KeyState.ACTIVE, KeyState.RETIRED},
    KeyState.RETIRED: set(),
}


class KeyMoveError(ValueError):
    """A key cannot do that in its state."""


@dataclass(frozen=True)
class DomainKey:
    """What is known of a key, but for its secret."""

    selector: str
    algorithm: Algorithm
    public: str  # p= of its record: base64
    state: KeyState
    since: float  # when it came to this state
    created: float

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"{self.algorithm!r} is no algorithm: write {' or '.join(ALGORITHMS)}")
        object.__setattr__(self, "selector", _name(self.selector, "selector"))

    def host(self, domain: str) -> str:
        """Where its record stands."""
        return f"{self.selector}.{RECORD}.{domain}"

    @property
    def record(self) -> str:
        """The TXT record to publish, as one string."""
        kind = self.algorithm.partition("-")[0]
        return f"v=DKIM1; k={kind}; p={'' if self.state is KeyState.RETIRED else self.public}"

    def is_shown_by(self, record: bytes) -> bool:
        """Does a TXT record let receivers verify what this key signs (RFC 6376 3.6.1)?"""
        said = tags(record)
        if "v" in said and not record.lstrip().startswith(b"v"):  # it stands first, or the record is none
            return False
        return (
            said.get("v", "DKIM1") == "DKIM1"
            and said.get("k", "rsa") == self.algorithm.partition("-")[0]
            and "sha256" in _words(said.get("h", "sha256"))
            and not {"*", "email"}.isdisjoint(_words(said.get("s", "*")))
            and "".join(said.get("p", "").split()).rstrip("=") == self.public.rstrip("=")
        )

    def moved(self, state: KeyState, now: float) -> DomainKey:
        """The key in its next state."""
        if state not in _MOVES[self.state]:
            raise KeyMoveError(f"{self.selector} is {self.state.value}: it cannot become {state.value}")
        return replace(self, state=state, since=now)


@dataclass(frozen=True)
class SendingDomain:
    """One From domain, with those below it where it says so."""

    name: str
    subdomains: bool = False  # it is also for every name below it that was not added itself
    streams: tuple[str, ...] = ()
    return_path: str = ""  # the domain of the envelope sender that we make; "": the client's stays
    unsigned: Unsigned = "refuse"  # what becomes of mail whose signature cannot be made
    keys: tuple[DomainKey, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", _name(self.name, "domain"))
        if "." not in self.name:
            raise ValueError(f"{self.name!r} is no domain of yours: it is a top-level domain")
        if self.return_path:
            object.__setattr__(self, "return_path", _name(self.return_path, "return path"))
        if self.unsigned not in ("refuse", "send"):
            raise ValueError(f"{self.unsigned!r}: write refuse or send")
        for key in self.keys:
            if (over := len(key.host(self.name)) - MAX_HOST) > 0:
                raise ValueError(
                    f"{key.host(self.name)} is too long for DNS, by {over}: take a shorter selector"
                )

    @property
    def signers(self) -> tuple[DomainKey, ...]:
        """The keys that sign now, one of each algorithm: RSA first, which every receiver knows."""
        active = [key for key in self.keys if key.state is KeyState.ACTIVE]
        return tuple(sorted(active, key=lambda key: ALGORITHMS.index(key.algorithm)))

    def key(self, selector: str) -> DomainKey:
        """The key of a selector."""
        for key in self.keys:
            if key.selector == selector:
                return key
        raise ValueError(f"{self.name} has no key {selector!r}: it has {self._selectors}")

    @property
    def _selectors(self) -> str:
        return ", ".join(key.selector for key in self.keys) or "none"


def changed(domain: SendingDomain, keys: Iterable[DomainKey]) -> SendingDomain:
    """The domain with what some keys became, and with new ones; of too many, retired ones are forgotten."""
    known = {key.selector: key for key in (*domain.keys, *keys)}
    over = [key for key in known.values() if key.state is KeyState.RETIRED][: max(len(known) - MAX_KEYS, 0)]
    if len(known) - len(over) > MAX_KEYS:
        raise KeyMoveError(f"{domain.name} has {len(domain.keys)} keys: retire some first")
    return replace(domain, keys=tuple(key for key in known.values() if key not in over))


def activated(domain: SendingDomain, selector: str, now: float) -> list[DomainKey]:
    """What changes when a key signs from now on: itself, and the one that it takes over from."""
    new = domain.key(selector)
    former = [key for key in domain.signers if key.algorithm == new.algorithm]
    return [new.moved(KeyState.ACTIVE, now), *(key.moved(KeyState.RETIRING, now) for key in former)]


def retired(domain: SendingDomain, selector: str, now: float) -> DomainKey:
    """The key on its way to its end: one that signs is published for a time, any other one is over."""
    key = domain.key(selector)
    if key.state is not KeyState.ACTIVE:
        return key.moved(KeyState.RETIRED, now)
    if len(domain.signers) == 1:
        raise KeyMoveError(
            f"{selector} is the only key of {domain.name} that signs: activate another one first"
        )
    return key.moved(KeyState.RETIRING, now)


def new_selector(algorithm: Algorithm, day: str, taken: set[str]) -> str:
    """A name for a new key: its kind and the day (`20261128`), and a letter where that is taken."""
    stem = f"{algorithm[0]}{day}"
    for suffix in ["", *ascii_lowercase]:
        if stem + suffix not in taken:
            return f"{stem}{suffix}"
    raise ValueError(f"{len(taken)} selectors are enough for one day")


def _words(listed: str) -> list[str]:
    return [each.strip() for each in listed.split(":")]


def _name(text: str, what: str) -> str:
    try:
        if text and not text.startswith("["):
            label: str = a_label(text)
            return label
    except PathError:
        pass
    raise ValueError(f"{text!r} is no {what}: write a name such as mail.example.com")
