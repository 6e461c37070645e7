"""Failure notices as a mail reader and a program see them, whatever the peer and the author wrote."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest

from mta.core.mail.dsn import MAX_RETURNED, failure_notice
from mta.core.mail.message import has_bare_newline
from mta.core.model import Kind, Message, Option, Outcome, Reaction, Recipient, Reply, Scope, Subject, Verdict
from mta.core.queueid import QueueIds, text

NOW = 1_800_000_000.0
HEAD = b"From: a@src.test\r\nSubject: hello\r\n"
SAID = Reply(550, "5.1.1", "No such user")


def message(sender: str = "a@src.test", options: int = 0, message_id: str = "<m@src.test>") -> Message:
    queue_id = QueueIds(0).mint(NOW - 60)
    return Message(queue_id, sender, "acme", "bulk", "app", NOW, 10, message_id, options)


def outcome(reply: Reply = SAID, kind: Kind = Kind.BOUNCED, host: str = "mx.dst.test") -> Outcome:
    """What a peer said, where there is one."""
    verdict = Verdict(Subject.MAILBOX, False, False, "x", Reaction.NONE, Scope.MESSAGE) if host else None
    return Outcome(kind, Subject.MAILBOX, Scope.RECIPIENT, reply, host, "RCPT", verdict)


def notice(original: Message, *failed: tuple[str, Outcome], head: bytes = HEAD) -> Message:
    recipients = [(Recipient(n, address, "dst.test"), result) for n, (address, result) in enumerate(failed)]
    queue_id = QueueIds(0).mint(NOW)
    return failure_notice(
        original, recipients, head=head, notice_id=queue_id, hostname="mta.test", now=NOW, expires=NOW + 9
    )


def read(made: Message) -> EmailMessage:
    """Parsed, and fit for the wire."""
    assert made.content is not None
    assert not has_bare_newline(made.content)
    assert made.content.endswith(b"\r\n")
    assert b"\0" not in made.content
    assert made.size == len(made.content)
    assert max(map(len, made.content.split(b"\r\n"))) <= 998
    parsed = message_from_bytes(made.content, policy=policy.default)
    assert isinstance(parsed, EmailMessage)
    assert [part.defects for part in parsed.walk()] == [[]] * len(list(parsed.walk()))
    return parsed


def status(parsed: EmailMessage) -> list[dict[str, str]]:
    """The delivery-status part: of the message, then of each recipient."""
    part = list(parsed.iter_parts())[1]
    return [dict(block.items()) for block in part.get_payload()]


def test_a_notice_has_three_parts_and_no_sender() -> None:
    original = message()
    made = notice(original, ("b@dst.test", outcome()))
    assert (made.sender, made.credential, made.tenant, made.stream) == ("", "", "acme", "bulk")
    (recipient,) = made.recipients
    assert (recipient.n, recipient.address, recipient.domain) == (0, "a@src.test", "src.test")
    assert made.options == Option.EIGHTBIT
    assert made.whole
    assert made.expires == NOW + 9
    parsed = read(made)
    assert parsed["From"] == "Mail delivery <postmaster@mta.test>"
    assert parsed["To"] == "a@src.test"
    assert parsed["Auto-Submitted"] == "auto-replied"
    assert parsed["Message-ID"] == made.message_id == f"<{text(made.id)}@mta.test>"
    assert parsed["Date"].datetime.timestamp() == NOW
    assert parsed["Content-Type"].params["report-type"] == "delivery-status"
    kinds = [part.get_content_type() for part in parsed.iter_parts()]
    assert kinds == ["text/plain", "message/delivery-status", "text/rfc822-headers"]


def test_what_people_and_programs_are_told() -> None:
    original = message()
    gone = outcome(Reply(451, "4.4.1", "No host answered; it is tried again: mx: No route"), Kind.EXPIRED, "")
    parsed = read(notice(original, ("b@dst.test", outcome()), ("c@dst.test", gone)))
    explanation, _, returned = parsed.iter_parts()
    assert explanation.get_content().replace("\r\n", "\n") == (
        "The mail system at mta.test could not deliver your message\n"
        "<m@src.test> to the recipients below, and has given up.\n"
        "\n<b@dst.test>\n    was refused by mx.dst.test:\n    550 5.1.1 No such user\n"
        "\n<c@dst.test>\n    could not be delivered in the time it was given:\n"
        "    No host answered: mx: No route\n"
    )
    of_message, *of_recipients = status(parsed)
    assert of_message == {
        "Reporting-MTA": "dns; mta.test",
        "X-Queue-ID": text(original.id),
        "Arrival-Date": "Fri, 15 Jan 2027 07:59:00 -0000",
    }
    assert of_recipients == [
        {
            "Final-Recipient": "rfc822; b@dst.test",
            "Action": "failed",
            "Status": "5.1.1",
            "Remote-MTA": "dns; mx.dst.test",
            "Diagnostic-Code": "smtp; 550 5.1.1 No such user",
        },
        {
            "Final-Recipient": "rfc822; c@dst.test",
            "Action": "failed",
            "Status": "4.4.1",
            "Diagnostic-Code": "x-local; No host answered: mx: No route",
        },
    ]
    assert "Subject: hello" in returned.get_payload()


@pytest.mark.parametrize(
    ("kind", "reply", "expected"),
    [
        (Kind.EXPIRED, Reply(421, "", "busy"), "4.4.7"),
        (Kind.EXPIRED, Reply(452, "4.2.2", "full"), "4.2.2"),
        (Kind.EXPIRED, Reply(552, "5.2.2", "full"), "5.2.2"),
        (Kind.AMBIGUOUS, Reply(451, "4.4.2", "lost"), "4.4.2"),
        (Kind.BOUNCED, Reply(554, "", "no"), "5.0.0"),
        (Kind.BOUNCED, Reply(554, "5.7.1", "no"), "5.7.1"),
        (Kind.EXPIRED, Reply(451, "4.7.500", "no"), "4.7.500"),
        (Kind.BOUNCED, Reply(450, "4.1.1", "who?"), "5.1.1"),
    ],
)
def test_the_class_of_a_status_says_whether_it_was_refused_or_given_up(
    kind: Kind, reply: Reply, expected: str
) -> None:
    assert status(read(notice(message(), ("b@dst.test", outcome(reply, kind)))))[1]["Status"] == expected


@pytest.mark.parametrize(
    "said",
    [
        "one\ntwo\nthree",
        "x" * 2000,
        "\N{SNOWMAN}" * 900,
        "nul \0 bell \a escape \x1b[2J",
        "a\x0bb\x0cc\x1cd\x85e\u2028f",
        "--=_d331e500000--",
    ],
)
@pytest.mark.parametrize("options", [0, Option.SMTPUTF8])
def test_a_peer_that_says_what_does_not_fit_on_a_line(said: str, options: int) -> None:
    made = notice(message(options=options), ("b@dst.test", outcome(Reply(550, "5.0.0", said))))
    diagnostic = status(read(made))[1]["Diagnostic-Code"] if not options else ""
    assert diagnostic.isascii()
    assert read(made).get_content_type() == "multipart/report"


def test_an_author_whose_message_id_and_header_block_are_endless() -> None:
    head = HEAD + b"X: " + b"y" * 70 * 1024
    assert notice(message(), ("b@dst.test", outcome()), head=head).size < MAX_RETURNED + 4096
    read(notice(message(message_id=f"<{'m' * 996}>"), ("b@dst.test", outcome())))
    read(notice(message(message_id="<\N{SNOWMAN}\0@src.test>"), ("b@dst.test", outcome())))


def test_a_header_block_of_eight_bits_is_returned_as_it_is() -> None:
    made = notice(message(), ("b@dst.test", outcome()), head=b"Subject: \xff\xfe\r\n")
    assert read(made)["Content-Transfer-Encoding"] == "8bit"
    assert made.content is not None
    assert b"\r\n\r\nSubject: \xff\xfe\r\n\r\n--" in made.content


def test_addresses_beyond_ascii() -> None:
    made = notice(message("jörg@bücher.test", Option.SMTPUTF8), ("δοκιμή@dst.test", outcome()))
    assert made.recipients[0].address == "jörg@bücher.test"
    assert made.recipients[0].domain == "xn--bcher-kva.test"
    assert made.options == Option.EIGHTBIT | Option.SMTPUTF8
    kinds = [part.get_content_type() for part in read(made).iter_parts()]
    assert kinds == ["text/plain", "message/global-delivery-status", "message/global-headers"]
    assert made.content is not None
    assert "Final-Recipient: utf-8; δοκιμή@dst.test\r\n".encode() in made.content


def test_what_is_for_the_operator_does_not_go_to_the_sender() -> None:
    said = "the MX records of dst.test cannot be looked up (Timed out (x): 192.0.2.53); we will ask again"
    gone = Outcome(Kind.EXPIRED, Subject.DNS, Scope.RECIPIENT, Reply(451, "4.4.3", said))
    made = notice(message(), ("b@dst.test", gone))
    assert status(read(made))[1]["Diagnostic-Code"] == (
        "x-local; the MX records of dst.test cannot be looked up"
    )
    assert made.content is not None
    assert b"192.0.2.53" not in made.content


@pytest.mark.parametrize(
    ("sender", "recipient", "head", "utf8", "kinds"),
    [
        ("a@src.test", "b@dst.test", HEAD, False, ("delivery-status", "rfc822-headers")),
        ("a@bücher.test", "b@dst.test", HEAD, False, ("delivery-status", "rfc822-headers")),
        ("a@src.test", "bé@dst.test", HEAD, False, ("global-delivery-status", "rfc822-headers")),
        ("a@src.test", "b@dst.test", "Subject: é\r\n".encode(), False, ("delivery-status", "global-headers")),
        ("a@src.test", "b@dst.test", b"Subject: \xe9\r\n", False, ("delivery-status", "rfc822-headers")),
        ("ä@src.test", "b@dst.test", HEAD, True, ("delivery-status", "global-headers")),
    ],
)
def test_utf8_only_where_it_is_needed(
    sender: str, recipient: str, head: bytes, utf8: bool, kinds: tuple[str, str]
) -> None:
    """Whatever the client declared: a notice that the sender's server refuses is heard by nobody."""
    made = notice(message(sender, Option.SMTPUTF8), (recipient, outcome()), head=head)
    assert bool(made.options & Option.SMTPUTF8) is utf8
    assert made.recipients[0].address.isascii() is not utf8
    assert made.content is not None
    assert made.content.partition(b"\r\n\r\n")[0].isascii() is not utf8
    parts = list(message_from_bytes(made.content).get_payload())[1:]
    assert tuple(part.get_content_subtype() for part in parts) == kinds
    eight = [
        any(octet > 127 for octet in part.as_bytes(policy=policy.SMTP).partition(b"\r\n\r\n")[2])
        for part in parts
    ]
    for part, needs in zip(parts, eight, strict=True):
        assert part["Content-Transfer-Encoding"] == "8bit" or not needs


def test_a_notice_about_mail_that_requires_tls_requires_it_too() -> None:
    failed = ("b@dst.test", outcome())
    assert notice(message(options=Option.REQUIRE_TLS), failed).options & Option.REQUIRE_TLS
    assert not notice(message(), failed).options & Option.REQUIRE_TLS
