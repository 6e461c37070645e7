"""The control socket, from both ends."""

from __future__ import annotations

import asyncio
import logging
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from mta.api.control import Control, ControlError, call


async def _echo(params: dict[str, Any]) -> Any:
    return {"got": params}


async def _refuse(params: dict[str, Any]) -> Any:
    raise ControlError("no such message: X")


async def _break(params: dict[str, Any]) -> Any:
    raise RuntimeError("password=hunter2")


async def _unspeakable(params: dict[str, Any]) -> Any:
    return object()


COMMANDS = {"echo": _echo, "queue/hold": _refuse, "break": _break, "unspeakable": _unspeakable}


async def ask(path: Path, name: str, params: dict[str, Any] | None = None) -> Any:
    return await asyncio.to_thread(call, path, name, params)


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[Path]:
    control = Control(tmp_path / "control", COMMANDS)
    await control.start()
    yield tmp_path / "control"
    await control.stop()


async def raw(path: Path, request: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


async def test_a_command_gets_its_parameters_and_its_answer_comes_back(control: Path) -> None:
    assert await ask(control, "echo", {"queue_id": "A1", "n": 3}) == {"got": {"queue_id": "A1", "n": 3}}
    assert await ask(control, "echo") == {"got": {}}


async def test_only_the_owner_may_connect(control: Path) -> None:
    assert stat.S_IMODE((await asyncio.to_thread(control.stat)).st_mode) == 0o600


async def test_a_refusal_reaches_the_operator_in_its_own_words(control: Path) -> None:
    with pytest.raises(ControlError, match=r"^no such message: X$"):
        await ask(control, "queue/hold")


@pytest.mark.parametrize("name", ["break", "unspeakable"])
async def test_a_bug_is_logged_here_and_told_without_internals(
    control: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(ControlError) as told:
        await ask(control, name)
    assert str(told.value).startswith("internal error")
    assert f"command {name} failed" in caplog.text
    assert await ask(control, "echo") == {"got": {}}


async def test_an_unknown_command_is_named(control: Path) -> None:
    with pytest.raises(ControlError, match="no command 'destroy'"):
        await ask(control, "destroy")


async def test_get_without_a_body_is_a_command_without_parameters(control: Path) -> None:
    answer = await raw(control, b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.endswith(b'{"got":{}}')


@pytest.mark.parametrize("body", [b"[1]", b"{", b"\xff"])
async def test_parameters_that_are_no_object_are_refused(control: Path, body: bytes) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    answer = await raw(control, head + body)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"not a JSON object" in answer


async def test_too_many_parameters_are_refused_in_words(control: Path) -> None:
    with pytest.raises(ControlError, match="413"):
        await ask(control, "echo", {"addresses": "x" * 1024 * 1024})


async def test_a_head_request_runs_nothing(control: Path) -> None:
    answer = await raw(control, b"HEAD /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 405 ")


def test_a_daemon_that_is_not_running_is_named_so(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="not running"):
        call(tmp_path / "control", "echo")
    _leave_stale(tmp_path / "control")
    with pytest.raises(ControlError, match="not running"):
        call(tmp_path / "control", "echo")


async def test_a_daemon_that_dies_over_a_command_is_told(tmp_path: Path) -> None:
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_unix_server(die, tmp_path / "control"):
        with pytest.raises(ControlError, match="broke"):
            await ask(tmp_path / "control", "echo")


def _leave_stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


async def test_the_socket_of_a_killed_daemon_is_replaced(tmp_path: Path) -> None:
    _leave_stale(tmp_path / "control")
    control = Control(tmp_path / "control", COMMANDS)
    await control.start()
    assert await ask(tmp_path / "control", "echo") == {"got": {}}
    await control.stop()
    assert not (tmp_path / "control").exists()


async def test_the_socket_of_a_living_daemon_is_left_alone(control: Path) -> None:
    second = Control(control, {})
    with pytest.raises(OSError, match="another daemon answers"):
        await second.start()
    assert await ask(control, "echo") == {"got": {}}


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "control").write_text("dear diary")
    with pytest.raises(FileExistsError, match="not a socket"):
        await Control(tmp_path / "control", {}).start()
    assert (tmp_path / "control").read_text() == "dear diary"


def test_it_serves_on_uvloop_as_well(tmp_path: Path) -> None:
    async def run() -> Any:
        control = Control(tmp_path / "control", COMMANDS)
        await control.start()
        try:
            return await ask(tmp_path / "control", "echo", {"a": 1})
        finally:
            await control.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(run()) == {"got": {"a": 1}}
    assert not (tmp_path / "control").exists()


async def test_a_spool_deep_down_has_a_control_socket_too(tmp_path: Path) -> None:
    path = tmp_path.joinpath("deep" * 20, "deeper" * 20, "control")
    path.parent.mkdir(parents=True)
    control = Control(path, COMMANDS)
    await control.start()
    assert await ask(path, "echo") == {"got": {}}
    with pytest.raises(OSError, match="another daemon answers here"):
        await Control(path, COMMANDS).start()
    await control.stop()
    assert not path.exists()
    with pytest.raises(ControlError, match="the daemon is not running"):
        await ask(path, "echo")
