"""The crash table: what is on disk wherever we can be stopped, and what becomes of it.

Between: whoever changes the order of writes in the spool, the settler or the event log reads it first.
Contract: every row is proven by a daemon that is killed there (tests/spool/test_crash.py, `make crash`).

       stopped                           | on disk                | at the next start     | they see
    -------------------------------------+------------------------+-----------------------+-------------------
     1 in the first `open` of a new      | some of it, no mail    | made from there on    | no door open
       spool                             |                        |                       |
     2 in the migration of a schema      | the schema before it   | the whole script      | no door open
     3 before the recovery is committed  | what was left          | recovered             | nothing
     4 after it, before the first dial   | due times              | due as written        | one wait only
    -------------------------------------+------------------------+-----------------------+-------------------
     5 before a message is committed     | nothing                | nothing               | again
     6 its file is written, half or      | a file without a row   | the file goes         | again
       whole                             |                        |                       |
     7 in its transaction, in its COMMIT | frames without a mark  | SQLite skips them     | again
     8 in a checkpoint                   | WAL, half a database   | SQLite copies it anew | nothing
     9 after its COMMIT, before the 250  | fresh                  | due after a wait      | again: they get
                                         |                        |                       | two
    -------------------------------------+------------------------+-----------------------+-------------------
    10 after the 250, before dialling    | fresh                  | due after a wait      | it is late
    11 in the attempt, or the peer has   | fresh                  | due after a wait      | late, or twice
       it                                |                        |                       |
    12 before the lease of a retry       | due, as it was         | due at once           | nothing
    13 after the lease, before dialling  | attempts + 1, next due | due as written        | it is late
    14 after the peer's 250, before      | as in 10 or 13         | as in 10 or 13        | twice: the window
       settle                            |                        |                       |
    15 settle noted, and not committed   | as in 10 or 13         | as in 10 or 13        | twice: the window;
                                         |                        |                       | of a bounce one
                                         |                        |                       | notice
    16 bounce and notice committed       | the notice is fresh    | due after a wait      | the notice is late
    -------------------------------------+------------------------+-----------------------+-------------------
    17 before the append to the event    | an outbox row, content | appended              | nothing
       log                               |                        |                       |
    18 in the middle of it               | the same, half a line  | cut off, appended     | lines twice
    19 after its sync, before the        | the same, all lines    | appended              | lines twice
       drain's COMMIT                    |                        |                       |
    20 while the log of a day is put     | it has its dated name  | a new log             | nothing
       away                              |                        |                       |
    21 after the drain's COMMIT, before  | files without rows     | the files go          | nothing
       files are removed                 |                        |                       |
    -------------------------------------+------------------------+-----------------------+-------------------
    22 in the drain of a stop            | a row above; in lanes: | that row              | that row
                                         | due at once            |                       |
    23 store.db is begun, or gets        | an empty file, or the  | the whole script      | no door open
       another schema                    | schema before it       |                       |
    24 the secret is made                | a draft, no secret     | another draft         | no door open

    fresh        attempts=1, due NULL: the recovery makes it due after its first wait, counted from the
                 reception, and commits that before anything is dialled.
    again        the client has no 250 and sends again; the recipient gets it once.
    again: ...   the client cannot know (RFC 1047): two messages, with two queue ids. A COMMIT that was
                 written and not yet reported (7) ends as 7 or as 9.
    late         by one wait of its stream; an attempt that was leased counts.
    the window   at most 256 outcomes or 50 ms are settled and not committed. What the peer has taken, and
                 not said so (11), comes on top: that is between any two servers (RFC 1047).
    lines twice  in the event log, equal to the octet, with the same `seq`.
    store.db     has a WAL of its own, and nothing of the queue's. A save that is cut off is lost: what was
                 learned of hosts in the last minute is learned again, and what was delivered in it is not in
                 the counts of what domains send.
    a set clock  changes times slice by slice. Stopped in between, lifetimes are as written, some longer than
                 others by the jump, and due times are looked after at the next start (4).

Standards: RFC 5321 6.1 (a 250 after the dot is a promise), RFC 1047 (mail that arrives twice).
Why: a power cut differs from a kill in what was not synced yet. A file and its name are synced before the
    COMMIT of the row that needs it; events before the COMMIT that forgets them; nothing else has an order.
"""
