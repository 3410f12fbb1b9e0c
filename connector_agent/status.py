"""What `connector-agent status` shows: the process, its tunnels, and how the targets are."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING, Any

from connector_agent.health import target_state
from shared.config.model import HostPort

if TYPE_CHECKING:
    from connector_agent.app import ConnectorApp
    from connector_agent.targets import Target


def version() -> str:
    """Of the installed distribution."""
    try:
        return installed_version("qanat")
    except PackageNotFoundError:
        return "unknown"


def timestamp(unix: float) -> str | None:
    """RFC 3339 in UTC; None for 0.0, which stands for never."""
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if unix else None


def status_view(app: ConnectorApp) -> dict[str, Any]:
    """The whole status. Everything in it is JSON-able; it names internal addresses, and stays on this host."""
    reload = app.last_reload
    return {
        "version": version(),
        "state": app.state.value,
        "started_at": timestamp(app.started_at),
        "uptime_s": round(time.time() - app.started_at, 1),
        "config": str(app.path),
        "reload": None
        if reload is None
        else {"at": timestamp(reload.at), "taken": reload.is_taken, "lines": list(reload.lines)},
        "in_flight": app.dispatcher.in_flight,
        "memory": app.memory(),
        "tunnels": app.tunnels.describe(),
        "targets": [_target(target) for target in app.targets.by_name.values()],
    }


def _target(target: Target) -> dict[str, Any]:
    metrics, pool = target.metrics, target.pool
    fault = pool.last_fault
    return {
        "target": target.name,
        "url": target.url.decode("ascii"),
        "address": str(HostPort(pool.endpoint.host, pool.endpoint.port)),
        "state": target_state(target),
        "in_flight": metrics.in_flight,
        "pushes": metrics.pushes,
        "answers": {f"{status}xx": count for status, count in enumerate(metrics.by_class) if status and count},
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
