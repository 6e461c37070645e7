"""What we sign is verified by others: dkimpy, OpenDKIM and Mail::DKIM, behind a real Postfix.

`make signatures` sends a thousand messages; without MESSAGES it is some dozens.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import dkim
import pytest

from benchmarks.peers import postfix
from benchmarks.process import PATH, Process
from mta.core.domain import ALGORITHMS, SendingDomain
from mta.core.mail.dkim import OVERSIGNED, SIGNED
from mta.signing.keys import KeyFolder
from mta.signing.rotation import make
from mta.store.domains import DomainStore
from tests.fakes.dns import NameServer
from tests.fakes.house import House, routed, running, settings
from tests.fakes.receiver import Receiver
from tests.fakes.relay import MUTE
from tests.interop.test_postfix import free_port

SEED = 20261128
MESSAGES = int(os.environ.get("MESSAGES", "40"))
DOMAIN = "src.test"
ONCE = {"from", "sender", "subject", "to", "cc", "reply-to", "date", "message-id", "bcc", "return-path"}
NAMES = [name.decode().title() for name in OVERSIGNED + SIGNED if name != b"from"] + ["X-Other", "List-Help"]
# What Postfix would do to a message that is only passed on.
UNTOUCHED = """\
local_header_rewrite_clients =
smtp_line_length_limit = 0
"""
PERL = """\
use Mail::DKIM::Verifier; use Mail::DKIM::DNS; use Net::DNS;
Mail::DKIM::DNS::resolver(Net::DNS::Resolver->new(nameservers => ['127.0.0.1'], port => $ARGV[0]));
for my $file (@ARGV[1 .. $#ARGV]) {
    my $dkim = Mail::DKIM::Verifier->new();
    open(my $in, '<:raw', $file) or die; local $/; my $all = <$in>;
    $dkim->PRINT($all); $dkim->CLOSE();
    print join(' ', map { $_->algorithm . '=' . $_->result } $dkim->signatures), "\\n";
}
"""

pytestmark = [
    pytest.mark.skipif(shutil.which("postconf", path=PATH) is None, reason="Postfix is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="Postfix must be started by root"),
]


def value(dice: random.Random) -> bytes:
    """Of a field: folded, with blanks of all kinds, and letters beyond ASCII."""
    parts = [b" ", b"\t", b"  ", b"a", b"word", b";", b"=", b":", b"\r\n ", b"\r\n\t", b"\xc3\xa4", b"(c)"]
    return b" " + b"".join(dice.choices(parts, k=dice.randrange(12))) + b"x"


def field(dice: random.Random, name: str) -> bytes:
    values = {
        "Content-Type": b" text/plain;\r\n\tcharset=utf-8",
        "Content-Transfer-Encoding": b" 8bit",
        "Message-Id": b"  <%d@src.test>" % dice.randrange(10**9),
        "Date": b" Sat,\r\n 28 Nov 2026  03:00:00 +0000 ",
        "Sender": b" Ann  <a@src.test>",
        **dict.fromkeys(("To", "Cc", "Reply-To"), b" =?utf-8?q?B=C3=B6b?=  <b@dst.test>,\r\n\t c@dst.test"),
    }
    written = dice.choice([name, name.lower(), name.upper()]).encode()
    return written + b":" + (values.get(name) or value(dice)) + b"\r\n"


def body(dice: random.Random) -> bytes:
    """Empty, of dots, of 8 bits, of long lines, of blanks, with empty lines at its end."""
    parts = [b".", b"..", b".x", b" ", b"\t ", b"text", b"-- ", b"From here", bytes(range(160, 256)), b""]
    parts += [b"y" * 998, b"z  " * 1500]
    lines = [b"".join(dice.choices(parts, k=dice.randrange(4))) for _ in range(dice.randrange(12))]
    return b"".join(line + b"\r\n" for line in lines) + b"\r\n" * dice.choice([0, 0, 1, 7])


def message(dice: random.Random) -> bytes:
    chosen = dice.choices(NAMES, k=dice.randrange(12))
    names = [name for n, name in enumerate(chosen) if name.lower() not in ONCE or name not in chosen[:n]]
    head = [field(dice, name) for name in names] + [b"From:  =?utf-8?q?Ann?=\r\n <a@src.test> \r\n"]
    dice.shuffle(head)
    return b"".join(head) + b"\r\n" + body(dice)


@asynccontextmanager
async def relayed(tmp_path: Path, directory: Path, target: Receiver) -> AsyncIterator[House]:
    """Our daemon, whose mail goes through a Postfix."""
    listen = free_port()
    argv = postfix.as_shipped(listen, target.port, directory, None)
    with (directory / "etc/main.cf").open("a") as main:
        main.write(UNTOUCHED)
    with Process(argv, listen, directory / "output"):
        async with running(settings(tmp_path, routes=routed(listen)), credentials=(MUTE,)) as house:
            yield house


@pytest.fixture
def open_path() -> Iterator[Path]:
    """Postfix's users must be able to enter it."""
    with TemporaryDirectory(prefix="postfix-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


async def arrived(tmp_path: Path, open_path: Path) -> list[bytes]:
    """What comes out at the other end."""
    dice = random.Random(SEED)
    offers = ("8BITMIME", "SMTPUTF8", "PIPELINING", "SIZE")
    async with Receiver(offers=offers) as target, relayed(tmp_path, open_path, target) as house:
        for start in range(0, MESSAGES, 20):
            sent = [message(dice) for _ in range(start, min(start + 20, MESSAGES))]
            said = await asyncio.gather(*(house.send("b@dst.test", content=each) for each in sent))
            assert [each for each in said if not each.startswith("250 ")] == []
        await house.event(MESSAGES, type="delivery")
        async with asyncio.timeout(60):
            await target.until(MESSAGES)
    return target.messages


def signing(spool: Path) -> dict[str, str]:
    """A domain with a key of each kind; its records."""
    spool.mkdir()
    made = SendingDomain(DOMAIN)
    for algorithm in ALGORITHMS:
        made = make(KeyFolder(spool), made, algorithm, 0.0)
    with DomainStore(spool) as store:
        store.put(made)
    return {key.host(DOMAIN): key.record for key in made.keys}


async def test_everybody_verifies_what_we_signed_behind_a_postfix(tmp_path: Path, open_path: Path) -> None:
    records = signing(tmp_path / "spool")
    contents = await arrived(tmp_path, open_path)
    assert len(contents) == MESSAGES
    files = [tmp_path / f"{n:05}" for n in range(MESSAGES)]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    assert not_by_dkimpy(records, contents) == []
    opendkim, perl = shutil.which("opendkim", path=PATH), perl_with_mail_dkim()
    if opendkim is not None:
        assert not_by_opendkim(opendkim, records, files, tmp_path) == []
    if perl is not None:
        assert await not_by_mail_dkim(perl, records, files) == []
    if opendkim is None or perl is None:
        pytest.skip("verified without OpenDKIM or Mail::DKIM: apt-get install opendkim libmail-dkim-perl")


def not_by_dkimpy(records: dict[str, str], contents: list[bytes]) -> list[bytes]:
    """Those of which it cannot verify both signatures."""

    def looked_up(name: bytes, timeout: int) -> bytes:
        return records[name.decode().rstrip(".")].encode()

    def holds(content: bytes) -> bool:
        return all(dkim.DKIM(content).verify(idx=n, dnsfunc=looked_up) for n in range(len(records)))

    return [content for content in contents if not holds(content)]


def not_by_opendkim(program: str, records: dict[str, str], files: list[Path], tmp_path: Path) -> list[str]:
    """It knows RSA only; all that it says, unless it verifies each."""
    keys, conf = tmp_path / "keys.txt", tmp_path / "opendkim.conf"
    keys.write_text("".join(f"{host} {record}\n" for host, record in records.items()))
    conf.write_text(f"Mode v\nTestPublicKeys {keys}\nSyslog no\n")
    said: list[str] = []
    for start in range(0, len(files), 100):
        argv = [program, "-x", str(conf), "-t", ",".join(map(str, files[start : start + 100]))]
        said += subprocess.run(argv, capture_output=True, text=True, timeout=120).stderr.splitlines()
    verified = [line for line in said if "succeeded" in line]
    return [] if len(verified) == len(files) else said


def perl_with_mail_dkim() -> str | None:
    perl = shutil.which("perl")
    if perl is None or subprocess.run([perl, "-MMail::DKIM", "-e1"], capture_output=True).returncode:
        return None
    return perl


async def not_by_mail_dkim(perl: str, records: dict[str, str], files: list[Path]) -> list[str]:
    """It knows RSA only; what it says of those that it cannot verify."""
    zone = {(host, "TXT"): [f'"{record[:200]}" "{record[200:]}"'] for host, record in records.items()}
    async with NameServer(zone) as server:
        argv = [perl, "-e", PERL, str(server.endpoint.port), *map(str, files)]
        process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
        said = (await process.communicate())[0].decode().splitlines()
    assert len(said) == len(files)
    return [line for line in said if "rsa-sha256=pass" not in line]
