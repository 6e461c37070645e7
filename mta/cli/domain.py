"""`mta domain`: as whom we send, and the keys that sign.

Between: the operator, the store of domains and the folder of keys; a running daemon sees a change at once.
Contract: what is to be published in DNS is printed by the command that makes it, and by `show`. A secret is
    never printed. `--json` gives one JSON document on standard output; complaints go to standard error.
Raises: click.ClickException (exit 1) where the store or the disk refuses, click.UsageError (2) for wrong
    arguments.
Standards: RFC 6376 3.6.1 (the record).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from mta.clock import SystemClock
from mta.config.settings import Settings
from mta.core.domain import (
    ALGORITHMS,
    Algorithm,
    DomainKey,
    KeyMoveError,
    KeyState,
    SendingDomain,
    activated,
    retired,
)
from mta.core.event import rfc3339
from mta.signing.keys import KeyFileError, KeyFolder, Secret, read
from mta.signing.rotation import adopt, make
from mta.store.database import StoreError
from mta.store.domains import DomainStore

RSA, ED25519 = ALGORITHMS
KINDS: dict[str, tuple[Algorithm, ...]] = {"rsa": (RSA,), "ed25519": (ED25519,), "both": ALGORITHMS}

_json = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")


@click.group()
def domain() -> None:
    """As whom we send: From domains, their DKIM keys and return paths."""


@domain.command()
@click.argument("name")
@click.option("--algorithm", type=click.Choice(list(KINDS)), show_default="rsa")
@click.option("--selector", help="Of the first key; else it is named after the day.")
@click.option(
    "--key",
    "file",
    type=click.Path(path_type=Path),
    help="A private key that you have: PEM. Needs --selector.",
)
@click.option("--subdomains", is_flag=True, help="It is also for every domain below it that is not added.")
@click.option("--stream", "streams", multiple=True, help="Only mail of this stream is its. Repeatable.")
@click.option("--return-path", default="", metavar="DOMAIN", help="The domain of envelope senders.")
@click.option(
    "--unsigned",
    type=click.Choice(["refuse", "send"]),
    default="refuse",
    show_default=True,
    help="What becomes of mail whose signature cannot be made.",
)
@_json
@click.pass_obj
def add(
    settings: Callable[[], Settings],
    name: str,
    algorithm: str | None,
    selector: str | None,
    file: Path | None,
    subdomains: bool,
    streams: tuple[str, ...],
    return_path: str,
    unsigned: Any,
    as_json: bool,
) -> None:
    """Send as NAME from now on, signed; prints what to publish in DNS."""
    known = settings()
    for stream in streams:
        if stream not in known.streams:
            raise click.UsageError(
                f"there is no stream {stream!r}: the settings have {', '.join(known.streams)}"
            )
    if file is not None and selector is None:
        raise click.UsageError("--key needs --selector: the one that its record stands under")
    if file is not None and algorithm is not None:
        raise click.UsageError("--key says itself of which algorithm it is: leave out --algorithm")
    if selector is not None and algorithm == "both":
        raise click.UsageError("--selector names one key: --algorithm both makes two")
    try:
        new = SendingDomain(name, subdomains, streams, return_path, unsigned)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    now = SystemClock().now()
    with _stores(known) as (store, keys):
        if store.get(new.name) is not None:
            raise click.ClickException(f"{new.name} is there already: mta domain show {new.name}")
        found = adopt(keys, new, now)
        wanted: list[Algorithm | Secret] = []
        if file is not None:
            wanted = [read(file)]
        elif algorithm or selector or not found.keys:
            wanted = [*KINDS[algorithm or "rsa"]]
        with _or_undone(store, keys, new.name) as made:
            for what in wanted:
                if not _has(found, what, selector):
                    found = make(keys, found, what, now, selector)
                    made.append(found.keys[-1])
            store.put(found)
        found = _known(store, found.name)
    _answer(found, as_json, f"{found.name} is added; publish this, until then receivers see no signature:")


def _has(found: SendingDomain, what: Algorithm | Secret, selector: str | None) -> bool:
    """Was it taken up? So a command that was cut off can be repeated."""
    return any(
        selector in (None, key.selector)
        and (key.public == what.public if isinstance(what, Secret) else key.algorithm == what)
        for key in found.keys
    )


@domain.command("list")
@_json
@click.pass_obj
def list_(settings: Callable[[], Settings], as_json: bool) -> None:
    """Show all of them."""
    with _stores(settings()) as (store, _):
        found, unread = store.all(), store.unread()
    for one in unread:
        click.echo(f"{one.why}: mta domain remove {one.name}, and add it anew", err=True)
    if as_json:
        click.echo(json.dumps([_document(one) for one in found]))
        return
    for each in found:
        click.echo(f"{each.name}: {_summary(each)}")
    if not found and not unread:
        click.echo("no domain yet, and mail goes unsigned: mta domain add NAME", err=True)


@domain.command()
@click.argument("name")
@_json
@click.pass_obj
def show(settings: Callable[[], Settings], name: str, as_json: bool) -> None:
    """Show NAME, its keys and the records that they want."""
    with _stores(settings()) as (store, _):
        found = _known(store, name)
    _answer(found, as_json, f"{found.name}: {_summary(found)}")


@domain.command()
@click.argument("name")
@_json
@click.pass_obj
def remove(settings: Callable[[], Settings], name: str, as_json: bool) -> None:
    """Forget NAME and its keys: mail from it goes unsigned; leave its records for as long as mail is out."""
    is_name = False
    with suppress(ValueError):
        name, is_name = SendingDomain(name).name, True
    with _stores(settings()) as (store, keys):
        is_damaged = name in {each.name for each in store.unread()}
        had_row = store.remove(name)
        had_keys = is_name and not is_damaged and keys.forget_domain(name)
    if not had_row and not had_keys:
        raise click.ClickException(f"there is no domain {name!r}")
    what = f"but its keys wait for mta domain add {name}" if is_damaged else "and so are its keys"
    _say({"name": name, "removed": True}, as_json, f"{name} is removed, {what}")


@domain.command()
@click.argument("name")
@click.option("--algorithm", type=click.Choice(list(KINDS)), help="Else each that signs now gets a new key.")
@_json
@click.pass_obj
def rotate(settings: Callable[[], Settings], name: str, algorithm: str | None, as_json: bool) -> None:
    """Make new keys for NAME. Each signs when every authoritative server shows its record."""
    now = SystemClock().now()
    with _stores(settings()) as (store, keys):
        found = _known(store, name)
        state, when = KeyState.PENDING, "which sign when every name server shows their records; publish these"
        if not found.signers:
            state, when = KeyState.ACTIVE, "which sign at once; publish their records"
        kinds = KINDS[algorithm] if algorithm else tuple(key.algorithm for key in found.signers)
        for kind in kinds or (RSA,):
            with _or_undone(store, keys, found.name) as made:
                made.append(replace(make(keys, found, kind, now).keys[-1], state=state))
                found = store.change_keys(found.name, lambda _, made=made: made)  # type: ignore[misc]
    _answer(found, as_json, f"{found.name} has new keys, {when}:")


@domain.command()
@click.argument("name")
@click.argument("selector")
@_json
@click.pass_obj
def activate(settings: Callable[[], Settings], name: str, selector: str, as_json: bool) -> None:
    """Let the key SELECTOR of NAME sign from now on, whatever DNS shows."""
    now = SystemClock().now()
    with _stores(settings()) as (store, keys):

        def change(found: SendingDomain) -> list[DomainKey]:
            moved = activated(found, selector, now)
            keys.find(found.name, found.key(selector))
            return moved

        found = store.change_keys(_known(store, name).name, change)
    _answer(found, as_json, f"{found.name}: {_summary(found)}")


@domain.command()
@click.argument("name")
@click.argument("selector")
@_json
@click.pass_obj
def retire(settings: Callable[[], Settings], name: str, selector: str, as_json: bool) -> None:
    """End the key SELECTOR of NAME: one that signs stays published for a time, any other is over at once."""
    now = SystemClock().now()
    with _stores(settings()) as (store, keys):
        name = _known(store, name).name
        found = store.change_keys(name, lambda found: [retired(found, selector, now)])
        if found.key(selector).state is KeyState.RETIRED:
            keys.forget(found.name, selector)
    if found.key(selector).algorithm == RSA and all(key.algorithm != RSA for key in found.signers):
        cure = f"mta domain rotate {found.name} --algorithm rsa"
        click.echo(f"no RSA key of {found.name} signs, and few receivers check another: {cure}", err=True)
    _answer(found, as_json, f"{found.name}: {_summary(found)}")


@contextmanager
def _stores(settings: Settings) -> Iterator[tuple[DomainStore, KeyFolder]]:
    try:
        with DomainStore(settings.spool.path) as store:
            yield store, KeyFolder(settings.spool.path)
    except (StoreError, KeyFileError, KeyMoveError) as error:
        raise click.ClickException(str(error)) from error
    except ValueError as error:
        raise click.UsageError(str(error)) from None


@contextmanager
def _or_undone(store: DomainStore, keys: KeyFolder, name: str) -> Iterator[list[DomainKey]]:
    """Of the keys that are made: a secret that is in no store would count as that of a lost domain."""
    made: list[DomainKey] = []
    try:
        yield made
    except BaseException:
        kept = store.get(name)
        for key in made:
            if kept is None or key.selector not in {each.selector for each in kept.keys}:
                keys.forget(name, key.selector)
        raise


def _known(store: DomainStore, name: str) -> SendingDomain:
    found = store.get(SendingDomain(name).name)
    if found is None:
        raise click.ClickException(f"there is no domain {name!r}: mta domain add {name}")
    return found


def _answer(found: SendingDomain, as_json: bool, sentence: str) -> None:
    _say(_document(found), as_json, sentence)
    if as_json:
        return
    for key in found.keys:
        click.echo(f"\n; {key.selector}: {key.algorithm}, {key.state.value} since {_day(key.since)}")
        click.echo(f"{key.host(found.name)}. IN TXT {_zone(key.record)}")


def _say(document: dict[str, Any], as_json: bool, sentence: str) -> None:
    click.echo(json.dumps(document) if as_json else sentence)


def _zone(record: str) -> str:
    """As a zone file has it: strings of 255 octets at most (RFC 1035 3.3.14)."""
    return "( " + " ".join(f'"{record[at : at + 255]}"' for at in range(0, len(record), 255)) + " )"


def _day(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d")


def _document(found: SendingDomain) -> dict[str, Any]:
    return {
        "name": found.name,
        "subdomains": found.subdomains,
        "streams": list(found.streams),
        "return_path": found.return_path,
        "unsigned": found.unsigned,
        "keys": [
            {
                "selector": key.selector,
                "algorithm": key.algorithm,
                "state": key.state.value,
                "since": rfc3339(key.since),
                "created": rfc3339(key.created),
                "host": key.host(found.name),
                "record": key.record,
            }
            for key in found.keys
        ],
    }


def _summary(found: SendingDomain) -> str:
    """One line: who signs, and what narrows it."""
    facts = {
        "signs with": " ".join(key.selector for key in found.signers) or "nothing",
        "pending": " ".join(key.selector for key in found.keys if key.state is KeyState.PENDING),
        "streams": " ".join(found.streams),
        "return-path": found.return_path,
        "subdomains": "too" if found.subdomains else "",
        "unsigned": "" if found.unsigned == "refuse" else found.unsigned,
    }
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value)
