"""The addresses that mail leaves from, and which of them a message takes.

Between: the settings name them; `delivery.pool` asks for the sources of a message, `delivery.connect` binds.
Contract: pure. Weights are whole numbers; of very many messages each source of a pool is the first choice
    for its weight's share. `order` depends on the message's id and the pool alone.
Raises: KeyError, when it is made, for a pool or a source that nobody has named.
Why: rendezvous hashing (Thaler and Ravishankar, 1996). A message leaves from the same source at every
    attempt, so a greylist that let us in knows us again; where a source drops out only its own mail moves;
    and nothing has to be stored for that.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import NamedTuple

DEFAULT = "default"  # the pool of streams that name none; where nobody says what it is, all sources alike
MASK = 2**64 - 1


class Source(NamedTuple):
    """A local address with its EHLO name."""

    name: str  # "" where the settings have no sources
    address: str  # numeric; "" where the system chooses
    hostname: str


class SourcePool:
    """A named set of sources with weights."""

    def __init__(self, weights: Mapping[Source, int]) -> None:
        self.sources = tuple(weights)
        self._weights = [(source, _salt(source.name), weight) for source, weight in weights.items()]

    def order(self, message: int) -> tuple[Source, ...]:
        """The sources of a message with this id, the first choice first."""
        if len(self.sources) == 1:
            return self.sources
        scored = [
            (-math.log(_uniform(message ^ salt)) / weight, source) for source, salt, weight in self._weights
        ]
        return tuple(source for _, source in sorted(scored))


class Sources:
    """Every source, and the pool of each stream."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        pools: Mapping[str, Mapping[str, int]],
        streams: Mapping[str, str],
    ) -> None:
        """Pools are weights by source; `streams` has the pool of those that name one."""
        every = dict.fromkeys(sources, 1)
        made = {
            name: SourcePool({sources[source]: weight for source, weight in weights.items()})
            for name, weights in ({DEFAULT: every} | dict(pools)).items()
        }
        self.all = tuple(sources.values())
        self._default = made[DEFAULT]
        self._of_stream = {stream: made[pool] for stream, pool in streams.items()}
        self.pools = tuple(dict.fromkeys([self._default, *self._of_stream.values()]))  # those in use
        self.used = tuple(dict.fromkeys(source for pool in self.pools for source in pool.sources))

    def order(self, stream: str, message: int) -> tuple[Source, ...]:
        """The sources of a message of this stream, the first choice first."""
        return self._of_stream.get(stream, self._default).order(message)


def chosen_by_the_system(hostname: str) -> Sources:
    """No source is named: one that is not bound to anything."""
    return Sources({"": Source("", "", hostname)}, {}, {})


def _salt(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


def _uniform(key: int) -> float:
    """A number in (0, 1) that any bit of the key changes (the finisher of splitmix64)."""
    key = ((key ^ (key >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    key = ((key ^ (key >> 27)) * 0x94D049BB133111EB) & MASK
    return ((key ^ (key >> 31)) + 0.5) / 2.0**64
