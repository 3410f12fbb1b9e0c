"""What the command line may ask of a running connector, at its control socket.

GET  /v1/status    everything that `status` shows
POST /v1/reload    read the config again; 409 with the problems when it is not taken
POST /v1/drain     as SIGTERM: drain, then end
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shared.control import ControlFault, ControlRequest, Routes

if TYPE_CHECKING:
    from connector_agent.app import ConnectorApp
    from shared.process import StopRequest


def control_routes(app: ConnectorApp, stop_request: StopRequest) -> Routes:
    """The handlers, bound to one connector."""

    async def status(_request: ControlRequest) -> dict[str, Any]:
        return app.status()

    async def reload(_request: ControlRequest) -> dict[str, Any]:
        outcome = await app.reload()
        if not outcome.is_taken:
            raise ControlFault(
                409, "config-not-taken", "; ".join(outcome.lines), "Mend the config; the old one stays in force."
            )
        return {"changes": list(outcome.lines)}

    async def drain(_request: ControlRequest) -> dict[str, Any]:
        stop_request()
        return {"state": "draining", "in_flight": app.dispatcher.in_flight}

    return {("GET", "/v1/status"): status, ("POST", "/v1/reload"): reload, ("POST", "/v1/drain"): drain}
