"""What `cloud-relay status` shows: the process, its listeners, who is attached, and how the routes are."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from cloud_relay.probing.view import connector_views
from shared.status import answers_view, process_view, timestamp

if TYPE_CHECKING:
    from cloud_relay.app import RelayApp
    from cloud_relay.config import RelayConfig
    from cloud_relay.metrics import RelayMetrics
    from cloud_relay.probing.view import RouteHealth
    from cloud_relay.routing import Route, RoutingTable
    from cloud_relay.session import SessionLink
    from cloud_relay.tcp import TcpRoute


class IdentityView(Protocol):
    """Who a session belongs to."""

    @property
    def tenant(self) -> str: ...
    @property
    def location(self) -> str: ...
    @property
    def connector(self) -> str: ...


class SessionView(Protocol):
    """What a status needs of a session. `attached_at` is the loop's time."""

    @property
    def identity(self) -> IdentityView: ...
    @property
    def link(self) -> SessionLink: ...
    @property
    def is_standby(self) -> bool: ...
    @property
    def targets(self) -> Mapping[str, str]: ...
    @property
    def attached_at(self) -> float: ...


def tenants_view(
    config: RelayConfig,
    sessions: Iterable[SessionView],
    now: float,
    not_allowed: Mapping[tuple[str, str, str], Sequence[str]] | None = None,
    targets: Mapping[tuple[str, str, str], Sequence[dict[str, Any]]] | None = None,
) -> list[dict[str, Any]]:
    """Tenants, their locations, and the connectors attached there with their tunnels. `now` is the loop's time.

    `not_allowed`: targets that a connector announced although its join token did not allow them; `targets`: how those
    that it exposes are.
    """
    refused, health = not_allowed or {}, targets or {}
    attached: dict[tuple[str, str], dict[str, list[SessionView]]] = {}
    for session in sessions:
        identity = session.identity
        connectors = attached.setdefault((identity.tenant, identity.location), {})
        connectors.setdefault(identity.connector, []).append(session)
    return [
        {
            "tenant": name,
            "locations": [
                {
                    "location": location,
                    "connectors": [
                        {
                            "connector": connector,
                            "standby": any(session.is_standby for session in tunnels),
                            "targets": list(health.get((name, location, connector), ())),
                            "tunnels": [_tunnel(session, now) for session in tunnels],
                            "not_allowed": list(refused.get((name, location, connector), ())),
                        }
                        for connector, tunnels in sorted(attached.get((name, location), {}).items())
                    ],
                }
                for location in tenant.locations
            ],
        }
        for name, tenant in config.tenants.items()
    ]


def routes_view(table: RoutingTable, health: Callable[[Route], RouteHealth]) -> list[dict[str, Any]]:
    """Routes with their state and counts."""
    return [_route(route, health(route)) for route in table.routes]


def _health(health: RouteHealth) -> dict[str, Any]:
    return {
        "state": health.state.value,
        "why": health.why or None,
        "age_s": None if health.age is None else round(health.age, 1),
        "tunnels": health.tunnels,
    }


def _tunnel(session: SessionView, now: float) -> dict[str, Any]:
    link = session.link
    return {
        "state": _state(link),
        "age_s": round(now - session.attached_at, 1),
        "rtt_ms": round(link.rtt * 1e3, 2) if link.rtt < 1e6 else None,
        "in_flight": link.in_flight,
        "peer": link.describe(),
        "targets": dict(session.targets),
    }


def _state(link: SessionLink) -> str:
    if not link.is_open:
        return "closing"
    if link.is_draining:
        return "draining"
    return "suspect" if link.is_suspect else "open"


def _route(route: Route, health: RouteHealth) -> dict[str, Any]:
    metrics = route.metrics
    return {
        "tenant": route.tenant,
        "route": route.name,
        "host": route.host.decode("ascii"),
        "path": route.path.decode("ascii"),
        "sub_paths": route.sub_paths,
        "location": route.location,
        "target": route.target,
        **_health(health),
        "in_flight": metrics.in_flight,
        "pushes": metrics.pushes,
        "answers": answers_view(metrics.by_class),
        "unanswered": metrics.by_class[0],
        "faults": dict(metrics.faults),
        "retries": metrics.retries,
    }


def _tcp_route(route: TcpRoute, app: RelayApp) -> dict[str, Any]:
    metrics = route.metrics
    return {
        "tenant": route.tenant,
        "route": route.name,
        "arrives_at": route.arrives_at,
        "location": route.location,
        "target": route.target,
        **_health(app.probing.health(route)),
        "open": len(metrics.live),
        "connections": metrics.connections,
        "bytes_in": metrics.bytes_in,
        "bytes_out": metrics.bytes_out,
        "faults": dict(metrics.faults),
    }


def status_view(app: RelayApp) -> dict[str, Any]:
    """The whole status. Everything in it is JSON-able."""
    now = asyncio.get_running_loop().time()
    targets = connector_views(app.probing.prober.records(), now)
    guard = app.doors.tunnel.guard if app.doors is not None else None
    refused = guard.not_allowed if guard is not None else {}
    return {
        **process_view(app),
        "pid": os.getpid(),
        "draining": app.arriving.reports,
        "in_flight": app.in_flight,
        "identity": app.identity.status() if app.identity is not None else None,
        "listeners": app.doors.describe() if app.doors is not None else [],
        "tenants": tenants_view(app.config, app.registry.sessions(), now, refused, targets),
        "probes": dict(app.probing.prober.counts),
        "routes": routes_view(app.snapshot.table, app.probing.health),
        "tcp_routes": [_tcp_route(route, app) for route in app.snapshot.tcp.values()],
        "senders": senders_view(app.metrics),
    }


def senders_view(metrics: RelayMetrics) -> list[dict[str, Any]]:
    """Senders with their counts."""
    now = time.time()
    return [
        {
            "tenant": one.tenant,
            "sender": one.sender,
            "pushes": one.pushes,
            "delivered": one.delivered,
            "last_delivered": timestamp(one.last_delivered),
            "silent_s": round(one.silence(now), 1),
            "expect_every_s": one.expect_every or None,
        }
        for one in metrics.senders.values()
    ]
