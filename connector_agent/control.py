"""What the command line may ask of a connector beyond what it may of either program.

GET  /v1/certs           the identity, its roots, and every certificate in use
POST /v1/certs/rotate    renew now; 409 with the cause when that cannot be
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shared.control import ControlFault, ControlRequest, Routes

if TYPE_CHECKING:
    from connector_agent.app import ConnectorApp


def identity_routes(app: ConnectorApp) -> Routes:
    """The handlers, bound to one connector."""

    async def show(_request: ControlRequest) -> dict[str, Any]:
        return {"running": True, **app.identity_view()}

    async def rotate(_request: ControlRequest) -> dict[str, Any]:
        identity = app.tunnels.identity
        if identity is None:
            raise ControlFault(409, "not-joined", "this connector has no identity")
        return await identity.rotate()

    return {("GET", "/v1/certs"): show, ("POST", "/v1/certs/rotate"): rotate}
