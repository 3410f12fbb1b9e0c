"""What /metrics of a connector tells of its tunnels: how they stand, and how they ended."""

from __future__ import annotations

from typing import Any, cast

from prometheus_client.parser import text_string_to_metric_families

from connector_agent.dialer import Dialer
from connector_agent.handshake import DialError
from connector_agent.metrics import ConnectorMetrics
from connector_agent.tunnels import Tunnels
from shared.protocol import MemoryBudget
from shared.tunnel.gaps import GapWatch
from tests.connector_agent.kit import run, wait
from tests.connector_agent.relay_kit import Relay

RELAY = "relay.test:443"


def shown(metrics: ConnectorMetrics, name: str) -> dict[tuple[str, ...], float]:
    """The samples of one name, by their labels' values but the relay's."""
    families = text_string_to_metric_families(metrics.render().decode())
    found = [sample for family in families for sample in family.samples if sample.name == f"qanat_connector_{name}"]
    assert all(sample.labels["relay"] == RELAY for sample in found)
    return {tuple(value for key, value in one.labels.items() if key != "relay"): one.value for one in found}


def make(relay: Relay, metrics: ConnectorMetrics) -> Tunnels:
    return Tunnels(
        [("relay.test", 443)], cast(Dialer, relay), lambda *_: None, lambda: {"t": "http"}, count=2,
        budget=MemoryBudget(), gaps=GapWatch(relay.loop), metrics=metrics.tunnels,
    )  # fmt: skip


def test_tunnels_that_stand_and_that_were_lost() -> None:
    async def tell() -> None:
        relay, metrics = Relay(), ConnectorMetrics(process=False)
        tunnels = make(relay, metrics)
        tunnels.start()
        await wait(5.0)
        assert shown(metrics, "tunnel_age_seconds")[()] > 4.0
        assert shown(metrics, "tunnel_round_trip_seconds")[()] < 1.0
        assert shown(metrics, "tunnels_lost_total") == {}
        relay.ends[0].transport.abort()
        relay.ends[1].link.close("silent")
        await wait(5.0)
        lost = shown(metrics, "tunnels_lost_total")
        assert sum(lost.values()) == 2
        assert all(origin == "tunnel" for _, origin in lost)
        assert 0 < shown(metrics, "tunnel_age_seconds")[()] < 5.0
        await tunnels.close()
        assert sum(shown(metrics, "tunnels_lost_total").values()) == 2, "our own end is no loss"

    run(tell)


def test_tries_that_fail_are_counted_by_their_code() -> None:
    async def tell() -> None:
        relay, metrics = Relay(), ConnectorMetrics(process=False)
        tunnels = make(relay, metrics)

        async def refuse(*_: Any) -> Any:
            raise DialError("connection-refused", "nobody listens")

        relay.dial = refuse  # type: ignore[method-assign, assignment]
        tunnels.start()
        await wait(10.0)
        failed = shown(metrics, "tunnel_tries_failed_total")
        assert list(failed) == [("connection-refused", "connector")]
        assert failed["connection-refused", "connector"] > 2
        assert shown(metrics, "tunnel_age_seconds") == {}
        await tunnels.close()

    run(tell)


def test_waits_for_credit_are_counted_by_relay() -> None:
    async def tell() -> None:
        relay, metrics = Relay(), ConnectorMetrics(process=False)
        tunnels = make(relay, metrics)
        tunnels.start()
        await wait(1.0)
        counts = metrics.tunnels.of(RELAY).stalls
        counts.streams, counts.stream_seconds = 2, 1.5
        assert shown(metrics, "credit_stalls_total") == {("stream",): 2, ("tunnel",): 0}
        assert shown(metrics, "credit_stall_seconds_total") == {("stream",): 1.5, ("tunnel",): 0}
        await tunnels.close()

    run(tell)
