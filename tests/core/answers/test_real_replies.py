"""Replies of real receivers, hundreds of them, against what an experienced postmaster makes of each.

`tests/data/replies.txt` has them with their labels, and says how they are written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from mta.config.rules import load
from mta.core.answers.logline import quoted
from mta.core.answers.needles import Needles, literal
from mta.core.answers.rules import MAX_TEXT, Rule, plain
from mta.core.answers.status import Enhanced
from mta.core.model import Reply, Subject, Verdict

FILE = Path(__file__).parents[2] / "data" / "replies.txt"
LABEL = re.compile(
    r"(?P<subjects>[a-z|]+) (?P<permanence>permanent|transient|either)"
    r"(?: (?P<death>dead|perhaps-dead))?(?: wait=(?P<wait>\d+))?: (?P<line>[2-5]\d\d.*)"
)
RULES = load()


class Labelled(NamedTuple):
    """One line of the file."""

    place: str
    subjects: frozenset[str]
    permanence: str
    death: str
    wait: float | None
    line: str


def labelled() -> Iterator[Labelled]:
    for number, line in enumerate(FILE.read_text(encoding="utf-8").splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        found = LABEL.fullmatch(line)
        assert found, f"{FILE.name}:{number}: no label: {line[:80]!r}"
        wait = float(found["wait"]) if found["wait"] else None
        subjects = frozenset(found["subjects"].split("|"))
        assert subjects <= {subject.value for subject in Subject}, f"{FILE.name}:{number}: {subjects}"
        yield Labelled(
            f"{FILE.name}:{number}", subjects, found["permanence"], found["death"] or "", wait, found["line"]
        )


REPLIES = list(labelled())
SUPPRESSING = ["", *sorted({name for rule in RULES.rules if rule.suppress for name in rule.providers})]


def judged(line: str, provider: str | None = None, stage: str = "") -> Verdict:
    reply, told = quoted(line)
    return RULES.judge(reply, stage or told, provider)


def wrong(label: Labelled, found: Verdict) -> Iterator[str]:
    """What of a verdict is not as the label says."""
    if found.subject.value not in label.subjects:
        yield f"subject {found.subject.value}, not {'|'.join(sorted(label.subjects))}"
    if label.permanence != "either" and found.permanent != (label.permanence == "permanent"):
        yield f"permanent {found.permanent}, not {label.permanence}"
    if label.death != "perhaps-dead" and found.suppress != (label.death == "dead"):
        yield f"suppress {found.suppress}"
    if label.wait is not None and found.wait != label.wait:
        yield f"wait {found.wait}, not {label.wait}"


def test_each_reply_is_understood_as_a_postmaster_does() -> None:
    assert len(REPLIES) > 700
    verdicts = [(label, judged(label.line)) for label in REPLIES]
    complaints = [
        f"{label.place}: {', '.join(found)} ({verdict.rule}): {label.line[:100]}"
        for label, verdict in verdicts
        if (found := list(wrong(label, verdict)))
    ]
    assert not complaints, "\n".join(complaints)


def test_no_reply_is_there_twice_or_an_example_of_a_rule() -> None:
    seen = {quoted(example)[0]: rule.name for rule in RULES.rules for example in rule.examples}
    for label in REPLIES:
        reply = quoted(label.line)[0]
        assert reply not in seen, f"{label.place} is in {seen[reply]}"
        seen[reply] = label.place


def test_whoever_says_it_a_living_mailbox_is_not_suppressed() -> None:
    for label in REPLIES:
        if not label.death:
            for provider in SUPPRESSING:
                found = judged(label.line, provider, "RCPT")
                assert not found.suppress, f"{label.place} from {provider!r}: {found.rule}"


# What beside "no such user" speaks of somebody else, of something else, or of today only.
DOUBTS = [
    "Sender address rejected: {}", "Sender verify failed: {}", "Could not verify sender: {}",
    "{} in MAIL FROM", "callback failed: {}", "envelope from: {}", "{}, temporarily",
    "temporarily rejected: {}", "{} or mailbox full", "{}; mailbox over quota", "Message looks like spam: {}",
    "rejected as spam, {}", "virus found; {}", "192.0.2.1 blocked: {}",
    "your IP 192.0.2.1 is blacklisted; {}", "listed at zen.spamhaus.org: {}", "poor reputation; {}",
    "Greylisted: {}", "relay access denied: {}", "relaying denied: {}", "too many unknown users, {}",
    "rate limit exceeded; {}", "SPF fail: {}", "DMARC policy: {}", "{} or access denied",
    "{} or not permitted", "{} or you are not allowed to send to it", "authentication required: {}",
    "your domain example.org does not exist: {}", "{} - try again later", "internal error: {}",
    "LDAP error: {}", "lookup failed: {}", "database error: {}", "Service unavailable: {}",
    "{} (server busy)", "message too large: {}", "account suspended: {}",
]  # fmt: skip
DEATHS = [
    "No such user", "User unknown", "mailbox not found", "Invalid recipient", "user does not exist",
    "The email account that you tried to reach does not exist", "this address no longer exists",
    "account closed", "is unavailable: user not found", "has been disabled or discontinued",
    "RESOLVER.ADR.RecipientNotFound", "x",
]  # fmt: skip


@pytest.mark.parametrize("words", DOUBTS)
def test_a_reply_that_says_more_than_no_such_user_proves_nothing(words: str) -> None:
    for death in DEATHS:
        for line in (f"550 5.1.1 {words}", f"550 {words}", f"554 5.0.0 {words}"):
            for provider in (None, *SUPPRESSING):
                found = judged(line.format(death), provider, "RCPT")
                assert not found.suppress, (line.format(death), provider, found.rule)


@pytest.mark.parametrize(
    "line",
    [
        "550 5.1.1 <x@example.com>: User unknown, see https://example.com/blocked/policy",
        "550 5.1.1 User unknown (mx1.spamfilter-policy.example.com)",
        "550 5.1.1 <temporary-policy@example.com> User unknown",
        "550 5.1.1 User unknown in relay recipient table",
        "550 5.1.1 User unknown. Check the address and try again",
        "550 5.1.1 No such user in our database",
        "550 5.1.1 User unknown, remove this address from your list",
    ],
)
def test_addresses_links_and_good_advice_are_no_doubt(line: str) -> None:
    assert judged(line).suppress


# Where the codes stand, and what hangs on an address


@pytest.mark.parametrize(
    ("line", "enhanced", "suppress"),
    [
        ("550 cuda_nsu 5.1.1 <x@example.com>... whatever", "5.1.1", True),
        ("550 5.1.1: whatever", "5.1.1", True),
        ("550 (5.1.1) whatever", "5.1.1", True),
        ("550 whatever (#5.1.1)", "5.1.1", True),
        ("550 #5.1.1 whatever", "5.1.1", True),
        ("550 550 5.1.1 whatever", "5.1.1", True),
        ("550 #5.7.1 User unknown", "5.7.1", False),
        ("550 whatever - 5.1.1.7 of today", "", False),
        ("550 version 5.1.1.7 whatever", "", False),
        ("550 we whatever 5.1.1", "", False),
        ("552 5.1.1 whatever", "5.1.1", False),  # 552 is about room
        ("571 5.1.1 whatever", "5.1.1", False),  # and 571 about policy
    ],
)
def test_an_enhanced_code_is_found_where_servers_put_it(line: str, enhanced: str, suppress: bool) -> None:
    found = judged(line, "", "RCPT")
    told = Enhanced.read(enhanced)
    named = f"status-{told.subject}.{told.detail}" if told else "code-550"
    assert found.suppress == suppress
    assert found.rule in (named, "unknown-user")


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("<x@example.com>: Unknown", "unknown"),
        ("(x@example.com:blocked)", ":blocked)"),
        ("<x@example.com>... User unknown", "user unknown"),
        ("to x@example.com.", "to"),
        ("a@b:c@example.com, and", "and"),
        ("@ @@ x@", ""),
        ("x@[192.0.2.1]: no", "no"),
    ],
)
def test_an_address_goes_and_what_hangs_on_it_stays(said: str, left: str) -> None:
    assert plain(said) == left


# The shortcut to the rules that may fit


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"\brl0[0-9]{2,5}\b", "rl0"),
        (r"quota .{0,20}exceed", "quota "),
        (r"a(?:bc|de)fghi", "fghi"),
        (r"\[tss?[0-9]{2}\]", "[ts"),
        (r"x{2}yz", "yz"),
        (r"(?:\)abc)def[)]", "def"),
        (r"abcd|ef", ""),
        (r"a\.b\-c", "a.b-c"),
        (r"\d\d\d", ""),
    ],
)
def test_what_must_be_in_whatever_a_pattern_fits(pattern: str, text: str) -> None:
    assert literal(pattern) == text


def test_needles_name_every_rule_that_may_fit_and_those_without_any() -> None:
    needles = Needles(
        [(["no such user"], []), (["xy"], []), ([], [r"\bspf\b"]), ([], []), (["such"], ["[0-9]"])]
    )
    assert needles.candidates("no such thing") >= {1, 3, 4}
    assert needles.candidates("spf") == {1, 2, 3, 4}
    assert needles.candidates("there is no such user") >= {0, 1, 3, 4}
    assert needles.candidates("") == {1, 3, 4}


def slowly(rules: tuple[Rule, ...], reply: Reply, text: str, provider: str | None) -> str:
    """The first rule that fits, by asking one after the other."""
    own = [rule for rule in rules if rule.providers and (provider in rule.providers or provider is None)]
    asked = [rule for rule in own if provider is not None or not rule.common]
    for rule in (*asked, *(rule for rule in rules if not rule.providers)):
        if rule.fits(str(reply.code), Enhanced.read(reply.enhanced), text, ""):
            return rule.name
    return ""


@pytest.mark.parametrize("provider", [None, "", "google", "orange"])
def test_the_shortcut_finds_what_asking_each_rule_in_turn_finds(provider: str | None) -> None:
    for label in REPLIES:
        reply = quoted(label.line)[0]
        if reply.enhanced and reply.code >= 400:
            found = RULES.judge(reply, "", provider)
            by_rule = found.rule if found.is_by_rule else ""
            assert by_rule == slowly(RULES.rules, reply, plain(reply.text[:MAX_TEXT]), provider), label.place
