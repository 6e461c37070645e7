"""What we know of the way to a destination, as plain data: for `mta explain`.

Between: the daemon's control socket, or the command line alone; `delivery.router` has the answers.
Contract: a destination is an address, a domain, an address literal, or the name of a provider. What cannot
    be routed has a `problem` instead of hosts and limits. `state` adds what is known of each source's
    present; None where nothing is; `memory` what is remembered of a host at an address. `explain_checks`
    tells what the checks say of mail with a domain in From, with the records of DNS looked up; what hangs on
    the header block of each message (`one-click`) is not among it.
Raises: ValueError, with words, for what is no destination.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Any

from mta.config import units
from mta.core.check import At, CheckFinding, Mail
from mta.core.limits.throttle import Rate
from mta.core.mail.address import PathError, a_label
from mta.core.model import Outcome
from mta.core.route.hosts import Peer
from mta.core.route.routing import Host, Route
from mta.core.route.source import Source, Sources
from mta.delivery.router import Router
from mta.guard.checks import Checks
from mta.guard.identity import Identity

State = Callable[[Route, Source], dict[str, Any] | None]
Memory = Callable[[Peer], dict[str, Any] | None]


async def explain(
    router: Router,
    sources: Sources,
    destination: str,
    state: State | None = None,
    memory: Memory = lambda peer: None,
) -> dict[str, Any]:
    """Where mail for this destination goes, and on which terms."""
    name = destination.lower()
    profile = router.providers.by_name.get(name)
    if profile is not None:
        found = {"destination": destination, "match": list(profile.match), "domains": list(profile.domains)}
        return found | _terms(router.of_provider(name), sources, state)
    domain = _domain(router, destination)
    route = await router.route(domain)
    answer: dict[str, Any] = {"destination": destination, "domain": domain}
    if isinstance(route, Outcome):
        return answer | {"problem": {"kind": route.kind.value, "reply": str(route.reply)}}
    hosts = [await _host(router, route, host, memory) for host in route.hosts]
    return answer | {"site": route.site, "hosts": hosts} | _terms(route, sources, state)


def author_of(said: str) -> str:
    """The domain of `user@example.com`, or `example.com`, as checks know it; "" for none."""
    try:
        return a_label(said.rpartition("@")[2].removesuffix(".")) if said else ""
    except PathError as error:
        raise ValueError(f"{said!r}: {error}") from None


async def explain_checks(
    checks: Checks, identity: Identity, author: str, provider: str, streams: Iterable[str]
) -> list[dict[str, Any]]:
    """What they say of mail from this domain to this provider, with the mode of each stream."""
    plan = checks.plan(author)
    domain, signers = (None, ()) if plan is None else (plan.own, plan.names)
    mails = [
        Mail(author, author, stream, domain=domain, provider=provider, signers=signers) for stream in streams
    ]
    rows: dict[str, dict[str, Any]] = {}
    for mail in mails[:1]:
        await identity.refresh(mail)
    for at in At:
        for mail in mails:
            said = {each.check: each for each in checks.look(at, mail)}
            for each in checks.asks(at, mail.stream, domain is not None):
                name = each.check.name
                if name != "one-click":
                    row = rows.setdefault(name, _said(name, said.get(name)))
                    row["modes"][mail.stream] = each.mode
    return list(rows.values())


def _said(check: str, finding: CheckFinding | None) -> dict[str, Any]:
    answer = None if finding is None else finding.answer
    says = "go" if answer is None else type(answer).__name__.lower()
    return {"check": check, "says": says, "reason": answer.reason if answer else None, "modes": {}}


def _domain(router: Router, destination: str) -> str:
    local, at, name = destination.rpartition("@")
    name = name.removesuffix(".")
    if not name or (" " in name and not at) or (at and (not local or "@" in local)):
        raise ValueError(f"{destination!r} is no address, no domain and no provider: write user@example.com")
    if _is_numeric(name):
        raise ValueError(f"{destination!r} is no domain; for the mail of this address itself write [{name}]")
    if not at and "." not in name and not name.startswith("["):
        meant = difflib.get_close_matches(name, router.providers.by_name, n=1)
        advice = f"; did you mean {meant[0]}?" if meant else f"; for a domain without a dot write x@{name}"
        raise ValueError(f"{destination!r} is no domain, and no provider that we know{advice}")
    try:
        return a_label(name)
    except PathError as error:
        raise ValueError(f"{destination!r}: {error}") from None


def _is_numeric(name: str) -> bool:
    try:
        return bool(ip_address(name))
    except ValueError:
        return False


async def _host(router: Router, route: Route, host: Host, memory: Memory) -> dict[str, Any]:
    answer = await router.addresses(host, route)
    said: dict[str, Any] = {"host": host.name, "port": host.port, "preference": host.preference}
    addresses = [] if isinstance(answer, Outcome) else answer
    known = [memory(Peer(host.name, host.port, address)) for address in addresses]
    said |= {"addresses": addresses, "memory": [each for each in known if each is not None]}
    return said | {"problem": str(answer.reply)} if isinstance(answer, Outcome) else said


def _terms(route: Route, sources: Sources, state: State | None) -> dict[str, Any]:
    return {
        "provider": route.provider or None,
        "matched": route.matched or None,
        "shared": bool(route.above),  # with the provider's other sites
        "static": route.static,
        "login": route.login.user if route.login else None,
        "limits": [limit._asdict() | {"value": _plain(limit.value)} for limit in route.said],
        "sources": [
            {
                "source": source.name or None,
                "address": source.address or None,
                "hostname": source.hostname,
                "state": None if state is None else state(route, source),
            }
            for source in sources.all
        ],
    }


def _plain(value: object) -> object:
    return units.rate_text(value) if isinstance(value, Rate) else value
