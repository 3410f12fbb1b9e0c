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
    BLIND = "blind"
    """It cannot read who was revoked or switched off, and serves nobody until it can."""


class Routed(Protocol):
    """A route of either kind, as far as its health goes."""

    @property
    def tenant(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def key(self) -> tuple[str, str, str]: ...


class RouteState(Protocol):
    """How a route is: "green", "red" or "unknown", the code of why it is red, and the age of that in seconds."""

    @property
    def state(self) -> str: ...
    @property
    def why(self) -> str: ...
    @property
    def age(self) -> float | None: ...


def report(
    state: RelayState,
    routes: Sequence[Routed] | None,
    health: Callable[[Routed], RouteState],
    *,
    is_relieved: bool = False,
) -> HealthReport:
    """What /readyz answers. `health` tells how a route is; `is_relieved`: a new process serves at the same places."""
    counts = {"green": 0, "red": 0, "unknown": 0}
    red: dict[str, dict[str, Any]] = {}
    for route in routes or ():
        found = health(route)
        counts[str(found.state)] += 1
        if found.state == "red":
            age = None if found.age is None else round(found.age, 1)
            red[f"{route.tenant}/{route.name}"] = {"why": found.why, "age_s": age}
    names = sorted(red)[:MAX_LISTED]
    detail: dict[str, Any] = {
        "state": state.value,
        "routes": {**counts, "red_names": names, "red_why": {name: red[name] for name in names}},
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
    unknown = f", {routes['unknown']} unknown" if routes["unknown"] else ""
    if not red:
        return f"{attached}, {counted(routes['green'], 'route')} green{unknown}"
    more = ", …" if red > MAX_NAMED else ""
    every = counted(red + routes["green"] + routes["unknown"], "route")
    return f"{attached}{unknown}, {red} of {every} red: {', '.join(names[:MAX_NAMED])}{more}"
