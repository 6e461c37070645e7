"""The first five minutes: where to send, as whom, and where the mail is found.

Between: `mta sandbox` makes what is named here; `mta serve --quickstart FILE` writes FILE and says how.
Contract: FILE is there while the daemon serves, and whole whenever it is there. Paths in it are relative to
    the current directory where they lie below it. It holds no secret: `password_file`, its neighbour, does.
Raises: `Unfit` where the settings are not those of a sandbox with passwords; OSError.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

from mta.config.settings import Settings

if TYPE_CHECKING:  # a third of a second: `mta sandbox` does without
    from mta.daemon import Daemon

LOGIN = "app"
SENDER = "app@example.test"
RECIPIENT = "ok@example.test"
PASSWORD = "password"  # the file's name, beside the settings

# Commands stand at the margin: they are to be pasted, and Python would mind a space before them.
INSTRUCTIONS = """\
Ready. This is a sandbox: it takes mail for any address, and nothing leaves this machine.

  Submission   {submission[host]}:{submission[port]}, STARTTLS
  Submissions  {submissions[host]}:{submissions[port]}, TLS from the start
{unlocked}  Login        {user}; the password is in {password_file}
  Sender       {sender}, or any other

Send a message with swaks:

swaks --server {submission[host]}:{submission[port]} --tls --auth-user {user} \\
  --auth-password "$(cat {password_file})" --from {sender} --to {recipient}

with curl:

printf 'From: {sender}\\nTo: {recipient}\\nSubject: Hello\\n\\nHello from curl.\\n' |
  curl --silent --show-error --crlf --ssl-reqd --cacert {ca_file} \\
  --url smtp://{submission[host]}:{submission[port]} --user "{user}:$(cat {password_file})" \\
  --mail-from {sender} --mail-rcpt {recipient} --upload-file -

or with Python:

python3 - <<'END'
import smtplib, ssl
with smtplib.SMTP_SSL("{submissions[host]}", {submissions[port]}, \
context=ssl.create_default_context(cafile="{ca_file}")) as smtp:
    smtp.login("{user}", open("{password_file}").read())
    smtp.sendmail("{sender}", "{recipient}", "From: {sender}\\nSubject: Hello\\n\\nHello from Python.\\n")
END

Then look at what became of it:

ls {sandbox_dir}  # each message as an .eml
cat {event_log}  # what happened to each, a JSON line a step
curl {admin_url}/metrics

Other recipients play other parts (defer@example.test, bounce@example.test ...): README.md lists them.
Ctrl-C stops the daemon.
"""
OPEN = "  Development  {host}:{port}, neither TLS nor login: what frameworks expect of such a server\n"


class Unfit(Exception):
    """These settings cannot be introduced in a few lines; the text says why."""


class Quickstart:
    """Announces a daemon on entry into service, and takes the announcement back on exit."""

    def __init__(self, path: Path, settings: Settings) -> None:
        kinds = {listener.tls for listener in settings.listeners if listener.auth == "password"}
        if settings.sandbox is None or not kinds >= {"starttls", "implicit"}:
            raise Unfit(
                "--quickstart is for a sandbox with two listeners for passwords, tls starttls and implicit: "
                "`mta sandbox` makes one"
            )
        self._path = path
        self._written = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._written:
            self._path.unlink(missing_ok=True)
            click.echo("Stopped. Mail that is not delivered yet waits in the spool.")

    def announce(self, daemon: Daemon) -> None:
        """Everything serves: say so in the file and on standard output."""
        known = facts(daemon, self._path.parent / PASSWORD)
        write(self._path, json.dumps(known, indent=2) + "\n")
        self._written = True
        door = known.get("open")
        unlocked = OPEN.format(**door) if door else ""
        click.echo(INSTRUCTIONS.format(**known, unlocked=unlocked, recipient=RECIPIENT))


def facts(daemon: Daemon, password_file: Path) -> dict[str, Any]:
    """What a client needs to know of a sandbox that serves."""
    settings = daemon.settings
    assert settings.sandbox is not None
    assert settings.tls.certificate is not None
    doors = {
        (door.tls if door.auth == "password" else "open"): {"host": listener.host, "port": listener.port}
        for door, listener in zip(settings.listeners, daemon.listeners, strict=True)
    }
    return {
        "pid": os.getpid(),
        "submission": doors["starttls"],
        "submissions": doors["implicit"],
        **({"open": doors["open"]} if "open" in doors else {}),
        "user": LOGIN,
        "sender": SENDER,
        "password_file": shown(password_file),
        "ca_file": shown(settings.tls.certificate),
        "admin_url": f"http://{daemon.admin.endpoint}",
        "sandbox_dir": shown(settings.sandbox.path),
        "event_log": shown(settings.event_log),
        "spool_dir": shown(settings.spool.path),
    }


def shown(path: Path) -> str:
    """As one would type it here."""
    whole = path.absolute()
    return str(whole.relative_to(Path.cwd())) if whole.is_relative_to(Path.cwd()) else str(whole)


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
