"""What /metrics shows of the relay as a whole, asked for when somebody looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_relay.probing.gauges import add_health_gauges

if TYPE_CHECKING:
    from cloud_relay.app import RelayApp

Values = dict[tuple[str, ...], float]


def add_gauges(app: RelayApp) -> None:
    """Add them to the metrics of the app."""
    gauge = app.metrics.gauge
    gauge("qanat_relay_memory_used_bytes", "Bytes of pushes under way.", lambda: app.budget.used)
    gauge("qanat_relay_pushes_queued", "Pushes that wait for their turn.", lambda: app.ingress.queue.waiting)
    gauge(
        "qanat_relay_pushes_queued_limit", "How many pushes may wait for their turn.",
        lambda: app.ingress.context.settings.queue,
    )  # fmt: skip
    gauge("qanat_relay_senders_held_back", "Senders whose pushes wait for others'.", lambda: app.share.narrowed)
    gauge("qanat_relay_memory_budget_bytes", "memory.budget.", lambda: app.budget.limit)
    gauge(
        "qanat_relay_tunnels", "Tunnels attached.", lambda: _tunnels(app), ("tenant", "location", "connector")
    )  # fmt: skip
    gauge(
        "qanat_relay_location_connectors", "Connectors by which pushes could go, of each location in the config.",
        lambda: connectors_by_location(app), ("tenant", "location", "kind"),
    )  # fmt: skip
    add_health_gauges(app)


def connectors_by_location(app: RelayApp) -> Values:
    """Also where there are none: that is what is looked for. A connector is a standby if all its tunnels say so."""
    places = [(name, location) for name, tenant in app.config.tenants.items() for location in tenant.locations]
    active: dict[tuple[str, str], set[str]] = {place: set() for place in places}
    standby: dict[tuple[str, str], set[str]] = {place: set() for place in places}
    for session in app.registry.sessions():
        tenant, location, connector = session.identity.key
        if (tenant, location) in active and not session.link.is_draining:
            (standby if session.is_standby else active)[tenant, location].add(connector)
    values: Values = {}
    for place in places:
        values[(*place, "active")] = float(len(active[place]))
        values[(*place, "standby")] = float(len(standby[place] - active[place]))
    return values


def _tunnels(app: RelayApp) -> Values:
    counts: Values = {}
    for session in app.registry.sessions():
        identity = session.identity
        key = (identity.tenant, identity.location, identity.connector)
        counts[key] = counts.get(key, 0.0) + 1.0
    return counts
