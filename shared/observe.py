"""The observe door: `/healthz`, `/readyz` and `/metrics`, and nothing else, on a listener of its own.

`/healthz` answers while the event loop turns. `/readyz` answers 200 or 503, with what is behind it as JSON. Both are
for load balancers and orchestrators; people ask `status` at the control door.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import http_parser, web

from shared.cli import to_json
from shared.config import Listen
from shared.listeners import Inherited, open_sockets
from shared.logs import get_logger

MAX_LINE: Final = 2048
MAX_CONNECTIONS: Final = 64
"""A load balancer and a few scrapers. Whoever opens more ends the oldest one."""

IDLE: Final = 75.0
"""Seconds until a connection that waits for its next request is closed; Prometheus scrapes every 15 to 60."""

NAME: Final = "observe.listen"
"""What its sockets are called when they are passed on."""

_BACKLOG: Final = 128
_TEXT: Final = "text/plain; charset=utf-8"
_METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = get_logger("observe")


@dataclass(frozen=True, slots=True)
class HealthReport:
    """Whether this process can work, and what that rests on (JSON-able; no internal addresses on the relay's side)."""

    ready: bool
    detail: dict[str, Any] = field(default_factory=dict)


class ObserveServer:
    """Serves health and metrics at `listen`; both are asked for when somebody looks."""

    def __init__(
        self,
        listen: Listen,
        health: Callable[[], HealthReport],
        metrics: Callable[[], bytes | Awaitable[bytes]],
        inherited: Inherited | None = None,
    ) -> None:
        self._listen = listen
        self._inherited = inherited
        self._health = health
        self._metrics = metrics
        self._runner: web.AppRunner | None = None
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._is_paused = False

    @property
    def port(self) -> int:
        """The port that is listened on, also where 0 was asked for."""
        if not self._sockets:
            raise RuntimeError("not started")
        return int(self._sockets[0].getsockname()[1])

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """What listens. Not the caller's own."""
        return tuple(self._sockets)

    async def start(self) -> None:
        """Listen. OSError if the address is taken; RuntimeError where aiohttp lacks its C parser."""
        if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
            raise RuntimeError("aiohttp runs without its C parser here; install it from a wheel")
        app = web.Application(client_max_size=1024, middlewares=[_faults])
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._render)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            keepalive_timeout=IDLE,
            lingering_time=1.0,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            shutdown_timeout=1.0,
        )
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._sockets = await open_sockets(
            loop, self._listen.host or None, self._listen.port, self._inherited, NAME, _BACKLOG
        )  # fmt: skip
        await self.resume()

    async def resume(self) -> None:
        """Accept, at first or again."""
        loop = asyncio.get_running_loop()
        self._is_paused = False
        # A server closes its socket when it ends; this process may want to listen again, as may who inherits it.
        for sock in self._sockets:
            self._servers.append(await loop.create_server(self._accept, sock=sock.dup(), backlog=_BACKLOG))

    def pause(self) -> None:
        """Accept no more, until `resume`; the port stays open, and whoever else holds it may accept.

        Connections that are kept end with their next answer.
        """
        self._is_paused = True
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()

    def stop_listening(self) -> None:
        """Close the port. Connections that are kept end with their next answer."""
        self.pause()
        sockets, self._sockets = self._sockets, []
        for sock in sockets:
            sock.close()

    async def close(self) -> None:
        """Stop listening and close every connection."""
        self.stop_listening()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _accept(self) -> asyncio.Protocol:
        """A protocol for one more connection. Beyond the limit the oldest ends: idle ones cannot lock the door."""
        server = self._runner.server if self._runner is not None else None
        if server is None:
            raise RuntimeError("not started")
        if len(connections := server.connections) >= MAX_CONNECTIONS:
            connections[0].force_close()
        return server()

    async def _healthz(self, _request: web.Request) -> web.Response:
        return self._answer(web.Response(body=b"ok\n", headers={"Content-Type": _TEXT}))

    async def _readyz(self, _request: web.Request) -> web.Response:
        report = self._health()
        body = to_json({"schema": "qanat.readiness.v1", "ready": report.ready, **report.detail})
        status = 200 if report.ready else 503
        return self._answer(web.Response(status=status, text=body, content_type="application/json"))

    async def _render(self, _request: web.Request) -> web.Response:
        metrics = self._metrics()
        body = metrics if isinstance(metrics, bytes) else await metrics
        return self._answer(web.Response(body=body, headers={"Content-Type": _METRICS}))

    def _answer(self, response: web.Response) -> web.Response:
        if self._is_paused:
            response.force_close()
        return response


@web.middleware
async def _faults(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every fault becomes a short text; a bug is logged here and not shown there."""
    response = await _answer(request, handler)
    response.headers["Server"] = "qanat"
    return response


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        headers = {"Content-Type": _TEXT} | ({"Allow": "GET, HEAD"} if error.status == 405 else {})
        return web.Response(status=error.status, body=f"{error.reason}\n".encode(), headers=headers)
    except Exception:  # a bug in one gauge must not take the door down
        log.exception("a request to the observe door failed", path=request.path)
        return web.Response(status=500, body=b"failed; the log says how\n", headers={"Content-Type": _TEXT})
