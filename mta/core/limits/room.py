"""Is there room for one more message: on the disk, in the tenant's share, in memory.

Between: `intake.capacity` measures and asks; a client hears the reason.
Contract: pure; sizes are octets. Each answer is None where there is room, or the words for what is short.
Raises: nothing.
Why: a disk that is refused before it is full still has room for the outcomes of what is queued; and the
    door that was shut opens only when there is clearly more room, or it would flap with every delivery.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import NamedTuple, NewType

Size = NewType("Size", int)  # octets

MIB = 1024 * 1024
CLEARLY = 1.2  # times the reserve: so much must be free before the door opens again
WAL_ROOM = 8 * MIB  # octets; the WAL itself stays as large as it was
RESERVE_FILES = 1000  # a large content is a file; SQLite and the event log need some too


class Free(NamedTuple):
    """What a file system has left."""

    size: int
    files: int | None  # None: it has no fixed number of them (btrfs and others say 0 of 0)
    pages: int = 0  # octets inside our database that are free

    @property
    def room(self) -> int:
        """Octets for mail. What comes into a page goes through the WAL first, which needs some disk."""
        return self.size + self.pages if self.size >= WAL_ROOM else self.size


@dataclass(frozen=True)
class Quota:
    """What one tenant may have in the queue; more is refused with 452."""

    messages: int | None = None
    size: Size | None = None  # octets of contents


@dataclass(slots=True)
class Reserve:
    """What stays free on one file system."""

    size: int
    free: Free = field(default=Free(0, None))
    short: str | None = None  # what is short, while the door is shut

    def measured(self, free: Free) -> None:
        """Look again."""
        factor = CLEARLY if self.short else 1.0
        self.free = free
        if free.room < self.size * factor:
            self.short = _short(free.room // MIB, self.size // MIB, " MiB")
        elif free.files is not None and free.files < RESERVE_FILES * factor:
            self.short = _short(free.files, RESERVE_FILES, " inodes")
        else:
            self.short = None

    @property
    def remedy(self) -> str:
        """What the operator can do; the reserve of inodes is no setting."""
        is_size = self.free.room < self.size * CLEARLY
        return "make room there, or lower spool.reserve" if is_size else "remove files there"

    def ask(self, size: int, *, is_file: bool = False) -> str | None:
        """May a message of this size come? A file of its own finds no room in the database."""
        free = self.free
        if self.short is None and free.size >= self.size + size and not is_file:
            return None  # nearly always
        lacks = free.room < self.size + size or (is_file and free.pages and free.size < WAL_ROOM + size)
        if self.short is None and lacks:
            return f"{(free.size if is_file else free.room) // MIB} MiB are free, too few for {size} octets"
        return self.short


def _short(free: int, reserve: int, unit: str) -> str:
    if free < reserve:
        return f"{free}{unit} are free and {reserve}{unit} are kept in reserve"
    return f"{free}{unit} are free; mail is taken again from {round(reserve * CLEARLY)}{unit} on"


def over_quota(quota: Quota, messages: int, size: int, declared: int) -> str | None:
    """Has a tenant with so much in the queue used up its share?"""
    if quota.messages is not None and messages >= quota.messages:
        return f"you have {messages} messages in the queue and may have {quota.messages}"
    if quota.size is not None and size + declared > quota.size:
        return f"you have {size // MIB} MiB in the queue and may have {quota.size // MIB} MiB"
    return None


class Share:
    """Octets of contents in memory, divided so that whoever comes next finds room.

    Shares are made of shares: of all memory a tenant's, of that a client's, of that a message's. None holds
    more than it leaves free of the one above: who is alone a half, two who want all a third each. What a
    message takes its shares above have taken, too, so behind two of them it gets a quarter at most; where
    there is no other, a half.
    """

    __slots__ = ("_key", "_parent", "_parts", "_users", "limit", "used")

    def __init__(self, limit: int, parent: Share | None = None, key: Hashable = None) -> None:
        self.limit = limit
        self.used = 0
        self._parent = parent
        self._key = key
        self._parts: dict[Hashable, Share] = {}
        self._users = 0  # messages below it

    def open(self, *keys: Hashable) -> Share:
        """The share of one message, below these (its tenant, its client); `close` it when it is over."""
        share = self
        for key in keys:
            part = share._parts.get(key)
            if part is None:
                part = share._parts[key] = Share(self.limit, share, key)
            share = part
        made: Share | None
        made = share = Share(self.limit, share)
        while made is not None:
            made._users += 1
            made = made._parent
        return share

    def close(self) -> None:
        """It holds nothing any more; what was made for it alone is forgotten."""
        octets = self.used
        share: Share | None = self
        while share is not None:
            share.used -= octets
            share._users -= 1
            above = share._parent
            if above is not None and not share._users:
                above._parts.pop(share._key, None)
            share = above

    def take(self, size: int) -> None:
        """Hold so many octets more; whether there is room is asked before, or after."""
        share: Share | None = self
        while share is not None:
            share.used += size
            share = share._parent

    @property
    def free(self) -> int:
        """Octets that its parts have not taken."""
        left = self.limit
        share: Share | None = self
        while share is not None:
            left -= share.used
            share = share._parent
        return left

    def has_room(self, size: int = 0) -> bool:
        """May it hold so many octets more?"""
        left, top = self.limit, self
        share: Share | None = self
        while share is not None:  # each of these takes it, too
            left -= share.used + size
            top, share = share, share._parent
        return left >= 0 or (top.used == self.used and self.used + size <= self.limit // 2)
