"""What the sandbox's MX does with a recipient, by its local part.

Between: the sandbox's peer asks at each RCPT; the documentation prints `ACTORS`.
Contract: pure. A local part of no actor is accepted; its case and a `+tag` do not count.
Raises: nothing.
Standards: RFC 5321 4.2 (reply codes), RFC 3463 (enhanced codes), RFC 5233 (the tag).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from mta.core.model import Reply


@dataclass(frozen=True, slots=True)
class Actor:
    """One behaviour that can be had by writing to it."""

    does: str  # one sentence for the documentation
    rcpt: Reply | None = None  # the reply to RCPT; None accepts
    after_data: Literal["accept", "drop"] = "accept"


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
        "drop-after-data": Actor(
            "Closes the connection after the final dot, without a reply: the outcome is ambiguous.",
            after_data="drop",
        ),
    }
)


def actor_for(address: str) -> Actor:
    """Who plays the recipient `address`."""
    local_part = address.rsplit("@", 1)[0]
    return ACTORS.get(local_part.partition("+")[0].lower(), OK)
