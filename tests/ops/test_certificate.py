"""The self-signed certificate, as TLS sees it."""

from __future__ import annotations

import logging
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from mta.config.settings import Tls
from mta.metrics import Metrics
from mta.ops.certificate import LIFETIME, LOOK, SOON, Watch, self_signed
from tests.fakes.clock import HandClock
from tests.fakes.house import running, settings


def handshake(certificate: Path, key: Path, name: str) -> None:
    """A TLS handshake in memory, the client trusting the certificate's own file."""
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(certificate, key)
    client_side = ssl.create_default_context(cafile=str(certificate))
    client_side.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(down, up, server_hostname=name)
    server = server_side.wrap_bio(up, down, server_side=True)
    for _ in range(3):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    assert client.version() == "TLSv1.3"
    assert client.getpeercert()


@pytest.mark.parametrize("name", ["mail.example.org", "localhost", "127.0.0.1", "::1", "192.0.2.7"])
def test_a_client_that_trusts_the_file_gets_in_under_every_name(tmp_path: Path, name: str) -> None:
    handshake(*self_signed(["mail.example.org", "192.0.2.7"], tmp_path), name)


def test_a_name_that_was_not_asked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=r"not valid for 'mx\.example\.net'"):
        handshake(*self_signed(["mail.example.org"], tmp_path), "mx.example.net")


def test_it_is_p256_and_good_for_ten_years(tmp_path: Path) -> None:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    path, _ = self_signed(["mail.example.org", "localhost"], tmp_path, now.timestamp)
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert certificate.not_valid_before_utc < now
    assert certificate.not_valid_after_utc == now + timedelta(days=3650)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["mail.example.org", "localhost"]


def test_a_client_that_refuses_a_ca_as_a_server_is_shown_none(tmp_path: Path) -> None:
    path, _ = self_signed(["mail.example.org"], tmp_path)
    extensions = x509.load_pem_x509_certificate(path.read_bytes()).extensions
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_name_longer_than_a_common_name_may_be_is_kept(tmp_path: Path) -> None:
    name = "a" * 60 + ".example.org"
    handshake(*self_signed([name], tmp_path), name)


def test_nobody_else_reads_the_key(tmp_path: Path) -> None:
    _, key = self_signed(["mail.example.org"], tmp_path / "tls")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_files_that_exist_are_left_alone(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in self_signed(["mail.example.org"], tmp_path)]
    assert [path.read_bytes() for path in self_signed(["other.example.org"], tmp_path)] == first


@pytest.mark.parametrize("lost", [0, 1])
def test_a_file_without_its_partner_is_neither_replaced_nor_used(tmp_path: Path, lost: int) -> None:
    files = self_signed(["mail.example.org"], tmp_path)
    kept = files[1 - lost]
    content = kept.read_bytes()
    files[lost].unlink()
    with pytest.raises(FileExistsError, match=f"without {files[lost].name}"):
        self_signed(["mail.example.org"], tmp_path)
    assert kept.read_bytes() == content
    assert not files[lost].exists()


def test_a_name_that_is_no_a_label_leaves_no_file_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        self_signed(["mäil.example.org"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def ending(directory: Path, end: float) -> tuple[Path, Path]:
    """A certificate that ends at this time."""
    return self_signed(["mta.test"], directory, lambda: end - LIFETIME.total_seconds())


async def test_the_end_of_the_certificate_is_told_three_days_before_and_again_when_it_comes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, metrics = HandClock(), Metrics()
    end = clock.now() + SOON + 2 * LOOK
    file, _ = ending(tmp_path, end)
    watch = Watch(file, clock, metrics)
    watch.start()
    shown = metrics.registry.get_sample_value("mta_certificate_expires_timestamp_seconds")
    assert (shown, watch.complaint) == (end, "")
    lines = []
    for hours in (1, 2, 24, 24, 24, 24):
        await clock.advance(hours * LOOK)
        lines.append([record.getMessage() for record in caplog.records if record.levelno == logging.WARNING])
        caplog.clear()
    at = datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    before = f"the certificate {file} expires at {at}: renew it, and restart the daemon"
    after = f"the certificate {file} has expired at {at}: renew it, and restart the daemon"
    assert lines == [[], [before], [], [], [after], []]
    assert watch.complaint == after
    watch.stop()


async def test_a_daemon_whose_certificate_ends_soon_is_not_ready_and_serves(tmp_path: Path) -> None:
    clock = HandClock()
    files = ending(tmp_path / "tls", clock.now() + SOON / 2)
    async with running(settings(tmp_path, tls=Tls(*files)), clock) as house:
        (reason,) = house.daemon._not_ready()
        assert reason.startswith(f"the certificate {files[0]} expires at ")
        assert (await house.send("b@dst.test")).startswith("250 ")
