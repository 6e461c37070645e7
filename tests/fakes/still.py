"""A spool between two runs of its daemon: filled, looked into, and handed to the commands.

Between: tests of the commands that need no daemon; `mta` runs one on the settings file.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from mta import disk
from mta.cli.main import main
from mta.config.load import show
from mta.config.settings import Sandbox, Settings
from mta.core.model import Message, Option, Recipient
from mta.core.queue.lifecycle import State
from mta.metrics import Metrics
from mta.spool import database
from mta.spool.bodies import THRESHOLD
from mta.spool.commit import Update
from mta.spool.queue import Spool
from tests.fakes.clock import HandClock
from tests.fakes.house import settings

EXPIRES = 1_800_400_000.0
DUE = 1_800_000_100.25
CONTENT = b"From: a@src.test\r\nTo: ok@dst.test\r\nSubject: \xc3\xa4\r\n\r\n.dot\r\n..dots\r\n"
LARGE = CONTENT + b"x" * THRESHOLD + b"\r\n"


class Still:
    """A spool with its settings file, between two runs of its daemon."""

    def __init__(self, directory: Path, mode: str = "sandbox") -> None:
        directory.mkdir(exist_ok=True)
        sandbox = Sandbox(directory / "sandbox") if mode == "sandbox" else None
        self.terms: Settings = settings(directory, sandbox=sandbox)
        self.spool = self.terms.spool.path
        self.mode = mode
        self.file = directory / "mta.yaml"
        self.file.write_text(show(self.terms))

    def mta(self, *arguments: object) -> Result:
        return CliRunner().invoke(main, ["--config", str(self.file), "spool", *map(str, arguments)])

    def answer(self, *arguments: object) -> Any:
        done = self.mta(*arguments, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.output)

    def fill(self, *messages: Message) -> list[Message]:
        """Messages of which the first recipient was tried twice and the others once."""
        asyncio.run(self.own(messages))
        return list(messages)

    async def own(self, messages: Sequence[Message]) -> None:
        async def publish(lines: bytes) -> None:
            pass

        spool = Spool(self.spool, self.mode, 0, publish, HandClock(), Metrics())
        await spool.open(300.0)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(spool.run())
            for each in messages:
                spool.put(each, [], lambda error: None)
                await spool.lease([Update(State.DEFERRED, 2, DUE, each.id, each.recipients[0].n)])
            spool.stop()
        await spool.close()

    def rows(self, statement: str = "SELECT * FROM recipient ORDER BY message, n") -> list[tuple[Any, ...]]:
        with closing(disk.read_only(self.spool / database.FILE)) as connection:
            return connection.execute(statement).fetchall()

    def columns(self, table: str) -> list[tuple[Any, ...]]:
        return self.rows(f"PRAGMA table_info({table})")

    @property
    def messages(self) -> list[tuple[Any, ...]]:
        return self.rows("SELECT * FROM message ORDER BY id")

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.spool / "events.jsonl").read_bytes().splitlines()]


def message(
    k: int, *addresses: str, sender: str = "a@src.test", tenant: str = "acme", content: bytes = CONTENT
) -> Message:
    """The k-th of its millisecond."""
    recipients = [Recipient(n, each, each.partition("@")[2].lower()) for n, each in enumerate(addresses)]
    return Message(
        (1_800_000_000_000 << 13) + k, sender, tenant, "bulk", "app", EXPIRES, len(content), f"<{k}@x>",
        Option.NOTIFY | Option.EIGHTBIT, recipients, content,
    )  # fmt: skip
