"""The group of all commands, and what they share: the settings file.

Between: the shell and the commands; each of these takes `context.obj`, which reads the settings when asked.
Contract: exit status 0 is done, 1 refused, 2 a wrong command line or wrong settings (each is told).
    `--config` may stand behind any command as well. Texts are UTF-8, or refused; a path may be any octets.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from mta import __version__
from mta.cli.classify import classify
from mta.cli.configuration import configuration
from mta.cli.credential import credential
from mta.cli.domain import domain
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


class _Text(click.ParamType):  # type: ignore[type-arg]
    """What the shell hands over may be any octets; an address, a login or a tenant is text."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, context: click.Context | None) -> str:
        try:
            value.encode()
        except UnicodeEncodeError:
            self.fail(f"{value!r} is not UTF-8", param, context)
        return value


def _config(**terms: Any) -> click.Option:
    return click.Option(["--config"], type=click.Path(path_type=Path), help="The settings file.", **terms)


def _behind(context: click.Context, option: click.Parameter, path: Path | None) -> None:
    """It is said behind a command: as if it stood before all."""
    if path is not None:
        context.find_root().params["config"] = path


def _equip(command: click.Command) -> None:
    """What each command has, down to the last."""
    for parameter in command.params:
        if parameter.type is click.STRING:
            parameter.type = _Text()
    command.params.append(_config(expose_value=False, callback=_behind))
    if isinstance(command, click.Group):
        for each in command.commands.values():
            _equip(each)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.pass_context
def main(context: click.Context, config: Path) -> None:
    """A mail transfer agent for people who send a lot of mail from their own machines."""
    _open_standard()
    if isinstance(sys.stdout, io.TextIOWrapper):  # as standard error does: a path may have any octets
        sys.stdout.reconfigure(errors="backslashreplace")
    settings: Callable[[], Settings] = partial(_settings, context)
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


def _settings(context: click.Context) -> Settings:
    try:
        return load(context.params["config"])
    except SettingsError as error:
        click.echo(str(error), err=True)
        context.exit(2)


main.params.insert(0, _config(default=DEFAULT, show_default=True))

# One line for each command.
main.add_command(classify)
main.add_command(configuration)
main.add_command(credential)
main.add_command(domain)
main.add_command(explain)
main.add_command(queue)
main.add_command(sandbox)
main.add_command(serve)
main.add_command(spool)
spool.add_command(export)
spool.add_command(import_)
spool.add_command(erase)
for command in main.commands.values():
    _equip(command)
