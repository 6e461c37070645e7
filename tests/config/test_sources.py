"""Sources and pools in the settings: every mistake is told with its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mta.config.load import load, show
from mta.config.settings import Address, HostName, SourceSettings
from mta.config.sources import sources

PLAIN = "hostname: mail.example.com\nlisteners: []\n"
TWO = "sources: {mail1: 192.0.2.10, mail2: {address: '2001:DB8::10', hostname: Two.example.com}}\n"

Told = Callable[[str], list[str]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mta.yaml"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("sources: {mail1: mail1.example.com}",
         "3:18: sources.mail1: 'mail1.example.com' is not an address: write 192.0.2.10 or 2001:db8::10"),
        ("sources: {mail1: 192.0.2}",
         "3:18: sources.mail1: '192.0.2' is not an address: write 192.0.2.10 or 2001:db8::10"),
        ("sources: {mail1: 0.0.0.0}", "3:18: sources.mail1: 0.0.0.0 is no address that mail can leave from"),
        ("sources: {mail1: 'fe80::1'}",
         "3:18: sources.mail1: fe80::1 is no address that mail can leave from"),
        ("sources: {mail1: {}}", "3:18: sources.mail1.address: missing, and has no default"),
        ("sources: {'mail one': 192.0.2.1}",
         "3:11: sources.mail one: 'mail one' is not a name: write letters, digits, '.', '_' and '-', "
         "64 at most"),
        ("sources: {mail1: 192.0.2.1, mail2: {address: 192.0.2.1}}",
         "3:36: sources.mail2: 192.0.2.1 is the address of mail1 already; "
         "to others both would be one sender"),
        ("sources: {mail1: '2001:db8::1', mail2: '2001:DB8:0::1'}",
         "3:40: sources.mail2: 2001:db8::1 is the address of mail1 already; "
         "to others both would be one sender"),
        (f"{TWO}pools: {{news: {{mial1: 1}}}}",
         "4:23: pools.news.mial1: there is no source 'mial1'; did you mean 'mail1'?"),
        ("pools: {news: {mail: 1}}", "3:22: pools.news.mail: there is no source 'mail'"),
        (f"{TWO}pools: {{news: {{}}}}",
         "4:15: pools.news: has no source: give one at least, as name: weight"),
        (f"{TWO}pools: {{news: {{mail1: 0}}}}", "4:23: pools.news.mail1: 0 is too small: at least 1"),
        (f"{TWO}pools: {{news: [mail1]}}", "4:15: pools.news: expected a mapping, got a list"),
        (f"{TWO}pools: {{news: {{mail1: 1}}}}\nstreams: {{bulk: {{pool: nwes}}}}",
         "5:24: streams.bulk.pool: there is no pool 'nwes'; did you mean 'news'?"),
        (f"{TWO}pools: {{default: {{mail1: 1}}}}",
         "3:37: sources.mail2: is in no pool: no mail would leave from it"),
        ("streams: {bulk: {pool: default}}", "3:24: streams.bulk.pool: there is no pool 'default'"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(told: Told, text: str, complaint: str) -> None:
    assert told(text) == [complaint]


def test_all_mistakes_are_told_together(told: Told) -> None:
    assert told(f"{TWO}pools: {{a: {{x: 1}}, b: {{y: 1}}}}\nstreams: {{bulk: {{pool: c}}}}") == [
        "4:16: pools.a.x: there is no source 'x'",
        "4:27: pools.b.y: there is no source 'y'",
        "5:24: streams.bulk.pool: there is no pool 'c'",
    ]


def test_sources_are_read_shown_and_read_again(file: Path) -> None:
    file.write_text(f"{PLAIN}{TWO}pools: {{news: {{mail2: 3}}}}\nstreams: {{bulk: {{pool: news}}}}")
    terms = load(file)
    assert terms.sources == {
        "mail1": SourceSettings(Address("192.0.2.10")),
        "mail2": SourceSettings(Address("2001:db8::10"), HostName("two.example.com")),
    }
    made = sources(terms)
    assert [tuple(each) for each in made.all] == [
        ("mail1", "192.0.2.10", "mail.example.com"),
        ("mail2", "2001:db8::10", "two.example.com"),
    ]
    assert [source.name for source in made.order("bulk", 1)] == ["mail2"]
    file.write_text(show(terms))
    assert load(file) == terms


def test_in_the_sandbox_sources_are_chosen_and_not_bound(file: Path) -> None:
    file.write_text(f"{PLAIN}{TWO}sandbox: {{path: sandbox}}")
    assert [(each.name, each.address) for each in sources(load(file)).all] == [("mail1", ""), ("mail2", "")]
