"""The gauges and counters of routes, targets and probes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from cloud_relay.probing.record import TargetState
from cloud_relay.probing.view import Values, measured, took, up

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

    from cloud_relay.metrics import RelayMetrics
    from cloud_relay.probing.record import TargetRecord
    from cloud_relay.probing.service import Probing
    from cloud_relay.snapshot import Snapshot

_ROUTE: Final = ("tenant", "route")
_TARGET: Final = ("tenant", "location", "connector", "target")


class Measured(Protocol):
    """What is asked at a scrape."""

    @property
    def metrics(self) -> RelayMetrics: ...
    @property
    def snapshot(self) -> Snapshot: ...
    @property
    def probing(self) -> Probing: ...
    @property
    def loop(self) -> AbstractEventLoop: ...


def add_health_gauges(relay: Measured) -> None:
    """Show them among the relay's metrics."""
    gauge, records = relay.metrics.gauge, relay.probing.prober.records

    def routes(state: TargetState) -> Values:
        every = relay.snapshot.routes
        return {(one.tenant, one.name): float(relay.probing.health(one).state is state) for one in every}

    def routes_up() -> Values:
        return {key: 1.0 - is_red for key, is_red in routes(TargetState.RED).items()}

    def of_targets(value: Callable[[TargetRecord], float | None]) -> Callable[[], Values]:
        return lambda: measured(records(), value)

    gauge("qanat_relay_route_up", "0 while no connector is there, or its target is dead.", routes_up, _ROUTE)
    gauge(
        "qanat_relay_route_unknown", "1 while nothing tells how its target is.",
        lambda: routes(TargetState.UNKNOWN), _ROUTE,
    )  # fmt: skip
    gauge("qanat_relay_target_up", "1 while it is well behind this connector.", of_targets(up), _TARGET)
    gauge(
        "qanat_relay_target_passed_over", "1 while pushes go to others of its connectors.",
        of_targets(lambda one: float(one.is_passed_over)), _TARGET,
    )  # fmt: skip
    gauge("qanat_relay_probe_duration_seconds", "At the connector, the last.", of_targets(took), _TARGET)
    gauge(
        "qanat_relay_probe_path_seconds", "From the last question to its answer, tunnel included.",
        of_targets(lambda one: one.took_in_all if one.is_probed else None), _TARGET,
    )  # fmt: skip
    gauge(
        "qanat_relay_probe_age_seconds", "Since it was found out how the target is.",
        of_targets(lambda one: one.age(relay.loop.time())), _TARGET,
    )  # fmt: skip
    relay.metrics.probes, relay.metrics.taken_out = relay.probing.prober.counts, relay.probing.book.taken_out
