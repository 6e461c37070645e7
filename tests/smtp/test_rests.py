"""Turns of the loop: nobody stands behind those who have more connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from mta.smtp.rests import Rests


async def taken(rests: Rests, count: int, ask: Callable[[list[str]], None]) -> list[str]:
    """Whose turns came, the first so many."""
    order: list[str] = []
    ask(order)
    async with asyncio.timeout(10):
        while len(order) < count:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.001)
    return order


def turn(order: list[str], who: str) -> bool:
    order.append(who)
    return True


async def test_a_customer_does_not_stand_behind_all_strangers() -> None:
    rests = Rests()

    def ask(order: list[str]) -> None:
        for n in range(500):
            rests.ask(None, partial(turn, order, f"stranger {n}"), 0.0)
        for who in ("acme", "bcme"):
            for n in range(2):
                rests.ask(who, partial(turn, order, f"{who} {n}"), 0.0)

    order = await taken(rests, 7, ask)
    assert order[:6] == ["stranger 0", "acme 0", "bcme 0", "stranger 1", "acme 1", "bcme 1"]


async def test_turns_of_those_who_are_gone_cost_nobody_any_time() -> None:
    rests = Rests()

    def ask(order: list[str]) -> None:
        for _ in range(10_000):
            rests.ask(None, lambda: False, 3600.0)
        rests.ask("acme", partial(turn, order, "acme"), 0.0)
        rests.ask(None, partial(turn, order, "stranger"), 0.0)

    assert await taken(rests, 2, ask) == ["acme", "stranger"]


async def test_a_turn_that_raises_ends_nobody_elses() -> None:
    rests, loop = Rests(), asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)

    def broken() -> bool:
        raise RuntimeError

    def ask(order: list[str]) -> None:
        rests.ask("acme", broken, 0.0)
        rests.ask("bcme", partial(turn, order, "bcme"), 0.0)

    assert await taken(rests, 1, ask) == ["bcme"]
