"""Reply rules: what the shipped ones make of real replies, and the ways of rules and status codes."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from mta.config.rules import MAX_STEPS, SHIPPED, Entry, load, steps
from mta.core.answers.classify import broken, outcomes
from mta.core.answers.dialogue import Left, Transaction
from mta.core.answers.logline import quoted
from mta.core.answers.reply import ReplyError
from mta.core.answers.rules import (
    CACHED,
    LONGEST,
    MAX_TEXT,
    SHORTEST,
    TRUSTED,
    RetryClass,
    Rule,
    RuleSet,
    plain,
    stated_wait,
)
from mta.core.answers.status import CLASSES, Span
from mta.core.model import Kind, Message, Reaction, Recipient, Reply, Scope, Subject, Verdict

RULES = load()
HOST = "mx.dst.test"


def verdict(line: str, stage: str = "", provider: str | None = None) -> Verdict:
    reply, told = quoted(line)
    return RULES.judge(reply, stage or told, provider)


def short(found: Verdict) -> tuple[str, bool, bool, str, str]:
    return found.subject.value, found.permanent, found.suppress, found.reaction.value, found.scope.value


# What matters most: no list, no content, no policy, no full mailbox ever costs an address.


@pytest.mark.parametrize(
    ("line", "subject"),
    [
        ("550 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using Spamhaus", "source"),
        ("550 5.1.1 rejected, 192.0.2.1 is listed at zen.spamhaus.org", "source"),
        ("554 5.7.1 <x@dst.test>: Client host [192.0.2.1] blocked using bl.spamcop.net", "source"),
        ("550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. block list (S3150)", "source"),
        ("553 5.7.1 [BL21] Connections will not be accepted from 192.0.2.1", "source"),
        ("550-5.7.1 likely unsolicited mail. 550 5.7.1 this message has been blocked. - gsmtp", "message"),
        ("550 5.7.1 Message rejected as spam by Content Filtering", "message"),
        ("554 5.7.1 virus found", "message"),
        ("550 5.7.26 Your email has been blocked because the sender is unauthenticated. Gmail", "sender"),
        ("550 5.7.1 Email rejected per DMARC policy for example.com", "sender"),
        ("550 5.1.1 <a@src.test>: Sender address rejected: User unknown", "sender"),
        ("552 5.2.2 Over quota", "mailbox"),
        ("550 5.2.2 user quota exceeded", "mailbox"),
        ("552 5.1.1 Recipient overquota OFR_417 [417]", "mailbox"),
        ("554 5.7.1 <x@dst.test>: Relay access denied", "destination"),
        ("550 5.7.1 Unable to relay", "destination"),
        ("550 5.4.1 Recipient address rejected: Access denied. AS(201806281)", "recipient"),
        ("550 Requested action not taken: mailbox unavailable", "recipient"),
        ("550 Administrative prohibition", "policy"),
        ("550 5.7.1 User unknown", "recipient"),
        ("550 4.1.1 User unknown", "recipient"),
        ("450 4.1.1 User unknown", "recipient"),
        ("550", "unknown"),
        ("554 Transaction failed", "unknown"),
        ("550 5.2.1 Mailbox disabled", "mailbox"),
        ("554 5.4.6 Too many hops", "destination"),
        ("552 5.3.4 Message too large", "message"),
        ("421 4.7.1 too many unknown users from your address", "source"),
        ("550 the domain in MAIL FROM doesn't have a valid MX, user@src.test unknown", "sender"),
    ],
)
def test_an_answer_about_anything_else_never_suppresses_the_address(line: str, subject: str) -> None:
    for provider in (None, "", *RULES.providers):
        for stage in ("", "CONNECT", "MAIL", "RCPT", "DATA", "."):
            assert not verdict(line, stage, provider).suppress, (provider, stage)
    assert verdict(line, "RCPT").subject.value == subject


@pytest.mark.parametrize(
    "line",
    [
        "550 5.1.1 <x@dst.test>: Recipient address rejected: User unknown in virtual mailbox table",
        "550 5.1.1 whatever it is called here",
        "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup",
        "556 5.1.10 Recipient address has null MX",
        "550-5.1.1 The email account that you tried to reach does not exist. 550 5.1.1 - gsmtp",
        "550 5.2.1 The email account that you tried to reach is inactive. - gsmtp",
        "550 No such user here",
        "553 sorry, no mailbox here by that name (#5.1.1)",
        "550 5.1.6 recipient no longer on server: x@icloud.com",
        "552 1 Requested mail action aborted, mailbox not found",
        "554 delivery error: dd This user doesn't have a yahoo.com account (x) [0]",
        "550 5.1.1 Not our Customer",
        "550 Benutzer unbekannt",
        "550 Adresse d au moins un destinataire invalide. Invalid recipient. OFR_416",
        "550 Пользователь не найден",
        "550 <spam@dst.test>: no such user",
    ],
)
def test_proof_that_the_mailbox_is_no_more_suppresses_it_at_rcpt_only(line: str) -> None:
    found = verdict(line, "RCPT")
    assert (found.permanent, found.suppress, found.reaction) == (True, True, Reaction.BOUNCE)
    assert found.scope is Scope.RECIPIENT
    assert not verdict(line, "MAIL").suppress
    assert not verdict(line, "DATA").suppress or found.rule == "microsoft-unknown-user"
    assert not verdict("450" + line[3:].replace("550", "450").replace("5.", "4.", 1), "RCPT").suppress


def test_yahoo_tells_of_an_unknown_user_after_the_dot_and_others_do_not() -> None:
    assert verdict("554 delivery error: dd This user doesn't have a yahoo.com account", ".", "yahoo").suppress
    assert not verdict("550 5.1.1 No such user", ".", "").suppress


# 5yz that means later, and 4yz that means never


@pytest.mark.parametrize(
    ("line", "provider", "expected"),
    [
        ("550 5.5.3 Too many recipients", "", ("connection", False, False, "retry", "connection")),
        ("552 too many recipients", "", ("connection", False, False, "retry", "connection")),
        ("554 5.7.1 Message rate limit exceeded", "", ("rate", False, False, "reduce", "site")),
        ("550 5.7.28 Mail flood detected", "", ("rate", False, False, "reduce", "site")),
        ("550 4.4.7 Message expired", "", ("destination", False, False, "retry", "recipient")),
        ("550 Greylisted, try again in 5 minutes", "", ("policy", False, False, "retry", "recipient")),
        ("550 Too many connections from your host", "", ("connection", False, False, "reduce", "site")),
        ("550 Domain frequency limited", "qq", ("rate", False, False, "reduce", "tenant")),
        ("550 Mailbox unavailable or access denied", "qq", ("mailbox", False, False, "retry", "recipient")),
        ("550-5.4.5 Daily user sending limit exceeded. 550 5.4.5 - gsmtp", "google",
         ("rate", False, False, "suspend", "tenant")),
        ("550 5.2.1 The user is receiving mail at a rate that prevents", "google",
         ("mailbox", False, False, "retry", "recipient")),
        ("550 ME Service refuse. Veuillez essayer plus tard. OFR006_103 [103]", "orange",
         ("rate", False, False, "suspend", "source")),
        ("550 5.7.508 Access denied, [2001:db8::1] has exceeded permitted limits", "office365",
         ("rate", False, False, "reduce", "source")),
        ("450 4.1.1 <x@dst.test>: User unknown", "", ("recipient", False, False, "retry", "recipient")),
        ("451 4.7.1 please register at our site first", "", ("policy", False, False, "retry", "recipient")),
        ("421 4.7.1 [TS03] All messages from 192.0.2.1 permanently deferred", "yahoo",
         ("source", False, False, "suspend", "source")),
    ],
)  # fmt: skip
def test_the_words_hold_where_the_figures_are_wrong(
    line: str, provider: str, expected: tuple[str, bool, bool, str, str]
) -> None:
    assert short(verdict(line, "RCPT", provider)) == expected


@pytest.mark.parametrize("stage", ["CONNECT", "MAIL", "RCPT", "DATA", "."])
def test_a_421_is_about_the_connection_unless_a_rule_knows_better(stage: str) -> None:
    assert short(verdict("421 4.3.0 closing", stage, "")) == (
        "connection",
        False,
        False,
        "retry",
        "connection",
    )
    assert short(verdict("421 4.1.1 closing", stage, ""))[0] == "connection"
    assert verdict("421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred", stage, "yahoo").rule == (
        "yahoo-complaints"
    )
    assert verdict("421 4.3.2 Service shutting down", stage, "").reaction is Reaction.NEXT_MX


@pytest.mark.parametrize(
    "line",
    [
        "450 4.2.0 <x@dst.test>: Recipient address rejected: Greylisted, see http://postgrey.test/help",
        "451 4.7.1 Greylisting in action, please come back in 00:04:59",
        "451 4.7.1 x@dst.test grey-listed, try again later",
        "450 4.7.1 Graylisting in effect",
        "451 4.7.1 Service unavailable - try again later",
        "450 4.2.0 <x@dst.test>: Recipient address rejected: please try again later",
        "451 Temporarily deferred - please retry later",
        "421 4.7.0 Greylisted",
        "451 4.7.1 Sorry, the service is currently unavailable. Please come back later.",
    ],
)
def test_greylisting_in_its_many_words_is_no_reason_to_send_slower(line: str) -> None:
    found = verdict(line, "RCPT")
    assert (found.subject, found.retry, found.reaction) == (Subject.POLICY, "greylist", Reaction.RETRY)
    assert not found.permanent


# The order: the provider's own, everybody's, the enhanced code, the code


def test_a_providers_own_rule_goes_before_everybodys() -> None:
    line = "451 4.7.1 Service unavailable - try again later"
    assert verdict(line, "RCPT", "apple").rule == "apple-busy"
    assert verdict(line, "RCPT", "yahoo").rule == "try-again-later"
    assert verdict(line, "RCPT", "").rule == "try-again-later"
    assert verdict(line, "RCPT", None).rule == "try-again-later"  # common words do not tell who speaks


@pytest.mark.parametrize(
    ("line", "stage", "name", "subject", "permanent"),
    [
        ("550 5.1.1 x", "RCPT", "status-1.1", "recipient", True),
        ("550 5.1.2 x", "RCPT", "status-1.2", "recipient", True),
        ("550 5.1.1 x", "MAIL", "status-1.1", "sender", True),
        ("550 5.1.8 x", "RCPT", "status-1.8", "sender", True),
        ("450 4.2.1 x", "RCPT", "status-2.1", "mailbox", False),
        ("552 5.2.2 x", "RCPT", "status-2.2", "mailbox", False),
        ("550 5.2.2 x", "RCPT", "status-2.2", "mailbox", True),
        ("552 5.2.3 x", "RCPT", "status-2.3", "message", True),
        ("452 4.3.1 x", "MAIL", "status-3.1", "destination", False),
        ("552 5.3.4 x", ".", "status-3.4", "message", True),
        ("451 4.4.1 x", "RCPT", "status-4.1", "network", False),
        ("451 4.4.2 x", "RCPT", "status-4.2", "connection", False),
        ("451 4.4.3 x", "RCPT", "status-4.3", "dns", False),
        ("554 5.4.6 x", "RCPT", "status-4.6", "destination", True),
        ("550 5.4.7 x", ".", "status-4.7", "destination", False),
        ("503 5.5.1 x", "DATA", "status-5.1", "connection", True),
        ("552 5.5.3 x", "RCPT", "status-5.3", "connection", False),
        ("550 5.6.0 x", ".", "status-6.0", "message", True),
        ("553 5.6.7 x", "RCPT", "status-6.7", "destination", True),
        ("550 5.7.1 x", "RCPT", "status-7.1", "policy", True),
        ("530 5.7.10 x", "MAIL", "status-7.10", "tls", True),
        ("550 5.7.20 x", ".", "status-7.20", "sender", True),
        ("550 5.7.25 x", "RCPT", "status-7.25", "source", True),
        ("451 4.7.28 x", "RCPT", "status-7.28", "rate", False),
        ("550 5.7.999 x", "RCPT", "status-7", "policy", True),
        ("550 5.9.1 x", "RCPT", "status-8", "unknown", True),
        ("550 x", "RCPT", "code-550", "unknown", True),
        ("550 x", "MAIL", "code-550", "sender", True),
        ("554 x", "CONNECT", "code-554", "source", True),
        ("552 x", "RCPT", "code-552", "unknown", False),
        ("552 x", ".", "code-552", "unknown", True),
        ("553 x", "RCPT", "code-553", "recipient", True),
        ("451 x", "RCPT", "code-451", "destination", False),
        ("454 x", "STARTTLS", "code-454", "tls", False),
        ("354 x", ".", "code-354", "connection", False),
    ],
)
def test_without_a_rule_the_codes_decide(
    line: str, stage: str, name: str, subject: str, permanent: bool
) -> None:
    found = verdict(line, stage, "")
    assert (found.rule, found.subject.value, found.permanent) == (name, subject, permanent)
    assert found.retry == ("" if permanent else CLASSES[found.subject])


def test_what_was_taken_needs_no_reaction() -> None:
    assert short(verdict("250 2.0.0 taken", ".")) == ("recipient", False, False, "none", "recipient")


def test_addresses_in_the_text_are_nobodys_verdict() -> None:
    assert verdict("550 5.1.1 <dmarc-spam@dst.test>: no such user", "RCPT", "").rule == "unknown-user"
    assert plain("A  <b@c.test>:\nD") == "a d"


# Times that a peer names


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("try again in 5 minutes", 300),
        ("Greylisted for 300 seconds", 300),
        ("please come back in 00:04:59", 299),
        ("please come back in 1:00:00", 3600),
        ("Retry-After: 120", 120),
        ("please retry after 90 sec.", 90),
        ("try again after 30 min(s)", 1800),
        ("wait 60s", 60),
        ("try again in an hour", 3600),
        ("try again in 2 hrs", 7200),
        ("delayed for 10 min", 600),
        ("bitte versuchen Sie es in 10 Minuten erneut", 600),
        ("erneut in 2 Stunden", 7200),
        ("Veuillez réessayer dans 2 heures", 7200),
        ("inténtelo de nuevo en 3 horas", 10800),
        ("riprova tra 15 minuti", 900),
        ("tente novamente em 45 segundos", 45),
        ("повторите через 5 минут", 300),
        ("请5分钟后重试", 300),
        ("try again in 1 second", SHORTEST),
        ("try again in 0 seconds", SHORTEST),
        ("try again in 999999 hours", LONGEST),
        ("try again later", None),
        ("try again later; at most 100 messages in 60 minutes", None),
        ("you sent 100 messages in 60 minutes", None),
        ("greylisted, see http://192.0.2.10/h", None),
        ("deferred by 10.0.0.5 seconds ago", None),
        ("try again in \u0665 minutes", None),
        ("retry after: \uff15\uff10", None),
    ],
)
def test_a_stated_wait_is_read_in_many_words_and_kept_in_bounds(text: str, seconds: float | None) -> None:
    assert stated_wait(plain(text)) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Greylisted, please come back in 00:04:55", 295),
        ("Please wait 00:03:00", 180),
        ("greylisted for 0:10:00", 600),
        ("try again in 01:00:00", 3600),
        ("Greylisted, try again at 23:59:59", None),
        ("Greylisted, retry after 14:05:10 UTC", None),
        ("retry after 00:05:00 GMT", None),
        ("retry at 23:59", None),
        ("try again until 00:30:00", None),
        ("try again after 00:30:00 pm", None),
        ("try again at 5 pm", None),
        ("réessayer à 23h", None),
        ("erneut versuchen um 23 Stunden", None),
    ],
)
def test_a_time_of_day_is_no_wait(text: str, seconds: float | None) -> None:
    """It kept mail for a day where minutes were meant."""
    assert stated_wait(plain(text)) == seconds


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("(ann@dst.test:blocked) no", ":blocked) no"),
        ("<ann@dst.test>: no", "no"),
        ("<a@x.test>,<b@x.test>:who", ">:who"),
        ("@" + ":" * 1000, ""),
        ("x@" + ":a" * 400, ":a" * 400),
    ],
)
def test_what_hangs_on_an_address_stays(text: str, kept: str) -> None:
    assert plain(text) == kept


def test_a_permanent_answer_has_no_wait_whatever_it_states() -> None:
    found = verdict("550 5.1.1 No such user, try again in 5 minutes", "RCPT")
    assert (found.permanent, found.wait, found.retry) == (True, None, "")


def test_a_wait_that_the_peer_states_goes_before_the_rules() -> None:
    found = verdict("451 Internal resource temporarily unavailable, retry in 3 minutes", "RCPT", "mimecast")
    assert (found.rule, found.wait, found.stated) == ("mimecast-greylist", 180.0, True)
    found = verdict("451 Internal resource temporarily unavailable", "RCPT", "mimecast")
    assert (found.wait, found.stated) == (60.0, False)


def test_a_peer_that_names_a_short_time_for_ever_is_not_asked_for_ever() -> None:
    found = verdict("451 4.7.1 Greylisted, try again in 60 seconds", "RCPT")
    waits = [RULES.wait(found, attempts) for attempts in range(1, 8)]
    assert waits[:TRUSTED] == [60.0] * TRUSTED
    greylist = RULES.retries["greylist"]
    assert waits[TRUSTED:] == [greylist.wait(attempts) for attempts in range(TRUSTED + 1, 8)]
    assert RULES.wait(found, 1000) == greylist.maximum


def test_each_class_has_its_own_schedule() -> None:
    pace = RetryClass(60.0, 2.0, 200.0)
    assert [pace.wait(attempts) for attempts in (0, 1, 2, 3, 10**6)] == [60.0, 60.0, 120.0, 200.0, 200.0]
    for line in ("452 4.2.2 mailbox full", "451 4.7.1 Greylisted", "451 4.4.1 x", "450 x", "451 4.7.1 x"):
        found = verdict(line, "RCPT", "")
        assert RULES.wait(found, 1) == RULES.retries[found.retry].first
    assert verdict("452 4.2.2 mailbox full", "RCPT", "").retry == "mailbox"
    assert (
        RULES.wait(verdict("421 4.7.28 unusual rate of mail from your IP address", "", "google"), 1) == 1800.0
    )


# Rules that contradict themselves


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"phrases": ()}, "fits every answer"),
        ({"reaction": Reaction.RETRY}, "leave `reaction` out"),
        ({"suppress": True, "subject": Subject.POLICY}, "only what is about a recipient"),
        ({"suppress": True, "permanent": False}, "is not tried again"),
        ({"suppress": True, "enhanced": (Span.read("5.7.1"),)}, "never suppresses"),
        ({"permanent": True, "wait": 60.0}, "has no retry and no wait"),
        ({"permanent": True, "retry": "rate"}, "has no retry and no wait"),
        ({"wait": 5.0}, "between 30s and 24h"),
        ({"wait": 1e6}, "between 30s and 24h"),
        ({"common": True}, "names none"),
    ],
)
def test_a_rule_that_contradicts_itself_is_refused(change: dict[str, object], words: str) -> None:
    sound = Rule("r", Subject.RECIPIENT, phrases=("x",))
    with pytest.raises(ValueError, match=re.escape(words)):
        replace(sound, **change)  # type: ignore[arg-type]


def test_whatever_a_rule_says_policy_and_full_mailboxes_do_not_suppress() -> None:
    rules = RuleSet([Rule("r", Subject.RECIPIENT, phrases=("x",), suppress=True)], RULES.retries)
    assert rules.judge(Reply(550, "", "x"), "RCPT").suppress
    for reply in (
        Reply(550, "5.7.1", "x"),
        Reply(550, "5.2.2", "x"),
        Reply(450, "", "x"),
        Reply(550, "4.1.1", "x"),
    ):
        assert not rules.judge(reply, "RCPT").suppress
    assert not rules.judge(Reply(550, "", "x"), ".").suppress


# Outcomes


def ended(*rcpts: str, dot: str = "") -> Transaction:
    named = [Recipient(n, f"r{n}@dst.test", "dst.test") for n in range(len(rcpts))]
    message = Message(1, "a@src.test", "t", "s", "c", 0.0, 1, "<1@src.test>", 0, named)
    transaction = Transaction(message, message.sender, named, b"")
    transaction.mail_reply = Reply(250, "", "ok")
    transaction.rcpt_replies = [quoted(each)[0] for each in rcpts]
    transaction.accepted = sum(each.code < 300 for each in transaction.rcpt_replies)
    transaction.dot_reply = quoted(dot)[0] if dot else None
    return transaction


def yahoo(reply: Reply, stage: str) -> Verdict:
    return RULES.judge(reply, stage, "yahoo")


def test_an_outcome_carries_the_verdict_of_its_reply() -> None:
    first, second = outcomes(ended("250 ok", "550 5.1.1 No such user", dot="250 ok"), HOST, yahoo)
    assert (first.kind, first.verdict) == (Kind.DELIVERED, None)
    assert second.verdict is not None
    assert (second.kind, second.subject, second.verdict.suppress) == (Kind.BOUNCED, Subject.RECIPIENT, True)


def test_later_in_5yz_words_is_a_deferral() -> None:
    (only,) = outcomes(ended("554 5.7.1 Message rate limit exceeded"), HOST, yahoo)
    assert only.verdict is not None
    assert (only.kind, only.scope, only.verdict.retry) == (Kind.DEFERRED, Scope.SITE, "rate")


@pytest.mark.parametrize(("rcpts", "suppress"), [(["250 ok"], True), (["250 ok", "250 ok"], False)])
def test_an_unknown_user_after_the_dot_is_known_only_where_one_was_meant(
    rcpts: list[str], suppress: bool
) -> None:
    dot = "554 delivery error: dd This user doesn't have a yahoo.com account"
    for each in outcomes(ended(*rcpts, dot=dot), HOST, yahoo):
        assert each.verdict is not None
        assert (each.kind, each.verdict.suppress) == (Kind.BOUNCED, suppress)


def test_a_421_that_cuts_a_transaction_short_is_judged() -> None:
    transaction = ended("250 ok")
    transaction.ended_by = quoted("421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred")[0]
    outcome = broken(Left(transaction, True), HOST, yahoo)
    assert outcome.verdict is not None
    assert (outcome.kind, outcome.subject, outcome.verdict.rule) == (
        Kind.DEFERRED, Subject.RATE, "yahoo-complaints",
    )  # fmt: skip


# Texts that mean harm


class Counted(str):
    """A text that counts how often somebody looks for something in it."""

    looks = 0

    def __contains__(self, part: object) -> bool:
        Counted.looks += 1
        return super().__contains__(part)  # type: ignore[operator]


def test_the_steps_for_the_worst_text_are_bounded_before_any_text_is_seen() -> None:
    patterns = [pattern.pattern for rule in RULES.rules for pattern in rule.patterns]
    assert max(map(steps, patterns)) <= MAX_STEPS
    # Each pattern at each letter of the longest text: what no text can exceed.
    assert sum(map(steps, patterns)) * MAX_TEXT < 2_000_000


def test_a_long_text_is_cut_before_anything_is_looked_for() -> None:
    long = "spamhaus " * 10 + "x" * 32768
    assert len(plain(long)) <= MAX_TEXT
    assert verdict_of("x " * MAX_TEXT + "spamhaus") == "status-7.1"
    assert verdict_of(long) == "spamhaus"
    Counted.looks = 0
    rules = [rule for rule in RULES.rules if not rule.providers]
    assert not any(rule.fits("299", None, Counted("y" * MAX_TEXT), "RCPT") for rule in rules)
    assert sum(len(rule.phrases) for rule in rules) >= Counted.looks > 0


def verdict_of(text: str) -> str:
    return RULES.judge(Reply(550, "5.7.1", text), "RCPT", "").rule


@pytest.mark.parametrize(
    "text",
    [
        "again " + "1" * 40000,
        "again " * 9000,
        "\0\r\n" * 10000,
        "ofr" * 9000,
        "İ" * 20000,
        "@" * 30000,
        "quota " * 6000,
    ],
)
def test_a_hostile_text_gets_a_verdict(text: str) -> None:
    for code in (421, 450, 550):
        assert RULES.judge(Reply(code, "", text), "RCPT").rule


def test_what_is_remembered_is_bounded() -> None:
    rules = load()
    for number in range(CACHED + 100):
        rules.judge(Reply(550, "5.1.1", f"no such user {number}"), "RCPT")
    assert rules.remembered == CACHED


# Replies as logs quote them


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("550 5.1.1 No such user", (550, "5.1.1", "No such user", "")),
        ("550-5.1.1 No 550-5.1.1 such 550 5.1.1 user", (550, "5.1.1", "No\nsuch\nuser", "")),
        ("550-5.1.1 No\\n550 5.1.1 user", (550, "5.1.1", "No\nuser", "")),
        ("550-5.1.1 No\\r\\n550 5.1.1 user\\r\\n", (550, "5.1.1", "No\nuser", "")),
        ("550 5.1.1 No\n550 user", (550, "5.1.1", "No\nuser", "")),
        (
            "554-a.test (mx) Nemesis 554-No SMTP service 554 bye",
            (554, "", "a.test (mx) Nemesis\nNo SMTP service\nbye", ""),
        ),
        ("421", (421, "", "", "")),
        (
            "host mx.dst.test[192.0.2.1] said: 550 5.1.1 No (in reply to RCPT TO command)",
            (550, "5.1.1", "No", "RCPT"),
        ),
        ("said: 554 5.7.1 spam (in reply to end of DATA command)", (554, "5.7.1", "spam", ".")),
        ("said: 554 5.7.1 no (in reply to MAIL FROM command)", (554, "5.7.1", "no", "MAIL")),
        ("smtp; 550 5.1.1 No", (550, "5.1.1", "No", "")),
        ("550 550 twice", (550, "", "550 twice", "")),
        (" \t550\t5.1.1\tNo \r\n", (550, "5.1.1", "No", "")),
        ("\ufeff550 5.1.1 No", (550, "5.1.1", "No", "")),
        (" " * 5000 + "550 5.1.1 No", (550, "5.1.1", "No", "")),
    ],
)
def test_a_quoted_reply_is_read_as_it_was_said(line: str, expected: tuple[int, str, str, str]) -> None:
    reply, stage = quoted(line)
    assert (reply.code, reply.enhanced, reply.text, stage) == expected


@pytest.mark.parametrize(
    "line",
    ["", "hello", "5501 x", "650 x", "\u0665\u0665\u0660 x", "5\uff15\uff10 x", "delivered to 192.0.2.1"],
)
def test_a_line_without_a_reply_is_told(line: str) -> None:
    with pytest.raises(ReplyError, match="no reply"):
        quoted(line)


def test_a_quoted_reply_without_an_end_is_cut() -> None:
    reply, _ = quoted("550-" + "x 550-" * 100_000)
    assert len(reply.text) <= 4096


# The file that is shipped


def test_where_the_provider_is_unknown_everybodys_examples_mean_the_same() -> None:
    for rule in RULES.rules:
        for example in rule.examples if not rule.providers else ():
            stage = "" if "RCPT" in rule.stages else min(rule.stages, default="")
            unknown, nobodys = verdict(example, stage, None), verdict(example, stage, "")
            assert unknown[:3] == nobodys[:3], example


def test_every_provider_that_was_asked_for_has_rules() -> None:
    assert set(RULES.providers) >= {
        "google", "microsoft", "office365", "yahoo", "apple", "orange", "gmx", "comcast", "mimecast",
        "mailru", "qq", "netease", "zoho", "barracuda",
    }  # fmt: skip


def test_the_head_of_the_file_explains_every_key() -> None:
    head = SHIPPED.read_text(encoding="utf-8").partition("\nretries:")[0]
    assert set(re.findall(r"(?m)^#   (\w+): ", head)) == set(Entry.__annotations__)
