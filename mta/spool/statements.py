"""Every SQL statement of the queue, each with a name and one sentence.

Between: `spool.commit` and `spool.queue` run them, nobody else speaks SQL to the queue.
Contract: constants. `rows(n)` gives n parenthesised groups of placeholders for a multi-row statement.
Why: each step of a statement gives the GIL up and takes it back, so a batch is few statements with
    many rows, never many statements (reference: Python's sqlite3 releases the GIL in sqlite3_step).
"""

from __future__ import annotations

PRAGMAS = (
    "PRAGMA page_size = 8192",  # 20.5 -> 13.7 us a message of 2 KiB
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # a commit is on disk when it returns: our 250 rests on that
    "PRAGMA secure_delete = OFF",  # Debian compiles it ON: it would write every freed page again
    "PRAGMA wal_autocheckpoint = 4000",  # pages
    "PRAGMA busy_timeout = 5000",  # milliseconds
    "PRAGMA temp_store = MEMORY",
)

# Take a message into the queue; each has a multi-row VALUES clause put behind it.
INSERT_MESSAGES = (
    "INSERT INTO message (id, sender, tenant, stream, credential, expires, size, message_id, options) VALUES "
)
INSERT_BODIES = "INSERT INTO body (message, content) VALUES "
INSERT_RECIPIENTS = (
    "INSERT INTO recipient (message, n, address, domain, tenant, state, attempts, due) VALUES "
)

# Remove the recipients of messages that are done with as a whole.
DELETE_WHOLE = "DELETE FROM recipient WHERE message IN (SELECT value FROM json_each(?))"
# Remove single recipients.
DELETE_RECIPIENTS = "DELETE FROM recipient WHERE (message, n) IN (VALUES "
# Write the next attempt of a recipient.
UPDATE_RECIPIENT = "UPDATE recipient SET state = ?, attempts = ?, due = ? WHERE message = ? AND n = ?"
# Of these messages, those that have no recipient left.
FINISHED = (
    "SELECT json_group_array(value) FROM json_each(?) "
    "WHERE NOT EXISTS (SELECT 1 FROM recipient WHERE message = value)"
)
DELETE_MESSAGES = "DELETE FROM message WHERE id IN (SELECT value FROM json_each(?))"

INSERT_OUTBOX = "INSERT INTO outbox (seq, lines, finished) VALUES (?, ?, ?)"
# The drain: bodies of finished messages go with the lines that report them.
DELETE_BODIES = "DELETE FROM body WHERE message IN (SELECT value FROM json_each(?))"
# Of these messages, those whose content is a file.
FILES = (
    "SELECT json_group_array(message) FROM body WHERE content IS NULL "
    "AND message IN (SELECT value FROM json_each(?))"
)
ALL_FILES = "SELECT message FROM body WHERE content IS NULL"
DELETE_OUTBOX = "DELETE FROM outbox WHERE seq <= ?"
OUTBOX = "SELECT seq, lines, finished FROM outbox ORDER BY seq"

GET_META = "SELECT value FROM meta WHERE name = ?"
SET_META = (
    "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
LAST_MESSAGE = "SELECT max(id) FROM message"

# Recovery: what was under way when we stopped is due after the first wait of its stream, never at once.
# The id's upper bits are milliseconds since the epoch (core/queueid).
RECOVER = (
    "UPDATE recipient SET state = ?, "
    "due = max(?, (message >> 13) / 1000.0 + ?) + ? * (abs(random()) % 1000) / 1000.0 WHERE due IS NULL"
)

# The earliest due time of every domain, and of one.
DUE_DOMAINS = "SELECT domain, min(due) FROM recipient WHERE due IS NOT NULL GROUP BY domain"
NEXT_DUE = "SELECT min(due) FROM recipient WHERE domain = ? AND due IS NOT NULL"
# The due recipients of a domain with their messages, oldest due first.
_WITH_MESSAGE = (
    "SELECT r.message, r.n, r.address, r.domain, r.attempts, m.sender, m.tenant, m.stream, m.credential, "
    "m.expires, m.size, m.message_id, m.options, r.due FROM recipient r JOIN message m ON m.id = r.message "
)
DUE = _WITH_MESSAGE + "WHERE r.domain = ? AND r.due IS NOT NULL AND r.due <= ? ORDER BY r.due LIMIT ?"
EXPIRED = (
    _WITH_MESSAGE + "WHERE m.id IN (SELECT id FROM message WHERE expires <= ? ORDER BY expires LIMIT ?) "
    "AND r.due IS NOT NULL"
)
LIST = _WITH_MESSAGE + "ORDER BY r.message, r.n LIMIT ?"
COUNT = "SELECT state, count(*) FROM recipient GROUP BY state"
CONTENT = "SELECT content FROM body WHERE message = ?"
HEAD = "SELECT substr(content, 1, ?) FROM body WHERE message = ?"

HOT = {  # statements whose query plan a test holds
    "DELETE_WHOLE": DELETE_WHOLE,
    "DELETE_RECIPIENTS": DELETE_RECIPIENTS + "(?, ?))",
    "UPDATE_RECIPIENT": UPDATE_RECIPIENT,
    "FINISHED": FINISHED,
    "DELETE_MESSAGES": DELETE_MESSAGES,
    "DELETE_BODIES": DELETE_BODIES,
    "FILES": FILES,
    "DUE": DUE,
    "NEXT_DUE": NEXT_DUE,
    "EXPIRED": EXPIRED,
}
