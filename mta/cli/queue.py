"""`mta queue`: what the running daemon has yet to deliver.

Between: the operator and the daemon, through its control socket.
Contract: one line a recipient, oldest message first, sizes in the units of the settings. `--json` gives one
    JSON document on standard output, with sizes in octets.
Raises: click.ClickException (exit 1) where no daemon answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence

import click

from mta.api.control import ControlError, call
from mta.config import units
from mta.config.settings import Settings
from mta.core.mail.text import fit

MAX_CELL = 400  # characters; an address has 320 octets at most
COLUMNS = ("queue_id", "state", "attempts", "due", "size", "sender", "recipient")


@click.group()
def queue() -> None:
    """What waits to be delivered."""


@queue.command("list")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="The most recipients."
)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
@click.pass_obj
def list_(settings: Callable[[], Settings], limit: int, as_json: bool) -> None:
    """Show recipients that are not done with, oldest message first."""
    try:
        # One more than is shown tells whether there are more.
        found = call(settings().control_socket, "queue", {"limit": limit + 1})
    except ControlError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(found[:limit]))
        return
    if not found:
        click.echo("the queue is empty", err=True)
        return
    header = [name.replace("_", " ").upper() for name in COLUMNS]
    shown = [one | {"size": units.about_size(one["size"])} for one in found[:limit]]
    for line in _aligned([header, *([_cell(one[name]) for name in COLUMNS] for one in shown)]):
        click.echo(line)
    if len(found) > limit:
        click.echo(f"there are more than {limit}: --limit shows more", err=True)


def _cell(value: object) -> str:
    """Printable, and something to see where there is nothing: the null sender, no due time."""
    return "-" if value is None else fit(str(value), MAX_CELL) or "<>"


def _aligned(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    whole = list(rows)
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    for row in whole:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
