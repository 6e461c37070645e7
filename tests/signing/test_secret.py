"""`identity.secret`: made once, for its owner alone, and never replaced without a word."""

from __future__ import annotations

import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from mta.config.settings import IdentitySettings, Settings
from mta.signing.secret import MOST, SecretError, fingerprint, obtain, read
from tests.fakes.house import running, settings

ONE, TWO = "0f" * 32, "A7" * 32
LOST = "no longer has the secret of the last start"


def write(path: Path, *lines: str, mode: int = 0o600) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    path.chmod(mode)
    return path


def test_it_is_made_for_its_owner_alone_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "identity.secret"
    (made,) = obtain(path)
    assert len(made) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert obtain(path) == read(path) == (made,)
    assert [each.name for each in tmp_path.iterdir()] == ["identity.secret"]


def test_instances_that_start_at_once_have_the_same_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as threads:
        made = list(threads.map(lambda _: obtain(tmp_path / "identity.secret"), range(64)))
    assert len(set(made)) == 1


def test_a_start_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "identity.secret.new", "half")
    (made,) = obtain(tmp_path / "identity.secret")
    assert len(made) == 32
    assert [each.name for each in tmp_path.iterdir()] == ["identity.secret"]


def test_while_one_follows_another_there_are_several_in_their_order(tmp_path: Path) -> None:
    path = write(tmp_path / "identity.secret", TWO, ONE)
    assert read(path) == (b"\xa7" * 32, b"\x0f" * 32)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_one_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "identity.secret", ONE, mode=mode)
    words = rf"open to others than its owner \(mode {mode:04o}\): run `chmod 600 {path}`"
    with pytest.raises(SecretError, match=words):
        obtain(path)


@pytest.mark.parametrize(
    "lines",
    [(), ("",), (ONE[:-1],), (ONE + "0",), ("x" * 64,), (ONE, "# old"), ("é" * 64,), (ONE,) * (MOST + 1)],
)
def test_one_that_is_none_is_refused_and_kept(tmp_path: Path, lines: tuple[str, ...]) -> None:
    path = write(tmp_path / "identity.secret", *lines)
    before = path.read_bytes()
    with pytest.raises(SecretError, match="put it back from a backup"):
        obtain(path)
    assert path.read_bytes() == before


def test_one_that_cannot_be_made_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match=r"cannot be made: .*; or make it as this user: \(umask 077; "):
        obtain(tmp_path / "nowhere" / "identity.secret")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SecretError, match=r"the secret cannot be read: .*Is a directory"):
        obtain(tmp_path / "folder")


def test_a_fingerprint_tells_secrets_apart_and_none_of_them(tmp_path: Path) -> None:
    shown = fingerprint(bytes.fromhex(ONE))
    assert shown == fingerprint(bytes.fromhex(ONE)) != fingerprint(bytes.fromhex(TWO))
    assert len(shown) == 16


# A daemon's start


async def lives(terms: Settings) -> list[str]:
    """What it says of its state until it stops."""
    async with running(terms) as house:
        pass
    return [str(each["reason"]) for each in house.of(type="state")]


async def test_the_first_start_makes_it_and_the_next_has_nothing_to_say(tmp_path: Path) -> None:
    terms = settings(tmp_path)
    assert await lives(terms) == []
    made = terms.secret.read_bytes()
    assert await lives(terms) == []
    assert terms.secret.read_bytes() == made


async def test_one_that_is_lost_is_made_anew_and_told(tmp_path: Path) -> None:
    terms = settings(tmp_path)
    await lives(terms)
    terms.secret.unlink()
    (told,) = await lives(terms)
    assert told.startswith(f"{terms.secret} {LOST}")
    assert await lives(terms) == []  # once


async def test_one_that_somebody_replaced_is_told(tmp_path: Path) -> None:
    terms = settings(tmp_path)
    await lives(terms)
    write(terms.secret, ONE)
    (told,) = await lives(terms)
    assert LOST in told


async def test_one_that_follows_another_is_no_news(tmp_path: Path) -> None:
    terms = settings(tmp_path)
    await lives(terms)
    former = terms.secret.read_text().strip()
    write(terms.secret, ONE, former)
    assert await lives(terms) == []
    write(terms.secret, ONE)
    assert await lives(terms) == []


async def test_instances_share_one(tmp_path: Path) -> None:
    shared = IdentitySettings(secret=tmp_path / "identity.secret")
    for name in ("one", "two"):
        assert await lives(replace(settings(tmp_path / name), identity=shared)) == []
    assert len(read(tmp_path / "identity.secret")) == 1
    assert not settings(tmp_path / "one").secret.exists()


async def test_a_spool_from_before_there_was_a_secret_gets_one_without_a_word(tmp_path: Path) -> None:
    terms = settings(tmp_path)
    await lives(terms)
    terms.secret.unlink()
    with closing(sqlite3.connect(terms.spool.path / "queue.db")) as connection, connection:
        connection.execute("DELETE FROM meta WHERE name = 'secret'")
    assert await lives(terms) == []
    assert len(read(terms.secret)) == 1
