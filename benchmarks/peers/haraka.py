"""A private Haraka that relays everything to one port: a rival.

Between: `relay` starts the command that this returns like any other MTA's; `full` asks whether it is there.
Contract: settings, queue and a plugin of three lines live in the given directory; the log is what it prints.
Raises: Broken when Haraka is missing, or somebody has to authenticate.
Why: mail goes through its outbound queue, a synced file for each message: what its `smtp_forward` does holds
    the client until the sink has answered, and keeps nothing. Tuned: a worker for each processor, fewer
    deliveries at once, fewer log lines; with one worker, as shipped, it is a fifth slower. It looks up
    the client's name unless a plugin does; here nobody looks up a name.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.process import PATH, PATIENCE, Broken

PREFIX = Path(os.environ.get("HARAKA_PREFIX", "/opt/haraka"))  # as npm was told where to install it

# These replace files of a fresh installation; what is not here is as Haraka ships it.
CONFIG = {
    "me": "relay.test\n",
    "smtp.ini": "listen=127.0.0.1:{listen}\nnodes=cpus\n",
    "outbound.ini": "enable_tls=false\nconcurrency_max=50\n",
    "log.ini": "[main]\nlevel=warn\nformat=default\n",
    "plugins": "open_relay\n",
}
OPEN_RELAY = """\
exports.hook_lookup_rdns = (next) => next(OK, 'localhost')
exports.hook_connect = (next, connection) => { connection.relaying = true; next() }
exports.hook_get_mx = (next) => next(OK, { exchange: '127.0.0.1', port: %d })
"""


def executable() -> str:
    """Where Haraka is."""
    path = os.pathsep.join([str(PREFIX / "node_modules/.bin"), PATH])
    if (found := shutil.which("haraka", path=path)) is None:
        raise Broken(f"haraka is missing: npm install --prefix {PREFIX} Haraka")
    return found


def tuned(listen: int, sink: int, directory: Path, submission: int | None) -> list[str]:
    """An open relay for loopback."""
    if submission is not None:
        raise Broken("nobody has taught Haraka to authenticate here: leave it out of W5")
    haraka = executable()
    argv = [haraka, "-i", str(directory)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode != 0:
        raise Broken(f"{' '.join(argv)}: {done.stdout}{done.stderr}")
    for name, text in CONFIG.items():
        (directory / "config" / name).write_text(text.format(listen=listen))
    (directory / "plugins/open_relay.js").write_text(OPEN_RELAY % sink)
    return [haraka, "-c", str(directory)]
