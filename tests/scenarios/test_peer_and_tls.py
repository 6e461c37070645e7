"""STARTTLS that fails, that is missing where it is required, and smarthosts that want a password."""

from __future__ import annotations

import socket
import ssl
import threading
from base64 import b64encode
from pathlib import Path
from typing import BinaryIO, Self

import pytest

from mta.clock import SystemClock
from mta.config.settings import Endpoint, StaticRoute
from mta.core.route.hosts import BELIEVED, TLS_WAIT, Peer, Rung
from mta.smtp.dial import Dialled
from mta.smtp.opening import HANDSHAKE_TIMEOUT, NO_SECRET, NO_STARTTLS, open_connection
from mta.smtp.trouble import COMMAND_TIMEOUT, PeerError
from tests.fakes.clock import HandClock
from tests.fakes.house import certificate, routed, running, settings
from tests.fakes.network import FIRST, own_network
from tests.fakes.peer import HELLO, TAKES, ScriptedPeer, answers
from tests.fakes.relay import MUTE, Relay, relaying

OFFERS = HELLO.replace("-> 250 8BITMIME", "-> 250 STARTTLS")
BEGIN = OFFERS + "<- STARTTLS\n-> 220 go ahead\n"
SECURED = BEGIN + "starttls\n" + HELLO.replace("-> 220 mx.test ESMTP", "") + TAKES
B = "b@dst.test"
NOBODY = "451 4.4.1 No host answered; it is tried again: 127.0.0.1 [127.0.0.1]: "
UNSAFE = "451 4.7.5 No host is as safe as it must be; it is tried again: 127.0.0.1 [127.0.0.1]: "
LOGIN = b64encode(b"\0user@src.test\0secret word").decode()


class WantsCertificate:
    """A peer whose TLS wants a certificate of the client; in the clear it takes mail.

    In a thread, for asyncio does not send the alert of a handshake that fails.
    """

    def __enter__(self) -> Self:
        self.spoken = 0  # connections
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificate()[0]))
        self._context.load_cert_chain(*certificate())
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                accepted, _ = self._listening.accept()
            except OSError:
                return
            self.spoken += 1
            with accepted, accepted.makefile("rwb") as file:
                self._converse(accepted, file)

    def _converse(self, accepted: socket.socket, file: BinaryIO) -> None:
        said = "220 mx.test ESMTP"
        while True:
            file.write(said.encode() + b"\r\n")
            file.flush()
            if said.startswith("221"):
                return
            line = file.readline()
            said = "250 2.0.0 ok"
            if line.startswith(b"EHLO"):
                said = "250-mx.test\r\n250 STARTTLS"
            elif line.startswith(b"STARTTLS"):
                file.write(b"220 go ahead\r\n")
                file.flush()
                self._fail(accepted)
                return
            elif line.startswith(b"DATA"):
                file.write(b"354 go on\r\n")
                file.flush()
                while file.readline() not in (b".\r\n", b""):
                    pass
            elif line.startswith(b"QUIT") or not line:
                said = "221 2.0.0 bye"

    def _fail(self, accepted: socket.socket) -> None:
        under = self._context.wrap_bio(incoming := ssl.MemoryBIO(), outgoing := ssl.MemoryBIO(), True)
        while True:
            try:
                under.do_handshake()
            except ssl.SSLWantReadError:
                accepted.sendall(outgoing.read())
                incoming.write(accepted.recv(65536))
            except ssl.SSLError:
                accepted.sendall(outgoing.read())
                break
        while accepted.recv(65536):  # a reset would overtake the alert
            pass


async def test_tls_where_it_is_offered(tmp_path: Path) -> None:
    async with relaying(tmp_path, SECURED) as relay:
        await relay.house.send(B)
        assert (await relay.house.event(type="delivery"))["tls"] == "TLSv1.3"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param("-> 220 go ahead\nstarttls-garbage", "the TLS handshake failed: ", id="garbage"),
        pytest.param("-> 220 go ahead\nabort", "the TLS handshake failed: ", id="reset"),
        pytest.param("-> 220 go ahead\nclose", "the TLS handshake failed: ", id="closed"),
        pytest.param("-> 454 4.7.0 TLS not available\nsilence", "STARTTLS was refused: 454 4.7.0", id="454"),
    ],
)
async def test_a_handshake_that_fails_and_the_message_goes_in_the_clear(
    tmp_path: Path, answer: str, why: str
) -> None:
    """Both kinds of a handshake, and after a minute, in which no attempt is taken, one more."""
    broken = OFFERS + "<- STARTTLS\n" + answer
    tries = 1 if "454" in answer else 2  # what is refused has no kind
    async with relaying(tmp_path, *[broken] * (tries + 1), OFFERS + TAKES) as relay:
        await relay.house.send(B)
        told = await relay.house.event(type="state")
        assert told["reason"].startswith("127.0.0.1 [127.0.0.1] fails in TLS, mail waits for it a while: ")
        assert why in told["reason"]
        await relay.house.quiet()
        assert len(relay.peer.calls) == tries
        await relay.clock.advance(TLS_WAIT)
        assert await relay.told(2) == [f"reception {B}", f"delivery 1 {B}: 250 2.0.0 taken (.)"]
        delivery = await relay.house.event(type="delivery")
        assert "tls" not in delivery
        assert delivery["reason"].startswith(f"in the clear: {why}")


async def test_the_second_message_goes_in_the_clear_at_once_and_after_six_hours_tls_is_tried_again(
    tmp_path: Path,
) -> None:
    broken = BEGIN + "close"
    scripts = [broken] * 3 + [OFFERS + TAKES] * 2 + [SECURED]
    async with relaying(tmp_path, *scripts) as relay:
        await relay.house.send(B)
        await relay.house.event(type="state")
        await relay.clock.advance(TLS_WAIT)
        await relay.house.event(1, type="delivery")
        await relay.clock.advance(40)  # no connection is left
        await relay.house.send(B)
        await relay.house.event(2, type="delivery")
        assert [len(call.commands) for call in relay.peer.calls[:5]][:3] == [2, 2, 2]
        await relay.leap(BELIEVED)
        await relay.house.send(B)
        await relay.house.event(3, type="delivery")
        assert [each.get("tls") for each in relay.house.of(type="delivery")] == [None, None, "TLSv1.3"]
        assert relay.house.of(type="state")[-1]["reason"] == "127.0.0.1 [127.0.0.1] speaks TLS again"


async def test_a_handshake_that_is_cut_once_costs_nothing_but_the_newest_tls(tmp_path: Path) -> None:
    async with relaying(tmp_path, BEGIN + "abort", SECURED) as relay:
        await relay.house.send(B)
        assert (await relay.house.event(type="delivery"))["tls"] == "TLSv1.2"
        assert relay.house.of(type="state")[-1]["reason"] == "127.0.0.1 [127.0.0.1] speaks TLS 1.2 only"


async def test_a_peer_that_hangs_on_a_large_hello_is_spoken_to_in_tls_12(tmp_path: Path) -> None:
    async with relaying(tmp_path, BEGIN + "silence", SECURED, SECURED) as relay:
        await relay.house.send(B)
        await relay.peer.at(1, "silence")
        await relay.clock.advance(HANDSHAKE_TIMEOUT)
        await relay.house.event(1, type="delivery")
        await relay.clock.advance(40)  # no connection is left
        await relay.house.send(B)
        await relay.house.event(2, type="delivery")
        assert [each["tls"] for each in relay.house.of(type="delivery")] == ["TLSv1.2", "TLSv1.2"]


async def test_a_handshake_that_never_ends_and_the_message_goes_in_the_clear(tmp_path: Path) -> None:
    async with relaying(tmp_path, *[BEGIN + "silence"] * 3, OFFERS + TAKES) as relay:
        await relay.house.send(B)
        for number in (1, 2):
            await relay.peer.at(number, "silence")
            await relay.clock.advance(HANDSHAKE_TIMEOUT)
        await relay.house.event(type="state")
        await relay.clock.advance(TLS_WAIT)
        await relay.peer.at(3, "silence")
        await relay.clock.advance(HANDSHAKE_TIMEOUT)
        assert "tls" not in await relay.house.event(type="delivery")


async def test_mail_waits_once_for_a_peer_that_fails_in_tls_for_its_source_alone(tmp_path: Path) -> None:
    async with relaying(tmp_path, *[BEGIN + "abort"] * 4, OFFERS + TAKES) as relay:
        await relay.house.send(B)
        await relay.house.event(type="state")
        of_another_source = Peer("127.0.0.1", relay.peer.port, "127.0.0.1"), Rung.FULL
        relay.house.daemon.hosts.secured(*of_another_source)
        await relay.clock.advance(TLS_WAIT)
        assert await relay.told(2) == [f"reception {B}", f"delivery 1 {B}: 250 2.0.0 taken (.)"]


MUST = "530 5.7.0 Must issue a STARTTLS command first"


async def in_the_clear(relay: Relay, end: str = "deferral") -> None:
    """Until the fall-back has been refused."""
    await relay.house.send(B)
    await relay.house.event(type="state")
    await relay.clock.advance(TLS_WAIT)
    await relay.house.event(type=end)


@pytest.mark.parametrize(
    ("stage", "reply"),
    [
        ("MAIL", MUST),
        ("RCPT", "550 5.7.10 Encryption needed"),
        ("RCPT", "550 not like this"),
        (".", "554 5.7.1 Only over TLS"),
    ],
)
async def test_nothing_that_is_said_to_our_own_clear_text_is_final(
    tmp_path: Path, stage: str, reply: str
) -> None:
    refuses = OFFERS.replace("-> 250 STARTTLS", "-> 250-PIPELINING\n-> 250 STARTTLS")
    refuses += answers(stage, reply)
    async with relaying(tmp_path, *[BEGIN + "abort"] * 3, refuses) as relay:
        await in_the_clear(relay)
        _, deferral = await relay.told(2)
        assert deferral.startswith(f"deferral 1 {B} ")
        assert deferral.endswith(f": {reply} ({stage})")


async def test_a_mailbox_that_does_not_exist_would_not_exist_under_tls_either(tmp_path: Path) -> None:
    refuses = OFFERS.replace("-> 250 STARTTLS", "-> 250-PIPELINING\n-> 250 STARTTLS")
    refuses += answers("RCPT", "550 5.1.1 User unknown")
    async with relaying(tmp_path, *[BEGIN + "abort"] * 3, refuses) as relay:
        await in_the_clear(relay, "bounce")
        assert (await relay.told(2))[1] == f"bounce 1 {B} recipient: 550 5.1.1 User unknown (RCPT)"


async def test_one_mail_that_is_refused_in_the_clear_makes_no_other_wait_for_tls(tmp_path: Path) -> None:
    refuses = OFFERS.replace("-> 250 STARTTLS", "-> 250-PIPELINING\n-> 250 STARTTLS")
    refuses += answers(".", "554 5.7.1 Not by our policy")
    async with relaying(tmp_path, *[BEGIN + "abort"] * 3, refuses, BEGIN + "abort", OFFERS + TAKES) as relay:
        await in_the_clear(relay)
        await relay.house.send("c@dst.test")
        assert (await relay.told(4))[3] == "delivery 1 c@dst.test: 250 2.0.0 taken (.)"


async def test_a_peer_that_wants_tls_after_all_gets_the_mail_over_tls_the_next_time(tmp_path: Path) -> None:
    refuses = OFFERS.replace("-> 250 STARTTLS", "-> 250-PIPELINING\n-> 250 STARTTLS")
    refuses += answers("MAIL", MUST)
    async with relaying(tmp_path, *[BEGIN + "abort"] * 3, refuses, SECURED) as relay:
        await in_the_clear(relay)
        await relay.come_due()
        assert (await relay.house.event(type="delivery"))["tls"] == "TLSv1.3"


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_who_hangs_up_behind_the_handshake_gets_its_mail_in_the_clear_at_once(
    tmp_path: Path, end: str
) -> None:
    """It has seen all of our handshake, and would do so again."""
    broken = BEGIN + "starttls\n<- EHLO mta.test\n" + end
    async with relaying(tmp_path, broken, broken, OFFERS + TAKES) as relay:
        await relay.house.send(B)
        delivery = await relay.house.event(type="delivery")
        assert delivery["reason"].startswith("in the clear: the TLS handshake failed: ")


@pytest.mark.parametrize("end", ["silence", "raw 250 not\\r\\n250 one\\r\\n"])
async def test_what_fails_behind_the_handshake_is_the_handshakes(tmp_path: Path, end: str) -> None:
    broken = BEGIN + "starttls\n<- EHLO mta.test\n" + end
    async with relaying(tmp_path, *[broken] * 3, OFFERS + TAKES) as relay:
        await relay.house.send(B)
        for number in (1, 2):
            await relay.peer.at(number, end)
            if end == "silence":
                await relay.clock.advance(COMMAND_TIMEOUT)
        await relay.house.event(type="state")
        await relay.clock.advance(TLS_WAIT)
        if end == "silence":
            await relay.peer.at(3, end)
            await relay.clock.advance(COMMAND_TIMEOUT)
        assert (await relay.house.event(type="delivery"))["reason"].startswith(
            "in the clear: the TLS handshake failed: "
        )


async def test_a_peer_that_wants_a_certificate_of_ours_gets_its_mail_in_the_clear(tmp_path: Path) -> None:
    """With TLS 1.3 it says so behind the handshake; it would say so again, and is not waited for."""
    with WantsCertificate() as peer:
        async with running(settings(tmp_path, routes=routed(peer.port)), HandClock(), (MUTE,)) as house:
            await house.send(B)
            delivery = await house.event(type="delivery")
            assert delivery["reason"].startswith("in the clear: the TLS handshake failed: ")
            assert "alert certificate required" in delivery["reason"]
            assert house.of(type="deferral") == []
        assert peer.spoken == 3


async def test_tls_is_required_and_not_offered(tmp_path: Path) -> None:
    async with relaying(tmp_path, HELLO + "silence", tls="required") as relay:
        await relay.house.send(B)
        said = UNSAFE + "offers no STARTTLS, and TLS is required (STARTTLS)"
        assert await relay.told(2) == [f"reception {B}", f"deferral 1 {B} tls +300: {said}"]


async def test_tls_is_required_and_starttls_is_refused(tmp_path: Path) -> None:
    script = OFFERS + "<- STARTTLS\n-> 454 4.7.0 TLS not available\nsilence"
    async with relaying(tmp_path, script, tls="required") as relay:
        await relay.house.send(B)
        said = UNSAFE + "STARTTLS was refused: 454 4.7.0 TLS not available (STARTTLS)"
        assert await relay.told(2) == [f"reception {B}", f"deferral 1 {B} tls +300: {said}"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param("starttls-garbage", "", id="garbage"),
        pytest.param(
            "starttls\nsilence", "the certificate is not accepted: self-signed certificate", id="a stranger"
        ),
        pytest.param("abort", "", id="reset"),
    ],
)
async def test_tls_is_required_and_the_handshake_fails(tmp_path: Path, answer: str, why: str) -> None:
    tries = 1 if why else 2  # whose certificate is refused can do TLS
    async with relaying(tmp_path, *[BEGIN + answer] * tries, tls="required") as relay:
        await relay.house.send(B)
        received, deferral = await relay.told(2)
        assert received == f"reception {B}"
        assert deferral.startswith(f"deferral 1 {B} tls +300: {UNSAFE}the TLS handshake failed: ")
        assert why in deferral
        assert relay.peer.calls[0].messages == []


SAFELY = b"From: a@src.test\r\nX-MTA-Require-TLS: yes\r\n\r\nHello.\r\n"


async def test_a_message_wants_tls_of_a_peer_that_has_none_and_others_do_not_wait_for_it(
    tmp_path: Path,
) -> None:
    async with relaying(tmp_path, HELLO + "silence", HELLO + TAKES, HELLO + "silence") as relay:
        await relay.house.send(B, content=SAFELY)
        said = UNSAFE + "offers no STARTTLS, and TLS is required (STARTTLS)"
        assert await relay.told(2) == [f"reception {B}", f"deferral 1 {B} tls +300: {said}"]
        await relay.house.send("c@dst.test")
        await relay.house.event(type="delivery", recipient="c@dst.test")
        await relay.come_due()  # from the disk
        assert (await relay.told(5))[4].startswith(f"deferral 2 {B} tls ")
        assert [len(call.messages) for call in relay.peer.calls] == [0, 1, 0]


async def test_a_message_that_wants_tls_takes_no_connection_that_was_opened_without(tmp_path: Path) -> None:
    """Nor one under TLS whose certificate proves nothing."""
    async with relaying(tmp_path, SECURED, BEGIN + "starttls\nsilence") as relay:
        await relay.house.send("c@dst.test")
        await relay.house.event(type="delivery", recipient="c@dst.test")
        await relay.house.send(B, content=SAFELY)
        deferral = await relay.house.event(type="deferral")
        assert "the certificate is not accepted: self-signed certificate" in deferral["reply"]["text"]
        assert [len(call.messages) for call in relay.peer.calls] == [1, 0]


async def test_a_message_that_wants_tls_is_never_sent_in_the_clear_where_tls_fails(tmp_path: Path) -> None:
    """Where the host is remembered as one whose TLS fails, and mail goes in the clear, it waits."""
    async with relaying(tmp_path, *[BEGIN + "abort"] * 3, OFFERS + TAKES, *[BEGIN + "abort"] * 2) as relay:
        await in_the_clear(relay, "delivery")
        await relay.house.send("c@dst.test", content=SAFELY)
        deferral = await relay.house.event(type="deferral", recipient="c@dst.test")
        assert deferral["reply"]["enhanced"] == "4.7.5"
        assert sum(len(call.messages) for call in relay.peer.calls) == 1


async def test_a_message_that_wants_tls_gets_it_where_the_certificate_proves_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate()[0]))
    async with relaying(tmp_path, SECURED) as relay:
        await relay.house.send(B, content=SAFELY)
        assert (await relay.house.event(type="delivery"))["tls"] == "TLSv1.3"


async def test_a_smarthost_gets_the_user_and_the_password_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret word\n")
    script = HELLO.replace("-> 250 8BITMIME", "-> 250 AUTH PLAIN LOGIN")
    script += f"<- AUTH PLAIN {LOGIN}\n-> 235 2.7.0 welcome\n" + TAKES
    terms = {"user": "user@src.test", "password_file": tmp_path / "password"}
    async with relaying(tmp_path, script, **terms) as relay:
        await relay.house.send(B)
        await relay.house.event(type="delivery")


async def test_a_smarthost_that_does_not_know_us(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret word\n")
    script = HELLO.replace("-> 250 8BITMIME", "-> 250 AUTH PLAIN")
    script += f"<- AUTH PLAIN {LOGIN}\n-> 535 5.7.8 who are you?\nsilence"
    terms = {"user": "user@src.test", "password_file": tmp_path / "password"}
    async with relaying(tmp_path, script, **terms) as relay:
        await relay.house.send(B)
        assert await relay.told(2) == [
            f"reception {B}",
            f"deferral 1 {B} policy +300: 535 5.7.8 who are you? (AUTH)",
        ]


async def test_a_smarthost_that_speaks_tls_12_alone_and_does_not_know_us(tmp_path: Path) -> None:
    """It is the password that is wrong, and not its TLS."""
    (tmp_path / "password").write_text("secret word\n")
    secured = BEGIN + "starttls\n" + SECRETLY + f"<- AUTH PLAIN {LOGIN}\n-> 535 5.7.8 who are you?\nsilence"
    terms = {"user": "user@src.test", "password_file": tmp_path / "password"}
    async with relaying(tmp_path, BEGIN + "abort", secured, **terms) as relay:
        await relay.house.send(B)
        assert await relay.told(2) == [
            f"reception {B}",
            f"deferral 1 {B} policy +300: 535 5.7.8 who are you? (AUTH)",
        ]
        assert len(relay.house.daemon.hosts) == 0


async def test_a_smarthost_without_auth(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret word\n")
    terms = {"user": "user@src.test", "password_file": tmp_path / "password"}
    async with relaying(tmp_path, HELLO + "silence", **terms) as relay:
        await relay.house.send(B)
        received, deferral = await relay.told(2)
        assert received == f"reception {B}"
        said = f"{NOBODY}offers no AUTH that we know, and the route has a password"
        assert deferral.startswith(f"deferral 1 {B} network +300: {said}")


async def test_the_password_file_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "nowhere"
    async with relaying(tmp_path, user="user@src.test", password_file=file) as relay:
        await relay.house.send(B)
        said = "451 4.3.5 the password file of the route cannot be read: "
        said += f"[Errno 2] No such file or directory: '{file}'"
        assert await relay.told(2) == [f"reception {B}", f"deferral 1 {B} network +300: {said}"]


GREETS = HELLO.replace("-> 250 8BITMIME", "-> 250 AUTH PLAIN LOGIN CRAM-MD5")
SECRETLY = HELLO.replace("-> 220 mx.test ESMTP", "").replace("-> 250 8BITMIME", "-> 250 AUTH PLAIN")


async def test_somebody_between_strips_starttls_and_no_password_is_said(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret word\n")
    async with ScriptedPeer(GREETS + "silence") as peer:
        # A name is not known to be loopback before it is looked up: TLS is required.
        relay = StaticRoute(
            Endpoint("localhost", peer.port), user="user@src.test", password_file=tmp_path / "password"
        )
        async with running(settings(tmp_path, routes={"*": relay}), HandClock()) as house:
            await house.send(B)
            told = await house.event(type="deferral")
        call = await peer.at(1, "end")
    assert NO_STARTTLS in told["reply"]["text"]
    assert bytes(call.received) == b"EHLO mta.test\r\n"


@pytest.mark.parametrize(
    ("script", "verified", "required", "said"),
    [
        pytest.param(GREETS + "silence", None, False, NO_SECRET, id="in the clear"),
        pytest.param(GREETS + "silence", None, True, NO_STARTTLS, id="required, and asked in the clear"),
        pytest.param(GREETS + "silence", True, True, NO_STARTTLS, id="stripped"),
        pytest.param(GREETS + "silence", True, False, NO_SECRET, id="stripped, and not required"),
        pytest.param(
            BEGIN + "starttls\n" + SECRETLY + "silence", False, False, NO_SECRET, id="anybody's certificate"
        ),
        pytest.param(
            BEGIN + "starttls\n<- EHLO mta.test\n-> 500 what?\nsilence",
            False,
            True,
            "500",
            id="no second EHLO",
        ),
    ],
)
async def test_a_password_goes_to_nobody_who_is_not_proved(
    script: str, verified: bool | None, required: bool, said: str
) -> None:
    context = None if verified is None else ssl.create_default_context()
    if verified is False:
        assert context is not None
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with own_network():
        async with ScriptedPeer(script, host=FIRST) as peer:
            dialled = socket.create_connection((FIRST, peer.port))
            dialled.setblocking(False)
            with pytest.raises(PeerError, match=said):
                await open_connection(
                    Dialled(dialled, FIRST), host="relay.test", ehlo="mta.test", clock=SystemClock(),
                    tls_context=context, tls_required=required, login=("user@src.test", "secret word"),
                )  # fmt: skip
    assert b"AUTH" not in peer.calls[0].received


async def test_starttls_is_refused_in_latin_1(tmp_path: Path) -> None:
    script = OFFERS + "<- STARTTLS\n-> 454 TLS nicht verf\udcfcgbar\x00\nsilence"
    async with relaying(tmp_path, script, tls="required") as relay:
        await relay.house.send(B)
        said = UNSAFE + "STARTTLS was refused: 454 TLS nicht verf\ufffdgbar\ufffd (STARTTLS)"
        assert await relay.told(2) == [f"reception {B}", f"deferral 1 {B} tls +300: {said}"]
