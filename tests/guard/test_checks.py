"""The checks before a message is accepted: who is refused, who is warned, what is told, and how often."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mta.config.policy import build
from mta.config.settings import Dns, Duration, GuardSettings, IdentitySettings, Stream
from mta.core.check import At, Check, CheckMode, Mail, Refuse
from mta.core.domain import SendingDomain
from mta.core.model import Wait
from mta.guard.checks import HOUR
from mta.store.domains import DomainStore
from tests.fakes.clock import HandClock
from tests.fakes.dns import NameServer, Zone
from tests.fakes.domains import active, added, sending
from tests.fakes.house import NETWORK, House, routed, running, settings
from tests.fakes.peer import HELLO, TAKES, ScriptedPeer

BULK = replace(NETWORK, login="news", stream="bulk", notify=False)
ONE_CLICK = (
    b"List-Unsubscribe: <mailto:u@src.test>,\r\n <HTTPS://src.test/u>\r\n"
    b"list-unsubscribe-post: List-Unsubscribe=One-Click\r\n"
)
ZONE: Zone = {
    ("_dmarc.src.test", "TXT"): ['"v=DMARC1; p=none"'],
    ("_dmarc.strict.test", "TXT"): ['"v=DMARC1; p=none; adkim=s; aspf=s"'],
    ("_dmarc.other.test", "TXT"): ['"v=DMARC1; p=reject"'],
    ("s1._domainkey.src.test", "TXT"): ['"v=DKIM1; k=rsa; p=AA" "AA"'],
}


def mail_of(author: str = "a@src.test", more: bytes = b"") -> bytes:
    return b"From: " + author.encode() + b"\r\n" + more + b"Subject: x\r\n\r\nHello.\r\n"


@asynccontextmanager
async def house(
    directory: Path, clock: HandClock | None = None, credential: Any = BULK, **changes: Any
) -> AsyncIterator[House]:
    async with NameServer(ZONE) as server:
        dns = Dns((server.endpoint,), Duration(5.0))
        terms = settings(directory, dns=dns, routes=routed(9), **changes)
        async with running(terms, clock or HandClock(), (credential,)) as made:
            yield made


async def known(one: House, author: str, sender: str) -> None:
    """The records that the checks of such mail need have been looked up."""
    await one.daemon.identity.refresh(Mail(author, sender, "bulk", domain=one.daemon.checks.find(author)))


# Alignment


async def test_mail_of_a_domain_that_was_added_and_is_not_aligned_is_refused(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        added(one, sending("strict.test"))
        content = mail_of("a@news.strict.test", ONE_CLICK)
        assert (await one.send("b@dst.test", content=content, sender="a@other.test")).startswith(
            "250 "
        )  # unknown yet
        await known(one, "news.strict.test", "other.test")
        said = await one.send("b@dst.test", content=content, sender="a@other.test")
        assert said == (
            "550 5.7.1 The From domain news.strict.test is aligned with neither the signature of "
            "strict.test nor the return path (other.test): send from news.strict.test, or write another From "
            "(check alignment)"
        )
        told = await one.event(type="check", check="alignment")
        assert told["mode"] == "enforce"
        assert (told["credential"], told["domain"], told["stream"]) == ("news", "news.strict.test", "bulk")
        assert (await one.event(type="rejection"))["credential"] == "news"
        assert one.daemon.metrics.check_refusals["alignment"].value == 1


@pytest.mark.parametrize(
    ("author", "sender", "more"),
    [
        ("a@src.test", "a@src.test", b""),
        ("a@SRC.test", "a@src.test", b""),
        ("a@news.src.test", "a@bounces.src.test", b""),
        ("a@src.test", "a@other.test", b"DKIM-Signature: v=1; d=Mail.Src.test; s=x\r\n"),
        ("a@src.test, b@other.test", "a@third.test", b""),  # RFC 9989 5.3.1: exempt
        ("a@[192.0.2.1]", "a@third.test", b""),
    ],
)
async def test_mail_that_is_aligned(tmp_path: Path, author: str, sender: str, more: bytes) -> None:
    async with house(tmp_path, guard=GuardSettings({"alignment": "enforce"})) as one:
        await known(one, "src.test", sender.partition("@")[2])
        await known(one, "news.src.test", "mail.src.test")
        said = await one.send("b@dst.test", content=mail_of(author, more), sender=sender)
        assert said.startswith("250 "), said


async def test_the_return_path_of_a_domain_counts_and_not_the_senders(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        added(one, sending("strict.test", return_path="bounces.strict.test"))
        await known(one, "news.strict.test", "news.strict.test")
        content = mail_of("a@news.strict.test", ONE_CLICK)
        said = await one.send("b@dst.test", content=content, sender="a@news.strict.test")
        assert "nor the return path (bounces.strict.test)" in said


async def test_what_the_application_signs_for_somebody_else_is_no_alignment(tmp_path: Path) -> None:
    async with house(tmp_path, guard=GuardSettings({"alignment": "enforce"})) as one:
        for name in ("src.test", "other.test", "evil.test"):
            await known(one, name, name)
        more = b"DKIM-Signature: v=1; d=evil.test; s=x\r\nDKIM-Signature: d=\xff\r\n"
        assert (await one.send("b@dst.test", content=mail_of(more=more), sender="a@other.test")).startswith(
            "550 "
        )
        assert (await one.send("b@dst.test", content=mail_of(), sender="")).startswith("550 ")


# The key


async def test_a_domain_that_nobody_added_goes_unsigned_with_one_warning_an_hour(tmp_path: Path) -> None:
    clock = HandClock()
    async with house(tmp_path, clock, NETWORK) as one:
        for _ in range(5):
            assert (await one.send("b@dst.test")).startswith("250 ")
        told = await one.event(type="check")
        assert told["check"] == "key"
        assert (told["mode"], told["credential"], told["domain"]) == ("warn", "network", "src.test")
        assert told["reason"] == (
            "Nobody has added the From domain src.test, so its mail is not signed here: "
            "mta domain add src.test"
        )
        assert one.daemon.metrics.check_warnings["key"].value == 5
        assert len(one.of(type="check")) == 1
        clock._move(clock.monotonic() + HOUR - 1)
        await clock.advance(1)
        rest = await one.event(2, type="check") and one.of(type="check")[1]
        assert (rest["untold"], rest["check"], rest["credential"], rest["domain"]) == (
            4,
            "key",
            "network",
            "src.test",
        )
        await one.send("b@dst.test")
        await one.event(3, type="check")
        await one.send("b@dst.test")
    assert one.of(type="check")[-1]["untold"] == 1  # at the stop


async def test_a_key_that_dns_does_not_show_is_told_with_its_record(tmp_path: Path) -> None:
    async with house(tmp_path, guard=GuardSettings({"key": "enforce"})) as one:
        added(one, sending())
        await known(one, "src.test", "src.test")
        assert (await one.send("b@dst.test", content=mail_of(more=ONE_CLICK))).startswith("250 ")
        added(one, sending(keys=(active("s1", "BBBB"), active("s1", "AAAA"))))  # one of them is enough
        assert (await one.send("b@dst.test", content=mail_of(more=ONE_CLICK))).startswith("250 ")
        added(one, sending(keys=(active("s1", "BBBB"),)))
        assert await one.send("b@dst.test", content=mail_of(more=ONE_CLICK)) == (
            "550 5.7.1 DNS does not show the key of src.test: publish the TXT record "
            "s1._domainkey.src.test (check key)"
        )
        added(one, sending(keys=()))
        assert "has no key" in await one.send("b@dst.test", content=mail_of(more=ONE_CLICK))


# The stream


async def test_mail_of_a_stream_that_the_domain_is_not_for_is_refused(tmp_path: Path) -> None:
    receipts = replace(sending(), streams=("transactional",))
    async with house(tmp_path) as one:
        added(one, receipts)
        content = mail_of(more=ONE_CLICK)
        assert await one.send("b@dst.test", content=content) == (
            "550 5.7.1 From addresses of src.test are for transactional mail, and this is bulk: write "
            "another From, or name the stream in X-MTA-Stream (check stream)"
        )
        added(one, replace(receipts, streams=("transactional", "bulk")))
        assert (await one.send("b@dst.test", content=content)).startswith("250 ")
        added(one, sending())
        assert (await one.send("b@dst.test", content=content)).startswith("250 ")


async def test_a_second_author_gets_past_no_check(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        added(one, replace(sending(), streams=("transactional",)))
        content = mail_of("a@src.test, x@other.test", ONE_CLICK)
        assert (await one.send("b@dst.test", content=content)).endswith("(check stream)")
        told = await one.event(type="check", check="stream")
        assert told["domain"] == "src.test"
        added(one, sending())
        bare = mail_of("a@src.test, x@other.test")
        assert (await one.send("b@dst.test", content=bare)).endswith("(check one-click)")


@pytest.mark.parametrize("author", ["Shop <a@src.test> (@[ (((", "a@src.test., b@[192.0.2.1]"])
async def test_a_from_that_cannot_be_read_is_refused_whatever_is_in_it(tmp_path: Path, author: str) -> None:
    async with house(tmp_path) as one:
        one.daemon.plans._is_idle = False
        said = await one.send("b@dst.test", content=mail_of(author, ONE_CLICK))
        assert said == "550 5.6.0 The From field cannot be read: write Name <user@domain>"


@pytest.mark.parametrize(
    "author", ["root (Cron Daemon)", "MAILER-DAEMON", "<>", "undisclosed:;", "a@[192.0.2.1]"]
)
async def test_mail_of_programs_that_name_nobody_goes_on(tmp_path: Path, author: str) -> None:
    async with house(tmp_path, credential=NETWORK) as one:
        one.daemon.plans._is_idle = False
        assert (await one.send("b@dst.test", content=mail_of(author))).startswith("250 ")


async def test_a_domain_that_was_just_added_is_judged_from_its_first_message_on(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        assert (await one.send("b@dst.test", content=mail_of())).startswith("250 ")
        with DomainStore(tmp_path / "spool") as store:
            store.put(
                SendingDomain("src.test", streams=("transactional",), unsigned="send", keys=(active(),))
            )
        one.daemon.plans._looked = -1.0
        said = await one.send("b@dst.test", content=mail_of(more=ONE_CLICK))
        assert said.endswith("(check stream)")


async def test_a_signature_of_the_default_domain_counts_where_it_is_aligned(tmp_path: Path) -> None:
    identity = IdentitySettings(default="src.test")  # type: ignore[arg-type]
    async with house(tmp_path, guard=GuardSettings({"alignment": "enforce"}), identity=identity) as one:
        with DomainStore(tmp_path / "spool") as store:
            store.put(SendingDomain("src.test", unsigned="send", keys=(active(),)))
        one.daemon.plans._looked = -1.0
        for name in ("news.src.test", "src.test", "strict.test", "other.test"):
            await known(one, name, name)
        content = mail_of("a@news.src.test", ONE_CLICK)
        assert (await one.send("b@dst.test", content=content, sender="a@other.test")).startswith("250 ")
        content = mail_of("a@news.strict.test", ONE_CLICK)
        await known(one, "news.strict.test", "other.test")
        said = await one.send("b@dst.test", content=content, sender="a@other.test")
        assert "neither the signature of src.test nor the return path" in said


# One click


async def test_bulk_mail_without_one_click_is_refused_once_its_domain_was_added(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        assert (await one.send("b@dst.test", content=mail_of())).startswith("250 ")
        assert (await one.event(type="check", check="one-click"))["mode"] == "warn"
        added(one, sending())
        assert await one.send("b@dst.test", content=mail_of()) == (
            "550 5.7.1 Bulk mail needs a one-click unsubscription: add the field List-Unsubscribe: "
            "<https://...> (check one-click)"
        )
        assert (await one.send("b@dst.test", content=mail_of(more=ONE_CLICK))).startswith("250 ")
        body = mail_of()[:-2] + b"\r\n" + ONE_CLICK
        assert (await one.send("b@dst.test", content=body)).startswith("550 ")


async def test_a_receipt_needs_no_unsubscription(tmp_path: Path) -> None:
    async with house(tmp_path, credential=NETWORK) as one:
        added(one, sending())
        assert (await one.send("b@dst.test", content=mail_of())).startswith("250 ")
        await one.quiet()
        assert one.of(check="one-click") == []


# Modes


@pytest.mark.parametrize(
    ("guard", "stream", "code"),
    [("enforce", None, "550"), ("warn", None, "250"), ("enforce", "off", "250"), ("off", "enforce", "550")],
)
async def test_the_mode_of_the_stream_goes_above_that_of_the_guard(
    tmp_path: Path, guard: CheckMode, stream: CheckMode | None, code: str
) -> None:
    streams = {"bulk": Stream(checks={"one-click": stream} if stream else {})}
    async with house(tmp_path, guard=GuardSettings({"one-click": guard}), streams=streams) as one:
        assert (await one.send("b@dst.test", content=mail_of())).startswith(code)


async def test_where_all_are_off_nothing_is_asked(tmp_path: Path) -> None:
    off = GuardSettings({"alignment": "off", "key": "off", "one-click": "off"})
    async with house(tmp_path, guard=off) as one:
        assert (await one.send("b@dst.test", content=mail_of(), sender="a@other.test")).startswith("250 ")
        await one.quiet()
        assert one.of(type="check") == []
        assert len(one.daemon.records) == 0


async def test_another_policy_holds_from_the_next_message_on(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        assert (await one.send("b@dst.test", content=mail_of())).startswith("250 ")
        now = one.daemon.settings
        one.daemon.adopt(build(replace(now, guard=GuardSettings({"one-click": "enforce"}))))
        assert (await one.send("b@dst.test", content=mail_of())).startswith("550 ")


async def test_a_check_that_meets_a_bug_of_ours_lets_mail_go(tmp_path: Path) -> None:
    async with house(tmp_path, guard=GuardSettings({"key": "enforce"})) as one:
        one.daemon.checks._checks = (Check("key", At.ACCEPT, lambda mail, now: 1 / 0),)  # type: ignore[arg-type,return-value]
        assert (await one.send("b@dst.test")).startswith("250 ")
        assert one.daemon.metrics.bugs["guard"]._value.get() == 1


async def test_a_check_that_says_later_is_answered_with_the_seconds(tmp_path: Path) -> None:
    clock = HandClock()
    async with house(tmp_path, clock, guard=GuardSettings({"key": "enforce"})) as one:
        later = Check("key", At.ACCEPT, lambda mail, now: Wait(now + 30, "Its key is on its way"))
        never = Check("one-click", At.RCPT, lambda mail, now: Refuse("nobody asks this here"))
        one.daemon.checks._checks = (never, later)
        said = await one.send("b@dst.test", content=mail_of())
        assert said == "451 4.7.1 Its key is on its way; try again in 30 seconds (check key)"


# What is added


async def sent(
    directory: Path, content: bytes, domain: SendingDomain | None = None, **identity: Any
) -> bytes:
    async with ScriptedPeer(HELLO + TAKES) as peer:
        terms = settings(directory, routes=routed(peer.port), identity=IdentitySettings(**identity))
        async with running(terms, HandClock(), (BULK,)) as one:
            if domain is not None:
                added(one, domain)
            assert (await one.send("b@dst.test", content=content)).startswith("250 ")
            await one.event(type="delivery")
        return peer.calls[0].messages[0]


ASKED = {"feedback_id": "{stream}:{tenant}:{domain}:example", "complaints": "abuse@src.test"}


async def test_complaints_find_their_way_back(tmp_path: Path) -> None:
    content = mail_of("A <a@Src.test>", ONE_CLICK)
    head = (await sent(tmp_path, content, sending(), **ASKED)).partition(b"\r\n\r\n")[0]
    assert b"\r\nFeedback-ID: bulk:acme:src.test:example\r\n" in head
    assert b"\r\nCFBL-Address: abuse@src.test; report=arf\r\n" in head


async def test_what_the_application_says_of_complaints_stays(tmp_path: Path) -> None:
    more = b"feedback-id: a:b:c:d\r\nCFBL-ADDRESS: x@src.test\r\n"
    head = (await sent(tmp_path, mail_of(more=more), **ASKED)).partition(b"\r\n\r\n")[0].lower()
    assert (head.count(b"feedback-id"), head.count(b"cfbl-address")) == (1, 1)


async def test_a_signature_that_covers_a_missing_field_is_not_broken(tmp_path: Path) -> None:
    more = ONE_CLICK + b"DKIM-Signature: v=1; d=src.test; h=from : Feedback-ID\r\n"
    head = (await sent(tmp_path, mail_of(more=more), sending(), **ASKED)).partition(b"\r\n\r\n")[0]
    assert b"\r\nFeedback-ID:" not in head
    assert b"\r\nCFBL-Address:" in head


async def test_complaints_go_nowhere_where_no_signature_vouches_for_their_address(tmp_path: Path) -> None:
    assert b"CFBL" not in await sent(tmp_path, mail_of(more=ONE_CLICK), **ASKED)
    other = sending("other.test")
    assert b"CFBL" not in await sent(tmp_path / "2", mail_of("a@other.test", ONE_CLICK), other, **ASKED)


async def test_nothing_is_added_that_nobody_asked_for(tmp_path: Path) -> None:
    head = (await sent(tmp_path, mail_of())).partition(b"\r\n\r\n")[0]
    assert b"Feedback-ID" not in head
    assert b"CFBL" not in head


async def test_the_first_that_is_enforced_wins_over_warnings_before_it(tmp_path: Path) -> None:
    modes = GuardSettings({"alignment": "warn", "key": "enforce", "one-click": "enforce"})
    async with house(tmp_path, guard=modes) as one:
        for name in ("src.test", "other.test"):
            await known(one, name, name)
        said = await one.send("b@dst.test", content=mail_of(), sender="a@other.test")
        assert said.endswith("(check key)")
        await one.event(3, type="check")
        told = {each["check"]: each["mode"] for each in one.of(type="check")}
        assert told == {"alignment": "warn", "key": "enforce", "one-click": "enforce"}
