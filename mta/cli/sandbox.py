"""`mta sandbox`: what a first run needs, in one directory.

Between: a newcomer, or `make run`; `mta serve --quickstart` serves what is made here.
Contract: a sandbox on loopback with a certificate, one credential and its password in a 0600 file, and one
    that needs no password, for frameworks as their development settings are. What is there already is left
    as it is, so that a second run changes nothing; what was lost is made again. A preferred port that
    somebody holds gives way to the next free one, once: the settings file remembers.
Raises: click.ClickException where the daemon of this directory runs, where the settings are no sandbox's,
    or where the store refuses.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import click

from mta.cli.quickstart import LOGIN, PASSWORD, shown, write
from mta.config.load import SettingsError, load
from mta.config.settings import Settings
from mta.core.credential import Credential
from mta.ops.certificate import self_signed
from mta.spool.database import SpoolError, take_lock
from mta.store.credentials import CredentialError, CredentialStore, generate

HOSTNAME = "mail.example.test"
HOST = "127.0.0.1"
NOBODY, LOOPBACK = "local", ("127.0.0.0/8",)  # the credential of who has no password, and from where
SUBMISSION, SUBMISSIONS, OPEN, ADMIN = 2587, 2465, 1025, 8025  # preferred ports, none of which needs root
TRIES = 50  # ports looked at from a preferred one on

SETTINGS = """\
# A sandbox on this machine: it takes mail for any address, and nothing leaves. `mta sandbox` wrote it
# once and will not change it. Relative paths are taken from here; config/mta.yaml explains every setting.

hostname: {hostname}

listeners:
  - bind: {host}:{submission}
    tls: starttls
  - bind: {host}:{submissions}
    tls: implicit
  - bind: {host}:{open}  # for programs on this machine, as their development settings are
    tls: none
    auth: network

tls:
  certificate: tls/certificate.pem
  key: tls/key.pem

spool:
  path: spool

admin:
  bind: {host}:{admin}

sandbox:
  path: sandbox
"""


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), default="var")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
@click.pass_context
def sandbox(context: click.Context, directory: Path, as_json: bool) -> None:
    """Make a sandbox in DIRECTORY (default: var), or what is missing of one."""
    path = directory / "mta.yaml"
    try:
        made = list(_make(directory, path))
    except SettingsError as error:
        click.echo(str(error), err=True)
        context.exit(2)
    except (SpoolError, CredentialError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps({"settings": shown(path), "made": [shown(file) for file, _ in made]}))
        return
    for file, words in made:
        click.echo(f"made {shown(file)}: {words}")
    if not made:
        click.echo(
            f"{shown(directory)} has all that it needs; the password is in {shown(directory / PASSWORD)}"
        )


def _make(directory: Path, path: Path) -> Iterator[tuple[Path, str]]:
    """Make what is missing; each file with words about it."""
    if not path.exists():
        _refuse_running(directory / "spool")
        preferred = {"submission": SUBMISSION, "submissions": SUBMISSIONS, "open": OPEN, "admin": ADMIN}
        ports = {name: _free_port(port) for name, port in preferred.items()}
        write(path, SETTINGS.format(hostname=HOSTNAME, host=HOST, **ports))
        words = "ports {submission}, {submissions} and {open} (without TLS and password), admin {admin}"
        yield path, f"a sandbox on {HOST}, {words.format(**ports)}"
    settings = load(path)
    if settings.sandbox is None:
        raise SpoolError(f"{shown(path)} is not a sandbox's: `mta sandbox` has no business there")
    _refuse_running(settings.spool.path)
    settings.sandbox.path.mkdir(parents=True, exist_ok=True)
    yield from _certificate(settings, directory / "tls")
    with CredentialStore(settings.spool.path / "credentials.db") as store:
        yield from _credential(store, directory / PASSWORD)
        if store.get(NOBODY) is None and any(door.auth == "network" for door in settings.listeners):
            store.add(Credential(NOBODY, "default", "transactional", networks=LOOPBACK, kind="network"), "")


def _certificate(settings: Settings, tls: Path) -> Iterator[tuple[Path, str]]:
    """Ours, unless the settings name another one by now."""
    certificate = tls / "certificate.pem"
    if settings.tls.certificate == certificate.absolute() and not certificate.exists():
        self_signed([HOSTNAME], tls)
        yield certificate, f"a self-signed certificate for {HOSTNAME} and localhost"


def _credential(store: CredentialStore, file: Path) -> Iterator[tuple[Path, str]]:
    """The store and the password file agree at the end."""
    is_known = store.get(LOGIN) is not None
    if file.exists() and is_known:
        return
    is_new = not file.exists()
    if is_new:
        _write_secret(file, generate("password"))
    try:
        secret = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CredentialError(f"{shown(file)} is not UTF-8: remove it, and another is made") from None
    if is_known:
        store.replace_secret(LOGIN, secret)
    else:
        store.add(Credential(LOGIN, "default", "transactional"), secret)
    if is_new:
        yield file, f"login {LOGIN}, password {secret} (shown only now)"


def _refuse_running(spool: Path) -> None:
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(take_lock(spool))
    except SpoolError as error:
        raise SpoolError(f"already running: {error}") from None


def _free_port(preferred: int) -> int:
    """The first from there on that a listener could bind."""
    for port in range(preferred, preferred + TRIES):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as listeners do
            try:
                probe.bind((HOST, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            return port
    raise OSError(errno.EADDRINUSE, f"no port from {preferred} to {preferred + TRIES - 1} is free on {HOST}")


def _write_secret(path: Path, secret: str) -> None:
    """0600 from its first octet on; no line feed, so that a program may take it as it is."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    draft.touch(0o600, exist_ok=False)
    draft.write_text(secret)
    draft.replace(path)
