"""`mta explain` as an operator types it: beside a daemon that runs, and without one."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mta.cli.main import main
from mta.config.settings import (
    Destination,
    Dns,
    Duration,
    Endpoint,
    ProviderSettings,
    Sandbox,
    Settings,
    StaticRoute,
)
from mta.core.limits.throttle import Rate
from mta.core.route.hosts import Peer
from tests.fakes.clock import HandClock
from tests.fakes.dns import Misfortune, NameServer, Zone
from tests.fakes.domains import active, added, nobody, sending
from tests.fakes.house import running, settings

FILE = """\
hostname: mta.test
listeners: []
spool: {path: spool}
"""
ZONE: Zone = {
    ("cable.test", "MX"): ["5 mx1a1.comcast.net.", "10 backup.test."],
    ("mx1a1.comcast.net", "A"): ["192.0.2.1"],
    ("mx1a1.comcast.net", "AAAA"): ["2001:db8::1"],
    ("own.test", "MX"): ["10 mx1a1.comcast.net."],
    ("plain.test", "MX"): ["10 mx.plain.test."],
    ("mx.plain.test", "A"): ["192.0.2.7"],
    ("null.test", "MX"): ["0 ."],
    ("broken.test", "MX"): Misfortune.SERVFAIL,
    ("self.test", "MX"): ["10 mta.test."],
}
CHANGES = {"comcast": ProviderSettings(connections=9)}
OWN = {"own.test": Destination(rate=Rate(20, 60.0))}


def terms(directory: Path, server: NameServer, **changes: Any) -> Settings:
    dns = Dns((server.endpoint,), Duration(5.0))
    return settings(directory, dns=dns, providers=CHANGES, destinations=OWN, **changes)


def ask(directory: Path, *arguments: str, more: str = "") -> Result:
    (directory / "mta.yaml").write_text(FILE + more)
    return CliRunner().invoke(main, ["--config", str(directory / "mta.yaml"), "explain", *arguments])


async def asked(directory: Path, *arguments: str) -> Result:
    """With the zone, of a daemon that runs."""
    async with NameServer(ZONE) as server, running(terms(directory, server), HandClock()):
        return await asyncio.to_thread(ask, directory, *arguments)


async def test_a_domain_is_told_with_hosts_provider_and_every_limit_with_its_origin(tmp_path: Path) -> None:
    result = await asked(tmp_path, "Ann@Cable.test")
    assert (result.exit_code, result.stderr) == (0, "")
    assert (
        result.stdout
        == """\
Ann@Cable.test
  host      5   mx1a1.comcast.net:25  2001:db8::1, 192.0.2.1
  host      10  backup.test:25        550 5.4.4 the mail host backup.test has no address \
(DNS answers NXDOMAIN for backup.test); correct the domain of the address
  site      mx1a1.comcast.net;backup.test
  provider  comcast, by match comcast.net
  shared    by all sites of comcast
  limit     connections              9         provider comcast: said in the settings
  limit     connections_start        2         default
  limit     rate                     no limit  default
  limit     rate_start               300/min   default
  limit     messages_per_connection  1000      provider comcast: documented by the provider
  limit     recipients_per_message   50        default
  limit     tls                      required  provider comcast: community value
  state     nothing is known
"""
    )


async def test_a_domain_with_terms_of_its_own_has_them_above_the_providers(tmp_path: Path) -> None:
    answer = json.loads((await asked(tmp_path, "own.test", "--json")).stdout)
    assert (answer["domain"], answer["site"]) == ("own.test", "own.test@mx1a1.comcast.net")
    assert (answer["provider"], answer["matched"]) == ("comcast", "match comcast.net")
    assert not answer["shared"]
    assert {limit["name"]: (limit["value"], limit["origin"]) for limit in answer["limits"]} == {
        "connections": (9, "provider comcast"),
        "connections_start": (2, "default"),
        "rate": ("20/min", "destination own.test"),
        "rate_start": ("20/min", "destination own.test"),
        "messages_per_connection": (1000, "provider comcast"),
        "recipients_per_message": (50, "default"),
        "tls": ("required", "provider comcast"),
    }
    assert answer["hosts"] == [
        {
            "host": "mx1a1.comcast.net",
            "port": 25,
            "preference": 10,
            "addresses": ["2001:db8::1", "192.0.2.1"],
            "memory": [],
        }
    ]


async def test_what_is_remembered_of_each_host_is_told_and_until_when(tmp_path: Path) -> None:
    clock = HandClock()
    async with NameServer(ZONE) as server, running(terms(tmp_path, server), clock) as house:
        hosts = house.daemon.hosts
        hosts.failed(Peer("mx1a1.comcast.net", 25, "2001:db8::1"), "Connection refused")
        hosts.unsecured(Peer("mx1a1.comcast.net", 25, "192.0.2.1"), "the TLS handshake failed: reset", True)
        shown = await asyncio.to_thread(ask, tmp_path, "cable.test")
        told = await asyncio.to_thread(ask, tmp_path, "cable.test", "--json")
    assert (
        "\n".join(shown.stdout.splitlines()[1:4])
        == """\
  host      5   mx1a1.comcast.net:25  2001:db8::1, 192.0.2.1
                2001:db8::1           asked last until 2027-01-15T08:01:00.000Z, \
bad since 2027-01-15T08:00:00.000Z: Connection refused
                192.0.2.1             in the clear until 2027-01-15T14:00:00.000Z: \
the TLS handshake failed: reset"""
    )
    (first, second) = json.loads(told.stdout)["hosts"][0]["memory"]
    assert (first["address"], first["failures"], first["why"]) == ("2001:db8::1", 1, "Connection refused")
    assert (second["tls"], second["tls_until"]) == ("clear", "2027-01-15T14:00:00.000Z")


@pytest.mark.parametrize(
    ("domain", "words"),
    [
        ("null.test", "bounces: 556 5.1.10 the domain null.test takes no mail (its MX record is null); "
                      "nothing can be sent there"),
        ("gone.test", "bounces: 550 5.1.2 the domain gone.test does not exist "
                      "(DNS answers NXDOMAIN for gone.test); correct the address"),
        ("self.test", "bounces: 554 5.4.6 we are the best MX of self.test, its mail would loop; "
                      "set a route for it, or correct its MX"),
    ],
)  # fmt: skip
async def test_what_cannot_be_routed_is_told_in_words(tmp_path: Path, domain: str, words: str) -> None:
    result = await asked(tmp_path, domain)
    assert (result.exit_code, result.stdout) == (0, f"{domain}\n  mail for {domain} {words}\n")


async def test_a_domain_whose_name_servers_fail_waits(tmp_path: Path) -> None:
    answer = json.loads((await asked(tmp_path, "broken.test", "--json")).stdout)
    assert answer["problem"]["kind"] == "deferred"
    told = "451 4.4.3 the MX records of broken.test cannot be looked up"
    assert answer["problem"]["reply"].startswith(told)


async def test_a_provider_is_told_with_what_it_matches(tmp_path: Path) -> None:
    result = await asked(tmp_path, "mimecast")
    assert result.stdout.splitlines()[:4] == [
        "mimecast",
        "  match     mimecast.com, mimecast.co.za, mimecast-offshore.com",
        "  shared    by nobody: a site has its own limits",
        "  limit     connections              10             provider mimecast: community value",
    ]


async def test_a_static_route_says_so(tmp_path: Path) -> None:
    password = tmp_path / "password"
    relay = StaticRoute(Endpoint("192.0.2.9", 587), user="mta", password_file=password)
    async with NameServer(ZONE) as server:
        async with running(terms(tmp_path, server, routes={"*": relay}), HandClock()):
            result = await asyncio.to_thread(ask, tmp_path, "plain.test")
        assert not server.asked
    lines = result.stdout.splitlines()
    assert lines[1:6] == [
        "  host      0  192.0.2.9:587  192.0.2.9",
        "  site      192.0.2.9:587",
        "  login     mta",
        "  provider  none: the settings say the route",
        "  shared    by nobody: a site has its own limits",
    ]
    assert lines[-2] == "  limit     tls                      required  route *"


@pytest.mark.parametrize(
    ("destination", "words"),
    [
        ("gogle", "'gogle' is no domain, and no provider that we know; did you mean google?"),
        ("intranet", "'intranet' is no domain, and no provider that we know; "
                     "for a domain without a dot write x@intranet"),
        ("ann@bad domain.test", "'ann@bad domain.test': The domain is not valid"),
        ("[192.0.2.300]", "'[192.0.2.300]': The address literal is not valid"),
        ("192.0.2.7", "'192.0.2.7' is no domain; for the mail of this address itself write [192.0.2.7]"),
        ("a b", "'a b' is no address, no domain and no provider: write user@example.com"),
        ("", "'' is no address, no domain and no provider: write user@example.com"),
        ("@plain.test", "'@plain.test' is no address, no domain and no provider: write user@example.com"),
        ("a@b@c.test", "'a@b@c.test' is no address, no domain and no provider: write user@example.com"),
    ],
)  # fmt: skip
async def test_what_is_no_destination_is_refused(tmp_path: Path, destination: str, words: str) -> None:
    result = await asked(tmp_path, destination)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"Error: {words}\n")


async def test_without_a_daemon_settings_and_dns_answer(tmp_path: Path) -> None:
    async with NameServer(ZONE) as server:
        more = f"dns: {{servers: ['{server.endpoint}']}}\nproviders: {{comcast: {{connections: 9}}}}\n"
        result = await asyncio.to_thread(ask, tmp_path, "cable.test", "--json", more=more)
    answer = json.loads(result.stdout)
    assert (answer["provider"], answer["limits"][0]["value"]) == ("comcast", 9)
    assert answer["sources"] == [{"source": None, "address": None, "hostname": "mta.test", "state": None}]
    assert result.stderr == (
        f"the daemon is not running: nobody answers at {tmp_path}/spool/control; "
        "so this is what settings and DNS say\n"
    )


def test_without_a_daemon_a_wrong_destination_is_refused(tmp_path: Path) -> None:
    result = ask(tmp_path, "gogle")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].endswith("did you mean google?")


@pytest.mark.parametrize("runs", [True, False])
async def test_in_the_sandbox_everything_goes_there(tmp_path: Path, runs: bool) -> None:
    more = "sandbox: {path: box, bind: '127.0.0.1:4025'}\n"
    if runs:
        async with running(settings(tmp_path, sandbox=Sandbox(tmp_path / "box")), HandClock()):
            result = await asyncio.to_thread(ask, tmp_path, "gmail.com", "--json", more=more)
    else:
        result = await asyncio.to_thread(ask, tmp_path, "gmail.com", "--json", more=more)
    answer = json.loads(result.stdout)
    assert (answer["static"], answer["hosts"][0]["addresses"]) == (True, ["127.0.0.1"])
    assert {limit["origin"] for limit in answer["limits"]} == {"sandbox *"}


async def test_an_ipv6_literal_is_told_with_its_port_apart(tmp_path: Path) -> None:
    result = await asked(tmp_path, "ann@[IPv6:2001:DB8::1]")
    assert result.stdout.splitlines()[1] == "  host      0  [2001:db8::1]:25  2001:db8::1"


async def test_what_goes_on_is_told_with_units_and_only_by_a_daemon_that_runs(tmp_path: Path) -> None:
    async with running(settings(tmp_path, sandbox=Sandbox(tmp_path / "box")), HandClock()) as house:
        await house.send("421@a.test")
        await house.event(type="limit")
        told = (await asyncio.to_thread(ask, tmp_path, "a.test")).stdout
    rates = re.findall(r"(?m)^  state +rate +(\S+)$", told)
    assert rates
    assert re.fullmatch(r"[0-9.]+/min", rates[0])
    assert re.search(r"(?m)^  state +dead_for +not dead$", told)
    assert re.search(r"(?m)^  state +messages_per_connection +no limit$", told)
    more = "sandbox: {path: box, bind: '127.0.0.1:4025'}\n"
    told = (await asyncio.to_thread(ask, tmp_path, "a.test", more=more)).stdout
    assert told.splitlines()[-1] == "  state     only the daemon knows, and it is not running"


async def test_what_checks_say_of_a_from_domain_is_told_with_its_records_looked_up(tmp_path: Path) -> None:
    zone = {**ZONE, ("_dmarc.src.test", "TXT"): ['"v=DMARC1; p=none"']}
    async with NameServer(zone) as server, running(terms(tmp_path, server), HandClock()) as house:
        added(house, sending(keys=(active("s1", "AAAA"),)))
        told = await asyncio.to_thread(ask, tmp_path, "comcast", "--from", "a@News.src.test")
        nobody(house)
        unknown = await asyncio.to_thread(ask, tmp_path, "comcast", "--from", "src.test", "--json")
        wrong = await asyncio.to_thread(ask, tmp_path, "comcast", "--from", "a b")
        assert house.of(type="check") == []
    assert [line for line in told.stdout.splitlines() if line.startswith("  check")] == [
        "  check     alignment  warn on transactional, enforce on bulk     go",
        "  check     key        warn on transactional, warn on bulk        "
        "refuse: DNS does not show the key of src.test: publish the TXT record s1._domainkey.src.test",
        "  check     stream     enforce on transactional, enforce on bulk  go",
        "  check     proximity  warn on transactional, warn on bulk        go",
    ]
    says = {each["check"]: each["says"] for each in json.loads(unknown.stdout)["checks"]}
    assert says == {"alignment": "go", "key": "refuse", "stream": "go", "proximity": "go"}
    assert (wrong.exit_code, wrong.stderr) == (1, "Error: 'a b': The domain is not valid\n")
