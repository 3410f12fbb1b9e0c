"""What the relay counts. Plain numbers in slots, bound to routes and senders before the first push, read when asked for.

Labels hold names of the config and codes of the catalogue only, never anything that came over the network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shared.metrics import LatencyHistogram

if TYPE_CHECKING:
    from shared.errors import Fault

_CLASSES: Final = 6


class RouteMetrics:
    """The counters of one route, kept over reloads.

    `in_flight`, `bytes_in` (body bytes from senders), `bytes_out` (body bytes to senders), `dropped_headers` and `retries` are
    changed in place. `by_class[n]` counts answers of status n00 to n99, `by_class[0]` pushes that ended without one.
    """

    __slots__ = (
        "beyond",
        "by_class",
        "bytes_in",
        "bytes_out",
        "dropped_headers",
        "faults",
        "held",
        "in_flight",
        "location",
        "retries",
        "route",
        "target",
        "tenant",
        "total",
        "waited",
    )

    def __init__(self, tenant: str, route: str, location: str = "", target: str = "") -> None:
        self.tenant = tenant
        self.route = route
        self.location = location
        self.target = target
        self.in_flight = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.dropped_headers = 0
        self.retries = 0
        self.held = 0
        self.by_class = [0] * _CLASSES
        self.faults: dict[str, int] = {}
        self.total = LatencyHistogram()
        self.waited = LatencyHistogram()
        self.beyond = LatencyHistogram()

    def finished(self, status: int, fault: Fault | None, total: float, waited: float, beyond: float) -> None:
        """Count the end of a push.

        `status` is what the sender got, 0 when nothing; `fault` whose making it was, None for the target's own answer. In
        seconds: `total` from the end of the head to the end of the answer, `waited` for a connector to be there, `beyond` from
        the opening of the stream to the answer's status line (tunnel and target), negative when that never came.
        """
        self.by_class[status // 100 if 100 <= status < 600 else 0] += 1
        if fault is not None:
            code = fault.code
            self.faults[code] = self.faults.get(code, 0) + 1
        self.total.observe(total)
        if waited > 0.0:
            self.held += 1
            self.waited.observe(waited)
        if beyond >= 0.0:
            self.beyond.observe(beyond)


class SenderMetrics:
    """The counters of one sender, kept over reloads. `last_delivered` is Unix time of the last 2xx, 0.0 when there was none."""

    __slots__ = ("delivered", "last_delivered", "pushes", "sender", "tenant")

    def __init__(self, tenant: str, sender: str) -> None:
        self.tenant = tenant
        self.sender = sender
        self.pushes = 0
        self.delivered = 0
        self.last_delivered = 0.0


class ListenerMetrics:
    """The counters of one listener, by its configured address. The listener changes them in place.

    `faults` counts by code what was answered, or closed, before a route was known; `tls_failed` handshakes that broke off.
    """

    __slots__ = ("accepted", "dropped_headers", "faults", "listener", "open", "refused", "requests", "tls_failed")

    def __init__(self, listener: str) -> None:
        self.listener = listener
        self.accepted = 0
        self.open = 0
        self.refused = 0
        self.requests = 0
        self.tls_failed = 0
        self.dropped_headers = 0
        self.faults: dict[str, int] = {}

    def failed(self, fault: Fault) -> None:
        """Count a request that ended before a route was known."""
        self.faults[fault.code] = self.faults.get(fault.code, 0) + 1


class TunnelMetrics:
    """The counters of the tunnel listener. `refused` counts handshakes by the fault's code, `closed` sessions likewise."""

    __slots__ = ("accepted", "attached", "closed", "handshakes", "refused")

    def __init__(self) -> None:
        self.accepted = 0
        self.handshakes = 0
        self.attached = 0
        self.refused: dict[str, int] = {}
        self.closed: dict[str, int] = {}

    def refuse(self, code: str) -> None:
        """Count a handshake that was refused with this code."""
        self.refused[code] = self.refused.get(code, 0) + 1

    def close(self, code: str) -> None:
        """Count a session that ended with this code."""
        self.closed[code] = self.closed.get(code, 0) + 1


class RelayMetrics:
    """All counters of the process: one object, kept over reloads; hands out the children that the hot path holds."""

    def __init__(self) -> None:
        self.routes: dict[tuple[str, str], RouteMetrics] = {}
        self.senders: dict[tuple[str, str], SenderMetrics] = {}
        self.listeners: dict[str, ListenerMetrics] = {}
        self.tunnels = TunnelMetrics()

    def route(self, tenant: str, name: str, location: str, target: str) -> RouteMetrics:
        """The route's counters; the same object whenever the same route is asked for."""
        metrics = self.routes.get((tenant, name))
        if metrics is None:
            metrics = self.routes[tenant, name] = RouteMetrics(tenant, name)
        metrics.location, metrics.target = location, target
        return metrics

    def sender(self, tenant: str, name: str) -> SenderMetrics:
        """The sender's counters; the same object whenever the same sender is asked for."""
        metrics = self.senders.get((tenant, name))
        if metrics is None:
            metrics = self.senders[tenant, name] = SenderMetrics(tenant, name)
        return metrics

    def listener(self, address: str) -> ListenerMetrics:
        """The counters of the listener configured as `address`."""
        metrics = self.listeners.get(address)
        if metrics is None:
            metrics = self.listeners[address] = ListenerMetrics(address)
        return metrics
