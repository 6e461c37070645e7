"""Mail of domains that were added leaves signed, whatever is in the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dkim
import pytest

from mta.config.settings import Duration, IdentitySettings, Settings, Stream
from mta.core.credential import Credential
from mta.core.domain import ALGORITHMS, Algorithm, KeyState, SendingDomain, activated
from mta.signing import signer
from mta.signing.keys import KeyFolder, generate
from mta.signing.rotation import make
from mta.store.database import StoreError
from mta.store.domains import DomainStore
from tests.fakes.house import NETWORK, House, routed, running, settings
from tests.fakes.peer import HELLO, TAKES
from tests.fakes.receiver import Receiver
from tests.fakes.relay import MUTE, relaying

MESSAGE = b"From: Ann <a@src.test>\r\nTo: b@dst.test\r\nSubject: hello\r\n\r\nHello.\r\n"


@dataclass
class Keys:
    """The domains of a spool, as a command has them."""

    directory: Path

    def add(self, name: str, *kinds: Algorithm, **terms: Any) -> SendingDomain:
        self.directory.mkdir(parents=True, exist_ok=True)
        made = SendingDomain(name, **terms)
        for kind in kinds or ALGORITHMS[1:]:
            made = make(KeyFolder(self.directory), made, kind, 0.0)
        with DomainStore(self.directory) as store:
            store.put(made)
        return made

    def remove(self, name: str) -> None:
        with DomainStore(self.directory) as store:
            store.remove(name)
        KeyFolder(self.directory).forget_domain(name)

    def verified(self, content: bytes) -> list[str]:
        """The domains whose signature on it holds, from the top, by the records that are to be published."""
        with DomainStore(self.directory) as store:
            known = store.all()
        records = {
            f"{key.host(each.name)}.".encode(): key.record.encode() for each in known for key in each.keys
        }
        there = content.count(b"DKIM-Signature:")
        checked = dkim.DKIM(content)
        found = []
        for n in range(there):
            assert checked.verify(idx=n, dnsfunc=lambda name, timeout: records.get(name)), content
            found.append(checked.domain.decode())
        return found


def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "spool")


async def arrived(house: House, peer: Receiver, content: bytes = MESSAGE) -> bytes:
    count = len(house.of(type="delivery")) + 1
    assert (await house.send("b@dst.test", content=content)).startswith("250 ")
    await house.event(count, type="delivery")
    return peer.messages[-1]


@asynccontextmanager
async def sending(
    tmp_path: Path, client: Credential = MUTE, **changes: Any
) -> AsyncIterator[tuple[House, Receiver]]:
    async with Receiver() as peer:
        terms: Settings = replace(settings(tmp_path, routes=routed(peer.port)), **changes)
        async with running(terms, credentials=(client,)) as house:
            try:
                yield house, peer
            finally:
                peer.hang_up()


@pytest.mark.parametrize(
    "kinds", [ALGORITHMS[:1], ALGORITHMS[1:], ALGORITHMS], ids=["rsa", "ed25519", "both"]
)
async def test_a_message_leaves_with_a_signature_of_each_key(
    tmp_path: Path, kinds: tuple[Algorithm, ...]
) -> None:
    domains = keys(tmp_path)
    domains.add("src.test", *kinds)
    async with sending(tmp_path) as (house, peer):
        content = await arrived(house, peer)
    assert domains.verified(content) == ["src.test"] * len(kinds)
    assert content.endswith(MESSAGE)


async def test_a_domain_that_is_added_while_we_run_signs_the_next_message(tmp_path: Path) -> None:
    domains = keys(tmp_path)
    async with sending(tmp_path) as (house, peer):
        assert domains.verified(await arrived(house, peer)) == []
        domains.add("src.test")
        await asyncio.sleep(0)
        house.daemon.plans._looked = -1.0
        assert domains.verified(await arrived(house, peer)) == ["src.test"]


async def test_a_name_below_is_signed_by_the_domain_that_is_for_those(tmp_path: Path) -> None:
    domains = keys(tmp_path)
    domains.add("src.test", subdomains=True)
    domains.add("own.src.test")
    domains.add("other.test")
    async with sending(tmp_path) as (house, peer):
        for name, signed in (
            ("deep.news.src.test", ["src.test"]),
            ("own.src.test", ["own.src.test"]),
            ("below.other.test", []),
            ("xsrc.test", []),
        ):
            content = MESSAGE.replace(b"src.test", name.encode())
            assert domains.verified(await arrived(house, peer, content)) == signed


async def test_a_default_signs_for_those_nobody_added_and_a_second_signs_everything(tmp_path: Path) -> None:
    domains = keys(tmp_path)
    for name in ("src.test", "default.test", "loop.test"):
        domains.add(name)
    identity = IdentitySettings(default="default.test", second="loop.test")  # type: ignore[arg-type]
    async with sending(tmp_path, identity=identity) as (house, peer):
        assert domains.verified(await arrived(house, peer)) == ["src.test", "loop.test"]
        other = MESSAGE.replace(b"src.test", b"customer.test")
        assert domains.verified(await arrived(house, peer, other)) == ["default.test", "loop.test"]
        own = MESSAGE.replace(b"src.test", b"loop.test")
        assert domains.verified(await arrived(house, peer, own)) == ["loop.test"]


async def test_a_signature_that_cannot_be_made_is_451_with_the_reason_until_it_can(tmp_path: Path) -> None:
    domains = keys(tmp_path)
    made = domains.add("src.test")
    file = tmp_path / f"spool/keys/src.test/{made.keys[0].selector}.pem"
    file.rename(tmp_path / "away")
    async with sending(tmp_path) as (house, peer):
        said = await house.send("b@dst.test", content=MESSAGE)
        selector = made.keys[0].selector
        why = f"the key {selector} of src.test cannot be used"
        assert said == f"451 4.7.5 The message cannot be signed now, and was not kept: {why}"
        (complaint,) = house.daemon._not_ready()
        assert complaint.startswith(f"the key {selector} of src.test: ")
        assert "No such file" in complaint
        told = await house.event(type="rejection")
        assert told["reply"]["enhanced"] == "4.7.5"
        (tmp_path / "away").rename(file)
        assert domains.verified(await arrived(house, peer)) == ["src.test"]
        house.daemon.signer._look_again()
        assert house.daemon._not_ready() == []


async def test_a_domain_that_says_so_sends_unsigned_and_the_event_tells(tmp_path: Path) -> None:
    domains = keys(tmp_path)
    made = domains.add("src.test", unsigned="send")
    (tmp_path / f"spool/keys/src.test/{made.keys[0].selector}.pem").unlink()
    async with sending(tmp_path) as (house, peer):
        assert domains.verified(await arrived(house, peer)) == []
        (reception,) = house.of(type="reception")
        assert reception["reason"].startswith("unsigned: ")


async def test_a_secret_of_another_key_signs_nothing(tmp_path: Path) -> None:
    domains = keys(tmp_path)
    made = domains.add("src.test")
    file = tmp_path / f"spool/keys/src.test/{made.keys[0].selector}.pem"
    file.write_bytes(generate("ed25519-sha256").pem)
    async with sending(tmp_path) as (house, _):
        assert (await house.send("b@dst.test", content=MESSAGE)).startswith("451 4.7.5 ")
        assert "is not the one of its record" in house.daemon._not_ready()[0]


async def test_a_store_that_is_lost_does_not_let_mail_go_unsigned(tmp_path: Path) -> None:
    domains = keys(tmp_path)
    domains.add("src.test")
    for file in (tmp_path / "spool").glob("store.db*"):
        file.unlink()
    async with sending(tmp_path) as (house, peer):
        said = await house.send("b@dst.test", content=MESSAGE)
        assert said.startswith("451 4.7.5 ")
        assert "its settings are lost: restore store.db, or mta domain add src.test" in said
        other = MESSAGE.replace(b"src.test", b"other.test")
        assert domains.verified(await arrived(house, peer, other)) == []


async def test_a_signature_of_the_application_stays_and_holds_beside_ours(tmp_path: Path) -> None:
    theirs = generate("rsa-sha256")
    domains = keys(tmp_path)
    domains.add("src.test")
    whole = dkim.sign(MESSAGE, b"app", b"app.test", theirs.pem, include_headers=[b"from", b"to", b"subject"])
    async with sending(tmp_path) as (house, peer):
        content = await arrived(house, peer, whole + MESSAGE)
    records = {b"app._domainkey.app.test.": f"v=DKIM1; p={theirs.public}".encode()}
    checked = dkim.DKIM(content)
    assert checked.verify(idx=1, dnsfunc=lambda name, timeout: records.get(name))
    assert content.count(b"DKIM-Signature:") == 2


async def test_a_retry_sends_the_first_signature_though_the_key_is_gone(
    tmp_path: Path,
) -> None:
    busy = TAKES.replace("250 2.0.0 taken", "450 4.2.1 busy")
    domains = keys(tmp_path)
    first = domains.add("src.test")
    async with relaying(tmp_path, HELLO + busy, HELLO + TAKES) as relay:
        await relay.house.send("b@dst.test", content=MESSAGE)
        await relay.house.event(type="deferral")
        domains.remove("src.test")
        assert domains.add("src.test").keys != first.keys
        await relay.clock.advance(301)
        await relay.house.event(type="delivery")
        before, behind = (call.messages[0] for call in relay.peer.calls)
    assert before == behind
    assert b"DKIM-Signature" in behind


async def test_a_key_that_takes_over_signs_and_both_verify(tmp_path: Path) -> None:
    domains = keys(tmp_path)
    made = domains.add("src.test")
    async with sending(tmp_path) as (house, peer):
        first = await arrived(house, peer)
        with DomainStore(tmp_path / "spool") as store:
            new = make(KeyFolder(tmp_path / "spool"), made, "ed25519-sha256", 1.0).keys[-1]
            store.change_keys("src.test", lambda _: [new])
            store.change_keys("src.test", lambda found: activated(found, new.selector, 2.0))
        house.daemon.plans._looked = -1.0
        second = await arrived(house, peer)
    assert domains.verified(first) == domains.verified(second) == ["src.test"]
    assert f"s={new.selector};".encode() in second
    assert new.state is KeyState.PENDING


@pytest.mark.parametrize("size", [300_000, 3_000_000])
async def test_a_large_message_is_signed_too(tmp_path: Path, size: int) -> None:
    domains = keys(tmp_path)
    domains.add("src.test", *ALGORITHMS)
    content = MESSAGE + b"x  y \r\n" * (size // 7)
    async with sending(tmp_path) as (house, peer):
        assert domains.verified(await arrived(house, peer, content)) == ["src.test"] * 2


async def test_many_at_once_are_all_signed(tmp_path: Path) -> None:
    domains = keys(tmp_path)
    domains.add("src.test", "rsa-sha256")
    many = 60
    async with sending(tmp_path) as (house, peer):
        said = await asyncio.gather(*(house.send("b@dst.test", content=MESSAGE) for _ in range(many)))
        assert all(each.startswith("250 ") for each in said)
        await house.event(many, type="delivery")
        came = peer.messages
    assert len(came) == many
    assert all(domains.verified(each) == ["src.test"] for each in came[:: many // 6])


async def test_a_notice_is_signed_as_it_is_sent(tmp_path: Path) -> None:
    domains = keys(tmp_path)
    domains.add("mta.test")
    async with sending(tmp_path, NETWORK) as (house, peer):
        peer.said["dst.test"] = "550 5.1.1 who?"
        await house.send("b@dst.test", content=MESSAGE)
        await house.event(type="delivery")
    (notice,) = peer.messages
    assert domains.verified(notice) == ["mta.test"]
    assert notice.startswith(b"DKIM-Signature:")


async def test_a_notice_that_cannot_be_signed_waits_and_says_why(tmp_path: Path) -> None:
    domains = keys(tmp_path)
    made = domains.add("mta.test")
    file = tmp_path / f"spool/keys/mta.test/{made.keys[0].selector}.pem"
    file.rename(tmp_path / "away")
    stream = {"transactional": Stream(retry_first=Duration(0.1), retry_max=Duration(0.1))}
    async with sending(tmp_path, NETWORK, streams=stream) as (house, peer):
        peer.said["dst.test"] = "550 5.1.1 who?"
        await house.send("b@dst.test", content=MESSAGE)
        told = await house.event(type="deferral")
        assert told["reply"]["enhanced"] == "4.7.5"
        assert "cannot be signed" in told["reply"]["text"]
        (tmp_path / "away").rename(file)
        await house.event(type="delivery")
    assert domains.verified(peer.messages[0]) == ["mta.test"]


async def test_a_bug_over_a_signature_is_451_and_counted_and_stays_with_its_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domains = keys(tmp_path)
    domains.add("src.test", "rsa-sha256")
    prepare = signer.dkim.prepare

    def buggy(content: bytes) -> Any:
        if b"bug" in content:
            raise ZeroDivisionError("a bug")
        return prepare(content)

    monkeypatch.setattr(signer.dkim, "prepare", buggy)
    async with sending(tmp_path) as (house, peer):
        said = await asyncio.gather(
            house.send("b@dst.test", content=MESSAGE), house.send("b@dst.test", content=MESSAGE + b"bug\r\n")
        )
        assert said[0].startswith("250 ")
        assert said[1].startswith(
            "451 4.7.5 The message cannot be signed now, and was not kept: a fault of ours"
        )
        await house.event(type="delivery")
        assert domains.verified(peer.messages[0]) == ["src.test"]


async def test_of_two_keys_the_one_that_is_lost_is_left_out_unless_it_is_rsa(tmp_path: Path) -> None:
    domains = keys(tmp_path)
    made = domains.add("src.test", *ALGORITHMS)
    large, small = (tmp_path / f"spool/keys/src.test/{key.selector}.pem" for key in made.signers)
    small.rename(tmp_path / "small")
    async with sending(tmp_path) as (house, peer):
        assert domains.verified(await arrived(house, peer)) == ["src.test"]
        assert "No such file" in house.daemon._not_ready()[0]
        (tmp_path / "small").rename(small)
        large.unlink()
        house.daemon.signer._secrets.clear()
        assert (await house.send("b@dst.test", content=MESSAGE)).startswith("451 4.7.5 ")


async def test_a_second_signer_that_nobody_added_costs_no_mail_and_is_told(tmp_path: Path) -> None:
    domains = keys(tmp_path)
    domains.add("src.test")
    identity = IdentitySettings(second="lopo.test")  # type: ignore[arg-type]
    async with sending(tmp_path, identity=identity) as (house, peer):
        assert domains.verified(await arrived(house, peer)) == ["src.test"]
        assert house.daemon._not_ready() == [
            "identity.second is lopo.test, which nobody has added: mta domain add lopo.test"
        ]
        domains.add("lopo.test")
        assert house.daemon._not_ready() == []


async def test_a_default_signer_that_nobody_added_lets_nothing_go_unsigned(tmp_path: Path) -> None:
    identity = IdentitySettings(default="defualt.test")  # type: ignore[arg-type]
    async with sending(tmp_path, identity=identity) as (house, _):
        said = await house.send("b@dst.test", content=MESSAGE)
        assert said.endswith("identity.default, defualt.test, was not added")


async def test_a_store_that_cannot_be_opened_refuses_those_who_have_keys(tmp_path: Path) -> None:
    domains = keys(tmp_path)
    domains.add("src.test")
    for file in (tmp_path / "spool").glob("store.db*"):
        file.unlink()
    (tmp_path / "spool/store.db").mkdir()
    async with sending(tmp_path) as (house, peer):
        assert (await house.send("b@dst.test", content=MESSAGE)).startswith("451 4.7.5 ")
        other = MESSAGE.replace(b"src.test", b"other.test")
        assert b"DKIM-Signature" not in await arrived(house, peer, other)
        assert any(each.startswith("who signs is not known: ") for each in house.daemon._not_ready())
        (tmp_path / "spool/store.db").rmdir()
        domains.add("new.test")
        house.daemon.plans._looked = -1.0
        new = MESSAGE.replace(b"src.test", b"new.test")
        assert domains.verified(await arrived(house, peer, new)) == ["new.test"]


async def test_a_thread_that_cannot_be_started_costs_the_mail_of_that_moment_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domains = keys(tmp_path)
    domains.add("src.test", "rsa-sha256")
    async with sending(tmp_path) as (house, peer):
        loop = asyncio.get_running_loop()
        with monkeypatch.context() as patched:
            patched.setattr(house.daemon.signer, "_thread", BrokenExecutor())  # which loads the secret
            for _ in range(3):
                said = await house.send("b@dst.test", content=MESSAGE)
                assert said.endswith("a fault of ours")
        assert loop.is_running()
        assert domains.verified(await arrived(house, peer)) == ["src.test"]


class BrokenExecutor(ThreadPoolExecutor):
    """As where the system has no thread for us."""

    def submit(self, *_: object, **__: object) -> Any:
        raise RuntimeError("can't start new thread")


@pytest.mark.parametrize(
    "author", ["a@src.test.", "ann <a@src.test", "<@x.test:a@src.test>", "ann. b: <a@src.test>"]
)
async def test_a_from_that_cannot_be_read_does_not_go_unsigned(tmp_path: Path, author: str) -> None:
    domains = keys(tmp_path)
    content = MESSAGE.replace(b"Ann <a@src.test>", author.encode())
    async with sending(tmp_path) as (house, peer):
        assert domains.verified(await arrived(house, peer, content)) == []
        domains.add("src.test")
        house.daemon.plans._looked = -1.0
        said = await house.send("b@dst.test", content=content)
        assert said.startswith("550 5.6.0 The From field cannot be read")


async def test_of_several_authors_the_first_that_was_added_signs(tmp_path: Path) -> None:
    domains = keys(tmp_path)
    domains.add("src.test")
    content = MESSAGE.replace(b"Ann <a@src.test>", b"x@other.test, a@src.test")
    async with sending(tmp_path) as (house, peer):
        assert domains.verified(await arrived(house, peer, content)) == ["src.test"]


async def test_a_store_that_is_set_aside_while_we_run_lets_no_mail_go_unsigned(tmp_path: Path) -> None:
    domains = keys(tmp_path)
    domains.add("src.test")
    async with sending(tmp_path) as (house, peer):
        assert domains.verified(await arrived(house, peer)) == ["src.test"]
        for file in (tmp_path / "spool").glob("store.db*"):
            file.write_bytes(b"no database" * 1000)
        with pytest.raises(StoreError):
            await house.daemon.database.run(
                lambda connection: connection.execute("SELECT * FROM host").fetchall()
            )
        await house.event(type="state")
        said = await house.send("b@dst.test", content=MESSAGE)
        assert "its settings are lost: restore store.db, or mta domain add src.test" in said
        domains.add("src.test")
