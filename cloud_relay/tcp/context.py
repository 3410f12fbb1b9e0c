"""What all TCP connections of the process share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from cloud_relay.places import Holding, Places
from shared.errors import FAULTS
from shared.timers import precise_clock
from shared.tunnel.tls import ReadBuffers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloud_relay.ingress import Ingress
    from cloud_relay.tcp.push import TcpPush
    from cloud_relay.tcp.routes import TcpRoute

HANDSHAKE_TIMEOUT: Final = 5.0
"""Seconds for TLS."""

EARLY_BYTES: Final = 64 * 1024
"""What is taken of a sender before the target has taken the connection: it is kept for another try."""

MAX_TRIES: Final = 3

_STARTING: Final = FAULTS["starting"]


class TcpContext:
    """Everything that is under way. `ingress` knows the process's state and its context, numbers requests, and budgets
    further tries. `tenants`: how many have TCP routes; when connections run short, they have equal shares of them."""

    __slots__ = ("_held", "_is_empty", "_places", "buffers", "connections", "ingress", "loop", "tenants", "time")

    def __init__(self, ingress: Ingress) -> None:
        self.ingress = ingress
        self.loop = ingress.loop
        self.time = precise_clock(ingress.loop)
        self.buffers = ReadBuffers()
        self.connections: set[TcpPush] = set()
        self.tenants = 1
        self._places = Places(0)
        self._held: dict[str, Holding] = {}
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def has_place_for(self, tenant: str) -> bool:
        """Whether one more connection of this tenant can be taken, those in their handshake counted too."""
        self._places.resize(self.ingress.context.settings.max_connections, self.tenants)
        return self._places.may_take(self._held.get(tenant) or Holding())

    def enter(self, connection: TcpPush) -> None:
        """A connection was taken."""
        self.connections.add(connection)
        self._places.take(self._held.setdefault(connection.route.tenant, Holding()))
        self._is_empty.clear()

    def leave(self, connection: TcpPush) -> None:
        """It is over."""
        if connection in self.connections:
            self.connections.discard(connection)
            tenant = connection.route.tenant
            held = self._held[tenant]
            self._places.give_back(held)
            if not held.held:
                del self._held[tenant]
        self.ingress.certified.discard(connection)
        if not self.connections:
            self._is_empty.set()

    def recheck(self, routes: Mapping[tuple[str, str], TcpRoute]) -> None:
        """After a reload: what may not be any more ends now."""
        for connection in list(self.connections):
            connection.recheck(routes.get((connection.route.tenant, connection.route.name)))

    async def close(self, grace: float) -> None:
        """Let what is open end for `grace` seconds, then reset the rest. No port may hand on more."""
        try:
            async with asyncio.timeout(grace):
                await self._is_empty.wait()
        except TimeoutError:
            self.abort()

    def abort(self) -> None:
        """Reset everything at once."""
        for connection in list(self.connections):
            connection.fail(_STARTING)
