"""Every bound of the process, in one place: what can be used up, how much of it there is, what happens there.

Between: the modules that hold a thing take their numbers from here; docs/strangers.md is compared with
    `BOUNDS`, and each gauge with the metrics.
Contract: constants. `most` is what stands in the table: a number, or the setting that has it.
Raises: nothing.
Why: bounds that each module chose for itself had no sum: it was the kernel that said where the end was.
"""

from __future__ import annotations

from typing import NamedTuple

KIB, MIB = 1024, 1024 * 1024

DESCRIPTORS = 65_536  # more would only cost the kernel
LANES = 20_000  # one source's mail to one site
LEARNED = 10_000  # branches, here and on disk
ROUTES = 50_000  # domains
SIGNERS = 10_000  # From domains
RECORDS = 10_000  # names in DNS, for each of the two kinds of records that checks look at
VOLUMES = 10_000  # pairs of a From domain and a provider, here and on disk; some 440 octets each
CONNECTION_MEMORY = 100 * KIB  # of one to a peer, with TLS and the lane that it may be the only one of
CONNECTION_SHARE = 8  # an N-th of memory may be connections to peers


class Bound(NamedTuple):
    """A row of the table."""

    what: str
    most: str
    beyond: str
    gauge: str


BOUNDS = (
    Bound(
        "files and sockets",
        f"what the system grants, {DESCRIPTORS:,} at most",
        "the bounds of connections below are made of it",
        "process_open_fds",
    ),
    Bound(
        "connections of clients",
        "`limits.connections`, and half of the files",
        "421; a stranger gives way first",
        "mta_connections_in",
    ),
    Bound(
        "connections to peers",
        "`limits.connections_out`; by default the files that clients leave, and an "
        f"{CONNECTION_SHARE}th of memory at {CONNECTION_MEMORY // KIB} KiB each",
        "the lane waits its turn, and what has been idle for longest closes for it",
        "mta_connections_out",
    ),
    Bound(
        "lanes",
        f"{LANES:,}",
        "the one that has been quiet for longest leaves; else mail for other sites waits on disk",
        "mta_lanes",
    ),
    Bound(
        "learned limits",
        f"{LEARNED:,} branches, in memory and on disk",
        "those that were used longest ago are forgotten",
        "mta_branches_learned",
    ),
    Bound(
        "known routes",
        f"{ROUTES:,} domains",
        "those that were looked up longest ago are asked for again",
        "mta_routes_known",
    ),
    Bound(
        "known From domains",
        f"{SIGNERS:,}, and as many private keys",
        "who signs is looked up again",
        "mta_signers_known",
    ),
    Bound(
        "records that checks look at",
        f"{2 * RECORDS:,} names",
        "those that were asked for longest ago are looked up again",
        "mta_check_records",
    ),
    Bound(
        "counts of what domains send to providers",
        f"{VOLUMES:,} pairs, in memory and on disk",
        "the tenth that has sent least is forgotten",
        "mta_check_volumes",
    ),
    Bound(
        "contents on their way in",
        "`limits.memory` octets",
        "452 for whom the share is used up",
        "mta_memory_receiving_bytes",
    ),
    Bound(
        "contents read back to be sent",
        "`limits.memory` octets",
        "the batch waits in its lane",
        "mta_memory_sending_bytes",
    ),
    Bound(
        "contents of fresh mail",
        "`spool.memory` octets",
        "they are read from disk when their turn comes",
        "mta_memory_bodies_bytes",
    ),
    Bound(
        "threads",
        "two for each database, 2 for passwords, 1 for signatures, "
        "and for the rest 4 more than processors, 32 at most",
        "the work waits for one",
        "mta_threads",
    ),
)
