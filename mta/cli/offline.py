"""The spool without its daemon, for the commands that change it.

Between: `mta spool export --remove`, `import` and `erase`; the writer, the commits and the event log are the
    daemon's own.
Contract: while `locked` lasts no daemon can start on the spool. Around `writing` what is noted is
    committed; at its end all of it is, and the event log has its lines. `run` turns what the operator has to
    know into one complaint, exit 1.
Raises: click.ClickException.
Why: only the owner of the spool may: a file that root made there would stop the daemon's next start.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import sqlite3
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from mta.clock import SystemClock
from mta.config.settings import Settings
from mta.disk import words
from mta.events.log import EventLog
from mta.metrics import Metrics
from mta.spool.database import FILE, SpoolError
from mta.spool.parcel import ParcelError
from mta.spool.queue import Spool

Result = TypeVar("Result")
EXPECTED = (SpoolError, ParcelError, sqlite3.Error, OSError)


def mode(settings: Settings) -> str:
    """What this spool is for."""
    return "sandbox" if settings.sandbox else "live"


@asynccontextmanager
async def locked(settings: Settings) -> AsyncIterator[Spool]:
    """The spool as a start leaves it, and its lock."""
    clock = SystemClock()
    event_log = EventLog(settings.event_log, settings.events.retention, clock)
    publish, instance = event_log.publish, settings.instance
    spool = Spool(settings.spool.path, mode(settings), 0, publish, clock, Metrics(), instance)
    await spool.open(max(stream.retry_first for stream in settings.streams.values()))
    try:
        event_log.open()
        yield spool
    finally:
        event_log.close()
        await spool.close()


@asynccontextmanager
async def writing(spool: Spool) -> AsyncIterator[None]:
    """The spool's writer runs."""
    async with asyncio.TaskGroup() as tasks:
        committing = tasks.create_task(spool.run())
        try:
            yield
        finally:
            spool.stop()
            await committing


def refuse_stranger(directory: Path) -> None:
    """Only the owner of the spool may look into it and change it."""
    if not directory.exists():
        return
    owner = directory.stat().st_uid
    if owner != os.geteuid():
        name = _name(owner)
        raise click.ClickException(
            f"{directory} belongs to {name}, and so must every file in it: "
            f"run this as that user: runuser -u {name} -- mta ..."
        )


def refuse_missing(directory: Path) -> None:
    """A spool that is not there is not made by looking for it."""
    if not (directory / FILE).is_file():
        raise click.ClickException(f"there is no spool: {directory / FILE} does not exist")


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def run(command: Coroutine[Any, Any, Result]) -> Result:
    """The result, or the complaint."""
    try:
        return asyncio.run(command)
    except BaseExceptionGroup as group:
        expected, bugs = group.split(EXPECTED)
        if bugs is not None or expected is None:
            raise
        complaints = [words(error) for error in _leaves(expected)]
    except EXPECTED as error:
        complaints = [words(error)]
    raise click.ClickException("; ".join(complaints))


def _leaves(group: ExceptionGroup[Exception]) -> Iterator[Exception]:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
