"""Probing as the relay's composition root sees it: one object to make, use, start and close."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_relay.probing.book import HealthBook
from cloud_relay.probing.prober import Prober, ProbeSettings
from cloud_relay.probing.view import RouteHealth, route_health

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from cloud_relay.config.models import ProbesConfig
    from cloud_relay.health import Routed
    from cloud_relay.registry import Registry
    from cloud_relay.session import Key


class Probing:
    """Watches the registry from the start on; asks for what routes lead to, and no more, once it is started."""

    def __init__(self, loop: asyncio.AbstractEventLoop, registry: Registry, share: int = 1) -> None:
        """`share`: so many processes are this relay together."""
        self._share = share
        self._loop = loop
        self._registry = registry
        self.book = HealthBook(registry, loop.time)
        self.prober = Prober(loop, self.book)
        self.elsewhere: Callable[[Key], Sequence[tuple[str, str]]] = _nowhere
        """How a target is behind connectors of other workers: each a state and why."""
        registry.watcher = self.book

    def use(self, config: ProbesConfig, routes: Sequence[Routed]) -> None:
        """From now on these routes, by this config."""
        settings = ProbeSettings(config.interval, config.failing_interval, config.rate / self._share)
        self.prober.use({route.key for route in routes}, settings)

    def start(self) -> None:
        """Begin to look after time."""
        self.prober.start()

    def close(self) -> None:
        """Ask no more. Twice is once."""
        self.prober.close()

    def health(self, route: Routed) -> RouteHealth:
        """How a route is, from its target back to here."""
        return route_health(self._registry, self.book, route.key, self._loop.time(), self.elsewhere(route.key))


def _nowhere(_key: Key) -> Sequence[tuple[str, str]]:
    """There are no other workers."""
    return ()
