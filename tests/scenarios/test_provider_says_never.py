"""Answers for good: who is unknown, what is refused, and who is on a list; whom each of them is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.peer import HELLO, TAKES, answers
from tests.fakes.relay import named, relaying

B = "b@dst.test"
GOOGLE = "aspmx.l.google.com"
MICROSOFT = "dst-test.mail.protection.outlook.com"
YAHOO = "mta5.am0.yahoodns.net"
LISTED = "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org"
AGAIN = "<- RSET\n" + TAKES.replace("-> 250 2.1.0 ok", "-> 250 reset\n-> 250 2.1.0 ok")


def unfolded(reply: str) -> str:
    """As the event has it: the codes of the first line only."""
    first, *others = reply.replace("-", " ", 1).splitlines()
    return "\n".join([first, *(each[4:].removeprefix(first.split()[1]).strip() for each in others)])


@pytest.mark.parametrize(
    ("mx", "stage", "reply"),
    [
        pytest.param(
            GOOGLE,
            "RCPT",
            "550-5.1.1 The email account that you tried to reach does not exist. Please try\n"
            "550-5.1.1 double-checking the recipient's email address for typos or\n"
            "550 5.1.1 unnecessary spaces. x - gsmtp",
            id="Gmail",
        ),
        pytest.param(
            GOOGLE,
            "RCPT",
            "550 5.2.1 The email account that you tried to reach is disabled. x - gsmtp",
            id="Gmail, disabled",
        ),
        pytest.param(
            MICROSOFT,
            "RCPT",
            "550 5.4.1 Recipient address rejected: Access denied. AS(201806281)",
            id="Microsoft 365, at RCPT",
        ),
        pytest.param(
            MICROSOFT,
            ".",
            "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found",
            id="Microsoft 365, at the dot",
        ),
        pytest.param(
            "dst-test.olc.protection.outlook.com",
            "RCPT",
            "550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302).",
            id="Outlook.com",
        ),
        pytest.param(
            YAHOO,
            ".",
            "554 delivery error: dd This user doesn't have a yahoo.com account",
            id="Yahoo, at the dot",
        ),
        pytest.param("", "RCPT", "550 5.1.1 User unknown in virtual mailbox table", id="Postfix"),
        pytest.param("", "RCPT", "550 No such user here", id="Exim"),
        pytest.param("", "RCPT", "554 Sorry, no mailbox here by that name. (#5.1.1)", id="qmail"),
        pytest.param("", "RCPT", "550 Benutzer nicht bekannt/User unknown", id="German"),
    ],
)
async def test_an_unknown_user_in_the_words_of(tmp_path: Path, mx: str, stage: str, reply: str) -> None:
    async with relaying(tmp_path, HELLO + answers(stage, reply), mx=mx) as relay:
        await relay.house.send(B)
        said = unfolded(reply) if "\n" in reply else reply
        assert await relay.told(2) == [f"reception {B}", f"bounce 1 {B} recipient: {said} ({stage})"]
        await relay.leap(7300)  # and that is all


@pytest.mark.parametrize(
    ("mx", "stage", "reply", "subject"),
    [
        pytest.param(
            GOOGLE,
            ".",
            "550-5.7.1 [192.0.2.1 12] Gmail has detected that this message is likely\n"
            "550-5.7.1 unsolicited mail. To reduce the amount of spam sent to Gmail, this\n"
            "550 5.7.1 message has been blocked. x - gsmtp",
            "message",
            id="spam, Gmail",
        ),
        pytest.param(
            "", ".", "554 5.7.1 Message rejected as spam by Content Filtering", "message", id="spam"
        ),
        pytest.param("", ".", "554 5.7.1 Your message contains malware: EICAR", "message", id="a virus"),
        pytest.param(
            "", ".", "552 5.7.0 Attachments of type .exe are not accepted here", "message", id="a file"
        ),
        pytest.param(
            GOOGLE,
            ".",
            "550 5.7.26 Your email has been blocked because the sender is unauthenticated. Gmail",
            "sender",
            id="no SPF and no DKIM, Gmail",
        ),
        pytest.param("", ".", "550 5.7.1 Email rejected per DMARC policy for src.test", "sender", id="DMARC"),
        pytest.param("", "MAIL", "550 5.7.23 SPF validation failed", "sender", id="SPF"),
        pytest.param(
            "",
            "RCPT",
            "550 5.1.1 <a@src.test>: Sender address rejected: User unknown",
            "sender",
            id="our sender",
        ),
        pytest.param("", "RCPT", "554 5.7.1 Relay access denied", "destination", id="relay denied"),
        pytest.param("", "RCPT", "550 5.7.1 Rejected by recipient", "policy", id="the recipient's wish"),
        pytest.param("", "MAIL", "530 5.7.0 Must issue a STARTTLS command first", "tls", id="STARTTLS"),
        pytest.param("", "MAIL", "530 5.7.0 Authentication required", "policy", id="AUTH"),
        pytest.param("", "DATA", "554 5.5.1 Error: no valid recipients", "connection", id="nobody is valid"),
        pytest.param("", "RCPT", "550", "unknown", id="without a word"),
    ],
)
async def test_refused_for_good_and_the_next_message_to_the_same_recipient_is_sent(
    tmp_path: Path, mx: str, stage: str, reply: str, subject: str
) -> None:
    following = TAKES if stage in ("MAIL", ".") else AGAIN
    async with relaying(tmp_path, HELLO + answers(stage, reply) + following, mx=mx) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.clock.advance(5)  # what the rate of a stranger asks for
        await relay.house.send(B)
        said = unfolded(reply) if "\n" in reply else reply
        assert await relay.told(4) == [
            f"reception {B}",
            f"bounce 1 {B} {subject}: {said} ({stage})",
            f"reception {B}",
            f"delivery 1 {B}: 250 2.0.0 taken (.)",
        ]


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "."])
async def test_on_a_blocklist_says_nothing_against_the_recipient(tmp_path: Path, stage: str) -> None:
    async with relaying(tmp_path, HELLO + answers(stage, LISTED), HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.leap(7300)  # whatever rest the source was given is over
        await relay.house.send(B)
        assert await relay.told(4) == [
            f"reception {B}",
            f"bounce 1 {B} source: {LISTED} ({stage})",
            f"reception {B}",
            f"delivery 1 {B}: 250 2.0.0 taken (.)",
        ]


@pytest.mark.parametrize(
    ("mx", "reply"),
    [
        pytest.param("", LISTED, id="Spamhaus"),
        pytest.param(
            YAHOO,
            "553 5.7.1 [BL21] Connections will not be accepted from 192.0.2.1, it is listed",
            id="Yahoo",
        ),
        pytest.param(
            "mx00.emig.gmx.net",
            "554-gmx.net (mxgmx104) Nemesis ESMTP Service not available\n554-No SMTP service\n"
            "554 IP address is block listed.",
            id="GMX",
        ),
    ],
)
async def test_on_a_blocklist_at_the_greeting_the_mail_is_kept(tmp_path: Path, mx: str, reply: str) -> None:
    said = "\n-> ".join(reply.splitlines())
    async with relaying(tmp_path, f"-> {said}\nclose", HELLO + TAKES, mx=mx) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.come_due()
        flat = " ".join(each[4:] for each in reply.splitlines())
        assert await relay.told(3) == [
            f"reception {B}",
            f"deferral 1 {B} source {named(7200)}: {reply[:3]} {flat} (CONNECT)",
            f"delivery 2 {B}: 250 2.0.0 taken (.)",
        ]


async def test_a_poor_reputation_at_the_greeting_is_about_us(tmp_path: Path) -> None:
    reply = "554 5.7.1 Your access has been rejected due to the sending MTA's poor reputation"
    async with relaying(tmp_path, f"-> {reply}\nclose", HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.told(2)
        await relay.come_due()
        assert await relay.told(3) == [
            f"reception {B}",
            f"deferral 1 {B} source {named(5400)}: {reply} (CONNECT)",
            f"delivery 2 {B}: 250 2.0.0 taken (.)",
        ]
