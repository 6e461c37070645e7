"""The daemon, with checkpoints after so many pages, and a WAL that is too large after so many octets."""

from __future__ import annotations

import sys

from mta.cli.main import main
from mta.spool import statements, wal

pages, octets = sys.argv[1:3]
statements.PRAGMAS += (f"PRAGMA wal_autocheckpoint = {pages}",)  # type: ignore[assignment]
wal.WAL_LIMIT = int(octets)
main(sys.argv[3:], "mta")
