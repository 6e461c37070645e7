"""What the sandbox's MX does with a recipient, by its local part.

Between: the sandbox's peer asks at each RCPT; the documentation prints `ACTORS`.
Contract: pure. A local part of no actor is accepted; its case and a `+tag` do not count. What an actor
    remembers of the past (greylisting, a rate) is the peer's to keep. Times are seconds.
Raises: nothing.
Standards: RFC 5321 4.2 (reply codes), RFC 3463 (enhanced codes), RFC 5233 (the tag).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from mta.core.limits.throttle import Rate
from mta.core.model import Reply


@dataclass(frozen=True, slots=True)
class Actor:
    """One behaviour that can be had by writing to it."""

    does: str  # one sentence for the documentation
    rcpt: Reply | None = None  # the reply to RCPT; None accepts
    after_data: Literal["accept", "drop"] = "accept"
    hangs_up: bool = False  # after that reply
    greylists: float = 0.0  # it says `rcpt` until so long after it first saw the recipient
    limit: Rate | None = None  # beyond it says `rcpt`
    delay: float = 0.0  # of the reply to the final dot

    @property
    def after_dot(self) -> tuple[str, float]:
        """What it does when the message is there; whoever does the same can share a transaction."""
        return self.after_data, self.delay


OK = Actor("Takes the message.")

ACTORS: Mapping[str, Actor] = MappingProxyType(
    {
        "ok": OK,
        "defer": Actor(
            "Says 451 4.7.1 to RCPT, each time: the recipient is deferred until it expires.",
            rcpt=Reply(451, "4.7.1", "Try again later"),
        ),
        "bounce": Actor(
            "Says 550 5.1.1 to RCPT: the recipient bounces at once.",
            rcpt=Reply(550, "5.1.1", "No such user here"),
        ),
        "full": Actor(
            "Says 452 4.2.2 to RCPT, each time: the mailbox is full.",
            rcpt=Reply(452, "4.2.2", "The mailbox is full"),
        ),
        "spam": Actor(
            "Says 550 5.7.1 to RCPT: the recipient bounces, and the address is none the worse for it.",
            rcpt=Reply(550, "5.7.1", "Message rejected as spam"),
        ),
        "greylist": Actor(
            "Says 451 4.7.1 to RCPT for a minute after it first saw the recipient, then takes the message.",
            rcpt=Reply(451, "4.7.1", "Greylisted, please try again in 60 seconds"),
            greylists=60.0,
        ),
        "rate": Actor(
            "Takes 10 recipients a minute, all tags together; says 450 4.7.1 to more.",
            rcpt=Reply(450, "4.7.1", "Rate limit exceeded, slow down"),
            limit=Rate(10, 60.0),
        ),
        "421": Actor(
            "Says 421 4.7.0 to RCPT and hangs up.",
            rcpt=Reply(421, "4.7.0", "Too many messages from your address, closing the connection"),
            hangs_up=True,
        ),
        "slow": Actor("Takes the message 5 seconds after the final dot.", delay=5.0),
        "tarpit": Actor("Takes the message a minute after the final dot.", delay=60.0),
        "drop-after-data": Actor(
            "Closes the connection after the final dot, without a reply: the outcome is ambiguous.",
            after_data="drop",
        ),
    }
)


def name_of(address: str) -> str:
    """What an actor of this address would be called."""
    return address.rsplit("@", 1)[0].partition("+")[0].lower()


def actor_for(address: str) -> Actor:
    """Who plays the recipient `address`."""
    return ACTORS.get(name_of(address), OK)
