"""`mta credential`: who may submit.

Between: the operator and the store of credentials; a running daemon sees a change at once, and ends the
    sessions of a credential that is gone.
Contract: a generated secret is printed once, by the command that made it, and kept nowhere. `--json`
    gives one JSON document on standard output; complaints go to standard error.
Raises: click.ClickException (exit 1) where the store refuses, click.UsageError (2) for wrong arguments.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import click

from mta.config import units
from mta.config.settings import Settings
from mta.core.credential import ANY, AuthKind, Credential, check_senders
from mta.core.limits.order import HIGHEST, LOWEST
from mta.core.limits.throttle import Rate
from mta.store.credentials import CredentialError, CredentialStore, generate

_json = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
_stdin = click.option(
    "--password-stdin", is_flag=True, help="Read the password from the first line of standard input."
)


def _unit(parse: Callable[[str], object]) -> Callable[[click.Context, click.Parameter, str | None], object]:
    """Reads an option's value like one in the settings, and refuses it in the same words."""

    def convert(context: click.Context, option: click.Parameter, text: str | None) -> object:
        try:
            return None if text is None else parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error), context, option) from None

    return convert


def _streams(context: click.Context, option: click.Parameter, text: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in text.split(","))


@click.group()
def credential() -> None:
    """Who may submit mail, as whom, from where and how much."""


@credential.command()
@click.argument("login")
@click.option(
    "--sender",
    "senders",
    multiple=True,
    default=(ANY,),
    show_default=True,
    metavar="PATTERN",
    help="user@example.com, example.com (any address there) or * (any at all). Repeatable.",
)
@click.option("--tenant", default="default", show_default=True, help="Whose mail it is.")
@click.option(
    "--stream",
    "streams",
    default="transactional",
    show_default=True,
    metavar="NAME[,NAME...]",
    callback=_streams,
    help="A stream of the settings, or several: X-MTA-Stream in a message chooses, else it is the first.",
)
@click.option("--rate", metavar="RATE", callback=_unit(units.rate), help="Recipients in a time: 100/min.")
@click.option("--message-size", metavar="SIZE", callback=_unit(units.size), help="The largest message: 25M.")
@click.option("--recipients", type=click.IntRange(min=1), help="The most recipients of one message.")
@click.option(
    "--network", "networks", multiple=True, metavar="CIDR", help="May be used from there only. Repeatable."
)
@click.option(
    "--priority", type=click.IntRange(LOWEST, HIGHEST), help="The highest MT-PRIORITY that it may ask for."
)
@click.option("--delay", metavar="TIME", callback=_unit(units.duration), help="The longest HOLDFOR: 7d.")
@click.option("--bound", is_flag=True, help="No secret: a client in one of the networks is this credential.")
@click.option("--key", is_flag=True, help="Generate a key for a program: quicker to check than a password.")
@_stdin
@click.option("--no-notify", is_flag=True, help="Do not tell senders of failed deliveries.")
@_json
@click.pass_obj
def add(
    settings: Callable[[], Settings],
    login: str,
    senders: tuple[str, ...],
    tenant: str,
    streams: tuple[str, ...],
    rate: Rate | None,
    message_size: int | None,
    recipients: int | None,
    networks: tuple[str, ...],
    priority: int | None,
    delay: float | None,
    bound: bool,
    key: bool,
    password_stdin: bool,
    no_notify: bool,
    as_json: bool,
) -> None:
    """Let LOGIN submit; without --key, --password-stdin or --bound a password is generated."""
    if bound + key + password_stdin > 1:
        raise click.UsageError("--bound, --key and --password-stdin exclude each other")
    known = settings()
    for each in streams:
        if each not in known.streams:
            names = ", ".join(known.streams)
            raise click.UsageError(f"there is no stream {each!r}: the settings have {names}")
    kind: AuthKind = "network" if bound else "key" if key else "password"
    try:
        check_senders(senders)
        new = Credential(
            login=login,
            tenant=tenant,
            stream=streams[0],
            streams=streams,
            senders=senders,
            message_size=message_size,
            recipients=recipients,
            rate=rate,
            networks=networks,
            notify=not no_notify,
            kind=kind,
            priority=priority,
            delay=delay,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    secret = _secret(kind, password_stdin)
    with _store(known) as store:
        store.add(new, secret)
    _answer(_document(new), "" if password_stdin else secret, as_json, f"{login} may submit: {_summary(new)}")


@credential.command("list")
@_json
@click.pass_obj
def list_(settings: Callable[[], Settings], as_json: bool) -> None:
    """Show all of them, without their secrets."""
    with _store(settings()) as store:
        found = [stored.credential for stored in store.current().values()]
    if as_json:
        click.echo(json.dumps([_document(one) for one in found]))
        return
    for one in found:
        click.echo(f"{one.login}: {_summary(one)}")
    if not found:
        click.echo("nobody may submit yet: mta credential add LOGIN", err=True)


@credential.command()
@click.argument("login")
@_json
@click.pass_obj
def remove(settings: Callable[[], Settings], login: str, as_json: bool) -> None:
    """Stop LOGIN from submitting; a running daemon refuses its next login and its next message."""
    with _store(settings()) as store:
        store.remove(login)
    _answer({"login": login, "removed": True}, "", as_json, f"{login} is removed")


@credential.command()
@click.argument("login")
@_stdin
@_json
@click.pass_obj
def passwd(settings: Callable[[], Settings], login: str, password_stdin: bool, as_json: bool) -> None:
    """Replace the secret of LOGIN: another generated one, or a password from standard input."""
    with _store(settings()) as store:
        known = store.get(login)
        if known is not None and known.kind == "key" and password_stdin:
            raise click.UsageError(f"{login!r} has a key, which is always generated")
        secret = _secret(known.kind if known else "password", password_stdin)
        store.replace_secret(login, secret)
    shown = "" if password_stdin else secret
    _answer({"login": login, "replaced": True}, shown, as_json, f"{login} has another secret")


@contextmanager
def _store(settings: Settings) -> Iterator[CredentialStore]:
    try:
        with CredentialStore(settings.spool.path / "credentials.db") as store:
            yield store
    except CredentialError as error:
        raise click.ClickException(str(error)) from error


def _secret(kind: AuthKind, from_stdin: bool) -> str:
    if kind == "network":
        return ""
    if not from_stdin:
        return generate(kind)
    try:
        return sys.stdin.buffer.readline().decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise click.UsageError("the password on standard input is not UTF-8") from None


def _answer(document: dict[str, Any], secret: str, as_json: bool, sentence: str) -> None:
    if as_json:
        click.echo(json.dumps(document | {"secret": secret} if secret else document))
        return
    click.echo(sentence)
    if secret:
        click.echo(f"secret, shown only now: {secret}")


def _document(one: Credential) -> dict[str, Any]:
    return asdict(one) | {"rate": units.rate_text(one.rate) if one.rate else None}


def _summary(one: Credential) -> str:
    """One line: what it is and everything that narrows it."""
    facts = {
        "tenant": one.tenant,
        "stream": " ".join(one.streams),
        "from": " ".join(one.senders),
        "networks": " ".join(one.networks),
        "message-size": units.size_text(one.message_size) if one.message_size else "",
        "recipients": one.recipients,
        "rate": units.rate_text(one.rate) if one.rate else "",
        "priority": "" if one.priority is None else f"up to {one.priority}",
        "delay": units.duration_text(one.delay) if one.delay else "",
        "notify": "" if one.notify else "no",
    }
    return ", ".join([one.kind, *(f"{name} {value}" for name, value in facts.items() if value)])
