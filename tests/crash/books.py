"""The three lists of the crash tests: acknowledged to a client, delivered at the peer, still in the spool.

Between: `tests.crash.mail` knows what the clients were told; the sandbox keeps what was
    delivered, each copy a file; the spool is read when its daemon has stopped.
Contract: `reconcile` counts, and `Books.lost` names each acknowledged recipient that is in none of the lists,
    or in one of them with other octets. A bounced recipient is accounted for by the notice to its sender.
    `Books.wrong` names every other contradiction. "Twice" counts copies beyond the first of what was
    acknowledged, and is no error: the window of a crash. The actor drop-after-data is sent to again and
    again, which is not counted.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mta.core.queueid import text
from mta.spool.bodies import Bodies
from mta.spool.reader import Reader
from tests.crash.mail import Letter, Mail
from tests.fakes.home import Served, patience

Key = tuple[str, str]  # queue id, recipient

DOUBT = "ambiguous, for good"
FINAL = ("delivery", "bounce", "expiration", DOUBT)


@dataclass(slots=True)
class Books:
    """What was found."""

    acknowledged: set[Key] = field(default_factory=set)
    copies: Counter[Key] = field(default_factory=Counter)  # at the peer
    notices: Counter[Key] = field(default_factory=Counter)  # at the peer, about this recipient
    waiting: set[Key] = field(default_factory=set)  # in the spool
    again: int = 0  # messages that we own and the client does not know of: it has sent them again
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def twice(self) -> int:
        copies = (self.copies[key] - 1 for key in self.copies if _actor(key[1]) != "drop-after-data")
        return sum(copies) + sum(count - 1 for count in self.notices.values())


def _actor(recipient: str) -> str:
    return recipient.partition("+")[0]


def follow_to_the_end(served: Served, mail: Mail) -> None:
    """Wait until the event log has told the end of everything that can come to one."""
    open_ends = {
        (queue_id, each)
        for queue_id, letter in mail.acknowledged.items()
        for each in letter.recipients
        if _ends(each)
    }
    ended: set[Key] = set()
    argv = ["tail", "-q", "-n", "+1", "-F", *map(str, _logs(served.directory))]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as tail:
        assert tail.stdout is not None
        with patience(tail):
            for line in tail.stdout if open_ends else ():
                event = json.loads(line)
                key = event.get("queue_id", ""), event.get("recipient", "")
                if event["type"] == "reception" and _ends(key[1]) and key not in ended:
                    open_ends.add(key)
                elif event["type"] in FINAL:
                    ended.add(key)
                    open_ends.discard(key)
                if not open_ends:
                    break
        tail.kill()
    assert not open_ends, f"no end was told of {sorted(open_ends)[:5]}"


def _logs(directory: Path) -> list[Path]:
    """The event log of today and of days before."""
    return sorted((directory / "var/spool").glob("events*.jsonl"))


def _ends(recipient: str) -> bool:
    """Does its mail come to an end: that of two actors, and the notices to senders?"""
    return _actor(recipient) in ("ok", "bounce") or recipient.endswith("@src.test")


def reconcile(directory: Path, mail: Mail) -> Books:
    """Compare what the clients know with what is there, once the daemon has stopped."""
    books = Books()
    owned: dict[str, Letter] = dict(mail.acknowledged)
    for queue_id, letter in mail.acknowledged.items():
        books.acknowledged.update((queue_id, each) for each in letter.recipients)
    for copy in sorted((directory / "var/sandbox").glob("*.eml")):
        _enter_copy(copy.read_bytes(), books, mail, owned)
    contents = asyncio.run(_spooled(directory / "var/spool", books))
    for queue_id, content in contents.items():
        _enter_content(queue_id, content, books, mail, owned)
    _judge(books, _events(directory, books))
    _judge_unknown(books, mail, owned)
    return books


def _enter_copy(copy: bytes, books: Books, mail: Mail, owned: dict[str, Letter]) -> None:
    recipients = [each.decode() for each in re.findall(rb"(?m)^Delivered-To: (.*)\r$", _head(copy))]
    if b"Return-Path: <>\r\n" in copy[:100]:
        about = re.search(rb"(?m)^X-Queue-ID: (\w+)\r$", copy)
        assert about is not None, copy
        for each in re.findall(rb"(?m)^Final-Recipient: rfc822; (.*)\r$", copy):
            books.notices[about[1].decode(), each.decode()] += 1
        return
    found = re.search(rb" id (\w+);", _head(copy))
    assert found is not None, copy
    queue_id = found[1].decode()
    _enter_content(queue_id, copy, books, mail, owned)
    books.copies.update((queue_id, each) for each in recipients)


def _enter_content(queue_id: str, content: bytes, books: Books, mail: Mail, owned: dict[str, Letter]) -> None:
    found = re.search(rb"(?m)^X-Letter: (\d+)\r$", _head(content))
    if found is None:
        if b"multipart/report" not in _head(content):
            books.wrong.append(f"{queue_id} is no letter of ours")
        return
    letter = mail.letters[int(found[1])]
    known = owned.setdefault(queue_id, letter)
    if known is not letter or content.partition(b"\r\n\r\n")[2] != letter.body:
        books.lost.append(f"{queue_id} has other octets than letter {known.number}")


def _head(content: bytes) -> bytes:
    return content.partition(b"\r\n\r\n")[0] + b"\r\n"


async def _spooled(directory: Path, books: Books) -> dict[str, bytes]:
    """The recipients and contents that wait; every file belongs to one of them."""
    bodies = Bodies(directory / "bodies")
    reader = Reader(bodies)
    await reader.open(directory)
    try:
        contents: dict[str, bytes] = {}
        for message, due in await reader.queue(1_000_000):
            queue_id = text(message.id)
            books.waiting.add((queue_id, message.recipients[0].address))
            if due is None:
                books.wrong.append(f"{queue_id} waits without a time")
            if queue_id not in contents:
                contents[queue_id] = await reader.content(message.id)
    finally:
        await reader.close()
    for path in (directory / "bodies").iterdir():
        if path.name not in contents:
            books.wrong.append(f"the content of {path.name} was left behind")
    return contents


def _events(directory: Path, books: Books) -> list[dict[str, Any]]:
    """What the event log tells, repeats dropped: each `seq` from the first to the last is there."""
    told: dict[int, bytes] = {}
    for path in _logs(directory):
        for line in path.read_bytes().splitlines():
            seq = json.loads(line)["seq"]
            if told.setdefault(seq, line) != line:
                books.wrong.append(f"the event log has two lines of seq {seq}")
    missing = set(range(1, max(told, default=0) + 1)) - set(told)
    if missing:
        books.wrong.append(f"the event log lacks {sorted(missing)[:5]}")
    return [json.loads(told[seq]) for seq in sorted(told)]


def _kind(event: dict[str, Any]) -> str:
    return DOUBT if event["type"] == "ambiguous" and event["permanent"] else str(event["type"])


def _judge(books: Books, events: list[dict[str, Any]]) -> None:
    """Every acknowledged recipient is delivered, has bounced with a notice, or waits."""
    told: dict[str, Counter[Key]] = {}
    for event in events:
        key = event.get("queue_id", ""), event.get("recipient", "")
        told.setdefault(_kind(event), Counter())[key] += 1
    receptions = told.get("reception", Counter())
    final = sum((told.get(each, Counter()) for each in FINAL), Counter())
    bounced = told.get("bounce", Counter())
    for key in books.acknowledged:
        is_kept = books.notices[key] if _actor(key[1]) == "bounce" else books.copies[key]
        if key not in books.waiting and not (final[key] and is_kept):
            books.lost.append(f"{key[1]} of {key[0]}")
        if not receptions[key]:
            books.wrong.append(f"no reception was told of {key[1]} of {key[0]}")
    books.wrong += [f"{key[1]} of {key[0]} came to an end twice" for key, n in final.items() if n > 1]
    books.wrong += [f"{key[1]} of {key[0]} has ended and waits" for key in final if key in books.waiting]
    books.lost += [f"the notice about {key[1]} of {key[0]}" for key in bounced if not books.notices[key]]


def _judge_unknown(books: Books, mail: Mail, owned: dict[str, Letter]) -> None:
    """What we own without a 250 is a letter whose dot was sent; its client has sent it again since."""
    unknown = Counter(letter for queue_id, letter in owned.items() if queue_id not in mail.acknowledged)
    books.again = unknown.total()
    for letter, count in unknown.items():
        if count > letter.in_doubt:
            books.wrong.append(f"letter {letter.number} is owned {count} times, in doubt {letter.in_doubt}")


def stderr_bugs(directory: Path) -> Iterator[str]:
    """Errors that the daemons logged."""
    for line in (directory / "stderr").read_text(errors="replace").splitlines():
        if line.startswith(("ERROR", "Traceback")):
            yield line
