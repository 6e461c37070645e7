"""The group of all commands, and what they share: the settings file.

Between: the shell and the commands; each of these takes `context.obj`, which reads the settings when asked.
Contract: exit status 0 is done, 1 refused, 2 a wrong command line or wrong settings (each is told).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from mta import __version__
from mta.cli.classify import classify
from mta.cli.configuration import configuration
from mta.cli.credential import credential
from mta.cli.erase import erase
from mta.cli.explain import explain
from mta.cli.queue import queue
from mta.cli.sandbox import sandbox
from mta.cli.serve import serve
from mta.cli.spool import spool
from mta.cli.transfer import export, import_
from mta.config.load import SettingsError, load
from mta.config.settings import Settings

DEFAULT = Path("/etc/mta/mta.yaml")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=DEFAULT,
    show_default=True,
    help="The settings file.",
)
@click.version_option(__version__)
@click.pass_context
def main(context: click.Context, config: Path) -> None:
    """A mail transfer agent for people who send a lot of mail from their own machines."""
    _open_standard()
    settings: Callable[[], Settings] = partial(_settings, context, config)
    context.obj = settings


def _open_standard() -> None:
    """A standard descriptor that is closed (a start script's `<&-`) would be the loop's next socket or pipe.

    libuv aborts when it closes one of these, and a stray line would go into a client's connection.
    """
    for wanted in range(3):
        try:
            os.fstat(wanted)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one
            assert opened == wanted


def _settings(context: click.Context, path: Path) -> Settings:
    try:
        return load(path)
    except SettingsError as error:
        click.echo(str(error), err=True)
        context.exit(2)


# One line for each command.
main.add_command(classify)
main.add_command(configuration)
main.add_command(credential)
main.add_command(explain)
main.add_command(queue)
main.add_command(sandbox)
main.add_command(serve)
main.add_command(spool)
spool.add_command(export)
spool.add_command(import_)
spool.add_command(erase)
