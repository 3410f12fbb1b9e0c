"""Whether the connector can work: it is ready with a tunnel.

Targets are detail: an orchestrator that restarted the connector for a dead target would take the others down with it.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final

from shared.cli import counted
from shared.observe import HealthReport

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from connector_agent.probe.run import ProbeResult
    from connector_agent.targets import Target
    from connector_agent.tcp.target import TcpTarget


MAX_NAMED: Final = 3
"""Failing targets, or causes, that the sentence names."""


class ConnectorState(enum.Enum):
    """The life of the process."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    STOPPED = "stopped"


def target_state(target: Target, probe: ProbeResult | None = None) -> str:
    """What the last push, connect or probe told of the target: "ok", "failing", or "unknown" before the first.

    `probe` is the last one's result, unless something spoke against it since.
    """
    metrics = target.metrics
    if probe is not None and probe.at >= metrics.told_at:
        return "ok" if probe.is_good else "failing"
    if target.pool.last_fault is not None or metrics.is_failing:
        return "failing"
    return "ok" if metrics.told_at else "unknown"


def tcp_target_state(target: TcpTarget, probe: ProbeResult | None = None) -> str:
    """The same of a tcp target: what the last connect or probe told."""
    if probe is not None:
        return "ok" if probe.is_good else "failing"
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


def sentence(health: HealthReport, tunnels: Sequence[Mapping[str, Any]], in_flight: int) -> str:
    """The report for people, in a line. `tunnels` are the rows of `status`, which say why one is not up."""
    state, count = health.detail["state"], health.detail["tunnels"]
    if state == ConnectorState.DRAINING.value:
        return f"draining, {counted(in_flight, 'push', 'pushes')} in flight"
    if state != ConnectorState.SERVING.value:
        return str(state)
    causes = dict.fromkeys(f"{row['code']} at {row['relay']}" for row in tunnels if row["code"])
    up = f"{counted(count, 'tunnel')} up" if count else "no tunnel is up"
    if causes:
        up += f" ({_some(causes)})"
    states: Mapping[str, str] = health.detail["targets"]
    failing = sorted(name for name, one in states.items() if one == "failing")
    targets = counted(len(states), "target")
    return f"{up}, {len(failing)} of {targets} failing: {_some(failing)}" if failing else f"{up}, {targets}"


def _some(texts: Iterable[str]) -> str:
    listed = list(texts)
    return ", ".join(listed[:MAX_NAMED] + ["…"] * (len(listed) > MAX_NAMED))
