"""A private Postfix that relays everything to one port: the rival.

Between: `relay` starts the command that this returns like any other MTA's.
Contract: settings, queue, data and log live in the given directory. The system's own Postfix and its log are
    not touched; of /etc/postfix only the list of what a queue directory holds is read.
Raises: Broken when Postfix is missing, we are not root (it changes users), or it refuses its directory; and
    saslpasswd2 is missing where it has to authenticate.
Why: `postfix start` detaches itself. Its master, run directly, is our own child: the root of the tree whose
    processor time we count, ended by the signal that `postfix stop` sends. Services run outside a chroot (as
    Postfix ships them; Debian does not): no cost per message, and no copies of /etc. Nobody speaks TLS to
    the sink.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from benchmarks.load.submit import LOGIN, SECRET
from benchmarks.process import PATIENCE, Broken, program
from mta.ops.certificate import self_signed
from mta.signing.keys import generate

# What is not here is as Postfix ships it. It logs to a file of its own, for a mail server must log somewhere.
MAIN = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
maillog_file = {directory}/mail.log
maillog_file_prefixes = {directory}
myhostname = relay.test
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
mydestination =
alias_maps =
local_recipient_maps =
"""
RELAYED = "default_transport = smtp:[127.0.0.1]:{sink}\n"
# Its way out is by DNS, and TLS where it is offered, as every guide has it.
BY_NAMES = "smtp_tls_security_level = may\n"
TUNED = """\
in_flow_delay = 0
max_use = 5000
initial_destination_concurrency = 20
smtpd_client_connection_count_limit = 0
"""
MASTER = """\
127.0.0.1:{listen} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""
# What it signs with is a milter: each message goes there and back.
SIGNED_MAIN = """\
smtpd_milters = unix:{directory}/opendkim.sock
milter_default_action = tempfail
"""
OPENDKIM = """\
Mode s
Domain src0.test
Selector s1
KeyFile {key}
Canonicalization relaxed/relaxed
SignatureAlgorithm rsa-sha256
OversignHeaders From,To,Cc,Subject,Date,Reply-To,Message-ID,MIME-Version,Content-Type
Socket local:{directory}/opendkim.sock
UMask 000
RequireSafeKeys no
Background no
Syslog no
"""
# Both are one tree, and end together.
BOTH = """\
{opendkim} -f -x {conf} &
milter=$!
{master} &
master=$!
trap 'kill $master $milter' TERM INT
wait $master
wait $milter
"""
# Where somebody has to authenticate: one more smtpd. Its users are in Cyrus SASL's own file: no other server.
SUBMISSION_MAIN = """\
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {key}
smtpd_sasl_type = cyrus
smtpd_sasl_local_domain = relay.test
cyrus_sasl_config_path = {directory}/etc/sasl
"""
SUBMISSION_MASTER = """\
127.0.0.1:{submission} inet n - n - - smtpd
  -o smtpd_tls_security_level=encrypt
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
"""
SASL = """\
pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: {users}
mech_list: PLAIN
"""


def as_shipped(listen: int, sink: int, directory: Path, submission: int | None) -> list[str]:
    """The settings of a fresh installation, and those that make it a relay."""
    return _prepare(MAIN + RELAYED, listen, sink, directory, submission)


def tuned(listen: int, sink: int, directory: Path, submission: int | None) -> list[str]:
    """Tuned for throughput, though on two cores nothing gains more than the noise: count the better one."""
    return _prepare(MAIN + RELAYED + TUNED, listen, sink, directory, submission)


def by_names(listen: int, directory: Path) -> list[str]:
    """As shipped, to wherever DNS says."""
    return _prepare(MAIN + BY_NAMES, listen, 0, directory, None)


def signed(listen: int, sink: int, directory: Path, submission: int | None) -> list[str]:
    """Tuned, with OpenDKIM beside it, which signs with RSA (2048 bits)."""
    opendkim = program("opendkim")
    master = _prepare(MAIN + RELAYED + TUNED + SIGNED_MAIN, listen, sink, directory, submission)
    key, conf = directory / "etc/s1.private", directory / "etc/opendkim.conf"
    key.write_bytes(generate("rsa-sha256").pem)
    key.chmod(0o600)
    conf.write_text(OPENDKIM.format(key=key, directory=directory))
    return ["/bin/sh", "-c", BOTH.format(opendkim=opendkim, conf=conf, master=shlex.join(master))]


def _prepare(main: str, listen: int, sink: int, directory: Path, submission: int | None) -> list[str]:
    if os.geteuid() != 0:
        raise Broken("Postfix must be started by root: run as root, or leave it out with --mta ours,none")
    etc = directory / "etc"
    etc.mkdir()
    (directory / "queue").mkdir()
    main, master = main.format(directory=directory, sink=sink), MASTER.format(listen=listen)
    if submission is not None:
        certificate, key = self_signed(["relay.test"], etc / "tls")
        main += SUBMISSION_MAIN.format(certificate=certificate, key=key, directory=directory)
        master += SUBMISSION_MASTER.format(submission=submission)
        (etc / "sasl").mkdir()  # where Debian's looks, whatever cyrus_sasl_config_path says
        (etc / "sasl/smtpd.conf").write_text(SASL.format(users=_users(directory / "users.db")))
    (etc / "main.cf").write_text(main)
    (etc / "master.cf").write_text(master)
    _output("postfix", "-c", str(etc), "check")  # also makes the queue's directories, with their owners
    daemons = _output("postconf", "-c", str(etc), "-xh", "daemon_directory").strip()
    return [f"{daemons}/master", "-c", str(etc), "-s"]


def _users(users: Path) -> Path:
    """The file with the one who may submit."""
    _output("saslpasswd2", "-p", "-c", "-f", str(users), "-u", "relay.test", LOGIN, text=SECRET)
    shutil.chown(users, "postfix")
    return users


def _output(name: str, *arguments: str, text: str = "") -> str:
    argv = [program(name), *arguments]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode != 0:
        raise Broken(f"{' '.join(argv)}: {done.stdout}{done.stderr}")
    return done.stdout
