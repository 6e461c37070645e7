"""The settings file: every mistake is told, with its place, at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mta.config.load import Problem, SettingsError, load, show
from mta.config.settings import (
    DEFAULT,
    Destination,
    Duration,
    Endpoint,
    ListenerSettings,
    Settings,
    StaticRoute,
    Stream,
)
from mta.core.limits.throttle import Rate

PLAIN = "hostname: mail.example.com\nlisteners: []\n"  # the shortest file that loads

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)  # so that the complaints name the file as the operator does

    def write(text: str) -> Path:
        Path("mta.yaml").write_text(text, encoding="utf-8")
        return Path("mta.yaml")

    return write


def complaints(path: Path) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(path)
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return str(caught.value).removeprefix("mta.yaml:").split("\nmta.yaml:")


def test_five_mistakes_in_one_file_are_told_in_its_order(write: Write) -> None:
    path = write(
        "hostname: mail.example.com\n"
        "listeners:\n"
        "  - bind: 127.0.0.1:587\n"
        "    tls: sometimes\n"
        "  - tls: implicit\n"
        "limits:\n"
        "  conections: 3\n"
        "  drain: 30\n"
        "streams:\n"
        "  bulk: {expire: 2d}\n"
        "  bulk: {expire: 4d}\n"
    )
    with pytest.raises(SettingsError) as caught:
        load(path)
    assert str(caught.value) == (
        "mta.yaml:4:10: listeners[0].tls: expected one of starttls, implicit, none; got 'sometimes'\n"
        "mta.yaml:5:5: listeners[1].bind: missing, and has no default\n"
        "mta.yaml:7:3: limits.conections: unknown key; did you mean 'connections'?\n"
        "mta.yaml:8:10: limits.drain: '30' is not a duration: "
        "write a number and a unit: 250ms, 30s, 5m, 2h, 4d\n"
        "mta.yaml:11:3: streams.bulk: duplicate key, first on line 10"
    )
    assert caught.value.problems[1] == Problem(
        Path("mta.yaml"), 5, 5, "listeners[1].bind", "missing, and has no default"
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("colour: blue", "3:1: colour: unknown key"),
        ("sandbox: {}", "3:10: sandbox.path: missing, and has no default"),
        ("admin: [1]", "3:8: admin: expected a mapping, got a list"),
        ("dns:", "3:5: dns: expected a mapping, got nothing"),
        ("streams: []", "3:10: streams: expected a mapping, got a list"),
        ("streams: {? [a] : {}}", "3:13: streams: expected a name before the colon, got a list"),
        ("dns: {servers: 127.0.0.1:53}", "3:16: dns.servers: expected a list, got '127.0.0.1:53'"),
        ("dns: {servers: [[a]]}", "3:17: dns.servers[0]: expected host:port, got a list"),
        ("limits: {hops: many}", "3:16: limits.hops: expected a whole number, got 'many'"),
        ("limits: {hops: 1.5}", "3:16: limits.hops: expected a whole number, got the number 1.5"),
        ("limits: {hops: true}", "3:16: limits.hops: expected a whole number, got true"),
        ("limits: {hops: 012}", "3:16: limits.hops: expected a whole number, got '012'"),
        ("limits: {hops: 1e3}", "3:16: limits.hops: expected a whole number, got '1e3'"),
        ("limits: {hops: '5'}", "3:16: limits.hops: expected a whole number, got '5'"),
        ("limits: {hops: 0}", "3:16: limits.hops: 0 is too small: at least 1"),
        ("limits: {hops: -1}", "3:16: limits.hops: -1 is too small: at least 1"),
        ("limits: {drain: null}", "3:17: limits.drain: expected a duration, got nothing"),
        ("spool: {path: 7}", "3:15: spool.path: expected a path, got the number 7"),
        ("spool: {path: ''}", "3:15: spool.path: '' is not a path"),
        ("bare_newlines: no", "3:16: bare_newlines: expected one of refuse, normalise; got 'no'"),
        (
            "streams: {bulk: {expire: 0}}",
            "3:17: streams.bulk: expire and retry_first are never 0: the mail would not be tried again",
        ),
        (
            "streams: {bulk: {retry_first: 2h, retry_max: 1h}}",
            "3:17: streams.bulk: retry_first is above retry_max",
        ),
        (
            "streams: {bulk: {expire: 2d, hours: 'mon 08:00-09:00'}}",
            "3:17: streams.bulk: hours pause for longer than expire: mail would expire before it may go",
        ),
        (
            "destinations: {a.test: {retry_first: 2h, retry_max: 1h}}",
            "3:24: destinations.a.test: retry_first is above retry_max",
        ),
        (
            "domains: {a.test: {rate: 20/min}}",
            "3:1: domains: unknown key; it is called 'destinations' now",
        ),
        (
            "destinations: {a.test: {port: 99999}}",
            "3:31: destinations.a.test.port: 99999 is no port: write a number from 1 to 65535",
        ),
        ("routes: {a.test: b:0}", "3:18: routes.a.test: port 0 is nobody's: write host:port"),
        ("routes: {a: {host: b:25, user: 12}}", "3:32: routes.a.user: expected text, got the number 12"),
    ],
)
def test_one_mistake_is_told_with_its_place(write: Write, text: str, complaint: str) -> None:
    assert complaints(write(PLAIN + text)) == [complaint]


@pytest.mark.parametrize(
    ("text", "place", "advice"),
    [
        ("streams: {bulk: {expire: 1:30}}", "3:26: streams.bulk.expire: ", "30s, 5m, 2h, 4d"),
        ("spool: {memory: 25}", "3:17: spool.memory: ", "64K, 25M, 1G"),
        ("destinations: {a: {rate: 100}}", "3:26: destinations.a.rate: ", "100/min"),
        ("destinations: {a: {rate: 0/min}}", "3:26: destinations.a.rate: ", "100/min"),
        ("admin: {bind: 127.0.0.1}", "3:15: admin.bind: ", "write 127.0.0.1:587"),
        ("routes: {a: localhost}", "3:13: routes.a: ", "mx.example.com:25"),
    ],
)
def test_a_value_without_its_unit_is_told_what_to_write(
    write: Write, text: str, place: str, advice: str
) -> None:
    (complaint,) = complaints(write(PLAIN + text))
    assert complaint.startswith(place)
    assert advice in complaint


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("routes:\n  a: {host: b:25, user: me}", "4:6: routes.a: user and password_file go together"),
        (
            "sandbox:\n  path: box\n  bind: 0.0.0.0:25",
            "4:3: sandbox: the sandbox binds to a loopback address only",
        ),
        (
            "sandbox: {path: box}\nroutes: {a: b:25}",
            "1:1: sandbox and routes exclude each other: in the sandbox nothing leaves",
        ),
    ],
)
def test_keys_that_forbid_each_other_are_told_at_their_mapping(
    write: Write, text: str, complaint: str
) -> None:
    assert complaints(write(PLAIN + text)) == [complaint]


def test_a_misspelt_key_is_not_called_missing_as_well(write: Write) -> None:
    assert complaints(write("hostnam: a\nlisteners: []")) == [
        "1:1: hostnam: unknown key; did you mean 'hostname'?"
    ]


def test_a_refused_value_does_not_hide_what_its_section_lacks_elsewhere(write: Write) -> None:
    told = complaints(write("hostname: a\nlimits: {hops: x}\nlisteners: [{tls: none, bind: 0.0.0.0:25}]"))
    assert [line.split(": ")[1] for line in told] == ["limits.hops", "listeners[0]"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: b: c", "1:5: YAML: mapping values are not allowed in this context"),
        ("a: \x07", "1:1: YAML: control characters are not allowed"),
        ("--- a\n--- b", "2:1: YAML: expected a single document in the stream, but found another document"),
        ("a: &x 1", "1:4: anchors and aliases are refused (x)"),
        ("a: !!python/name:os.system", "1:4: tags are refused (tag:yaml.org,2002:python/name:os.system)"),
        ("[" * 100_000, "1:17: nested more than 16 deep"),
        ("", "1:1: holds no settings"),
        ("# nothing\n", "1:1: holds no settings"),
        ("just text", "1:1: expected a mapping, got 'just text'"),
        ("#" * 2**20 + "\n" + PLAIN, "1:1: larger than 1 MiB"),
    ],
)
def test_a_file_of_the_wrong_structure_is_a_problem_too(write: Write, text: str, complaint: str) -> None:
    assert complaints(write(text)) == [complaint]


def test_aliases_are_told_together_with_the_syntax_error_after_them(write: Write) -> None:
    told = complaints(write("a: &x [1, 2]\nb: *x\nc: ]"))
    assert [line.split(" ")[0] for line in told] == ["1:4:", "2:4:", "3:4:"]


def test_a_missing_file_a_folder_and_latin_1_are_problems_on_line_1(write: Write) -> None:
    path = write("")
    path.write_bytes(b"hostname: b\xfccher")
    assert complaints(path) == ["1:1: not UTF-8 (octet 11)"]
    path.unlink()
    assert complaints(path) == ["1:1: cannot be read: No such file or directory"]
    path.mkdir()
    assert complaints(path) == ["1:1: cannot be read: Is a directory"]


def test_a_long_value_is_not_quoted_in_full(write: Write) -> None:
    (complaint,) = complaints(write(PLAIN + f"spool: {'x' * 5000}"))
    assert len(complaint) < 350


@pytest.mark.parametrize(
    "name", ["no", "yes", "on", "off", "012", "1:30", "2026-11-21", "1e3", "0x1F", "1_000"]
)
def test_what_yaml_1_1_would_turn_into_something_else_stays_text(write: Write, name: str) -> None:
    path = write(PLAIN + f"streams: {{{name}: {{}}}}")
    assert load(path).streams == {name: Stream()}


def test_the_shortest_file_gives_the_defaults(write: Write) -> None:
    assert load(write(PLAIN)) == Settings("mail.example.com", listeners=())


def test_the_byte_order_mark_of_a_windows_editor_is_no_part_of_the_first_key(write: Write) -> None:
    assert load(write("\ufeff" + PLAIN)).hostname == "mail.example.com"


FULL = """\
hostname: mail.example.com
listeners:
  - {bind: "[::1]:587", tls: none, auth: network}
streams:
  Digest: {expire: 1.5h, retry_first: 250ms}
destinations:
  default: {connections: 2}
  Gmail.COM.: {rate: 20/30min}
  bücher.example: {rate: null}
routes:
  Example.net: 10.0.0.1:2525
  example.org: {host: relay.example:587, user: me, password_file: secret/relay, tls: required, rate: 100/min}
dns:
  servers: ["192.0.2.1:53", "[2001:DB8::53]:53"]
spool: {path: ../spool, memory: 1G}
events: {path: /var/log/mta.jsonl}
limits: {drain: 0}
"""


def test_every_kind_of_value_arrives_in_its_type(write: Write, tmp_path: Path) -> None:
    loaded = load(write(FULL))
    assert loaded.listeners == (ListenerSettings(Endpoint("::1", 587), "none", "network"),)
    assert loaded.streams == {"Digest": Stream(Duration(5400.0), Duration(0.25))}
    assert loaded.destinations == {
        "default": replace(DEFAULT, connections=2),
        "gmail.com": Destination(rate=Rate(20, 1800.0)),
        "xn--bcher-kva.example": Destination(),
    }
    assert loaded.routes == {
        "example.net": StaticRoute(Endpoint("10.0.0.1", 2525)),
        "example.org": StaticRoute(
            Endpoint("relay.example", 587),
            user="me",
            password_file=tmp_path / "secret/relay",
            tls="required",
            rate=Rate(100, 60.0),
        ),
    }
    assert loaded.dns.servers == (Endpoint("192.0.2.1", 53), Endpoint("2001:db8::53", 53))
    assert loaded.spool.path == tmp_path / "../spool"
    assert loaded.spool.memory == 2**30
    assert loaded.events.path == Path("/var/log/mta.jsonl")
    assert loaded.limits.drain == Duration(0.0)


def test_domains_that_differ_in_case_only_are_duplicates(write: Write) -> None:
    told = complaints(write(PLAIN + "destinations:\n  Gmail.com: {}\n  gmail.com: {}\n  ☃\u2022.example: {}"))
    assert told[0] == "5:3: destinations.gmail.com: duplicate key, first on line 4"
    assert told[1].startswith("6:3: destinations.☃\u2022.example: not a domain name: ")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("*.a.test", "write example.com"),
        ("ann@a.test", "write example.com"),
        ("a b", "write example.com"),
        ("a..test", "write example.com"),
        ("[192.0.2.300]", "write example.com"),
        ("192.0.2.1", "write [192.0.2.1] for mail to an address"),
    ],
)
def test_a_key_that_no_recipient_domain_can_be_is_refused(write: Write, name: str, advice: str) -> None:
    sections = f"destinations:\n  '{name}': {{}}\nroutes:\n  '{name}': 192.0.2.25:25\n"
    words = f"{name}: '{name}' is not a domain name: {advice}"
    assert complaints(write(PLAIN + sections)) == [f"4:3: destinations.{words}", f"6:3: routes.{words}"]


def test_every_domain_is_a_route_and_no_domain(write: Write) -> None:
    assert load(write(PLAIN + "routes:\n  '*': 192.0.2.25:25\n  '[IPv6:2001:DB8:0::1]': 192.0.2.26:25\n"))
    (told,) = complaints(write(PLAIN + "destinations:\n  '*': {}\n"))
    assert told == "4:3: destinations.*: '*' is not a domain name: write example.com"


def test_what_is_shown_loads_to_the_same_settings_from_any_folder(write: Write, tmp_path: Path) -> None:
    loaded = load(write(FULL))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mta.yaml").write_text(show(loaded), encoding="utf-8")
    assert load(elsewhere / "mta.yaml") == loaded


def test_values_are_shown_with_the_unit_an_operator_would_choose(write: Write) -> None:
    plain = yaml.safe_load(show(load(write(FULL))))
    digest = {"expire": "90m", "retry_first": "250ms", "retry_max": "2h", "priority": None, "hours": None}
    digest |= {"pool": None, "checks": {}}
    assert plain["streams"]["Digest"] == digest
    assert plain["destinations"]["gmail.com"]["rate"] == "20/30min"
    assert plain["routes"]["example.org"]["rate"] == "100/min"
    assert plain["routes"]["example.org"]["password_file"].endswith("/secret/relay")
    assert plain["limits"]["message_size"] == "50M"
    assert plain["limits"]["drain"] == "0s"
    assert plain["dns"]["servers"] == ["192.0.2.1:53", "[2001:db8::53]:53"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings") / "mta.yaml"


KEYS = [
    "hostname",
    "listeners",
    "bind",
    "tls",
    "streams",
    "bulk",
    "expire",
    "destinations",
    "rate",
    "routes",
    "host",
]
SCALARS = [
    *KEYS,
    "a:1",
    "4d",
    "1/s",
    "",
    "null",
    "é.example",
    "☃",
    "\0",
    "[::1]:25",
    "-1",
    True,
    None,
    3,
    0.5,
]
DATA = st.recursive(
    st.sampled_from(SCALARS) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=12,
)
TOKENS = [
    *KEYS,
    "\n",
    "\n  ",
    "\n- ",
    ": ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "? ",
    "&a ",
    "*a",
    "!!int ",
    "'",
    '"',
    "|",
]


@settings(deadline=None, max_examples=150)
@given(
    st.binary()
    | st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.lists(st.sampled_from([*TOKENS, "4d", "1:30", "#", "~"])).map(lambda words: "".join(words).encode())
    | DATA.map(lambda data: yaml.safe_dump(data).encode("utf-8", "surrogatepass"))
)
def test_any_file_gives_settings_or_problems_with_a_place(file: Path, octets: bytes) -> None:
    file.write_bytes(octets)
    problems: list[Problem] | None = None
    try:
        load(file)
    except SettingsError as error:
        problems = error.problems
    assert problems != []
    assert all(p.path == file and p.line >= 1 and p.column >= 1 and p.text for p in problems or ())


DECIMAL = st.decimals("0", "9999", places=3).map(str)


@settings(deadline=None, max_examples=50)
@given(
    stream=st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"])),
    wait=st.builds(str.__add__, DECIMAL, st.sampled_from(["ms", "s", "m", "h", "d"])),
    memory=st.builds("{}{}".format, st.integers(1, 9999), st.sampled_from("KMG")),
    rate=st.builds(
        "{}/{}{}".format,
        st.integers(1, 10**12 - 1),
        st.integers(1, 99),
        st.sampled_from(["s", "min", "h", "day"]),
    ),
)
def test_any_value_survives_being_shown(file: Path, stream: str, wait: str, memory: str, rate: str) -> None:
    data = {
        "hostname": "mail.example.com",
        "listeners": [],
        "streams": {stream: {}},
        "limits": {"drain": wait},
        "spool": {"memory": memory},
        "destinations": {"default": {"rate": rate}},
    }
    file.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    loaded = load(file)
    file.write_text(show(loaded), encoding="utf-8")
    assert load(file) == loaded


def test_a_check_that_there_is_none_is_told_with_those_that_there_are(write: Write) -> None:
    path = write(
        PLAIN + "guard: {checks: {aligment: warn, key: perhaps}}\n"
        "streams: {bulk: {checks: {one_click: off}}}\n"
    )
    known = "there are alignment, key, stream, one-click, proximity"
    assert complaints(path) == [
        f"3:18: guard.checks.aligment: 'aligment' is no check; {known}",
        "3:39: guard.checks.key: expected one of enforce, warn, off; got 'perhaps'",
        f"4:27: streams.bulk.checks.one_click: 'one_click' is no check; {known}",
    ]
    path = write(PLAIN + "streams: {bulk: {checks: {proximity: enforce}}}\n")
    (said,) = complaints(path)
    assert said.endswith(
        "checks.proximity is warn or off: it counts what was delivered, and keeps nothing back"
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("complaints", "example.com"),
        ("complaints", "a@b.test> SIZE=1"),
        ("complaints", "@x:a@b.test"),
        ("complaints", "jörg@b.test"),
        ("complaints", ""),
        ("feedback_id", "{tennant}:example"),
        ("feedback_id", "a:b:c:d:e"),
    ],
)
def test_what_cannot_stand_in_a_header_field_is_refused(write: Write, key: str, value: str) -> None:
    (said,) = complaints(write(PLAIN + f"identity: {{{key}: '{value}'}}\n"))
    assert f"identity.{key}: " in said


def test_checks_and_identity_are_shown_as_they_are_read(write: Write) -> None:
    path = write(
        PLAIN + "identity: {feedback_id: '{stream}:example', complaints: fbl@example.com}\n"
        "guard: {checks: {one-click: enforce}}\nstreams: {bulk: {checks: {key: off}}}\n"
    )
    loaded = load(path)
    assert loaded.streams["bulk"].checks == {"key": "off"}
    assert load(write(show(loaded))) == loaded
