"""A credential changes while its sessions are open, and a client goes on guessing over one."""

from __future__ import annotations

import asyncio
import base64
import smtplib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mta.config.settings import Sandbox
from mta.core.credential import Credential
from mta.core.limits.throttle import Rate
from mta.intake.authentication import LOOK
from mta.store.credentials import CredentialStore
from tests.fakes.client import CONTENT, ENVELOPE, Client, greeted
from tests.fakes.clock import HandClock
from tests.fakes.house import KEY, NETWORK, House, client_context, running, settings

APP = Credential("app", "acme", "transactional", kind="key")
BODY = b"From: a@src.test\r\n\r\nHello.\r\n"
ENDED = b"421 4.7.0 Your credential was removed or changed; connect again and log in anew\r\n"

Change = Callable[[CredentialStore, str], None]


def replaced(**terms: object) -> Change:
    """Removed, and added with other terms and the same secret."""

    def change(store: CredentialStore, login: str) -> None:
        known = store.get(login)
        assert known is not None
        kind, networks = known.kind, known.networks
        store.remove(login)
        made = {
            "login": login,
            "tenant": "acme",
            "stream": "transactional",
            "kind": kind,
            "networks": networks,
        }
        store.add(Credential(**(made | terms)), KEY)  # type: ignore[arg-type]

    return change


def removed(store: CredentialStore, login: str) -> None:
    store.remove(login)


def rekeyed(store: CredentialStore, login: str) -> None:
    store.replace_secret(login, "mta_" + "8" * 48)


narrowed = replaced(networks=("10.0.0.0/8",))


class Open:
    """A session that has proved who it is, and the store that it did it by."""

    def __init__(
        self, house: House, client: Client, clock: HandClock, store: CredentialStore, login: str
    ) -> None:
        self.house = house
        self.client = client
        self._clock = clock
        self._store = store
        self._login = login

    async def change(self, change: Change) -> None:
        """Something changes, and the time passes in which it may go unseen."""
        change(self._store, self._login)
        await self._clock.advance(LOOK)


@asynccontextmanager
async def session(directory: Path, door: str, *, used: bool = True) -> AsyncIterator[Open]:
    """On a door; `used`: it has sent a message."""
    clock = HandClock()
    terms = settings(directory, sandbox=Sandbox(directory / "sandbox"))
    login = "network" if door == "network" else "app"
    async with (
        running(terms, clock, (NETWORK, APP)) as house,
        await greeted(getattr(house, door), tls=door == "submissions") as client,
    ):
        if door == "submission":
            await client.ask("STARTTLS")
            await client.starttls()
            await client.ehlo()
        if door != "network":
            assert await client.auth("app", KEY) == "235 2.7.0 Authentication successful"
        if used:
            assert (await client.deliver()).startswith("250 ")
        with CredentialStore(terms.spool.path / "credentials.db") as store:
            yield Open(house, client, clock, store, login)


DOORS = ["submission", "submissions", "network"]
ENDS = [
    *((door, change) for door in DOORS for change in (removed, narrowed)),
    *((door, rekeyed) for door in DOORS[:2]),
]


@pytest.mark.parametrize(("door", "change"), ENDS)
async def test_a_session_ends_at_mail_when_its_credential_has(
    tmp_path: Path, door: str, change: Change
) -> None:
    async with session(tmp_path, door) as it:
        await it.change(change)
        it.client.say(*ENVELOPE)
        assert await it.client.rest() == ENDED
        await it.house.event(type="rejection")
        (event,) = it.house.of(type="rejection")
        assert event["reply"]["code"] == 421
        assert event["credential"] == ("network" if door == "network" else "app")
        assert event["sender"] == "a@src.test"
        assert len(it.house.of(type="reception")) == 1
        counted = it.house.daemon.metrics.registry.get_sample_value("mta_rejections_total", {"code": "4yz"})
        assert counted == 1


@pytest.mark.parametrize(("door", "change"), ENDS)
async def test_a_session_ends_that_has_sent_nothing_yet(tmp_path: Path, door: str, change: Change) -> None:
    async with session(tmp_path, door, used=False) as it:
        await it.change(change)
        it.client.say(*ENVELOPE)
        assert await it.client.rest() == ENDED


@pytest.mark.parametrize(("door", "change"), ENDS)
async def test_a_message_is_not_owned_when_its_credential_ends_in_it(
    tmp_path: Path, door: str, change: Change
) -> None:
    async with session(tmp_path, door) as it:
        it.client.say(*ENVELOPE)
        await it.client.replies(3)
        it.client.send(CONTENT)
        await it.change(change)
        it.client.send(b".\r\n" + b"MAIL FROM:<a@src.test>\r\n")
        assert await it.client.rest() == ENDED
        await it.house.event(type="rejection")
        assert len(it.house.of(type="rejection")) == 1
        assert len(it.house.of(type="reception")) == 1
        counted = it.house.daemon.metrics.registry.get_sample_value("mta_rejections_total", {"code": "4yz"})
        assert counted == 1


@pytest.mark.parametrize("door", DOORS)
async def test_other_terms_hold_from_the_next_mail_on(tmp_path: Path, door: str) -> None:
    async with session(tmp_path, door) as it:
        it.client.say(*ENVELOPE)
        await it.client.replies(3)
        await it.change(replaced(senders=("other.test",), stream="bulk", rate=Rate(1, 60.0), recipients=1))
        it.client.send(BODY + b".\r\n")
        assert str(await it.client.reply()).startswith("250 ")  # began under the former terms
        assert await it.client.ask(ENVELOPE[0]) == "550 5.7.1 You may not send from <a@src.test>"
        other = CONTENT.replace(b"src.test", b"other.test")
        assert (await it.client.deliver(other, sender="a@other.test")).startswith("250 ")
        await it.house.event(3, type="reception")
        streams = [event["stream"] for event in it.house.of(type="reception")]
        assert streams == ["transactional", "transactional", "bulk"]
        said = await it.client.deliver(other, sender="a@other.test")
        assert said.startswith("450 4.7.1 Your rate is used up")


async def test_a_change_of_others_ends_nobody(tmp_path: Path) -> None:
    async with session(tmp_path, "submissions") as it:
        await it.change(lambda store, login: store.remove("network"))
        assert (await it.client.deliver()).startswith("250 ")
        async with await Client.connect(it.house.network) as stranger:
            assert await stranger.rest() == b"554 5.7.1 No credential is bound to your address\r\n"


async def test_an_address_whose_credential_was_added_while_we_run(tmp_path: Path) -> None:
    terms = settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox"))
    async with running(terms, HandClock(), (APP,)) as house:
        async with await Client.connect(house.network) as stranger:
            assert (await stranger.rest()).startswith(b"554 ")
        with CredentialStore(terms.spool.path / "credentials.db") as store:
            store.add(NETWORK)
        async with await greeted(house.network) as client:
            assert (await client.deliver()).startswith("250 ")


# Guessing over one connection


@asynccontextmanager
async def limited(directory: Path) -> AsyncIterator[tuple[House, Client]]:
    """A client that has guessed five times, once a connection."""
    terms = settings(directory, sandbox=Sandbox(directory / "sandbox"))
    async with running(terms, HandClock(), (APP,)) as house:
        for number in range(5):
            async with await greeted(house.submissions, tls=True) as client:
                assert (await client.auth("app", f"wrong {number}")).startswith("535 ")
        async with await greeted(house.submissions, tls=True) as client:
            yield house, client


WORDS = "4.7.0 Temporary authentication failure: too many failed, try again in 120 seconds"


async def test_whoever_goes_on_guessing_where_it_is_limited_is_sent_away(tmp_path: Path) -> None:
    async with limited(tmp_path) as (house, client):
        assert await client.auth("app", "wrong") == f"454 {WORDS}"
        assert await client.ask("NOOP") == "250 2.0.0 OK"
        client.say("AUTH PLAIN " + base64.b64encode(b"\0app\0wrong").decode(), "NOOP")
        assert await client.rest() == f"421 {WORDS}\r\n".encode()
        await house.event(7, type="rejection")
        codes = [event["reply"]["code"] for event in house.of(type="rejection")]
        assert codes == [535] * 5 + [454, 421]
        metrics = house.daemon.metrics.registry
        assert metrics.get_sample_value("mta_rejections_total", {"code": "4yz"}) == 2
        assert metrics.get_sample_value("mta_rejections_total", {"code": "5yz"}) == 5
        assert metrics.get_sample_value("mta_authentications_total", {"result": "failure"}) == 7


async def test_a_key_gets_in_where_guesses_are_limited(tmp_path: Path) -> None:
    async with limited(tmp_path) as (_, client):
        assert await client.auth("app", "wrong") == f"454 {WORDS}"
        assert await client.auth("app", KEY) == "235 2.7.0 Authentication successful"
        assert (await client.deliver()).startswith("250 ")


async def test_a_client_that_tries_plain_and_then_login_reads_why(tmp_path: Path) -> None:
    def log_in(port: int) -> smtplib.SMTPAuthenticationError:
        with smtplib.SMTP_SSL("127.0.0.1", port, context=client_context(), timeout=30) as client:
            with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
                client.login("app", "wrong")
            return caught.value

    async with limited(tmp_path) as (house, _):
        error = await asyncio.to_thread(log_in, house.submissions)
        assert (error.smtp_code, error.smtp_error) == (421, WORDS.encode())


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\0\0",
        b"\0\xff\xfe\0x",
        b"\0app\0\0\0",
        b"\0" + b"l" * 4500 + b"\0" + b"s" * 4500,
        b"\0\r\n\0\x1b[31m",
    ],
)
async def test_strange_logins_are_refused_counted_and_told(
    tmp_path: Path, octets: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    terms = settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox"))
    async with running(terms, credentials=(APP,)) as house:
        async with await greeted(house.submissions, tls=True) as client:
            response = base64.b64encode(octets).decode() or "="
            said = await client.ask(f"AUTH PLAIN {response}")
            assert said[:3] == ("501" if octets == b"" else "535")
            assert await client.auth("app", KEY) == "235 2.7.0 Authentication successful"
        metrics = house.daemon.metrics.registry
        assert metrics.get_sample_value("mta_rejections_total", {"code": "5yz"}) == 1
        failures = metrics.get_sample_value("mta_authentications_total", {"result": "failure"})
        assert failures == (octets != b"")
        assert len(house.of(type="rejection")) == (octets != b"") or await house.event(type="rejection")
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("first", ["AUTH PLAIN", "AUTH LOGIN", "AUTH LOGIN YXBw"])
async def test_an_exchange_that_the_client_gives_up(
    tmp_path: Path, first: str, caplog: pytest.LogCaptureFixture
) -> None:
    terms = settings(tmp_path, sandbox=Sandbox(tmp_path / "sandbox"))
    async with running(terms, credentials=(APP,)) as house:
        for ending in ("*", "", "%%%"):
            async with await greeted(house.submissions, tls=True) as client:
                assert (await client.ask(first)).startswith("334")
                if ending:
                    assert (await client.ask(ending)).startswith("501 ")
                else:
                    client.reset()
                    await client.gone()
        async with await greeted(house.submissions, tls=True) as client:
            assert await client.auth("app", KEY) == "235 2.7.0 Authentication successful"
        metrics = house.daemon.metrics.registry
        assert metrics.get_sample_value("mta_rejections_total", {"code": "5yz"}) == 2
        assert metrics.get_sample_value("mta_authentications_total", {"result": "failure"}) == 0
    assert not [record for record in caplog.records if record.exc_info]
