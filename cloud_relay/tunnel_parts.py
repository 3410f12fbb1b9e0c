"""Makes the tunnel listener of one config: whom it admits, and what it has where the relay is its own CA."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from cloud_relay.identity.enrolment import Enrolment
from cloud_relay.identity.policy import BookPolicy
from cloud_relay.identity.sessions import RenewalDesk
from cloud_relay.identity.targets import TargetGuard
from cloud_relay.policy import ConfigPolicy
from cloud_relay.tunnels import TunnelLimits, TunnelListener
from shared.status import version

if TYPE_CHECKING:
    from cloud_relay.admit import Policy
    from cloud_relay.config import RelayConfig
    from cloud_relay.doors import Contexts
    from cloud_relay.identity.service import IdentityService
    from cloud_relay.registry import Registry
    from shared.clock import TrustedClock
    from shared.protocol import MemoryBudget
    from shared.tunnel.gaps import GapWatch


class House(NamedTuple):
    """What the listener shares with the rest of the process."""

    loop: asyncio.AbstractEventLoop
    registry: Registry
    budget: MemoryBudget
    gaps: GapWatch
    clock: TrustedClock
    identity: IdentityService | None


def make_policy(config: RelayConfig, contexts: Contexts, identity: IdentityService | None) -> Policy:
    """Whom the tunnel listener admits."""
    book = identity.office.book if identity is not None else None
    if config.tunnel.tls is None and book is not None:
        return BookPolicy(config, book)
    return ConfigPolicy(config, book, contexts.cas)


def make_tunnel_listener(house: House, config: RelayConfig, contexts: Contexts) -> TunnelListener:
    """It listens nowhere yet."""
    limits = config.tunnel.limits
    enrolment = renewal = guard = None
    if house.identity is not None and house.identity.is_authority:
        office = house.identity.office
        enrolment = Enrolment(house.loop, office.registrar, house.clock.timestamp)
        renewal = RenewalDesk(house.loop, office.registrar)
        guard = TargetGuard(office.book)
    return TunnelListener(
        house.loop,
        contexts.tunnel,
        make_policy(config, contexts, house.identity),
        house.registry,
        budget=house.budget,
        gaps=house.gaps,
        limits=TunnelLimits(
            limits.handshakes,
            limits.handshakes_per_source,
            limits.handshake_timeout,
            limits.tunnels,
            limits.tunnels_per_connector,
        ),
        software=f"cloud-relay {version()}",
        clock=house.clock,
        enrolment=enrolment,
        renewal=renewal,
        guard=guard,
    )
