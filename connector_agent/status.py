"""What `connector-agent status` shows: the process, its tunnels, and how the targets are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from connector_agent.health import target_state, tcp_target_state
from shared.config.model import HostPort
from shared.status import answers_view, process_view, timestamp

if TYPE_CHECKING:
    from connector_agent.app import ConnectorApp
    from connector_agent.probe.service import ProbeService
    from connector_agent.targets import Target
    from connector_agent.tcp.target import TcpTarget


def status_view(app: ConnectorApp) -> dict[str, Any]:
    """The whole status. Everything in it is JSON-able; it names internal addresses, and stays on this host."""
    return {
        **process_view(app),
        "standby": app.config.standby,
        "in_flight": app.in_flight,
        **app.identity_view(),
        "tunnels": app.tunnels.describe(),
        "targets": [_target(target, app.probes) for target in app.targets.by_name.values()]
        + [_tcp_target(target, app.probes) for target in app.tcp.by_name.values()],
    }


def _tcp_target(target: TcpTarget, probes: ProbeService) -> dict[str, Any]:
    metrics, fault = target.metrics, target.last_fault
    return {
        "target": target.name,
        "kind": "tcp",
        "url": f"tcp://{target.endpoint}",
        "address": str(target.endpoint),
        "state": tcp_target_state(target, probes.standing(target)),
        "probe": probes.describe(target),
        "in_flight": len(target.deliveries),
        "pushes": metrics.connections,
        "answers": {},
        "bytes": {"in": metrics.bytes_in, "out": metrics.bytes_out},
        "faults": dict(metrics.faults),
        "connections": {"open": len(target.deliveries), "idle": 0, "waiting": 0},
        "last": None,
        "connect_fault": None if fault is None else {"code": fault.fault.code, "detail": fault.detail},
    }


def _target(target: Target, probes: ProbeService) -> dict[str, Any]:
    metrics, pool = target.metrics, target.pool
    fault = pool.last_fault
    return {
        "target": target.name,
        "kind": "http",
        "url": target.url.decode("ascii"),
        "address": str(HostPort(pool.endpoint.host, pool.endpoint.port)),
        "state": target_state(target, probes.standing(target)),
        "probe": probes.describe(target),
        "in_flight": metrics.in_flight,
        "pushes": metrics.pushes,
        "answers": answers_view(metrics.by_class),
        "unanswered": metrics.by_class[0],
        "faults": dict(metrics.faults),
        "connections": {"open": pool.total, "idle": pool.idle, "waiting": pool.waiting},
        "last": _last(target) if metrics.last_at else None,
        "connect_fault": None if fault is None else {"code": fault.fault.code, "detail": fault.detail},
    }


def _last(target: Target) -> dict[str, Any]:
    metrics = target.metrics
    return {
        "at": timestamp(metrics.last_at),
        "status": metrics.last_status or None,
        "code": metrics.last_code or None,
    }
