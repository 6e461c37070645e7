"""The file of reply rules: what is wrong in it is told with its place, and nothing is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from mta.config.document import SettingsError
from mta.config.rules import SHIPPED, load, steps
from mta.core.model import Reply

HEAD = """\
retries:
  greylist: {first: 5m, factor: 1.5, maximum: 1h}
  rate: {first: 15m, factor: 2, maximum: 4h}
  mailbox: {first: 1h, factor: 1.5, maximum: 6h}
  connection: {first: 5m, factor: 2, maximum: 2h}
  policy: {first: 30m, factor: 2, maximum: 4h}
  unknown: {first: 5m, factor: 2, maximum: 2h}
rules:
"""
SOUND = "  - {name: full, text: [mailbox full], subject: mailbox, examples: [452 4.2.2 Mailbox full]}\n"


def problems(path: Path, text: str) -> list[str]:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load(path)
    return [str(problem).removeprefix(f"{path}:") for problem in caught.value.problems]


def rules(*lines: str) -> str:
    return HEAD + "".join(f"  - {{{line}}}\n" for line in lines)


def test_the_shipped_file_is_sound_and_large() -> None:
    found = load(SHIPPED)
    assert len(found.rules) >= 150
    assert sum(len(rule.examples) for rule in found.rules) >= 300


def test_a_file_of_ones_own_has_the_same_form(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(HEAD + SOUND)
    assert load(path).judge(Reply(452, "4.2.2", "The mailbox full, sorry"), "RCPT").rule == "full"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("name: a, txt: [x], subject: mailbox, examples: [550 x]",
         "9:15: rules[0].txt: unknown key; did you mean 'text'?"),
        ("name: a, text: [x], subject: mail, examples: [550 x]",
         "9:35: rules[0].subject: expected one of recipient, mailbox, message, sender, source, rate, "
         "connection, policy, destination, network, tls, dns, unknown; got 'mail'"),
        ("name: a, text: [x], subject: rate, reaction: panic, examples: [550 x]",
         "9:51: rules[0].reaction: expected one of none, bounce, retry, next_mx, reduce, suspend, "
         "other_source; got 'panic'"),
        ("name: a, text: [x], subject: rate, stages: [RCTP], examples: [550 x]",
         "9:50: rules[0].stages[0]: expected one of CONNECT, EHLO, STARTTLS, AUTH, MAIL, RCPT, DATA, .; "
         "got 'RCTP'"),
        ("name: a, text: [x], subject: rate",
         "9:5: rules[0].examples: missing, and has no default"),
        ("name: a, text: [x], subject: rate, examples: []",
         "9:5: rules[0]: needs an example: a real reply that it is for"),
        ("name: A b, text: [x], subject: rate, examples: [550 x]",
         "9:5: rules[0]: 'A b' is no name: lower case, digits and single hyphens"),
        ("name: a, text: [x], subject: rate, codes: [250], examples: [550 x]",
         "9:5: rules[0]: 250 is no code of a refusal: 4yz or 5yz, or its first figures"),
        ("name: a, enhanced: [5.7], subject: rate, examples: [550 x]",
         "9:26: rules[0].enhanced[0]: expected text, got the number 5.7"),
        ("name: a, enhanced: [6.7.1], subject: rate, examples: [550 x]",
         "9:5: rules[0]: '6.7.1' is no enhanced code: write 5.7.1, x.7.1, 5.7.606-649 or 5.7.x"),
        ("name: a, enhanced: [5.7.9-3], subject: rate, examples: [550 x]",
         "9:5: rules[0]: '5.7.9-3' ends before it begins"),
        ("name: a, text: [Too Many], subject: rate, examples: [550 x]",
         "9:5: rules[0]: text 'Too Many' never matches: lower case, single blanks, no @"),
        ("name: a, text: [/(x/], subject: rate, examples: [550 x]",
         "9:5: rules[0]: /(x/: missing ), unterminated subpattern at position 0"),
        ("name: a, text: [/x.*y/], subject: rate, examples: [550 x]",
         "9:5: rules[0]: /x.*y/: '*' has no bound: write {0,80}"),
        ("name: a, text: ['/(?:ab){1,9}/'], subject: rate, examples: [550 x]",
         "9:5: rules[0]: /(?:ab){1,9}/: {1,9} repeats a group, or more than 80 times"),
        ("name: a, text: ['/(?=ab)/'], subject: rate, examples: [550 x]",
         "9:5: rules[0]: /(?=ab)/: of groups only (?:...) is allowed"),
        ("name: a, text: ['/a.{0,20}b.{0,20}c/'], subject: rate, examples: [550 x]",
         "9:5: rules[0]: /a.{0,20}b.{0,20}c/: it tries 441 ways at each letter of a text, "
         "at most 200 are allowed"),
        ("name: a, text: ['/[A-Z]x/'], subject: rate, examples: [550 x]",
         "9:5: rules[0]: /[A-Z]x/ never matches: the text is in lower case"),
        ("name: a, text: [x], subject: source, permanent: true, wait: 1h, examples: [550 x]",
         "9:5: rules[0]: what is permanent is not tried again: it has no retry and no wait"),
        ("name: a, text: [x], subject: rate, suppress: true, examples: [550 x]",
         "9:5: rules[0]: only what is about a recipient or a mailbox can suppress an address"),
        ("name: a, text: [x], subject: rate, wait: 2d, examples: [550 x]",
         "9:5: rules[0]: a wait is between 30s and 24h"),
        ("name: a, text: [x], subject: rate, source: somewhere, examples: [550 x]",
         "9:5: rules[0]: source 'somewhere' is no address of a page"),
        ("name: a, subject: rate, examples: [550 x]",
         "9:5: rules[0]: fits every answer: give codes, enhanced or text"),
        ("name: a, text: [x], subject: rate, retry: soon, examples: [550 x]",
         "9:5: rules[0]: retry 'soon' is none of greylist, rate, mailbox, connection, policy, unknown"),
        ("name: a, text: [y], subject: rate, examples: [550 x]",
         "9:5: rules[0]: a: its example '550 x' does not match it (but 'code-550')"),
        ("name: a, text: [x], subject: rate, examples: [no code at all]",
         "9:5: rules[0]: a: an example is no reply: 'no code at all'; it begins with a code such as 550"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(tmp_path: Path, line: str, told: str) -> None:
    assert problems(tmp_path / "rules.yaml", rules(line)) == [told]


def test_a_rule_that_an_earlier_one_hides_is_refused(tmp_path: Path) -> None:
    first = "name: any, text: [full], subject: mailbox, examples: [452 full]"
    second = "name: one, text: [mailbox full], subject: mailbox, examples: [452 mailbox full]"
    assert problems(tmp_path / "rules.yaml", rules(first, second)) == [
        "10:5: rules[1]: one: its example '452 mailbox full' is taken by 'any' before it"
    ]


GONE = "name: gone, text: [no such user], subject: recipient, suppress: true, examples: [550 no such user{}]"


def test_a_word_of_doubt_keeps_a_rule_from_suppressing(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("doubts: [later]\n" + rules(GONE.format("")))
    found = load(path)
    assert found.judge(Reply(550, "", "no such user"), "RCPT").suppress
    assert found.judge(Reply(550, "", "no such user, see later.example.com"), "RCPT").suppress
    assert not found.judge(Reply(550, "", "no such user, try later"), "RCPT").suppress
    assert not found.judge(Reply(550, "5.1.1", "try later"), "RCPT").suppress


def test_an_example_that_a_doubt_keeps_from_suppressing_is_refused(tmp_path: Path) -> None:
    text = "doubts: [later]\n" + rules(GONE.format("; try later"))
    assert problems(tmp_path / "rules.yaml", text) == [
        "10:5: rules[0]: gone: its example '550 no such user; try later' has a word of `doubts` in it and "
        "does not suppress"
    ]


def test_a_doubt_that_no_text_can_hold_is_refused(tmp_path: Path) -> None:
    assert problems(tmp_path / "rules.yaml", "doubts: [Later]\n" + HEAD + SOUND) == [
        "1:1: doubt 'Later' never matches: lower case, single blanks, no @"
    ]


def test_a_providers_own_rule_may_stand_below_everybodys(tmp_path: Path) -> None:
    first = "name: any, text: [full], subject: mailbox, examples: [452 full]"
    second = "name: one, providers: [qq], text: [full], subject: mailbox, examples: [452 mailbox full]"
    path = tmp_path / "rules.yaml"
    path.write_text(rules(first, second))
    found = load(path)
    assert [found.judge(Reply(452, "", "full"), "RCPT", name).rule for name in ("qq", "")] == ["one", "any"]


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    one = "name: a, text: [x], subject: rate, examples: [550 x]"
    told = problems(tmp_path / "rules.yaml", rules(one, one, one.replace("[550 x]", "[550 z]")))
    assert [line.partition(" ")[0] for line in told] == ["10:5:", "11:5:", "11:5:"]


def test_a_retry_class_that_subjects_need_must_be_there(tmp_path: Path) -> None:
    text = "retries:\n  greylist: {first: 5m, factor: 1.5, maximum: 1h}\nrules:\n" + SOUND
    assert problems(tmp_path / "rules.yaml", text) == [
        "4:5: rules[0]: retries: lacks connection, mailbox, policy, rate, unknown"
    ]


def test_waits_that_shrink_are_refused(tmp_path: Path) -> None:
    text = HEAD.replace("first: 15m, factor: 2,", "first: 15m, factor: 0.5,") + SOUND
    assert problems(tmp_path / "rules.yaml", text) == [
        "3:9: retries.rate: waits do not shrink: factor is at least 1, maximum at least first"
    ]


@pytest.mark.parametrize(
    ("pattern", "most"),
    [
        ("abc", 1),
        ("a?b", 2),
        ("a{2}", 1),
        ("a.{0,40}b", 41),
        (r"\d{1,3}\.", 3),
        (r"[*+?]x", 1),
        (r"\+", 1),
        ("(?:a|b)?", 2),
    ],
)
def test_the_steps_of_a_pattern_are_counted(pattern: str, most: int) -> None:
    assert steps(pattern) == most
