"""Our certificate: a self-signed one to begin with, and the end of the one that is in use.

Between: `mta sandbox` has one made; `daemon` loads the two files and has a `Watch` on them.
Contract: P-256, 10 years, for the given host names and addresses, localhost and the loopback addresses.
    Clients can trust the file itself. The key's mode is 0600 from its first octet on. Files that exist are
    left alone, whatever their names, age or kind. A `Watch` looks each hour at the certificate that was in
    the file at its start, which is the one that clients are shown.
Raises: FileExistsError if one of the two files is there without the other; ValueError for a name that is no
    A-label; OSError.
Standards: RFC 5280; RFC 6125 6.4 (names stand in subjectAltName).
"""

from __future__ import annotations

import errno
import ipaddress
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mta.clock import Clock, Every, SystemClock
from mta.core.event import rfc3339
from mta.metrics import Metrics

LIFETIME = timedelta(days=3650)
SKEW = timedelta(days=1)  # a client's clock may be behind ours
LOOK = 3600.0  # seconds between two looks at the end of the certificate
SOON = 3 * 86400.0  # seconds before it; who renews it by himself has done so weeks ago
ALWAYS = ("localhost", "127.0.0.1", "::1")

log = logging.getLogger(__name__)


class Watch:
    """Tells of the end of a certificate before clients do."""

    def __init__(self, path: Path, clock: Clock, metrics: Metrics) -> None:
        self._path = path
        self._clock = clock
        self._metrics = metrics
        self._end = 0.0  # seconds since the epoch
        self._told = ""
        self._looks = Every(
            clock, LOOK, self._look, partial(metrics.bug, "ops", "a bug in the certificate's watch")
        )

    def start(self) -> None:
        """Read the file, after listeners have."""
        found = x509.load_pem_x509_certificate(self._path.read_bytes())  # the first: ours
        self._end = found.not_valid_after_utc.timestamp()
        self._metrics.certificate_expires.set(self._end)
        self._looks.start()
        self._look()

    def stop(self) -> None:
        self._looks.stop()

    @property
    def complaint(self) -> str:
        """What is wrong with it now, for the operator; empty while it is good for longer than `SOON`."""
        left = self._end - self._clock.now()
        if left > SOON:
            return ""
        verb = "expires" if left > 0 else "has expired"
        return (
            f"the certificate {self._path} {verb} at {rfc3339(self._end)}: renew it, and restart the daemon"
        )

    def _look(self) -> None:
        complaint = self.complaint
        if complaint and complaint != self._told:
            log.warning("%s", complaint)
        self._told = complaint


def self_signed(
    hostnames: Iterable[str], directory: Path, now: Callable[[], float] = SystemClock.now
) -> tuple[Path, Path]:
    """The paths of the certificate and of its key in `directory`, made if they are not there yet."""
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    if certificate.exists() != key.exists():
        there, missing = (certificate, key) if certificate.exists() else (key, certificate)
        raise FileExistsError(errno.EEXIST, f"is there without {missing.name}: remove it", str(there))
    if not key.exists():
        private = ec.generate_private_key(ec.SECP256R1())
        signed = _certificate(private, [*hostnames, *ALWAYS], datetime.fromtimestamp(now(), UTC))
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(key, 0o600, _pem(private))
        _write(certificate, 0o644, signed.public_bytes(serialization.Encoding.PEM))
    return certificate, key


def _certificate(key: ec.EllipticCurvePrivateKey, hostnames: list[str], now: datetime) -> x509.Certificate:
    # X.520 allows a common name 64 characters; nobody matches names with it any more.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostnames[0][:64])])
    names = x509.SubjectAlternativeName([_general_name(host) for host in dict.fromkeys(hostnames)])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder(issuer_name=name, subject_name=name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + LIFETIME)
        .add_extension(names, critical=False)
        # rustls takes no CA's for a server's; OpenSSL before 3 then trusts it only if it limits no usage.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, mode: int, content: bytes) -> None:
    path.touch(mode, exist_ok=False)
    path.write_bytes(content)
