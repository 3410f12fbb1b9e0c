"""What /metrics of the relay tells of each connector's tunnels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cloud_relay import tunnel_metrics as module
from cloud_relay.metrics import RelayMetrics

KEY = ("acme", "walldorf", "c1")


@pytest.fixture
def metrics() -> RelayMetrics:
    made = RelayMetrics(process=False)
    made.connectors.now = lambda: 500.0
    return made


def shown(metrics: RelayMetrics, name: str) -> dict[tuple[str, ...], float]:
    """The samples of one name by the values of their labels, the connector's first."""
    families = text_string_to_metric_families(metrics.render().decode())
    samples = [sample for family in families for sample in family.samples if sample.name == f"qanat_relay_{name}"]
    places = ("tenant", "location", "connector", "code", "origin", "kind")
    return {tuple(one.labels[place] for place in places if place in one.labels): one.value for one in samples}


def session(connector: str, attached_at: float, rtt: float) -> Any:
    identity = SimpleNamespace(key=(*KEY[:2], connector))
    return SimpleNamespace(identity=identity, attached_at=attached_at, link=SimpleNamespace(rtt=rtt))


def test_the_oldest_tunnels_age_and_the_slowest_ones_round_trip(metrics: RelayMetrics) -> None:
    tunnels = [session("c1", 100.0, 0.02), session("c1", 400.0, 0.08), session("c2", 450.0, float("inf"))]
    metrics.connectors.sessions = lambda: cast(Any, tunnels)
    assert shown(metrics, "tunnel_age_seconds") == {KEY: 400.0, (*KEY[:2], "c2"): 50.0}
    assert shown(metrics, "tunnel_round_trip_seconds") == {KEY: 0.08}, "what is not known is not shown"


def test_what_came_and_went_stays_counted(metrics: RelayMetrics) -> None:
    counts = metrics.connectors.of(KEY)
    assert metrics.connectors.of(KEY) is counts
    counts.attached += 3
    counts.end("silent")
    counts.end("silent")
    counts.end("going-away")
    assert shown(metrics, "connector_tunnels_attached_total") == {KEY: 3}
    assert shown(metrics, "connector_tunnels_ended_total") == {
        (*KEY, "silent", "tunnel"): 2,
        (*KEY, "going-away", "tunnel"): 1,
    }


def test_waits_for_credit_by_kind(metrics: RelayMetrics) -> None:
    stalls = metrics.connectors.of(KEY).stalls
    stalls.streams, stalls.stream_seconds, stalls.tunnels, stalls.tunnel_seconds = 2, 3.5, 7, 0.25
    assert shown(metrics, "credit_stalls_total") == {(*KEY, "stream"): 2, (*KEY, "tunnel"): 7}
    assert shown(metrics, "credit_stall_seconds_total") == {(*KEY, "stream"): 3.5, (*KEY, "tunnel"): 0.25}


def test_a_flood_of_connectors_is_counted_together(metrics: RelayMetrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SERIES", 2)
    for number in range(10):
        metrics.connectors.of((*KEY[:2], f"c{number}")).attached += 1
    assert shown(metrics, "connector_tunnels_attached_total") == {
        (*KEY[:2], "c0"): 1, (*KEY[:2], "c1"): 1, ("other", "other", "other"): 8,
    }  # fmt: skip
