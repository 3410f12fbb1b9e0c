"""Whether the connector can work: it is ready with a tunnel.

Targets are detail: an orchestrator that restarted the connector for a dead target would take the others down with it.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

from shared.observe import HealthReport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from connector_agent.targets import Target
    from connector_agent.tcp.target import TcpTarget


class ConnectorState(enum.Enum):
    """The life of the process."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    STOPPED = "stopped"


def target_state(target: Target) -> str:
    """What the last push or connect told: "ok", "failing", or "unknown" before the first."""
    metrics = target.metrics
    if target.pool.last_fault is not None or (metrics.last_at and not metrics.last_status):
        return "failing"
    return "ok" if metrics.last_at else "unknown"


def tcp_target_state(target: TcpTarget) -> str:
    """The same of a tcp target: what the last connect told."""
    if target.last_fault is not None:
        return "failing"
    return "ok" if target.metrics.connects else "unknown"


def report(state: ConnectorState, tunnels: int, targets: Mapping[str, str]) -> HealthReport:
    """What /readyz answers. `tunnels` are those by which a push could come now, `targets` their states by name."""
    detail: dict[str, Any] = {
        "state": state.value,
        "tunnels": tunnels,
        "targets": dict(targets),
    }
    return HealthReport(ready=state is ConnectorState.SERVING and tunnels > 0, detail=detail)
