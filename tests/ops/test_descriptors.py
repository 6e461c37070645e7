"""What this machine has is divided: nobody's connections use up what others need."""

from __future__ import annotations

from pathlib import Path

import pytest

from mta.core.limits.budget import CONNECTION_MEMORY, CONNECTION_SHARE
from mta.ops import descriptors, memory


@pytest.mark.parametrize("files", [64, 256, 1024, 4096, 65_536])
def test_connections_of_both_kinds_and_our_own_files_fit_in_what_there_is(files: int) -> None:
    clients = descriptors.places(files)
    peers = descriptors.outgoing(files, clients)
    assert min(clients, peers) >= 1
    assert clients + peers + descriptors.OWN + descriptors.LOOKUPS <= max(files, 700)


@pytest.mark.parametrize(
    ("own", "limits", "octets"),
    [
        ("0::/a.slice/mta.service", {"a.slice": "max", "a.slice/mta.service": "1000000000"}, 1_000_000_000),
        ("0::/a.slice/mta.service", {"a.slice": "500000000", "a.slice/mta.service": "max"}, 500_000_000),
        ("0::/../../elsewhere", {"": "400000000"}, None),
        ("12:cpu:/old\n", {}, None),
        ("0::/a", {"a": "much"}, None),
    ],
)
def test_a_control_group_s_memory_counts_where_it_is_less_than_the_machine_s(
    tmp_path: Path, own: str, limits: dict[str, str], octets: int | None
) -> None:
    groups = tmp_path / "cgroup"
    for group, said in limits.items():
        (groups / group).mkdir(parents=True, exist_ok=True)
        (groups / group / "memory.max").write_text(said + "\n")
    (tmp_path / "own").write_text(own)
    found = memory.outgoing(groups, tmp_path / "own")
    if octets is not None:
        assert found == octets // CONNECTION_SHARE // CONNECTION_MEMORY
    else:
        assert found >= 1
    assert memory.outgoing(groups, tmp_path / "nothing") >= found
