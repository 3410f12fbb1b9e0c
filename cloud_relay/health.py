"""Whether the relay can work, and how its routes are.

The relay is ready when *it* can work: its config is loaded, its listeners are bound, and it does not drain. Routes are
detail: one dead target must not take the relay out of the load balancer for every tenant, and a relay without tunnels
could never get any.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, Protocol

from shared.cli import counted
from shared.observe import HealthReport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloud_relay.status import SessionView

MAX_NAMED: Final = 3
"""Red routes that the sentence names."""

MAX_LISTED: Final = 200
"""Red routes that a report names. Whoever needs more asks `cloud-relay status`."""


class RelayState(enum.Enum):
    """The life of the process."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    STOPPED = "stopped"


class Routed(Protocol):
    """A route of either kind, as far as its health goes."""

    @property
    def tenant(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def key(self) -> tuple[str, str, str]: ...


def is_green(route: Routed, tunnels: Callable[[Routed], int]) -> bool:
    """Whether a connector exposes the route's target right now."""
    return tunnels(route) > 0


def report(
    state: RelayState,
    routes: Sequence[Routed] | None,
    tunnels: Callable[[Routed], int],
    *,
    is_relieved: bool = False,
) -> HealthReport:
    """What /readyz answers. `tunnels` counts the tunnels by which a push of this route could go now; `is_relieved`: a
    new process serves at the same addresses."""
    known = routes or ()
    red = [f"{route.tenant}/{route.name}" for route in known if not is_green(route, tunnels)]
    detail: dict[str, Any] = {
        "state": state.value,
        "routes": {"green": len(known) - len(red), "red": len(red), "red_names": sorted(red)[:MAX_LISTED]},
    }
    return HealthReport(ready=(state is RelayState.SERVING or is_relieved) and routes is not None, detail=detail)


def sentence(health: HealthReport, sessions: Sequence[SessionView], in_flight: int) -> str:
    """The report and who is attached, for people, in a line."""
    state, routes = health.detail["state"], health.detail["routes"]
    if state == RelayState.DRAINING.value:
        return f"draining, {counted(in_flight, 'push', 'pushes')} in flight"
    if state != RelayState.SERVING.value:
        return str(state)
    connectors = {(one.identity.tenant, one.identity.location, one.identity.connector) for one in sessions}
    attached = f"{counted(len(sessions), 'tunnel')} of {counted(len(connectors), 'connector')} attached"
    red, names = routes["red"], routes["red_names"]
    if not red:
        return f"{attached}, {counted(routes['green'], 'route')} green"
    more = ", …" if red > MAX_NAMED else ""
    return f"{attached}, {red} of {counted(red + routes['green'], 'route')} red: {', '.join(names[:MAX_NAMED])}{more}"
