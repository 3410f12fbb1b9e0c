"""What the command line may ask of either program, at its control socket.

GET  /v1/status    everything that `status` shows
GET  /v1/process   what the process is and may use: descriptors, memory, limits
GET  /v1/diag      that, with status, metrics, tasks and recent warnings: what `diag` puts into its archive
POST /v1/reload    read the config again; 409 with the problems when it is not taken; exit code 3 if it is not good
POST /v1/drain     as SIGTERM: drain, then end
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from shared.control import ControlFault, ControlRequest, Routes
from shared.exits import ExitCode
from shared.process_facts import process_facts, versions
from shared.recent import RECENT
from shared.task_dump import task_dump

if TYPE_CHECKING:
    from shared.outcome import Outcome
    from shared.process import StopRequest


class Controlled(Protocol):
    """A program that can be asked."""

    @property
    def in_flight(self) -> int:
        """Pushes under way."""

    def status(self) -> dict[str, Any]:
        """What `status` shows, JSON-able."""

    async def reload(self) -> Outcome:
        """Read the config again."""

    def render_metrics(self) -> bytes:
        """What /metrics answers."""


def control_routes(app: Controlled, stop_request: StopRequest, restart: str = "Restart it to change that.") -> Routes:
    """The handlers, bound to one program. `restart` says how it comes by what a reload cannot change."""

    async def status(_request: ControlRequest) -> dict[str, Any]:
        return app.status()

    async def reload(_request: ControlRequest) -> dict[str, Any]:
        outcome = await app.reload()
        if not outcome.is_taken:
            remedy = (
                "Mend the config; the old one stays in force." if outcome.is_invalid else "The old one stays in force."
            )
            if outcome.needs_a_restart:
                remedy = f"{remedy} {restart}"
            raise ControlFault(
                409, "config-not-taken", "; ".join(outcome.lines), remedy,
                exit_code=ExitCode.CONFIG if outcome.is_invalid else ExitCode.REFUSED,
            )  # fmt: skip
        return {"changes": list(outcome.lines)}

    async def drain(_request: ControlRequest) -> dict[str, Any]:
        stop_request()
        return {"state": "draining", "in_flight": app.in_flight}

    async def process(_request: ControlRequest) -> dict[str, Any]:
        return process_facts()

    async def diag(_request: ControlRequest) -> dict[str, Any]:
        return {
            "status": app.status(),
            "process": process_facts(),
            "versions": await asyncio.to_thread(versions),
            "tasks": task_dump(),
            "metrics": app.render_metrics().decode("utf-8", "replace"),
            "recent": RECENT.lines(),
            "forgotten": RECENT.forgotten,
        }

    return {
        ("GET", "/v1/diag"): diag, ("GET", "/v1/status"): status, ("GET", "/v1/process"): process,
        ("POST", "/v1/reload"): reload, ("POST", "/v1/drain"): drain,
    }  # fmt: skip
