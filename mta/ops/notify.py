"""Tells the service manager how we are, and pets its watchdog.

Between: `daemon` says starting, ready, reloading, stopping; systemd listens at NOTIFY_SOCKET.
Contract: the environment is handed in. Without NOTIFY_SOCKET every call does nothing. One datagram a
    notification, never waiting. The first `ready` starts the watchdog, which says WATCHDOG=1 from the loop
    every half of WATCHDOG_USEC until `close`: a loop that hangs is what it is there to find.
Raises: nothing; a datagram that cannot be sent is logged.
Standards: sd_notify(3) (EXTEND_TIMEOUT_USEC while a start brings a large spool up), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

from mta.clock import Clock, Every, Timer

EXTEND = 10.0  # seconds between two words that a start goes on; each asks for three times as many

_log = logging.getLogger(__name__)


class Notify:
    """Our line to the service manager."""

    def __init__(self, environment: Mapping[str, str], clock: Clock) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._interval = _watchdog_interval(environment)
        self._clock = clock
        self._more = f"EXTEND_TIMEOUT_USEC={int(3 * EXTEND * 1e6)}"
        self._extend = Every(clock, EXTEND, lambda: self._send(self._more), _log.exception)
        self._timer: Timer | None = None

    def starting(self) -> None:
        """A start that has much to bring up is not to be taken for one that hangs: `ready` ends it."""
        if self._address:
            self._send(self._more)
            self._extend.start()

    def ready(self) -> None:
        """Everything is started (or reloaded)."""
        self._extend.stop()
        self._send("READY=1")
        if self._address and self._interval and self._timer is None:
            self._pet()

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        # systemd takes the READY=1 that follows for this reload only if the stamp is CLOCK_MONOTONIC's.
        self._send(f"RELOADING=1\nMONOTONIC_USEC={int(self._clock.monotonic() * 1e6)}")

    def stopping(self) -> None:
        """The drain begins. The watchdog goes on: a drain may hang, too."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send("STATUS=" + " ".join(text.split()))  # a line feed would begin another field

    def close(self) -> None:
        self._extend.stop()
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _pet(self) -> None:
        self._send("WATCHDOG=1")
        self._timer = self._clock.call_later(self._interval, self._pet)

    def _send(self, state: str) -> None:
        if not self._address:
            return
        # "@" stands for the NUL of an abstract socket.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
                line.setblocking(False)
                line.sendto(state.encode(errors="replace"), address)
        except (OSError, ValueError) as error:  # ValueError: a NUL inside a path
            _log.warning("cannot notify %s: %s", self._address, error)


def _watchdog_interval(environment: Mapping[str, str]) -> float:
    """Half of the time that the watchdog allows, in seconds; 0 where there is none for this process."""
    allowed = environment.get("WATCHDOG_USEC", "")
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0  # inherited: it is our parent's
    return int(allowed) / 2e6 if allowed.isascii() and allowed.isdecimal() else 0.0
