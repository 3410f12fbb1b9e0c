"""How many connectors serve a location, and how many of them are for emergencies only."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from cloud_relay.gauges import connectors_by_location


def session(location: str, connector: str, *, is_standby: bool = False, is_draining: bool = False) -> Any:
    return SimpleNamespace(
        identity=SimpleNamespace(key=("acme", location, connector)),
        link=SimpleNamespace(is_draining=is_draining),
        is_standby=is_standby,
    )


def counted(*sessions: Any) -> dict[tuple[str, ...], float]:
    tenants = {"acme": SimpleNamespace(locations=["here", "there"])}
    registry = SimpleNamespace(sessions=lambda: list(sessions))
    return connectors_by_location(
        cast(Any, SimpleNamespace(config=SimpleNamespace(tenants=tenants), registry=registry))
    )


def test_a_location_without_any_is_shown():
    assert counted() == {("acme", place, kind): 0.0 for place in ("here", "there") for kind in ("active", "standby")}


def test_connectors_are_counted_not_their_tunnels():
    found = counted(session("here", "c1"), session("here", "c1"), session("here", "c2"), session("gone", "c3"))
    assert found["acme", "here", "active"] == 2
    assert found["acme", "there", "active"] == 0
    assert len(found) == 4, "a location that the config no longer names is nobody's concern"


def test_standbys_are_apart_and_what_drains_counts_no_more():
    found = counted(
        session("here", "c1", is_draining=True),
        session("here", "spare", is_standby=True),
        session("there", "was-spare"),
        session("there", "was-spare", is_standby=True),  # a reload: its old tunnel still says so
    )
    assert (found["acme", "here", "active"], found["acme", "here", "standby"]) == (0, 1)
    assert (found["acme", "there", "active"], found["acme", "there", "standby"]) == (1, 0)
