"""What a peer offers in its answer to EHLO, and what it asks us to keep to.

Between: `smtp.client` reads the answer; the dialogue and the transactions obey.
Contract: pure. A limit that is not named, or not written as the standard says, does not hold.
Raises: nothing.
Standards: RFC 9422 (LIMITS: RCPTMAX, MAILMAX, RCPTDOMAINMAX), RFC 1870, RFC 2920, RFC 6152, RFC 6531.
Why: who is told how many fit sends no command that is refused for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from mta.core.model import Recipient

UNLIMITED = 1_000_000  # more than six digits can say
_LIMIT = re.compile(r"(RCPTMAX|MAILMAX|RCPTDOMAINMAX)=([1-9][0-9]{0,5})", re.IGNORECASE | re.ASCII)


class PeerLimits(NamedTuple):
    """What fits, as the peer says (RFC 9422 4)."""

    recipients: int = UNLIMITED  # in a transaction
    mails: int = UNLIMITED  # transactions on a connection
    domains: int = UNLIMITED  # of the recipients of a transaction

    def beyond(self, recipients: Sequence[Recipient]) -> set[int]:
        """Positions of those who are for another transaction."""
        if len(recipients) <= min(self.recipients, self.domains):
            return set()
        domains: set[str] = set()
        beyond: set[int] = set()
        for position, recipient in enumerate(recipients):
            domain = recipient.domain
            is_one_more = domain not in domains and len(domains) >= self.domains
            if is_one_more or position - len(beyond) >= self.recipients:
                beyond.add(position)
            else:
                domains.add(domain)
        return beyond


class Capabilities(msgspec.Struct, frozen=True):
    """What EHLO said."""

    pipelining: bool = False
    size: bool = False
    eightbit: bool = False
    smtputf8: bool = False
    limits: PeerLimits | None = None


def capabilities(offered: Mapping[str, str], *, is_stepwise: bool = False) -> Capabilities:
    """Of the keywords, in lower case, and their parameters; commands may have to go one at a time."""
    return Capabilities(
        "pipelining" in offered and not is_stepwise,
        "size" in offered,
        "8bitmime" in offered,
        "smtputf8" in offered,
        _limits(offered.get("limits", "")),
    )


def _limits(said: str) -> PeerLimits | None:
    found = (_LIMIT.fullmatch(word) for word in said.split(" "))
    values = {match[1].upper(): int(match[2]) for match in found if match}
    if not values:
        return None
    most = (values.get(name, UNLIMITED) for name in ("RCPTMAX", "MAILMAX", "RCPTDOMAINMAX"))
    return PeerLimits(*most)
