"""`mta config`: is the settings file right, will it work here, and what does it say in full?

Between: the operator, `config.load` and `ops.findings`; no daemon is asked.
Contract: `check` tells every mistake with file, line and column, and where there is none what will not work
    on this machine; it ends with 2 where there is an error, and with 0 where there are warnings only. `show`
    prints each setting, defaults too, in a form that is a settings file itself. `--json` gives one document.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import yaml

from mta.clock import SystemClock
from mta.config.load import SettingsError, load
from mta.config.load import show as text_of
from mta.config.settings import Settings
from mta.ops.findings import Finding, findings

_json = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")


@click.group("config")
def configuration() -> None:
    """The settings file."""


@configuration.command()
@_json
@click.pass_context
def check(context: click.Context, as_json: bool) -> None:
    """Tell all mistakes at once, and what will not work on this machine."""
    path: Path = context.find_root().params["config"]
    try:
        found = findings(path, load(path), SystemClock.now())
    except SettingsError as error:
        found = [Finding("error", *problem) for problem in error.problems]
    is_wrong = any(each.severity == "error" for each in found)
    if as_json:
        problems = [each._asdict() | {"path": str(each.path)} for each in found]
        click.echo(json.dumps({"path": str(path), "problems": problems}))
    else:
        for each in found:
            click.echo(str(each), err=True)
        if not is_wrong:
            click.echo(f"{path}: no mistakes")
    context.exit(2 if is_wrong else 0)


@configuration.command()
@_json
@click.pass_obj
def show(settings: Callable[[], Settings], as_json: bool) -> None:
    """Print every setting that is in force, with its unit."""
    text = text_of(settings())
    click.echo(json.dumps(yaml.safe_load(text)) if as_json else text, nl=as_json)
