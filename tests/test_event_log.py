"""The event log holds whole lines, whatever happened to the one who wrote it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mta.events.log import BLOCK, EventLog


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        (b"", b""),
        (b'{"seq":1}\n', b'{"seq":1}\n'),
        (b'{"seq":1}\n{"se', b'{"seq":1}\n'),
        (b'{"se', b""),
        (b"\n" + b"x" * BLOCK, b"\n"),
        (b"\n" + b"x" * (BLOCK - 1), b"\n"),
        (b'{"seq":1}\n' + b"x" * 3 * BLOCK, b'{"seq":1}\n'),
        (b"x" * 2 * BLOCK, b""),
    ],
)
async def test_half_a_line_from_a_crash_is_cut_off_and_the_next_is_whole(
    tmp_path: Path, before: bytes, kept: bytes
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(before)
    log = EventLog(path)
    log.open()
    await log.publish(b'{"seq":2}\n')
    log.close()
    assert path.read_bytes() == kept + b'{"seq":2}\n'
