"""What a route allows: messages for each connection, recipients for each message, a rate."""

from __future__ import annotations

from pathlib import Path

import pytest

from mta.core.limits.throttle import Rate
from tests.fakes.peer import HELLO, TAKES, envelope
from tests.fakes.relay import relaying

QUIT = "<- QUIT\n-> 221 2.0.0 bye\nclose"


async def test_a_connection_that_is_used_up_says_quit_and_another_takes_over(tmp_path: Path) -> None:
    scripts = (HELLO + TAKES * 2 + QUIT, HELLO + TAKES * 2 + QUIT, HELLO + TAKES)
    async with relaying(tmp_path, *scripts, messages_per_connection=2) as relay:
        for number in range(1, 6):
            await relay.house.send(f"{number}@dst.test")
            await relay.house.event(number, type="delivery")


async def test_used_up_in_the_middle_of_a_queue(tmp_path: Path) -> None:
    scripts = [HELLO + "hold\n" + TAKES * 2 + QUIT, HELLO + TAKES * 2 + QUIT, HELLO + TAKES]
    async with relaying(tmp_path, *scripts, messages_per_connection=2, connections=1) as relay:
        for number in range(5):
            await relay.house.send(f"{number}@dst.test")
        relay.peer.go()
        await relay.house.event(5, type="delivery")
        assert len(relay.house.of(type="deferral")) == 0


async def test_an_idle_connection_says_quit_after_half_a_minute(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + TAKES + QUIT) as relay:
        await relay.house.send("b@dst.test")
        await relay.house.event(type="delivery")
        await relay.clock.advance(29)
        assert "<- QUIT" in relay.peer.calls[0].past
        assert "close" not in relay.peer.calls[0].past
        await relay.clock.advance(3)
        await relay.peer.at(1, "close")


async def test_a_stop_says_quit(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + TAKES + QUIT) as relay:
        await relay.house.send("b@dst.test")
        await relay.house.event(type="delivery")
        relay.house.daemon.stop()
        await relay.peer.at(1, "close")


async def test_a_rate_holds_mail_back(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + TAKES, HELLO + TAKES, rate=Rate(1, 60.0)) as relay:
        await relay.house.send("b@dst.test")
        await relay.house.event(type="delivery")
        await relay.house.send("c@dst.test")
        await relay.clock.advance(59)
        assert len(relay.peer.calls[0].messages) == 1
        assert len(relay.peer.calls) == 1
        await relay.clock.advance(2)
        await relay.house.event(2, type="delivery")
        assert relay.house.of(type="deferral") == []


async def test_a_rate_counts_recipients(tmp_path: Path) -> None:
    two = envelope("250 ok", "250 ok", "250 ok", "354 go on") + "<- message\n-> 250 taken\n"
    async with relaying(tmp_path, HELLO + two * 2, rate=Rate(3, 60.0)) as relay:
        await relay.house.send("a@dst.test", "b@dst.test")
        await relay.house.event(2, type="delivery")
        await relay.house.send("c@dst.test", "d@dst.test")
        await relay.clock.advance(19)
        assert len(relay.house.of(type="delivery")) == 2
        await relay.clock.advance(2)
        await relay.house.event(4, type="delivery")


async def test_a_thousand_recipients_go_fifty_at_a_time_over_one_connection(tmp_path: Path) -> None:
    fifty = envelope("250 ok", *["250 ok"] * 50, "354 go on") + "<- message\n-> 250 taken\n"
    async with relaying(tmp_path, HELLO + fifty * 20, connections=1) as relay:
        await relay.house.send(*(f"r{number}@dst.test" for number in range(1000)))
        await relay.house.event(1000, type="delivery")
        (call,) = relay.peer.calls
    assert len(call.messages) == 20
    assert len(set(call.messages)) == 1
    asked = [command for command in call.commands if command.startswith("RCPT")]
    assert asked == [f"RCPT TO:<r{number}@dst.test>" for number in range(1000)]


async def test_mail_that_found_its_lane_full_goes_when_there_is_room_and_not_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten messages for a lane of four, to a peer that hesitates; the clock never moves."""
    monkeypatch.setattr("mta.core.limits.turns.CAPACITY", 4)
    monkeypatch.setattr("mta.delivery.lane.LOW", 2)
    async with relaying(tmp_path, "hold\n" + HELLO + TAKES * 10, connections=1) as relay:
        for number in range(10):
            await relay.house.send(f"u{number}@dst.test")
        await relay.peer.at(1, "hold")
        relay.peer.go()
        await relay.house.event(count=10, type="delivery")
    assert relay.types().count("deferral") == 0
