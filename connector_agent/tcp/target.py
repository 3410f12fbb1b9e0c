"""A `tcp:` target: where it is, how many connections it takes, and those that are under way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connector_agent.probe.spec import DEFAULT, ProbeSpec
from shared.errors import FAULTS

if TYPE_CHECKING:
    from connector_agent.tcp.delivery import TcpDelivery
    from connector_agent.tcp.metrics import TcpTargetMetrics
    from connector_agent.upstream.connect import Endpoint
    from shared.errors import LocalFault

_REMOVED = FAULTS["unknown-target"]


class TcpTarget:
    """One exposed target. `idle` in seconds. `fingerprint` compares equal while nothing of its config changed."""

    __slots__ = (
        "deliveries", "endpoint", "fingerprint", "idle", "last_fault", "max_connections", "metrics", "name",
        "probe", "tells_source",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        metrics: TcpTargetMetrics,
        *,
        max_connections: int,
        idle: float,
        tells_source: bool = False,
        probe: ProbeSpec = DEFAULT,
        fingerprint: object = None,
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self.metrics = metrics
        self.max_connections = max_connections
        self.idle = idle
        self.tells_source = tells_source
        self.probe = probe
        self.fingerprint = fingerprint
        self.deliveries: set[TcpDelivery] = set()
        self.last_fault: LocalFault | None = None
        """Why the last connect failed; None when it did not."""

    @property
    def is_full(self) -> bool:
        """Whether one more connection is too much."""
        return len(self.deliveries) >= self.max_connections

    def end_all(self) -> None:
        """It is exposed no more: reset what is under way."""
        for delivery in list(self.deliveries):
            delivery.fail(_REMOVED)

    def __repr__(self) -> str:
        return f"<TcpTarget {self.name} {len(self.deliveries)} of {self.max_connections} connections>"
