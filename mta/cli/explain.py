"""`mta explain`: where does mail for this destination go, how fast, and who says so?

Between: the operator and the running daemon, through its control socket; without one, settings and DNS.
Contract: DESTINATION is an address, a domain or a provider's name. Every limit is told with its origin. What
    cannot be routed is an answer like any other, exit 0. `--json` gives one document.
Raises: click.ClickException (exit 1) for what is no destination, or where the daemon cannot be asked.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click

from mta.api.control import ControlError, NotRunning, call
from mta.config import units
from mta.config.document import SettingsError
from mta.config.settings import Endpoint, Settings

FATES = {"bounced": "bounces", "deferred": "waits"}
TLS = {"small": "TLS 1.2 alone", "doubted": "mail waits for its TLS", "clear": "in the clear"}
LABEL = len("provider")  # the first column


@click.command()
@click.argument("destination")
@click.option("--from", "author", metavar="DOMAIN", help="Tell what our checks say of mail from there, too.")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
@click.pass_obj
def explain(settings: Callable[[], Settings], destination: str, author: str | None, as_json: bool) -> None:
    """Tell where mail for DESTINATION goes, and on which terms.

    DESTINATION is an address, a domain, or the name of a provider such as google.
    """
    terms = settings()
    unknown = "nothing is known"
    try:
        answer = call(terms.control_socket, "explain", {"destination": destination, "from": author})
    except NotRunning as error:
        click.echo(f"{error}; so this is what settings and DNS say", err=True)
        answer = _alone(terms, destination)
        unknown = "only the daemon knows, and it is not running"
    except ControlError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(answer) if as_json else "\n".join(_lines(answer, unknown)))


def _alone(settings: Settings, destination: str) -> dict[str, Any]:
    """The same without a daemon."""
    # Here, since only this case needs them, and they take longer than all other commands' imports together.
    from mta.clock import SystemClock
    from mta.config.policy import Current, build
    from mta.delivery.router import Router
    from mta.dns.resolver import Resolver
    from mta.ops.addresses import local_addresses
    from mta.outbound.explanation import explain as asked

    clock = SystemClock()
    sandbox = settings.sandbox.bind if settings.sandbox else None
    try:
        current = Current(build(settings))
        router = Router(current, Resolver(settings.dns, clock), clock, local_addresses(), sandbox)
        return asyncio.run(asked(router, current.policy.sources, destination))
    except (ValueError, SettingsError) as error:
        raise click.ClickException(str(error)) from error


def _lines(answer: Mapping[str, Any], unknown: str) -> Iterator[str]:
    """The answer for people: a fact a line, with its kind at the front; `unknown` stands for no state."""
    yield answer["destination"]
    if answer.get("checks"):
        yield from _aligned(list(_checks(answer["checks"])))
    if "problem" in answer:
        problem = answer["problem"]
        yield f"  mail for {answer['domain']} {FATES[problem['kind']]}: {problem['reply']}"
        return
    yield from _aligned(list(_way(answer)))
    yield from _aligned(list(_limits(answer["limits"])))
    for source in answer["sources"]:
        yield from _aligned(list(_source(source, unknown)))


def _way(answer: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for host in answer.get("hosts", ()):
        where = ", ".join(host["addresses"]) or host["problem"]
        at = str(Endpoint(host["host"], host["port"])) if host["port"] else f"{host['host']}, any free port"
        yield "host", str(host["preference"]), at, where
        for memory in host["memory"]:
            yield from _memory(memory)
    for name in ("site", "login"):
        if answer.get(name):
            yield name, answer[name]
    for name in ("match", "domains"):
        if answer.get(name):
            yield name, ", ".join(answer[name])
    yield from _provider(answer)


def _checks(checks: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for check in checks:
        modes = ", ".join(f"{mode} on {stream}" for stream, mode in check["modes"].items())
        says = f"{check['says']}: {check['reason']}" if check["reason"] else check["says"]
        yield "check", check["check"], modes, says


def _memory(memory: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """What is remembered of a host at an address."""
    if memory["failures"]:
        until = (
            f"until {memory['last_until']}" if memory["last_until"] else "as soon as it is not asked first"
        )
        yield "", "", memory["address"], f"asked last {until}, bad since {memory['since']}: {memory['why']}"
    elif memory["last_until"]:
        yield "", "", memory["address"], f"asked last until {memory['last_until']}: others were faster"
    if memory["tls"]:
        until = f" until {memory['tls_until']}" if memory["tls_until"] else ", tried again at the next dial"
        why = f": {memory['tls_why']}" if memory["tls_why"] else ""
        yield "", "", memory["address"], f"{TLS[memory['tls']]}{until}{why}"
    if memory["stepwise_until"]:
        yield "", "", memory["address"], f"sent one command at a time until {memory['stepwise_until']}"


def _provider(answer: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    name = answer["provider"]
    if answer["static"]:
        # Its name tells how the answers are read; connections and rate are the route's.
        yield "provider", f"{name or 'none'}: the settings say the route"
    elif name is None:
        yield "provider", "none that we know"
    elif answer["matched"]:
        yield "provider", f"{name}, by {answer['matched']}"
    yield "shared", f"by all sites of {name}" if answer["shared"] else "by nobody: a site has its own limits"


def _limits(limits: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for limit in limits:
        value = "no limit" if limit["value"] is None else str(limit["value"])
        why = f"{limit['origin']}: {limit['because']}" if limit["because"] else limit["origin"]
        yield "limit", limit["name"], value, why


def _source(source: Mapping[str, Any], unknown: str) -> Iterator[tuple[str, ...]]:
    if source["source"]:
        yield "source", source["source"], source["address"] or "not bound in the sandbox", source["hostname"]
    state = source["state"]
    if not state:
        yield "state", unknown
        return
    for name, value in state.items():
        yield "state", name, _with_unit(name, value)


def _with_unit(name: str, value: Any) -> str:
    """One value of a state as people write it."""
    if name.endswith("_for"):
        return units.about_duration(value) if value else f"not {name.removesuffix('_for')}"
    if value is None:
        return "no limit"
    if name == "rate":
        return units.about_rate(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Columns; the last cell of a row takes the room that it needs."""
    most = max(map(len, rows))
    widths = [max((len(row[at]) for row in rows if len(row) > at + 1), default=0) for at in range(most)]
    widths[0] = LABEL
    for row in rows:
        cells = [cell.ljust(widths[at]) for at, cell in enumerate(row[:-1])]
        yield "  " + "  ".join([*cells, row[-1]])
