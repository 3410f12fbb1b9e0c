"""The sentence that the service manager shows of a relay."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cloud_relay.health import RelayState, report, sentence
from cloud_relay.probing.record import TargetState
from cloud_relay.probing.view import RouteHealth

_GREEN, _RED, _UNKNOWN = TargetState


def session(connector: str) -> Any:
    return SimpleNamespace(identity=SimpleNamespace(tenant="acme", location="walldorf", connector=connector))


def route(name: str) -> Any:
    return SimpleNamespace(tenant="acme", name=name, key=("acme", "walldorf", name))


@pytest.mark.parametrize(
    ("state", "connectors", "routes", "red", "said"),
    [
        (RelayState.STARTING, "", "", "", "starting"),
        (RelayState.SERVING, "", "", "", "0 tunnels of 0 connectors attached, 0 routes green"),
        (RelayState.SERVING, "aab", "xy", "", "3 tunnels of 2 connectors attached, 2 routes green"),
        (RelayState.SERVING, "a", "yx", "y", "1 tunnel of 1 connector attached, 1 of 2 routes red: acme/y"),
        (
            RelayState.SERVING, "", "vwxyz", "zyxw",
            "0 tunnels of 0 connectors attached, 4 of 5 routes red: acme/w, acme/x, acme/y, …",
        ),
        (RelayState.SERVING, "aa", "xy1", "", "2 tunnels of 1 connector attached, 2 routes green, 1 unknown"),
        (RelayState.SERVING, "a", "xy1", "y", "1 tunnel of 1 connector attached, 1 unknown, 1 of 3 routes red: acme/y"),
        (RelayState.DRAINING, "a", "x", "x", "draining, 1 push in flight"),
        (RelayState.STOPPED, "", "", "", "stopped"),
    ],
)  # fmt: skip
def test_the_sentence(state: RelayState, connectors: str, routes: str, red: str, said: str) -> None:
    def found(one: Any) -> RouteHealth:
        unknown = one.name.isdigit()
        return RouteHealth(_RED if one.name in red else _UNKNOWN if unknown else _GREEN, "", None, 1)

    health = report(state, [route(name) for name in routes], found)
    assert sentence(health, [session(name) for name in connectors], 1) == said
