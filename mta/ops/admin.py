"""The admin HTTP listener: /metrics, /healthz, /readyz.

Between: `daemon` starts and stops it and hands in the reasons for not being ready; monitoring asks.
Contract: `endpoint` is the bound one after `start` (port 0 is allowed). /healthz says 200 for as long as the
    loop turns; /readyz says 503 with one failing reason a line; nothing here changes anything.
Raises: OSError from `start` if the address cannot be bound; nothing is left open then.
Standards: Prometheus text format and OpenMetrics, as the client asks for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client.aiohttp import make_aiohttp_handler

from mta.config.settings import Endpoint
from mta.metrics import Metrics

SHUTDOWN = 1.0  # seconds for answers under way; a scrape takes milliseconds


class Admin:
    """Answers monitoring."""

    def __init__(self, bind: Endpoint, metrics: Metrics, reasons: Callable[[], Sequence[str]]) -> None:
        self.endpoint = bind
        self._metrics = metrics
        self._reasons = reasons
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        application = web.Application(middlewares=[self._count_bugs])
        application.router.add_get("/metrics", make_aiohttp_handler(self._metrics.registry))
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        self._runner = web.AppRunner(
            application, handle_signals=False, access_log=None, shutdown_timeout=SHUTDOWN
        )
        try:
            await self._runner.setup()
            await web.TCPSite(self._runner, self.endpoint.host, self.endpoint.port).start()
        except BaseException as error:
            await self.stop()
            if isinstance(error, OSError) and error.errno:  # the loops' words name no purpose
                at = f"{self.endpoint.host} port {self.endpoint.port}"
                words = f"cannot listen at {at} (admin.bind): {os.strerror(error.errno)}"
                raise OSError(error.errno, words) from error
            raise
        host, port = self._runner.addresses[0][:2]
        self.endpoint = Endpoint(host, port)

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    @web.middleware
    async def _count_bugs(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException:
            raise  # 404 and its like
        except Exception:
            self._metrics.bugs["ops"].inc()
            raise  # aiohttp logs it and answers a 500 without internals

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        reasons = self._reasons()
        if not reasons:
            return web.Response(text="ok\n")
        return web.Response(status=503, text="".join(f"{reason}\n" for reason in reasons))
