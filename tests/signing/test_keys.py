"""Secrets on disk: made, read, and whatever is wrong with them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from mta.core.domain import ALGORITHMS, Algorithm, DomainKey, KeyState
from mta.signing.keys import KeyFileError, KeyFolder, generate, prove, read

PKCS1 = PrivateFormat.TraditionalOpenSSL


def written(path: Path, octets: bytes) -> Path:
    path.write_bytes(octets)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_secret_comes_back_and_nobody_else_can_read_it(tmp_path: Path, algorithm: Algorithm) -> None:
    folder, made = KeyFolder(tmp_path), generate(algorithm)
    folder.keep("src.test", "s1", made)
    again = folder.load("src.test", "s1")
    assert again.public == made.public
    assert again.algorithm == algorithm
    assert [stat.S_IMODE(each.stat().st_mode) for each in sorted((tmp_path / "keys").rglob("*"))] == [
        0o700,
        0o600,
    ]
    assert folder.domains == ["src.test"]
    assert [selector for _, selector in folder.selectors("src.test")] == ["s1"]


def test_a_secret_is_never_written_over(tmp_path: Path) -> None:
    folder, first = KeyFolder(tmp_path), generate("ed25519-sha256")
    folder.keep("src.test", "s1", first)
    with pytest.raises(KeyFileError, match="exists"):
        folder.keep("src.test", "s1", generate("ed25519-sha256"))
    assert folder.load("src.test", "s1").public == first.public


KEEP = """
import os, resource, stat, sys
from pathlib import Path
from mta.signing.keys import KeyFileError, KeyFolder, generate
def full():
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40))  # octets: a write is short, the next fails
def killed():
    os.fsync = lambda descriptor: stat.S_ISREG(os.fstat(descriptor).st_mode) and os._exit(9)
locals()[sys.argv[2]]()
try:
    KeyFolder(Path(sys.argv[1])).keep("src.test", "s1", generate("ed25519-sha256"))
except KeyFileError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize(("misfortune", "status"), [("full", 1), ("killed", 9)])
def test_a_secret_that_could_not_be_written_whole_is_none(
    tmp_path: Path, misfortune: str, status: int
) -> None:
    command = (sys.executable, "-c", KEEP, str(tmp_path), misfortune)
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == status, ended.stderr
    left = list((tmp_path / "keys/src.test").iterdir())
    if misfortune == "full":
        assert "File too large" in ended.stderr
        assert left == []
    else:
        assert [file.suffix for file in left] == [".partial"]
    folder, made = KeyFolder(tmp_path), generate("ed25519-sha256")
    assert folder.selectors("src.test") == []
    folder.keep("src.test", "s1", made)
    assert folder.load("src.test", "s1").public == made.public


def test_a_secret_that_others_can_read_is_refused_with_the_cure(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path)
    folder.keep("src.test", "s1", generate("ed25519-sha256"))
    (tmp_path / "keys/src.test/s1.pem").chmod(0o640)
    with pytest.raises(KeyFileError, match="can be read by others"):
        folder.load("src.test", "s1")


def rsa_pem(bits: int, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    return rsa.generate_private_key(65537, bits).private_bytes(Encoding.PEM, form, NoEncryption())


WRONG: dict[str, tuple[Callable[[], bytes], str]] = {
    "1024 bits": (lambda: rsa_pem(1024), "has 1024 bits: receivers want 2048 to 4096"),
    "another kind": (
        lambda: ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        ),
        "neither an RSA nor an Ed25519 key",
    ),
    "encrypted": (
        lambda: ed25519.Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        ),
        "is encrypted: write the key without a passphrase",
    ),
    "nothing": (lambda: b"", "is no private key in PEM form"),
    "half of one": (lambda: rsa_pem(2048)[:500], "is no private key in PEM form"),
    "octets": (lambda: bytes(range(256)) * 100, "is no private key in PEM form"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_file_that_is_no_key_of_ours_is_refused_with_words(tmp_path: Path, what: str) -> None:
    made, words = WRONG[what]
    with pytest.raises(KeyFileError, match=words):
        read(written(tmp_path / "key.pem", made()))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        KeyFolder(tmp_path).load("src.test", "s1")


def test_a_key_as_openssl_once_wrote_it_is_taken(tmp_path: Path) -> None:
    secret = read(written(tmp_path / "key.pem", rsa_pem(2048, PKCS1).replace(b"\n", b"\r\n")))
    prove(secret, DomainKey("s1", "rsa-sha256", secret.public, KeyState.ACTIVE, 0.0, 0.0).record)


def test_a_record_of_another_key_is_noticed_before_it_is_published() -> None:
    one, other = generate("ed25519-sha256"), generate("ed25519-sha256")
    with pytest.raises(KeyFileError, match="does not prove itself"):
        prove(one, f"v=DKIM1; k=ed25519; p={other.public}")


def test_what_is_forgotten_is_gone(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path)
    for selector in ("s1", "s2"):
        folder.keep("src.test", selector, generate("ed25519-sha256"))
    folder.forget("src.test", "s1")
    assert [selector for _, selector in folder.selectors("src.test")] == ["s2"]
    folder.forget_domain("src.test")
    assert folder.domains == []
    folder.forget_domain("src.test")


def test_a_folder_without_a_secret_stands_for_no_domain(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path)
    folder.keep("src.test", "s1", generate("ed25519-sha256"))
    for name in ("empty.test", "cut.test", "lost+found", "lost+found/src.test"):
        (tmp_path / "keys" / name).mkdir()
    (tmp_path / "keys/cut.test/s1.x.partial").touch()
    (tmp_path / "keys/lost+found/s1.pem").touch()
    assert folder.domains == ["src.test"]
    assert folder.selectors("empty.test") == []


NOBODY = 65534


@contextmanager
def unprivileged(directory: Path) -> Iterator[None]:
    """Root reads what it likes, so it is somebody else meanwhile, whose all of this is."""
    mine = os.geteuid()
    if mine == 0:
        for path in (directory, *directory.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(mine)


def test_folders_that_cannot_be_read_are_not_taken_for_empty_ones() -> None:
    with TemporaryDirectory() as made, unprivileged(Path(made)):  # others cannot come to `tmp_path`
        folder, keys = KeyFolder(Path(made)), Path(made) / "keys"
        folder.keep("src.test", "s1", generate("ed25519-sha256"))
        (keys / "lost+found").mkdir()
        for name in ("src.test", "lost+found"):
            (keys / name).chmod(0)
        assert folder.domains == ["src.test"]
        with pytest.raises(KeyFileError, match="Permission denied"):
            folder.selectors("src.test")
        keys.chmod(0)
        with pytest.raises(KeyFileError, match="Permission denied"):
            assert folder.domains
        for path in (keys, keys / "src.test", keys / "lost+found"):
            path.chmod(0o700)
