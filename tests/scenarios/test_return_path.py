"""Mail whose bounces come to us: a sender of its own for each recipient, and one body for all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mta.core.domain import SendingDomain
from mta.core.model import Message
from mta.core.queueid import parse
from mta.core.returns.verp import Returned, Verp
from mta.signing import secret
from mta.signing.keys import KeyFolder
from mta.signing.rotation import make
from mta.store.domains import DomainStore
from tests.fakes.client import Client
from tests.fakes.house import House
from tests.fakes.peer import ASKED, HELLO, TAKES, Call, answers, envelope
from tests.fakes.relay import Relay, relaying

DOMAIN = "bounces.src.test"
TWO, THREE = ("r0@dst.test", "r1@dst.test"), ("r0@dst.test", "r1@dst.test", "r2@dst.test")
UTF8_TOO = HELLO.replace("-> 250 8BITMIME", "-> 250-8BITMIME\n    -> 250 SMTPUTF8")
LATER = "450 4.2.1 busy"
# The next envelope rides behind the body: the peer has it before it has said what became of the first.
PIPELINED = """
    <- MAIL FROM:<*
    <- RCPT TO:<r0@dst.test>
    <- DATA
    -> 250 ok
    -> 250 ok
    -> 354 go on
    <- message
    <- MAIL FROM:<*
    <- RCPT TO:<r1@dst.test>
    <- DATA
    -> 250 taken
    -> 250 ok
    -> 250 ok
    -> 354 go on
    <- message
    -> 250 taken
"""
AGAIN_LATER = f"<- RSET\n{ASKED}-> 250 ok\n-> 250 ok\n-> {LATER}\n-> 554 5.5.1 none\n"
NOTICE = """
    <- RSET
    <- MAIL FROM:<>*
    <- RCPT TO:<a@src.test>
    <- DATA
    -> 250 ok
    -> 250 ok
    -> 250 ok
    -> 354 go on
    <- message
    -> 250 taken
"""
REST = "<- message\n-> 250 taken\n"


def returning(message: Message) -> str:
    """Somebody takes what comes back."""
    return DOMAIN


def senders(call: Call) -> list[str]:
    """What was said in MAIL."""
    return [found[1] for each in call.commands if (found := re.match("MAIL FROM:<(.*?)>", each))]


def read(relay: Relay, address: str) -> Returned:
    """Whose mail would come back there."""
    verp = Verp(secret.read(relay.house.daemon.settings.secret))
    returned = verp.read(address, relay.clock.now())
    assert isinstance(returned, Returned), (address, returned)
    return returned


async def submit(house: House, recipient: str, mail: str, sender: str) -> None:
    async with await Client.connect(house.network) as client:
        await client.reply()
        await client.ehlo()
        client.say(f"MAIL FROM:<{sender}>{mail}", f"RCPT TO:<{recipient}>", "DATA")
        await client.replies(3)
        client.send(b"From: a@src.test\r\n\r\nHello.\r\n.\r\n")
        assert str(await client.reply()).startswith("250 ")


async def test_each_recipient_has_a_sender_that_reads_back(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + 3 * TAKES, returns=returning, connections=1) as relay:
        reply = await relay.house.send(*THREE)
        await relay.house.event(3, type="delivery")
        (call,) = relay.peer.calls
        events = [*relay.house.of(type="reception"), *relay.house.of(type="delivery")]
        queue_id = parse(reply.rpartition(" ")[2])
        said = senders(call)
        assert [read(relay, each) for each in said] == [Returned(queue_id, n) for n in range(3)]
        assert [read(relay, each.swapcase()) for each in said] == [Returned(queue_id, n) for n in range(3)]
    assert all(each.endswith(f"@{DOMAIN}") for each in said)
    assert [each for each in call.commands if each.startswith("RCPT")] == [f"RCPT TO:<{r}>" for r in THREE]
    assert {event["sender"] for event in events} == {"a@src.test"}
    assert len(set(call.messages)) == 1


async def test_transactions_of_one_body_are_pipelined(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + PIPELINED, returns=returning, connections=1) as relay:
        await relay.house.send(*TWO)
        await relay.house.event(2, type="delivery")
        assert [read(relay, each).n for each in senders(relay.peer.calls[0])] == [0, 1]


async def test_a_retry_names_the_same_recipients_and_reads_the_body_once(tmp_path: Path) -> None:
    """What was read from disk for the first of them goes on to the next at once."""
    both_later = HELLO + answers("RCPT", LATER) + AGAIN_LATER
    async with relaying(tmp_path, both_later, HELLO + PIPELINED, returns=returning, connections=1) as relay:
        reply = await relay.house.send(*TWO)
        await relay.house.event(2, type="deferral")
        await relay.come_due()
        await relay.house.event(2, type="delivery")
        queue_id = parse(reply.rpartition(" ")[2])
        said = [read(relay, each) for call in relay.peer.calls for each in senders(call)]
        assert relay.house.daemon.pool.contents.octets == 0
    assert said == 2 * [Returned(queue_id, 0), Returned(queue_id, 1)]
    assert len(set(relay.peer.calls[1].messages)) == 1


async def test_who_is_refused_is_told_to_the_sender_and_not_to_us(tmp_path: Path) -> None:
    script = HELLO + answers("RCPT", "550 5.1.1 who?") + NOTICE
    async with relaying(tmp_path, script, returns=returning, notify=True) as relay:
        await relay.house.send("b@dst.test")
        bounce = await relay.house.event(type="bounce")
        await relay.house.event(type="delivery", recipient="a@src.test")
        (call,) = relay.peer.calls
    assert bounce["sender"] == "a@src.test"
    token, null = senders(call)
    assert token.endswith(f"@{DOMAIN}")
    assert null == ""
    assert token.encode() not in call.messages[0]


async def test_the_null_sender_stays(tmp_path: Path) -> None:
    async with relaying(
        tmp_path, HELLO + envelope("250 ok", "250 ok", "250 ok", "354 go on") + REST, returns=returning
    ) as relay:
        await relay.house.send(*TWO, sender="")
        await relay.house.event(2, type="delivery")
        assert senders(relay.peer.calls[0]) == [""]


async def test_without_a_return_path_recipients_share_a_transaction_as_before(tmp_path: Path) -> None:
    script = HELLO + envelope("250 ok", "250 ok", "250 ok", "354 go on") + REST
    async with relaying(tmp_path, script, returns=lambda message: "") as relay:
        await relay.house.send(*TWO)
        await relay.house.event(2, type="delivery")
        assert senders(relay.peer.calls[0]) == ["a@src.test"]


@pytest.mark.parametrize("hello", [HELLO, UTF8_TOO])
async def test_a_sender_in_utf_8_that_is_not_said_needs_no_smtputf8(tmp_path: Path, hello: str) -> None:
    async with relaying(tmp_path, hello + TAKES, returns=returning) as relay:
        await submit(relay.house, "b@dst.test", " SMTPUTF8", "\xe9@src.test")
        delivery = await relay.house.event(type="delivery")
        (said,) = [each for each in relay.peer.calls[0].commands if each.startswith("MAIL")]
    assert delivery["sender"] == "\xe9@src.test"
    assert said.endswith(f"@{DOMAIN}>")


async def test_a_recipient_in_utf_8_needs_it_as_before(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO, returns=returning) as relay:
        await submit(relay.house, "b\xe9@dst.test", " SMTPUTF8", "a@src.test")
        bounce = await relay.house.event(type="bounce")
    assert bounce["reply"]["enhanced"] == "5.6.7"


async def test_a_connection_that_is_lost_between_two_of_one_body(tmp_path: Path) -> None:
    """Who was answered is done with; the other goes over the next connection, in his own name."""
    before = PIPELINED.partition("    -> 250 taken\n")[0]
    lost = before + "-> 250 taken\nclose"
    last = TAKES.replace("RCPT TO:<*", "RCPT TO:<r1@dst.test>")
    both_later = HELLO + answers("RCPT", LATER) + AGAIN_LATER
    scripts = both_later, HELLO + lost, HELLO + last
    async with relaying(tmp_path, *scripts, returns=returning, connections=1) as relay:
        reply = await relay.house.send(*TWO)
        await relay.house.event(2, type="deferral")
        await relay.come_due()
        await relay.house.event(2, type="delivery")
        queue_id = parse(reply.rpartition(" ")[2])
        said = [[read(relay, each).n for each in senders(call)] for call in relay.peer.calls]
        assert read(relay, senders(relay.peer.calls[2])[0]) == Returned(queue_id, 1)
        assert relay.house.daemon.pool.contents.octets == 0
    assert said == [[0, 1], [0, 1], [1]]


async def test_the_return_path_of_a_sending_domain_waits_for_somebody_who_listens(tmp_path: Path) -> None:
    """It is kept with the message, so a retry after a restart has it, too."""
    (tmp_path / "spool").mkdir()
    made = make(
        KeyFolder(tmp_path / "spool"), SendingDomain("src.test", return_path=DOMAIN), "ed25519-sha256", 0.0
    )
    with DomainStore(tmp_path / "spool") as store:
        store.put(made)
    async with relaying(tmp_path, HELLO + 2 * TAKES, connections=1) as relay:
        await relay.house.send("b@dst.test")
        await relay.house.event(type="delivery")
        relay.house.daemon.plans.returns_are_taken = True
        relay.house.daemon.plans._plans.clear()
        await relay.house.send("b@dst.test")
        await relay.house.event(2, type="delivery")
        plain, token = senders(relay.peer.calls[0])
        assert plain == "a@src.test"
        assert read(relay, token).n == 0
