"""A private Exim that relays everything to one port: a rival.

Between: `relay` starts the command that this returns like any other MTA's; `full` asks whether it is there.
Contract: settings, spool and log live in the given directory; the system's own Exim is not touched.
Raises: Broken when Exim is missing or does not run, we are not root (it changes users), or somebody has to
    authenticate.
Why: Debian's 4.96 holds its answer to QUIT back for 0.2 s, until the client has gone, and no setting changes
    that: a client that waits for it, as ours does, gets five connections a second for each session.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.process import PATH, PATIENCE, Broken

UNPACKED = Path("/opt/exim")  # beside Postfix, where Debian installs only one of them
INSTALL = "benchmarks/README.md says how to unpack it beside Postfix"

# What is not here is as Exim ships it. Delivering with no more rights than it receives with is for hosts that
# only relay: it saves an exec a message. The limits are lifted because all that comes here comes from one
# client: of each connection only ten messages would be delivered before the next run of the queue.
CONFIG = """\
primary_hostname = relay.test
spool_directory = {directory}/spool
log_file_path = {directory}/spool/%s.log
exim_path = {executable}
keep_environment =
local_interfaces = 127.0.0.1
daemon_smtp_ports = {listen}
tls_advertise_hosts =
acl_smtp_rcpt = accept
deliver_drop_privilege = true
smtp_accept_max = 200
smtp_accept_max_per_connection = 0
smtp_accept_queue_per_connection = 0
begin routers
sink:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = sink
begin transports
sink:
  driver = smtp
  port = {sink}
begin retry
* * F,2h,15m; G,16h,1h,1.5; F,4d,6h
"""


def executable() -> str:
    """Where Exim is: a file alone is not enough, it needs libraries and a user."""
    path = os.pathsep.join([PATH, str(UNPACKED / "usr/sbin")])
    if (found := shutil.which("exim4", path=path)) is None:
        raise Broken(f"exim4 is missing: {INSTALL}")
    argv = [found, "-C", "/dev/null", "-bV"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode != 0:
        raise Broken(f"{found} does not run: {done.stderr.strip()}; {INSTALL}")
    return found


def relaying(listen: int, sink: int, directory: Path, submission: int | None) -> list[str]:
    """An open relay for loopback."""
    if submission is not None:
        raise Broken("nobody has taught Exim to authenticate here: leave it out of W5")
    if os.geteuid() != 0:
        raise Broken("Exim must be started by root: run as root, or leave it out of --mta")
    exim, config = executable(), directory / "exim.conf"
    config.write_text(CONFIG.format(directory=directory, executable=exim, listen=listen, sink=sink))
    return [exim, "-C", str(config), "-bdf"]
