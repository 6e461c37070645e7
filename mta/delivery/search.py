"""One attempt's way through the hosts of a route: whom to dial next, and what it comes to.

Between: `delivery.connect` dials and tells what became of it; the router gives addresses, `delivery.hosts`
    the memories, `core.route.hosts` the order.
Contract: `next` gives candidates until `MAX_ADDRESSES` were dialled, and at most as many that this machine
    has no way to, or there are no more; hosts are looked up one after another, as they are needed. `outcome`
    is for an attempt that came to nothing: a Wait where mail waits a short time for a better connection, and
    no attempt is taken.
Raises: nothing.
Standards: RFC 5321 5.1, RFC 7504 (521, 556).
"""

from __future__ import annotations

from collections import deque

from mta.clock import Clock
from mta.core.answers.classify import Judge
from mta.core.answers.status import NO_MAIL
from mta.core.limits.adaptive import OURS
from mta.core.limits.spread import Spread
from mta.core.model import Kind, Outcome, Reply, Scope, Subject, Wait
from mta.core.route.hosts import MAX_ADDRESSES, Candidate, Peer, choose, in_order, latest
from mta.core.route.routing import Host, Route, within_reach
from mta.core.route.source import Source
from mta.delivery.hosts import Hosts
from mta.delivery.router import Router
from mta.delivery.traffic import is_refusal
from mta.smtp.trouble import LocalError, PeerError, TlsError

SAID_BEFORE = ("CONNECT", "EHLO")  # commands whose refusal is about the host
_ALONE = (Subject.DNS, Subject.SOURCE)  # their words are the whole of it
_NOT_US = (Subject.DESTINATION, Subject.RECIPIENT)
_ALL_OF_IT = (Scope.PROVIDER, Scope.SITE, Scope.SOURCE)


class Search:
    """The hosts of a route, once."""

    def __init__(
        self,
        route: Route,
        source: Source,
        router: Router,
        hosts: Hosts,
        clock: Clock,
        judge: Judge,
        spread: Spread,
    ) -> None:
        self._route = route
        self._source = source
        self._router = router
        self._hosts = hosts
        self._clock = clock
        self._judge = judge
        self._spread = spread
        now = clock.monotonic()
        self.has_waited = spread.has_waited(now)  # and does not do so once more
        self._order = deque(
            in_order(
                route.hosts, hosts.recall, clock.now(), clock.dice,
                lambda name: spread.rank(name, now), lambda name: spread.is_shunned(name, now),
            )
        )  # fmt: skip
        self._now: deque[Candidate] = deque()
        self._late: list[Candidate] = []
        self._is_late = False  # all hosts have had their turn
        self._may_probe = True
        self._dialled = 0
        self._pathless = 0  # addresses that this machine has no way to
        self._failed: list[Peer] = []
        self._crowded: list[str] = []  # hosts that want no more connections
        self._until: float | None = None  # when hosts are to be asked whose TLS is in doubt
        self._said: list[str] = []
        self._last: Outcome | None = None
        self._final: set[Host] = set()  # those that never take mail

    async def next(self) -> Candidate | None:
        """Whom to dial; None where it is enough for this time."""
        if self._dialled >= MAX_ADDRESSES:
            return None
        while not self._now:
            if self._order:
                await self._look_up(self._order.popleft())
            elif self._late:
                self._now, self._late = deque(latest(self._late)), []
            else:
                return None
        candidate = self._now.popleft()
        candidate = candidate._replace(addresses=candidate.addresses[: MAX_ADDRESSES - self._dialled])
        self._dialled += len(candidate.addresses)
        if candidate.probe in candidate.addresses:
            self._may_probe = False
            self._hosts.probed(candidate.peer(candidate.probe))
        return candidate

    async def _look_up(self, host: Host) -> None:
        whole = Peer(host.name, host.port)
        found = await self._router.addresses(host, self._route)
        if isinstance(found, Outcome):
            self._hosts.failed(whole, found.reply.text)
            self._failed.append(whole)
            self._has_none(host, found)
            return
        addresses = within_reach(host, found, self._source)
        if isinstance(addresses, Outcome):
            self._has_none(host, addresses)
            return
        route = self._route
        choice = choose(
            host,
            addresses,
            self._hosts.recall,
            self._clock.now(),
            required=route.tls_required or route.login is not None or self.has_waited,
            races=not self._source.address,
            is_alone=len(route.hosts) == 1,
            may_probe=self._may_probe,
        )
        self._now.extend(choice.now)
        self._late += choice.late
        if choice.until is not None:
            self._until = min(self._until or choice.until, choice.until)
        if len(choice.late) == len(found):  # those too that another source may reach
            bad = (
                self._hosts.recall(each.peer(address)) for each in choice.late for address in each.addresses
            )
            self._hosts.rested(whole, min(memory.probe for memory in bad))
            self._failed.append(whole)

    def _has_none(self, host: Host, outcome: Outcome) -> None:
        """It has no address that we can dial."""
        self._said.append(outcome.reply.text)
        # A host that cannot be looked up now is worth another try; one that is wrong is not.
        if outcome.kind is Kind.BOUNCED:
            self._final.add(host)
        if self._last is None or self._last.kind is Kind.BOUNCED:
            self._last = outcome

    # What became of it

    def missed(self, candidate: Candidate, address: str, error: PeerError | None) -> None:
        """An address was not connected; without an error another one was faster."""
        if error is None:
            self._hosts.slow(candidate.peer(address))
            return
        self._note(candidate, address, error)
        # On a machine without IPv6 half of the addresses cost nothing, and would hide the others.
        if isinstance(error, LocalError) and self._pathless < MAX_ADDRESSES:
            self._pathless += 1
            self._dialled -= 1

    def failed(self, candidate: Candidate, address: str, error: PeerError) -> Outcome | None:
        """A peer did not let us in: what it says, where it speaks for all hosts."""
        outcome = self._note(candidate, address, error)
        host = candidate.host
        if outcome.subject is Subject.CONNECTION and is_refusal(outcome):
            self._crowded.append(host.name)
        if outcome.kind is Kind.BOUNCED:
            if self._route.login is None:  # what serves us by contract is in trouble
                self._final.add(host)
            self._drop(host)  # it is about the host, whatever address it has
        return outcome if _is_for_all(outcome) else None

    def waits(self, until: float) -> None:
        """The host lets us in, and its TLS is to be given a while."""
        self._until = min(self._until or until, until)

    def connected(self) -> None:
        """Somebody let us in."""
        self._tell_crowded()

    def outcome(self) -> Outcome | Wait:
        """What the attempt comes to; the lane tells of the host that it names."""
        self._tell_crowded("" if self._last is None else self._last.host)
        for peer in self._failed:
            self._hosts.unsure(peer)
        if self._until is not None:
            # A second less: both clocks may be a little apart.
            wait = self._until - self._clock.now() - 1.0
            self._spread.waits(self._clock.monotonic() + wait)
            return Wait(self._until, "TLS fails")
        last = self._last
        assert last is not None, "a route without hosts"
        if last.kind is Kind.BOUNCED and self._final != set(self._route.hosts):
            last = last._replace(kind=Kind.DEFERRED)
        return _worded(last, self._said)

    def _tell_crowded(self, told: str = "") -> None:
        now = self._clock.monotonic()
        for name in self._crowded:
            if name != told and (alike := self._route.alike(name)):
                self._spread.is_own(name, alike, now)

    def _note(self, candidate: Candidate, address: str, error: PeerError) -> Outcome:
        outcome = _unreachable(candidate.host, error, self._judge)
        self._said.append(f"{candidate.host.name} [{address}]: {error}")
        # Who knows us, and says so, is not to be drowned by the silence of others.
        if self._last is None or not is_refusal(self._last):
            self._last = outcome
        its_own = error.command in SAID_BEFORE and not isinstance(error, LocalError)
        if its_own and not is_refusal(outcome):
            peer = candidate.peer(address)
            self._failed.append(peer)
            self._hosts.failed(peer, str(error))
        return outcome

    def _drop(self, host: Host) -> None:
        self._now = deque(each for each in self._now if each.host is not host)
        self._late = [each for each in self._late if each.host is not host]


def _is_for_all(outcome: Outcome) -> bool:
    """Does the provider's own rule know that we are not wanted at any of its hosts?

    Words that anybody may write are one host's: its neighbour may well take the mail.
    """
    verdict = outcome.verdict
    if verdict is None or not verdict.is_own or verdict.scope is Scope.HOST:
        return False
    return verdict.subject in OURS or verdict.scope in _ALL_OF_IT


def _unreachable(host: Host, error: PeerError, judge: Judge) -> Outcome:
    if error.reply is not None:
        # A 5yz greeting is about this connection, not about the mail: it is tried again. But for RFC 7504.
        said = judge(error.reply, error.command)
        final = error.reply.code in NO_MAIL and said.permanent and said.subject in _NOT_US
        kind = Kind.BOUNCED if final else Kind.DEFERRED
        return Outcome(kind, said.subject, said.scope, error.reply, host.name, error.command, said)
    subject = Subject.TLS if isinstance(error, TlsError) else Subject.NETWORK
    reply = Reply(451, error.status, str(error))
    return Outcome(Kind.DEFERRED, subject, Scope.SITE, reply, host.name, error.command)


def _worded(last: Outcome, said: list[str]) -> Outcome:
    """The outcome of a plan that is used up, with what every host said."""
    if last.kind is Kind.BOUNCED or last.subject in _ALONE or last.verdict is not None:
        return last
    what = "No host is as safe as it must be" if last.subject is Subject.TLS else "No host answered"
    text = f"{what}; it is tried again: " + "; ".join(said)
    return last._replace(reply=last.reply._replace(text=text[:1000]))
