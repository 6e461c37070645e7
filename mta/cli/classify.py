"""`mta classify`: what would we make of this reply?

Between: people with a log in hand, and the reply rules; no daemon and no settings are asked.
Contract: one JSON object a line, for each reply in its order: subject, permanent, suppress, rule, reaction,
    scope. A line without a reply in it is told on standard error, with its number, and makes the exit status
    1; the others are answered.
Raises: click.UsageError (exit 2) for a provider that no rule names.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator

import click

from mta.config.rules import load
from mta.core.answers.logline import quoted
from mta.core.answers.reply import ReplyError
from mta.core.model import Verdict

STAGES = ("CONNECT", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", ".")


class _Octets(click.ParamType):  # type: ignore[type-arg]
    """Peers say what they like, in any octets."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, context: click.Context | None) -> str:
        return os.fsencode(value).decode("utf-8", "replace")


@click.command()
@click.argument("reply", required=False, type=_Octets())
@click.option("--provider", help="Whose server said it: google, yahoo ...  [default: anybody's]")
@click.option(
    "--stage",
    type=click.Choice(STAGES, case_sensitive=False),
    help="The command that it answers; '.' is the end of the message.  [default: as the line says, else any]",
)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON, as it always does.")
@click.pass_context
def classify(
    context: click.Context, reply: str | None, provider: str | None, stage: str | None, as_json: bool
) -> None:
    """Say what REPLY means, or each line of standard input.

    REPLY is what a server said, as logs show it: "550 5.1.1 No such user". Lines of one reply are joined by a
    written \\n, or as they are: "550-5.1.1 No such 550 5.1.1 user".
    """
    rules = load()
    if provider is not None and provider not in rules.providers:
        known = ", ".join(rules.providers)
        raise click.UsageError(f"no rule names the provider {provider!r}; known: {known}")
    lines: Iterable[str] = _stdin() if reply is None else [reply]
    failed = False
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            said, told = quoted(line)
        except ReplyError as error:
            click.echo(f"line {number}: {error}", err=True)
            failed = True
            continue
        click.echo(_shown(rules.judge(said, stage or told, provider)))
    context.exit(1 if failed else 0)


def _stdin() -> Iterator[str]:
    """Its lines."""
    return (line.decode("utf-8", "replace") for line in sys.stdin.buffer)


def _shown(verdict: Verdict) -> str:
    return json.dumps(
        {
            "subject": verdict.subject.value,
            "permanent": verdict.permanent,
            "suppress": verdict.suppress,
            "rule": verdict.rule,
            "reaction": verdict.reaction.value,
            "scope": verdict.scope.value,
        }
    )
