"""The checks: our own gates before a message is accepted, a recipient is taken, or an attempt is made.

Between: `guard.checks` asks them in their order; admission does what the one that wins says.
Contract: plain values. A check answers Go, Wait(until, reason), Refuse or Drop; what is not known is Go. The
    reason is one line for whoever sent the mail: what is wrong, and what to do. Before we own a message
    there is somebody to tell, so Drop is said there as Refuse. `Mail` has what a check may look at, and is
    made once for a message; domains are lower-case A-labels, and "" where there is none.
Raises: nothing.
Standards: RFC 3463 3.8 (X.7.1: refused by policy).
Why: a yes or no alone tells nobody what to change.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, get_args

import msgspec

from mta.core.domain import SendingDomain
from mta.core.mail.header import Header
from mta.core.model import Go, Reply, Wait

CheckName = Literal["alignment", "key", "stream", "one-click", "proximity"]
CheckMode = Literal["enforce", "warn", "off"]

NAMES: Final[tuple[CheckName, ...]] = get_args(CheckName)
BULK = "bulk"  # the stream that bulk senders' rules are about


class At(enum.Enum):
    """When a check is asked."""

    ACCEPT = "accept"  # the message is complete, and not ours yet
    RCPT = "rcpt"
    ATTEMPT = "attempt"

    __hash__ = object.__hash__


class Mail(msgspec.Struct, frozen=True):
    """What a check may look at."""

    author: str  # the domain in From; "" where there are several, or none that can be read
    sender: str  # the domain of the envelope's sender
    stream: str
    tenant: str = ""
    credential: str = ""
    domain: SendingDomain | None = None  # the sending domain that signs it
    header: Header | None = None  # at ACCEPT
    signers: tuple[str, ...] = ()  # the d= of the signatures that we make
    provider: str = ""  # whom it goes to, at ATTEMPT

    @property
    def path(self) -> str:
        """The domain of the return path that it leaves with."""
        if self.domain is None or not self.sender:  # the null sender stays
            return self.sender
        return self.domain.return_path or self.sender


class Refuse(NamedTuple):
    """This mail does not go."""

    reason: str


class Drop(NamedTuple):
    """This mail does not go, and nobody is told but the event log."""

    reason: str


Objected = Wait | Refuse | Drop
Answer = Go | Objected


@dataclass(frozen=True)
class Check:
    """One gate; `ask` answers from memory, and never waits. Its arguments are the mail, and seconds since the
    epoch. `is_steady`: so is answered all mail with this author and sender, and with List-Unsubscribe or not,
    until somebody adds the domain.
    """

    name: CheckName
    at: At
    ask: Callable[[Mail, float], Answer]
    is_steady: Callable[[Mail], bool] = lambda mail: False


class CheckFinding(msgspec.Struct, frozen=True):
    """A check that did not say Go."""

    check: CheckName
    mode: CheckMode
    answer: Objected


def usual(check: CheckName, stream: str, is_ours: bool) -> CheckMode:
    """The mode where the settings say none; `is_ours`: somebody has added the domain in From."""
    if check == "one-click" and stream != BULK:
        return "off"  # a receipt has nothing to unsubscribe from
    if check == "stream":
        return "enforce"  # whoever added the domain has named its streams
    return "enforce" if check in ("alignment", "one-click") and stream == BULK and is_ours else "warn"


def refusal(finding: CheckFinding, now: float) -> Reply:
    """What the client hears who wanted us to have it."""
    answer = finding.answer
    if isinstance(answer, Wait):
        seconds = max(math.ceil(answer.until - now), 1)
        return Reply(451, "4.7.1", f"{answer.reason}; try again in {seconds} seconds (check {finding.check})")
    return Reply(550, "5.7.1", f"{answer.reason} (check {finding.check})")
