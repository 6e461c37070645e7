"""The admin HTTP listener: /metrics, /healthz, /readyz, and / that names them to people.

Between: `daemon` starts and stops it and hands in the reasons for not being ready; monitoring asks.
Contract: `endpoint` is the bound one after `start` (port 0 is allowed). /healthz says 200 for as long as the
    loop turns; /readyz says 503 with one failing reason a line; nothing here changes anything. At most
    `CONNECTIONS` are open, and none for longer than `SILENCE` seconds without a request that was answered. On
    a loopback address it answers to a number, to localhost and to our own name only: a page in the operator's
    browser must not reach it by a name that leads here.
Raises: OSError from `start` if the address cannot be bound; nothing is left open then.
Standards: Prometheus text format and OpenMetrics, as the client asks for.
"""

from __future__ import annotations

import asyncio
import html
import os
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client.aiohttp import make_aiohttp_handler

from mta.clock import Clock, Every
from mta.config.settings import Endpoint
from mta.metrics import Metrics

SHUTDOWN = 1.0  # seconds for answers under way; a scrape takes milliseconds
CONNECTIONS = 64
SILENCE = 120.0  # seconds; a scrape is more frequent
SWEEP = 15.0  # seconds
MAKING = 1.0  # seconds in which a connection that is not open is on its way to be, not over

PAGES = {
    "/metrics": "what Prometheus collects",
    "/healthz": "ok for as long as the daemon turns",
    "/readyz": "ok, or each reason why it cannot do all of its work",
}
PAGE = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>mta at {name}</title>
<h1>mta at {name}</h1>
<p>{state}</p>
<ul>
{links}</ul>
</html>
"""


class Admin:
    """Answers monitoring."""

    def __init__(
        self,
        bind: Endpoint,
        metrics: Metrics,
        reasons: Callable[[], Sequence[str]],
        clock: Clock,
        hostname: str,
    ) -> None:
        self.endpoint = bind
        self._names = {"localhost", hostname, bind.host} if bind.is_loopback else None
        self._hostname = hostname
        self._metrics = metrics
        self._clock = clock
        self._spoke: dict[web.RequestHandler, float] = {}  # monotonic; made, or last answered
        self._sweeps = Every(clock, SWEEP, self._sweep, partial(metrics.bug, "api", "a bug in admin"))
        self._server: asyncio.Server | None = None
        self._reasons = reasons
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        application = web.Application(middlewares=[self._watch])
        application.router.add_get("/", self._index)
        application.router.add_get("/metrics", make_aiohttp_handler(self._metrics.registry))
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        self._runner = web.AppRunner(
            application, handle_signals=False, access_log=None, shutdown_timeout=SHUTDOWN
        )
        try:
            await self._runner.setup()
            host, port = self.endpoint
            self._server = await asyncio.get_running_loop().create_server(self._admit, host, port)
        except BaseException as error:
            await self.stop()
            if isinstance(error, OSError) and error.errno:  # the loops' words name no purpose
                at = f"{self.endpoint.host} port {self.endpoint.port}"
                words = f"cannot listen at {at} (admin.bind): {os.strerror(error.errno)}"
                raise OSError(error.errno, words) from error
            raise
        host, port = self._server.sockets[0].getsockname()[:2]
        self.endpoint = Endpoint(host, port)
        self._sweeps.start()

    async def stop(self) -> None:
        self._sweeps.stop()
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    def _admit(self) -> web.RequestHandler:
        """One more connection; of too many the one goes that has been silent for longest."""
        assert self._runner is not None
        assert self._runner.server is not None
        if len(self._spoke) >= CONNECTIONS:
            self._sweep(CONNECTIONS - 1)
        made = self._runner.server()
        self._spoke[made] = self._clock.monotonic()
        return made

    def _sweep(self, most: int = CONNECTIONS) -> None:
        """Those that are over are forgotten, those that say nothing are cut, and those over `most`."""
        assert self._runner is not None
        assert self._runner.server is not None
        now, is_open = self._clock.monotonic(), set(self._runner.server.connections)
        for handler, since in sorted(self._spoke.items(), key=lambda item: item[1]):
            if handler not in is_open and now - since > MAKING:
                del self._spoke[handler]
            elif now - since > SILENCE or len(self._spoke) > most:
                del self._spoke[handler]
                if handler.transport is not None:
                    handler.transport.abort()

    @web.middleware
    async def _watch(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._names is not None and not self._is_ours(request.headers.get("Host", "")):
            words = "Nothing here has that name: ask for it by its address, or as localhost\n"
            return web.Response(status=421, text=words)  # RFC 9110 15.5.20
        try:
            answer = await handler(request)
            self._spoke[request.protocol] = self._clock.monotonic()
            return answer
        except web.HTTPException:
            raise  # 404 and its like
        except Exception:
            self._metrics.bugs["api"].inc()
            raise  # aiohttp logs it and answers a 500 without internals

    def _is_ours(self, host: str) -> bool:
        """Was it us that the client meant? HTTP/1.0 need not say."""
        assert self._names is not None
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return not host or name in self._names or bool(ip_address(name))
        except ValueError:
            return False

    async def _index(self, request: web.Request) -> web.Response:
        links = "".join(
            f'<li><a href="{page}">{page}</a>: {html.escape(words)}</li>\n' for page, words in PAGES.items()
        )
        state = html.escape("; ".join(self._reasons()) or "It is ready.")
        page = PAGE.format(name=html.escape(self._hostname), state=state, links=links)
        return web.Response(
            text=page, content_type="text/html", headers={"Content-Security-Policy": "default-src 'none'"}
        )

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        reasons = self._reasons()
        if not reasons:
            return web.Response(text="ok\n")
        return web.Response(status=503, text="".join(f"{reason}\n" for reason in reasons))
