"""The sandbox's receiving MX: keeps each message as an .eml and plays the peer that was asked for.

Between: the router sends every domain here in sandbox mode; `sandbox.actors` says who plays what.
Contract: a message is a file in `directory` when the peer has answered 250: Return-Path and
    Delivered-To on top, then the message as it came.
Raises: nothing to the loop.
Standards: RFC 5321 (server side), 4.4 (Return-Path).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Hashable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from mta.core.limits.room import Share
from mta.core.limits.throttle import RateLimit
from mta.core.mail.address import EnvelopePath
from mta.core.model import Go, Reply
from mta.sandbox.actors import ACTORS, Actor, actor_for, name_of
from mta.smtp.listener import Listener
from mta.smtp.server import Server

MAX_SEEN = 10_000  # recipients whose first attempt is remembered


class SandboxMX(Server):
    """One connection of our own outbound side."""

    directory: Path
    listener: Listener
    # Shared by all connections:
    numbers: Iterator[int]  # two messages of one moment have two names
    seen: dict[str, float]  # recipients of actors that greylist -> when they came first
    taken: dict[str, RateLimit]  # what actors with a limit took of late

    @classmethod
    def listening(cls, listener: Listener, directory: Path) -> SandboxMX:
        made = cls.template(listener, object())
        made.directory = directory
        made.numbers = count()
        made.seen = {}
        made.taken = {name: RateLimit(actor.limit) for name, actor in ACTORS.items() if actor.limit}
        return made

    @property
    def party(self) -> Hashable:
        return SandboxMX

    def on_connect(self) -> Reply | None:
        return None

    def on_mail(self, sender: EnvelopePath) -> Reply | None:
        return None

    def on_rcpt(self, recipient: EnvelopePath) -> Reply | None:
        actor = actor_for(recipient.address)
        if self.recipients and actor.after_dot != actor_for(self.recipients[0].address).after_dot:
            # Who plays differently then needs a transaction of its own.
            return Reply(452, "4.5.3", "Too many recipients")
        refusal = self._judge(actor, recipient.address)
        if refusal is not None and actor.hangs_up:
            self.hang_up(refusal)
        return refusal

    def _judge(self, actor: Actor, address: str) -> Reply | None:
        now = self.listener.clock.monotonic()
        if actor.greylists:
            if len(self.seen) >= MAX_SEEN:
                self.seen.clear()
            return actor.rcpt if now < self.seen.setdefault(address, now) + actor.greylists else None
        if actor.limit is not None:
            granted = self.taken[name_of(address)].take(now)
            return None if isinstance(granted, Go) else actor.rcpt
        return actor.rcpt

    def on_data(self) -> Reply | None:
        return None

    def open_share(self) -> Share:
        return self.listener.memory.open()

    def on_message(self, pieces: list[bytes], dotted: bool) -> Coroutine[Any, Any, None]:
        assert self.sender is not None
        recipients = [recipient.address for recipient in self.recipients]
        return self._keep(self.sender.address, recipients, pieces)

    async def _keep(self, sender: str, recipients: list[str], pieces: list[bytes]) -> None:
        name = f"{int(self.listener.clock.now() * 1000):x}-{next(self.numbers):x}"
        head = f"Return-Path: <{sender}>\r\n" + "".join(f"Delivered-To: {each}\r\n" for each in recipients)
        try:
            await asyncio.to_thread(_write, self.directory / name, [head.encode(), *pieces])
        except OSError as error:
            self.answer(Reply(452, "4.3.1", f"The sandbox cannot write: {error.strerror}"))
            return
        after_data, delay = actor_for(recipients[0]).after_dot
        if delay:
            await self.listener.clock.sleep(delay)
        if after_data == "drop":
            self.abort()
            self.answer(Reply(421, "4.3.0", "Dropped"))  # which nobody hears
        else:
            self.answer(Reply(250, "2.0.0", f"Ok: kept as {name}.eml"))


def _write(path: Path, pieces: list[bytes]) -> None:
    """Whole or not at all: who watches the folder never sees half a message."""
    with path.open("wb") as file:
        file.writelines(pieces)
    path.rename(path.with_suffix(".eml"))
