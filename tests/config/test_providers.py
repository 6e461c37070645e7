"""Provider profiles, ours and the settings': every mistake is told with its place."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mta.config import providers
from mta.config.document import SettingsError
from mta.config.load import load, show
from mta.config.settings import DEFAULT, Destination, Duration, ProviderSettings
from mta.core.limits.throttle import Rate
from mta.core.route.terms import KEYS

PLAIN = "hostname: mail.example.com\nlisteners: []\n"
REFERENCE = Path(__file__).parents[2] / "config" / "mta.yaml"
SOUND = "match: [a.test], examples: [mx.a.test]"

Told = Callable[[str], list[str]]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("own: {match: [a.test], examples: [mx.b.test]}",
         "3:18: providers.own: match a.test fits none of its examples: add a real MX host name"),
        ("own: {match: [a.test]}",
         "3:18: providers.own: match a.test fits none of its examples: add a real MX host name"),
        ("own: {match: [gmail-smtp-in.l.google.com], examples: [gmail-smtp-in.l.google.com]}",
         "3:18: providers.own: match gmail-smtp-in.l.google.com takes the example "
         "gmail-smtp-in.l.google.com of provider google"),
        ("own: {match: [protection.outlook.com], examples: [x.protection.outlook.com]}",
         "3:18: providers.own: match protection.outlook.com overlaps olc.protection.outlook.com of provider "
         "microsoft"),
        (f"own: {{{SOUND}, conections: 3}}",
         "3:59: providers.own.conections: unknown key; did you mean 'connections'?"),
        (f"own: {{{SOUND}, connections: 3, connections_start: 4}}",
         "3:18: providers.own: connections_start is above connections"),
        ("google: {connections_start: 21}",
         "3:21: providers.google: connections_start is above connections of the shipped profile"),
        (f"own: {{{SOUND}, rate: 1/s, rate_start: 61/min}}",
         "3:18: providers.own: rate_start is above rate"),
        (f"own: {{{SOUND}, connections: 0}}",
         "3:72: providers.own.connections: 0 is too small: at least 1"),
        (f"own: {{{SOUND}, tls: always}}",
         "3:64: providers.own.tls: expected one of opportunistic, required; got 'always'"),
        ("own: {match: [com], examples: [mx.a.com]}",
         "3:27: providers.own.match[0]: 'com' takes half the world: write two labels or more, "
         "mx.example.com"),
        ("own: {match: [.co.uk], examples: [mx.a.co.uk]}",
         "3:27: providers.own.match[0]: '.co.uk' is a public suffix: add the label before it"),
        ("own: {match: [mx-.test], examples: [mx.a.test]}",
         "3:27: providers.own.match[0]: 'mx-.test' is no host name: write mx1.example.com"),
        ("own: {match: [a.test], examples: [192.0.2.1]}",
         "3:47: providers.own.examples[0]: '192.0.2.1' is no host name: write mx1.example.com"),
        ("gogle: {connections: 3}",
         "3:20: providers.gogle: none of the shipped providers; one of your own needs match or domains; "
         "did you mean 'google'?"),
        ("}\ndestinations: {default: {connections_start: 21}",
         "1:1: destinations.default: connections_start is above connections, which is 20 where "
         "it is not said"),
        ("}\ndestinations: {a.test: {connections: 2, connections_start: 3}",
         "4:24: destinations.a.test: connections_start is above connections"),
        ("Own: {domains: [a.test]}",
         "3:18: providers.Own: is no name: lower case, digits and single hyphens"),
        ("google: {match: [yahoodns.net], examples: [mx.yahoodns.net]}",
         "3:21: providers.google: its example mx.yahoodns.net is taken by provider yahoo"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(told: Told, line: str, complaint: str) -> None:
    assert told(f"providers: {{{line}}}\n")[0] == complaint


def test_all_mistakes_are_told_at_once_with_those_of_other_sections(told: Told) -> None:
    text = "limits: {hops: many}\nproviders:\n  own: {match: [a.test]}\n  gogle: {connections: 2}\n"
    assert [line.partition(" ")[0] for line in told(text)] == ["3:16:", "5:8:", "6:10:"]


def test_a_mistake_in_one_profile_hides_no_other(told: Told) -> None:
    text = "providers:\n  google: {conections: 2}\n  gogle: {connections: 2}\n  own: {match: [a.test]}\n"
    assert [line.partition(" ")[0] for line in told(text)] == ["4:12:", "5:10:", "6:8:"]


def test_two_of_ones_own_that_take_the_same_are_told_apart(told: Told) -> None:
    text = f"providers:\n  one: {{{SOUND}}}\n  two: {{domains: [d.test]}}\n  three: {{domains: [d.test]}}\n"
    assert told(text) == ["6:10: providers.three: the domain d.test is taken by provider two"]


def test_one_value_of_a_shipped_profile_changes_and_the_others_stay() -> None:
    shipped = providers.load({}).by_name["google"]
    changed = providers.load({"google": ProviderSettings(messages_per_connection=7)}).by_name["google"]
    assert changed.terms.messages_per_connection == 7
    assert changed.because["messages_per_connection"] == "said in the settings"
    for key in set(KEYS) - {"messages_per_connection"}:
        assert getattr(changed.terms, key) == getattr(shipped.terms, key)
        assert changed.because.get(key) == shipped.because.get(key)
    assert (changed.match, changed.examples) == (shipped.match, shipped.examples)


def test_a_ceiling_of_the_settings_holds_the_shipped_start_down() -> None:
    terms = providers.load({"google": ProviderSettings(connections=2)}).by_name["google"].terms
    assert (terms.connections, terms.connections_start) == (2, 2)


def test_a_provider_of_ones_own_stands_beside_ours(tmp_path: Path) -> None:
    path = tmp_path / "mta.yaml"
    path.write_text(
        PLAIN + "providers:\n  own: {match: [.A.test.], examples: [MX.a.test], rate: 3/s, per: site}\n"
    )
    settings = load(path)
    own = providers.load(settings.providers).by_name["own"]
    assert (own.match, own.examples, own.per_site) == (("a.test",), ("mx.a.test",), True)
    assert (own.terms.rate, own.because) == (Rate(3, 1.0), {"rate": "said in the settings"})
    again = tmp_path / "again.yaml"
    again.write_text(show(settings))
    assert load(again) == settings


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (f"a: {{{SOUND}, connections: 3}}\n", "1:4: a: connections needs a reason in because"),
        (f"a: {{{SOUND}, because: {{rate: x}}}}\n", "1:4: a: because names rate, which is not said"),
        ("a: {match: [a.test], examples: [mx.b.test]}\n",
         "1:4: a: match a.test fits none of its examples: add a real MX host name"),
        ("a:\n  colour: blue\n", "2:3: a.colour: unknown key"),
    ],
)  # fmt: skip
def test_a_shipped_profile_says_why(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "providers.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        providers.load({}, path)
    assert str(caught.value.problems[0]) == f"{path}:{complaint}"


def test_the_reference_shows_the_defaults_of_a_domain(tmp_path: Path) -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    section = next(part for part in text.split("\n\n") if part.startswith("#destinations:"))
    path = tmp_path / "mta.yaml"
    path.write_text(PLAIN + re.sub(r"(?m)^( *)#(?=\S)", r"\1", section), encoding="utf-8")
    assert load(path).destinations == {
        "default": DEFAULT,
        "example.com": Destination(
            rate=Rate(20, 60.0), retry_first=Duration(900.0), retry_max=Duration(14400.0)
        ),
    }


def test_what_the_settings_say_of_the_default_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "mta.yaml"
    path.write_text(PLAIN + "destinations: {default: {connections: 1, port: 26}}\n")
    default = load(path).destinations["default"]
    assert (default.connections, default.connections_start, default.port) == (1, 1, 26)
    assert default.messages_per_connection == DEFAULT.messages_per_connection
