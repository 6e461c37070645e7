"""What in these settings will not work on this machine.

Between: `mta config check` asks; files, addresses and the store of credentials answer.
Contract: an error is what will not work, a warning what may not, or not for long. Each has the place of the
    key that it comes from; what is said by default stands at the top of the file. Files are read as the
    daemon will: as the owner of `spool.path`, where we may become him. Nothing is changed.
Raises: nothing.
Standards: RFC 6125 6.4 (names stand in subjectAltName; a wildcard is for one label).
Why: each of these is a daemon that does not start, or mail that nobody can send, at a time that nobody chose.
"""

from __future__ import annotations

import ipaddress
import os
import pwd
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from yaml import Node

from mta.config import units
from mta.config.document import child, compose, find, members, place
from mta.config.settings import Endpoint, ListenerSettings, Settings
from mta.core.credential import Credential
from mta.core.networks import parse_networks
from mta.signing import secret
from mta.signing.secret import SecretError
from mta.store.credentials import CredentialError, CredentialStore
from mta.store.database import FILE, StoreError
from mta.store.domains import DomainStore

SOON = timedelta(days=14)  # before the end of a certificate: what renews it has failed for weeks by then
ANY4, ANY6 = "0.0.0.0", "::"

Key = tuple[str | int, ...]


class Finding(NamedTuple):
    """What is wrong, and where; line and column count from 1, and are None in what is no settings file."""

    severity: Literal["error", "warning"]
    path: Path
    line: int | None
    column: int | None
    key: str
    text: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}:{self.column}" if self.line else str(self.path)
        label = "warning: " if self.severity == "warning" else ""
        return f"{place}: {label}{self.key}: {self.text}" if self.key else f"{place}: {label}{self.text}"


def findings(path: Path, settings: Settings, now: float) -> list[Finding]:
    """All of them, in the order of the file; `path` is the file that the settings were loaded from."""
    found = list(_Look(path, compose(path), settings, datetime.fromtimestamp(now, UTC)).all())
    return sorted(found, key=lambda each: (each.line is None, each.line or 0, each.column or 0))


class _Look:
    """One look at the machine."""

    def __init__(self, path: Path, root: Node, settings: Settings, now: datetime) -> None:
        self._path = path
        self._root = root
        self._settings = settings
        self._now = now

    def all(self) -> Iterator[Finding]:
        yield from self._certificate()
        yield from self._passwords()
        yield from self._secret()
        yield from self._sources()
        yield from self._doors()
        yield from self._credentials()
        yield from self._domains()

    def _error(self, key: Key, text: str) -> Finding:
        return Finding("error", self._path, *self._place(key), _written(key), text)

    def _warning(self, key: Key, text: str) -> Finding:
        return Finding("warning", self._path, *self._place(key), _written(key), text)

    def _place(self, key: Key) -> tuple[int, int]:
        return place(find(self._root, key).start_mark)

    # Files

    def _certificate(self) -> Iterator[Finding]:
        said = self._settings.tls
        if said.certificate is None or said.key is None:
            return
        at, key_at = ("tls", "certificate"), ("tls", "key")
        chain: list[x509.Certificate] = []
        private: Any = None
        try:
            chain = x509.load_pem_x509_certificates(self._read(said.certificate))
            yield from self._chain(at, said.certificate, chain)
        except OSError as error:
            yield self._error(at, f"{said.certificate} {error}")
        except (ValueError, UnsupportedAlgorithm):
            yield self._error(at, f"{said.certificate} is no certificate in PEM")
        try:
            private = serialization.load_pem_private_key(self._read(said.key), None)
        except OSError as error:
            yield self._error(key_at, f"{said.key} {error}")
        except TypeError:
            yield self._error(key_at, f"{said.key} is encrypted: write it without a passphrase")
        except (ValueError, UnsupportedAlgorithm):
            yield self._error(key_at, f"{said.key} is no private key in PEM")
        if not chain or private is None:
            return
        own, (first, *others) = _octets(private), map(_octets, chain)
        if own != first:
            fits = own in others
            advice = ": its own has to stand first in that file" if fits else ""
            yield self._error(
                key_at, f"{said.key} does not fit the certificate in {said.certificate}{advice}"
            )
            return
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(said.certificate, said.key)
        except OSError as error:  # ssl.SSLError is one too
            yield self._error(at, f"{said.certificate} cannot be used: {error}")

    def _chain(self, at: Key, file: Path, chain: list[x509.Certificate]) -> Iterator[Finding]:
        leaf, *issuers = chain
        end, begin = leaf.not_valid_after_utc, leaf.not_valid_before_utc
        if end <= self._now:
            yield self._error(at, f"{file} has expired on {end:%Y-%m-%d}: renew it")
        elif end <= self._now + SOON:
            yield self._warning(at, f"{file} expires on {end:%Y-%m-%d}: renew it")
        if begin > self._now:
            yield self._error(at, f"{file} is not valid before {begin:%Y-%m-%d %H:%M} UTC")
        for issuer in issuers:
            if issuer.not_valid_after_utc <= self._now:
                name = issuer.subject.rfc4514_string()
                yield self._warning(at, f"{file} has an issuer that has expired: {name}")
        names, hostname = _names(leaf), self._settings.hostname
        if not any(_covers(name, hostname) for name in names):
            those = ", ".join(names[:5]) or "nobody"
            words = (
                f"{file} is for {those} and not for {hostname}: programs must connect to a name that it has"
            )
            yield self._warning(at, words)

    def _passwords(self) -> Iterator[Finding]:
        written = {str(units.routed_domain(name)): name for name, _ in members(child(self._root, "routes"))}
        for domain, route in self._settings.routes.items():
            if route.password_file is None:
                continue
            at = ("routes", written.get(domain, domain), "password_file")
            try:
                if not self._read(route.password_file).decode().strip():
                    yield self._error(at, f"{route.password_file} is empty")
            except OSError as error:
                yield self._error(at, f"{route.password_file} {error}")
            except UnicodeDecodeError:
                yield self._error(at, f"{route.password_file} is not UTF-8")

    def _secret(self) -> Iterator[Finding]:
        file, at = self._settings.secret, ("identity", "secret")
        try:
            with _as_owner(self._settings.spool.path):
                secret.read(file)
        except FileNotFoundError:
            if self._settings.identity.secret and not file.parent.is_dir():
                yield self._error(at, f"{file} cannot be made: {file.parent} does not exist")
        except SecretError as error:
            yield self._error(at, str(error))

    def _read(self, file: Path) -> bytes:
        """As the daemon will; the error's text says what is wrong with the file, and for whom."""
        with _as_owner(self._settings.spool.path) as owner:
            try:
                return file.read_bytes()
            except FileNotFoundError:
                raise OSError("does not exist") from None
            except OSError as error:
                by = f" by {owner}, to whom {self._settings.spool.path} belongs" if owner else ""
                raise OSError(f"cannot be read{by}: {error.strerror}") from None

    # Addresses

    def _sources(self) -> Iterator[Finding]:
        if self._settings.sandbox is not None:  # nothing is bound there
            return
        for name, source in self._settings.sources.items():
            if problem := _unbound(source.address):
                yield self._error(("sources", name, "address"), f"mail cannot leave from {problem}")

    def _doors(self) -> Iterator[Finding]:
        listeners = self._settings.listeners
        doors: dict[Key, Endpoint] = {("listeners", n, "bind"): door.bind for n, door in enumerate(listeners)}
        doors["admin", "bind"] = self._settings.admin.bind
        if self._settings.sandbox is not None:
            doors["sandbox", "bind"] = self._settings.sandbox.bind
        taken: dict[Key, Endpoint] = {}
        for key, bind in doors.items():
            if problem := _unbound(bind.host):
                yield self._error(key, f"nobody can listen at {problem}")
            first = next((at for at, other in taken.items() if _collide(bind, other)), None)
            if first is not None:
                yield self._error(key, f"{bind} is taken by {_written(first)}, which says {taken[first]}")
            taken[key] = bind
        if not listeners:
            yield self._warning(("listeners",), "there is none: no program can submit mail")

    # Who may submit

    def _domains(self) -> Iterator[Finding]:
        """Who is named to sign, and was not added."""
        identity, file = self._settings.identity, self._settings.spool.path / FILE
        named = {"default": identity.default, "second": identity.second}
        known: frozenset[str] = frozenset()
        try:
            if any(named.values()) and file.exists():
                with DomainStore(self._settings.spool.path) as store:
                    known = store.names()
        except (StoreError, OSError) as error:
            yield Finding("warning", file, None, None, "domains", f"cannot be looked at: {error}")
            return
        for key, name in named.items():
            if name is not None and name not in known:
                yield self._error(("identity", key), f"nobody has added {name}: mta domain add {name}")

    def _credentials(self) -> Iterator[Finding]:
        file = self._settings.spool.path / "credentials.db"
        try:
            if not file.exists():
                return
            with CredentialStore(file) as store:
                found = [stored.credential for stored in store.current().values()]
        except (CredentialError, OSError) as error:
            yield Finding("warning", file, None, None, "credentials", f"cannot be looked at: {error}")
            return
        lost = [each for each in found if not any(_serves(door, each) for door in self._settings.listeners)]
        for is_bound, words in (
            (True, "auth: network, at an address that its networks can reach"),
            (False, "auth: password"),
        ):
            logins = [each.login for each in lost if (each.kind == "network") is is_bound]
            if logins:
                those = ", ".join(logins[:5]) + (f" and {len(logins) - 5} more" if len(logins) > 5 else "")
                yield self._error(("listeners",), f"no mail can come in by {those}: add one with {words}")


def _written(key: Key) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).removeprefix(".")


def _octets(owner: Any) -> bytes:
    """The public key of a private one or of a certificate; empty where its kind is not known."""
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    try:
        return bytes(owner.public_key().public_bytes(encoding, form))
    except (ValueError, UnsupportedAlgorithm):
        return b""


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        said = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return said.get_values_for_type(x509.DNSName)


def _covers(name: str, host: str) -> bool:
    wanted = name.lower()
    return wanted == host or (wanted.startswith("*.") and wanted[2:] == host.partition(".")[2])


def _unbound(host: str) -> str:
    """Why nothing can be bound to this address; empty where it can."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, 0))
    except OSError as error:
        return f"{host}: {error.strerror}"
    except (TypeError, ValueError) as error:  # a name that DNS cannot have: it cannot be encoded
        return f"{host}: {error}"
    return ""


def _collide(one: Endpoint, other: Endpoint) -> bool:
    """Would the second bind be refused? A listener at `::` has the addresses of both families."""
    if one.port != other.port or not one.port:
        return False
    hosts = {one.host, other.host}
    return len(hosts) == 1 or ANY6 in hosts or (ANY4 in hosts and not any(":" in host for host in hosts))


def _serves(door: ListenerSettings, credential: Credential) -> bool:
    """Can its owner come in there?"""
    if credential.kind != "network":
        return door.auth == "password"
    if door.auth != "network":
        return False
    try:
        host = ipaddress.ip_address(door.bind.host)
    except ValueError:
        return True  # a name: nobody knows what it means tomorrow
    networks = parse_networks(credential.networks)
    if host.is_loopback:
        networks = tuple(each for each in networks if each.version == host.version)
        return any(each.overlaps(_LOOPBACK[each.version]) for each in networks)
    return str(host) == ANY6 or any(each.version == host.version for each in networks)


_LOOPBACK: Mapping[int, Any] = {4: ipaddress.ip_network("127.0.0.0/8"), 6: ipaddress.ip_network("::1/128")}


@contextmanager
def _as_owner(directory: Path) -> Iterator[str]:
    """With the rights of whom this directory belongs to, where we are root and he is not; his name."""
    try:
        found = directory.stat()
    except OSError:
        found = None
    if found is None or os.geteuid() != 0 or found.st_uid == 0:
        yield ""
        return
    name, group, groups = str(found.st_uid), found.st_gid, [found.st_gid]
    try:
        entry = pwd.getpwuid(found.st_uid)
        name, group, groups = entry.pw_name, entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)
    except KeyError:
        pass  # a number without a name
    former, former_groups = os.getegid(), os.getgroups()
    try:
        os.setgroups(groups)
        os.setegid(group)
        os.seteuid(found.st_uid)
        yield name
    finally:
        os.seteuid(0)
        os.setegid(former)
        os.setgroups(former_groups)
