"""Domains with several MX hosts, hosts with several addresses: who is asked, in which order, after what."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from mta.config.settings import DEFAULT, Address, Dns, Duration, SourceSettings
from mta.core.limits.throttle import Rate
from mta.core.route.hosts import MAX_ADDRESSES, SOONEST, Peer
from tests.fakes.clock import HandClock
from tests.fakes.dns import Misfortune, NameServer, Zone
from tests.fakes.house import House, running, settings
from tests.fakes.network import FIRST, SECOND, THIRD, own_network
from tests.fakes.peer import ASKED, HELLO, TAKES, ScriptedPeer, answers, envelope, goodbye
from tests.fakes.relay import IN_THE_CLEAR, MUTE, story, wait_of

B, C = "b@dst.test", "c@dst.test"
NOBODY = "451 4.4.1 No host answered; it is tried again:"
DEAD = "198.51.100.99"
BOTH: Zone = {
    ("dst.test", "MX"): ["20 mx2.dst.test.", "10 mx1.dst.test."],
    ("mx1.dst.test", "A"): [FIRST],
    ("mx2.dst.test", "A"): [SECOND],
}


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    """Addresses that DNS may give away."""
    with own_network():
        yield


@dataclass
class Net:
    """A daemon, and the peers by the address that they have."""

    house: House
    clock: HandClock
    peers: dict[str, ScriptedPeer]

    def dialled(self) -> list[int]:
        """How many connections each peer has had."""
        return [len(peer.calls) for peer in self.peers.values()]


@asynccontextmanager
async def serving(
    directory: Path, zone: Zone, scripts: dict[str, list[str]], source: str = "", **limits: Any
) -> AsyncIterator[Net]:
    """A daemon without routes; each address with scripts has a peer, all of them at one port."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(NameServer(zone))
        peers: dict[str, ScriptedPeer] = {}
        port = 0
        for address, played in scripts.items():
            peer = ScriptedPeer(*played, host=address, port=port)
            peers[address] = await stack.enter_async_context(peer)
            port = peer.port
        clock = HandClock()
        terms = settings(
            directory,
            dns=Dns((server.endpoint,), Duration(5.0)),
            destinations={"default": replace(DEFAULT, port=port, **limits)},
            providers=IN_THE_CLEAR,
            sources={"mail1": SourceSettings(Address(source))} if source else {},
        )
        async with running(terms, clock, (MUTE,)) as house:
            try:
                yield Net(house, clock, peers)
            finally:
                for peer in peers.values():
                    peer.hang_up()


async def test_the_best_mx_is_asked_and_no_other(tmp_path: Path) -> None:
    async with serving(tmp_path, BOTH, {FIRST: [HELLO + TAKES], SECOND: []}) as net:
        await net.house.send(B)
        assert await story(net.house, 2) == [f"reception {B}", f"delivery 1 {B}: 250 2.0.0 taken (.)"]
        assert net.house.of(type="delivery")[0]["host"] == "mx1.dst.test"


@pytest.mark.parametrize("first", ["close", "abort", "-> 554 5.3.2 no mail today\nclose"])
async def test_the_best_mx_does_not_let_us_in_and_the_next_one_does(tmp_path: Path, first: str) -> None:
    async with serving(tmp_path, BOTH, {FIRST: [first], SECOND: [HELLO + TAKES]}) as net:
        await net.house.send(B)
        assert await story(net.house, 2) == [f"reception {B}", f"delivery 1 {B}: 250 2.0.0 taken (.)"]
        assert net.house.of(type="delivery")[0]["host"] == "mx2.dst.test"


async def test_the_best_mx_is_dead_and_the_next_one_takes_it(tmp_path: Path) -> None:
    zone = {**BOTH, ("mx1.dst.test", "A"): [DEAD]}
    async with serving(tmp_path, zone, {SECOND: [HELLO + TAKES]}) as net:
        await net.house.send(B)
        assert await story(net.house, 2) == [f"reception {B}", f"delivery 1 {B}: 250 2.0.0 taken (.)"]


async def test_the_best_mx_has_no_address_and_the_next_one_takes_it(tmp_path: Path) -> None:
    zone = {key: value for key, value in BOTH.items() if key[0] != "mx1.dst.test"}
    async with serving(tmp_path, zone, {SECOND: [HELLO + TAKES]}) as net:
        await net.house.send(B)
        assert await story(net.house, 2) == [f"reception {B}", f"delivery 1 {B}: 250 2.0.0 taken (.)"]


async def test_the_best_mx_points_to_loopback_and_the_next_one_takes_it(tmp_path: Path) -> None:
    zone = {**BOTH, ("mx1.dst.test", "A"): ["127.0.0.1"]}
    async with serving(tmp_path, zone, {SECOND: [HELLO + TAKES]}) as net:
        await net.house.send(B)
        assert await story(net.house, 2) == [f"reception {B}", f"delivery 1 {B}: 250 2.0.0 taken (.)"]


NEVER = "521 mx.dst.test does not accept mail"


@pytest.mark.parametrize("second", [f"-> {NEVER}\nclose", "-> 556 5.1.10 no mail\nclose"])
async def test_every_host_says_that_it_never_takes_mail(tmp_path: Path, second: str) -> None:
    """RFC 7504: it is final for the host, and where all of them say so for the mail."""
    async with serving(tmp_path, BOTH, {FIRST: [f"-> {NEVER}\nclose"], SECOND: [second]}) as net:
        await net.house.send(B)
        assert (await story(net.house, 2))[1].startswith(f"bounce 1 {B} ")
        assert net.dialled() == [1, 1]


async def test_one_host_never_takes_mail_and_the_other_one_is_not_there(tmp_path: Path) -> None:
    zone = {**BOTH, ("mx1.dst.test", "A"): [DEAD]}
    async with serving(tmp_path, zone, {SECOND: [f"-> {NEVER}\nclose"]}) as net:
        await net.house.send(B)
        assert (await story(net.house, 2))[1].startswith(f"deferral 1 {B} destination ")


async def test_a_greeting_of_521_that_is_about_us_is_not_final(tmp_path: Path) -> None:
    zone = {("dst.test", "MX"): ["10 mx1.dst.test."], ("mx1.dst.test", "A"): [FIRST]}
    async with serving(tmp_path, zone, {FIRST: ["-> 521 5.7.1 Blocked, see blocklist.test\nclose"]}) as net:
        await net.house.send(B)
        assert (await story(net.house, 2))[1].startswith(f"deferral 1 {B} ")


async def test_the_first_address_of_a_host_is_dead_and_the_second_takes_it(tmp_path: Path) -> None:
    zone: Zone = {("dst.test", "MX"): ["10 mx.dst.test."], ("mx.dst.test", "A"): [DEAD, THIRD]}
    async with serving(tmp_path, zone, {THIRD: [HELLO + TAKES]}) as net:
        await net.house.send(B)
        assert await story(net.house, 2) == [f"reception {B}", f"delivery 1 {B}: 250 2.0.0 taken (.)"]


async def test_a_domain_without_mx_is_its_own_host(tmp_path: Path) -> None:
    zone: Zone = {("dst.test", "A"): [FIRST]}
    async with serving(tmp_path, zone, {FIRST: [HELLO + TAKES]}) as net:
        await net.house.send(B)
        assert await story(net.house, 2) == [f"reception {B}", f"delivery 1 {B}: 250 2.0.0 taken (.)"]


async def test_no_mx_lets_us_in_and_all_of_them_are_named(tmp_path: Path) -> None:
    zone = {**BOTH, ("mx1.dst.test", "A"): [DEAD]}
    async with serving(tmp_path, zone, {SECOND: ["close"]}) as net:
        await net.house.send(B)
        _, deferral = await story(net.house, 2)
        assert deferral.startswith(f"deferral 1 {B} network +300: {NOBODY} mx1.dst.test [{DEAD}]: ")
        assert f"; mx2.dst.test [{SECOND}]: " in deferral


async def test_a_recipient_that_is_refused_is_not_asked_for_at_the_next_mx(tmp_path: Path) -> None:
    refused = HELLO + answers("RCPT", "550 5.1.1 User unknown")
    async with serving(tmp_path, BOTH, {FIRST: [refused], SECOND: []}) as net:
        await net.house.send(B)
        assert await story(net.house, 2) == [
            f"reception {B}",
            f"bounce 1 {B} recipient: 550 5.1.1 User unknown (RCPT)",
        ]


async def test_a_greylist_is_not_gone_round_by_the_next_mx(tmp_path: Path) -> None:
    grey = HELLO + answers("RCPT", "450 4.2.0 Greylisted")
    async with serving(tmp_path, BOTH, {FIRST: [grey, HELLO + TAKES], SECOND: []}) as net:
        await net.house.send(B)
        await story(net.house, 2)
        await net.clock.advance(331)
        told = await story(net.house, 3)
        assert told[2] == f"delivery 2 {B}: 250 2.0.0 taken (.)"


LISTED = "554 5.7.1 Client host [192.0.2.1] blocked using zen.spamhaus.org"


@pytest.mark.parametrize("said", [LISTED, "421 4.7.0 Too many connections from you", "554 go away"])
async def test_words_that_anybody_writes_at_the_greeting_are_one_hosts(tmp_path: Path, said: str) -> None:
    async with serving(tmp_path, BOTH, {FIRST: [f"-> {said}\nclose"], SECOND: [HELLO + TAKES]}) as net:
        await net.house.send(B)
        assert await story(net.house, 2) == [f"reception {B}", f"delivery 1 {B}: 250 2.0.0 taken (.)"]


async def test_a_blocklist_at_every_greeting_is_told_and_not_the_silence_of_the_last(tmp_path: Path) -> None:
    zone = {**BOTH, ("mx2.dst.test", "A"): [DEAD]}
    async with serving(tmp_path, zone, {FIRST: [f"-> {LISTED}\nclose"]}) as net:
        await net.house.send(B)
        _, deferral = await story(net.house, 2)
        assert deferral.startswith(f"deferral 1 {B} source +")
        assert deferral.endswith(f": {LISTED} (CONNECT)")


async def test_a_provider_that_shuts_all_of_it_is_not_gone_round_by_its_next_host(tmp_path: Path) -> None:
    shut = "421 4.7.28 Our system has detected an unusual rate of unsolicited mail from your IP address."
    zone: Zone = {
        ("dst.test", "MX"): ["10 mx1.google.com.", "20 mx2.google.com."],
        ("mx1.google.com", "A"): [FIRST],
        ("mx2.google.com", "A"): [SECOND],
    }
    async with serving(tmp_path, zone, {FIRST: [f"-> {shut}\nclose"], SECOND: []}) as net:
        await net.house.send(B)
        _, deferral = await story(net.house, 2)
        assert deferral.startswith(f"deferral 1 {B} rate +")
        assert deferral.endswith(f": {shut} (CONNECT)")


async def test_eight_dead_addresses_do_not_hide_the_host_behind_them(tmp_path: Path) -> None:
    zone = {**BOTH, ("mx1.dst.test", "A"): [f"198.51.100.{n}" for n in range(90, 98)]}
    async with serving(tmp_path, zone, {SECOND: [HELLO + TAKES]}) as net:
        await net.house.send(B)
        assert await story(net.house, 2) == [f"reception {B}", f"delivery 1 {B}: 250 2.0.0 taken (.)"]


async def test_addresses_of_a_family_that_we_have_not_do_not_hide_the_host_behind_two_dead_ones(
    tmp_path: Path,
) -> None:
    zone: dict[tuple[str, str], list[str]] = {("dst.test", "MX"): []}
    for number, address in enumerate((DEAD, "198.51.100.98", FIRST), 1):
        zone["dst.test", "MX"].append(f"{number}0 mx{number}.dst.test.")
        zone[f"mx{number}.dst.test", "A"] = [address]
        zone[f"mx{number}.dst.test", "AAAA"] = [f"2001:db8::{number}"]
    async with serving(tmp_path, zone, {FIRST: [HELLO + TAKES]}) as net:
        await net.house.send(B)
        assert await story(net.house, 2) == [f"reception {B}", f"delivery 1 {B}: 250 2.0.0 taken (.)"]


async def test_all_addresses_of_one_host_have_their_turn(tmp_path: Path) -> None:
    dead = [f"198.51.100.{n}" for n in range(90, 98)]
    zone: Zone = {("dst.test", "MX"): ["10 mx.dst.test."], ("mx.dst.test", "A"): [*dead, THIRD]}
    async with serving(tmp_path, zone, {THIRD: [HELLO + TAKES]}) as net:
        await delivered_within(net, 2)


async def delivered_within(net: Net, attempts: int) -> None:
    """In how many it is depends on the order of addresses in the answer of DNS."""
    await net.house.send(B)
    for attempt in range(1, attempts + 1):
        told = await story(net.house, attempt + 1)
        if told[-1].startswith("delivery"):
            return
        assert told[-1].count("Connection refused") == MAX_ADDRESSES
        (*_, last) = net.house.of(type="deferral")
        # At once: else DNS, which is asked on the way, would be over its time.
        net.clock._move(net.clock.monotonic() + wait_of(last))
        await net.clock.advance(1)
    raise AssertionError(f"not delivered in {attempts} attempts")


async def test_a_dozen_dead_hosts_do_not_hide_the_last_one(tmp_path: Path) -> None:
    zone: Zone = {("dst.test", "MX"): [f"{n} mx{n}.dst.test." for n in range(13)]}
    zone = {**zone, **{(f"mx{n}.dst.test", "A"): [f"198.51.100.{100 + n}"] for n in range(12)}}
    zone = {**zone, ("mx12.dst.test", "A"): [THIRD]}
    async with serving(tmp_path, zone, {THIRD: [HELLO + TAKES]}) as net:
        await delivered_within(net, 4)


async def test_a_best_mx_that_is_dead_costs_once_and_is_told_once_and_is_probed(tmp_path: Path) -> None:
    async with serving(tmp_path, BOTH, {FIRST: ["close", HELLO + TAKES], SECOND: [HELLO + TAKES] * 2}) as net:
        for number, name in enumerate((B, C), 1):
            await net.house.send(name)
            await net.house.event(number, type="delivery")
            await net.clock.advance(31)  # no connection is left
            await net.house.quiet()
        assert net.dialled() == [1, 2]
        await net.house.send(B)  # a minute is over
        await net.house.event(3, type="delivery")
        assert net.dialled() == [2, 2]
        (bad, good) = net.house.of(type="state", host="mx1.dst.test")
        assert bad["reason"].startswith(f"mx1.dst.test [{FIRST}] is asked last: ")
        assert wait_of(bad) == SOONEST
        assert good["reason"] == f"mx1.dst.test [{FIRST}] answers again"


async def test_while_no_address_can_be_looked_up_no_host_is_remembered_as_a_bad_one(tmp_path: Path) -> None:
    """After an hour without DNS one of two equal hosts would have had all the mail for another hour."""
    zone = {
        ("dst.test", "MX"): ["10 mx1.dst.test.", "10 mx2.dst.test."],
        **{(f"mx{number}.dst.test", "A"): Misfortune.SERVFAIL for number in (1, 2)},
    }
    async with serving(tmp_path, zone, {FIRST: []}) as net:
        await net.house.send(B)
        for number in range(1, 5):
            await net.house.event(number, type="deferral")
            await net.clock.advance(wait_of(net.house.of(type="deferral")[-1]) + 1)
        await net.house.event(5, type="deferral")
        known = [
            net.house.daemon.hosts.recall(Peer(f"mx{n}.dst.test", net.peers[FIRST].port)) for n in (1, 2)
        ]
        assert [each.rests(net.clock.now() + SOONEST) for each in known] == [False, False]


async def test_one_family_of_a_host_is_dead_and_for_sources_of_the_other_it_is_no_bad_host(
    tmp_path: Path,
) -> None:
    zone = {**BOTH, ("mx1.dst.test", "AAAA"): ["2001:db8::1"]}
    async with serving(tmp_path, zone, {FIRST: ["close"], SECOND: [HELLO + TAKES] * 2}, THIRD) as net:
        for number, name in enumerate((B, C), 1):
            await net.house.send(name)
            await net.house.event(number, type="delivery")
            await net.clock.advance(31)  # no connection is left
            await net.house.quiet()
        assert net.dialled() == [1, 2]
        recall, port = net.house.daemon.hosts.recall, net.peers[FIRST].port
        assert recall(Peer("mx1.dst.test", port, FIRST)).is_bad
        assert not recall(Peer("mx1.dst.test", port)).is_bad


async def test_a_host_that_goes_down_sends_what_waits_to_the_next_mx(tmp_path: Path) -> None:
    down = HELLO + goodbye("MAIL", "421 4.3.2 Service shutting down, closing channel")
    async with serving(tmp_path, BOTH, {FIRST: [down], SECOND: [HELLO + TAKES]}) as net:
        await net.house.send(B)
        await net.peers[SECOND].at(1, "<- MAIL FROM:<*")
        await net.clock.advance(1)  # what the rate of a stranger asks for
        assert await story(net.house, 2) == [f"reception {B}", f"delivery 1 {B}: 250 2.0.0 taken (.)"]
        assert net.dialled() == [1, 1]


@pytest.mark.parametrize("end", [ASKED + "close", ASKED + "abort", ASKED + "-> 421 4.4.0 no\nclose"])
async def test_a_best_mx_that_lets_us_in_and_always_hangs_up_leaves_the_mail_to_the_next_one(
    tmp_path: Path, end: str
) -> None:
    async with serving(tmp_path, BOTH, {FIRST: [HELLO + end] * 2, SECOND: [HELLO + TAKES]}) as net:
        await net.house.send(B)
        for _ in range(3):  # at the rate of a stranger
            await net.house.quiet()
            await net.clock.advance(2.0)
        assert await story(net.house, 2) == [f"reception {B}", f"delivery 1 {B}: 250 2.0.0 taken (.)"]
        assert net.house.of(type="delivery")[0]["host"] == "mx2.dst.test"


async def test_both_hosts_let_us_in_and_always_hang_up_and_each_is_asked_in_one_attempt(
    tmp_path: Path,
) -> None:
    ends = HELLO + ASKED + "close"
    async with serving(tmp_path, BOTH, {FIRST: [ends] * 2, SECOND: [ends]}) as net:
        await net.house.send(B)
        for _ in range(4):
            await net.house.quiet()
            await net.clock.advance(2.0)
        lost = "451 4.4.2 The connection was lost before MAIL was answered; it is tried again (MAIL)"
        assert await story(net.house, 2) == [f"reception {B}", f"deferral 1 {B} connection +300: {lost}"]


async def test_a_host_without_room_is_left_alone_and_the_next_message_goes_to_the_next_mx(
    tmp_path: Path,
) -> None:
    reply = "452 4.3.1 Insufficient system storage"
    full = HELLO + answers("MAIL", reply)
    async with serving(tmp_path, BOTH, {FIRST: [full], SECOND: [HELLO + TAKES]}) as net:
        await net.house.send(B)
        await story(net.house, 2)
        await net.clock.advance(1)
        await net.house.send(C)
        assert await story(net.house, 4) == [
            f"reception {B}",
            f"deferral 1 {B} destination +300: {reply} (MAIL)",
            f"reception {C}",
            f"delivery 1 {C}: 250 2.0.0 taken (.)",
        ]


NO_ROOM = "452 4.3.1 Insufficient system storage"
ONE = {"connections": 1, "connections_start": 1, "rate_start": Rate(1000, 1.0)}


async def refused_and_taken(net: Net, stage: str) -> None:
    """The first message is refused by the first host, while the second one is there; that is delivered."""
    await net.house.send(B)
    await net.peers[FIRST].at(1, "hold")
    await net.house.send(C)
    net.peers[FIRST].go()
    assert await story(net.house, 4) == [
        f"reception {B}",
        f"reception {C}",
        f"deferral 1 {B} destination +300: {NO_ROOM} ({stage})",
        f"delivery 1 {C}: 250 2.0.0 taken (.)",
    ]
    await net.peers[FIRST].at(1, "end")


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA"])
async def test_what_waits_behind_a_refusal_for_want_of_room_goes_to_the_other_host(
    tmp_path: Path, stage: str
) -> None:
    script = HELLO + "hold\n" + answers(stage, NO_ROOM)
    async with serving(tmp_path, BOTH, {FIRST: [script], SECOND: [HELLO + TAKES]}, **ONE) as net:
        await refused_and_taken(net, stage)


async def test_what_went_out_with_the_body_that_is_refused_for_want_of_room_is_answered_too(
    tmp_path: Path,
) -> None:
    """The next message is on its way to the same host before the host is known to be no good."""
    refused = answers(".", NO_ROOM).replace(f"-> {NO_ROOM}", ASKED + f"-> {NO_ROOM}")
    following = "-> 250 2.1.0 ok\n-> 250 2.1.5 ok\n-> 354 go on\n<- message\n-> 250 2.0.0 taken"
    script = HELLO + "hold\n" + refused + following
    async with serving(tmp_path, BOTH, {FIRST: [script], SECOND: []}, **ONE) as net:
        await refused_and_taken(net, ".")


async def test_two_domains_with_the_same_mx_share_one_connection(tmp_path: Path) -> None:
    zone = {**BOTH, ("else.test", "MX"): BOTH["dst.test", "MX"]}
    both = envelope("250 ok", "250 ok", "250 ok", "354 go on") + "<- message\n-> 250 taken\n"
    async with serving(tmp_path, zone, {FIRST: [HELLO + TAKES * 2 + both], SECOND: []}) as net:
        for number, name in enumerate((B, "b@else.test"), 1):  # then their routes are known
            await net.house.send(name)
            await story(net.house, 2 * number)
            await net.clock.advance(1)  # what the rate of a stranger asks for
        await net.house.send("x@dst.test", "y@else.test")
        told = await story(net.house, 8)
        assert told[4:] == [
            "reception x@dst.test",
            "reception y@else.test",
            "delivery 1 x@dst.test: 250 taken (.)",
            "delivery 1 y@else.test: 250 taken (.)",
        ]


async def test_mx_hosts_of_one_preference_are_both_used(tmp_path: Path) -> None:
    """The dice decide between equals: with these the first, then the other."""
    zone = {**BOTH, ("dst.test", "MX"): ["10 mx1.dst.test.", "10 mx2.dst.test."]}
    async with serving(tmp_path, zone, {FIRST: [HELLO + TAKES + "close"], SECOND: [HELLO + TAKES]}) as net:
        thrown = iter([0.1, 0.9, 0.9, 0.1])
        net.clock.dice = lambda: next(thrown, 0.5)  # type: ignore[method-assign]
        for name in (B, C):
            await net.house.send(name)
            await net.house.event(type="delivery", recipient=name)
            await net.clock.advance(1)
        assert net.dialled() == [1, 1]


EQUALS: Zone = {**BOTH, ("dst.test", "MX"): ["10 mx1.dst.test.", "10 mx2.dst.test."]}
CROWDED = "421 4.7.0 mx.dst.test Error: too many connections from 192.0.2.1"


async def test_one_of_two_equal_hosts_wants_no_more_connections_and_the_other_takes_the_mail(
    tmp_path: Path,
) -> None:
    """It is the host's own limit: the site's stays as it was, and no attempt is lost."""
    scripts = {FIRST: [f"-> {CROWDED}\nclose"], SECOND: [HELLO + TAKES]}
    async with serving(tmp_path, EQUALS, scripts) as net:
        thrown = iter([0.1, 0.9])
        net.clock.dice = lambda: next(thrown, 0.5)  # type: ignore[method-assign]
        await net.house.send(B)
        await net.clock.advance(1)  # what the rate of a stranger asks for
        assert await story(net.house, 2) == [f"reception {B}", f"delivery 1 {B}: 250 2.0.0 taken (.)"]
        assert net.dialled() == [1, 1]
        assert not [event for event in net.house.events if event["type"] == "limit"]


async def test_both_of_two_equal_hosts_want_no_more_connections_and_it_is_the_site(tmp_path: Path) -> None:
    refuses = f"-> {CROWDED}\nclose"
    async with serving(tmp_path, EQUALS, {FIRST: [refuses], SECOND: [refuses]}) as net:
        await net.house.send(B)
        await net.clock.advance(1)
        told = await story(net.house, 2)
        assert told[1].startswith(f"deferral 1 {B} connection ")
        assert net.dialled() == [1, 1]


async def test_two_equal_hosts_are_used_in_turn_while_both_are_idle(tmp_path: Path) -> None:
    two = {"connections": 2, "connections_start": 2, "rate_start": Rate(1000, 1.0)}
    scripts = {FIRST: [HELLO + "hold\n" + TAKES * 3], SECOND: [HELLO + TAKES * 2]}
    async with serving(tmp_path, EQUALS, scripts, **two) as net:
        thrown = iter([0.1, 0.9])
        net.clock.dice = lambda: next(thrown, 0.5)  # type: ignore[method-assign]
        await net.house.send(B)
        await net.peers[FIRST].at(1, "hold")
        await net.house.send(C)
        await net.house.event(type="reception", recipient=C)
        await net.clock.advance(1)  # it has waited for as long as a second connection is worth
        await net.house.event(type="delivery", recipient=C)
        net.peers[FIRST].go()
        await net.house.event(type="delivery", recipient=B)
        for n in range(3):
            await net.house.send(f"{n}@dst.test")
            await net.house.event(type="delivery", recipient=f"{n}@dst.test")
        hosts = [event["host"] for event in net.house.events if event["type"] == "delivery"]
        assert hosts[2:] == ["mx1.dst.test", "mx2.dst.test", "mx1.dst.test"]
