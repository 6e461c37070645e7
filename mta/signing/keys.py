"""The secrets of DKIM keys: one file each, `keys/DOMAIN/SELECTOR.pem` in the spool directory.

Between: `mta domain` and rotation make and remove them, the signer loads them.
Contract: a file is PKCS#8 in PEM, 0600, in folders of 0700, and on disk when `keep` returns; PKCS#1 is read
    too. It has its name when it is whole: what a crash cut off is `*.partial`, and counts for nothing.
    `Secret.sign` takes 0.03 ms (Ed25519) to 0.8 ms (RSA-2048), in which the GIL is released. `load` takes a
    file that was made here at its word (no check of the primes, 35 ms); `read` checks what comes from others.
Raises: KeyFileError, whose text is for the operator.
Standards: RFC 6376 3.3, RFC 8301 3.2 (1024 bits are too few, 2048 are right), RFC 8463 3.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dkim as dkimpy
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from mta import disk
from mta.config.settings import KEYS
from mta.core.domain import Algorithm, DomainKey, SendingDomain
from mta.core.mail import dkim

RSA_BITS = 2048
LEAST_BITS, MOST_BITS = 2048, 4096  # more is not what every receiver checks (RFC 8301 3.2)
PEM = ".pem"
MAX_FILE = 16 * 1024  # octets
_PROBE = b"From: probe@probe.test\r\nSubject:  a probe \r\n\r\nIs the  record right? \r\n\r\n"
_PADDING, _SHA256 = padding.PKCS1v15(), hashes.SHA256()


class KeyFileError(Exception):
    """A key cannot be used; the text says why and what to do."""


class Secret:
    """A private key."""

    def __init__(self, key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> None:
        self._key = key
        self.algorithm: Algorithm = "rsa-sha256" if isinstance(key, rsa.RSAPrivateKey) else "ed25519-sha256"

    def sign(self, octets: bytes) -> bytes:
        """The signature."""
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(octets, _PADDING, _SHA256)
        return self._key.sign(hashlib.sha256(octets).digest())  # RFC 8463 3: of the hash

    @property
    def public(self) -> str:
        """p= of the record: RSA as SubjectPublicKeyInfo, Ed25519 as its 32 octets (RFC 8463 4)."""
        key = self._key.public_key()
        if isinstance(key, rsa.RSAPublicKey):
            return b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
        return b64encode(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()

    @property
    def pem(self) -> bytes:
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def generate(algorithm: Algorithm) -> Secret:
    """A new one. RSA takes a tenth of a second or more: call it in a thread."""
    if algorithm == "rsa-sha256":
        return Secret(rsa.generate_private_key(65537, RSA_BITS))
    return Secret(ed25519.Ed25519PrivateKey.generate())


def read(path: Path) -> Secret:
    """One that somebody else made."""
    return _secret(path, _octets(path), is_ours=False)


def prove(secret: Secret, record: str) -> None:
    """Does a foreign implementation verify what it signs, by the record that we have people publish?"""
    prepared = dkim.prepare(_PROBE)
    field, octets = dkim.to_sign(prepared, secret.algorithm, "probe.test", "probe", 0)
    probe = dkim.signed(field, secret.sign(octets)) + _PROBE
    if not dkimpy.verify(probe, dnsfunc=lambda name, timeout: record.encode()):
        raise KeyFileError("the new key does not prove itself: its record does not verify what it signs")


class KeyFolder:
    """The folder of all domains' secrets."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / KEYS

    def _file(self, domain: str, selector: str) -> Path:
        return self._path / domain / f"{selector}{PEM}"

    def keep(self, domain: str, selector: str, secret: Secret) -> None:
        """Write a new one; one that is there is never written over."""
        file = self._file(domain, selector)
        try:
            for folder in (self._path, file.parent):
                with suppress(FileExistsError):
                    folder.mkdir(mode=0o700)
                    disk.give_to_owner(folder)
                    disk.sync_names(folder.parent)
            with _draft(file, secret.pem) as draft:
                os.link(draft, file)
            disk.sync_names(file.parent)
        except OSError as error:
            raise KeyFileError(f"{file}: {disk.words(error)}") from error

    def load(self, domain: str, selector: str) -> Secret:
        """The secret of a key."""
        file = self._file(domain, selector)
        return _secret(file, _octets(file, is_private=True), is_ours=True)

    def find(self, domain: str, key: DomainKey) -> Secret:
        """The secret that belongs to what is known of a key."""
        secret = self.load(domain, key.selector)
        if secret.public != key.public:
            other = f"the secret of {key.selector} is not the one of its record"
            raise KeyFileError(f"{other}: mta domain rotate {domain}")
        return secret

    def complaint(self, domain: str, key: DomainKey) -> str:
        """What is against signing with it; "" if nothing is."""
        try:
            self.find(domain, key)
        except KeyFileError as error:
            return str(error)
        return ""

    def selectors(self, domain: str) -> list[tuple[float, str]]:
        """Those of a domain's secrets, each with the time when it was written, in that order."""
        try:
            files = _secrets(self._path / domain)
            return sorted((file.stat().st_mtime, file.name.removesuffix(PEM)) for file in files)
        except OSError as error:
            raise KeyFileError(f"{self._path / domain}: {disk.words(error)}") from error

    def forget(self, domain: str, selector: str) -> None:
        """Remove a secret that signs nothing any more."""
        try:
            self._file(domain, selector).unlink(missing_ok=True)
        except OSError as error:
            raise KeyFileError(f"{self._file(domain, selector)}: {disk.words(error)}") from error

    def forget_domain(self, domain: str) -> bool:
        """Remove all that a domain has; had it any?"""
        folder = self._path / domain
        try:
            had = bool(_secrets(folder))
            if folder.exists():
                shutil.rmtree(folder)
        except OSError as error:
            raise KeyFileError(f"{folder}: {disk.words(error)}") from error
        return had

    @property
    def domains(self) -> list[str]:
        """Those that have a secret here, or a folder that cannot be read."""
        try:
            with os.scandir(self._path) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir() and _is_of_domain(entry))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise KeyFileError(f"{self._path}: {disk.words(error)}") from error


def _is_of_domain(folder: os.DirEntry[str]) -> bool:
    """`lost+found` is none, and an empty one stands for nobody."""
    try:
        return SendingDomain(folder.name).name == folder.name and bool(_secrets(folder))
    except PermissionError:
        return True
    except ValueError:
        return False


def _secrets(folder: os.PathLike[str]) -> list[os.DirEntry[str]]:
    """The whole ones. (`Path.glob` shows a folder that cannot be read as an empty one.)"""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.name.endswith(PEM)]
    except FileNotFoundError:
        return []


@contextmanager
def _draft(file: Path, octets: bytes) -> Iterator[Path]:
    """What a file is to be, whole and on disk, under another name."""
    descriptor, name = tempfile.mkstemp(disk.PARTIAL, f"{file.stem}.", file.parent)  # 0600
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as written:
            written.write(octets)
            written.flush()
            os.fsync(descriptor)
        disk.give_to_owner(draft)
        yield draft
    finally:
        draft.unlink()


def _octets(path: Path, is_private: bool = False) -> bytes:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if is_private and mode & 0o077:
                raise KeyFileError(f"{path} can be read by others (mode {mode:04o}): chmod 600 {path}")
            return file.read(MAX_FILE)
    except OSError as error:
        raise KeyFileError(f"{path}: {disk.words(error)}") from error


def _secret(path: Path, octets: bytes, is_ours: bool) -> Secret:
    try:
        key = load_pem_private_key(octets, None, unsafe_skip_rsa_key_validation=is_ours)
    except TypeError:  # "password was not given"
        raise KeyFileError(f"{path} is encrypted: write the key without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileError(f"{path} is no private key in PEM form") from None
    if isinstance(key, rsa.RSAPrivateKey):
        if not LEAST_BITS <= key.key_size <= MOST_BITS:
            raise KeyFileError(
                f"{path} has {key.key_size} bits: receivers want {LEAST_BITS} to {MOST_BITS}; make a new key"
            )
    elif not isinstance(key, ed25519.Ed25519PrivateKey):
        raise KeyFileError(f"{path} is neither an RSA nor an Ed25519 key")
    return Secret(key)
