"""Another policy while mail flows: nothing is lost or sent twice, and the next message has the new one."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest

from mta.api.control import call
from mta.config.policy import Policy, PolicyError, build, derive
from mta.config.settings import (
    Address,
    Destination,
    Duration,
    Endpoint,
    HostName,
    Limits,
    Quota,
    Size,
    SourceSettings,
    StaticRoute,
    Stream,
)
from mta.core.answers.rules import Rule, RuleSet
from mta.core.limits.throttle import Rate
from mta.core.model import Subject
from tests.fakes.client import CONTENT, ENVELOPE, Client, greeted
from tests.fakes.clock import HandClock
from tests.fakes.doorman import Doorman
from tests.fakes.house import House, routed, running, settings
from tests.fakes.peer import HELLO, TAKES, answers
from tests.fakes.receiver import Receiver
from tests.fakes.relay import MUTE, Relay, relaying, wait_of

B = "b@dst.test"
ONE, TWO = "127.0.0.2", "127.0.0.3"
HELLO2 = HELLO.replace("mta.test", "mail2.test")
OTHER_NAME = {"mail1": SourceSettings(Address("127.0.0.1"), HostName("mail2.test"))}
RESET = "<- RSET\n-> 250 ok\n"
LATER = "450 4.2.0 mailbox busy"


def adopt(house: House, **changes: Any) -> Policy:
    """Other settings, as a reload would read them."""
    policy = build(replace(house.daemon.settings, **changes))
    house.daemon.adopt(policy)
    return policy


def to_peer(relay: Relay, **terms: Any) -> dict[str, Any]:
    """The route of this house, on other terms."""
    return {"routes": routed(relay.peer.port, **terms)}


# Under load


def variants(directory: Path, ports: dict[str, int]) -> list[Policy]:
    """Policies that differ in all that mail meets on its way."""
    both = {"mail1": SourceSettings(Address(ONE)), "mail2": SourceSettings(Address(TWO), HostName("m2.test"))}
    moved = {"mail1": SourceSettings(Address(TWO), HostName("m3.test"))}
    plain = settings(directory, routes=_routes(ports), sources=both)
    quotas = {"default": Quota(messages=100_000)}
    slow = _routes(ports, rate=Rate(30, 1.0), connections=2, messages_per_connection=3)
    brisk = {"transactional": Stream(retry_first=Duration(20.0), retry_max=Duration(40.0))}
    every = [
        plain,
        replace(plain, routes=slow, limits=Limits(tenants=quotas, recipients=7)),
        replace(plain, sources=moved, streams=brisk),
        replace(plain, pools={"default": {"mail2": 1}}, routes=_routes(ports, recipients_per_message=1)),
        replace(plain, sources={}, routes=_routes(ports, rate=Rate(300, 1.0))),
    ]
    return [build(each) for each in every]


def _routes(ports: dict[str, int], **terms: Any) -> dict[str, StaticRoute]:
    return {domain: StaticRoute(Endpoint("127.0.0.1", port), **terms) for domain, port in ports.items()}


async def test_a_policy_that_is_swapped_without_end_under_load_loses_and_doubles_nothing(
    tmp_path: Path,
) -> None:
    clock, rounds, each = HandClock(), 30, 5
    async with Receiver() as one, Receiver(said={"two.test": LATER}) as two, Receiver() as three:
        peers = {"one.test": one, "two.test": two, "three.test": three}
        policies = variants(tmp_path, {domain: peer.port for domain, peer in peers.items()})
        async with running(policies[0].settings, clock, (MUTE,)) as house:
            for number, policy in enumerate(islice(cycle(policies), rounds)):
                sending = [
                    asyncio.create_task(house.send(f"m{number}-{at}@{domain}", f"n{number}-{at}@{domain}"))
                    for at in range(each)
                    for domain in peers
                ]
                await sending[0]
                house.daemon.adopt(policy)  # the others are anywhere on their way
                said = await asyncio.gather(*sending)
                assert all(reply.startswith("250 ") for reply in said)
                house.daemon.adopt(policies[-1 - number % 2])
                await clock.advance(1.0)
            two.said.clear()
            wanted = rounds * each * len(peers) * 2
            for _ in range(400):
                if len(house.of(type="delivery")) >= wanted:
                    break
                await clock.advance(20.0)
                await house.quiet()
            assert {event["type"] for event in house.events} <= {
                "reception",
                "delivery",
                "deferral",
                "check",
                "state",
                "limit",
            }
            delivered = Counter(event["recipient"] for event in house.of(type="delivery"))
            assert (len(delivered), set(delivered.values())) == (wanted, {1})
            deferred = Counter(event["recipient"] for event in house.of(type="deferral"))
            assert deferred  # there was something to be tried again
            asked = Counter(recipient for peer in peers.values() for recipient in peer.asked)
            assert asked == delivered + deferred
            tally = house.daemon.spool.tally
            assert (tally.fresh, tally.deferred) == (0, 0)
            await clock.advance(4000.0)
            assert house.daemon.pool.lanes == 0  # those that were left are forgotten like the others


# What is under way, and what comes next


async def test_a_transaction_under_way_ends_from_its_source_and_the_next_has_the_new_name(
    tmp_path: Path,
) -> None:
    asked = HELLO + "<- MAIL FROM:<*\n<- RCPT TO:<*\n<- DATA\nhold\n"
    taken = "-> 250 ok\n-> 250 ok\n-> 354 go on\n<- message\n-> 250 taken\n"
    mail1 = {"mail1": SourceSettings(Address("127.0.0.1"))}
    async with relaying(tmp_path, asked + taken, HELLO2 + TAKES) as relay:
        adopt(relay.house, sources=mail1)
        await relay.house.send(B)
        await relay.peer.at(1, "hold")
        adopt(relay.house, sources=OTHER_NAME)
        await relay.house.send("c@dst.test")
        await relay.house.event(type="delivery", recipient="c@dst.test")
        assert relay.house.of(type="delivery", recipient=B) == []
        relay.peer.go()
        await relay.house.event(type="delivery", recipient=B)
        assert relay.house.of(type="deferral") == []


async def test_what_waits_in_memory_behind_an_old_source_goes_from_the_new_one(tmp_path: Path) -> None:
    slow = HELLO + "hold\n" + TAKES
    async with relaying(tmp_path, slow, HELLO2 + TAKES * 3, connections=1) as relay:
        for number in range(4):
            await relay.house.send(f"b{number}@dst.test")
        await relay.peer.at(1, "hold")
        adopt(relay.house, sources=OTHER_NAME)
        await relay.house.event(3, type="delivery")
        relay.peer.go()
        await relay.house.event(4, type="delivery")
        attempts = [event["attempt"] for event in relay.house.of(type="delivery")]
        assert attempts == [1] * 4  # to be sent another way costs no attempt


async def test_a_route_that_is_gone_takes_no_more_mail(tmp_path: Path) -> None:
    async with Doorman() as other, relaying(tmp_path, HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.house.event(type="delivery")
        adopt(relay.house, routes=routed(other.port))
        await relay.house.send("c@dst.test")
        await relay.house.event(2, type="delivery")
        assert sum(other.taken.values()) == 1


async def test_mail_that_asks_for_tls_goes_in_the_clear_by_no_policy(tmp_path: Path) -> None:
    safely = b"From: a@src.test\r\nX-MTA-Require-TLS: yes\r\n\r\nHello.\r\n"
    async with relaying(tmp_path, "hold\n" + HELLO + "silence", HELLO + TAKES) as relay:
        await relay.house.send(B, content=safely)
        await relay.peer.at(1, "hold")
        adopt(relay.house, **to_peer(relay, rate=Rate(100, 1.0)))
        await relay.house.send("c@dst.test")
        await relay.house.event(type="delivery", recipient="c@dst.test")
        relay.peer.go()
        await relay.house.event(type="deferral", recipient=B, subject="tls")
        assert [len(call.messages) for call in relay.peer.calls] == [0, 1]


async def test_a_rate_that_is_lifted_frees_what_waits_for_it(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + TAKES * 3, connections=1, rate=Rate(1, 3600.0)) as relay:
        for number in range(3):
            await relay.house.send(f"b{number}@dst.test")
        await relay.house.event(type="delivery")
        adopt(relay.house, **to_peer(relay, connections=1, rate=Rate(60, 60.0)))
        await relay.clock.advance(3.0)
        await relay.house.event(3, type="delivery")


async def test_a_lower_number_of_messages_holds_for_connections_that_are_open(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + TAKES, HELLO + TAKES) as relay:
        await relay.house.send(B)
        await relay.house.event(type="delivery")
        adopt(relay.house, **to_peer(relay, messages_per_connection=1))
        await relay.house.send("c@dst.test")
        await relay.house.event(2, type="delivery")


async def test_the_next_deferral_waits_as_the_new_schedule_says(tmp_path: Path) -> None:
    unheard_of = answers("RCPT", "451 4.9.9 Zwiebelfisch")
    async with relaying(tmp_path, HELLO + unheard_of + RESET + unheard_of) as relay:
        await relay.house.send(B)
        before = wait_of(await relay.house.event(type="deferral"))
        stream = Stream(retry_first=Duration(7200.0), retry_max=Duration(7200.0))
        adopt(relay.house, streams={"transactional": stream})
        await relay.house.send("c@dst.test")
        after = wait_of(await relay.house.event(type="deferral", recipient="c@dst.test"))
        assert before < 3600.0 < after


async def test_an_answer_is_read_by_the_rules_of_its_moment(tmp_path: Path) -> None:
    words = "550 5.9.9 Zwiebelfisch"
    async with relaying(tmp_path, HELLO + answers("RCPT", words) + RESET + answers("RCPT", words)) as relay:
        await relay.house.send(B)
        bounce = await relay.house.event(type="bounce")
        assert bounce["rule"] != "fish"
        policy = relay.house.daemon.current.policy
        rule = Rule("fish", Subject.MAILBOX, phrases=("zwiebelfisch",), permanent=False)
        rules = RuleSet([rule], policy.rules.retries)
        relay.house.daemon.adopt(derive(policy.settings, policy.providers, rules))
        await relay.house.send("c@dst.test")
        deferral = await relay.house.event(type="deferral")
        assert (deferral["recipient"], deferral["rule"]) == ("c@dst.test", "fish")


# Intake


async def test_a_message_that_was_begun_is_taken_on_the_terms_of_its_beginning(tmp_path: Path) -> None:
    terms = settings(tmp_path, routes=routed(1))
    async with running(terms, HandClock()) as house, await greeted(house.network) as client:
        client.say(*ENVELOPE)
        assert [reply[:3] for reply in await client.replies(3)] == ["250", "250", "354"]
        adopt(house, limits=Limits(message_size=Size(40), recipients=1))
        client.send(CONTENT, b".\r\n")
        assert (await client.reply()).code == 250
        client.say(*ENVELOPE)
        assert [reply[:3] for reply in await client.replies(3)] == ["250", "250", "354"]
        client.send(CONTENT, b".\r\n")
        assert (await client.reply()).code == 552
        client.say(ENVELOPE[0], ENVELOPE[1], "RCPT TO:<c@dst.test>")
        assert [reply[:3] for reply in await client.replies(3)] == ["250", "250", "452"]


async def test_a_quota_and_a_reserve_count_from_the_next_message_on(tmp_path: Path) -> None:
    async with running(settings(tmp_path, routes=routed(1)), HandClock(), (MUTE,)) as house:
        assert (await house.send(B)).startswith("250 ")
        adopt(house, limits=Limits(tenants={"acme": Quota(messages=1)}))
        assert (await house.send(B)).startswith("452 4.3.1 The quota is used up")
        adopt(house, limits=Limits())
        assert (await house.send(B)).startswith("250 ")
        spool = house.daemon.settings.spool
        adopt(house, spool=replace(spool, reserve=Size(2**62)))
        assert (await house.send(B)).startswith("452 4.3.1 The disk has no room")
        adopt(house, spool=spool)
        await house.daemon.capacity.measure()
        assert (await house.send(B)).startswith("250 ")


async def test_a_place_less_for_each_client_sends_nobody_away_who_has_one(tmp_path: Path) -> None:
    async with running(settings(tmp_path, routes=routed(1)), HandClock()) as house:
        door = house.network
        async with await greeted(door) as one, await greeted(door) as two, await Client.connect(door) as more:
            assert (await more.reply()).code == 220
            adopt(house, limits=Limits(connections_per_client=1))
            assert [(await each.ask("NOOP"))[:3] for each in (one, two, more)] == ["250"] * 3
            async with await Client.connect(door) as last:
                assert (await last.reply()).code == 421


# MX hosts


async def test_an_open_connection_in_the_clear_carries_nothing_more_once_tls_is_required(
    tmp_path: Path,
) -> None:
    async with relaying(tmp_path, HELLO + TAKES, HELLO, mx="mx.far.test") as relay:
        await relay.house.send(B)
        await relay.house.event(type="delivery")
        default = relay.house.daemon.settings.destinations["default"]
        adopt(relay.house, destinations={"default": replace(default, tls="required")})
        await relay.house.send("c@dst.test")
        deferral = await relay.house.event(type="deferral")
        assert (deferral["recipient"], deferral["subject"]) == ("c@dst.test", "tls")


async def test_a_lower_ceiling_holds_for_a_path_that_is_in_use(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + TAKES * 2, mx="mx.far.test") as relay:
        await relay.house.send(B)
        await relay.house.event(type="delivery")
        before = await state(relay.house)
        default = relay.house.daemon.settings.destinations["default"]
        lower = replace(default, connections=1, connections_start=None, rate=Rate(60, 60.0), rate_start=None)
        adopt(relay.house, destinations={"default": lower})
        await relay.house.send("c@dst.test")
        await relay.house.event(2, type="delivery")
        after = await state(relay.house)
        assert before["window"] > 1 == after["window"]
        assert before["rate"] > 1 >= after["rate"]


async def state(house: House) -> dict[str, Any]:
    """How fast mail goes to dst.test."""
    socket = house.daemon.settings.control_socket
    answer = await asyncio.to_thread(call, socket, "explain", {"destination": "dst.test"})
    (source,) = answer["sources"]
    found = source["state"]
    assert isinstance(found, dict)
    return found


# Refused


@pytest.mark.parametrize(
    "changes",
    [
        {"hostname": HostName("other.test")},
        {"listeners": ()},
        {"limits": Limits(memory=Size(2**20), recipients=1)},
    ],
)
async def test_a_policy_that_needs_a_restart_changes_nothing_at_all(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    async with relaying(tmp_path, HELLO + TAKES) as relay:
        before = relay.house.daemon.current.policy
        with pytest.raises(PolicyError, match="only a restart changes"):
            adopt(relay.house, sources=OTHER_NAME, **changes)
        assert relay.house.daemon.current.policy is before
        await relay.house.send(B)
        await relay.house.event(type="delivery")  # under the name as it was


async def test_settings_that_do_not_build_change_nothing_at_all(tmp_path: Path) -> None:
    wrong = {
        "default": Destination(retry_first=Duration(60.0)),
        "dst.test": Destination(retry_max=Duration(1.0)),
    }
    async with relaying(tmp_path, HELLO + TAKES) as relay:
        before = relay.house.daemon.current.policy
        with pytest.raises(PolicyError, match="retry_first is above retry_max"):
            adopt(relay.house, destinations=wrong)
        assert relay.house.daemon.current.policy is before
        await relay.house.send(B)
        await relay.house.event(type="delivery")
