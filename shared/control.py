"""The control door: a Unix socket in the state directory through which the command line talks to the running daemon.

Never TCP. The socket is 0600, and the kernel says who is at the other end: only the daemon's own user and root are
answered. Requests and answers are JSON; faults are problem objects (RFC 9457).

    async def status(request: ControlRequest) -> dict[str, Any]: ...

    server = ControlServer(state_dir / "control.sock", {("GET", "/v1/status"): status})
    await server.start()
    answer = await control_request(state_dir / "control.sock", "GET", "/v1/status")
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
from aiohttp import web

from shared.cli import to_json
from shared.exits import CommandError, ExitCode
from shared.logs import get_logger
from shared.peer import peer_uid

CONTROL_SOCKET: Final = "control.sock"
"""Its name in the program's state_dir."""

MAX_PATH: Final = 107
"""Bytes of a Unix socket's path: sun_path holds 108 with its end (unix(7))."""

MAX_BODY: Final = 1 << 20
_EXIT_CODES: Final = {404: ExitCode.NOT_FOUND, 403: ExitCode.REFUSED, 409: ExitCode.REFUSED, 400: ExitCode.USAGE}

log = get_logger("control")


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """What a handler gets: the variable parts of the path, the query, and the JSON body (None without one)."""

    params: Mapping[str, str]
    query: Mapping[str, str]
    body: Any


WebHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Handler = Callable[[ControlRequest], Awaitable[Mapping[str, Any]]]
Routes = Mapping[tuple[str, str], Handler]
"""Handlers by method and path; a path may have variable parts, as /v1/connectors/{name}."""


class ControlFault(Exception):
    """Raised by a handler: the command ends with this message. 404 is exit code 4, 403 and 409 are 5, others 1."""

    def __init__(
        self, status: int, code: str, message: str, remedy: str = "", detail: str = "", exit_code: int | None = None
    ) -> None:
        """`exit_code` is the command's where the status alone does not say it; `detail` is shown with the message."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.remedy = remedy
        self.detail = detail
        self.exit_code = exit_code


class ControlUnreachable(CommandError):
    """Nobody answers at the control socket."""

    def __init__(self, path: Path, cause: str) -> None:
        super().__init__(
            ExitCode.UNREACHABLE,
            f"the daemon does not answer at {path}: {cause}",
            "Look whether it runs, whether this is its state_dir, and whether you are its user or root.",
        )


def as_command_error(fault: ControlFault) -> CommandError:
    """What a command ends with that has met this fault without a daemon in between."""
    exit_code = _EXIT_CODES.get(fault.status, ExitCode.FAILED) if fault.exit_code is None else ExitCode(fault.exit_code)
    return CommandError(exit_code, fault.message, fault.remedy, fault.code)


def as_control_fault(error: CommandError) -> ControlFault:
    """What a handler raises so that the command which asked ends with this very fault."""
    detail = str(error.extra.get("detail", ""))
    return ControlFault(409, error.code, error.message, error.remedy, detail, int(error.exit_code))


class ControlServer:
    """Serves `routes` at the Unix socket `path`; running handlers get `grace` seconds at the end."""

    def __init__(self, path: Path, routes: Routes, grace: float = 2.0, inherited: socket.socket | None = None) -> None:
        """`inherited` already listens at `path`: it is taken rather than bound, and its path stays until `own`."""
        self._path = path
        self._routes = routes
        self._grace = grace
        self._inherited = inherited
        self._runner: web.AppRunner | None = None
        self._site: web.SockSite | None = None
        self._listener: socket.socket | None = None
        self._socket_id: tuple[int, int] | None = None
        self._bound_id: tuple[int, int] | None = None

    @property
    def socket(self) -> socket.socket:
        """What listens. Not the caller's own."""
        if self._listener is None:
            raise RuntimeError("not started")
        return self._listener

    async def start(self) -> None:
        """Listen. CommandError if another daemon answers there, or if the path cannot be used."""
        self._listener = self._inherited or bind_socket(self._path)
        self._bound_id = _identity(self._path)
        if self._inherited is None:
            self.own()
        app = web.Application(client_max_size=MAX_BODY, middlewares=[_guard])
        for (method, url), handler in self._routes.items():
            app.router.add_route(method, url, _adapt(handler))
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=self._grace)
        await self._runner.setup()
        await self.resume()

    def own(self) -> None:
        """The socket's path ends with this server."""
        self._socket_id = _identity(self._path)

    def disown(self) -> None:
        """The socket's path is another process's from now on."""
        self._socket_id = None

    async def reclaim(self) -> None:
        """Listen again, and have the path again, which whoever had it may have removed. CommandError as `start`."""
        if _identity(self._path) != self._bound_id:
            self.socket.close()
            self._listener = bind_socket(self._path)
            self._bound_id = _identity(self._path)
        self.own()
        await self.resume()

    async def resume(self) -> None:
        """Listen, at first or again."""
        if self._runner is not None and self._site is None:
            # A site closes its socket when it ends; this process may want to listen again, as may who inherits it.
            self._site = web.SockSite(self._runner, self.socket.dup())
            await self._site.start()

    async def pause(self) -> None:
        """Take no more requests, until `resume`; those under way go on, and new ones wait for whoever listens next."""
        site, self._site = self._site, None
        if site is not None:
            await site.stop()

    async def close(self) -> None:
        """Stop listening, let running handlers end, and remove the socket if it is still ours."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        if self._runner is not None:
            if self._socket_id is not None and _identity(self._path) == self._socket_id:
                self._path.unlink(missing_ok=True)
            await self._runner.cleanup()
            self._runner = None


async def control_request(
    path: Path, method: str, url: str, json: Any = None, patience: float = 30.0
) -> dict[str, Any]:
    """One request to the daemon, answered within `patience` seconds.

    Raises:
        ControlUnreachable: nobody answers there, or what answers is not ours.
        CommandError: the daemon refuses; its message, code and remedy, with an exit code that fits.
    """
    check_path(path)
    limits = aiohttp.ClientTimeout(total=patience, sock_connect=5.0)
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path)), timeout=limits) as session,
            session.request(method, f"http://control{url}", json=json) as response,
        ):
            status, answer = response.status, await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise ControlUnreachable(path, _cause(error)) from error
    if not isinstance(answer, dict):
        raise ControlUnreachable(path, "its answer is not one of ours")
    if status >= 400:
        exit_code = _EXIT_CODES.get(status, ExitCode.FAILED)
        if isinstance(told := answer.get("exit_code"), int) and told in {int(one) for one in ExitCode}:
            exit_code = ExitCode(told)
        message, remedy, code = (str(answer.get(key, "")) for key in ("title", "remedy", "code"))
        extra = {"detail": str(answer["detail"])} if answer.get("detail") else {}
        raise CommandError(exit_code, message or f"the daemon answered {status}", remedy, code, **extra)
    return answer


def check_path(path: Path) -> None:
    """CommandError if the path is longer than the system takes for a Unix socket."""
    size = len(os.fsencode(path))
    if size > MAX_PATH:
        raise CommandError(
            ExitCode.CONFIG,
            f"the path of the control socket has {size} bytes, the system takes at most {MAX_PATH}: {path}",
            "Choose a shorter state_dir.",
        )


def bind_socket(path: Path) -> socket.socket:
    """A bound Unix socket, 0600, in a directory made with 0700 if it is missing. A dead daemon's is replaced."""
    check_path(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_stale(path)
        mask = os.umask(0o177)  # so that the socket never exists with wider permissions, not even for a moment
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(mask)
    except CommandError:
        listener.close()
        raise
    except OSError as error:
        listener.close()
        raise CommandError(ExitCode.FAILED, f"cannot make the control socket {path}: {error.strerror}") from error
    return listener


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody answers on; CommandError if somebody does, or if it is no socket."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise CommandError(ExitCode.REFUSED, f"{path} is there and is no socket", "Move it out of the way.")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as error:  # it may be alive: a full backlog, or another user's
            raise _already_running(path, error.strerror or "it does not answer in time") from error
    raise _already_running(path, "it answers")


def _already_running(path: Path, reason: str) -> CommandError:
    message = f"another daemon seems to use {path.parent} ({reason} at {path.name})"
    remedy = "Stop it first, or give this one another state_dir."
    return CommandError(ExitCode.REFUSED, message, remedy, "already-running")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@web.middleware
async def _guard(request: web.Request, handler: WebHandler) -> web.StreamResponse:
    """Turns away other users, and turns every fault into a problem object."""
    try:
        if peer_uid(request.transport) not in (os.geteuid(), 0):
            raise ControlFault(403, "wrong-user", "only the daemon's own user and root may control it")
        return await handler(request)
    except ControlFault as fault:
        return _problem(fault)
    except web.HTTPException as error:
        message = f"{request.method} {request.path}: {error.reason}"
        return _problem(ControlFault(error.status, "bad-control-request", message))
    except Exception:  # a bug in one handler must not take the door down
        log.exception("a control request failed", method=request.method, path=request.path)
        return _problem(ControlFault(500, "internal-error", "the daemon failed on this request; its log says how"))


def _adapt(handler: Handler) -> WebHandler:
    async def handle(request: web.Request) -> web.StreamResponse:
        body = None
        if request.can_read_body:
            try:
                body = orjson.loads(await request.read())
            except ValueError as error:
                raise ControlFault(400, "bad-control-request", "the body is not JSON") from error
        answer = await handler(ControlRequest(dict(request.match_info), dict(request.query), body))
        return web.Response(text=to_json(answer), content_type="application/json")

    return handle


def _problem(fault: ControlFault) -> web.Response:
    members: dict[str, Any] = {"type": f"urn:qanat:error:{fault.code}", "title": fault.message}
    members |= {"status": fault.status, "code": fault.code}
    if fault.remedy:
        members["remedy"] = fault.remedy
    if fault.detail:
        members["detail"] = fault.detail
    if fault.exit_code is not None:
        members["exit_code"] = fault.exit_code
    return web.Response(status=fault.status, text=to_json(members), content_type="application/problem+json")


def _cause(error: Exception) -> str:
    inner = getattr(error, "os_error", error)
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    if isinstance(inner, FileNotFoundError):
        return "there is no socket"
    if isinstance(inner, ConnectionRefusedError):
        return "nobody listens there"
    return (inner.strerror if isinstance(inner, OSError) else None) or str(error) or type(error).__name__
