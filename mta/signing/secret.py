"""`identity.secret`: what our tokens are made with, the same for all instances.

Between: the daemon reads it at its start and makes it at the first one; `mta config check` and `mta spool
    verify` look at it; `spool.backup` copies it.
Contract: a text file, 0600, of one to `MOST` lines, each 64 hexadecimal digits (256 bits) from the system's
    dice. The first line makes tokens; the others are only for reading, while one follows another. `obtain`
    makes the file where there is none, whole or not at all, and of several who start at once one makes it;
    a file that is there is never changed. `fingerprint` tells secrets apart and tells nobody what they are.
Raises: SecretError, whose text says what, why and what to do; FileNotFoundError from `read`.
Why: whoever knows it can write addresses that we take for our own.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
from pathlib import Path

from mta import disk

MOST = 4  # that live at a time
OCTETS = 32
_LARGEST = 4096  # octets of the file
_LINE = re.compile(r"[0-9a-f]{64}", re.I)
_MAKE = "openssl rand -hex 32"


class SecretError(Exception):
    """The secret cannot be used; the text is for the operator."""


def obtain(path: Path) -> tuple[bytes, ...]:
    """The secrets that there are; where there is no file it is made."""
    try:
        return read(path)
    except FileNotFoundError:
        _make(path)
    return read(path)


def read(path: Path) -> tuple[bytes, ...]:
    """The secrets in their order."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            said = file.read(_LARGEST + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SecretError(f"the secret cannot be read: {disk.words(error)}") from error
    if mode & 0o077:
        raise SecretError(
            f"{path} is open to others than its owner (mode {mode:04o}): run `chmod 600 {path}`, and if it "
            f"may have been read put a new secret (`{_MAKE}`) in a line before the old one"
        )
    lines = said.decode("ascii", "replace").split()
    if not lines or len(lines) > MOST or not all(map(_LINE.fullmatch, lines)):
        raise SecretError(
            f"{path} is not what it was made as, one to {MOST} lines of {2 * OCTETS} hexadecimal digits: put "
            "it back from a backup; where there is none, remove it, and the next start makes another"
        )
    return tuple(map(bytes.fromhex, lines))


def fingerprint(secret: bytes) -> str:
    """What a secret is known by where it must not stand itself."""
    return hmac.digest(secret, b"mta fingerprint", "sha256")[:8].hex()


def _make(path: Path) -> None:
    draft = path.with_name(f"{path.name}.new")
    try:
        with disk.alone(path.parent):  # another instance may be at it: it has one ready in no time
            if not path.exists():
                draft.unlink(missing_ok=True)  # of a start that was cut off
                _write(draft, secrets.token_hex(OCTETS) + "\n")
                draft.rename(path)
                disk.sync_names(path.parent)
    except OSError as error:
        raise SecretError(
            f"{path} does not exist and cannot be made: {disk.words(error)}; or make it as this user: "
            f"(umask 077; {_MAKE} > {path})"
        ) from error


def _write(path: Path, text: str) -> None:
    """0600 from its first octet on, and on disk."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
