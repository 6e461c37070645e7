"""Debian's unbound and BIND answer our questions, by UDP and TCP; unbound checks signatures."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from benchmarks.process import PATH
from mta.clock import SystemClock
from mta.config.settings import Dns, Duration, Endpoint
from mta.core.route.routing import Mx, Status
from mta.dns import wire
from mta.dns.resolver import Resolver

ZONE = "dst.example"
RECORDS = """\
$TTL 300
@ SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
@ MX 10 mx
@ MX 20 MX2
@ TXT "v=spf1 " "-all"
ns A 127.0.0.1
mx A 192.0.2.1
mx AAAA 2001:db8::1
mx2 A 192.0.2.2
alias CNAME other
other CNAME @
_25._tcp.mx TLSA 3 1 1 {digest}
{many}
"""
MANY = 90  # records of 16 octets: no datagram of ours holds them, and BIND takes no more than 100
UNBOUND = """\
server:
  interface: 127.0.0.1@{port}
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "{directory}"
  pidfile: ""
  logfile: ""
  use-syslog: no
  verbosity: 1
  trust-anchor-file: "{directory}/anchor"
auth-zone:
  name: {zone}
  zonefile: "{directory}/zone.signed"
  for-downstream: no
  for-upstream: yes
remote-control:
  control-enable: no
"""
NAMED = """\
options {{
  directory "{directory}";
  listen-on port {port} {{ 127.0.0.1; }};
  listen-on-v6 {{ none; }};
  pid-file none;
  recursion no;
  dnssec-validation no;
}};
controls {{ }};
zone "{zone}" {{ type primary; file "zone.signed"; }};
"""
SERVERS = {
    "unbound": (["-d", "-c"], UNBOUND, "start of service"),
    "named": (["-g", "-c"], NAMED, " running\n"),
}
TOOLS = ("dnssec-keygen", "dnssec-signzone", "dnssec-dsfromkey")


def free_port() -> int:
    """They must be told one that is free for TCP and UDP."""
    while True:
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            stream.bind(("127.0.0.1", 0))
            with contextlib.suppress(OSError):
                datagrams.bind(stream.getsockname())
                return int(stream.getsockname()[1])


def tool(*argv: str, cwd: Path) -> str:
    ran = subprocess.run(argv, cwd=cwd, env={"PATH": PATH}, capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def signed(directory: Path) -> None:
    """The zone, its signatures, and the anchor by which they are trusted."""
    many = "\n".join(f"many A 192.0.2.{n}" for n in range(MANY))
    (directory / "zone").write_text(RECORDS.format(many=many, digest="ab" * 32))
    key = tool("dnssec-keygen", "-q", "-a", "ECDSAP256SHA256", "-f", "KSK", ZONE, cwd=directory)
    tool("dnssec-signzone", "-S", "-z", "-o", ZONE, "zone", cwd=directory)
    (directory / "anchor").write_text(tool("dnssec-dsfromkey", f"{key}.key", cwd=directory) + "\n")


def configured(directory: Path, text: str, port: int) -> str:
    conf = directory / "conf"
    conf.write_text(text.format(port=port, directory=directory, zone=ZONE))
    return str(conf)


@asynccontextmanager
async def serving(name: str, directory: Path) -> AsyncIterator[Resolver]:
    """A resolver that asks this server, which is ready."""
    if missing := [each for each in (name, *TOOLS) if shutil.which(each, path=PATH) is None]:
        pytest.skip(f"{', '.join(missing)} not installed: apt-get install unbound bind9")
    signed(directory)
    options, text, ready = SERVERS[name]
    port = free_port()
    conf = configured(directory, text, port)
    argv = [shutil.which(name, path=PATH) or name, *options, conf]
    server = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert server.stdout is not None
    said = b""
    try:
        async with asyncio.timeout(20):
            while ready.encode() not in said:
                line = await server.stdout.readline()
                assert line, said.decode()
                said += line
        yield Resolver(Dns((Endpoint("127.0.0.1", port),), Duration(30.0)), SystemClock())
    finally:
        if server.returncode is None:
            server.terminate()
        await server.communicate()


@pytest.mark.parametrize("name", SERVERS)
async def test_a_real_name_server_is_understood(tmp_path: Path, name: str) -> None:
    async with serving(name, tmp_path) as resolver:
        is_checked = name == "unbound"
        mx = await resolver.mx(ZONE)
        assert set(mx.records) == {Mx(10, f"mx.{ZONE}"), Mx(20, f"mx2.{ZONE}")}, mx.text
        assert mx.is_authentic is is_checked
        alias = await resolver.mx(f"ALIAS.{ZONE}")
        assert (set(alias.records), alias.is_authentic) == (set(mx.records), is_checked)
        both = await resolver.addresses(f"mx.{ZONE}")
        assert (both.records, both.is_authentic) == (("2001:db8::1", "192.0.2.1"), is_checked)
        many = await resolver.addresses(f"many.{ZONE}")
        assert len(many.records) == MANY
        nobody = await resolver.mx(f"nobody.{ZONE}")
        assert (nobody.status, nobody.is_authentic) == (Status.NXDOMAIN, is_checked)
        assert 0 < nobody.ttl <= 60
        assert (await resolver.mx(f"mx.{ZONE}")).status is Status.NODATA
        assert (await resolver.txt(ZONE)).records == (b"v=spf1 -all",)
        tlsa = await resolver.tlsa(f"_25._tcp.mx.{ZONE}")
        assert (tlsa.records, tlsa.is_authentic) == ((wire.Tlsa(3, 1, 1, b"\xab" * 32),), is_checked)
