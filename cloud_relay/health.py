"""Whether the relay can work, and how its routes are.

The relay is ready when *it* can work: its config is loaded, its listeners are bound, and it does not drain. Routes are
detail: one dead target must not take the relay out of the load balancer for every tenant, and a relay without tunnels
could never get any.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final

from shared.observe import HealthReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_relay.routing import Route, RoutingTable

MAX_LISTED: Final = 200
"""Red routes that a report names. Whoever needs more asks `cloud-relay status`."""


class RelayState(enum.Enum):
    """The life of the process."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    STOPPED = "stopped"


def is_green(route: Route, tunnels: Callable[[Route], int]) -> bool:
    """Whether a connector exposes the route's target right now."""
    return tunnels(route) > 0


def report(state: RelayState, table: RoutingTable | None, tunnels: Callable[[Route], int]) -> HealthReport:
    """What /readyz answers. `tunnels` counts the tunnels by which a push of this route could go now."""
    routes = table.routes if table is not None else ()
    red = [f"{route.tenant}/{route.name}" for route in routes if not is_green(route, tunnels)]
    detail: dict[str, Any] = {
        "state": state.value,
        "routes": {"green": len(routes) - len(red), "red": len(red), "red_names": sorted(red)[:MAX_LISTED]},
    }
    return HealthReport(ready=state is RelayState.SERVING and table is not None, detail=detail)
