"""Every SQL statement of the queue, each with a name and one sentence.

Between: the modules of this room that hold a connection run them: commit, recovery, reader, queue in the
    daemon; backup, erase, export, salvage, import, verify in commands. Nobody else speaks SQL to the queue.
Contract: constants. A multi-row statement is a head to which its VALUES are put.
Why: each step of a statement gives the GIL up and takes it back, so a batch is few statements with
    many rows, never many statements (reference: Python's sqlite3 releases the GIL in sqlite3_step).
"""

from __future__ import annotations

from mta.core.limits.adaptive import Learned, Saved

PRAGMAS = (
    "PRAGMA page_size = 8192",  # 20.5 -> 13.7 us a message of 2 KiB
    "PRAGMA auto_vacuum = INCREMENTAL",  # after the page size; `spool.slack` converts older files
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # a commit is on disk when it returns: our 250 rests on that
    "PRAGMA secure_delete = OFF",  # Debian compiles it ON: it would write every freed page again
    "PRAGMA wal_autocheckpoint = 4000",  # pages
    "PRAGMA journal_size_limit = 67108864",  # octets: what made the WAL grow further is over by then
    "PRAGMA busy_timeout = 5000",  # milliseconds
    "PRAGMA temp_store = MEMORY",
)

# Take a message into the queue; each has a multi-row VALUES clause put behind it.
_COLUMNS = "id, sender, tenant, stream, credential, expires, size, message_id, options, priority"
INSERT_MESSAGES = f"INSERT INTO message ({_COLUMNS}) VALUES "
# The same for one that carries something beside its content: to say of the others that they do not takes 1 %.
INSERT_CARRYING = f"INSERT INTO message ({_COLUMNS}, tags, score, body_hash, return_path, metadata) VALUES "
INSERT_BODIES = "INSERT INTO body (message, content) VALUES "
INSERT_RECIPIENTS = (
    "INSERT INTO recipient (message, n, address, domain, priority, tenant, state, attempts, due) VALUES "
)

# Remove the recipients of messages that are done with as a whole.
DELETE_WHOLE = "DELETE FROM recipient WHERE message IN (SELECT value FROM json_each(?))"
# Remove single recipients, pairs of (message, n). With VALUES of two rows or more SQLite scans the table.
DELETE_RECIPIENTS = (
    "DELETE FROM recipient WHERE (message, n) IN "
    "(SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"
)
# Write the next attempt of a recipient.
# Its last outcome stays where there is none.
UPDATE_RECIPIENT = (
    "UPDATE recipient SET state = ?1, attempts = ?2, due = ?3, last = coalesce(?6, last) "
    "WHERE message = ?4 AND n = ?5"
)
# Whose outcome cannot be written: all of these messages, and pairs of (message, n).
DEFER = (
    "UPDATE recipient SET state = ?, due = ? WHERE message IN (SELECT value FROM json_each(?)) "
    "OR (message, n) IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)) "
    "RETURNING domain, priority, tenant"
)
# Of these messages, those that have no recipient left.
FINISHED = (
    "SELECT json_group_array(value) FROM json_each(?) "
    "WHERE NOT EXISTS (SELECT 1 FROM recipient WHERE message = value)"
)
DELETE_MESSAGES = "DELETE FROM message WHERE id IN (SELECT value FROM json_each(?))"
# What they are to their tenants; one step a tenant.
LEAVING = (
    "SELECT tenant, count(*), sum(size) FROM message WHERE id IN (SELECT value FROM json_each(?)) "
    "GROUP BY tenant"
)

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
FIRST_MESSAGE = "SELECT min(id) FROM message"
LAST_MESSAGE = "SELECT max(id) FROM message"

# Recovery: what was under way when we stopped is due after the first wait of its stream, never at once.
# The id's upper bits are milliseconds since the epoch (core/queueid).
RECOVER = (
    "UPDATE recipient SET state = ?, "
    "due = max(?, (message >> 13) / 1000.0 + ?) + ? * (abs(random()) % 1000) / 1000.0 WHERE due IS NULL"
)

# How fast branches take mail, as far as we have learned, each field in a column of its own name; after a
# month that is worth nothing. Who was used longest ago goes first.
_LEARNED = ("name", *Learned._fields, *Saved._fields[1:])
LEARN = f"INSERT OR REPLACE INTO branch ({', '.join(_LEARNED)}) VALUES ({', '.join('?' * len(_LEARNED))})"
LEARNED = f"SELECT {', '.join(_LEARNED)} FROM branch ORDER BY at"
UNUSED = "DELETE FROM branch WHERE name = ?"
UNLEARN = "DELETE FROM branch WHERE at < ? OR name NOT IN (SELECT name FROM branch ORDER BY at DESC LIMIT ?)"

# The clock was set ahead: every message from before then lives on by as much. By slices of ids, as below:
# the next of so many messages, between two ids, ends here.
PROLONG = "UPDATE message SET expires = expires + ? WHERE id > ? AND id <= ?"
SLICE = "SELECT max(id) FROM (SELECT id FROM message WHERE id > ? AND id < ? ORDER BY id LIMIT ?)"
# The clock was set back: a retry is spread over the longest wait from now on. What has not been tried keeps
# its wait: if that is long, the sender wanted it (RFC 4865), and it is left alone.
_TOO_FAR = "due > :now + :longest AND (attempts > 0 OR due <= (message >> 13) / 1000.0 + :longest)"
BRING_FORWARD = (
    "UPDATE recipient NOT INDEXED SET due = :now + CASE attempts WHEN 0 THEN due - (message >> 13) / 1000.0 "
    "ELSE :longest * (abs(random()) % 1000) / 1000.0 END "
    f"WHERE message > :after AND message <= :upto AND {_TOO_FAR}"
)
TOO_FAR = (
    "SELECT max(message) FROM (SELECT message FROM recipient NOT INDEXED "
    f"WHERE message > :after AND {_TOO_FAR} ORDER BY message LIMIT :most)"
)

# Recipients in their first attempt, behind one (message, n): a slice of all, and where it ends.
SLICE_END = (
    "SELECT message, n FROM recipient WHERE (message, n) > (?, ?) ORDER BY message, n LIMIT 1 OFFSET ?"
)
FRESH = (
    "SELECT message, n FROM recipient WHERE (message, n) > (?, ?) AND (message, n) <= (?, ?) AND due IS NULL"
)

# What the queue holds when we start.
RECIPIENTS = "SELECT count(*) FROM recipient"
HELD = "SELECT tenant, count(*), sum(size) FROM message GROUP BY tenant"

# The earliest due time of every line.
LINES = (
    "SELECT domain, priority, tenant, min(due) FROM recipient WHERE due IS NOT NULL "
    "GROUP BY domain, priority, tenant"
)
# A message, as `spool.reader` makes one of it.
_MESSAGE = ", ".join(f"m.{each}" for each in f"{_COLUMNS}, tags, score, body_hash, return_path".split(", "))
# Recipients with their messages.
_BOTH = f"SELECT r.n, r.address, r.domain, r.attempts, r.last, r.due, {_MESSAGE} "
_WITH_MESSAGE = _BOTH + "FROM recipient r JOIN message m ON m.id = r.message "
# Those of a line that wait, oldest due first.
DUE = (
    _WITH_MESSAGE + "WHERE r.domain = ? AND r.priority = ? AND r.tenant = ? AND r.due IS NOT NULL "
    "ORDER BY r.due LIMIT ?"
)
# Those of messages that are over their time, from one message on, in that order.
EXPIRED = (
    _BOTH + "FROM message m CROSS JOIN recipient r ON r.message = m.id "
    "WHERE (m.expires, m.id) > (?, ?) AND m.expires <= ? AND r.due IS NOT NULL "
    "ORDER BY m.expires, m.id, r.n"
)
# Some recipients, pairs of (message, n).
THESE = (
    _WITH_MESSAGE + "WHERE (r.message, r.n) IN "
    "(SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"
)
LIST = _WITH_MESSAGE + "ORDER BY r.message, r.n LIMIT ?"
CONTENT = "SELECT content FROM body WHERE message = ?"
# The beginnings of contents; NULL where it is a file.
HEADS = "SELECT message, substr(content, 1, ?) FROM body WHERE message IN (SELECT value FROM json_each(?))"

# Export: a page of the messages that are selected, from one message on. A condition is put into it.
_SELECTED = f"SELECT m.metadata, {_MESSAGE} FROM message m "
EXPORT = _SELECTED + "WHERE m.id > ? AND {} ORDER BY m.id LIMIT ?"
# The same for one message, where a walk meets damage.
EXPORT_ONE = _SELECTED + "WHERE m.id = ? AND {} LIMIT ?"
BY_ID = "m.id IN (SELECT value FROM json_each(?))"
BY_DOMAIN = (
    "EXISTS (SELECT 1 FROM recipient r WHERE r.message = m.id "
    "AND r.domain IN (SELECT value FROM json_each(?)))"
)
BY_TENANT = "m.tenant = ?"
BY_SENDER = "m.sender = ? COLLATE NOCASE"
ANY = "? IS NULL"
RECIPIENTS_OF = (
    "SELECT message, n, address, domain, state, attempts, due, last FROM recipient "
    "WHERE message IN (SELECT value FROM json_each(?)) ORDER BY message, n"
)
# Of these ids, those that are no message's.
UNKNOWN = "SELECT value FROM json_each(?) WHERE NOT EXISTS (SELECT 1 FROM message WHERE id = value)"
# Every way to a queue id, from both ends.
WALKS = (
    "SELECT id FROM message NOT INDEXED ORDER BY id",
    "SELECT id FROM message NOT INDEXED ORDER BY id DESC",
    "SELECT id FROM message INDEXED BY message_expires ORDER BY expires",
    "SELECT id FROM message INDEXED BY message_expires ORDER BY expires DESC",
    "SELECT DISTINCT message FROM recipient NOT INDEXED ORDER BY message",
    "SELECT DISTINCT message FROM recipient NOT INDEXED ORDER BY message DESC",
)

# Import: what has an id already. A content whose message has left is there until the drain.
OWNER = (
    "SELECT m.sender, m.size, b.content FROM body b LEFT JOIN message m ON m.id = b.message "
    "WHERE b.message = ?"
)

# Erasure: a person's recipients, and what the person has sent. `names` is a function of ours.
OF_PERSON = (
    f"SELECT r.n, {_MESSAGE} FROM recipient r JOIN message m ON m.id = r.message "
    "WHERE r.domain = ? AND r.due IS NOT NULL AND names(r.address) LIMIT ?"
)
# Words about others in which the person is named. `mentions` is a function of ours.
OF_OTHERS = (
    "SELECT state, attempts, due, message, n, last FROM recipient WHERE mentions(last) "
    "ORDER BY message, n LIMIT ?"
)
FROM_PERSON = "SELECT count(*), max(expires) FROM message WHERE names(sender)"
LEFT = "SELECT count(*) FROM message WHERE id IN (SELECT value FROM json_each(?))"
UNDRAINED = "SELECT count(*) FROM outbox"
# What is deleted stays in free pages, and in the WAL, until this is done.
FORGET = ("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)")

# What the queue holds: messages, recipients, contents that are files.
TOTALS = (
    "SELECT (SELECT count(*) FROM message), (SELECT count(*) FROM recipient), "
    "(SELECT count(*) FROM body WHERE content IS NULL)"
)
# Contents that are files, behind one message, and their sizes; NULL where only the drain is awaited.
LARGE = (
    "SELECT b.message, m.size FROM body b LEFT JOIN message m ON m.id = b.message "
    "WHERE b.content IS NULL AND b.message > ? ORDER BY b.message LIMIT ?"
)
# The last row of the outbox.
LAST_OUTBOX = "SELECT seq, lines FROM outbox ORDER BY seq DESC LIMIT 1"

HOT = {  # statements whose query plan a test holds
    "DELETE_WHOLE": DELETE_WHOLE,
    "DELETE_RECIPIENTS": DELETE_RECIPIENTS,
    "UPDATE_RECIPIENT": UPDATE_RECIPIENT,
    "FINISHED": FINISHED,
    "LEAVING": LEAVING,
    "DELETE_MESSAGES": DELETE_MESSAGES,
    "DELETE_BODIES": DELETE_BODIES,
    "FILES": FILES,
    "PROLONG": PROLONG,
    "SLICE": SLICE,
    "BRING_FORWARD": BRING_FORWARD,
    "TOO_FAR": TOO_FAR,
    "SLICE_END": SLICE_END,
    "FRESH": FRESH,
    "THESE": THESE,
    "DUE": DUE,
    "EXPIRED": EXPIRED,
    "HEADS": HEADS,
}
