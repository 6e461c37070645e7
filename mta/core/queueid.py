"""Queue ids: short, sortable by time, unique over all instances.

Between: the spool mints them; the 250 reply, every log line and every event show them.
Contract: an id is an int of 55 bits, milliseconds since the epoch << 13 | instance << 9 | a counter; its
    text is 11 letters of Crockford's base 32 in lower case, and texts sort as the ids do. Ids from before
    there were instances have a counter of 13 bits.
Raises: ValueError from `parse` on a text that is no queue id.
Why: the id is the primary key, so fresh mail is appended to the tables and never inserted in the middle.
"""

from __future__ import annotations

from functools import lru_cache

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
PAIRS = tuple(a + b for a in ALPHABET for b in ALPHABET)  # ten bits at a time
_VALUES = {letter: value for value, letter in enumerate(ALPHABET)}
_COUNTER_BITS = 9
_INSTANCE_BITS = 4
_BELOW = _COUNTER_BITS + _INSTANCE_BITS  # of the milliseconds
_INSTANCE = (1 << _INSTANCE_BITS) - 1 << _COUNTER_BITS
INSTANCES = 1 << _INSTANCE_BITS
LENGTH = 11


class QueueIds:
    """Mints ids of one instance that only ever grow, whatever the clock does and whoever minted the last."""

    def __init__(self, last: int, instance: int = 0) -> None:
        self.last = last
        self._instance = instance << _COUNTER_BITS

    def mint(self, now: float) -> int:
        minted = first_id(now) | self._instance
        if minted <= self.last:
            minted = self.last + 1
            if minted & _INSTANCE != self._instance:  # the counter is used up, or the last was another's
                minted = (self.last >> _BELOW << _BELOW) | self._instance
                if minted <= self.last:
                    minted += 1 << _BELOW
        self.last = minted
        return minted


def created(queue_id: int) -> float:
    """When the id was minted, in seconds since the epoch."""
    return (queue_id >> _BELOW) / 1000


def first_id(when: float) -> int:
    """No id that was minted before then is as large, unless the clock was set back."""
    return int(when * 1000) << _BELOW


def others(queue_id: int) -> range:
    """The ids of its millisecond and instance that are minted last: no clock that runs needs as many."""
    end = (queue_id >> _COUNTER_BITS) + 1 << _COUNTER_BITS
    return range(end - (1 << _COUNTER_BITS - 1), end)


@lru_cache(1024)  # it stands in the Received field, in the reply and in each event of the message
def text(queue_id: int) -> str:
    """As it is read aloud."""
    return (
        ALPHABET[queue_id >> 50]
        + PAIRS[queue_id >> 40 & 1023]
        + PAIRS[queue_id >> 30 & 1023]
        + PAIRS[queue_id >> 20 & 1023]
        + PAIRS[queue_id >> 10 & 1023]
        + PAIRS[queue_id & 1023]
    )


def parse(shown: str) -> int:
    """The id behind a text."""
    if len(shown) != LENGTH:
        raise ValueError(f"a queue id has {LENGTH} letters: {shown!r}")
    queue_id = 0
    for letter in shown.lower():
        if letter not in _VALUES:
            raise ValueError(f"no letter of a queue id: {letter!r}")
        queue_id = queue_id << 5 | _VALUES[letter]
    return queue_id
