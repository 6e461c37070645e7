"""Keys from their birth to their end, beside real name servers that say odd things."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mta.config.policy import Current, build
from mta.config.settings import DAY, Dns, Duration, IdentitySettings
from mta.core.domain import ALGORITHMS, MAX_KEYS, KeyMoveError, KeyState, SendingDomain, activated
from mta.core.event import Event
from mta.dns.authority import Authority
from mta.dns.resolver import Resolver
from mta.metrics import Metrics
from mta.signing.keys import KeyFolder
from mta.signing.rotation import LATEST, REMIND, ROUND, SEEN, Rotation, adopt, make
from mta.store import domains
from mta.store.database import Database
from mta.store.domains import DomainStore
from tests.fakes.clock import HandClock
from tests.fakes.dns import Misfortune, NameServer
from tests.fakes.house import settings

HOSTS = ("127.0.0.2", "127.0.0.3")
NET = {
    ("src.test", "NS"): ["ns1.src.test.", "ns2.src.test."],
    ("ns1.src.test", "A"): [HOSTS[0]],
    ("ns2.src.test", "A"): [HOSTS[1]],
}


@dataclass
class Scene:
    """What a test of rotation looks at."""

    rotation: Rotation
    database: Database
    keys: KeyFolder
    clock: HandClock
    zones: list[dict[tuple[str, str], list[str] | Misfortune]]
    told: list[str]
    oldest: float | None = None

    async def domain(self) -> SendingDomain:
        found = await self.database.run(lambda connection: domains.read(connection, "src.test"))
        assert found is not None
        return found

    async def states(self) -> dict[str, str]:
        return {key.selector: key.state.value for key in (await self.domain()).keys}

    async def rotate(self) -> str:
        """A new key; its selector."""
        made = make(self.keys, await self.domain(), "ed25519-sha256", self.clock.now())
        new = made.keys[-1]
        await self.database.run(
            lambda connection: domains.change_keys(connection, made.name, lambda _: [new])
        )
        return new.selector

    async def publish(self, selector: str, *servers: int) -> None:
        domain = await self.domain()
        key = domain.key(selector)
        for server in servers:
            self.zones[server][key.host("src.test"), "TXT"] = [f'"{key.record}"']

    async def after(self, seconds: float) -> None:
        """A round, some time later."""
        await self.clock.advance(seconds)
        await self.rotation.round()


@asynccontextmanager
async def scene(tmp_path: Path, **identity: object) -> AsyncIterator[Scene]:
    clock, metrics, told = HandClock(), Metrics(), list[str]()
    current = Current(build(settings(tmp_path, identity=replace(IdentitySettings(), **identity))))  # type: ignore[arg-type]
    keys, database = KeyFolder(tmp_path), Database(tmp_path / "store.db")
    await database.open()

    def report(events: Iterable[Event]) -> None:
        told.extend(event.reason for event in events)

    async with AsyncExitStack() as stack:
        cache = await stack.enter_async_context(NameServer(NET))
        zones: list[dict[tuple[str, str], list[str] | Misfortune]] = [{}, {}]
        first = await stack.enter_async_context(NameServer(zones[0], host=HOSTS[0]))
        port = first.endpoint.port
        await stack.enter_async_context(NameServer(zones[1], host=HOSTS[1], port=port))
        resolver = Resolver(Dns((cache.endpoint,), Duration(5.0)), clock)
        made: list[Scene] = []

        async def oldest() -> float | None:
            return made[0].oldest

        authority = Authority(resolver, clock, port)
        rotation = Rotation(database, keys, current, authority, oldest, report, clock, metrics)
        made.append(Scene(rotation, database, keys, clock, zones, told))
        domain = make(keys, SendingDomain("src.test"), "ed25519-sha256", clock.now(), "first")
        await database.run(lambda connection: domains.write(connection, domain))
        async with asyncio.TaskGroup() as tasks:
            rotation._tasks = tasks
            await rotation.round()
            told.clear()  # of the first key
            yield made[0]
        await database.close()


async def test_a_new_key_signs_when_the_last_name_server_shows_its_record(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        new = await it.rotate()
        await it.after(ROUND)
        await it.publish(new, 0)
        await it.after(ROUND)
        assert await it.states() == {"first": "active", new: "pending"}
        (said,) = it.told
        assert said.startswith(f"the key {new} signs when every name server shows its record: publish ")
        await it.publish(new, 1)
        await it.after(2 * ROUND)
        assert await it.states() == {"first": "retiring", new: "active"}
        await it.after(1)
        assert it.told[1].startswith(
            f"the key {new} signs from now on: publish {new}._domainkey.src.test TXT "
        )
        assert it.told[2] == "the key first signs no more; leave its record for the mail that is on its way"


@pytest.mark.parametrize("misfortune", [Misfortune.SERVFAIL, Misfortune.REFUSED, Misfortune.NXDOMAIN])
async def test_a_server_that_says_nothing_of_use_has_not_shown_it(
    tmp_path: Path, misfortune: Misfortune
) -> None:
    async with scene(tmp_path) as it:
        new = await it.rotate()
        await it.publish(new, 0)
        it.zones[1][(await it.domain()).key(new).host("src.test"), "TXT"] = misfortune
        await it.after(ROUND)
        assert (await it.states())[new] == "pending"


async def test_a_record_of_another_key_under_the_name_is_not_taken_for_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        new = await it.rotate()
        await it.publish(new, 0, 1)
        it.zones[1][(await it.domain()).key(new).host("src.test"), "TXT"] = [
            '"v=DKIM1; k=ed25519; p=b3RoZXI="'
        ]
        await it.after(ROUND)
        assert (await it.states())[new] == "pending"


async def test_a_record_as_people_write_it_is_recognised(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        new = await it.rotate()
        key = (await it.domain()).key(new)
        for zone in it.zones:
            parts = f'"k=ed25519;t=s ; p={key.public[:20]} " "{key.public[20:]}; "'
            zone[key.host("src.test"), "TXT"] = [parts]
        await it.after(ROUND)
        assert (await it.states())[new] == "active"


async def test_a_cname_to_another_zone_is_followed(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        new = await it.rotate()
        key = (await it.domain()).key(new)
        for zone in it.zones:
            zone[key.host("src.test"), "CNAME"] = ["s1.keys.src.test."]
            zone["s1.keys.src.test", "TXT"] = [f'"{key.record}"']
        await it.after(ROUND)
        assert (await it.states())[new] == "active"


async def test_cnames_in_a_loop_end(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        new = await it.rotate()
        host = (await it.domain()).key(new).host("src.test")
        for zone in it.zones:
            zone[host, "CNAME"] = ["loop.src.test."]
            zone["loop.src.test", "CNAME"] = [f"{host}."]
        await it.after(ROUND)
        assert (await it.states())[new] == "pending"


async def test_a_former_key_retires_when_no_mail_of_its_time_can_be_out(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        new = await it.rotate()
        await it.publish(new, 0, 1)
        await it.after(ROUND)
        it.oldest = it.clock.now() - 1.0  # a message that was delayed for a month
        await it.after(6 * DAY)
        await it.after(SEEN)
        assert (await it.states())["first"] == "retiring"
        it.oldest = it.clock.now()
        await it.after(ROUND)
        assert (await it.states())["first"] == "retired"
        await it.after(1)
        assert "publish first._domainkey.src.test TXT v=DKIM1; k=ed25519; p=, " in it.told[-1]
        assert [selector for _, selector in it.keys.selectors("src.test")] == [new]


async def test_a_former_key_stays_published_for_the_life_of_its_mail(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        new = await it.rotate()
        await it.publish(new, 0, 1)
        await it.after(ROUND)
        await it.after(4 * DAY)
        await it.after(SEEN)
        assert (await it.states())["first"] == "retiring"


async def test_an_old_key_gets_a_follower_once_and_people_are_told_what_to_publish(tmp_path: Path) -> None:
    async with scene(tmp_path, rotate=Duration(30 * DAY)) as it:
        await it.after(29 * DAY)
        assert await it.states() == {"first": "active"}
        await it.after(2 * DAY)
        await it.after(ROUND)
        states = await it.states()
        assert sorted(states.values()) == ["active", "pending"]
        (said,) = it.told
        new = next(key for key in (await it.domain()).keys if key.state is KeyState.PENDING)
        assert said.endswith(f": publish {new.host('src.test')} TXT {new.record}")
        assert new.selector in [selector for _, selector in it.keys.selectors("src.test")]


async def test_rotation_by_hand_only_makes_no_followers(tmp_path: Path) -> None:
    async with scene(tmp_path, rotate=Duration(0.0)) as it:
        await it.after(1000 * DAY)
        assert await it.states() == {"first": "active"}


async def test_a_record_that_nobody_publishes_is_not_asked_for_every_minute_for_ever(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        await it.rotate()
        asked: list[str] = []
        txt = it.rotation._authority.txt

        async def counting(host: str) -> object:
            asked.append(host)
            return await txt(host)

        it.rotation._authority.txt = counting  # type: ignore[method-assign,assignment]
        for _ in range(120):
            await it.after(ROUND)
        assert 10 <= len(asked) <= 15, LATEST


async def test_a_domain_has_no_more_keys_than_it_may(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        for _ in range(MAX_KEYS - 1):
            await it.rotate()
        with pytest.raises(KeyMoveError, match="retire some first"):
            await it.rotate()


def spoiled(domain: SendingDomain, damage: str, connection: sqlite3.Connection) -> None:
    domains.write(connection, domain)
    connection.execute(f"UPDATE domain SET streams = {damage} WHERE name = ?", (domain.name,))


async def test_one_domain_that_cannot_be_read_does_not_end_the_rotation_of_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with scene(tmp_path) as it:
        for name, damage in (("bad.test", "'?'"), ("odd.test", "CAST(x'ff' AS TEXT)")):
            other = SendingDomain(name)
            for _ in range(2):  # the second one is pending
                other = make(it.keys, other, "ed25519-sha256", 0.0)
            await it.database.run(partial(spoiled, other, damage))
        new = await it.rotate()
        await it.publish(new, 0, 1)
        await it.after(ROUND)
        assert await it.states() == {"first": "retiring", new: "active"}
    assert "the keys of a domain stay as they are: store.db: the domain 'bad.test' cannot be" in caplog.text
    assert "the domain 'odd.test' cannot be read" in caplog.text


async def test_keys_that_are_retired_make_room_for_new_ones_in_the_store_too(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        for _ in range(2 * MAX_KEYS):
            new = await it.rotate()
            await it.publish(new, 0, 1)
            await it.after(ROUND)
            await it.after(6 * DAY)
            await it.after(SEEN)
        states = list((await it.states()).values())
        assert states == ["retired"] * (MAX_KEYS - 1) + ["active"]


def test_of_secrets_whose_domain_was_lost_the_oldest_of_each_kind_signs(tmp_path: Path) -> None:
    """What is newer may have waited for its record, which nobody may have published."""
    folder, domain = KeyFolder(tmp_path), SendingDomain("src.test")
    kinds = {"old": ALGORITHMS[1], "late": ALGORITHMS[1], "other": ALGORITHMS[0], "later": ALGORITHMS[1]}
    for age, (selector, kind) in enumerate(kinds.items()):
        make(folder, domain, kind, 0.0, selector)
        os.utime(tmp_path / f"keys/src.test/{selector}.pem", (age, age))
    found = adopt(folder, domain, 100.0)
    assert {key.selector: key.state.value for key in found.keys} == {
        "old": "active",
        "other": "active",
        "late": "pending",
        "later": "pending",
    }
    assert [key.created for key in found.keys] == [0.0, 2.0, 1.0, 3.0]


async def test_a_lost_key_that_dns_shows_follows_the_oldest(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        second = await it.rotate()
        os.utime(tmp_path / "keys/src.test/first.pem", (1.0, 1.0))
        found = adopt(it.keys, SendingDomain("src.test"), it.clock.now())

        def anew(connection: sqlite3.Connection) -> None:
            domains.remove(connection, "src.test")
            domains.write(connection, found)

        await it.database.run(anew)
        await it.publish(second, 0, 1)
        assert await it.states() == {"first": "active", second: "pending"}
        await it.after(ROUND)
        assert await it.states() == {"first": "retiring", second: "active"}


def test_more_secrets_than_a_domain_may_have_are_no_obstacle(tmp_path: Path) -> None:
    folder, domain = KeyFolder(tmp_path), SendingDomain("src.test")
    for n in range(MAX_KEYS + 2):
        make(folder, domain, "ed25519-sha256", 0.0, f"s{n}")
        os.utime(tmp_path / f"keys/src.test/s{n}.pem", (n, n))
    found = adopt(folder, domain, 100.0)
    assert [key.selector for key in found.keys] == ["s0", *(f"s{n}" for n in range(3, MAX_KEYS + 2))]
    assert [key.selector for key in found.signers] == ["s0"]


def test_a_selector_that_is_too_long_for_dns_with_its_domain_leaves_no_secret(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path)
    domain = SendingDomain(".".join(("x" * 57, "y" * 60, "z" * 60, "test")))
    fits = 253 - len(f"._domainkey.{domain.name}")
    with pytest.raises(ValueError, match="is too long for DNS, by 1: take a shorter selector"):
        make(folder, domain, "ed25519-sha256", 0.0, "s" * (fits + 1))
    assert folder.domains == []
    assert make(folder, domain, "ed25519-sha256", 0.0, "s" * fits).signers


async def test_a_clock_that_is_wrong_for_a_moment_retires_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        new = await it.rotate()
        await it.publish(new, 0, 1)
        await it.after(ROUND)
        it.clock._now += 3650 * DAY
        await it.rotation.round()
        it.clock._now -= 3650 * DAY
        await it.after(SEEN + ROUND)
        assert (await it.states())["first"] == "retiring"


async def test_a_record_that_is_not_published_is_asked_for_once_a_day_with_what_is_wrong(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as it:
        new = await it.rotate()
        await it.publish(new, 0)
        for _ in range(int(3 * REMIND / LATEST)):
            await it.after(LATEST)
        asked = [said for said in it.told if "still waits" in said]
        assert 2 <= len(asked) <= 3
        assert asked[0].startswith(
            f"the key {new} still waits: ns2.src.test has no record there; publish {new}."
        )


async def test_two_records_under_one_selector_are_none(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        new = await it.rotate()
        await it.publish(new, 0, 1)
        host = (await it.domain()).key(new).host("src.test")
        it.zones[1][host, "TXT"] = [*it.zones[0][host, "TXT"], '"v=DKIM1; k=ed25519; p=b3RoZXI="']  # type: ignore[misc]
        await it.after(ROUND)
        assert (await it.states())[new] == "pending"


async def test_a_key_whose_secret_is_gone_does_not_take_over(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        new = await it.rotate()
        await it.publish(new, 0, 1)
        it.keys.forget("src.test", new)
        await it.after(ROUND)
        assert (await it.states())[new] == "pending"


async def test_what_a_command_does_is_told_by_the_next_round_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        second = await it.rotate()
        with DomainStore(tmp_path) as store:
            store.change_keys("src.test", lambda found: activated(found, second, it.clock.now()))
        await it.after(ROUND)
        await it.after(ROUND)
        assert sorted(said.split()[2] for said in it.told) == sorted(["first", second])


async def test_a_former_key_that_signs_again_meanwhile_keeps_its_secret(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        new = await it.rotate()
        await it.publish(new, 0, 1)
        await it.after(ROUND)
        await it.after(6 * DAY)
        domain = await it.domain()

        async def oldest() -> None:
            """Between the look and the step somebody lets it sign again."""
            with DomainStore(tmp_path) as store:
                store.change_keys("src.test", lambda found: activated(found, "first", it.clock.now()))

        it.rotation._oldest = oldest  # type: ignore[assignment]
        await it.after(SEEN)
        assert domain.key("first").state is KeyState.RETIRING
        assert await it.states() == {"first": "active", new: "retiring"}
        assert "first" in [selector for _, selector in it.keys.selectors("src.test")]


async def test_a_domain_that_is_removed_while_its_key_is_made_leaves_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(*given: Any) -> SendingDomain:
        result = make(*given)
        with DomainStore(tmp_path) as store:
            store.remove("src.test")
        return result

    async with scene(tmp_path, rotate=Duration(30 * DAY)) as it:
        monkeypatch.setattr("mta.signing.rotation.make", made)
        await it.after(31 * DAY)
        assert [selector for _, selector in it.keys.selectors("src.test")] == ["first"]
