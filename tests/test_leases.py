"""Nobody takes a recipient twice, whatever the disk still says."""

from __future__ import annotations

from mta.core.model import Message, Recipient
from mta.outbound.leases import Leases


async def test_what_is_settled_while_the_spool_is_flushed_is_not_free() -> None:
    """Its outcome may be in the commit after the one that the flush waits for: the row is still there."""
    leases = Leases()
    recipient = Recipient(0, "ok@dst.test", "dst.test")
    message = Message(1, "a@src.test", "t", "s", "c", 9e9, 1, "<m>", 0, [recipient])
    leases.take(message, recipient, "site")

    async def flush() -> None:
        leases.give_back(message, recipient)

    async with leases.looking(flush):
        assert leases.free(message) == []

    async def nothing() -> None: ...

    async with leases.looking(nothing):
        assert leases.free(message) == [recipient]
