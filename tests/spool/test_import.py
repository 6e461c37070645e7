"""Mail comes into a spool: once, whatever cut the import off, and only what is sound."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mta.core.queueid import text
from tests.fakes.home import PATIENCE, ROOT
from tests.fakes.still import CONTENT, LARGE, Still, message


@pytest.fixture
def house(tmp_path: Path) -> Still:
    return Still(tmp_path / "one")


@pytest.fixture
def other(tmp_path: Path) -> Still:
    return Still(tmp_path / "two")


def test_an_import_that_was_cut_off_is_repeated_and_passes_over_what_is_here(
    house: Still, other: Still, tmp_path: Path
) -> None:
    """Killed after its second commit: what that held is here once, the rest comes with the next try."""
    house.fill(*(message(k, "b@dst.test", content=LARGE if k == 1 else CONTENT) for k in range(7)))
    house.answer("export", tmp_path / "out", "--all")
    program = (
        "import os, signal\n"
        "from mta.spool import import_\n"
        "from mta.cli.main import main\n"
        "import_.BATCH, real, left = 2, import_._Importer.commit, [2]\n"
        "async def commit(importer):\n"
        "    await real(importer)\n"
        "    left[0] -= bool(importer._taken.imported)\n"
        "    left[0] or os.kill(os.getpid(), signal.SIGKILL)\n"
        "import_._Importer.commit = commit\n"
        f"main(['--config', {str(other.file)!r}, 'spool', 'import', {str(tmp_path / 'out')!r}])\n"
    )
    killed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=PATIENCE, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(other.rows()) == 4
    done = other.answer("import", tmp_path / "out")
    assert (done["imported"], done["here_already"]) == (3, 4)
    assert other.answer("import", tmp_path / "out")["here_already"] == 7
    assert [row[0] for row in other.rows()] == [message(k).id for k in range(7)]
    receptions = {each["seq"]: each["queue_id"] for each in other.events}
    assert sorted(receptions.values()) == sorted(text(message(k).id) for k in range(7))


def test_a_queue_id_that_another_message_has_is_not_taken_and_the_new_one_is_told(
    house: Still, other: Still, tmp_path: Path
) -> None:
    house.fill(message(0, "b@dst.test"), message(1, "b@dst.test"))
    other.fill(message(0, "z@dst.test", sender="z@src.test"))
    house.answer("export", tmp_path / "out", "--all")
    old, new = text(message(0).id), text(message(0x100).id)
    assert other.answer("import", tmp_path / "out") == {
        "imported": 2, "recipients": 2, "here_already": 0, "renamed": {old: new},
    }  # fmt: skip
    found = [(text(row[0]), row[1]) for row in other.messages]
    mine = (text(message(1).id), "a@src.test")
    assert found == [(old, "z@src.test"), mine, (new, "a@src.test")]
    assert other.events[0]["reason"] == f"imported; its queue id was {old}"
    assert other.events[0]["queue_id"] == new
    again = other.answer("import", tmp_path / "out")  # it finds the same id again
    assert (again["imported"], again["here_already"]) == (0, 2)


def test_the_id_of_a_message_that_waits_for_the_drain_is_not_free(
    house: Still, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its content goes with the drain, and would take that of a new message with the same id along."""
    house.fill(message(0, "b@dst.test"))

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("mta.events.log.os.fdatasync", full)
        house.answer("export", tmp_path / "out", "--all", "--remove")
        assert house.rows("SELECT count(*) FROM body") == [(1,)]
        done = house.answer("import", tmp_path / "out")
        assert list(done["renamed"].values()) == [text(message(0x100).id)]
    house.answer("export", tmp_path / "o2", "--all")  # the next writer drains
    assert len(house.messages) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "a newer version wrote it; import it with that one"),
        ({"size": "x"}, "Expected `int`, got `str` - at `$.size`"),
        ({"size": 5}, "octets, its record says 5"),
        ({"sha256": "00"}, "its SHA-256 is not the one in its record: it was changed"),
        ({"stream": "news"}, "the settings have no stream 'news'"),
        ({"mode": "live"}, "it comes from a live spool, and this one is sandbox"),
        ({"queue_id": "0"}, "it says that it is '0'"),
        ({"created": "2020-01-01T00:00:00Z"}, "created is not the time in the queue id"),
        ({"expires": "2020-01-01T00:00:00"}, "Expected `datetime` with a timezone"),
        ({"options": ["fast"]}, "unknown option 'fast'"),
        ({"colour": 1}, "Object contains unknown field `colour`"),
        ({"tags": ["a", ""]}, "what it carries: a tag is empty"),
        ({"metadata": {"a": "x" * 4096}}, "what it carries: it has 4104 octets, and may have 4096"),
        ({"metadata": []}, "Expected `object | null`, got `array` - at `$.metadata`"),
        ({"score": 101}, "Expected `int` <= 100 - at `$.score`"),
        ({"body_hash": "00"}, "matching regex"),
        ({"sender": "a@src.test> SIZE=1"}, "sender 'a@src.test> SIZE=1' is not an address"),
        ({"recipients": []}, "length >= 1 - at `$.recipients`"),
        ({"address": "b@dst.test>\r\nDATA"}, "is not an address at 'dst.test'"),
        ({"domain": "x.test"}, "recipient 'b@dst.test' is not an address at 'x.test'"),
        ({"state": "delivered"}, "Invalid enum value 'delivered'"),
        ({"state": "fresh"}, "only a fresh one has no due time"),
        ({"n": 1 << 63}, "Expected `int` <= 2147483647"),
        ({"attempts": -1}, "Expected `int` >= 0 - at `$.recipients[0].attempts`"),
    ],
)
def test_a_record_that_does_not_hold_water_is_refused(
    house: Still, other: Still, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    (made,) = house.fill(message(0, "b@dst.test"))
    house.answer("export", tmp_path / "out", "--all")
    path = tmp_path / "out" / f"{text(made.id)}.json"
    record = json.loads(path.read_bytes())
    (name,) = change
    (record["recipients"][0] if name in record["recipients"][0] else record).update(change)
    path.write_text(json.dumps(record))
    done = other.mta("import", tmp_path / "out")
    assert done.exit_code == 1
    assert done.output.startswith(str(path.with_suffix("")))
    assert said in done.output
    assert not other.spool.exists()


def test_every_complaint_is_told_at_once_and_nothing_is_imported(
    house: Still, other: Still, tmp_path: Path
) -> None:
    made = house.fill(*(message(k, "b@dst.test") for k in range(4)))
    house.answer("export", tmp_path / "out", "--all")
    names = [text(each.id) for each in made]
    (tmp_path / "out" / f"{names[0]}.json").unlink()
    (tmp_path / "out" / f"{names[1]}.json").write_bytes(b"\xff{")
    (tmp_path / "out" / f"{names[2]}.eml").unlink()
    (tmp_path / "out" / "notes.txt").touch()
    done = other.mta("import", tmp_path / "out", "--json")
    complaints = json.loads(done.stdout)["complaints"]
    assert [Path(each.partition(": ")[0]).name for each in complaints] == [
        f"{names[0]}.eml", "notes.txt", f"{names[1]}.json", f"{names[2]}.eml",
    ]  # fmt: skip
    assert (done.exit_code, done.stderr) == (1, "Error: nothing was imported\n")
    assert not other.spool.exists()


@pytest.mark.parametrize("there", [True, False])
def test_a_directory_without_messages_is_no_import(house: Still, tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "out").mkdir()
    done = house.mta("import", tmp_path / "out")
    assert done.exit_code == 1
    said = "there is no message in it" if there else "No such file or directory"
    assert done.output == f"{tmp_path / 'out'}: {said}\nError: nothing was imported\n"


def test_a_record_of_a_newer_version_is_told_as_such(house: Still, other: Still, tmp_path: Path) -> None:
    house.fill(message(0, "b@dst.test"))
    house.answer("export", tmp_path / "out", "--all")
    (record,) = (tmp_path / "out").glob("*.json")
    record.write_text(record.read_text().replace('"format": 1', '"format": 2, "colour": "red"'))
    done = other.mta("import", tmp_path / "out")
    assert done.output == (
        f"{record}: a newer version wrote it; import it with that one\nError: nothing was imported\n"
    )


def test_test_mail_cannot_escape_through_a_directory(house: Still, tmp_path: Path) -> None:
    house.fill(message(0, "b@dst.test"))
    house.answer("export", tmp_path / "out", "--all")
    live = Still(tmp_path / "live", mode="live")
    done = live.mta("import", tmp_path / "out")
    assert "it comes from a sandbox spool, and this one is live" in done.output
    assert done.exit_code == 1


def test_a_disk_that_is_full_is_told_and_what_came_in_stays(
    house: Still, other: Still, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.fill(message(0, "b@dst.test", content=LARGE))
    house.answer("export", tmp_path / "out", "--all")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("mta.spool.bodies.os.fdatasync", full)
        done = other.mta("import", tmp_path / "out")
    assert done.exit_code == 1
    assert "No space left on device" in done.output
    assert other.answer("import", tmp_path / "out")["imported"] == 1
