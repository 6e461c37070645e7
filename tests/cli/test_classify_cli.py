"""`mta classify` as somebody with a log types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mta.cli.main import main

KEYS = ["subject", "permanent", "suppress", "rule", "reaction", "scope"]


def classify(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, ["--config", "/nowhere/mta.yaml", "classify", *arguments], input=stdin)


def answers(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_one_reply_one_object_with_its_keys_in_order_and_no_settings_file() -> None:
    result = classify("550 5.1.1 No such user")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        '{"subject": "recipient", "permanent": true, "suppress": true, "rule": "unknown-user", '
        '"reaction": "bounce", "scope": "recipient"}\n'
    )


def test_each_line_of_standard_input_is_answered_in_its_order() -> None:
    lines = [
        "550-5.7.1 Service unavailable; 550 5.7.1 Client host [192.0.2.1] blocked using Spamhaus",
        "",
        "451 4.7.1 Greylisted,\\n451 4.7.1 come back in 5 minutes",
        "<x@dst.test>: host mx said: 552 5.3.4 too large (in reply to end of DATA command)",
        "250 2.0.0 Ok: queued as 4F2",
    ]
    found = answers(classify(stdin="\n".join(lines)))
    assert [list(each) for each in found] == [KEYS] * 4
    assert [(each["rule"], each["permanent"]) for each in found] == [
        ("spamhaus", True), ("greylist", False), ("status-3.4", True), ("code-250", False),
    ]  # fmt: skip


def test_a_line_without_a_reply_is_told_and_the_others_are_answered() -> None:
    result = classify(stdin="550 5.1.1 No such user\nhello\n421 bye\n")
    assert result.exit_code == 1
    assert [each["rule"] for each in answers(result)] == ["unknown-user", "code-421"]
    assert result.stderr == "line 2: no reply: 'hello'; it begins with a code such as 550\n"


def test_octets_that_are_no_utf8_do_no_harm() -> None:
    result = CliRunner().invoke(main, ["classify"], input=b"550 5.1.1 Empf\xe4nger: user unknown\n")
    assert [each["rule"] for each in answers(result)] == ["unknown-user"]


def test_whatever_logs_and_editors_make_of_a_line_it_is_the_same_reply() -> None:
    lines = [
        b"\xef\xbb\xbf550 5.1.1 No such user\r",
        b"  \t550 5.1.1 No such user  \r",
        b"\r",
        b"",
        b"550-5.1.1 No such user 550-5.1.1 here 550 5.1.1 bye",
        b"550-5.1.1 No such user\\r\\n550-5.1.1 here\\r\\n550 5.1.1 bye",
        b"550 550 5.1.1 No such user",
        b"550 5.1.1 No such user \xff\xfe\x00",
        b"smtp; 550-5.1.1 No such user 550 5.1.1 here",
    ]
    result = CliRunner().invoke(main, ["classify"], input=b"\n".join(lines))
    assert (result.exit_code, result.stderr) == (0, "")
    assert [(each["rule"], each["suppress"]) for each in answers(result)] == [("unknown-user", True)] * 7


def test_a_code_without_words_and_a_code_that_is_no_refusal_are_answered() -> None:
    found = answers(classify(stdin="550\n550 \n550-\n550 5.1.1\n250\n354 go on\n"))
    assert [(each["rule"], each["permanent"], each["suppress"]) for each in found] == [
        ("code-550", True, False), ("code-550", True, False), ("code-550", True, False),
        ("status-1.1", True, True), ("code-250", False, False), ("code-354", False, False),
    ]  # fmt: skip


def test_the_provider_and_the_stage_make_a_difference() -> None:
    line = "451 4.7.1 Service unavailable - try again later"
    rules = [answers(classify(line, *more))[0]["rule"] for more in ((), ("--provider", "apple"))]
    assert rules == ["try-again-later", "apple-busy"]
    line = "550 5.1.1 No such user"
    found = [answers(classify(line, "--stage", stage))[0] for stage in ("rcpt", "MAIL", ".")]
    assert [(each["subject"], each["suppress"]) for each in found] == [
        ("recipient", True), ("sender", False), ("recipient", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--provider", "goggle"), "no rule names the provider 'goggle'"),
        (("--stage", "RCTP"), "is not one of"),
    ],
)
def test_an_unknown_word_is_a_wrong_command_line(arguments: tuple[str, str], words: str) -> None:
    result = classify("550 x", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


def test_it_starts_without_what_only_the_daemon_needs() -> None:
    program = (
        "import sys; from mta.cli.main import main; main(['classify', '550 x'], standalone_mode=False); "
    )
    program += "print(sorted({'aiohttp', 'aiosmtplib', 'mta.daemon'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.splitlines()[-1] == "[]"
