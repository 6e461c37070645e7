"""`mta spool verify` and `backup`: care of the directory that holds the mail.

Between: the operator and the files of the spool, beside the daemon or without one.
Contract: nothing of the spool is changed. The exit status of `verify` is 0 where all is well, 1 with
    findings, 2 where it could not look. `--json` gives one JSON document on standard output; warnings go to
    standard error.
Raises: click.ClickException (exit 1) where no backup could be made.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import click

from mta.clock import SystemClock
from mta.config.settings import Settings
from mta.core.mail.text import printable
from mta.spool import backup as copies
from mta.spool import verify as looks
from mta.spool.database import SpoolError

LOOK_AGAIN = 5.0  # seconds; a commit under way is over by then

_json = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
_place = click.Path(path_type=Path)


@click.group()
def spool() -> None:
    """Care of the spool: look, copy, move, erase."""


@spool.command()
@click.argument("directory", type=_place, required=False)
@click.option("--quick", is_flag=True, help="Do not compare indexes with their tables.")
@_json
@click.pass_context
def verify(context: click.Context, directory: Path | None, quick: bool, as_json: bool) -> None:
    """Look whether the spool, or the backup in DIRECTORY, is sound; also while the daemon runs."""
    known: Settings = context.obj()
    place, log, secret = known.spool.path, known.event_log, known.secret
    try:
        if directory is None:
            verdict = looks.verify(place, _pause, quick, log, secret)
        else:
            verdict = looks.verify(directory, _pause, quick, None, directory / secret.name)
    except SpoolError as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(2)
    if as_json:
        document = {
            "messages": verdict.messages,
            "recipients": verdict.recipients,
            "files": verdict.files,
            "findings": [finding._asdict() for finding in verdict.findings],
            "unlisted": verdict.unlisted,
        }
        click.echo(json.dumps(document))
    else:
        _tell(verdict)
    context.exit(1 if verdict.findings else 0)


@spool.command()
@click.argument("directory", type=_place)
@click.option("--keys", is_flag=True, help="With the private keys of domains: the copy is a secret then.")
@_json
@click.pass_obj
def backup(settings: Callable[[], Settings], directory: Path, keys: bool, as_json: bool) -> None:
    """Copy the spool to DIRECTORY, which must not exist; also while the daemon runs.

    The copy is the spool at one moment, without the event log and, unless you ask, without private keys.
    To restore: stop the daemon, move the spool out of the way and the copy to its place, start. What was
    delivered since the backup is then sent again; the event log, where it was kept, tells what that is.
    """
    known = settings()
    try:
        made = copies.backup(known.spool.path, directory, known.secret, with_keys=keys)
    except SpoolError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps({"directory": str(directory.absolute()), **made._asdict()}))
    else:
        files = f"{made.files} contents in files" + (f" ({made.copied} copied)" if made.copied else "")
        click.echo(f"{directory}: {made.messages} messages to {made.recipients} recipients, {files}")
        if made.left:
            click.echo(f"{made.left} messages were delivered meanwhile and are not in it")
        click.echo(
            f"to restore: stop mta, move {known.spool.path} out of the way, "
            f"move {directory} to its place, start mta"
        )
    if made.missing:
        click.echo(f"the spool has lost {made.missing} contents: mta spool verify names them", err=True)


def _pause() -> None:
    asyncio.run(SystemClock().sleep(LOOK_AGAIN))


def _tell(verdict: looks.Verification) -> None:
    for where, what, remedy in verdict.findings:
        click.echo(printable(f"{where}: {what}; {remedy}"))
    if verdict.unlisted:
        click.echo(f"and {verdict.unlisted} more of these kinds")
    held = f"{verdict.messages} messages, {verdict.recipients} recipients, {verdict.files} contents in files"
    count = len(verdict.findings) + verdict.unlisted
    click.echo(f"{held}: " + (f"{count} findings" if count else "all is well"))
