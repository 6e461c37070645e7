"""A peer that offers PIPELINING and does not mean it (RFC 2920 3.2)."""

from __future__ import annotations

from pathlib import Path

from tests.fakes.peer import ASKED, HELLO, TAKES
from tests.fakes.relay import relaying

B, C = "b@dst.test", "c@dst.test"
TAKEN = "250 2.0.0 taken (.)"
STEPS = """
    <- MAIL FROM:<*
    -> 250 ok
    <- RCPT TO:<*
    -> 250 ok
    <- DATA
    -> 354 go on
    <- message
    -> 250 2.0.0 taken
"""


async def test_it_answers_the_first_of_several_commands_and_gets_them_one_by_one_the_next_time(
    tmp_path: Path,
) -> None:
    flushes = HELLO + ASKED + "-> 250 ok\nsilence\n"
    async with relaying(tmp_path, flushes, HELLO + STEPS + STEPS) as relay:
        await relay.house.send(B)
        await relay.peer.at(1, "silence")
        await relay.clock.advance(302)
        silent = "451 4.4.2 RCPT was not answered in 300 seconds; it is tried again (RCPT)"
        _, again, delivered = await relay.told(3)
        assert again.endswith(silent)
        assert delivered == f"delivery 1 {B}: {TAKEN}"
        (told,) = [event for event in relay.house.events if event["type"] == "state"]
        assert "loses commands that are sent together" in told["reason"]
        await relay.house.send(C)
        await relay.told(5)


async def test_it_hangs_up_over_several_commands_and_gets_them_one_by_one_the_next_time(
    tmp_path: Path,
) -> None:
    async with relaying(tmp_path, HELLO + ASKED + "-> 250 ok\nclose\n", HELLO + STEPS) as relay:
        await relay.house.send(B)
        assert await relay.told(2) == [f"reception {B}", f"delivery 1 {B}: {TAKEN}"]


async def test_it_takes_one_message_and_loses_the_envelope_behind_it(tmp_path: Path) -> None:
    first = HELLO + "hold\n" + ASKED + "-> 250 ok\n-> 250 ok\n-> 354 go on\n<- message\n" + ASKED
    first += "-> 250 2.0.0 taken\nsilence\n"
    async with relaying(tmp_path, first, HELLO + STEPS, connections=1) as relay:
        await relay.house.send(B)
        await relay.house.send(C)
        await relay.peer.at(1, "hold")
        relay.peer.go()
        await relay.peer.at(1, "silence")
        await relay.house.event(type="delivery", recipient=B)
        await relay.clock.advance(302)
        await relay.house.event(type="delivery", recipient=C)
        assert relay.types().count("delivery") == 2


async def test_it_hangs_up_between_two_messages_as_it_may(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + TAKES + "close", HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.house.event(type="delivery", recipient=B)
        await relay.peer.at(1, "end")
        await relay.house.send(C)
        await relay.told(4)


async def test_we_stop_in_the_middle_of_an_envelope_and_no_peer_has_lost_anything(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + ASKED + "-> 250 ok\nsilence\n") as relay:
        await relay.house.send(B)
        await relay.peer.at(1, "silence")
        await relay.house.quiet()
        relay.house.daemon.stop()
        await relay.clock.asked_for(30.0)
        await relay.clock.advance(31)
        await relay.told(2)
        assert len(relay.house.daemon.hosts) == 0
        assert relay.house.of(type="state") == []


async def test_it_says_goodbye_when_it_has_waited_for_what_it_lost(tmp_path: Path) -> None:
    flushes = HELLO + ASKED + "-> 250 ok\nhold\n-> 421 4.4.2 mx.test Error: timeout exceeded\nclose\n"
    async with relaying(tmp_path, flushes, HELLO + STEPS) as relay:
        await relay.house.send(B)
        await relay.peer.at(1, "hold")
        await relay.clock.advance(60)
        relay.peer.go()
        await relay.house.event(type="deferral")
        await relay.come_due()
        await relay.house.event(type="delivery", recipient=B)
