"""The control socket: commands of the operator to the running daemon, and the client for them.

Between: the command line asks with `call`; `daemon` injects the commands, name -> coroutine function.
Contract: HTTP on a unix socket of mode 0600 (whoever may open it may do everything). GET or POST /NAME with
    a JSON object of parameters, or no body at all; the answer is JSON. A command that refuses raises
    `ControlError` with words for the operator, which the client raises again; any other exception is
    logged here and told as "internal error". A request whose client went away is still carried out.
Raises: OSError from `start` (another daemon answers there, the path is no socket of ours ...);
    `ControlError` from `call`, always with words.
Standards: HTTP/1.1 (RFC 9112).
Why: we bind by ourselves, since asyncio removes any socket it finds at the path, a living daemon's too.
    The mode is set between bind and listen, while nobody can connect: there is no moment of a wider one.
"""

from __future__ import annotations

import errno
import http.client
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:  # a fifth of a second: the server needs it, the commands that only call do not
    from aiohttp import web

Command = Callable[[dict[str, Any]], Awaitable[Any]]

PATIENCE = 60.0  # seconds that the client waits for an answer
LONGEST_NAME = 107  # octets of a socket's path
SHUTDOWN = 1.0  # seconds for answers under way

_log = logging.getLogger(__name__)


class ControlError(Exception):
    """Why a command was not carried out, in words for the operator."""


class NotRunning(ControlError):
    """There is no daemon to ask."""


class Control:
    """Answers the operator's commands."""

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        self._path = path
        self._commands = commands
        self._runner: web.AppRunner | None = None
        self._bound = False

    async def start(self) -> None:
        from aiohttp import web

        application = web.Application()
        application.router.add_get("/{name:.*}", self._answer, allow_head=False)
        application.router.add_post("/{name:.*}", self._answer)
        self._runner = web.AppRunner(
            application, handle_signals=False, access_log=None, shutdown_timeout=SHUTDOWN
        )
        try:
            await self._runner.setup()
            await web.SockSite(self._runner, self._bind()).start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        if self._bound:
            # Before we stop listening: later the file might be our successor's.
            self._path.unlink(missing_ok=True)
            self._bound = False
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    def _bind(self) -> socket.socket:
        _remove_stale(self._path)
        server = socket.socket(socket.AF_UNIX)
        try:
            with _short(self._path) as name:
                server.bind(name)
            self._bound = True
            self._path.chmod(0o600)
        except BaseException:
            server.close()
            raise
        return server

    async def _answer(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        command = self._commands.get(name)
        if command is None:
            return _json(404, {"error": f"the daemon knows no command {name!r}"})
        try:
            body = await request.read() or b"{}"
            params = msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.DecodeError as error:
            return _json(400, {"error": f"the parameters are not a JSON object: {error}"})
        try:
            return _json(200, await command(params))
        except ControlError as refusal:
            return _json(409, {"error": str(refusal)})
        except Exception:
            _log.exception("command %s failed", name)
            return _json(500, {"error": "internal error; the daemon's log has the details"})


def _json(status: int, answer: object) -> web.Response:
    from aiohttp import web

    return web.Response(status=status, body=msgspec.json.encode(answer), content_type="application/json")


def _remove_stale(path: Path) -> None:
    """Make room at `path` if what stands there is a socket that nobody listens on."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "not a socket", str(path))
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            with _short(path) as name:
                probe.connect(name)
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
        return
    except BlockingIOError:
        pass  # its backlog is full: somebody is there
    raise OSError(errno.EADDRINUSE, "another daemon answers here", str(path))


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for it that a socket's address has room for, however deep the spool lies (unix(7))."""
    if len(os.fsencode(path)) <= LONGEST_NAME:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP to a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        with _short(self._path) as name:
            self.sock.connect(name)


def call(path: Path, name: str, params: Mapping[str, Any] | None = None) -> Any:
    """Have the running daemon carry out one command; its answer."""
    connection = _UnixConnection(path)
    try:
        connection.request("POST", f"/{name}", msgspec.json.encode(params or {}))
        response = connection.getresponse()
        status, body = response.status, response.read()
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotRunning(f"the daemon is not running: nobody answers at {path}") from None
    except PermissionError:
        raise ControlError(f"permission denied at {path}: run this as the daemon's user or as root") from None
    except TimeoutError:
        raise ControlError(f"the daemon gave no answer within {PATIENCE:.0f} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise ControlError(f"the connection to the daemon broke: {error!r}") from error
    finally:
        connection.close()
    return _result(status, body)


def _result(status: int, body: bytes) -> Any:
    try:
        answer = msgspec.json.decode(body)
        if status == http.client.OK:
            return answer
        raise ControlError(answer["error"])
    except (msgspec.DecodeError, TypeError, KeyError):
        # aiohttp's own refusals are plain text (413 for too large a body).
        raise ControlError(f"the daemon answered {status}: {body[:200].decode(errors='replace')}") from None
