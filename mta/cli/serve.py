"""`mta serve`: the daemon in the foreground.

Between: the shell or systemd starts it; SIGTERM and SIGINT drain it, and so does a terminal that closes.
Contract: exit status 0 after a drain, 1 where it could not start (and says why). The log tells when it
    serves and where, and why it stops.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
import uvloop

from mta.cli.quickstart import Quickstart, Unfit
from mta.clock import SystemClock
from mta.config.policy import PolicyError, build
from mta.config.settings import Settings
from mta.ops import logs
from mta.signing.secret import SecretError
from mta.spool.database import SpoolError
from mta.store.credentials import CredentialError
from mta.store.database import StoreError

if TYPE_CHECKING:
    from mta.daemon import Daemon

Loop = Literal["uvloop", "asyncio"]

log = logging.getLogger(__name__)


@click.command()
@click.option(
    "--loop",
    type=click.Choice(["uvloop", "asyncio"]),
    default="uvloop",
    show_default=True,
    help="The event loop.",
)
@click.option(
    "--quickstart",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="While a sandbox serves, tell in FILE and on standard output how to use it.",
)
@click.pass_obj
def serve(settings: Callable[[], Settings], loop: Loop, quickstart: Path | None) -> None:
    """Run the daemon in the foreground until SIGTERM."""
    known = settings()
    if quickstart is None:
        run(known, loop)
        return
    try:
        sheet = Quickstart(quickstart, known)
    except Unfit as error:
        raise click.UsageError(str(error)) from None
    with sheet:
        run(known, loop, sheet.announce)


def _tell(daemon: Daemon) -> None:
    """Where it serves, in one line."""
    doors = zip(daemon.listeners, daemon.settings.listeners, strict=True)
    at = ", ".join(f"{each.host} port {each.port} (tls {door.tls}, auth {door.auth})" for each, door in doors)
    admin, tally = daemon.admin.endpoint, daemon.spool.tally
    waiting = tally.fresh + tally.deferred
    log.info("serving at %s; admin at %s port %d; recipients waiting: %d", at, *admin, waiting)


def run(settings: Settings, loop: Loop, ready: Callable[[Daemon], None] = _tell) -> None:
    """Run a daemon with these settings until a signal ends it."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    prefix = ""
    if logs.goes_to_journal(os.environ):
        prefix = logs.priority(logging.ERROR)
        for handler in logging.getLogger().handlers:
            handler.setFormatter(logs.Journal())
    logging.getLogger("mail.log").setLevel(logging.CRITICAL)  # aiosmtpd's: every command, twice
    factory = uvloop.new_event_loop if loop == "uvloop" else None
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_serve(settings, ready))
    except Exception as error:
        reasons = list(_reasons(error))
        if not all(
            isinstance(each, SpoolError | CredentialError | StoreError | SecretError | PolicyError | OSError)
            for each in reasons
        ):
            raise
        for reason in reasons:
            click.echo(f"{prefix}mta: {reason}", err=True)
        raise SystemExit(1) from None


def _reasons(error: Exception) -> Iterator[Exception]:
    """What is inside the groups of task groups."""
    if isinstance(error, ExceptionGroup):
        for each in error.exceptions:
            yield from _reasons(each)
    else:
        yield error


async def _serve(settings: Settings, ready: Callable[[Daemon], None]) -> None:
    from mta.daemon import Daemon  # a third of a second that no other command is to wait for

    daemon = Daemon(await asyncio.to_thread(build, settings), SystemClock(), os.environ)
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        log.info("%s: no new mail; what is under way may end within limits.drain", number.name)
        daemon.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # it would kill us; nohup has it ignored
        # A service that a habit of `kill -HUP` ended would stay down: systemd takes that for a clean end.
        hangup = partial(stop, signal.SIGHUP) if os.isatty(0) else _pass_by
        loop.add_signal_handler(signal.SIGHUP, hangup)

    def serving(started: Daemon) -> None:
        # What is there now stays: with a backlog, looking through it for garbage again and again takes a
        # fifth of the speed.
        gc.collect()
        gc.freeze()
        ready(started)

    await daemon.run(serving)


def _pass_by() -> None:
    log.warning("SIGHUP: nothing is read again; restart the daemon for other settings or another certificate")
