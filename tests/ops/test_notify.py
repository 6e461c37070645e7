"""What the service manager hears."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mta.clock import SystemClock, Timer
from mta.ops.notify import Notify


class HandClock(SystemClock):
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.time = 1000.5
        self.pending: list[_Pending] = []

    def monotonic(self) -> float:
        return self.time

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        pending = _Pending(self, self.time + delay, callback)
        self.pending.append(pending)
        return pending

    def advance(self, seconds: float) -> None:
        end = self.time + seconds
        while due := [pending for pending in self.pending if pending.at <= end]:
            first = min(due, key=lambda pending: pending.at)
            self.pending.remove(first)
            self.time = first.at
            first.callback()
        self.time = end


class _Pending:
    def __init__(self, clock: HandClock, at: float, callback: Callable[[], object]) -> None:
        self.clock, self.at, self.callback = clock, at, callback

    def cancel(self) -> None:
        self.clock.pending.remove(self)


class Manager:
    """systemd's end of the line."""

    def __init__(self, address: str) -> None:
        self.line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.line.setblocking(False)
        self.line.bind(address)

    def heard(self) -> list[str]:
        datagrams = []
        try:
            while True:
                datagrams.append(self.line.recv(4096).decode())
        except BlockingIOError:
            return datagrams


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


@pytest.fixture
def manager(path: str) -> Iterator[Manager]:
    manager = Manager(path)
    yield manager
    manager.line.close()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def test_a_life_is_told_in_order(manager: Manager, path: str, clock: HandClock) -> None:
    notify = Notify({"NOTIFY_SOCKET": path}, clock)
    notify.status("repairing the spool")
    notify.ready()
    notify.reloading()
    notify.ready()
    notify.stopping()
    notify.close()
    assert manager.heard() == [
        "STATUS=repairing the spool",
        "READY=1",
        "RELOADING=1\nMONOTONIC_USEC=1000500000",
        "READY=1",
        "STOPPING=1",
    ]


def test_a_start_that_takes_long_is_not_taken_for_one_that_hangs(
    manager: Manager, path: str, clock: HandClock
) -> None:
    """An upgrade of a large spool takes minutes, and a restart would begin it anew."""
    notify = Notify({"NOTIFY_SOCKET": path}, clock)
    notify.starting()
    clock.advance(65.0)
    assert manager.heard() == ["EXTEND_TIMEOUT_USEC=30000000"] * 7
    notify.ready()
    clock.advance(65.0)
    assert manager.heard() == ["READY=1"]


def test_a_status_cannot_smuggle_in_a_second_field(manager: Manager, path: str, clock: HandClock) -> None:
    Notify({"NOTIFY_SOCKET": path}, clock).status("bad\nSTOPPING=1")
    assert manager.heard() == ["STATUS=bad STOPPING=1"]


def test_the_watchdog_is_petted_every_half_of_its_time(manager: Manager, path: str, clock: HandClock) -> None:
    environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}
    notify = Notify(environment, clock)
    clock.advance(100)
    assert manager.heard() == []  # not before we are ready
    notify.ready()
    assert manager.heard() == ["READY=1", "WATCHDOG=1"]
    clock.advance(29.9)
    assert manager.heard() == []
    clock.advance(0.2)
    assert manager.heard() == ["WATCHDOG=1"]
    notify.ready()  # the end of a reload begins no second round
    clock.advance(60)
    assert manager.heard() == ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]
    notify.close()
    clock.advance(600)
    assert manager.heard() == []


@pytest.mark.parametrize(
    "watchdog",
    [
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"},
    ],
    ids=["off", "nonsense", "negative", "of another process"],
)
def test_a_watchdog_that_is_not_ours_is_not_petted(
    manager: Manager, path: str, clock: HandClock, watchdog: dict[str, str]
) -> None:
    notify = Notify({"NOTIFY_SOCKET": path, **watchdog}, clock)
    notify.ready()
    assert manager.heard() == ["READY=1"]
    assert clock.pending == []


def test_an_abstract_socket_is_reached(clock: HandClock) -> None:
    name = f"mta-test-{os.getpid()}"
    manager = Manager(f"\0{name}")
    Notify({"NOTIFY_SOCKET": f"@{name}"}, clock).ready()
    assert manager.heard() == ["READY=1"]
    manager.line.close()


def test_without_a_service_manager_nothing_is_said(clock: HandClock) -> None:
    notify = Notify({"WATCHDOG_USEC": "60000000"}, clock)
    notify.ready()
    notify.stopping()
    notify.close()
    assert clock.pending == []


@pytest.mark.parametrize("address", ["/nowhere/at/all", "/a\0b", "vsock:2:1234"])
def test_a_manager_that_cannot_be_reached_stops_nobody(
    clock: HandClock, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    Notify({"NOTIFY_SOCKET": address}, clock).ready()
    assert "cannot notify" in caplog.text


def test_a_manager_that_does_not_read_holds_nobody_up(manager: Manager, path: str, clock: HandClock) -> None:
    notify = Notify({"NOTIFY_SOCKET": path}, clock)
    for _ in range(1000):  # far more than its queue holds (net.unix.max_dgram_qlen)
        notify.ready()
    assert manager.heard()
