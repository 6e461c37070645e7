"""`mta config`: is the settings file right, and what does it say in full?

Between: the operator and `config.load`; no daemon is asked.
Contract: `check` tells every mistake with file, line and column and ends with 2 where there is one. `show`
    prints each setting, defaults too, in a form that is a settings file itself. `--json` gives one document.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import yaml

from mta.config.load import Problem, SettingsError, load
from mta.config.load import show as text_of
from mta.config.settings import Settings

_json = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")


@click.group("config")
def configuration() -> None:
    """The settings file."""


@configuration.command()
@_json
@click.pass_context
def check(context: click.Context, as_json: bool) -> None:
    """Tell all mistakes at once."""
    path: Path = context.find_root().params["config"]
    problems: list[Problem] = []
    try:
        load(path)
    except SettingsError as error:
        problems = error.problems
    if as_json:
        found = [problem._asdict() | {"path": str(problem.path)} for problem in problems]
        click.echo(json.dumps({"path": str(path), "problems": found}))
    elif problems:
        click.echo("\n".join(map(str, problems)), err=True)
    else:
        click.echo(f"{path}: no mistakes")
    context.exit(2 if problems else 0)


@configuration.command()
@_json
@click.pass_obj
def show(settings: Callable[[], Settings], as_json: bool) -> None:
    """Print every setting that is in force, with its unit."""
    text = text_of(settings())
    click.echo(json.dumps(yaml.safe_load(text)) if as_json else text, nl=as_json)
