"""docs/replies.md, row by row: its table is the list of the cases, and each is played over sockets."""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiosmtplib.protocol import MAX_RESPONSE_LENGTH

from mta.core.answers.reply import MAX_REPLY, MAX_TEXT
from mta.core.route.hosts import TLS_WAIT
from mta.smtp.trouble import MAX_SAID
from tests.fakes.peer import ASKED, HELLO, TAKES
from tests.fakes.relay import Relay, mail, relaying

DOCUMENT = Path(__file__).parents[2] / "docs" / "replies.md"
LONGEST = 120  # characters of a reply that the page shows
B, C = "b@dst.test", "c@dst.test"
GREETING, EHLO, STARTTLS, MAIL, RCPT, DATA, DOT, NOTHING = (
    "the greeting", "EHLO", "STARTTLS", "MAIL", "RCPT", "DATA", "the final dot", "nothing",
)  # fmt: skip
SECONDS = {GREETING: 300, EHLO: 300, MAIL: 300, RCPT: 300, DATA: 120, DOT: 600}  # that we wait
TAKEN = ("-> 250 ok", "-> 250 ok", "-> 354 go on", "<- message", "-> 250 2.0.0 taken")
BEFORE = {
    GREETING: "",
    EHLO: "-> 220 mx.test\n<- EHLO mta.test\n",
    STARTTLS: HELLO.replace("250-PIPELINING", "250-STARTTLS") + "<- STARTTLS",
    MAIL: HELLO + ASKED,
    RCPT: HELLO + ASKED + TAKEN[0],
    DATA: HELLO + ASKED + "\n".join(TAKEN[:2]),
    DOT: HELLO + ASKED + "\n".join(TAKEN[:4]),
    NOTHING: HELLO + TAKES + "hold",
}
AFTER = {  # a yes
    GREETING: HELLO.partition("ESMTP")[2] + TAKES,
    EHLO: TAKES,
    MAIL: "\n".join(TAKEN[1:]),
    RCPT: "\n".join(TAKEN[2:]),
    DATA: "\n".join(TAKEN[3:]),
    DOT: "",
}
NOBODY = {MAIL: "-> 554 none\n-> 554 none", RCPT: "-> 554 none", DATA: "", DOT: ""}  # after a no
STEPWISE = "".join(
    f"<- {asked}\n{said}\n" for asked, said in zip(("MAIL*", "RCPT*", "DATA"), TAKEN[:3], strict=True)
) + "\n".join(TAKEN[3:])
HELO = "<- HELO mta.test\n-> 250 mx.test\n" + STEPWISE
ODD = {  # what does not fit between backticks
    "nothing": "silence",
    "nothing, and hangs up": "close",
    "the first line of a reply, and nothing": "-> 250-ok\nsilence",
    "half a reply, and hangs up": "raw 550-5.1.1 who?\\r\\n550 5.1.\nclose",
    "`250 ok` after an empty line": "raw \\r\\n250 ok\\r\\n",
    "`250 ok`, ended by LF alone": "raw 250 ok\\n",
    "`250 ok`, octet by octet": "drip 250 ok",
    "`220 mx`, ended by LF alone": "raw 220 mx\\n",
    "`220` and 10 KiB of text": f"-> 220 {'x' * 10_000}",
    "`220` and 100 KiB of text": f"-> 220 {'x' * 100_000}",
    "`250` and 10 KiB of text": f"-> 250 {'x' * 10_000}",
    "`550 5.1.1` in 200 lines": "-> 550-5.1.1 x\n" * 199 + "-> 550 5.1.1 x",
    "100 KiB in lines of `550-5.1.1 x`": "-> 550-5.1.1 x\n" * 8000 + "-> 550 5.1.1 x",
}


class Fate(enum.Enum):
    """What we make of it, in the words of the page."""

    TAKEN = "is understood, and the mail goes on"
    ANSWER = "is an answer"
    GOODBYE = "is an answer, and the end of the connection"
    HOST = "another host is asked; where none is left the mail waits"
    NEVER = "another host is asked; where none takes mail it bounces"
    CLEAR = "cut; a minute later TLS is tried once more, then it goes in the clear, where that is allowed"
    LEFT = "cut; over another connection at once, later where that says the same"
    MAYBE = "cut; the message may have arrived, and is sent again later"
    CUT = "cut; what was answered counts, and the next mail takes another connection"


EVENTS = {
    Fate.TAKEN: ("delivery",),
    Fate.ANSWER: ("bounce", "deferral"),
    Fate.GOODBYE: ("deferral",),
    Fate.HOST: ("deferral",),
    Fate.NEVER: ("bounce",),
    Fate.CLEAR: ("delivery",),
    Fate.LEFT: ("deferral",),
    Fate.MAYBE: ("ambiguous",),
    Fate.CUT: ("delivery",),
}


TIMES = {Fate.LEFT: 2, Fate.CLEAR: 2}  # that it is said


class Row(NamedTuple):
    """What is answered, with what, and what follows; an event without its recipient and times."""

    to: str
    said: str
    fate: Fate
    event: str


MAIL_ALONE = HELLO + "<- MAIL FROM:<*\n-> 250 ok\n<- RCPT TO:<*\n"
ALONE = {"RCPT": MAIL_ALONE, "DATA": MAIL_ALONE + "-> 250 ok\n<- DATA\n"}


def rows() -> list[Row]:
    """The table of the page."""
    found = re.findall(r"(?m)^\| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", DOCUMENT.read_text(encoding="utf-8"))
    return [Row(to, said, Fate(fate), event) for to, said, fate, event in found[1:]]


def script(row: Row) -> str:
    """What the peer plays in the first connection."""
    said = row.said
    ends = said.strip("`").replace(" / ", r"\r\n")
    lines = ODD.get(said, rf"raw {ends}\r\n")
    if row.fate is Fate.TAKEN:
        after = AFTER[row.to]
        if row.to == EHLO and "PIPELINING" not in said:
            after = HELO if said[1] == "5" else STEPWISE
    elif row.fate is Fate.ANSWER:
        after = NOBODY[row.to]
    else:
        after = "silence"
    return "\n".join((BEFORE[row.to], lines, after))


async def play(relay: Relay, row: Row, connections: int) -> None:
    """Until the last event of the mail."""
    await relay.house.send(B)
    if row.to == NOTHING:
        await relay.told(2)
        relay.peer.go()
    if row.fate is Fate.CLEAR:
        await relay.house.event(type="state")
        await relay.clock.advance(TLS_WAIT)
    is_silent = ODD.get(row.said, "").endswith("silence")
    if is_silent:
        for number in range(1, connections + 1):
            await relay.peer.at(number, "silence")
            await relay.clock.advance(SECONDS[row.to] + 2)
    events = 3 if row.fate is Fate.LEFT and is_silent else 2  # the first time-out is told, too
    if row.fate is Fate.CUT:  # nobody is told before there is more to send
        await relay.peer.at(1, "end")
        await relay.house.send(C)
        events = 4
    await relay.told(events)


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.to}: {row.said}")
async def test_what_a_peer_says_is_made_what_the_page_says(tmp_path: Path, row: Row) -> None:
    first = script(row)
    scripts = [first] * TIMES.get(row.fate, 1)
    if ODD.get(row.said) == "silence" and row.to in ALONE:  # then commands go one by one
        scripts[1:] = ["\n".join((ALONE[row.to], "silence"))] * (len(scripts) - 1)
    if row.fate is Fate.CLEAR and ODD.get(row.said) == "close":  # a handshake may have begun: TLS 1.2, too
        scripts.append(first)
    goes_on = row.fate in (Fate.CUT, Fate.CLEAR)
    scripts += [HELLO + TAKES] if goes_on else []
    async with relaying(tmp_path, *scripts) as relay:
        await play(relay, row, len(scripts))
        event = mail(relay.house)[-1]
        is_kept = row.fate in (Fate.TAKEN, Fate.ANSWER)
        if not is_kept:
            await relay.peer.at(1, "end")
        open_now = relay.house.daemon.pool.connections
        assert open_now == (is_kept or goes_on)
    assert told(event) == row.event
    assert event["type"] in EVENTS[row.fate]


def told(event: dict[str, Any]) -> str:
    """An event as the page has it: on one line, without what all of them say."""
    reply = event["reply"]
    said = " ".join(filter(None, (str(reply["code"]), reply.get("enhanced"), reply.get("text"))))
    for same in ("; it is tried again", " 127.0.0.1 [127.0.0.1]:"):
        said = said.replace(same, "")
    said = " / ".join(filter(None, (said.replace("\n", " / "), event.get("reason", ""))))
    return f"{event['type']}: {said if len(said) <= LONGEST else said[:LONGEST] + '...'}"


@pytest.mark.parametrize("fate", Fate)
def test_everything_that_we_make_of_a_reply_is_on_the_page(fate: Fate) -> None:
    assert any(row.fate is fate for row in rows())


def test_the_page_has_the_numbers_of_the_code() -> None:
    text = " ".join(DOCUMENT.read_text(encoding="utf-8").split())
    seconds = SECONDS[MAIL], SECONDS[DATA], SECONDS[DOT]
    assert f"up to {MAX_REPLY // 1024} KiB; {MAX_TEXT:,} characters are kept" in text
    assert f"Before the first message these are {MAX_RESPONSE_LENGTH // 1024} KiB and {MAX_SAID}." in text
    assert "It is {} seconds, {} for DATA and {} for the final dot".format(*seconds) in text
