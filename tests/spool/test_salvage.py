"""A database is damaged: what can be read of it is exported, and the rest is named."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mta.core.model import Message
from mta.core.queueid import text
from mta.spool import database
from tests.fakes.still import LARGE, Still, message

PAGE = 8192  # octets
COUNT = 400
NOT_ALL = (
    "messages are not in the directory, all others are; the event log tells who sent them, and to whom\n"
)


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Message]]:
    """A spool with some pages in every tree."""
    directory = tmp_path_factory.mktemp("seed")
    house = Still(directory)
    content = b"Subject: x\r\n\r\n" + b"y" * 1000 + b"\r\n"
    made = house.fill(*(message(k, f"{k}@{k % 7}.test", content=content) for k in range(COUNT)))
    return house.spool, made


@pytest.fixture
def house(seed: tuple[Path, list[Message]], tmp_path: Path) -> Still:
    made = Still(tmp_path / "house")
    made.spool.mkdir()
    (made.spool / database.FILE).write_bytes((seed[0] / database.FILE).read_bytes())
    return made


def leaves(house: Still, name: str) -> list[int]:
    """The pages of a tree, but for its root, from the left to the right."""
    with closing(sqlite3.connect(house.spool / database.FILE)) as connection:
        try:
            rows = connection.execute(
                "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY path", (name,)
            ).fetchall()
        except sqlite3.OperationalError:
            pytest.skip("this SQLite has no dbstat: no page can be found")
    return [page for (page,) in rows]


def spoil(house: Still, *pages: int) -> None:
    with (house.spool / database.FILE).open("r+b") as file:
        for page in pages:
            os.pwrite(file.fileno(), b"\xa5" * PAGE, (page - 1) * PAGE)


def saved(directory: Path) -> set[str]:
    return {path.stem for path in directory.glob("*.eml")} & {path.stem for path in directory.glob("*.json")}


@pytest.mark.parametrize("name", ["body", "message", "recipient"])
def test_one_damaged_page_costs_the_messages_on_it_and_no_others(
    house: Still, seed: tuple[Path, list[Message]], tmp_path: Path, name: str
) -> None:
    pages = leaves(house, name)
    spoil(house, pages[len(pages) // 2])
    done = house.mta("export", tmp_path / "out", "--all", "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    lost = [each["queue_id"] for each in found["lost"]]
    assert 0 < len(lost) < COUNT / 2
    assert saved(tmp_path / "out") | set(lost) == {text(each.id) for each in seed[1]}
    assert found["messages"] == len(saved(tmp_path / "out")) == COUNT - len(lost)
    assert done.stderr.endswith(f"\nError: {len(lost)} {NOT_ALL}")
    other = Still(tmp_path / "other")
    assert other.answer("import", tmp_path / "out")["imported"] == COUNT - len(lost)


def test_two_damaged_pages_do_not_hide_what_lies_between_them(house: Still, tmp_path: Path) -> None:
    pages = leaves(house, "message")
    spoil(house, pages[1], pages[-2])
    done = house.mta("export", tmp_path / "out", "--all", "--json")
    lost = json.loads(done.stdout)["lost"]
    assert len(saved(tmp_path / "out")) + len(lost) == COUNT
    assert {each["why"] for each in lost} == {"its rows are damaged"}
    assert len(saved(tmp_path / "out")) > COUNT / 4  # there are four pages or five


@pytest.mark.parametrize("name", ["meta", "message_expires", "recipient_due", "outbox"])
def test_what_an_export_does_not_need_may_be_damaged(house: Still, tmp_path: Path, name: str) -> None:
    with closing(sqlite3.connect(house.spool / database.FILE)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    spoil(house, root)
    assert house.answer("export", tmp_path / "out", "--all")["messages"] == COUNT
    assert json.loads(next((tmp_path / "out").glob("*.json")).read_bytes())["mode"] == "sandbox"


def test_of_a_damaged_database_one_domain_is_selected(house: Still, tmp_path: Path) -> None:
    pages = leaves(house, "message")
    spoil(house, pages[0])
    done = house.mta("export", tmp_path / "out", "--domain", "3.test", "--json")
    for path in (tmp_path / "out").glob("*.json"):
        assert json.loads(path.read_bytes())["recipients"][0]["domain"] == "3.test"
    on_that_page = len(json.loads(done.stdout)["lost"])  # nobody knows whose those are
    assert len(saved(tmp_path / "out")) >= (COUNT - on_that_page) // 7


def test_text_that_is_damaged_is_not_passed_on(house: Still, tmp_path: Path) -> None:
    with closing(sqlite3.connect(house.spool / database.FILE)) as connection, connection:
        connection.execute("UPDATE recipient SET address = CAST(x'ff40' AS TEXT) WHERE address = '7@0.test'")
    done = house.mta("export", tmp_path / "out", "--all")
    assert done.exit_code == 1
    assert f"Error: 1 {NOT_ALL}" in done.output
    assert len(saved(tmp_path / "out")) == COUNT - 1


def test_a_content_that_is_missing_or_cut_holds_no_other_message_up(tmp_path: Path) -> None:
    house = Still(tmp_path)
    made = house.fill(*(message(k, "b@dst.test", content=LARGE) for k in range(3)))
    names = [text(each.id) for each in made]
    (house.spool / "bodies" / names[0]).unlink()
    os.truncate(house.spool / "bodies" / names[1], 5)
    done = house.mta("export", tmp_path / "out", "--all", "--remove")
    assert done.exit_code == 1
    assert done.output == (
        f"{tmp_path}/out: 1 messages to 1 recipients, no longer in the queue\n"
        f"{names[0]}: its content is missing\n"
        f"{names[1]}: of its content 5 octets are left\n"
        f"Error: 2 {NOT_ALL}"
    )
    assert saved(tmp_path / "out") == {names[2]}
    assert [row[0] for row in house.messages] == [made[0].id, made[1].id]


@pytest.mark.parametrize(("version", "remedy"), [(1, "use the older version"), (99, "use the newer version")])
def test_rows_of_another_schema_are_not_exported(
    house: Still, tmp_path: Path, version: int, remedy: str
) -> None:
    with closing(sqlite3.connect(house.spool / database.FILE)) as connection, connection:
        connection.execute(f"PRAGMA user_version = {version}")
    done = house.mta("export", tmp_path / "out", "--all")
    assert (done.exit_code, (tmp_path / "out").exists()) == (1, False)
    assert remedy in done.output
