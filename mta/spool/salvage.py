"""The messages of a damaged database, as far as they can be read.

Between: `spool.export` turns to it when a page of messages meets the damage.
Contract: `queue_ids` finds each message that any of the database's trees still names, in the order of time,
    so that it can be read by itself. A message that no tree names is not found. Nothing is written.
Raises: sqlite3.Error and OSError where it is not damage: then nothing was said of the messages.
Why: a walk ends at the first page that is damaged, and what lies behind it may be sound. So every tree that
    knows queue ids is walked from both of its ends.
"""

from __future__ import annotations

import sqlite3

from mta.disk import is_damage
from mta.spool import statements as sql


def queue_ids(connection: sqlite3.Connection) -> list[int]:
    """All that are named somewhere; eight octets and some of memory for each."""
    found: set[int] = set()
    for walk in sql.WALKS:
        try:
            for (message,) in connection.execute(walk):
                if isinstance(message, int):  # damage can be well formed
                    found.add(message)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
    return sorted(found)
