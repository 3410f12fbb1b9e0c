"""How the relay's parts are put together from one config: what a push works with, and the listeners."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_relay.doors import Contexts, Doors
from cloud_relay.ingress import IngressContext, IngressSettings
from cloud_relay.senders import Authenticator
from cloud_relay.tunnel_parts import House, make_tunnel_listener
from shared.observe import ObserveServer

if TYPE_CHECKING:
    from cloud_relay.app import RelayApp


def make_context(app: RelayApp) -> IngressContext:
    """What every push works with, from the config in force."""
    config, workers = app.config.limits, app.workers
    return IngressContext(
        routing=app.snapshot.table,
        authenticator=Authenticator(app.clock.timestamp),
        limits=app.limits,
        registry=app.registry if app.team is None else app.team.wide,
        budget=app.budget,
        access_log=app.access_log,
        health=app.probing.book,
        settings=IngressSettings(
            max_connections=max(1, config.connections // workers),
            max_connections_per_source=config.connections_per_source,
            queue=-(-config.queue // workers),  # rounded up: 0 would mean none
            queue_wait=config.queue_wait,
        ),
    )


def make_doors(app: RelayApp, contexts: Contexts) -> Doors:
    """All listeners; none of them listens yet. The tunnels' counts become the metrics'."""
    config, inherited, observe, switch = app.config, app.arriving.inherited, None, None
    house = House(app.loop, app.registry, app.budget, app.gaps, app.clock, app.identity)
    tunnel = make_tunnel_listener(house, config, contexts)
    app.metrics.tunnels = tunnel.counts
    app.metrics.enrolment = tunnel.enrolment
    app.metrics.guard = tunnel.guard
    tunnel.count_in(app.metrics.connectors)
    if app.team is not None:
        inherited, switch = app.team.inherited, app.team.entrance(tunnel)
    if config.observe is not None and app.is_first:
        metrics = app.render_metrics if app.team is None else app.team.metrics
        observe = ObserveServer(config.observe.listen, app.health, metrics, inherited)
    return Doors(app.snapshot, contexts, app.ingress, app.metrics, tunnel, observe, inherited, switch)
