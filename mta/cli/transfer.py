"""`mta spool export` and `mta spool import`: messages to and from a directory.

Between: the operator and the files of the spool; `spool.parcel` says what lies in the directory.
Contract: `export` copies and may run beside the daemon; with `--remove`, and for `import`, the daemon is
    stopped. What was cut off is repeated. `--json` gives one document on standard output.
Raises: click.ClickException (exit 1) where the spool or a file refuses, click.UsageError (2).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mta.cli.offline import locked, mode, refuse_missing, refuse_stranger, run, writing
from mta.clock import SystemClock
from mta.config.settings import Settings
from mta.core.mail.address import PathError, a_label
from mta.core.queueid import parse, text
from mta.spool.export import Lost, Selection, pages, remove
from mta.spool.import_ import Taken, check, take

LISTED = 20  # messages that are named

_json = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
_directory = click.argument("directory", type=click.Path(path_type=Path))


def _queue_ids(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> list[int]:
    try:
        return [parse(each) for each in texts]
    except ValueError as error:
        raise click.BadParameter(str(error), context, option) from None


def _domains(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> list[str]:
    try:
        return [a_label(each) for each in texts]
    except PathError as error:
        raise click.BadParameter(str(error), context, option) from None


@click.command()
@_directory
@click.option(
    "--queue-id",
    "queue_ids",
    multiple=True,
    callback=_queue_ids,
    metavar="ID",
    help="This message. Repeatable.",
)
@click.option(
    "--domain",
    "domains",
    multiple=True,
    callback=_domains,
    help="Messages with a recipient there. Repeatable.",
)
@click.option("--tenant", help="Messages of this tenant.")
@click.option("--sender", metavar="ADDRESS", help="Messages from this envelope sender; <> for notices.")
@click.option("--all", "everything", is_flag=True, help="Every message.")
@click.option(
    "--remove", "is_removed", is_flag=True, help="Take them out of the queue; stop the daemon first."
)
@_json
@click.pass_obj
def export(
    settings: Callable[[], Settings],
    directory: Path,
    queue_ids: list[int],
    domains: list[str],
    tenant: str | None,
    sender: str | None,
    everything: bool,
    is_removed: bool,
    as_json: bool,
) -> None:
    """Write messages to DIRECTORY, each as an .eml and a .json, with all their recipients.

    A copy that another spool imports is delivered by both; only with --remove the mail moves.
    """
    asked = [
        *([Selection.queue_ids(queue_ids)] if queue_ids else []),
        *([Selection.domains(domains)] if domains else []),
        *([Selection.tenant(tenant)] if tenant is not None else []),
        *([Selection.sender("" if sender == "<>" else sender)] if sender is not None else []),
        *([Selection.all()] if everything else []),
    ]
    if len(asked) != 1:
        raise click.UsageError("say once which messages: --queue-id, --domain, --tenant, --sender or --all")
    known = settings()
    refuse_missing(known.spool.path)
    refuse_stranger(known.spool.path)
    directory = directory.absolute()
    lost: list[Lost] = []
    messages, recipients = run(_export(known, directory, asked[0], is_removed, lost))
    _answer(
        {
            "directory": str(directory),
            "messages": messages,
            "recipients": recipients,
            "removed": is_removed,
            "lost": [{"queue_id": text(each.id), "why": each.why} for each in lost],
        },
        f"{directory}: {messages} messages to {recipients} recipients, "
        + ("no longer in the queue" if is_removed else "still in the queue"),
        as_json,
    )
    if lost:
        _complain(lost)


def _complain(lost: list[Lost]) -> None:
    for each in lost[:LISTED]:
        click.echo(f"{text(each.id)}: {each.why}", err=True)
    if len(lost) > LISTED:
        click.echo(f"and {len(lost) - LISTED} more; --json names all", err=True)
    raise click.ClickException(
        f"{len(lost)} messages are not in the directory, all others are; "
        "the event log tells who sent them, and to whom"
    )


async def _export(
    settings: Settings, directory: Path, selection: Selection, is_removed: bool, lost: list[Lost]
) -> tuple[int, int]:
    messages = recipients = 0
    found = pages(settings.spool.path, directory, selection, mode(settings), lost)
    if not is_removed:
        for page in found:
            messages += len(page)
            recipients += sum(len(message.recipients) for message in page)
        return messages, recipients
    clock = SystemClock()
    async with locked(settings) as spool, writing(spool):
        for page in found:
            await remove(spool, page, f"exported to {directory}", clock.now())
            messages += len(page)
            recipients += sum(len(message.recipients) for message in page)
    return messages, recipients


@click.command("import")
@_directory
@_json
@click.pass_obj
def import_(settings: Callable[[], Settings], directory: Path, as_json: bool) -> None:
    """Take the messages of DIRECTORY into the queue; stop the daemon first.

    All files are checked before anything is imported. What is in the queue already is passed over, so
    repeat what was cut off; but once a daemon has delivered the mail, remove DIRECTORY.
    """
    known = settings()
    refuse_stranger(known.spool.path)
    complaints, taken = run(_import(known, directory))
    if complaints:
        if as_json:
            click.echo(json.dumps({"complaints": complaints, "imported": 0}))
        else:
            click.echo("\n".join(complaints), err=True)
        raise click.ClickException("nothing was imported")
    document = {
        "imported": taken.imported,
        "recipients": taken.recipients,
        "here_already": taken.here,
        "renamed": dict(taken.renamed),
    }
    renamed = "".join(f"\n{old} is {new} here: its queue id was taken" for old, new in taken.renamed)
    _answer(
        document,
        f"{taken.imported} messages to {taken.recipients} recipients imported, "
        f"{taken.here} were here already{renamed}",
        as_json,
    )


async def _import(settings: Settings, directory: Path) -> tuple[list[str], Taken]:
    complaints = list(check(directory, settings.streams, mode(settings)))
    if complaints:
        return complaints, Taken()
    async with locked(settings) as spool, writing(spool):
        return [], await take(directory, settings.spool.path, spool, SystemClock().now())


def _answer(document: dict[str, Any], sentence: str, as_json: bool) -> None:
    click.echo(json.dumps(document) if as_json else sentence)
