"""`mta spool erase`: forget a person, in the queue and in the event log.

Between: the operator, whom a person has asked, and the files of the spool; the daemon is stopped.
Contract: recipients with the address leave the queue, the segments of the event log name `erased` instead.
    What was cut off is repeated. It says what it did, and what it cannot reach. `--json` gives one document.
Raises: click.ClickException (exit 1) where the spool or the log refuses, click.UsageError (2).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import click

from mta.cli.offline import locked, refuse_missing, refuse_stranger, run, writing
from mta.clock import SystemClock
from mta.config.settings import Settings
from mta.core.event import rfc3339
from mta.core.mail.erasure import Erasure
from mta.disk import words
from mta.events.segments import rewrite, segments
from mta.spool.database import SpoolError
from mta.spool.erase import Erased, forget, refuse_undrained
from mta.spool.erase import erase as leave_queue

BEYOND = (
    "backups of the spool, also `before-schema-...` in its directory",
    "copies of the event log, also those that another rotation renamed",
    "contents, tags and metadata of messages to other recipients that name the address, such as in To",
    "credentials that allow the address as a sender (`mta credential list`), and exported messages",
    "the system's journal, which has a line for each failed attempt",
    "the servers that took the mail",
)
BEYOND_SANDBOX = "the mail that the sandbox keeps"


class _Log(NamedTuple):
    lines: int
    segments: int


@click.command()
@click.argument("address")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
@click.pass_obj
def erase(settings: Callable[[], Settings], address: str, as_json: bool) -> None:
    """Forget ADDRESS: recipients in the queue, and every line of the event log; stop the daemon first.

    Mail that was sent from ADDRESS stays in the queue until it is delivered or expires.
    """
    known = settings()
    try:
        person = Erasure(address)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    refuse_missing(known.spool.path)
    refuse_stranger(known.spool.path)
    erased, log = run(_erase(known, person))
    beyond = [*BEYOND, *([BEYOND_SANDBOX] if known.sandbox else [])]
    until = None if erased.until is None else rfc3339(erased.until)
    if as_json:
        counts = {"recipients": erased.recipients, "messages": erased.messages}
        counts |= {"event_lines": log.lines, "event_segments": log.segments, "sent": erased.sent}
        click.echo(json.dumps({**counts, "sent_until": until, "not_reached": beyond}))
        return
    click.echo(
        f"queue: {erased.recipients} recipients removed, and {erased.messages} messages that had no other\n"
        f"event log: {log.lines} lines changed, in {log.segments} segments"
    )
    if erased.sent:
        click.echo(
            f"{erased.sent} messages from {address} wait in the queue, until {until} at the latest: repeat "
            f"this after that, or take them out first: mta spool export DIRECTORY --sender {address} --remove"
        )
    click.echo("\n- ".join(["not reached:", *beyond]))


async def _erase(settings: Settings, person: Erasure) -> tuple[Erased, _Log]:
    path = settings.spool.path
    async with locked(settings) as spool:
        async with writing(spool):
            erased = await leave_queue(path, spool, person, SystemClock().now())
        refuse_undrained(path)
        log = _rewrite(settings.event_log, person)
        forget(path)
    return erased, log


def _rewrite(path: Path, person: Erasure) -> _Log:
    try:
        counts = [rewrite(segment, person.line) for segment in segments(path, 0)]
    except OSError as error:
        said = f"the queue is done, the event log is not: {words(error)}; then repeat the command"
        raise SpoolError(said) from error
    return _Log(sum(counts), sum(1 for count in counts if count))
