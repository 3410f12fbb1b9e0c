"""What /metrics shows of the connector as a whole, asked for when somebody looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from connector_agent.certificates import ending_soon, metric_values

if TYPE_CHECKING:
    from connector_agent.app import ConnectorApp

Values = dict[tuple[str, ...], float]


def add_gauges(app: ConnectorApp) -> None:
    """Add them to the metrics of the app."""
    gauge, probed = app.metrics.gauge, app.probes.measured
    gauge("qanat_connector_memory_used_bytes", "Bytes of pushes under way.", lambda: app.budget.used)
    gauge("qanat_connector_memory_budget_bytes", "memory.budget.", lambda: app.budget.limit)
    gauge("qanat_connector_tunnels", "Tunnels that are up.", lambda: app.tunnels.open_count)
    gauge("qanat_connector_target_up", "Whether the last push or probe got an answer.", lambda: _up(app), ("target",))
    gauge("qanat_connector_probe_success", "What the last probe found.", lambda: probed("good"), ("target",))
    gauge(
        "qanat_connector_probe_duration_seconds", "How long the last probe took.", lambda: probed("seconds"),
        ("target",),
    )  # fmt: skip
    gauge(
        "qanat_connector_probe_timestamp_seconds", "When the last probe was, Unix time.", lambda: probed("at"),
        ("target",),
    )  # fmt: skip
    gauge(
        "qanat_connector_connections", "Connections to the target.", lambda: _connections(app), ("target", "state")
    )  # fmt: skip
    _add_certificate_gauges(app)


def clock_of(app: ConnectorApp) -> dict[str, Any]:
    """How this host's clock stands to the relay's; empty where nothing is known of it."""
    identity = app.tunnels.identity
    return (identity.describe()["clock"] if identity is not None else None) or {}


def _add_certificate_gauges(app: ConnectorApp) -> None:
    gauge = app.metrics.gauge
    gauge(
        "qanat_connector_certificate_not_after_seconds", "When a certificate in use ends, Unix time.",
        lambda: metric_values(app.certificates()), ("kind", "name"),
    )  # fmt: skip
    gauge(
        "qanat_connector_certificate_ends_soon", "1 when it should have been renewed by now.",
        lambda: ending_soon(app.certificates(), app.now()), ("kind", "name"),
    )  # fmt: skip
    gauge(
        "qanat_connector_clock_error_seconds", "How far this host's clock is off the relay's.",
        lambda: float(clock_of(app).get("error_s", 0.0)),
    )  # fmt: skip
    gauge(
        "qanat_connector_clock_doubtful", "Whether certificates are judged without it.",
        lambda: float(clock_of(app).get("is_doubtful", False)),
    )  # fmt: skip
    app.metrics.renewals = lambda: identity.counts() if (identity := app.tunnels.identity) is not None else {}


def _up(app: ConnectorApp) -> Values:
    states = app.target_states()
    return {(name,): float(state == "ok") for name, state in states.items() if state != "unknown"}


def _connections(app: ConnectorApp) -> Values:
    counts: Values = {}
    for name, target in app.targets.by_name.items():
        counts[name, "busy"] = target.pool.total - target.pool.idle
        counts[name, "idle"] = target.pool.idle
    return counts
